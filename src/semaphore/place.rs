//! Somebody's way through the line, shared by the borrowing and the owning futures.
//!
//! ```text
//!             enough, nobody in line
//!  Outside ─────────────────────────────▶ Holding ──▶ Left
//!     │                                      ▲          ▲
//!     └──▶ Queued ──▶ granted ───────────────┘          │
//!             │           │ closed                      │
//!             └───────────┴─────────────────────────────┘
//! ```
//!
//! Dropped while `Queued` it leaves the line or passes on its grant; dropped while `Holding` it
//! gives its permits back.

use core::task::{Context, Poll, Waker};

use super::error::{AcquireError, TryAcquireError};
use super::line::Key;
use super::state::{Joined, State};

pub(super) const COMPLETED: &str = "an acquire future was polled after it had completed";

#[derive(Debug)]
pub(super) struct Place {
    need: u32,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Outside,
    Queued { key: Key, waker: WakerId },
    Left,
}

/// Tells whether a task's waker is the one that was left in line, without asking the line.
#[derive(Debug, PartialEq, Eq)]
struct WakerId(usize, usize);

impl WakerId {
    fn of(waker: &Waker) -> Self {
        Self(waker.data().addr(), core::ptr::from_ref(waker.vtable()).addr())
    }
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
                Ok(()) => {
                    self.stage = Stage::Left;
                    return Poll::Ready(Ok(()));
                }
                Err(TryAcquireError::Closed) => {
                    self.stage = Stage::Left;
                    return Poll::Ready(Err(AcquireError(())));
                }
                Err(TryAcquireError::NoPermits) => {}
            }
        }
        self.poll_slow(state, cx)
    }

    #[cold]
    fn poll_slow(&mut self, state: &State, cx: &mut Context<'_>) -> Poll<Result<(), AcquireError>> {
        let id = WakerId::of(cx.waker());
        let result = match &mut self.stage {
            // Wakers are cloned out here: that is a stranger's code, and may do anything.
            Stage::Outside => match state.join(self.need, cx.waker().clone()) {
                Ok(Joined::Queued(key)) => {
                    self.stage = Stage::Queued { key, waker: id };
                    return Poll::Pending;
                }
                Ok(Joined::Taken) => Ok(()),
                Err(closed) => Err(closed),
            },
            Stage::Queued { key, waker } => {
                let fresh = (*waker != id).then(|| cx.waker().clone());
                match state.claim(*key, fresh) {
                    Some(result) => result,
                    None => {
                        *waker = id;
                        return Poll::Pending;
                    }
                }
            }
            Stage::Left => panic!("{COMPLETED}"),
        };
        self.stage = Stage::Left;
        Poll::Ready(result)
    }

    /// To be called when the future is dropped.
    #[inline]
    pub(super) fn leave(&mut self, state: &State) {
        if let Stage::Queued { key, .. } = self.stage {
            self.stage = Stage::Left;
            state.leave(key);
        }
    }
}
