//! The state of a throttle: its wait list under a lock, and its meter.
//!
//! A sliding window's slots are split among a few shards, each with its own lock. A GCRA has one
//! word, its schedule, with a flag that is set while waiters are present or the lock is held:
//!
//! ```text
//!                 the lock is taken
//!   fast path ────────────────────────▶ slow path
//!  one compare-   ◀────────────────────  under the lock
//!  exchange        the lock is released and no waiter is present
//! ```
//!
//! Schedule and flag are one word, so that the two paths cannot race. No other memory depends on the
//! word, so its accesses are relaxed.

use core::task::Waker;

use super::clock::FARTHEST;
use super::gcra::{Gcra, Scale, Schedule};
use super::meter::Meter;
use super::rate::{Kind, Rate};
use super::shards::Shards;
use super::waiters::{Polled, Waiters};
use crate::base::panic::quietly;
use crate::base::sync::{AtomicU64, Mutex, Ordering};
use crate::base::wait_list::WaiterId;
use crate::base::wake::WakeList;

const SLOW: u64 = 1 << 63;

#[derive(Debug)]
pub(super) enum Core {
    Sliding(Shards),
    Gcra { gcra: Gcra, word: AtomicU64, waiters: Mutex<Waiters> },
}

/// Why nothing was reserved.
pub(super) enum Refused {
    WaitersAhead(usize),
    TooFar,
}

impl Core {
    pub(super) fn new(rate: Rate) -> Self {
        match rate.0 {
            Kind::Sliding(window) => Self::Sliding(Shards::new(window)),
            Kind::Gcra(gcra) => {
                Self::Gcra { gcra, word: AtomicU64::new(0), waiters: Mutex::new(Waiters::new()) }
            }
        }
    }

    /// `n` is at least one and at most the burst, here and everywhere.
    #[inline]
    pub(super) fn reserve(&self, n: u32, now: u64) -> Result<u64, Refused> {
        let latest = now + FARTHEST;
        match self.start_fast(n, now, latest) {
            Some((when, true)) => Ok(when),
            _ => self.reserve_slow(n, now, latest),
        }
    }

    /// When `n` may start, and whether they have started, which they have not if that is after
    /// `latest`. `None` if only the slow path knows.
    #[inline]
    fn start_fast(&self, n: u32, now: u64, latest: u64) -> Option<(u64, bool)> {
        match self {
            Self::Sliding(shards) if n == 1 => shards.start_one(now, latest),
            Self::Sliding(_) => None,
            Self::Gcra { gcra, word, .. } => match gcra.scale {
                None => start_fast(gcra, word, n, now, latest),
                Some(scale) => start_scaled(gcra, scale, word, n, now, latest),
            },
        }
    }

    #[cold]
    fn reserve_slow(&self, n: u32, now: u64, latest: u64) -> Result<u64, Refused> {
        self.locked_as_newcomer(now, |waiters, meter| {
            if !waiters.none_present() {
                return Err(Refused::WaitersAhead(waiters.len()));
            }
            let when = meter.earliest(n, now);
            if when > latest {
                return Err(Refused::TooFar);
            }
            Ok(meter.start(n, now))
        })
    }

    /// Starts now, or returns about when.
    #[inline]
    pub(super) fn try_start(&self, n: u32, now: u64) -> Result<(), u64> {
        match self.start_fast(n, now, now) {
            Some((_, true)) => Ok(()),
            Some((when, false)) => Err(when),
            None => self.try_start_slow(n, now),
        }
    }

    #[cold]
    fn try_start_slow(&self, n: u32, now: u64) -> Result<(), u64> {
        self.locked_as_newcomer(now, |waiters, meter| {
            let ahead = waiters.starts_ahead();
            if ahead > 0 {
                return Err(meter.earliest_behind(ahead, n, now).max(now + 1));
            }
            let when = meter.earliest(n, now);
            if when > now {
                return Err(when);
            }
            meter.start(n, now);
            Ok(())
        })
    }

    /// Adds a waiter.
    pub(super) fn join(&self, n: u32) -> WaiterId {
        self.locked(|waiters, _| waiters.join(n))
    }

