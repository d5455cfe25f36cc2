//! The options of an executor, checked when it is built.

#[cfg(feature = "tokio")]
use core::time::Duration;

use super::BatchExecutor;
use super::clock::TimeLimits;
use crate::error::ConfigError;

/// Options for a [`BatchExecutor`]; made by [`BatchExecutor::builder`].
///
/// ```
/// use sluicegate::BatchExecutor;
///
/// let executor = BatchExecutor::builder().limit(10).build().unwrap();
/// assert_eq!(executor.limit(), 10);
///
/// let error = BatchExecutor::builder().build().unwrap_err();
/// assert_eq!(error.to_string(), "`limit` is unset, but must be at least 1");
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct BatchExecutorBuilder {
    limit: Option<usize>,
    limits: TimeLimits,
}

impl BatchExecutorBuilder {
    /// How many items may be in hand at once, at least 1. There is no default.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// How long one item may run, more than zero and at most 100 years. None by default.
    ///
    /// The limit counts from the first time the item's future is pending, on tokio's clock. At its
    /// end the future is polled once more, so that what is ready by then counts; if it is not
    /// ready it is dropped, and the outcome is [`Settled::TimedOut`](crate::Settled::TimedOut). A
    /// future that blocks its thread cannot be interrupted.
    ///
    /// Runs need tokio's timer then. Available with the feature `tokio`.
    ///
    /// # Complexity
    ///
    /// One timer a run, however many items there are; O(1) amortised an item.
    #[cfg(feature = "tokio")]
    pub fn item_timeout(mut self, limit: Duration) -> Self {
        self.limits.item = Some(limit);
        self
    }

    /// How long a whole run may take from its first poll, more than zero and at most 100 years.
    /// None by default.
    ///
    /// At its end nothing more is pulled; what runs is polled once more and, if it is not ready
    /// then, dropped as [`Settled::Cancelled`](crate::Settled::Cancelled); so is, not started,
    /// what waits for its key. The sink still gets every outcome: it is the caller's, and not cut
    /// short. Inputs not pulled stay in the source, which the caller keeps by lending it
    /// ([`Iterator::by_ref`]).
    ///
    /// Runs need tokio's timer then. Available with the feature `tokio`.
    #[cfg(feature = "tokio")]
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.limits.batch = Some(limit);
        self
    }

    /// The executor.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the limit is unset or zero, or a duration is out of its bounds.
    pub fn build(self) -> Result<BatchExecutor, ConfigError> {
        let Some(limit) = self.limit else {
            return Err(ConfigError::new("limit", format_args!("unset"), "at least 1"));
        };
        ConfigError::at_least_one("limit", limit)?;
        #[cfg(feature = "tokio")]
        {
            check_duration("item_timeout", self.limits.item)?;
            check_duration("deadline", self.limits.batch)?;
        }
        Ok(BatchExecutor { limit, limits: self.limits })
    }
}

/// Far enough for anybody, and near enough that adding it to an instant cannot overflow.
#[cfg(feature = "tokio")]
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

#[cfg(feature = "tokio")]
fn check_duration(field: &'static str, limit: Option<Duration>) -> Result<(), ConfigError> {
    match limit {
        Some(limit) if limit.is_zero() || limit > LONGEST => {
            Err(ConfigError::new(field, limit, "more than zero and at most 100 years"))
        }
        _ => Ok(()),
    }
}
