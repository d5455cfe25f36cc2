//! Permits for items: from a semaphore that a run shares with others, or from the item in which it
//! is nested.
//!
//! An item that runs on a permit lends it to a run inside of it on the same budget, for one item of
//! that run at a time. So a nested batch always gets on, however many of its like hold the rest of
//! the budget:
//!
//! ```text
//!                  a nested run asks               its item has settled
//!   item's permit ──────────────────▶ on loan, lent ──────────────────▶ on loan, free
//!                                           ▲                                 │
//!                                           └─────────────────────────────────┘
//! ```
//!
//! What a permit is on loan from holds it until both the item and the borrower are done, so that
//! even a run that outlives its parent is counted.

use core::cell::RefCell;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::future::Future;
use std::sync::{Arc, Weak};
use std::task::Waker;

use crate::semaphore::{AcquireError, AcquireOwned, OwnedSemaphorePermit, Semaphore};
use crate::settled::quietly;
use crate::sync::{Mutex, thread_local};

thread_local! {
    /// The items that are being polled on this thread, each inside of the one before.
    // loom's macro knows no constants.
    #[allow(clippy::missing_const_for_thread_local)]
    static POLLED: RefCell<Vec<Frame>> = RefCell::new(Vec::new());
}

struct Frame {
    /// The address of the semaphore, which the run keeps alive.
    budget: usize,
    hold: Hold,
}

/// What an item runs on.
#[derive(Default)]
enum Hold {
    #[default]
    Nothing,
    Permit(Permit),
    OnLoan(Arc<Loan>),
}

/// Held, and never read: it goes back when it is dropped.
#[allow(dead_code)]
enum Permit {
    Own(OwnedSemaphorePermit),
    Lent(Lease),
}

struct Loan {
    state: Mutex<LoanState>,
    /// Goes back when nobody has the loan any more.
    _permit: Permit,
}

struct LoanState {
    lent: bool,
    /// One a nested run of the same item, as long as it waits.
    waiting: Vec<Waker>,
}

struct Lease(Arc<Loan>);

impl Loan {
    fn new(permit: Permit) -> Arc<Self> {
        let state = LoanState { lent: false, waiting: Vec::new() };
        Arc::new(Self { state: Mutex::new(state), _permit: permit })
    }

    fn lend(self: &Arc<Self>, waker: &Waker) -> Option<Lease> {
        let mut state = self.state.lock();
        if state.lent {
            // A waker of ours, which runs nobody's code when it is cloned.
            state.waiting.push(waker.clone());
            return None;
        }
        state.lent = true;
        Some(Lease(Arc::clone(self)))
    }

    /// The nested run with this waker does not wait any more.
    fn forget(&self, waker: &Waker) {
        let forgotten = {
            let waiting = &mut self.state.lock().waiting;
            let position = waiting.iter().position(|waiting| waiting.will_wake(waker));
            position.map(|position| waiting.swap_remove(position))
        };
        drop(forgotten);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.state.lock();
            state.lent = false;
            core::mem::take(&mut state.waiting)
        };
        for waker in waiting {
            quietly(|| waker.wake());
        }
    }
}

fn address(budget: &Arc<Semaphore>) -> usize {
    Arc::as_ptr(budget).addr()
}

/// Borrows the permit of the innermost item on this budget that is being polled. If it is on loan
/// already, the waker waits with the `lender`.
fn borrow(budget: &Arc<Semaphore>, waker: &Waker, lender: &mut Weak<Loan>) -> Option<Lease> {
    POLLED.with(|polled| {
        let mut polled = polled.borrow_mut();
        let frame = polled.iter_mut().rfind(|frame| frame.budget == address(budget))?;
        let loan = match core::mem::take(&mut frame.hold) {
            Hold::Nothing => return None,
            Hold::Permit(permit) => Loan::new(permit),
            Hold::OnLoan(loan) => loan,
        };
        let lease = loan.lend(waker);
        if lease.is_none() {
            *lender = Arc::downgrade(&loan);
        }
        frame.hold = Hold::OnLoan(loan);
        lease
    })
}

