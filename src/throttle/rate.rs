use core::time::Duration;

use super::gcra::{Gcra, MOST_A_TICK};
use super::window::Window;
use crate::ConfigError;

/// How often something may start: the setting of a [`Throttle`](crate::Throttle), checked.
///
/// ```
/// use core::time::Duration;
/// use sluicegate::throttle::Rate;
///
/// let standard = Rate::sliding(500, Duration::from_secs(60))?;
/// assert_eq!(standard.burst(), 500);
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub(super) Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Sliding(Window),
    Gcra(Gcra),
}

impl Rate {
    /// The most starts that a sliding window can have: each of them is kept for as long as it is in
    /// the window, at 8 bytes.
    pub const MAX_SLIDING: u32 = 1 << 24;

    /// Never more than `limit` starts in any `window`, wherever it begins.
    ///
    /// A window is half open: what starts at its beginning is in it, what starts a whole `window`
    /// later is not.
    ///
    /// # Errors
    ///
    /// `limit` must be from 1 to [`MAX_SLIDING`](Self::MAX_SLIDING), `window` more than zero and at
    /// most ten years.
    pub fn sliding(limit: u32, window: Duration) -> Result<Self, ConfigError> {
        if !(1..=Self::MAX_SLIDING).contains(&limit) {
            return Err(ConfigError::new("limit", limit, "from 1 to 16777216"));
        }
        let window = nanos("window", window)?;
        Ok(Self(Kind::Sliding(Window { limit, length: window })))
    }

    /// `limit` starts per `window`, evenly spread, of which `burst` may come at once after a pause.
    ///
    /// This is the generic cell rate algorithm (ITU-T I.371, in its form of virtual scheduling): a
    /// start every `window / limit`, and `burst - 1` ahead of that. In any time `t` there are at
    /// most `burst + t * limit / window` starts, which is more than `limit` in a `window` unless the
    /// burst is 1: choose [`sliding`](Self::sliding) where that must not be. It keeps a single
    /// number.
    ///
    /// The interval is exact if it is a whole number of nanoseconds or less than 10 µs. Otherwise it
    /// is rounded up to a nanosecond, which makes the rate less than 0.01 % slower. Instants are
    /// whole nanoseconds at any rate, so that `t` above is exact to one of them.
    ///
    /// # What timers make of it
    ///
    /// [`Throttle::acquire`](crate::Throttle::acquire) waits on tokio's timers, which go off at a
    /// whole millisecond, up to one late, and what comes late is not made up for beyond the burst.
    /// So a burst of 1 does not reach rates with an interval of a few milliseconds or less: 1,000
    /// per second give about 480. A burst that is worth a few milliseconds does (5 for 1,000 per
    /// second): after a late timer those behind start at once until the schedule is met.
    ///
    /// # Errors
    ///
    /// `limit` and `burst` must be at least 1; `window` more than zero and at most ten years, and
    /// long enough for no more than ten starts per nanosecond, which are 10^10 per second. A burst
    /// must take ten years at most to earn.
    pub fn gcra(limit: u32, window: Duration, burst: u32) -> Result<Self, ConfigError> {
        if limit == 0 {
            return Err(ConfigError::new("limit", limit, "at least 1"));
        }
        if burst == 0 {
            return Err(ConfigError::new("burst", burst, "at least 1"));
        }
        let nanos = nanos("window", window)?;
        if nanos.saturating_mul(MOST_A_TICK) < u64::from(limit) {
            return Err(ConfigError::new("window", window, "a nanosecond for each ten starts"));
        }
        let earned = nanos.div_ceil(limit.into()).checked_mul(burst.into());
        match earned
            .map(|earned| ConfigError::at_most_longest("burst", Duration::from_nanos(earned)))
        {
            Some(Ok(())) => Ok(Self(Kind::Gcra(Gcra::new(limit, nanos, burst)))),
            _ => Err(ConfigError::new("burst", burst, "what is earned in ten years")),
        }
    }

    /// How many may start at once after a pause: the limit of a sliding window, the burst of a GCRA.
    pub fn burst(&self) -> u32 {
        match self.0 {
            Kind::Sliding(Window { limit, .. }) => limit,
            Kind::Gcra(Gcra { burst, .. }) => burst,
        }
    }
}

/// Ten years are less than 2^59 ns.
fn nanos(field: &'static str, time: Duration) -> Result<u64, ConfigError> {
    ConfigError::at_most_longest(field, time)?;
    if time.is_zero() {
        return Err(ConfigError::new(field, time, "more than zero"));
    }
    Ok(time.as_nanos() as u64)
}
