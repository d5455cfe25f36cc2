//! One waiter: the future's part of an acquire.
//!
//! ```text
//!         permits free, no waiters, budget left
//!  New ─────────────────────────────────────────────────▶ Done
//!   │  │                                                    ▲
//!   │  └────▶ Waiting ────▶ granted ────────────────────────┤ budget left
//!   │            │ closed      │ closed                     │
//!   │            └─────────────┴────────────────────────────┤
//!   │ enqueue, permits free                                 │
//!   └──────▶ Holding ───────────────────────────────────────┘ budget left, or closed
//! ```
//!
//! A task whose coop budget is spent takes nothing. It joins the wait list if it would have to wait
//! anyway, and stays `New` if not; once granted, it keeps its grant.
//!
//! Dropped while `Waiting` it leaves the wait list or passes on its grant; dropped while `Holding` it
//! gives its permits back. Only `enqueue` leads to `Holding`, and a waker that panics as it is
//! dropped.

use core::future::Future;
use core::ops::Deref;
use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};
use std::sync::Arc;

use super::Semaphore;
use super::core::{Core, IfFree, Joined};
use super::error::AcquireError;
use super::permit::Permits;
use super::waiters::Request;
use crate::base::coop;
use crate::base::wait_list::WaiterId;
use crate::base::wake::WakerId;

const COMPLETED: &str = "an acquire future was polled after it had completed";

/// Waits for permits; made by [`Semaphore::acquire`] and its kin.
///
/// It joins the wait list when it is first polled, with one exception: see
/// [fairness](Semaphore#fairness).
///
/// # Cancel safety
///
/// Dropping it removes it from the wait list, and no other waiter; permits that were granted to it
/// and not yet fetched go to the next waiter.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled: `.await` it to get the permit"]
pub struct Acquire<S: Deref<Target = Semaphore>> {
    /// Moves into the permit.
    semaphore: Option<S>,
    waiter: Waiter,
}

/// [`Acquire`] for a semaphore in an [`Arc`]; made by [`Semaphore::acquire_owned`] and its kin.
pub type AcquireOwned = Acquire<Arc<Semaphore>>;

#[derive(Debug)]
struct Waiter {
    /// What it was granted, once it holds that.
    request: Request,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    New,
    Waiting {
        id: WaiterId,
        /// The waker that is in the wait list.
        waker: WakerId,
    },
    /// Has its permits, and has not handed them out.
    Holding,
    Done,
}

impl<S: Deref<Target = Semaphore>> Acquire<S> {
    #[inline]
    pub(super) fn new(semaphore: S, request: Request) -> Self {
        Self { semaphore: Some(semaphore), waiter: Waiter { request, stage: Stage::New } }
    }

    pub(super) fn permits(&self) -> u32 {
        self.waiter.request.permits
    }

    #[inline(always)]
    fn complete(&mut self, permits: usize) -> Result<Permits<S>, AcquireError> {
        // It is there: `poll` has looked. Like this, and unlike a second look, that costs nothing.
        self.waiter.stage = Stage::Done;
        let semaphore = self.semaphore.take().ok_or(AcquireError(()))?;
        Ok(Permits::new(semaphore, permits))
    }

    /// Joins the wait list before the first poll, unless the permits are free.
    pub(super) fn enqueue(mut self) -> Self {
        if let Some(semaphore) = &self.semaphore {
            self.waiter.enqueue(&semaphore.core);
        }
        self
    }
}

impl<S: Deref<Target = Semaphore> + Unpin> Future for Acquire<S> {
    type Output = Result<Permits<S>, AcquireError>;

    // The fast path is a tenth slower as a call.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(semaphore) = &this.semaphore else { panic!("{COMPLETED}") };
        let (core, permits) = (&semaphore.core, this.waiter.request.permits as usize);
        if matches!(this.waiter.stage, Stage::New) {
            if let Some(word) = core.word_with(permits) {
                // Charged before it takes anything: to look at the budget first and to charge it later
                // costs another access to the thread's storage.
                let Poll::Ready(unit) = coop::poll_proceed(cx) else { return Poll::Pending };
                if core.take_from(word, permits) {
                    coop::keep(unit);
                    return Poll::Ready(this.complete(permits));
                }
                coop::give_back(unit);
            }
        }
        let result = ready!(this.waiter.poll_slow(core, cx));
        // It is completed, refused or not. No permits are nothing to return.
        let permits = this.complete(result.unwrap_or(0) as usize);
        Poll::Ready(result.and(permits))
    }
}

