//! The options of an executor, checked when it is built.

use core::fmt;
#[cfg(any(feature = "tokio", loom))]
use core::time::Duration;
use std::sync::Arc;

use super::BatchExecutor;
use super::observe::BatchEvent;
use super::options::Options;
use super::policies::Policies;
use super::stop::{Stop, StopToken};
use crate::ConfigError;
use crate::semaphore::Semaphore;
#[cfg(feature = "tokio")]
use crate::throttle::Throttle;

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
#[derive(Clone, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct BatchExecutorBuilder {
    limit: Option<usize>,
    /// With the limit of 0 until it is built.
    options: Options,
}

impl BatchExecutorBuilder {
    /// How many items of a batch may be in hand at once, at least 1. Without it there must be a
    /// [`semaphore`](Self::semaphore), whose limit at the time of building is taken.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// A semaphore that others may share: an item starts when it has a permit, for
    /// which it waits first come, first served, and gives it back when it has settled.
    ///
    /// Inputs are pulled one ahead: the next waits, as one of those in hand, for its permit.
    ///
    /// # Nested batches
    ///
    /// A batch that is polled inside an item of another on the same semaphore shares that item's
    /// permits, first come, first served, and runs further items on permits of their own. So it
    /// gets on also when its parents hold the whole semaphore. An item is counted by its own permits
    /// or by those of what runs inside of it, never by both.
    ///
    /// With [weights](BatchExecutor::by_weight), a nested item may weigh no more than the item that
    /// it is nested in, unless that holds all the permits that there are: for the rest it would wait
    /// while its parent holds some, and so would those nested in other parents. An item that is too
    /// heavy does not start, and ends its batch with
    /// [`BatchEnd::NestedTooHeavy`](super::BatchEnd::NestedTooHeavy).
    ///
    /// The parent is found while it is being polled: a batch in a task that the item has spawned
    /// does not find it, and may wait for ever for an item that waits for it.
    ///
    /// # Changes of the limit
    ///
    /// A [`set_limit`](Semaphore::set_limit) takes effect on what waits and on what starts later.
    ///
    /// # When it is closed
    ///
    /// Once the semaphore is closed nothing more starts: the batch ends with
    /// [`BatchEnd::SemaphoreClosed`](super::BatchEnd::SemaphoreClosed).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// use std::sync::Arc;
    /// use sluicegate::{BatchExecutor, Semaphore, all_fulfilled};
    ///
    /// let connections = Arc::new(Semaphore::new(2));
    /// let executor = BatchExecutor::builder().semaphore(connections).build()?;
    /// let sums = executor.all_settled([10, 20, 30], async |ten| {
    ///     let digits = executor.all_settled(0..10, async |n| Ok::<_, ()>(ten + n)).await;
    ///     all_fulfilled(digits).map(|digits| digits.iter().sum::<u32>())
    /// });
    /// assert_eq!(all_fulfilled(sums.await).unwrap(), [145, 245, 345]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn semaphore(mut self, semaphore: Arc<Semaphore>) -> Self {
        self.options.semaphore = Some(semaphore);
        self
    }

    /// How many items may be in hand beyond the limit, while others wait for their
    /// [retry](BatchExecutor::retry). 0 by default.
    ///
    /// An item that waits for its retry does not run: it gives back its permit, and what runs may be
    /// as many as the limit beside it, as long as those that run and those that wait are together
    /// not more than the limit and the backlog. With 0 an item that waits keeps its room, so that
    /// with a limit of 1 everything is strictly in input order, retries included.
    ///
    /// [Spawned](BatchExecutor::spawn), inputs are pulled as far ahead as the backlog allows, also
    /// while none waits for its retry; what runs is never more than the limit.
    pub fn backlog(mut self, items: usize) -> Self {
        self.options.backlog = items;
        self
    }

    /// Every attempt of an item waits for its start on this throttle, which others may
    /// share.
    ///
    /// One item of a run at a time waits there; if there is a [`semaphore`](Self::semaphore), it has
    /// its permit by then, so that it does start when the throttle counts it.
    ///
    /// Runs need tokio's timer then. Available with the feature `tokio`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use sluicegate::{BatchExecutor, Throttle};
    ///
    /// let hundred = Arc::new(Throttle::new(100, Duration::from_secs(60))?);
    /// let executor = BatchExecutor::builder().limit(10).throttle(hundred).build()?;
    /// let start = tokio::time::Instant::now();
    /// executor.all_settled(0..250, async |n| Ok::<_, ()>(n)).await;
    /// assert_eq!(start.elapsed().as_secs(), 120);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    pub fn throttle(mut self, throttle: Arc<Throttle>) -> Self {
        self.options.throttle = Some(throttle);
        self
    }

    /// How long one item may run, more than zero and at most 100 years. None by default.
    ///
    /// The limit counts from the first time the item's future is pending, or the item waits for its
    /// retry, on tokio's clock; it includes all attempts and the waits between them. At its end the future is polled once more, so that what is ready by then counts; if it is not
    /// ready it is dropped, and the outcome is [`ItemError::TimedOut`](crate::ItemError::TimedOut). A
    /// future that blocks its thread cannot be interrupted.
    ///
    /// Runs need tokio's timer then. Available with the feature `tokio`.
    ///
    /// # Complexity
    ///
    /// One timer a run, however many items there are; O(1) amortised an item.
    #[cfg(any(feature = "tokio", loom))]
    pub fn item_timeout(mut self, limit: Duration) -> Self {
        self.options.limits.item = Some(limit);
        self
    }

    /// How long a whole run may take from its first poll, more than zero and at most 100 years;
    /// spawned, from the first poll of any of its workers. None by default.
    ///
    /// At its end the run is aborted, as by [`Stop::Abort`], but that what had started and is not
    /// ready then is [`TimedOut`](crate::ItemError::TimedOut) by the scope of the batch. What had been
    /// pulled and has not started is [`Cancelled`](crate::ItemError::Cancelled): nothing of it has
    /// happened. The sink still gets every outcome: it
    /// is the caller's, and not cut short. Inputs not pulled stay in the source, which the caller
    /// keeps by lending it ([`Iterator::by_ref`]).
    ///
    /// Runs need tokio's timer then. Available with the feature `tokio`.
    #[cfg(any(feature = "tokio", loom))]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.options.limits.batch = Some(limit);
        self
    }

    /// A token that stops every run of the executor, from anywhere and for good.
    pub fn stop(mut self, token: StopToken) -> Self {
        self.options.stop = Some(token);
        self
    }

    /// Stops a run when so many of its items, at least 1, have failed: have an outcome other than
    /// `Ok`. Never by default.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// use sluicegate::{BatchEnd, BatchExecutor, Stop};
    ///
    /// let executor = BatchExecutor::builder().limit(4).stop_when(2, Stop::Drain).build()?;
    /// let outcomes = executor.all_settled(0.., async |n: u64| Err::<(), _>(n)).await;
    /// assert_eq!(outcomes.len(), 2);
    /// assert!(matches!(outcomes.summary().end(), BatchEnd::TooManyFailures));
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop_when(mut self, failures: usize, how: Stop) -> Self {
        self.options.stop_when = Some((failures, how));
        self
    }

    /// Is told of what happens in a run, as it does: for a progress bar or a trace.
    ///
    /// It is called where the run is polled and should be quick. A panic of its is caught and
    /// changes nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    /// use sluicegate::{BatchEvent, BatchExecutor};
    ///
    /// let done = Arc::new(AtomicUsize::new(0));
    /// let progress = done.clone();
    /// let executor = BatchExecutor::builder()
    ///     .limit(3)
    ///     .observer(move |event| {
    ///         if let BatchEvent::Settled { .. } = event {
    ///             progress.fetch_add(1, Relaxed);
    ///         }
    ///     })
    ///     .build()?;
    /// executor.all_settled(0..7, async |n| Ok::<_, ()>(n)).await;
    /// assert_eq!(done.load(Relaxed), 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn observer(mut self, observer: impl Fn(BatchEvent<'_>) + Send + Sync + 'static) -> Self {
        self.options.observer = Some(Arc::new(observer));
        self
    }

    /// The executor.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the limit is zero, or neither it nor a semaphore is set; if a duration or
    /// the number of failures is out of its bounds.
    pub fn build(mut self) -> Result<BatchExecutor, ConfigError> {
        let limit = match (self.limit, &self.options.semaphore) {
            (Some(limit), _) => limit,
            (None, Some(semaphore)) => semaphore.limit(),
            (None, None) => {
                return Err(ConfigError::new("limit", format_args!("unset"), "at least 1"));
            }
        };
        ConfigError::at_least_one("limit", limit)?;
        if let Some((failures, _)) = self.options.stop_when {
            ConfigError::at_least_one("stop_when", failures)?;
        }
        #[cfg(any(feature = "tokio", loom))]
        {
            check_duration("item_timeout", self.options.limits.item)?;
            check_duration("timeout", self.options.limits.batch)?;
        }
        if limit.checked_add(self.options.backlog).is_none() {
            return Err(ConfigError::new("backlog", self.options.backlog, "less, with `limit`"));
        }
        self.options.limit = limit;
        Ok(BatchExecutor { options: self.options, policy: Policies::default() })
    }
}

impl fmt::Debug for BatchExecutorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchExecutorBuilder")
            .field("limit", &self.limit)
            .field("options", &self.options)
            .finish()
    }
}

/// Far enough for anybody, and near enough that adding it to an instant cannot overflow.
#[cfg(any(feature = "tokio", loom))]
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

#[cfg(any(feature = "tokio", loom))]
fn check_duration(field: &'static str, limit: Option<Duration>) -> Result<(), ConfigError> {
    match limit {
        Some(limit) if limit.is_zero() || limit > LONGEST => {
            Err(ConfigError::new(field, limit, "more than zero and at most 100 years"))
        }
        _ => Ok(()),
    }
}
