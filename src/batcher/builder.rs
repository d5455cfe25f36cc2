//! The limits of a batcher, checked when it is built.

use core::fmt;
use core::future::Future;
use core::hash::Hash;
use core::marker::PhantomData;
use core::time::Duration;
use std::sync::Arc;

use super::batch::Batch;
use super::buffers::{Buffers, SingleBuffer};
use super::capacity::Limits;
use super::driver::{Delivered, Driven, Driver, Run};
use super::error::{BatchError, HandlerError};
use super::failure_state::{Failing, Isolation};
use super::handle::Batcher;
use super::keyed::{KeyedBatch, KeyedBatcher, KeyedBuffers};
use super::shared::{DeadLetter, Shared, Weigher};
use crate::{ConfigError, Retry, RetryWhen, Semaphore};

/// Sets the limits of a [`Batcher`] or a [`KeyedBatcher`] and builds it.
///
/// Made by [`Batcher::builder`] or, for a batch per key, by [`Batcher::keyed`]. Defaults:
///
/// | | default | may be |
/// | --- | --- | --- |
/// | `max_items` | 500 | 1 to [`Semaphore::MAX_PERMITS`] |
/// | `max_weight` | items are not weighed | 1 to 4,294,967,295 (2³² − 1) |
/// | `window` | 50 ms | zero to ten years |
/// | `eager_when_idle` | no | |
/// | `capacity` | 4 x `max_items`; with keys, 4 x the greater of `max_items` and `max_keys` | `max_items` to [`Semaphore::MAX_PERMITS`] |
/// | `capacity_weight` | none | `max_weight` to [`Semaphore::MAX_PERMITS`] |
/// | `concurrency` | 1; if a semaphore is shared, what that allows | at least 1 |
/// | `semaphore` | no semaphore is shared | |
/// | `retry` | [`Retry::none`] | |
/// | `isolate_poison` | no | at least 2 |
/// | `capacity_per_key` (with keys) | none but `capacity` | `max_items` to `capacity` |
/// | `in_order` (with keys) | no | |
/// | `dead_letter` | must be set, except for a [`Caller`](super::Caller) | |
/// | `delivered` | delivered items are dropped | |
#[must_use = "a builder does nothing until it is built"]
pub struct Builder<T, L: Form = Unkeyed> {
    max_items: usize,
    max_weight: Option<(u64, Box<Weigher<T>>)>,
    window: Duration,
    eager_when_idle: bool,
    capacity: Option<usize>,
    capacity_weight: Option<u64>,
    concurrency: Option<usize>,
    semaphore: Option<Arc<Semaphore>>,
    retry: RetryWhen<HandlerError>,
    isolation: Option<Isolation>,
    pub(super) dead_letter: Option<Box<DeadLetter<T, L::Tag>>>,
    delivered: Option<Box<Delivered<T>>>,
    form: L,
}

/// The two forms of a batcher: [`Unkeyed`] and [`Keyed`].
pub trait Form {
    /// What the batches of one lane have in common.
    type Tag;
}

/// One batch for all items; see [`Builder`].
#[derive(Debug)]
pub struct Unkeyed(());

impl Form for Unkeyed {
    type Tag = ();
}

/// A batch per key, and the options of keys; see [`Builder`].
pub struct Keyed<K> {
    max_keys: usize,
    capacity_per_key: Option<usize>,
    in_order: bool,
    key: PhantomData<fn() -> K>,
}

impl<K> Form for Keyed<K> {
    type Tag = Arc<K>;
}

impl<T> Builder<T> {
    pub(super) fn unkeyed() -> Self {
        Self::new(Unkeyed(()))
    }
}

impl<K, T> Builder<T, Keyed<K>> {
    pub(super) fn keyed(max_keys: usize) -> Self {
        Self::new(Keyed { max_keys, capacity_per_key: None, in_order: false, key: PhantomData })
    }
}

