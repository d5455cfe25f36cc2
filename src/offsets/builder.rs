use core::marker::PhantomData;

use super::OffsetTracker;
use super::core::Limits;
use super::shared::Shared;
use crate::base::config::ConfigError;

/// The options of an [`OffsetTracker`].
#[derive(Debug, Clone)]
#[must_use = "nothing is made until `build` is called"]
pub struct Builder<P> {
    capacity: usize,
    window: Option<usize>,
    max_ranges: usize,
    max_parked: usize,
    payload: PhantomData<fn() -> P>,
}

impl<P: Copy> Builder<P> {
    pub(super) fn new() -> Self {
        Self {
            capacity: 10_000,
            window: None,
            max_ranges: 1_000,
            max_parked: 100,
            payload: PhantomData,
        }
    }

    /// How many positions may be incomplete at a time; 10,000 unless set, at least 1.
    pub fn capacity(mut self, positions: usize) -> Self {
        self.capacity = positions;
        self
    }

    /// How many positions may lie beyond what is committed, complete ones included, at least `capacity`; ten
    /// times the capacity unless set. It bounds the memory while the oldest position is stuck.
    pub fn window(mut self, positions: usize) -> Self {
        self.window = Some(positions);
        self
    }

    /// How many ranges of complete positions a checkpoint lists at most; 1,000 unless set. Beyond that the
    /// highest are left out, to be replayed, and counted.
    pub fn max_ranges(mut self, ranges: usize) -> Self {
        self.max_ranges = ranges;
        self
    }

    /// How many rejected positions are listed for
    /// [`take_parked`](OffsetTracker::take_parked) at most; 100 unless set.
    pub fn max_parked(mut self, positions: usize) -> Self {
        self.max_parked = positions;
        self
    }

    /// The tracker.
    ///
    /// # Errors
    ///
    /// With a capacity of 0, or a window below the capacity.
    pub fn build(self) -> Result<OffsetTracker<P>, ConfigError> {
        let Self { capacity, window, max_ranges, max_parked, .. } = self;
        ConfigError::at_least_one("capacity", capacity)?;
        let window = window.unwrap_or(capacity.saturating_mul(10));
        if window < capacity {
            return Err(ConfigError::new("window", window, "at least `capacity`"));
        }
        let limits = Limits { capacity, window, max_ranges, max_parked };
        Ok(OffsetTracker { shared: Shared::new(limits) })
    }
}
