//! Permits for items: from a semaphore that a run shares with others, or from the item in which it
//! is nested.
//!
//! An item that runs on permits lends them to the runs inside of it on the same semaphore:
//!
//! ```text
//!                   a nested run asks                 its item has settled
//!   item's permits ──────────────────▶ on loan, lent ──────────────────▶ on loan, free
//!                                           ▲                                  │
//!                                           └──────────────────────────────────┘
//! ```
//!
//! A nested item takes no more than its parent has, so that all of a batch can always run on its
//! parent's permits, one item after the other, and never needs any of the rest of the semaphore, which
//! others of its like may hold. What is heavier is refused: it would have to wait for permits while
//! its parent holds some, as the parents of others may.
//!
//! What permits are on loan from holds them until both the item and all borrowers are done, so that
//! even a run that outlives its parent is counted.

use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::task::Waker;

use super::summary::BatchEnd;
use crate::base::panic::quietly;
use crate::base::sync::{Mutex, thread_local};
use crate::semaphore::{AcquireOwned, OwnedSemaphorePermit, Semaphore};

thread_local! {
    /// The items that are being polled on this thread, each inside of the one before.
    // loom's macro knows no constants.
    #[allow(clippy::missing_const_for_thread_local)]
    static POLLED: RefCell<Vec<Frame>> = RefCell::new(Vec::new());
}

struct Frame {
    /// The address of the semaphore, which the run keeps alive.
    semaphore: usize,
    hold: Hold,
    /// What the item weighs, which may be more than it holds.
    weight: u32,
}

/// What an item runs on.
#[derive(Default)]
enum Hold {
    #[default]
    Nothing,
    Permit(Permit),
    OnLoan(Arc<Loan>),
}

enum Permit {
    Own(OwnedSemaphorePermit),
    Lent(Lease),
}

impl Permit {
    fn count(&self) -> u32 {
        match self {
            Self::Own(permit) => u32::try_from(permit.num_permits()).unwrap_or(u32::MAX),
            Self::Lent(lease) => lease.permits,
        }
    }
}

struct Loan {
    permits: u32,
    state: Mutex<LoanState>,
    /// Goes back when nobody has the loan any more.
    _permit: Permit,
}

struct LoanState {
    free: u32,
    /// First come, first served: at most one entry per nested run of the item.
    waiting: VecDeque<Borrower>,
}

struct Borrower {
    need: u32,
    /// One of ours, which runs no user code when it is cloned or dropped.
    waker: Waker,
}

impl LoanState {
    /// The waker of the borrower in front, if there is enough for it.
    fn served(&self) -> Option<Waker> {
        let front = self.waiting.front().filter(|front| front.need <= self.free)?;
        Some(front.waker.clone())
    }
}

/// Permits that an item lends to an item inside of it.
struct Lease {
    loan: Arc<Loan>,
    permits: u32,
}

/// To be called without a lock.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        quietly(|| waker.wake());
    }
}

impl Loan {
    fn new(permit: Permit) -> Arc<Self> {
        let permits = permit.count();
        let state = LoanState { free: permits, waiting: VecDeque::new() };
        Arc::new(Self { permits, state: Mutex::new(state), _permit: permit })
    }

    /// Lends so many, or lets the waker wait for them. Also returns the next borrower to be woken.
    fn lend(self: &Arc<Self>, need: u32, waker: &Waker) -> (Option<Lease>, Option<Waker>) {
        let mut state = self.state.lock();
        let at = state.waiting.iter().position(|borrower| borrower.waker.will_wake(waker));
        let is_first = at.map_or(state.waiting.is_empty(), |at| at == 0);
        if is_first && need <= state.free {
            state.waiting.pop_front();
            state.free -= need;
            let lease = Lease { loan: Arc::clone(self), permits: need };
            return (Some(lease), state.served());
        }
        match at {
            Some(at) => state.waiting[at].need = need,
            None => state.waiting.push_back(Borrower { need, waker: waker.clone() }),
        }
        (None, None)
    }

    /// The nested run with this waker does not wait any more.
    fn forget(&self, waker: &Waker) {
        let next = {
            let mut state = self.state.lock();
            let mut waiting = state.waiting.iter();
            match waiting.position(|borrower| borrower.waker.will_wake(waker)) {
                Some(at) => state.waiting.remove(at),
                None => return,
            };
            state.served()
        };
        wake(next);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let next = {
            let mut state = self.loan.state.lock();
            state.free += self.permits;
            state.served()
        };
        wake(next);
    }
}

fn address(semaphore: &Arc<Semaphore>) -> usize {
    Arc::as_ptr(semaphore).addr()
}

/// What comes of asking the item around a run for its permits.
enum Borrowed {
    /// There is no such item.
    NoParent,
    Lent(Lease),
    /// The waker waits with the lender.
    Later,
    TooHeavy(BatchEnd),
}

/// A run's permits.
pub(super) struct Permits {
    semaphore: Arc<Semaphore>,
    /// For the slot in front of those that wait, with its weight.
    asking: Option<(u32, AcquireOwned)>,
    asleep: bool,
    /// Where the waker waits for permits of the item around the run, if it does. It does not keep
    /// those from going back.
    lender: Weak<Loan>,
    /// By slot, and so are the weights.
    holds: Vec<Hold>,
    weights: Vec<u32>,
    waker: Waker,
}

impl Permits {
    pub(super) fn new(semaphore: Arc<Semaphore>, waker: Waker) -> Self {
        let (holds, weights) = (Vec::new(), Vec::new());
        let lender = Weak::new();
        Self { semaphore, asking: None, asleep: false, lender, holds, weights, waker }
    }