impl<T, L: Form> Builder<T, L> {
    fn new(form: L) -> Self {
        Self {
            max_items: 500,
            max_weight: None,
            window: Duration::from_millis(50),
            eager_when_idle: false,
            capacity: None,
            capacity_weight: None,
            concurrency: None,
            semaphore: None,
            retry: Retry::none().into(),
            isolation: None,
            dead_letter: None,
            delivered: None,
            form,
        }
    }

    /// The most items in a batch, which is of one key if there are keys; one that has them is closed. At
    /// least 1, and at most [`Semaphore::MAX_PERMITS`].
    pub fn max_items(mut self, max_items: usize) -> Self {
        self.max_items = max_items;
        self
    }

    /// The most that the items of a batch may weigh together, from 1 to 4,294,967,295 (2³² − 1), in
    /// whatever unit `weigh` answers in: bytes, say. An item that does not fit into the open batch
    /// closes it; one that weighs more by itself is handed back.
    ///
    /// `weigh` is asked once about each item, by its sender, before the item is accepted and outside
    /// the batcher's lock. A panic in it goes on to that sender.
    ///
    /// ```
    /// use sluicegate::batcher::{Batch, Batcher, TrySendError};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let frames = Batcher::builder()
    ///     .max_weight(1_000_000, |frame: &Vec<u8>| frame.len() as u64)
    ///     .capacity_weight(8_000_000)
    ///     .dead_letter(|frames: Vec<Vec<u8>>, why| eprintln!("{} frames: {why}", frames.len()))
    ///     .build(|_: Batch<Vec<u8>>| async { Ok::<(), std::io::Error>(()) })?;
    ///
    /// frames.send(vec![0; 1_000]).await?;
    /// let too_heavy = frames.try_send(vec![0; 1_000_001]);
    /// assert!(matches!(too_heavy, Err(TrySendError::TooHeavy(_))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_weight(
        mut self,
        max_weight: u64,
        weigh: impl Fn(&T) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.max_weight = Some((max_weight, Box::new(weigh)));
        self
    }

    /// How long after its first item a batch is handed over though it is not full, if the handler
    /// is free; until it is, the batch goes on filling. Zero: as soon as the handler is free. At
    /// most ten years. A timer rounds it up, tokio's to the millisecond. Each key's batch has its own.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Hands the open batch over at once, however few items it holds, when there is no batch in the
    /// handler: a lone item does not wait for its window, and while the handler is busy what comes
    /// is gathered as ever. With keys, the batch that was opened first is handed over.
    pub fn eager_when_idle(mut self) -> Self {
        self.eager_when_idle = true;
        self
    }

    /// The most items accepted and unfinished: in the open batch, closed, in the handler, or
    /// waiting for a retry, over all keys. At least `max_items`.
    pub fn capacity(mut self, capacity: usize) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// The most that items accepted and unfinished may weigh together; at least `max_weight`, which
    /// must be set. The weight of a batch counts until all of it is finished.
    pub fn capacity_weight(mut self, capacity_weight: u64) -> Self {
        self.capacity_weight = Some(capacity_weight);
        self
    }

    /// How many batches may be in the handler at once. At least 1.
    ///
    /// With 1, batches are finished in order: a batch that waits for its retry holds up those
    /// behind it. With more, or with keys, it waits without its place, and when it is due takes turns
    /// with them; [`in_order`](Self::in_order) keeps the batches of a key in order.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = Some(concurrency);
        self
    }

    /// Shares a budget with others: each batch in the handler holds one permit of `semaphore`, for
    /// which it waits in line with everybody else who wants one. A batch that waits for its retry
    /// holds none; an open one goes on filling while it waits for the first.
    ///
    /// If a [`concurrency`](Self::concurrency) is set too, both apply; with 1, batches are finished in
    /// order. A semaphore that is closed ends the batcher as a dropped driver does: what is pending
    /// goes to the dead letter.
    pub fn semaphore(mut self, semaphore: Arc<Semaphore>) -> Self {
        self.semaphore = Some(semaphore);
        self
    }

    /// How often a batch is tried, and how long it waits in between: a [`Retry`], or one that knows
    /// [`when`](Retry::when). Only what its guard still held is tried again.
    ///
    /// - An attempt that takes longer than the [attempt timeout](Retry::attempt_timeout), from when the
    ///   batch is handed over, is polled once more; if it is not ready then, the handler's future is
    ///   dropped, with the guard that is in it, and the attempt has failed. A handler that has given
    ///   its guard away is dropped as well, but the attempt ends only when the guard is back. A
    ///   future that blocks its thread cannot be interrupted.
    /// - A [budget](Retry::budget) is charged for each attempt that fails, and gets its share back
    ///   for each that returns `Ok`, those to [find what makes a batch fail](Self::isolate_poison)
    ///   included, which are charged whatever they fail with. While it is spent no batch is tried
    ///   again, nor cut.
    /// - A choice of errors is asked about what a handler returns. A panic and a time limit that
    ///   passed are worth another attempt. A policy that panics allows none.
    ///
    /// ```
    /// use core::time::Duration;
    /// use sluicegate::batcher::{Batch, Batcher, HandlerError};
    /// use sluicegate::{Retry, RetryBudget};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let budget = RetryBudget::new(100, 0.1)?;
    /// let retry = Retry::builder()
    ///     .max_attempts(5)
    ///     .exponential(Duration::from_millis(10))
    ///     .attempt_timeout(Duration::from_secs(10))
    ///     .budget(&budget)
    ///     .build()?
    ///     .when(|error: &HandlerError| error.is::<std::io::Error>());
    /// let rows = Batcher::builder()
    ///     .retry(retry)
    ///     .dead_letter(|rows: Vec<u32>, why| eprintln!("{} rows: {why}", rows.len()))
    ///     .build(|_: Batch<u32>| async { Ok::<(), std::io::Error>(()) })?;
    /// rows.send(7).await?;
    /// assert!(rows.flush().await.all_delivered());
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry(mut self, retry: impl Into<RetryWhen<HandlerError>>) -> Self {
        self.retry = retry.into();
        self
    }

    /// Looks for the items that make a batch fail, so that only those go to the dead letter: when all
    /// attempts of a batch have failed, its remaining items are cut in two, each half is handed over by
    /// itself, at once, and what fails again is cut again, down to the single item. It takes two
    /// calls of the handler for each cut, and at most `max_probes` of them for a batch; what is still
    /// together then fails together. To find one item among 500 takes 18 calls.
    ///
    /// At least 2. For a handler that does all or nothing, say a transaction: one that takes out of
    /// its guard what it finished need not be asked again.
    ///
    /// - Which errors are worth a cut: a rejected row is, an expired login is not. Those that the
    ///   [`retry`](Self::retry) policy's choice calls transient are not: when the attempts are used
    ///   up, the batch fails together. All others are; so is every error of a policy without a
    ///   choice. [`isolate_poison_when`](Self::isolate_poison_when) says it in another way. A panic
    ///   and a time limit that passed always are, as one item may have caused them.
    /// - An error that no item has caused, say an outage, is given up early. When 16 calls in a row
    ///   have failed and delivered nothing, or twice as many as it takes to halve the batch down to
    ///   one item if that is more, nothing is cut any more: each part that was cut off is tried
    ///   once, and until one is delivered, what fails fails together. So an outage costs at most
    ///   three calls for each time that the batch can be halved, or 16 and one for each: for 500
    ///   items 27, not 998.
    /// - A [budget](Retry::budget) is charged for each of these calls that fails, whatever it fails
    ///   with. While it is spent nothing is cut.
    /// - A transient error during the search is tried again first, if the batch has attempts left.
    pub fn isolate_poison(mut self, max_probes: u32) -> Self {
        self.isolation = Some(Isolation { max_probes, when: None });
        self
    }

    /// As [`isolate_poison`](Self::isolate_poison), but a batch is cut only when `worth_a_cut` is true
    /// of the error that the handler returned: when it says that an item is to blame. It is asked
    /// when there is to be no other attempt, and takes the place of what the
    /// [`retry`](Self::retry) policy calls transient. A panic in it says no.
    ///
    /// ```
    /// use sluicegate::batcher::{Batch, Batcher, HandlerError};
    ///
    /// /// What the database answered.
    /// #[derive(Debug)]
    /// enum Db {
    ///     RowRejected,
    ///     LoginExpired,
    /// }
    /// # impl std::fmt::Display for Db {
    /// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    /// #         write!(f, "{self:?}")
    /// #     }
    /// # }
    /// # impl std::error::Error for Db {}
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let rows = Batcher::builder()
    ///     .isolate_poison_when(100, |error: &HandlerError| {
    ///         matches!(error.downcast_ref(), Some(Db::RowRejected))
    ///     })
    ///     .dead_letter(|rows: Vec<u32>, why| eprintln!("{rows:?}: {why}"))
    ///     .build(|rows: Batch<u32>| async move {
    ///         if rows.iter().any(|row| *row == 13) { Err(Db::RowRejected) } else { Ok(()) }
    ///     })?;
    /// for row in 0..20 {
    ///     rows.send(row).await?;
    /// }
    /// let report = rows.flush().await;
    /// assert_eq!((report.delivered, report.failed), (19, 1));
    /// # let _ = Db::LoginExpired;
    /// # Ok(())
    /// # }
    /// ```
    pub fn isolate_poison_when(
        mut self,
        max_probes: u32,
        worth_a_cut: impl Fn(&HandlerError) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.isolation = Some(Isolation { max_probes, when: Some(Box::new(worth_a_cut)) });
        self
    }

    /// What takes each item that was left in its batch when the handler returned `Ok`: it is delivered.
    /// Unless this is set, such items are dropped.
    ///
    /// For items that carry something to be settled, such as the [`Ack`](crate::Ack) of an
    /// [`Acked`](crate::Acked). Items that the handler takes out of its batch are its own. It runs in the
    /// driver's task, before the items are reported as delivered, and must not block. A panic in it
    /// is caught, and changes nothing: it was given the item.
    pub fn delivered(mut self, delivered: impl Fn(T) + Send + Sync + 'static) -> Self {
        self.delivered = Some(Box::new(delivered));
        self
    }
}