/// A run's permits.
pub(super) struct Permits {
    budget: Arc<Semaphore>,
    /// For the place in front of those that wait.
    asking: Option<(u32, AcquireOwned)>,
    asleep: bool,
    /// Where the waker waits for the permit of the item around the run, if it does. It does not
    /// keep that from going back.
    lender: Weak<Loan>,
    /// By place, and so are the weights.
    holds: Vec<Hold>,
    weights: Vec<u32>,
    waker: Waker,
}

impl Permits {
    pub(super) fn new(budget: Arc<Semaphore>, waker: Waker) -> Self {
        let (holds, weights) = (Vec::new(), Vec::new());
        let lender = Weak::new();
        Self { budget, asking: None, asleep: false, lender, holds, weights, waker }
    }

    /// An item of this weight has come to this place.
    pub(super) fn weigh(&mut self, place: usize, weight: u32) {
        if self.weights.len() <= place {
            self.weights.resize(place + 1, 0);
            self.holds.resize_with(place + 1, Hold::default);
        }
        self.weights[place] = weight;
    }

    /// Gets the permits for the place in front of those that wait: those of the item around the
    /// run, whatever this one weighs, or in line.
    pub(super) fn poll(&mut self, place: usize) -> Poll<Result<(), AcquireError>> {
        if self.asleep {
            return Poll::Pending;
        }
        self.leave_lender();
        let permit = match borrow(&self.budget, &self.waker, &mut self.lender) {
            Some(lease) => Permit::Lent(lease),
            None => {
                let most = u32::try_from(self.budget.limit()).unwrap_or(u32::MAX);
                let weight = self.weights[place].min(most).max(1);
                if !matches!(&self.asking, Some((asked, _)) if *asked == weight) {
                    self.asking =
                        Some((weight, Arc::clone(&self.budget).acquire_many_owned(weight)));
                }
                let Some((_, asking)) = &mut self.asking else { return Poll::Pending };
                match Pin::new(asking).poll(&mut Context::from_waker(&self.waker)) {
                    Poll::Pending => {
                        self.asleep = true;
                        return Poll::Pending;
                    }
                    Poll::Ready(result) => {
                        self.asking = None;
                        Permit::Own(result?)
                    }
                }
            }
        };
        self.holds[place] = Hold::Permit(permit);
        Poll::Ready(Ok(()))
    }

    /// The waker was woken.
    pub(super) fn woken(&mut self) {
        self.asleep = false;
    }

    /// Nobody waits for permits: those that were granted meanwhile go on to others.
    pub(super) fn rest(&mut self) {
        self.asleep = false;
        self.leave_lender();
        if let Some(asking) = self.asking.take() {
            quietly(|| drop(asking));
        }
    }

    fn leave_lender(&mut self) {
        if let Some(lender) = core::mem::take(&mut self.lender).upgrade() {
            lender.forget(&self.waker);
            // It may be the last to have it.
            quietly(|| drop(lender));
        }
    }

    /// The item at this place is about to be polled: to be followed by [`leave`](Self::leave).
    pub(super) fn enter(&mut self, place: usize) {
        let hold = core::mem::take(&mut self.holds[place]);
        let budget = address(&self.budget);
        POLLED.with(|polled| polled.borrow_mut().push(Frame { budget, hold }));
    }

    pub(super) fn leave(&mut self, place: usize) {
        if let Some(frame) = POLLED.with(|polled| polled.borrow_mut().pop()) {
            self.holds[place] = frame.hold;
        }
    }

    /// The item at this place is gone.
    pub(super) fn release(&mut self, place: usize) {
        if let Some(hold) = self.holds.get_mut(place) {
            let hold = core::mem::take(hold);
            // It may wake others, whose wakers may panic.
            quietly(|| drop(hold));
        }
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        self.leave_lender();
    }
}
