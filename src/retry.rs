//! When to try again: a pure policy that knows neither clock nor runtime.

use core::fmt;
use core::iter;
use core::time::Duration;
use std::sync::Arc;

use crate::ConfigError;

/// The longest wait that a policy or a window may ask for: ten years.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

type Backoff = dyn Fn() -> Box<dyn Iterator<Item = Duration> + Send> + Send + Sync;

/// How often something is tried, and how long to wait in between.
///
/// Attempts are counted with the first: three attempts are a first one and two retries. A policy
/// holds no state; [`delays`](Self::delays) starts a fresh course of waits for each thing that is
/// tried. Cloning it is cheap.
///
/// Do not use it for what fails the same way each time: it only makes the failure late.
///
/// ```
/// use core::time::Duration;
/// use sluicegate::Retry;
///
/// let retry = Retry::exponential(4, Duration::from_millis(100), Duration::from_secs(10))?;
/// let waits: Vec<_> = retry.delays().map(|wait| wait.as_millis()).collect();
/// assert_eq!(waits, [100, 200, 400]);
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
///
/// # How it is built
///
/// A number and a factory of iterators. Nothing is boxed for a policy that never retries, and no
/// iterator is made before something has failed.
#[derive(Clone)]
pub struct Retry {
    max_attempts: u32,
    backoff: Option<Arc<Backoff>>,
}

impl Retry {
    /// One attempt and no retry.
    pub fn none() -> Self {
        Self { max_attempts: 1, backoff: None }
    }

    /// At most `max_attempts` attempts, `delay` apart.
    ///
    /// # Errors
    ///
    /// `max_attempts` must be at least 1, `delay` at most ten years.
    pub fn constant(max_attempts: u32, delay: Duration) -> Result<Self, ConfigError> {
        at_most_longest("delay", delay)?;
        Self::with_backoff(max_attempts, move || iter::repeat(delay))
    }

    /// At most `max_attempts` attempts; the first retry comes after `first`, each further one
    /// after twice the wait before it, and no wait is longer than `cap`.
    ///
    /// # Errors
    ///
    /// `max_attempts` must be at least 1, `cap` at least `first` and at most ten years.
    pub fn exponential(
        max_attempts: u32,
        first: Duration,
        cap: Duration,
    ) -> Result<Self, ConfigError> {
        at_most_longest("cap", cap)?;
        if cap < first {
            return Err(ConfigError::new("cap", cap, "at least `first`"));
        }
        Self::with_backoff(max_attempts, move || {
            iter::successors(Some(first), move |wait| Some(wait.saturating_mul(2).min(cap)))
        })
    }

    /// At most `max_attempts` attempts, with waits from an iterator that `backoff` makes anew for
    /// each thing that is tried.
    ///
    /// An iterator that ends early ends the retries. A wait longer than ten years is cut to ten
    /// years.
    ///
    /// # Errors
    ///
    /// `max_attempts` must be at least 1.
    ///
    /// ```
    /// use core::time::Duration;
    /// use sluicegate::Retry;
    ///
    /// let retry = Retry::with_backoff(10, || [1, 2, 5].map(Duration::from_secs).into_iter())?;
    /// assert_eq!(retry.delays().count(), 3, "a first attempt and three retries");
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn with_backoff<F, I>(max_attempts: u32, backoff: F) -> Result<Self, ConfigError>
    where
        F: Fn() -> I + Send + Sync + 'static,
        I: Iterator<Item = Duration> + Send + 'static,
    {
        if max_attempts == 0 {
            return Err(ConfigError::new("max_attempts", max_attempts, "at least 1"));
        }
        Ok(Self { max_attempts, backoff: Some(Arc::new(move || Box::new(backoff()))) })
    }

    /// The most attempts that are made, the first counted: at least 1.
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// The waits before the second, the third … attempt of one thing that is tried.
    pub fn delays(&self) -> Delays {
        let retries = self.max_attempts - 1;
        let waits = match &self.backoff {
            Some(backoff) if retries > 0 => Some(backoff()),
            _ => None,
        };
        Delays { retries, waits }
    }
}

impl Default for Retry {
    /// [`Retry::none`].
    fn default() -> Self {
        Self::none()
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("max_attempts", &self.max_attempts).finish_non_exhaustive()
    }
}

/// The waits before each retry of one thing, at most `max_attempts - 1` of them.
///
/// Made by [`Retry::delays`].
#[must_use = "delays do nothing unless they are iterated"]
pub struct Delays {
    retries: u32,
    waits: Option<Box<dyn Iterator<Item = Duration> + Send>>,
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.retries = self.retries.checked_sub(1)?;
        let wait = self.waits.as_mut()?.next();
        if wait.is_none() {
            self.waits = None;
        }
        wait.map(|wait| wait.min(LONGEST_WAIT))
    }
}

impl iter::FusedIterator for Delays {}

impl fmt::Debug for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delays").field("retries", &self.retries).finish_non_exhaustive()
    }
}

pub(crate) fn at_most_longest(field: &'static str, wait: Duration) -> Result<(), ConfigError> {
    if wait > LONGEST_WAIT {
        return Err(ConfigError::new(field, wait, "at most ten years"));
    }
    Ok(())
}
