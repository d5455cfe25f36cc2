//! The generic cell rate algorithm (ITU-T I.371), as virtual scheduling: one number, the instant
//! at which the next start would come if all kept to the interval.

use super::meter::Meter;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gcra {
    /// In ticks.
    pub(super) interval: u64,
    pub(super) burst: u32,
}

impl Gcra {
    /// For `n` starts at the schedule `next`: when they may be, and the schedule after them.
    #[inline]
    pub(super) fn starts(&self, next: u64, n: u64, now: u64) -> (u64, u64) {
        let after = next.max(now) + n * self.interval;
        let when = after.saturating_sub(u64::from(self.burst) * self.interval);
        (when.max(now), after)
    }
}

/// A schedule that nobody else changes meanwhile.
pub(super) struct Schedule {
    pub(super) gcra: Gcra,
    pub(super) next: u64,
}

impl Meter for Schedule {
    fn earliest(&self, n: u32, now: u64) -> u64 {
        self.gcra.starts(self.next, n.into(), now).0
    }

    fn earliest_behind(&self, ahead: u64, n: u32, now: u64) -> u64 {
        let ahead = self.gcra.interval.saturating_mul(ahead);
        self.earliest(n, now).saturating_add(ahead)
    }

    fn start(&mut self, n: u32, now: u64) -> u64 {
        let (when, next) = self.gcra.starts(self.next, n.into(), now);
        self.next = next;
        when
    }
}
