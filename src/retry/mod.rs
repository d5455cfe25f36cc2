//! When to try again: a pure policy that knows neither clock nor runtime, and beside it a thin
//! loop that waits on tokio's clock.

#[cfg(feature = "tokio")]
mod attempts;
mod backoff;
mod budget;
mod builder;
mod error;
mod failure;
#[cfg(feature = "tokio")]
mod run;
mod state;
mod when;

use core::fmt;
use core::iter;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::time::Duration;
use std::sync::Arc;

#[cfg(feature = "tokio")]
pub use attempts::Attempts;
pub use backoff::{Delays, Jitter};
pub use budget::RetryBudget;
pub use builder::RetryBuilder;
pub use error::{Retried, RetryError};
pub use failure::Failure;
pub use state::{GaveUp, RetryState};
pub use when::RetryWhen;

use backoff::{Backoff, Shaping};

use crate::base::config::ConfigError;

/// How often something is tried, and how long to wait in between.
///
/// Attempts are counted with the first: three attempts are a first one and two retries. Cloning a
/// policy is cheap, and one policy serves any number of things that are tried, side by side too.
///
/// | to say | there is |
/// | --- | --- |
/// | how long to wait | [`constant`](Self::constant), [`linear`](Self::linear), [`exponential`](Self::exponential), or any iterator [`with_backoff`](Self::with_backoff) |
/// | that no wait is longer | [`RetryBuilder::cap`] |
/// | that not all come again at once | [`jitter`](Self::jitter), [`seed`](Self::seed) |
/// | which errors are worth another attempt | [`when`](Self::when) |
/// | how long an attempt may take | [`RetryBuilder::attempt_timeout`] |
/// | how many retries there may be in all | [`budget`](Self::budget) |
///
/// All of it is set by a [`builder`](Self::builder), which is checked when it is built. Use a policy alone by
/// [`run`](Self::run), or in a loop of your own by [`attempts`](Self::attempts); the batcher and the executor
/// take one.
///
/// Do not use it for what fails the same way each time: it only makes the failure late. Nor for
/// what must not happen twice: an attempt that timed out may still have had its effect.
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
/// A number and a factory of iterators, whose waits are cut to the cap and then shortened by the
/// jitter. What was tried so far is kept in a [`RetryState`]. Nothing is boxed for a policy
/// that never retries, and no iterator is made before something has failed.
#[derive(Clone)]
pub struct Retry {
    max_attempts: u32,
    backoff: Option<Arc<Backoff>>,
    shaping: Shaping,
    attempt_timeout: Option<Duration>,
    budget: Option<RetryBudget>,
}

impl Retry {
    /// One attempt and no retry.
    pub fn none() -> Self {
        Self {
            max_attempts: 1,
            backoff: None,
            shaping: Shaping::default(),
            attempt_timeout: None,
            budget: None,
        }
    }

    /// For jobs of a queue: three attempts, of which the second comes after 2 s and the third
    /// after 4 s more.
    ///
    /// ```
    /// let waits: Vec<_> = sluicegate::Retry::jobs().delays().map(|wait| wait.as_secs()).collect();
    /// assert_eq!(waits, [2, 4]);
    /// ```
    pub fn jobs() -> Self {
        Self::doubling(3, Duration::from_secs(2))
    }

    /// For transactions of a database: a first attempt and retries after 100, 200 and 400 ms, with
    /// 10 s an attempt.
    ///
    /// Say [`when`](Self::when): only what the database calls transient, as a deadlock (40P01) or
    /// a serialization failure (40001) of PostgreSQL, is worth another attempt.
    ///
    /// ```
    /// let retry = sluicegate::Retry::transactions();
    /// let waits: Vec<_> = retry.delays().map(|wait| wait.as_millis()).collect();
    /// assert_eq!(waits, [100, 200, 400]);
    /// ```
    pub fn transactions() -> Self {
        let retry = Self::doubling(4, Duration::from_millis(100));
        Self { attempt_timeout: Some(Duration::from_secs(10)), ..retry }
    }

    fn doubling(max_attempts: u32, first: Duration) -> Self {
        let waits = move || iter::successors(Some(first), |wait| Some(wait.saturating_mul(2)));
        let backoff: Arc<Backoff> = Arc::new(move || Box::new(waits()));
        Self { max_attempts, backoff: Some(backoff), ..Self::none() }
    }

    /// A policy with all its options: three attempts, waits that double from 100 ms.
    pub fn builder() -> RetryBuilder {
        RetryBuilder::from(Self::doubling(3, Duration::from_millis(100)))
    }

    /// The options of this policy, to change some of them.
    ///
    /// ```
    /// use core::time::Duration;
    /// use sluicegate::Retry;
    ///
    /// let retry = Retry::jobs().into_builder().attempt_timeout(Duration::from_secs(5)).build()?;
    /// assert_eq!(retry.max_attempts(), 3);
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn into_builder(self) -> RetryBuilder {
        RetryBuilder::from(self)
    }

    /// At most `max_attempts` attempts, `delay` apart.
    ///
    /// # Errors
    ///
    /// `max_attempts` must be at least 1, `delay` at most ten years.
    pub fn constant(max_attempts: u32, delay: Duration) -> Result<Self, ConfigError> {
        Self::builder().max_attempts(max_attempts).constant(delay).build()
    }

