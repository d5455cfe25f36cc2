//! Limits on how often something starts: [`Throttle`] for one thing, [`KeyedThrottle`] for each of
//! many.

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

/// A limit on how many may start in a time, not on how many run at once.
///
/// | | [`Rate::sliding`] | [`Rate::gcra`] |
/// | --- | --- | --- |
/// | in any window | never more than the limit | the limit and a burst |
/// | after a pause | the limit at once, then a window's wait | the burst at once, then evenly spread |
/// | memory | 8 bytes for each start in the window | one number |
///
/// There are two ways to use it. [`acquire`](Self::acquire) waits, and what it counts is
/// when it returns: a timer that goes off late makes the next ones later, so that the limit holds
/// for what did start. [`reserve`](Self::reserve) never waits: it tells at once, and once, when to
/// start, and counts that instant; a start that is later than told is not seen.
///
/// Instants may come out of order, as from threads that have read the clock and are overtaken: no
/// window ever has too many starts, by the instants that were counted. But what was counted for a
/// later instant is waited for as if it had come in turn, so that one far ahead of the others holds
/// them up.
///
/// Do not use it to bound what is going on at the same time: that is the
/// [`Semaphore`](crate::Semaphore)'s. Nor across processes: each has its own.
///
/// # Fairness
///
/// First come, first served, for one or many: a later, smaller request never passes an earlier,
/// larger one, and neither [`try_acquire_at`](Self::try_acquire_at) nor `reserve` passes a
/// waiter. A waiter that is not polled for 100 ms after its turn has come is passed, and so are,
/// together with it, all others behind it that were not polled by then: they keep their positions
/// and are first again when they are polled. So abandoned futures cost those behind them 100 ms in
/// all, however many they are. (Where more than a thousand wait, 50 ms for each further thousand.)
/// To see this in time each waiter is polled about every 50 ms as long as the wait list moves.
///
/// A task whose [cooperative budget](https://docs.rs/tokio/1/tokio/task/coop/index.html) is spent
/// starts nothing, and yields. If it would have to wait it joins the wait list first; if it
/// might start at once it does not, so that others may start before it.
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
/// Time is an argument, as nanoseconds from when the throttle was made. A sliding window is a ring
/// of the instants at which its slots are free again, under a short lock; 256 slots or more are split
/// among up to four such shards, and each thread has its own as long as that has a free slot. A GCRA
/// is one atomic word. No start is set aside for a waiter: the head of the wait list starts when it is
/// polled and may. So a waiter that leaves has nothing to give back.
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

    /// A throttle with a rate that was checked before.
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

    /// How many waiters there are.
    pub fn waiters(&self) -> usize {
        self.core.waiters()
    }

    /// Reserves a start for `n` together, and returns when that is: `now`, or later.
    ///
    /// It cannot be given back. None at all start at once.
    ///
    /// # Errors
    ///
    /// [`ReserveError::TooMany`] if `n` is more than the [burst](Rate::burst);
    /// [`ReserveError::WaitersAhead`] if there are waiters, since they start when they are polled,
    /// which cannot be foretold; [`ReserveError::TooFar`] if it would be more than ten years
    /// from `now`. Nothing is reserved then.
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

    /// Starts `n` together if they may start at `now` and nobody waits.
    ///
    /// # Errors
    ///
    /// [`TryAcquireError::TooMany`] if they never may, [`TryAcquireError::NotYet`] with the instant
    /// from which on they may. Nothing has started then.
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

    /// Joins the wait list for `n` together, now, for callers that keep the time themselves.
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
    /// assert!(throttle.try_acquire_at(1, when).is_err(), "nobody passes a waiter");
    /// assert!(waiter.poll_at(when, &mut cx).is_ok());
    /// ```
    pub fn enqueue(&self, n: u32) -> Result<Waiter<&Self>, TooMany> {
        self.check(n)?;
        let mut waiter = Waiter::new(self, n);
        waiter.join();
        Ok(waiter)
    }

    /// [`enqueue`](Self::enqueue) with a waiter that can outlive the borrow.
    ///
    /// # Errors
    ///
    /// Those of [`enqueue`](Self::enqueue).
    pub fn enqueue_owned(self: Arc<Self>, n: u32) -> Result<Waiter<Arc<Self>>, TooMany> {
        self.check(n)?;
        let mut waiter = Waiter::new(self, n);
        waiter.join();
        Ok(waiter)
    }

    fn check(&self, n: u32) -> Result<(), TooMany> {
        let most = self.rate.burst();
        if n > most { Err(TooMany { n, most }) } else { Ok(()) }
    }

    /// From when on it is as if it were new, if nothing starts before. In ticks.
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