    /// An item of this weight has come to this slot.
    pub(super) fn weigh(&mut self, slot: usize, weight: u32) {
        if self.weights.len() <= slot {
            self.weights.resize(slot + 1, 0);
            self.holds.resize_with(slot + 1, Hold::default);
        }
        self.weights[slot] = weight;
    }

    /// Gets the permits for the slot in front of those that wait: from the item around the run, or
    /// in line.
    ///
    /// # Errors
    ///
    /// Why there are none to be had, which ends the run.
    pub(super) fn poll(&mut self, slot: usize) -> Poll<Result<(), BatchEnd>> {
        if self.asleep {
            return Poll::Pending;
        }
        let weight = self.weights[slot].max(1);
        let permit = match self.borrow(weight) {
            Borrowed::Lent(lease) => Permit::Lent(lease),
            Borrowed::TooHeavy(end) => return Poll::Ready(Err(end)),
            Borrowed::NoParent | Borrowed::Later => match self.acquire(weight) {
                Poll::Ready(Ok(permit)) => Permit::Own(permit),
                Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                Poll::Pending => {
                    self.asleep = true;
                    return Poll::Pending;
                }
            },
        };
        self.leave_lender();
        self.holds[slot] = Hold::Permit(permit);
        Poll::Ready(Ok(()))
    }

    /// Borrows from the innermost item on this semaphore that is being polled.
    fn borrow(&mut self, weight: u32) -> Borrowed {
        let Self { semaphore, waker, lender, .. } = self;
        let mut before = Weak::new();
        let (borrowed, next) = POLLED.with(|polled| {
            let mut polled = polled.borrow_mut();
            let parent = polled.iter_mut().rfind(|frame| frame.semaphore == address(semaphore));
            let Some(parent) = parent else { return (Borrowed::NoParent, None) };
            let loan = match core::mem::take(&mut parent.hold) {
                Hold::Nothing => return (Borrowed::NoParent, None),
                Hold::Permit(permit) => Loan::new(permit),
                Hold::OnLoan(loan) => loan,
            };
            before = core::mem::replace(lender, Arc::downgrade(&loan));
            let need = weight.min(u32::try_from(semaphore.limit()).unwrap_or(u32::MAX)).max(1);
            // A parent that weighs as much has all that there were when it started.
            let fits = need <= loan.permits || weight <= parent.weight;
            let asked = if fits {
                let (lease, next) = loan.lend(need.min(loan.permits), waker);
                (lease.map_or(Borrowed::Later, Borrowed::Lent), next)
            } else {
                let end = BatchEnd::NestedTooHeavy { weight: need, permits: loan.permits };
                (Borrowed::TooHeavy(end), None)
            };
            parent.hold = Hold::OnLoan(loan);
            asked
        });
        // It may be polled in another item than before, or outside of any.
        if !matches!(borrowed, Borrowed::NoParent) && !Weak::ptr_eq(&before, lender) {
            leave(before, waker);
        }
        if matches!(borrowed, Borrowed::NoParent) {
            self.leave_lender();
        }
        wake(next);
        borrowed
    }

    /// Waits for permits of its own.
    fn acquire(&mut self, weight: u32) -> Poll<Result<OwnedSemaphorePermit, BatchEnd>> {
        if self.asking.as_ref().is_some_and(|(asked, _)| *asked != weight) {
            self.stop_asking();
        }
        let Self { semaphore, asking, waker, .. } = self;
        // The heaviest items take all permits, however many those are by then.
        let clamped = || (weight, Arc::clone(semaphore).acquire_clamped_owned(weight));
        let (_, acquire) = asking.get_or_insert_with(clamped);
        let polled = Pin::new(acquire).poll(&mut Context::from_waker(waker));
        if polled.is_ready() {
            self.asking = None;
        }
        polled.map_err(|_closed| BatchEnd::SemaphoreClosed)
    }

    /// The waker was woken.
    pub(super) fn woken(&mut self) {
        self.asleep = false;
    }

    /// Nobody waits for permits: those that were granted meanwhile go on to others.
    pub(super) fn stop_waiting(&mut self) {
        self.asleep = false;
        self.leave_lender();
        self.stop_asking();
    }

    fn stop_asking(&mut self) {
        let asking = self.asking.take();
        // It may wake others, whose wakers may panic.
        quietly(|| drop(asking));
    }

    fn leave_lender(&mut self) {
        leave(core::mem::take(&mut self.lender), &self.waker);
    }

    /// The item in this slot is about to be polled: to be followed by [`leave`](Self::leave).
    pub(super) fn begin_poll(&mut self, slot: usize) {
        let hold = core::mem::take(&mut self.holds[slot]);
        let (semaphore, weight) = (address(&self.semaphore), self.weights[slot]);
        POLLED.with(|polled| polled.borrow_mut().push(Frame { semaphore, hold, weight }));
    }

    pub(super) fn end_poll(&mut self, slot: usize) {
        if let Some(frame) = POLLED.with(|polled| polled.borrow_mut().pop()) {
            self.holds[slot] = frame.hold;
        }
    }

    /// The item in this slot is gone.
    pub(super) fn release(&mut self, slot: usize) {
        if let Some(hold) = self.holds.get_mut(slot) {
            let hold = core::mem::take(hold);
            // It may wake others, whose wakers may panic.
            quietly(|| drop(hold));
        }
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        self.stop_waiting();
    }
}

/// The waker waits with this lender no longer.
fn leave(lender: Weak<Loan>, waker: &Waker) {
    if let Some(lender) = lender.upgrade() {
        lender.forget(waker);
        // It may be the last to have it.
        quietly(|| drop(lender));
    }
}