impl<S: Deref<Target = Semaphore>> Drop for Acquire<S> {
    #[inline]
    fn drop(&mut self) {
        if matches!(self.waiter.stage, Stage::Waiting { .. } | Stage::Holding) {
            if let Some(semaphore) = &self.semaphore {
                self.waiter.leave(&semaphore.core);
            }
        }
    }
}

impl Waiter {
    /// Waits, and returns how many permits it was granted.
    #[cold]
    fn poll_slow(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<Result<u32, AcquireError>> {
        let Poll::Ready(unit) = coop::poll_proceed(cx) else {
            self.yield_without_budget(core, cx);
            return Poll::Pending;
        };
        let result = ready!(self.wait(core, cx)).map(|()| self.request.permits);
        self.stage = Stage::Done;
        coop::keep(unit);
        Poll::Ready(result)
    }

    /// Wakers are cloned and dropped here, without the lock: user code, which may do anything. So the
    /// stage is right before one is dropped.
    fn wait(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<Result<(), AcquireError>> {
        match &mut self.stage {
            Stage::New => {
                return match self.join(core, cx.waker().clone(), IfFree::Take) {
                    Ok(()) if matches!(self.stage, Stage::Waiting { .. }) => Poll::Pending,
                    joined => Poll::Ready(joined),
                };
            }
            Stage::Waiting { .. } | Stage::Holding if core.is_closed() => {
                self.leave(core);
                return Poll::Ready(Err(AcquireError(())));
            }
            Stage::Waiting { id, waker } => match core.claim(*id, self.request) {
                Some(granted) => self.request.permits = granted,
                // Without the lock, if the task has not changed its waker.
                None if *waker == WakerId::of(cx.waker()) => return Poll::Pending,
                None => {
                    let fresh = cx.waker().clone();
                    *waker = WakerId::of(&fresh);
                    if core.rewake(*id, fresh).is_some() {
                        return Poll::Pending;
                    }
                    // It was served or closed since.
                    return self.wait(core, cx);
                }
            },
            Stage::Holding => {}
            Stage::Done => panic!("{COMPLETED}"),
        }
        Poll::Ready(Ok(()))
    }

    /// Takes nothing; the task has been woken, to be polled again with a new budget. A waiter that has
    /// to wait anyway joins the wait list before it yields.
    #[cold]
    fn yield_without_budget(&mut self, core: &Core, cx: &mut Context<'_>) {
        if matches!(self.stage, Stage::New) && core.must_wait(self.request.permits as usize) {
            // If it is free or closed by now, the next poll finds that.
            let _ = self.join(core, cx.waker().clone(), IfFree::Leave);
        }
    }

    fn enqueue(&mut self, core: &Core) {
        if core.try_take(self.request.permits as usize).is_ok() {
            self.stage = Stage::Holding;
        } else {
            // If it is closed, the first poll finds that.
            let _ = self.join(core, Waker::noop().clone(), IfFree::Take);
        }
    }

    #[inline(always)]
    fn join(&mut self, core: &Core, fresh: Waker, if_free: IfFree) -> Result<(), AcquireError> {
        let waker = WakerId::of(&fresh);
        match core.join(self.request, fresh, if_free)? {
            Joined::Waiting(id) => self.stage = Stage::Waiting { id, waker },
            Joined::Taken(permits, _unused) => {
                self.request.permits = permits;
                self.stage = Stage::Holding;
            }
            Joined::Free(_unused) => {}
        }
        Ok(())
    }

    /// Leaves the wait list, or gives back what it has.
    #[cold]
    fn leave(&mut self, core: &Core) {
        match core::mem::replace(&mut self.stage, Stage::New) {
            Stage::Waiting { id, .. } => core.leave(id, self.request),
            Stage::Holding => core.release(self.request.permits as usize),
            Stage::New | Stage::Done => {}
        }
    }
}
