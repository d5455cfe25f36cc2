//! Waiting with the crate's clock.

use core::future::Future;
use core::ops::Deref;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use super::{Throttle, TooMany, TryAcquireError, Waiter};
use crate::base::coop;
use crate::base::timer::{Timer, now};

/// Waits to start, first come, first served; made by [`Throttle::acquire`] and its other forms.
///
/// It joins the wait list when it is first polled.
///
/// # Cancel safety
///
/// Dropping it removes it from the wait list. Nothing has started then, and nothing is counted.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled: `.await` it before you start"]
pub struct Acquire<T: Deref<Target = Throttle>> {
    waiter: Waiter<T>,
    timer: Timer,
}

impl<T: Deref<Target = Throttle>> Acquire<T> {
    fn new(throttle: T, n: u32) -> Self {
        Self { waiter: Waiter::new(throttle, n), timer: Timer::new() }
    }
}

impl<T: Deref<Target = Throttle> + Unpin> Future for Acquire<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            let Poll::Ready(unit) = coop::poll_proceed(cx) else {
                this.waiter.join_unless_free(now());
                return Poll::Pending;
            };
            let Err(again) = this.waiter.poll_at(now(), cx) else {
                unit.made_progress();
                return Poll::Ready(());
            };
            // The timer takes a unit of its own.
            drop(unit);
            if this.timer.poll(Some(again), cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Throttle {
    /// Waits for one start, which is counted when this returns.
    ///
    /// tokio's timers fire up to a millisecond late: see [`Rate::gcra`](super::Rate::gcra) for the
    /// effect on small intervals.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with timers enabled, if it has to wait; or if polled again after it
    /// completed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future removes it from the wait list. Nothing has started then, and nothing is
    /// counted: its turn goes to the next waiter.
    ///
    /// # Complexity
    ///
    /// O(1); O(log waiters) where passed waiters have returned.
    #[inline]
    pub fn acquire(&self) -> Acquire<&Self> {
        Acquire::new(self, 1)
    }

    /// Waits for `n` starts together.
    ///
    /// The waiters behind it wait until all `n` can start at once. With `n` = 0 it does not wait.
    ///
    /// # Errors
    ///
    /// [`TooMany`] at once, if `n` is more than the [burst](super::Rate::burst).
    ///
    /// # Panics, cancel safety
    ///
    /// Those of [`acquire`](Self::acquire).
    ///
    /// # Complexity
    ///
    /// O(n); O(n + log waiters) where passed waiters have returned.
    pub fn acquire_many(&self, n: u32) -> Result<Acquire<&Self>, TooMany> {
        self.check(n)?;
        Ok(Acquire::new(self, n))
    }

    /// [`acquire`](Self::acquire) that can outlive the borrow.
    ///
    /// # Panics, cancel safety, complexity
    ///
    /// Those of [`acquire`](Self::acquire).
    pub fn acquire_owned(self: Arc<Self>) -> Acquire<Arc<Self>> {
        Acquire::new(self, 1)
    }

    /// [`acquire_many`](Self::acquire_many) that can outlive the borrow.
    ///
    /// # Errors, panics, cancel safety, complexity
    ///
    /// Those of [`acquire_many`](Self::acquire_many).
    pub fn acquire_many_owned(self: Arc<Self>, n: u32) -> Result<Acquire<Arc<Self>>, TooMany> {
        self.check(n)?;
        Ok(Acquire::new(self, n))
    }

    /// Counts one start now, if the rate allows it and there is no waiter.
    ///
    /// # Errors
    ///
    /// [`TryAcquireError::NotYet`] with the instant at which to try again.
    pub fn try_acquire(&self) -> Result<(), TryAcquireError> {
        self.try_acquire_many(1)
    }

    /// Counts `n` starts together now, if the rate allows them and there is no waiter.
    ///
    /// # Errors
    ///
    /// [`TryAcquireError::TooMany`] if `n` is more than the [burst](super::Rate::burst),
    /// [`TryAcquireError::NotYet`] with the instant at which to try again.
    pub fn try_acquire_many(&self, n: u32) -> Result<(), TryAcquireError> {
        self.try_acquire_at(n, now())
    }
}