    /// At most `max_attempts` attempts; the first retry comes after `first`, each further one
    /// after `first` more than the wait before it, and no wait is longer than `cap`.
    ///
    /// # Errors
    ///
    /// `max_attempts` must be at least 1, `cap` at least `first` and at most ten years.
    ///
    /// ```
    /// use core::time::Duration;
    /// use sluicegate::Retry;
    ///
    /// let retry = Retry::linear(5, Duration::from_secs(2), Duration::from_secs(5))?;
    /// let waits: Vec<_> = retry.delays().map(|wait| wait.as_secs()).collect();
    /// assert_eq!(waits, [2, 4, 5, 5]);
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn linear(max_attempts: u32, first: Duration, cap: Duration) -> Result<Self, ConfigError> {
        Self::builder().max_attempts(max_attempts).linear(first).cap(cap).build()
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
        Self::builder().max_attempts(max_attempts).exponential(first).cap(cap).build()
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
        Self::builder().max_attempts(max_attempts).backoff(backoff).build()
    }

    /// Each wait is shortened at random, so that what failed together does not come again
    /// together. No jitter makes a wait longer.
    ///
    /// ```
    /// use core::time::Duration;
    /// use sluicegate::{Retry, retry::Jitter};
    ///
    /// let retry = Retry::constant(9, Duration::from_millis(80))?.jitter(Jitter::Equal).seed(7);
    /// assert!(retry.delays().all(|wait| (40..=80).contains(&wait.as_millis())));
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    #[must_use = "the policy is changed by value"]
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.shaping.jitter = jitter;
        self
    }

    /// The jitter is the same in each run of the program.
    ///
    /// Things that are tried one after the other each draw from a stream of their own; the nth one
    /// of this policy and its clones draws what the nth one drew the last time. Without a seed, it
    /// differs from run to run.
    #[must_use = "the policy is changed by value"]
    pub fn seed(mut self, seed: u64) -> Self {
        self.shaping.seed(seed);
        self
    }

    /// Retries are made as long as `budget` allows, which other policies may share.
    #[must_use = "the policy is changed by value"]
    pub fn budget(mut self, budget: &RetryBudget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// Only errors for which `retryable` returns true are worth another attempt.
    ///
    /// A policy alone takes every error for one that may pass. This fixes the type of the errors,
    /// so it comes last.
    ///
    /// ```
    /// use std::io;
    /// use sluicegate::Retry;
    ///
    /// let retry = Retry::jobs().when(|error: &io::Error| error.kind() == io::ErrorKind::TimedOut);
    /// assert_eq!(retry.policy().max_attempts(), 3);
    /// ```
    pub fn when<E, F>(self, retryable: F) -> RetryWhen<E>
    where
        F: Fn(&E) -> bool + Send + Sync + 'static,
    {
        RetryWhen::new(self, retryable)
    }

    /// The most attempts that are made, the first counted: at least 1.
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// How long an attempt may take; `None` if there is no limit.
    pub fn attempt_timeout(&self) -> Option<Duration> {
        self.attempt_timeout
    }

    /// The waits before the second, the third … attempt of one thing that is tried, jitter
    /// included.
    ///
    /// They know nothing of [`when`](Self::when) and [`budget`](Self::budget): see
    /// [`next_wait`](Self::next_wait) for those.
    pub fn delays(&self) -> Delays {
        let retries = self.max_attempts - 1;
        let waits = match &self.backoff {
            Some(backoff) if retries > 0 => Some(backoff()),
            _ => None,
        };
        Delays::new(retries, waits, &self.shaping)
    }

    /// Notes that an attempt failed in a way that is worth another one, and returns how long to
    /// wait before that.
    ///
    /// It reads no clock: for callers that keep the time themselves. With a budget, say
    /// [`succeeded`](Self::succeeded), too.
    ///
    /// # Errors
    ///
    /// [`GaveUp`] if there is to be no other attempt. It is final, and `state` is not to be used
    /// after it.
    ///
    /// ```
    /// use core::time::Duration;
    /// use sluicegate::{Retry, retry::{RetryState, GaveUp}};
    ///
    /// let retry = Retry::constant(2, Duration::from_secs(1))?;
    /// let mut state: RetryState = RetryState::new();
    /// assert_eq!(retry.next_wait(&mut state), Ok(Duration::from_secs(1)));
    /// assert_eq!(retry.next_wait(&mut state), Err(GaveUp::AttemptsSpent));
    /// assert_eq!(state.failures(), 2);
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn next_wait<E>(&self, state: &mut RetryState<E>) -> Result<Duration, GaveUp> {
        // Each failure is charged, also the last one: failures show how the service fares.
        let afforded = self.charge();
        let wait = state.next(self)?;
        if afforded { Ok(wait) } else { Err(GaveUp::BudgetSpent) }
    }

    /// A failure that is worth another attempt takes its token; says whether the budget allows one.
    pub(crate) fn charge(&self) -> bool {
        self.budget.as_ref().is_none_or(RetryBudget::withdraw)
    }

    /// Whether the budget, if there is one, allows further attempts.
    #[cfg(any(feature = "tokio", loom))]
    pub(crate) fn may_retry(&self) -> bool {
        self.budget.as_ref().is_none_or(RetryBudget::allows_retries)
    }

    /// Notes that an attempt succeeded, which refills the budget, if there is one.
    pub fn succeeded(&self) {
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
    }
}

// A panic in a caller's iterator leaves it whole: each run makes its own.
impl UnwindSafe for Retry {}
impl RefUnwindSafe for Retry {}

impl Default for Retry {
    /// [`Retry::none`].
    fn default() -> Self {
        Self::none()
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("max_attempts", &self.max_attempts)
            .field("cap", &self.shaping.cap)
            .field("jitter", &self.shaping.jitter)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}
