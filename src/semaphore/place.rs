//! The state of one acquire, shared by the borrowing and the owning futures.
//!
//! ```text
//!                enough, nobody waits, budget left
//!  Outside ──────────────────────────────────────────────▶ Left
//!   │  │                                                    ▲
//!   │  └────▶ Queued ────▶ granted ─────────────────────────┤ budget left
//!   │            │ closed     │ closed                      │
//!   │            └────────────┴─────────────────────────────┤
//!   │ enqueue, enough                                       │
//!   └──────▶ Holding ───────────────────────────────────────┘ budget left, or closed
//! ```
//!
//! A task whose coop budget is spent takes nothing. It joins the wait list if it would have to wait
//! anyway, and stays `Outside` if not; once granted, it keeps its grant.
//!
//! Dropped while `Queued` it leaves the wait list or passes on its grant; dropped while `Holding` it
//! gives its permits back. Only `enqueue` leads to `Holding`, and a waker that panics as it is
//! dropped.

use core::task::{Context, Poll, Waker};

use super::error::{AcquireError, TryAcquireError};
use super::line::Ticket;
use super::state::{IfFree, Joined, State};
use crate::base::coop;
use crate::base::wake::WakerId;

pub(super) const COMPLETED: &str = "an acquire future was polled after it had completed";

#[derive(Debug)]
pub(super) struct Place {
    need: u32,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Outside,
    Queued {
        ticket: Ticket,
        waker: WakerId,
    },
    /// Has its permits, taken before the first poll.
    Holding,
    Left,
}

impl Place {
    pub(super) fn new(need: u32) -> Self {
        Self { need, stage: Stage::Outside }
    }

    pub(super) fn need(&self) -> u32 {
        self.need
    }

    #[inline(always)]
    pub(super) fn poll(
        &mut self,
        state: &State,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), AcquireError>> {
        // Only a look: to take a unit and give it back makes a wait a twentieth slower.
        if !coop::has_budget() {
            return self.poll_without_budget(state, cx);
        }
        if matches!(self.stage, Stage::Outside) && state.try_take(self.need as usize).is_ok() {
            self.stage = Stage::Left;
            coop::charge(cx);
            return Poll::Ready(Ok(()));
        }
        self.poll_slow(state, cx)
    }

    #[cold]
    fn poll_slow(&mut self, state: &State, cx: &mut Context<'_>) -> Poll<Result<(), AcquireError>> {
        let polled = self.wait(state, cx);
        // A waker that was dropped may have spent the budget. Then this must not clone another, which
        // may panic: the permits would be lost.
        if polled.is_ready() && coop::has_budget() {
            coop::charge(cx);
        }
        polled
    }

    fn wait(&mut self, state: &State, cx: &mut Context<'_>) -> Poll<Result<(), AcquireError>> {
        let result = match &mut self.stage {
            // Wakers are cloned and dropped out here: user code, which may do anything. So the
            // stage is right before one is dropped.
            Stage::Outside => {
                let fresh = cx.waker().clone();
                let waker = WakerId::of(&fresh);
                match state.join(self.need, fresh, IfFree::Take) {
                    Ok(Joined::Queued(ticket)) => {
                        self.stage = Stage::Queued { ticket, waker };
                        return Poll::Pending;
                    }
                    Ok(Joined::Free(unused)) => {
                        self.stage = Stage::Holding;
                        drop(unused);
                        Ok(())
                    }
                    Err(closed) => Err(closed),
                }
            }
            Stage::Queued { .. } | Stage::Holding if state.is_closed() => {
                self.leave_slow(state);
                Err(AcquireError(()))
            }
            Stage::Queued { ticket, waker } => {
                if !state.claim(*ticket) {
                    // Without the lock, if the task has not changed its waker.
                    if *waker == WakerId::of(cx.waker()) {
                        return Poll::Pending;
                    }
                    let fresh = cx.waker().clone();
                    *waker = WakerId::of(&fresh);
                    if state.rewake(*ticket, fresh).is_some() {
                        return Poll::Pending;
                    }
                    // It was served or closed since.
                    return self.wait(state, cx);
                }
                Ok(())
            }
            Stage::Holding => Ok(()),
            Stage::Left => panic!("{COMPLETED}"),
        };
        self.stage = Stage::Left;
        Poll::Ready(result)
    }

    /// The task has been woken, so that it is polled again with a new budget. Until then it takes
    /// nothing; but who has to wait anyway loses no place in line by yielding.
    #[cold]
    fn poll_without_budget(
        &mut self,
        state: &State,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), AcquireError>> {
        // Wakes the task. That may panic, so it comes first.
        coop::charge(cx);
        match self.stage {
            Stage::Outside if state.must_wait(self.need) => {
                let fresh = cx.waker().clone();
                let waker = WakerId::of(&fresh);
                // If it is free or closed by now, the next poll finds that.
                if let Ok(Joined::Queued(ticket)) = state.join(self.need, fresh, IfFree::Leave) {
                    self.stage = Stage::Queued { ticket, waker };
                }
            }
            Stage::Outside | Stage::Queued { .. } | Stage::Holding => {}
            Stage::Left => panic!("{COMPLETED}"),
        }
        Poll::Pending
    }

    /// Takes the place in line now, before the first poll, if there is not one already.
    pub(super) fn enqueue(&mut self, state: &State) {
        if !matches!(self.stage, Stage::Outside) {
            return;
        }
        let waker = Waker::noop();
        self.stage = match state.try_take(self.need as usize) {
            Ok(()) => Stage::Holding,
            // The first poll will find it closed.
            Err(TryAcquireError::Closed) => Stage::Outside,
            Err(TryAcquireError::NoPermits) => {
                match state.join(self.need, waker.clone(), IfFree::Take) {
                    Ok(Joined::Queued(ticket)) => {
                        Stage::Queued { ticket, waker: WakerId::of(waker) }
                    }
                    Ok(Joined::Free(_)) => Stage::Holding,
                    Err(AcquireError(())) => Stage::Outside,
                }
            }
        };
    }

    /// Whether it is on its way, with a place or with its permits.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Queued { .. } | Stage::Holding)
    }

    /// To be called when the future is dropped.
    #[inline]
    pub(super) fn leave(&mut self, state: &State) {
        if self.is_under_way() {
            self.leave_slow(state);
        }
    }

    #[cold]
    fn leave_slow(&mut self, state: &State) {
        match core::mem::replace(&mut self.stage, Stage::Left) {
            Stage::Queued { ticket, .. } => state.leave(ticket, self.need),
            Stage::Holding => state.release(self.need as usize),
            Stage::Outside | Stage::Left => {}
        }
    }
}
