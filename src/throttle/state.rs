//! What the handles and the futures share: the line under its lock, and what is counted.
//!
//! A sliding window's places are dealt out among a few locks of their own. A GCRA has one word, its
//! schedule, with a flag that is set while somebody waits or the lock is held: without the flag, a
//! start is one compare-exchange; with it, the word is changed under the lock alone. Since it is one
//! word, there is no race between the two. No other memory hangs on the word, so its accesses are
//! relaxed.

use core::task::Waker;

use super::gcra::{Gcra, Scale, Schedule};
use super::line::{Line, Look};
use super::meter::Meter;
use super::rate::{Kind, Rate};
use super::shares::Shares;
use super::ticks::FARTHEST;
use crate::base::panic::quietly;
use crate::base::sync::{AtomicU64, Mutex, Ordering};
use crate::base::wake::WakeList;

const SLOW: u64 = 1 << 63;

#[derive(Debug)]
pub(super) enum State {
    Sliding(Shares),
    Gcra { gcra: Gcra, word: AtomicU64, line: Mutex<Line> },
}

/// Why there is no instant to tell.
pub(super) enum Refused {
    InLine(usize),
    TooFar,
}

impl State {
    pub(super) fn new(rate: Rate) -> Self {
        match rate.0 {
            Kind::Sliding(window) => Self::Sliding(Shares::new(window)),
            Kind::Gcra(gcra) => {
                Self::Gcra { gcra, word: AtomicU64::new(0), line: Mutex::new(Line::default()) }
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

    /// When `n` may start, and whether they have: unless that is after `latest`. `None` if there is
    /// more to it.
    #[inline]
    fn start_fast(&self, n: u32, now: u64, latest: u64) -> Option<(u64, bool)> {
        match self {
            Self::Sliding(shares) if n == 1 => shares.start_one(now, latest),
            Self::Sliding(_) => None,
            Self::Gcra { gcra, word, .. } => match gcra.scale {
                None => start_fast(gcra, word, n, now, latest),
                Some(scale) => start_scaled(gcra, scale, word, n, now, latest),
            },
        }
    }

    #[cold]
    fn reserve_slow(&self, n: u32, now: u64, latest: u64) -> Result<u64, Refused> {
        self.locked_as_newcomer(now, |line, meter| {
            if !line.is_clear() {
                return Err(Refused::InLine(line.len()));
            }
            let when = meter.earliest(n, now);
            if when > latest {
                return Err(Refused::TooFar);
            }
            Ok(meter.start(n, now))
        })
    }

    /// Starts now, or says about when.
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
        self.locked_as_newcomer(now, |line, meter| {
            let ahead = line.need();
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

    /// Takes a place in line, and its number.
    pub(super) fn join(&self, n: u32) -> u64 {
        self.locked(|line, _| line.join(n))
    }

    /// [`join`](Self::join), unless `n` may start now and nobody waits.
    #[cfg(feature = "tokio")]
    pub(super) fn join_unless_free(&self, n: u32, now: u64) -> Option<u64> {
        self.locked_as_newcomer(now, |line, meter| {
            let free = line.is_clear() && meter.earliest(n, now) <= now;
            (!free).then(|| line.join(n))
        })
    }

    pub(super) fn look(&self, number: u64, now: u64, waker: Waker) -> Look {
        self.locked(|line, meter| line.look(number, now, waker, meter))
    }

    /// The wakers are for the caller to wake, its own to drop.
    pub(super) fn leave(&self, number: u64, wakers: &mut WakeList) -> Option<Waker> {
        self.locked(|line, _| line.leave(number, wakers))
    }

    pub(super) fn waiters(&self) -> usize {
        match self {
            Self::Sliding(shares) => shares.waiters(),
            Self::Gcra { line, .. } => line.lock().len(),
        }
    }

    /// From when on it is as if it were new, if nothing starts before.
    pub(super) fn at_rest(&self) -> u64 {
        match self {
            Self::Sliding(shares) => shares.at_rest(),
            // Not a load, which may be of an older value.
            Self::Gcra { gcra, word, .. } => {
                gcra.ticks(word.fetch_add(0, Ordering::Relaxed) & !SLOW)
            }
        }
    }

    /// Passes absent waiters first.
    fn locked_as_newcomer<T>(
        &self,
        now: u64,
        work: impl FnOnce(&mut Line, &mut dyn Meter) -> T,
    ) -> T {
        let (result, waker) = self.locked(|line, meter| {
            let waker = line.make_way(now);
            (work(line, meter), waker)
        });
        if let Some(waker) = waker {
            quietly(|| waker.wake());
        }
        result
    }

    fn locked<T>(&self, work: impl FnOnce(&mut Line, &mut dyn Meter) -> T) -> T {
        match self {
            Self::Sliding(shares) => shares.locked(work),
            Self::Gcra { gcra, word, line } => {
                let mut line = line.lock();
                // From here on nobody else changes the word: who read it before finds it changed.
                let next = word.fetch_or(SLOW, Ordering::Relaxed) & !SLOW;
                let mut schedule = Schedule { gcra: *gcra, next };
                let result = work(&mut line, &mut schedule);
                let flag = if line.is_clear() { 0 } else { SLOW };
                word.store(schedule.next | flag, Ordering::Relaxed);
                result
            }
        }
    }
}

/// [`start_fast`] by a schedule with units of its own.
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

/// When `n` may start, and whether they have: unless that is after `latest`. In units of the
/// schedule, as `now` and `latest` are. `None` with the flag
/// set, which is for the lock to deal with.
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
