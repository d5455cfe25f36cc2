//! The futures that wait in line for room.
//!
//! ```text
//!             room, nobody in line
//!  outside ────────────────────────────────▶ accepted
//!     │                                         ▲
//!     └──▶ in line ───▶ granted ────────────────┘ polled
//!             │ closed     │ closed
//!             └────────────┴───▶ handed back
//! ```
//!
//! Dropped while in line it leaves; dropped while granted it passes the room on.

use core::future::Future;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};
use std::collections::VecDeque;

use super::buffers::Buffers;
use super::capacity::Weight;
use super::core::{Core, Refusal};
use super::error::{Closed, SendError, SendManyError};
use super::shared::{Shared, wake};
use crate::base::coop;
use crate::base::wait_list::WaiterId;

/// A way to room for one item.
#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) need: Weight,
    waiter: Option<WaiterId>,
}

impl Wait {
    pub(crate) fn new(need: Weight) -> Self {
        Self { need, waiter: None }
    }

    /// Calls `granted` under the lock once there is room, which is then its own.
    #[inline]
    pub(crate) fn poll<T, L: Buffers<T>, R>(
        &mut self,
        shared: &Shared<T, L>,
        cx: &mut Context<'_>,
        granted: impl FnOnce(&mut Core<T, L>) -> R,
    ) -> Poll<Result<R, Closed>> {
        // Before anything is taken: a task without budget holds nothing while it yields.
        let Poll::Ready(unit) = coop::poll_proceed(cx) else {
            return self.poll_slow(shared, cx, true, granted);
        };
        if self.waiter.is_none() {
            let mut core = shared.lock();
            match core.take_capacity(self.need) {
                Ok(()) => {
                    unit.made_progress();
                    return Poll::Ready(Ok(granted(&mut core)));
                }
                Err(Refusal::Closed) => {
                    unit.made_progress();
                    return Poll::Ready(Err(Closed));
                }
                Err(Refusal::Full) => {}
            }
        }
        let polled = self.poll_slow(shared, cx, false, granted);
        if polled.is_ready() {
            unit.made_progress();
        }
        polled
    }

    /// If the task's budget is `spent`, room that is free is left alone, but a wait begins at once,
    /// so that nobody passes: what was granted to a waiter is its own, and used up.
    #[cold]
    fn poll_slow<T, L: Buffers<T>, R>(
        &mut self,
        shared: &Shared<T, L>,
        cx: &mut Context<'_>,
        spent: bool,
        granted: impl FnOnce(&mut Core<T, L>) -> R,
    ) -> Poll<Result<R, Closed>> {
        // Cloned before the lock and dropped after it: both are user code. Who was granted
        // room, or is polled for another's sake, needs none.
        let mut fresh = self.waiter.is_none().then(|| cx.waker().clone());
        loop {
            let mut core = shared.lock();
            if spent && self.waiter.is_none() && core.is_immediate(self.need) {
                return Poll::Pending;
            }
            if !core.is_accepting() {
                self.waiter = None;
                return Poll::Ready(Err(Closed));
            }
            if let Some(waiter) = self.waiter {
                let Some(waker) = core.waiting(waiter) else {
                    self.waiter = None;
                    return Poll::Ready(Ok(granted(&mut core)));
                };
                if waker.will_wake(cx.waker()) {
                    return Poll::Pending;
                }
                if let Some(fresh) = &mut fresh {
                    mem::swap(waker, fresh);
                    return Poll::Pending;
                }
            } else if core.take_capacity(self.need).is_ok() {
                return Poll::Ready(Ok(granted(&mut core)));
            } else if let Some(waker) = fresh.take() {
                self.waiter = Some(core.join(self.need, waker));
                return Poll::Pending;
            }
            drop(core);
            fresh = Some(cx.waker().clone());
        }
    }

    /// To be called when the future is dropped.
    #[inline]
    pub(crate) fn leave<T, L: Buffers<T>>(&mut self, shared: &Shared<T, L>) {
        if let Some(waiter) = self.waiter.take() {
            shared.locked(|core, wakes| core.leave(waiter, self.need, wakes));
        }
    }
}

#[must_use = "futures do nothing unless they are awaited"]
pub(crate) struct Sending<'a, T> {
    shared: &'a Shared<T>,
    pub(super) item: Option<T>,
    weight: u64,
    wait: Wait,
}

const COMPLETED: &str = "a future that sends was polled after it had completed";

