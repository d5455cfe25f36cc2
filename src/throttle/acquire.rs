//! The forms that wait, on tokio's clock.

use core::future::Future;
use core::ops::Deref;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use tokio::time::{Instant, Sleep, sleep_until};

use super::{Throttle, TooMany, TryAcquireError, Waiter};
use crate::base::coop;

/// Waits in line to start; made by [`Throttle::acquire`] and its kin.
///
/// The place in line is taken when it is first polled.
///
/// # Cancel safety
///
/// Dropping it gives up its place, and no other: those behind move up.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled: `.await` it before you start"]
pub struct Acquire<T: Deref<Target = Throttle>> {
    place: Waiter<T>,
    /// None before there was something to wait for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<T: Deref<Target = Throttle>> Acquire<T> {
    fn new(throttle: T, n: u32) -> Self {
        Self { place: Waiter::new(throttle, n), timer: None }
    }
}

impl<T: Deref<Target = Throttle> + Unpin> Future for Acquire<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            let Poll::Ready(unit) = coop::poll_proceed(cx) else {
                this.place.join_if_it_waits(Instant::now().into_std());
                return Poll::Pending;
            };
            let Err(until) = this.place.poll_at(Instant::now().into_std(), cx) else {
                unit.made_progress();
                return Poll::Ready(());
            };
            // The timer asks for a unit of its own.
            drop(unit);
            let until = Instant::from_std(until);
            let timer = match &mut this.timer {
                Some(timer) => {
                    timer.as_mut().reset(until);
                    timer
                }
                None => this.timer.insert(Box::pin(sleep_until(until))),
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Throttle {
    /// Waits in line for one to start, which it does when this returns.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with timers enabled, if it has to wait; or if polled again after it
    /// completed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up its place in line. Nothing has started then, and nothing is
    /// counted: its turn is that of the next in line.
    ///
    /// # Complexity
    ///
    /// O(1) if it may start and nobody waits, O(log waiters) otherwise.
    #[inline]
    pub fn acquire(&self) -> Acquire<&Self> {
        Acquire::new(self, 1)
    }

    /// Waits in line for `n` to start together.
    ///
    /// While it waits for so many to be free at once, those behind it wait, too. None at all start
    /// without waiting.
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
    /// O(n + log waiters).
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

    /// Starts one if it may start now and nobody waits.
    ///
    /// # Errors
    ///
    /// [`TryAcquireError::NotYet`] with the instant from which on it may.
    pub fn try_acquire(&self) -> Result<(), TryAcquireError> {
        self.try_acquire_many(1)
    }

    /// Starts `n` together if they may start now and nobody waits.
    ///
    /// # Errors
    ///
    /// [`TryAcquireError::TooMany`] if they never may, [`TryAcquireError::NotYet`] with the instant
    /// from which on they may.
    pub fn try_acquire_many(&self, n: u32) -> Result<(), TryAcquireError> {
        self.try_acquire_at(n, Instant::now().into_std())
    }
}
