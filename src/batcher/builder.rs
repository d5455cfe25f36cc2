//! The limits of a batcher, checked when it is built.

use core::fmt;
use core::future::Future;
use core::time::Duration;
use std::error::Error;

use super::batch::Batch;
use super::core::Limits;
use super::driver::{Driver, Run, Timer};
use super::error::BatchError;
use super::handle::Batcher;
use super::shared::{DeadLetter, Shared};
#[cfg(feature = "tokio")]
use super::timer::TokioTimer;
use crate::retry::at_most_longest;
use crate::{ConfigError, Retry, Semaphore};

/// Sets the limits of a [`Batcher`] and builds it.
///
/// Made by [`Batcher::builder`]. What is not set:
///
/// | | default | may be |
/// | --- | --- | --- |
/// | `max_items` | 500 | 1 to [`Semaphore::MAX_PERMITS`] |
/// | `window` | 50 ms | zero to ten years |
/// | `capacity` | 4 x `max_items` | `max_items` to [`Semaphore::MAX_PERMITS`] |
/// | `concurrency` | 1 | at least 1 |
/// | `retry` | [`Retry::none`] | |
/// | `dead_letter` | must be set | |
#[must_use = "a builder does nothing until it is built"]
pub struct Builder<T> {
    max_items: usize,
    window: Duration,
    capacity: Option<usize>,
    concurrency: usize,
    retry: Retry,
    dead_letter: Option<Box<DeadLetter<T>>>,
}

impl<T> Builder<T> {
    pub(crate) fn new() -> Self {
        Self {
            max_items: 500,
            window: Duration::from_millis(50),
            capacity: None,
            concurrency: 1,
            retry: Retry::none(),
            dead_letter: None,
        }
    }

    /// The most items in a batch; one that has them is closed. At least 1, and at most
    /// [`Semaphore::MAX_PERMITS`].
    pub fn max_items(mut self, max_items: usize) -> Self {
        self.max_items = max_items;
        self
    }

    /// How long after its first item a batch is handed over though it is not full, if the handler
    /// is free; until it is, the batch goes on filling. Zero: as soon as the handler is free. At
    /// most ten years. A timer rounds it up, tokio's to the millisecond.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// The most items accepted and unfinished: in the open batch, closed, in the handler, or
    /// waiting for a retry. At least `max_items`.
    pub fn capacity(mut self, capacity: usize) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// How many batches may be in the handler at once. At least 1.
    ///
    /// With 1, batches are finished in order: a batch that waits for its retry holds up those
    /// behind it. With more, it waits without its place, and when it is due takes turns with them.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// How often a batch is tried, and how long it waits in between. Only what its guard still
    /// held is tried again.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Who gets the items that the batcher could not deliver and that nobody else is there to
    /// take: those whose last attempt failed, with the error; those pending when the driver or its
    /// runtime goes away; those a shutdown gave up and whose report nobody waited for; and those
    /// in a guard that outlives the batcher.
    ///
    /// There is no default, because each would be a silent loss for somebody. It runs in the
    /// driver's task and holds up the batcher while it does, or, when the driver has ended, on the
    /// thread that drops the last handle or a guard that outlived it; it must not block, nor own a
    /// handle. A panic in it is caught, and changes nothing: it was given the items.
    pub fn dead_letter<D>(mut self, dead_letter: D) -> Self
    where
        D: Fn(Vec<T>, BatchError) + Send + Sync + 'static,
    {
        self.dead_letter = Some(Box::new(dead_letter));
        self
    }
}

impl<T: Send + 'static> Builder<T> {
    /// Builds the batcher and spawns its driver on the tokio runtime of the caller.
    ///
    /// # Errors
    ///
    /// A limit that may not be, a missing `dead_letter`, no tokio runtime, or one without timers.
    #[cfg(feature = "tokio")]
    pub fn build<H, F, E>(self, handler: H) -> Result<Batcher<T>, ConfigError>
    where
        H: Fn(Batch<T>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let runtime = super::timer::runtime()?;
        let (batcher, driver) = self.build_with_driver(handler)?;
        runtime.spawn(driver);
        Ok(batcher)
    }

    /// Builds the batcher and returns its driver, to be spawned by the caller on a tokio runtime
    /// with timers; nothing is handed over before.
    ///
    /// # Errors
    ///
    /// A limit that may not be, or a missing `dead_letter`.
    ///
    /// ```
    /// use sluicegate::batcher::{Batch, Batcher};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (batcher, driver) = Batcher::builder()
    ///     .dead_letter(|items: Vec<u32>, why| eprintln!("{} items lost: {why}", items.len()))
    ///     .build_with_driver(|_: Batch<u32>| async { Ok::<(), std::io::Error>(()) })?;
    /// let driver = tokio::spawn(driver);
    ///
    /// batcher.send(1).await?;
    /// drop(batcher);
    /// driver.await?; // it has drained
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    pub fn build_with_driver<H, F, E>(self, handler: H) -> Result<(Batcher<T>, Driver), ConfigError>
    where
        H: Fn(Batch<T>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        self.build_with_timer(handler, TokioTimer::default())
    }

    /// The seam between the drivers that ship and the models, which have a clock of their own.
    pub(crate) fn build_with_timer<H, F, E, C>(
        self,
        handler: H,
        timer: C,
    ) -> Result<(Batcher<T>, Driver), ConfigError>
    where
        H: Fn(Batch<T>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
        C: Timer + Send + 'static,
    {
        let Self { max_items, window, capacity, concurrency, retry, dead_letter } = self;
        ConfigError::at_least_one("max_items", max_items)?;
        at_most_permits("max_items", max_items)?;
        ConfigError::at_least_one("concurrency", concurrency)?;
        at_most_longest("window", window)?;
        let capacity = capacity.unwrap_or(max_items.saturating_mul(4).min(Semaphore::MAX_PERMITS));
        at_most_permits("capacity", capacity)?;
        if capacity < max_items {
            return Err(ConfigError::new("capacity", capacity, "at least `max_items`"));
        }
        let Some(dead_letter) = dead_letter else {
            let unset = format_args!("not set");
            return Err(ConfigError::new("dead_letter", unset, "a function that takes what fails"));
        };
        let limits = Limits { max_items, window, concurrency };
        let shared = Shared::new(limits, capacity, C::now, dead_letter);
        let driver = Run::new(shared.clone(), handler, retry, timer);
        Ok((Batcher::over(shared), Driver(Box::pin(driver))))
    }
}

fn at_most_permits(field: &'static str, items: usize) -> Result<(), ConfigError> {
    if items > Semaphore::MAX_PERMITS {
        return Err(ConfigError::new(field, items, "at most `Semaphore::MAX_PERMITS`"));
    }
    Ok(())
}

impl<T> fmt::Debug for Builder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("max_items", &self.max_items)
            .field("window", &self.window)
            .field("capacity", &self.capacity)
            .field("concurrency", &self.concurrency)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}
