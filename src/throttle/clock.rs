//! Instants as numbers: nanoseconds, so that one fits into an atomic word beside a flag.

use core::time::Duration;
use std::time::Instant;

use crate::base::config::LONGEST_WAIT;

/// The number of the epoch. Instants before it have numbers, too: a paused clock may lag behind.
pub(super) const EPOCH: u64 = 1 << 62;

/// No clock shows more: what comes up to two times ten years later is still below 2^63.
const LATEST: u64 = (1 << 63) - (1 << 60);

const LATEST_SECS: u64 = (LATEST - EPOCH) / 1_000_000_000;

/// How far ahead something can be reserved.
pub(super) const FARTHEST: u64 = LONGEST_WAIT.as_nanos() as u64;

#[derive(Debug, Clone, Copy)]
pub(super) struct Epoch(Instant);

impl Epoch {
    pub(super) fn now() -> Self {
        Self(Instant::now())
    }

    #[inline]
    pub(super) fn ticks(&self, now: Instant) -> u64 {
        match now.checked_duration_since(self.0) {
            Some(after) if after.as_secs() < LATEST_SECS => EPOCH + after.as_nanos() as u64,
            Some(_) => LATEST,
            None => self.before(now),
        }
    }

    #[cold]
    fn before(&self, now: Instant) -> u64 {
        let before = u64::try_from(self.0.duration_since(now).as_nanos());
        EPOCH.saturating_sub(before.unwrap_or(EPOCH))
    }

    /// Later than all that can be asked for is as late as that.
    pub(super) fn instant(&self, ticks: u64) -> Instant {
        let ticks = ticks.min(LATEST + 2 * FARTHEST);
        match ticks.checked_sub(EPOCH) {
            Some(after) => self.0 + Duration::from_nanos(after),
            // Not every system has instants so early; then it is long past anyway.
            None => self.0.checked_sub(Duration::from_nanos(EPOCH - ticks)).unwrap_or(self.0),
        }
    }
}
