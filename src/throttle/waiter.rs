//! A waiter as its owner sees it, without a clock.
//!
//! ```text
//!           cannot start at once, or queued        starts
//!  new ────────────────────────────────▶ waiting ─────────▶ started
//!   └───────────────── starts at once ───────────────────────▲
//! ```

use core::ops::Deref;
use core::task::Context;
use std::time::Instant;

use super::Throttle;
use crate::base::panic::{FirstPanic, quietly};
use crate::base::wait_list::WaiterId;
use crate::base::wake::WakeList;

/// A waiter of a [`Throttle`], for callers with a clock of their own.
///
/// Made by [`Throttle::enqueue`] and, with an `Arc` in place of the borrow, by
/// [`enqueue_owned`](Throttle::enqueue_owned). With tokio's clock, await [`Throttle::acquire`] instead.
///
/// Dropping it removes it from the wait list, and leaves its turn to the next waiter.
#[derive(Debug)]
#[must_use = "it starts nothing unless it is polled: call `poll_at`"]
pub struct Waiter<T: Deref<Target = Throttle>> {
    throttle: T,
    n: u32,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Joins the wait list if it cannot start at once.
    New,
    Waiting(WaiterId),
    Started,
}

impl<T: Deref<Target = Throttle>> Waiter<T> {
    pub(crate) fn new(throttle: T, n: u32) -> Self {
        Self { throttle, n, stage: Stage::New }
    }

    pub(super) fn joined(throttle: T, n: u32) -> Self {
        let stage = if n > 0 { Stage::Waiting(throttle.core.join(n)) } else { Stage::New };
        Self { throttle, n, stage }
    }

    /// Joins the wait list if it has to wait. Starts nothing.
    #[cfg(feature = "tokio")]
    pub(super) fn join_unless_free(&mut self, now: Instant) {
        if let (Stage::New, 1..) = (&self.stage, self.n) {
            let ticks = self.throttle.epoch.ticks(now);
            if let Some(id) = self.throttle.core.join_unless_free(self.n, ticks) {
                self.stage = Stage::Waiting(id);
            }
        }
    }

    /// Starts, if it is first in the wait list and the rate allows it at `now`.
    ///
    /// # Errors
    ///
    /// The latest instant at which to call it again. The waker of `cx` is woken if it has to be called
    /// sooner, because other waiters have left.
    ///
    /// # Panics
    ///
    /// If it has started already.
    ///
    /// # Complexity
    ///
    /// O(n), and O(log waiters) where passed waiters have returned.
    pub fn poll_at(&mut self, now: Instant, cx: &mut Context<'_>) -> Result<(), Instant> {
        let throttle = &*self.throttle;
        let ticks = throttle.epoch.ticks(now);
        let id = match self.stage {
            Stage::Waiting(id) => id,
            Stage::New => {
                if self.n == 0 || throttle.core.try_start(self.n, ticks).is_ok() {
                    self.stage = Stage::Started;
                    return Ok(());
                }
                let id = throttle.core.join(self.n);
                self.stage = Stage::Waiting(id);
                id
            }
            Stage::Started => panic!("a waiter of a throttle was polled after it had started"),
        };
        let polled = throttle.core.poll(id, ticks, cx.waker().clone());
        if polled.started.is_ok() {
            self.stage = Stage::Started;
        }
        // User code: its panic must not lose the start that was just counted.
        for retired in polled.retired {
            quietly(|| drop(retired));
        }
        if let Some(waker) = polled.wake {
            quietly(|| waker.wake());
        }
        polled.started.map_err(|again| self.throttle.epoch.instant(again))
    }
}

impl<T: Deref<Target = Throttle>> Drop for Waiter<T> {
    fn drop(&mut self) {
        if let Stage::Waiting(id) = self.stage {
            let mut wakers = WakeList::new();
            let own = self.throttle.core.remove(id, &mut wakers);
            // User code: the first panic resumes once all of it has run.
            let mut panic = FirstPanic::default();
            panic.catch(|| {
                wakers.wake_all();
                wakers.finish();
            });
            panic.catch(|| drop(own));
            panic.resume();
        }
    }
}
