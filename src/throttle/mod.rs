//! Rate limits: [`Throttle`] is one, [`KeyedThrottle`] has one per key.

#[cfg(feature = "tokio")]
mod acquire;
mod chunks;
mod error;
mod gcra;
mod heap;
mod keyed;
mod meter;
mod rate;
mod shards;

mod clock;
mod core;
mod waiter;
mod waiters;
mod window;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "tokio")]
pub use acquire::Acquire;
pub use error::{KeyedError, KeysBusy, ReserveError, TooMany, TryAcquireError};
pub use keyed::KeyedThrottle;
pub use rate::Rate;
pub use waiter::Waiter;

use self::core::{Core, Refused};
use crate::ConfigError;
use clock::Epoch;

/// A limit on starts per time, not on how many run at once.
///
/// | | [`Rate::sliding`] | [`Rate::gcra`] |
/// | --- | --- | --- |
/// | in any window | never more than the limit | the limit and a burst |
/// | after a pause | the limit at once, then a window's wait | the burst at once, then evenly spread |
/// | memory | 8 bytes per start in the window | one number |
///
/// There are two ways to use it. [`acquire`](Self::acquire) waits, and counts the instant at which it
/// returns: a late timer delays later starts too, so that the limit holds for actual starts.
/// [`reserve`](Self::reserve) never waits: it returns when to start and counts that instant, whether
/// or not the caller starts later.
///
/// Instants may come out of order, as from threads that have read the clock and are preempted: by the
/// counted instants, no window ever has too many starts. But a start counted for a later instant
/// delays the others like any earlier one, so one far in the future holds them up.
///
/// Do not use it to bound concurrency: use a [`Semaphore`](crate::Semaphore). Nor across processes:
/// each has a limit of its own.
///
/// # Fairness
///
/// First come, first served, for one or many: a later, smaller request never passes an earlier,
/// larger one, and neither [`try_acquire_at`](Self::try_acquire_at) nor `reserve` passes a
/// waiter. A waiter that is not polled for 100 ms after its turn has come is passed, together with all
/// waiters behind it that were not polled by then: they keep their positions and are first again when
/// they are polled. So abandoned futures cost the waiters behind them 100 ms in all, however many they
/// are (with more than a thousand waiters, 50 ms per further thousand). To detect them in time, each
/// waiter is polled about every 50 ms as long as the wait list moves.
///
/// A task without [cooperative budget](https://docs.rs/tokio/1/tokio/task/coop/index.html) starts
/// nothing, and yields. If it has to wait, it joins the wait list first; if it could start at once, it
/// does not join, so that a later task may start before it.
///
/// ```
/// use std::time::{Duration, Instant};
/// use sluicegate::Throttle;
///
/// let throttle = Throttle::new(2, Duration::from_secs(1))?;
/// let now = Instant::now();
/// let waits = [(); 5].map(|()| throttle.reserve(1, now).unwrap() - now);
/// assert_eq!(waits.map(|wait| wait.as_secs()), [0, 0, 1, 1, 2]);
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
///
/// # How it is built
///
/// Time is an argument, in nanoseconds since the throttle was made. A sliding window is a ring of the
/// instants at which its slots are free again, under a short lock; 256 slots or more are split among
/// up to four such shards, and each thread uses its own shard as long as that has a free slot. A GCRA
/// is one atomic word. No start is reserved for a waiter: the head of the wait list starts when it is
/// polled and the rate allows it.
pub struct Throttle {
    core: Core,
    epoch: Epoch,
    rate: Rate,
}

impl Throttle {
    /// Never more than `limit` starts in any `window`.
    ///
    /// # Errors
    ///
    /// Those of [`Rate::sliding`].
    pub fn new(limit: u32, window: Duration) -> Result<Self, ConfigError> {
        Rate::sliding(limit, window).map(Self::with_rate)
    }

    /// `limit` starts per `window`, evenly spread, except for a burst after a pause.
    ///
    /// # Errors
    ///
    /// Those of [`Rate::gcra`].
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use sluicegate::Throttle;
    ///
    /// let throttle = Throttle::gcra(4, Duration::from_secs(2), 2)?;
    /// let now = Instant::now();
    /// let waits = [(); 5].map(|()| throttle.reserve(1, now).unwrap() - now);
    /// assert_eq!(waits.map(|wait| wait.as_millis()), [0, 0, 500, 1000, 1500]);
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn gcra(limit: u32, window: Duration, burst: u32) -> Result<Self, ConfigError> {
        Rate::gcra(limit, window, burst).map(Self::with_rate)
    }