impl<T> Builder<T> {
    /// Who gets the items that the batcher could not deliver and that nobody else is there to
    /// take: those whose last attempt failed, with the error; those pending when the driver or its
    /// runtime goes away; those a shutdown gave up and whose report nobody waited for; and those
    /// in a guard that outlives the batcher.
    ///
    /// There is no default, because each would be a silent loss for somebody; except for calls, whose
    /// callers get the reason ([`build_caller`](Self::build_caller)). It runs in the
    /// driver's task and holds up the batcher while it does, or, when the driver has ended, on the
    /// thread that drops the last handle or a guard that outlived it; it must not block, nor own a
    /// handle. A panic in it is caught, and changes nothing: it was given the items.
    pub fn dead_letter<D>(mut self, dead_letter: D) -> Self
    where
        D: Fn(Vec<T>, BatchError) + Send + Sync + 'static,
    {
        self.dead_letter = Some(Box::new(move |(): &(), items, why| dead_letter(items, why)));
        self
    }
}

impl<K, T> Builder<T, Keyed<K>> {
    /// The most items of one key accepted and unfinished, wherever they are. At least `max_items`,
    /// and at most `capacity`. Who sends more waits in that key's own line, and keeps nobody else
    /// waiting.
    pub fn capacity_per_key(mut self, capacity_per_key: usize) -> Self {
        self.form.capacity_per_key = Some(capacity_per_key);
        self
    }