impl<'a, T> Sending<'a, T> {
    #[inline]
    pub(crate) fn new(shared: &'a Shared<T>, item: T) -> Self {
        let item = Some(item);
        let weight = item.as_ref().map_or(0, |item| shared.weigh(item));
        let wait = Wait::new(shared.limits().room_for(weight));
        Self { shared, item, weight, wait }
    }
}

// The item is moved out, never pinned.
impl<T> Unpin for Sending<'_, T> {}

impl<T> Future for Sending<'_, T> {
    type Output = Result<(), SendError<T>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { shared, item, weight, wait } = self.get_mut();
        let mut take = || item.take().expect(COMPLETED);
        if *weight > shared.limits().max_weight {
            ready!(coop::poll_spend(cx));
            return Poll::Ready(Err(SendError::TooHeavy(take())));
        }
        let accepted = wait.poll(shared, cx, |core| shared.accept(core, &mut take, *weight));
        Poll::Ready(match ready!(accepted) {
            Ok(driver) => {
                wake(driver);
                Ok(())
            }
            Err(Closed) => Err(SendError::Closed(take())),
        })
    }
}

impl<T> Drop for Sending<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.wait.leave(self.shared);
    }
}

#[must_use = "futures do nothing unless they are awaited"]
pub(crate) struct Reserving<'a, T> {
    shared: &'a Shared<T>,
    wait: Wait,
}

impl<'a, T> Reserving<'a, T> {
    pub(crate) fn new(shared: &'a Shared<T>) -> Self {
        Self { shared, wait: Wait::new(heaviest(shared)) }
    }
}

/// Capacity for whatever item may come.
pub(crate) fn heaviest<T, L: Buffers<T>>(shared: &Shared<T, L>) -> Weight {
    shared.limits().room_for(shared.limits().max_weight)
}

impl<T> Future for Reserving<'_, T> {
    /// The room that was taken.
    type Output = Result<Weight, Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { shared, wait } = self.get_mut();
        let need = wait.need;
        wait.poll(shared, cx, |_| need)
    }
}

impl<T> Drop for Reserving<'_, T> {
    fn drop(&mut self) {
        self.wait.leave(self.shared);
    }
}

/// How many items are accepted in one critical section.
pub(crate) const RUN: usize = if cfg!(loom) { 2 } else { 128 };

#[must_use = "futures do nothing unless they are awaited"]
pub(crate) struct SendingMany<'a, T> {
    shared: &'a Shared<T>,
    items: &'a mut VecDeque<T>,
    /// For the first of the items.
    wait: Wait,
    /// Of the first of the items, once it was asked for.
    weight: Option<u64>,
}

impl<'a, T> SendingMany<'a, T> {
    pub(crate) fn new(shared: &'a Shared<T>, items: &'a mut VecDeque<T>) -> Self {
        Self { shared, items, wait: Wait::new(0), weight: None }
    }
}

impl<T> Unpin for SendingMany<'_, T> {}

impl<T> Future for SendingMany<'_, T> {
    type Output = Result<(), SendManyError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { shared, items, wait, weight: known } = self.get_mut();
        if items.is_empty() {
            ready!(coop::poll_spend(cx));
        }
        while let Some(first) = items.front() {
            let weight = *known.get_or_insert_with(|| shared.weigh(first));
            if weight > shared.limits().max_weight {
                ready!(coop::poll_spend(cx));
                return Poll::Ready(Err(SendManyError::TooHeavy));
            }
            if wait.waiter.is_none() {
                wait.need = shared.limits().room_for(weight);
            }
            // Items that are weighed go one by one: weighing is the user's code.
            let run = if shared.is_weighed() { 1 } else { RUN };
            let driver =
                ready!(wait.poll(shared, cx, |core| accept_run(shared, core, items, weight, run)));
            let driver = driver?;
            *known = None;
            wake(driver);
        }
        Poll::Ready(Ok(()))
    }
}

/// Accepts the first item, for which there is room, and up to `run` in all as long as there is more.
fn accept_run<T>(
    shared: &Shared<T>,
    core: &mut Core<T>,
    items: &mut VecDeque<T>,
    weight: u64,
    run: usize,
) -> Option<Waker> {
    let mut driver = None;
    for nth in 0..run.min(items.len()) {
        if nth > 0 && core.take_capacity(0).is_err() {
            break;
        }
        if let Some(item) = items.pop_front() {
            driver = shared.accept(core, || item, weight).or(driver);
        }
    }
    driver
}

impl<T> Drop for SendingMany<'_, T> {
    fn drop(&mut self) {
        self.wait.leave(self.shared);
    }
}
