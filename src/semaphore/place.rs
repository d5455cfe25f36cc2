//! Somebody's way through the line, shared by the borrowing and the owning futures.
//!
//! ```text
//!             enough, nobody in line             handed over
//!  Outside ───────────────────────────▶ Holding ─────────────▶ Left
//!     │                                    ▲  │                  ▲
//!     └──▶ Queued ───▶ granted ────────────┘  │ closed           │
//!             │ closed    │ closed            │                  │
//!             └───────────┴───────────────────┴──────────────────┘
//! ```
//!
//! Dropped while `Queued` it leaves the line or passes on its grant; dropped while `Holding` it
//! gives its permits back. `Holding` lasts only if the place was taken before the first poll, if
//! the task has used up its turn, or if its waker panics.

use core::task::{Context, Poll, Waker};

use super::error::{AcquireError, TryAcquireError};
use super::line::Ticket;
use super::state::{Joined, State};
use crate::coop;
use crate::waker_id::WakerId;

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
    /// Has its permits, and has not handed them over yet.
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

    #[inline]
    pub(super) fn poll(
        &mut self,
        state: &State,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), AcquireError>> {
        if let Stage::Outside = self.stage {
            match state.try_take(self.need as usize) {
                Ok(()) => return self.hand_over(cx),
                Err(TryAcquireError::Closed) => {
                    self.stage = Stage::Left;
                    return Poll::Ready(Err(AcquireError(())));
                }
                Err(TryAcquireError::NoPermits) => {}
            }
        }
        self.poll_slow(state, cx)
    }

    /// The permits are had: a task that has used up its turn keeps them while it yields, so that
    /// yielding costs no place in line.
    #[inline]
    fn hand_over(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AcquireError>> {
        // First: looking at the turn may clone the waker, which may panic.
        self.stage = Stage::Holding;
        if coop::is_spent(cx) {
            return Poll::Pending;
        }
        self.stage = Stage::Left;
        Poll::Ready(Ok(()))
    }

    #[cold]
    fn poll_slow(&mut self, state: &State, cx: &mut Context<'_>) -> Poll<Result<(), AcquireError>> {
        let result = match &mut self.stage {
            // Wakers are cloned and dropped out here: that is a stranger's code, and may do
            // anything. So the stage is right before one is dropped.
            Stage::Outside => {
                let fresh = cx.waker().clone();
                let waker = WakerId::of(&fresh);
                match state.join(self.need, fresh) {
                    Ok(Joined::Queued(ticket)) => {
                        self.stage = Stage::Queued { ticket, waker };
                        return Poll::Pending;
                    }
                    Ok(Joined::Taken(unused)) => {
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
                    return self.poll_slow(state, cx);
                }
                Ok(())
            }
            Stage::Holding => Ok(()),
            Stage::Left => panic!("{COMPLETED}"),
        };
        match result {
            Ok(()) => self.hand_over(cx),
            Err(closed) => {
                self.stage = Stage::Left;
                Poll::Ready(Err(closed))
            }
        }
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
            Err(TryAcquireError::NoPermits) => match state.join(self.need, waker.clone()) {
                Ok(Joined::Queued(ticket)) => Stage::Queued { ticket, waker: WakerId::of(waker) },
                Ok(Joined::Taken(_)) => Stage::Holding,
                Err(AcquireError(())) => Stage::Outside,
            },
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