    /// A throttle with the given rate.
    pub fn with_rate(rate: Rate) -> Self {
        Self::with_epoch(rate, Epoch::now())
    }

    fn with_epoch(rate: Rate, epoch: Epoch) -> Self {
        Self { core: Core::new(rate), epoch, rate }
    }

    /// The rate it was made with.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// The number of waiters.
    pub fn waiters(&self) -> usize {
        self.core.waiters()
    }

    /// Reserves `n` starts together, and returns their instant: `now`, or later.
    ///
    /// A reservation cannot be undone. With `n` = 0 it returns `now`.
    ///
    /// # Errors
    ///
    /// [`ReserveError::TooMany`] if `n` is more than the [burst](Rate::burst);
    /// [`ReserveError::WaitersAhead`] if there are waiters, which start when they are polled, at an
    /// unknown instant; [`ReserveError::TooFar`] if the start would be more than ten years from `now`.
    /// Nothing is reserved then.
    ///
    /// # Complexity
    ///
    /// O(n) with a sliding window, O(1) with a GCRA.
    #[inline]
    pub fn reserve(&self, n: u32, now: Instant) -> Result<Instant, ReserveError> {
        if n == 0 {
            return Ok(now);
        }
        self.check(n)?;
        let ticks = self.epoch.ticks(now);
        match self.core.reserve(n, ticks) {
            Ok(when) if when == ticks => Ok(now),
            Ok(when) => Ok(self.epoch.instant(when)),
            Err(Refused::WaitersAhead(waiters)) => Err(ReserveError::WaitersAhead { waiters }),
            Err(Refused::TooFar) => Err(ReserveError::TooFar),
        }
    }

    /// Counts `n` starts together at `now`, if the rate allows them and there is no waiter.
    ///
    /// # Errors
    ///
    /// [`TryAcquireError::TooMany`] if `n` is more than the [burst](Rate::burst),
    /// [`TryAcquireError::NotYet`] with the instant at which to try again. Nothing has started then.
    ///
    /// # Complexity
    ///
    /// O(n) with a sliding window, O(1) with a GCRA.
    #[inline]
    pub fn try_acquire_at(&self, n: u32, now: Instant) -> Result<(), TryAcquireError> {
        if n == 0 {
            return Ok(());
        }
        self.check(n)?;
        let started = self.core.try_start(n, self.epoch.ticks(now));
        started.map_err(|until| TryAcquireError::NotYet { until: self.epoch.instant(until) })
    }

    /// Joins the wait list for `n` starts together, for callers with a clock of their own.
    ///
    /// # Errors
    ///
    /// [`TooMany`] if `n` is more than the [burst](Rate::burst).
    ///
    /// ```
    /// use std::task::{Context, Waker};
    /// use std::time::{Duration, Instant};
    /// use sluicegate::Throttle;
    ///
    /// let throttle = Throttle::new(1, Duration::from_secs(1)).unwrap();
    /// let (now, mut cx) = (Instant::now(), Context::from_waker(Waker::noop()));
    /// throttle.reserve(1, now).unwrap();
    ///
    /// let mut waiter = throttle.enqueue(1).unwrap();
    /// let when = waiter.poll_at(now, &mut cx).unwrap_err();
    /// assert_eq!(when - now, Duration::from_secs(1));
    /// assert!(throttle.try_acquire_at(1, when).is_err(), "a waiter is not passed");
    /// assert!(waiter.poll_at(when, &mut cx).is_ok());
    /// ```
    pub fn enqueue(&self, n: u32) -> Result<Waiter<&Self>, TooMany> {
        self.check(n)?;
        Ok(Waiter::joined(self, n))
    }

    /// [`enqueue`](Self::enqueue) with a waiter that can outlive the borrow.
    ///
    /// # Errors
    ///
    /// Those of [`enqueue`](Self::enqueue).
    pub fn enqueue_owned(self: Arc<Self>, n: u32) -> Result<Waiter<Arc<Self>>, TooMany> {
        self.check(n)?;
        Ok(Waiter::joined(self, n))
    }

    fn check(&self, n: u32) -> Result<(), TooMany> {
        let most = self.rate.burst();
        if n > most { Err(TooMany { n, most }) } else { Ok(()) }
    }

    /// The tick from which it equals a new throttle, if nothing starts before.
    fn expires_at(&self) -> u64 {
        self.core.expires_at()
    }

    /// Panics if the wait list is not consistent.
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub fn validate(&self) {
        self.core.validate();
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("rate", &self.rate)
            .field("waiters", &self.waiters())
            .finish_non_exhaustive()
    }
}
