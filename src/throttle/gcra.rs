//! The generic cell rate algorithm (ITU-T I.371), as virtual scheduling: one number, the instant
//! at which the next start would come if all kept to the interval.
//!
//! The number counts ticks as long as an interval of whole ticks is exact enough. For higher rates
//! it counts fractions of a tick, of which each interval has a power of two: so the interval is exact,
//! and only an instant is rounded, to a fifth of a tick or less.

use super::clock::{EPOCH, FARTHEST};
use super::meter::Meter;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gcra {
    /// In units of the schedule.
    interval: u64,
    pub(super) burst: u32,
    /// `None` if a unit is a tick.
    pub(super) scale: Option<Scale>,
}

/// The most starts in a tick: this many in a nanosecond are 10^10 in a second.
pub(super) const MOST_A_TICK: u64 = 10;

/// From this interval on, rounding it up by less than a tick changes the rate by 0.01 % at most.
const LONG: u64 = 10_000;

impl Gcra {
    /// `limit` starts in `window` ticks, at most [`MOST_A_TICK`].
    pub(super) fn new(limit: u32, window: u64, burst: u32) -> Self {
        let limit = u64::from(limit);
        let interval = window.div_ceil(limit);
        if window % limit == 0 || interval >= LONG {
            return Self { interval, burst, scale: None };
        }
        // Between half of as many units in a tick as starts may be, and as many.
        let halvings = (MOST_A_TICK * window / limit).ilog2();
        let per_tick = (u128::from(limit) << (halvings + Scale::SHIFT)) / u128::from(window);
        let scale = Scale { per_tick: per_tick as u64 };
        Self { interval: 1 << halvings, burst, scale: Some(scale) }
    }

    /// For `n` starts at the schedule `next`: when they may be, and the schedule after them. All in
    /// units.
    #[inline]
    pub(super) fn starts(&self, next: u64, n: u64, now: u64) -> (u64, u64) {
        let after = next.max(now) + n * self.interval;
        let when = after.saturating_sub(u64::from(self.burst) * self.interval);
        (when.max(now), after)
    }

    /// The first tick at or after a number of units.
    pub(super) fn ticks(&self, units: u64) -> u64 {
        self.scale.map_or(units, |scale| scale.ticks(units))
    }
}

/// Units of the schedule and ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scale {
    /// Units in 2^`SHIFT` ticks, rounded down: not faster than the rate, and less than 2^-62 slower.
    per_tick: u64,
}

const YEAR: u64 = 365 * 24 * 60 * 60 * 1_000_000_000;

impl Scale {
    const SHIFT: u32 = 60;
    /// No units before: all earlier instants are the same.
    const FIRST: u64 = EPOCH - YEAR;
    /// And all that are later: what is reserved ten years ahead is still less than 2^63 units.
    const LAST: u64 = EPOCH + 17 * YEAR;

    #[inline]
    pub(super) fn units(self, ticks: u64) -> u64 {
        let ticks = ticks.min(Self::LAST + FARTHEST).saturating_sub(Self::FIRST);
        ((u128::from(ticks) * u128::from(self.per_tick)) >> Self::SHIFT) as u64
    }

    /// What a clock shows.
    #[inline]
    pub(super) fn now(self, ticks: u64) -> u64 {
        self.units(ticks.min(Self::LAST))
    }

    /// The first tick that has so many units, or more.
    pub(super) fn ticks(self, units: u64) -> u64 {
        let ticks = (u128::from(units) << Self::SHIFT).div_ceil(u128::from(self.per_tick));
        Self::FIRST + ticks as u64
    }
}

/// A schedule that no other thread changes meanwhile.
pub(super) struct Schedule {
    pub(super) gcra: Gcra,
    pub(super) next: u64,
}

impl Schedule {
    fn starts(&self, n: u32, now: u64) -> (u64, u64) {
        let units = self.gcra.scale.map_or(now, |scale| scale.now(now));
        let (when, next) = self.gcra.starts(self.next, n.into(), units);
        (if when == units { now } else { self.gcra.ticks(when) }, next)
    }
}

impl Meter for Schedule {
    fn earliest(&self, n: u32, now: u64) -> u64 {
        self.starts(n, now).0
    }

    fn earliest_behind(&self, ahead: u64, n: u32, now: u64) -> u64 {
        let ahead = self.gcra.interval.saturating_mul(ahead);
        let next = self.next.saturating_add(ahead).min(1 << 63);
        Self { next, ..*self }.earliest(n, now)
    }

    fn start(&mut self, n: u32, now: u64) -> u64 {
        let (when, next) = self.starts(n, now);
        self.next = next;
        when
    }
}