    /// [`join`](Self::join), unless `n` may start now and no waiter is present.
    #[cfg(feature = "tokio")]
    pub(super) fn join_unless_free(&self, n: u32, now: u64) -> Option<WaiterId> {
        self.locked_as_newcomer(now, |waiters, meter| {
            let free = waiters.none_present() && meter.earliest(n, now) <= now;
            (!free).then(|| waiters.join(n))
        })
    }

    pub(super) fn poll(&self, id: WaiterId, now: u64, waker: Waker) -> Polled {
        self.locked(|waiters, meter| waiters.poll(id, now, waker, meter))
    }

    /// Collects wakers for the caller to wake; returns the waiter's own for it to drop.
    pub(super) fn remove(&self, id: WaiterId, wakers: &mut WakeList) -> Option<Waker> {
        self.locked(|waiters, _| waiters.remove(id, wakers))
    }

    pub(super) fn waiters(&self) -> usize {
        match self {
            Self::Sliding(shards) => shards.waiters(),
            Self::Gcra { waiters, .. } => waiters.lock().len(),
        }
    }

    /// The tick from which it equals a new throttle, if nothing starts before.
    pub(super) fn expires_at(&self) -> u64 {
        match self {
            Self::Sliding(shards) => shards.expires_at(),
            // A load may return an older value.
            Self::Gcra { gcra, word, .. } => {
                gcra.ticks(word.fetch_add(0, Ordering::Relaxed) & !SLOW)
            }
        }
    }

    /// [`locked`](Self::locked) with absent waiters passed first.
    fn locked_as_newcomer<T>(
        &self,
        now: u64,
        work: impl FnOnce(&mut Waiters, &mut dyn Meter) -> T,
    ) -> T {
        let (result, waker) = self.locked(|waiters, meter| {
            let waker = waiters.pass_as_newcomer(now);
            (work(waiters, meter), waker)
        });
        if let Some(waker) = waker {
            quietly(|| waker.wake());
        }
        result
    }

    /// Panics unless the wait list is consistent, and the fast path off while waiters are present.
    #[cfg(debug_assertions)]
    pub(super) fn validate(&self) {
        match self {
            Self::Sliding(shards) => shards.validate(),
            Self::Gcra { word, waiters, .. } => {
                let waiters = waiters.lock();
                waiters.validate();
                let is_slow = word.load(Ordering::Relaxed) & SLOW != 0;
                assert_eq!(is_slow, !waiters.none_present(), "the fast path");
            }
        }
    }

    fn locked<T>(&self, work: impl FnOnce(&mut Waiters, &mut dyn Meter) -> T) -> T {
        match self {
            Self::Sliding(shards) => shards.locked(work),
            Self::Gcra { gcra, word, waiters } => {
                let mut waiters = waiters.lock();
                // From here on no other thread changes the word: a compare-exchange with an older
                // value fails.
                let next = word.fetch_or(SLOW, Ordering::Relaxed) & !SLOW;
                let mut schedule = Schedule { gcra: *gcra, next };
                let result = work(&mut waiters, &mut schedule);
                let flag = if waiters.none_present() { 0 } else { SLOW };
                word.store(schedule.next | flag, Ordering::Relaxed);
                result
            }
        }
    }
}

/// [`start_fast`] with a schedule whose units are not ticks.
#[cold]
#[inline(never)]
fn start_scaled(
    gcra: &Gcra,
    scale: Scale,
    word: &AtomicU64,
    n: u32,
    now: u64,
    latest: u64,
) -> Option<(u64, bool)> {
    let units = scale.now(now);
    let latest = if latest == now { units } else { scale.units(latest) };
    let (when, started) = start_fast(gcra, word, n, units, latest)?;
    Some((if when == units { now } else { scale.ticks(when) }, started))
}

/// When `n` may start, and whether they have started, which they have not if that is after `latest`.
/// All in units of the schedule. `None` if the flag is set: that takes the slow path.
#[inline]
fn start_fast(gcra: &Gcra, word: &AtomicU64, n: u32, now: u64, latest: u64) -> Option<(u64, bool)> {
    let mut next = word.load(Ordering::Relaxed);
    loop {
        if next & SLOW != 0 {
            return None;
        }
        let (when, after) = gcra.starts(next, n.into(), now);
        if when > latest {
            return Some((when, false));
        }
        match word.compare_exchange_weak(next, after, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some((when, true)),
            Err(seen) => next = seen,
        }
    }
}
