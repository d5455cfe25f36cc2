use core::ops::Deref;
use core::task::Context;
use std::time::Instant;

use super::Throttle;
use super::line::Turn;
use crate::base::panic::FirstPanic;
use crate::base::panic::quietly;
use crate::base::wake::WakeList;

/// A place in the line of a [`Throttle`], for those who keep the time themselves.
///
/// Made by [`Throttle::enqueue`], and by [`enqueue_owned`](Throttle::enqueue_owned) with an `Arc`
/// in place of the borrow. Whoever has tokio's clock awaits [`Throttle::acquire`] instead.
///
/// Dropping it gives up the place, and leaves its turn to the next in line.
#[derive(Debug)]
#[must_use = "it starts nothing unless it looks: call `poll_at`"]
pub struct Waiter<T: Deref<Target = Throttle>> {
    throttle: T,
    n: u32,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Takes its place in line if it cannot start at once.
    Outside,
    InLine(u64),
    Started,
}

impl<T: Deref<Target = Throttle>> Waiter<T> {
    pub(crate) fn new(throttle: T, n: u32) -> Self {
        Self { throttle, n, stage: Stage::Outside }
    }

    pub(super) fn join(&mut self) {
        if self.n > 0 {
            self.stage = Stage::InLine(self.throttle.state.join(self.n));
        }
    }

    /// Takes its place in line at once if it is outside and would have to wait, and starts nothing.
    #[cfg(feature = "tokio")]
    pub(super) fn join_if_it_waits(&mut self, now: Instant) {
        if let (Stage::Outside, 1..) = (&self.stage, self.n) {
            let ticks = self.throttle.epoch.ticks(now);
            if let Some(number) = self.throttle.state.join_unless_free(self.n, ticks) {
                self.stage = Stage::InLine(number);
            }
        }
    }

    /// Starts, if it is its turn and it may start at `now`.
    ///
    /// # Errors
    ///
    /// When to call it again, at the latest. The waker of `cx` is woken if it is to be called
    /// sooner, because others have left the line.
    ///
    /// # Panics
    ///
    /// If it has started already.
    ///
    /// # Complexity
    ///
    /// O(log waiters), and O(n) more.
    pub fn poll_at(&mut self, now: Instant, cx: &mut Context<'_>) -> Result<(), Instant> {
        let throttle = &*self.throttle;
        let ticks = throttle.epoch.ticks(now);
        let number = match self.stage {
            Stage::InLine(number) => number,
            Stage::Outside => {
                if self.n == 0 || throttle.state.try_start(self.n, ticks).is_ok() {
                    self.stage = Stage::Started;
                    return Ok(());
                }
                let number = throttle.state.join(self.n);
                self.stage = Stage::InLine(number);
                number
            }
            Stage::Started => panic!("a place in line was polled after it had started"),
        };
        let look = throttle.state.look(number, ticks, cx.waker().clone());
        if let Turn::Started = look.turn {
            self.stage = Stage::Started;
        }
        // A stranger's code, whose panic must not cost a turn that was just had.
        for retired in look.retired {
            quietly(|| drop(retired));
        }
        if let Some(waker) = look.wake {
            quietly(|| waker.wake());
        }
        match look.turn {
            Turn::Started => Ok(()),
            Turn::At(until) => Err(self.throttle.epoch.instant(until)),
        }
    }
}

impl<T: Deref<Target = Throttle>> Drop for Waiter<T> {
    fn drop(&mut self) {
        if let Stage::InLine(number) = self.stage {
            let mut wakers = WakeList::new();
            let own = self.throttle.state.leave(number, &mut wakers);
            // User code: the first panic goes on when all of it was called.
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
