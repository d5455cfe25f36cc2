//! The options of a policy, checked when it is built.

use core::iter;
use core::time::Duration;
use std::sync::Arc;

use super::backoff::Jitter;
use super::{Retry, RetryBudget};
use crate::base::config::ConfigError;

/// The options of a [`Retry`]; made by [`Retry::builder`], or by [`Retry::into_builder`] from a policy.
///
/// ```
/// use core::time::Duration;
/// use sluicegate::{Retry, retry::Jitter};
///
/// let retry = Retry::builder()
///     .max_attempts(5)
///     .exponential(Duration::from_millis(100))
///     .cap(Duration::from_secs(1))
///     .jitter(Jitter::Equal)
///     .attempt_timeout(Duration::from_secs(10))
///     .build()?;
/// assert_eq!(retry.delays().count(), 4);
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is made until `build` is called"]
pub struct RetryBuilder {
    policy: Retry,
    /// The first wait, with the name under which it was given.
    first: Option<(&'static str, Duration)>,
    cap: Option<Duration>,
}

impl RetryBuilder {
    pub(super) fn from(policy: Retry) -> Self {
        Self { policy, first: None, cap: None }
    }

    /// The most attempts that are made, the first counted: at least 1; 3 unless set.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.policy.max_attempts = attempts;
        self
    }

    /// Each wait is `delay`, at most ten years.
    pub fn constant(self, delay: Duration) -> Self {
        Self { first: Some(("delay", delay)), ..self.backoff(move || iter::repeat(delay)) }
    }

    /// The first wait is `first`, each further one `first` longer than the one before; at most ten years.
    pub fn linear(self, first: Duration) -> Self {
        self.growing(first, move |wait| wait.saturating_add(first))
    }

    /// The first wait is `first`, each further one twice the one before; at most ten years. From 100 ms
    /// unless another backoff is set.
    pub fn exponential(self, first: Duration) -> Self {
        self.growing(first, |wait| wait.saturating_mul(2))
    }

    fn growing(
        self,
        first: Duration,
        next: impl Fn(Duration) -> Duration + Copy + Send + Sync + 'static,
    ) -> Self {
        let waits = move || iter::successors(Some(first), move |wait| Some(next(*wait)));
        Self { first: Some(("first", first)), ..self.backoff(waits) }
    }

    /// The waits are those of an iterator that `backoff` makes anew for each thing that is tried. One
    /// that ends early ends the retries; a wait longer than ten years is cut to ten years.
    pub fn backoff<F, I>(mut self, backoff: F) -> Self
    where
        F: Fn() -> I + Send + Sync + 'static,
        I: Iterator<Item = Duration> + Send + 'static,
    {
        self.policy.backoff = Some(Arc::new(move || Box::new(backoff())));
        self.first = None;
        self
    }

    /// No wait is longer than `cap`, jitter included; at most ten years, at least the first wait.
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = Some(cap);
        self
    }

    /// Each wait is shortened at random; see [`Retry::jitter`].
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.policy.shaping.jitter = jitter;
        self
    }

    /// The jitter is the same in each run of the program; see [`Retry::seed`].
    pub fn seed(mut self, seed: u64) -> Self {
        self.policy.shaping.seed(seed);
        self
    }

    /// An attempt that takes longer than `timeout`, which is more than zero and at most ten years, is
    /// dropped, and counts as failed in a way that is worth another attempt.
    ///
    /// [`Retry::run`] keeps to it. Callers that keep the time themselves read it with
    /// [`Retry::attempt_timeout`].
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.policy.attempt_timeout = Some(timeout);
        self
    }

    /// Retries are made as long as `budget` allows, which other policies may share.
    pub fn budget(mut self, budget: &RetryBudget) -> Self {
        self.policy.budget = Some(budget.clone());
        self
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the first option that is out of its bounds.
    pub fn build(self) -> Result<Retry, ConfigError> {
        let Self { mut policy, first, cap } = self;
        if policy.max_attempts == 0 {
            return Err(ConfigError::new("max_attempts", 0, "at least 1"));
        }
        if let Some((name, first)) = first {
            ConfigError::at_most_longest(name, first)?;
        }
        if let Some(cap) = cap {
            ConfigError::at_most_longest("cap", cap)?;
            if first.is_some_and(|(_, first)| cap < first) {
                return Err(ConfigError::new("cap", cap, "at least the first wait"));
            }
            policy.shaping.cap = policy.shaping.cap.min(cap);
        }
        if let Some(timeout) = policy.attempt_timeout {
            ConfigError::at_most_longest("attempt_timeout", timeout)?;
            if timeout.is_zero() {
                return Err(ConfigError::new("attempt_timeout", timeout, "more than zero"));
            }
        }
        Ok(policy)
    }
}