    /// One batch of a key at a time, in the order in which they were closed: the next is handed over
    /// when the one before it is finished with all its retries. Batches of other keys run side by
    /// side with it, as many as the `concurrency` allows.
    pub fn in_order(mut self) -> Self {
        self.form.in_order = true;
        self
    }

    /// As [`dead_letter`](Builder::dead_letter) without keys, with the key that the items have in common.
    pub fn dead_letter<D>(mut self, dead_letter: D) -> Self
    where
        D: Fn(&K, Vec<T>, BatchError) + Send + Sync + 'static,
    {
        self.dead_letter =
            Some(Box::new(move |key: &Arc<K>, items, why| dead_letter(key, items, why)));
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
        E: Into<HandlerError> + 'static,
    {
        let runtime = super::runtime::runtime()?;
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
    pub fn build_with_driver<H, F, E>(self, handler: H) -> Result<(Batcher<T>, Driver), ConfigError>
    where
        H: Fn(Batch<T>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError> + 'static,
    {
        let max_items = self.max_items;
        let (shared, driver) =
            self.into_parts(max_items)?.build::<SingleBuffer<T>, _, _, _>(handler)?;
        Ok((Batcher::over(shared), driver))
    }
}

impl<K, T> Builder<T, Keyed<K>>
where
    K: Hash + Eq + Send + Sync + 'static,
    T: Send + 'static,
{
    /// Builds the batcher and spawns its driver on the tokio runtime of the caller.
    ///
    /// # Errors
    ///
    /// A limit that may not be, a missing `dead_letter`, no tokio runtime, or one without timers.
    #[cfg(feature = "tokio")]
    pub fn build<H, F, E>(self, handler: H) -> Result<KeyedBatcher<K, T>, ConfigError>
    where
        H: Fn(KeyedBatch<K, T>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError> + 'static,
    {
        let runtime = super::runtime::runtime()?;
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
    pub fn build_with_driver<H, F, E>(
        self,
        handler: H,
    ) -> Result<(KeyedBatcher<K, T>, Driver), ConfigError>
    where
        H: Fn(KeyedBatch<K, T>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError> + 'static,
    {
        let Keyed { max_keys, capacity_per_key, in_order, .. } = self.form;
        // As many lanes as items, at the most: their numbers must fit.
        if max_keys == 0 || max_keys > MOST_KEYS {
            return Err(ConfigError::new("max_keys", max_keys, "from 1 to 2147483647"));
        }
        let widest = max_keys.max(self.max_items);
        let mut parts = self.into_parts(widest)?;
        let limits = &mut parts.limits;
        if let Some(most) = capacity_per_key {
            if most < limits.max_items || most > limits.capacity {
                let expected = "at least `max_items` and at most `capacity`";
                return Err(ConfigError::new("capacity_per_key", most, expected));
            }
            limits.capacity_per_key = most;
        }
        (limits.max_keys, limits.in_order) = (max_keys, in_order);
        let (shared, driver) = parts.build::<KeyedBuffers<K, T>, _, _, _>(handler)?;
        Ok((KeyedBatcher::over(shared), driver))
    }
}

const MOST_KEYS: usize = i32::MAX as usize;

/// What is built of.
struct Parts<T, G> {
    limits: Limits,
    driven: Driven<T>,
    weigher: Option<Box<Weigher<T>>>,
    dead_letter: Option<Box<DeadLetter<T, G>>>,
}

impl<T: Send + 'static, G: Send + 'static> Parts<T, G> {
    fn build<L, H, F, E>(self, handler: H) -> Result<(Arc<Shared<T, L>>, Driver), ConfigError>
    where
        L: Buffers<T, Tag = G, Unsent: Send> + Send + 'static,
        H: Fn(L::Guard) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError> + 'static,
    {
        let Self { limits, driven, weigher, dead_letter } = self;
        let expected = "a function that takes what fails";
        let dead_letter = dead_letter
            .ok_or_else(|| ConfigError::new("dead_letter", format_args!("not set"), expected))?;
        let shared = Shared::<T, L>::new(limits, weigher, dead_letter);
        let driver = Run::new(shared.clone(), shared.clone(), handler, driven);
        Ok((shared, Driver(Box::pin(driver))))
    }
}

impl<T, L: Form> Builder<T, L> {
    /// Checks everything but the dead letter and the options of keys. `widest` is what the capacity
    /// depends on if none is set.
    fn into_parts(self, widest: usize) -> Result<Parts<T, L::Tag>, ConfigError> {
        let Self { max_items, window, eager_when_idle, capacity_weight, retry, .. } = self;
        ConfigError::at_least_one("max_items", max_items)?;
        at_most_permits("max_items", max_items)?;
        ConfigError::at_most_longest("window", window)?;
        let (max_weight, weigher) = match self.max_weight {
            Some((max, weigher)) => (Some(max), Some(weigher)),
            None => (None, None),
        };
        if let Some(max) = max_weight.filter(|max| *max == 0 || *max > u64::from(u32::MAX)) {
            return Err(ConfigError::new("max_weight", max, "from 1 to 4294967295"));
        }
        let capacity =
            self.capacity.unwrap_or(widest.saturating_mul(4).min(Semaphore::MAX_PERMITS));
        at_most_permits("capacity", capacity)?;
        if capacity < max_items {
            return Err(ConfigError::new("capacity", capacity, "at least `max_items`"));
        }
        if let Some(weight) = capacity_weight {
            if max_weight.is_none_or(|max| weight < max) {
                let expected = "at least `max_weight`, which must be set";
                return Err(ConfigError::new("capacity_weight", weight, expected));
            }
            if weight > Semaphore::MAX_PERMITS as u64 {
                let expected = "at most `Semaphore::MAX_PERMITS`";
                return Err(ConfigError::new("capacity_weight", weight, expected));
            }
        }
        let alone = if self.semaphore.is_some() { usize::MAX } else { 1 };
        let concurrency = self.concurrency.unwrap_or(alone);
        ConfigError::at_least_one("concurrency", concurrency)?;
        if let Some(few) = self.isolation.as_ref().filter(|isolation| isolation.max_probes < 2) {
            return Err(ConfigError::new("isolate_poison", few.max_probes, "at least 2"));
        }
        let limits = Limits {
            max_items,
            max_weight: max_weight.unwrap_or(u64::MAX),
            window,
            eager_when_idle,
            capacity,
            capacity_weight,
            concurrency,
            attempt_timeout: retry.policy().attempt_timeout(),
            shared: self.semaphore.is_some(),
            max_keys: usize::MAX,
            capacity_per_key: usize::MAX,
            in_order: false,
        };
        let failing = Failing { retry, isolation: self.isolation };
        let Self { semaphore, dead_letter, delivered, .. } = self;
        let driven = Driven { failing, semaphore, delivered };
        Ok(Parts { limits, driven, weigher, dead_letter })
    }
}

fn at_most_permits(field: &'static str, items: usize) -> Result<(), ConfigError> {
    if items > Semaphore::MAX_PERMITS {
        return Err(ConfigError::new(field, items, "at most `Semaphore::MAX_PERMITS`"));
    }
    Ok(())
}

impl<K> fmt::Debug for Keyed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed")
            .field("max_keys", &self.max_keys)
            .field("capacity_per_key", &self.capacity_per_key)
            .field("in_order", &self.in_order)
            .finish()
    }
}

impl<T, L: Form + fmt::Debug> fmt::Debug for Builder<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("max_items", &self.max_items)
            .field("max_weight", &self.max_weight.as_ref().map(|(max_weight, _)| max_weight))
            .field("window", &self.window)
            .field("eager_when_idle", &self.eager_when_idle)
            .field("capacity", &self.capacity)
            .field("capacity_weight", &self.capacity_weight)
            .field("concurrency", &self.concurrency)
            .field("retry", &self.retry)
            .field("isolate_poison", &self.isolation.as_ref().map(|isolation| isolation.max_probes))
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}
