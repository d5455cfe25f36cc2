//! The limits of a keyed batcher, checked when it is built.

use core::fmt;
use core::future::Future;
use core::hash::Hash;
use core::time::Duration;
use std::error::Error;
use std::sync::Arc;

use super::batch::KeyedBatch;
use super::buffers::KeyedBuffers;
use super::handle::KeyedBatcher;
use crate::batcher::builder::{Builder, Parts, at_most_permits, no_dead_letter};
use crate::batcher::driver::{Driver, Run};
use crate::batcher::error::{BatchError, HandlerError};
use crate::batcher::shared::{DeadLetter, Shared};
use crate::{ConfigError, RetryWhen, Semaphore};

/// Sets the limits of a [`KeyedBatcher`] and builds it.
///
/// Made by [`KeyedBatcher::builder`]. What is not set is as for a [`Builder`], but for these:
///
/// | | default | may be |
/// | --- | --- | --- |
/// | `max_keys` | 1,000 | 1 to 2³¹ − 1 |
/// | `capacity` | 4 x the greater of `max_items` and `max_keys` | `max_items` to [`Semaphore::MAX_PERMITS`] |
/// | `capacity_per_key` | none but `capacity` | `max_items` to `capacity` |
/// | `in_order` | no | |
#[must_use = "a builder does nothing until it is built"]
pub struct KeyedBuilder<K, T> {
    inner: Builder<T>,
    max_keys: usize,
    capacity_per_key: Option<usize>,
    in_order: bool,
    pub(in crate::batcher) dead_letter: Option<Box<DeadLetter<T, Arc<K>>>>,
}

impl<K, T> KeyedBuilder<K, T> {
    pub(crate) fn new() -> Self {
        Self {
            inner: Builder::new(),
            max_keys: 1_000,
            capacity_per_key: None,
            in_order: false,
            dead_letter: None,
        }
    }

    /// The most keys that have an open batch at once, from 1 to 2³¹ − 1. When one more comes, the
    /// open batch of the key that got an item least recently is closed, and handed over in its turn:
    /// nothing is discarded.
    pub fn max_keys(mut self, max_keys: usize) -> Self {
        self.max_keys = max_keys;
        self
    }

    /// The most items of one key accepted and unfinished, wherever they are. At least `max_items`,
    /// and at most `capacity`. Who sends more waits in that key's own line, and keeps nobody else
    /// waiting.
    pub fn capacity_per_key(mut self, capacity_per_key: usize) -> Self {
        self.capacity_per_key = Some(capacity_per_key);
        self
    }

    /// One batch of a key at a time, in the order in which they were closed: the next is handed over
    /// when the one before it is finished with all its retries. Batches of other keys run side by
    /// side with it, as many as the `concurrency` allows.
    pub fn in_order(mut self) -> Self {
        self.in_order = true;
        self
    }

    /// As [`Builder::max_items`], for a batch of one key.
    pub fn max_items(mut self, max_items: usize) -> Self {
        self.inner = self.inner.max_items(max_items);
        self
    }

    /// As [`Builder::max_weight`], for a batch of one key.
    pub fn max_weight(
        mut self,
        max_weight: u64,
        weigh: impl Fn(&T) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.inner = self.inner.max_weight(max_weight, weigh);
        self
    }

    /// As [`Builder::window`]: each key's batch has its own, from its first item.
    pub fn window(mut self, window: Duration) -> Self {
        self.inner = self.inner.window(window);
        self
    }

    /// As [`Builder::eager_when_idle`]: when no batch is in the handler, that which was opened
    /// first is handed over.
    pub fn eager_when_idle(mut self) -> Self {
        self.inner = self.inner.eager_when_idle();
        self
    }

    /// As [`Builder::capacity`], over all keys.
    pub fn capacity(mut self, capacity: usize) -> Self {
        self.inner = self.inner.capacity(capacity);
        self
    }

    /// As [`Builder::capacity_weight`], over all keys.
    pub fn capacity_weight(mut self, capacity_weight: u64) -> Self {
        self.inner = self.inner.capacity_weight(capacity_weight);
        self
    }

    /// As [`Builder::concurrency`], but that a batch never keeps its place while it waits for its
    /// retry: what must stay in order is said with [`in_order`](Self::in_order).
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.inner = self.inner.concurrency(concurrency);
        self
    }

    /// As [`Builder::semaphore`].
    pub fn semaphore(mut self, semaphore: Arc<Semaphore>) -> Self {
        self.inner = self.inner.semaphore(semaphore);
        self
    }

    /// As [`Builder::retry`].
    pub fn retry(mut self, retry: impl Into<RetryWhen<HandlerError>>) -> Self {
        self.inner = self.inner.retry(retry);
        self
    }

    /// As [`Builder::isolate_poison`].
    pub fn isolate_poison(mut self, max_probes: u32) -> Self {
        self.inner = self.inner.isolate_poison(max_probes);
        self
    }

    /// As [`Builder::isolate_poison_when`].
    pub fn isolate_poison_when(
        mut self,
        max_probes: u32,
        worth_a_cut: impl Fn(&HandlerError) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.inner = self.inner.isolate_poison_when(max_probes, worth_a_cut);
        self
    }

    /// As [`Builder::dead_letter`], with the key that the items have in common.
    pub fn dead_letter<D>(mut self, dead_letter: D) -> Self
    where
        D: Fn(&K, Vec<T>, BatchError) + Send + Sync + 'static,
    {
        self.dead_letter =
            Some(Box::new(move |key: &Arc<K>, items, why| dead_letter(key, items, why)));
        self
    }

    /// As [`Builder::delivered`].
    pub fn delivered(mut self, delivered: impl Fn(T) + Send + Sync + 'static) -> Self {
        self.inner = self.inner.delivered(delivered);
        self
    }
}

impl<K, T> KeyedBuilder<K, T>
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
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let runtime = crate::batcher::runtime::runtime()?;
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
        mut self,
        handler: H,
    ) -> Result<(KeyedBatcher<K, T>, Driver), ConfigError>
    where
        H: Fn(KeyedBatch<K, T>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let Self { max_keys, capacity_per_key, in_order, .. } = self;
        if max_keys == 0 || max_keys > MOST_KEYS {
            return Err(ConfigError::new("max_keys", max_keys, "from 1 to 2147483647"));
        }
        if self.inner.capacity.is_none() {
            let most = max_keys.max(self.inner.max_items).saturating_mul(4);
            self.inner = self.inner.capacity(most.min(Semaphore::MAX_PERMITS));
        }
        // As many lanes as items, at the most: their numbers must fit.
        let capacity = self.inner.capacity.unwrap_or(0);
        let max_items = self.inner.max_items;
        let Parts { mut limits, driven, weigher, .. } = self.inner.into_parts()?;
        at_most_permits("capacity", capacity)?;
        if let Some(most) = capacity_per_key {
            if most < max_items || most > capacity {
                let expected = "at least `max_items` and at most `capacity`";
                return Err(ConfigError::new("capacity_per_key", most, expected));
            }
        }
        let Some(dead_letter) = self.dead_letter else { return Err(no_dead_letter()) };
        limits.max_keys = max_keys;
        limits.capacity_per_key = capacity_per_key.unwrap_or(usize::MAX);
        limits.in_order = in_order;
        let shared = Shared::<T, KeyedBuffers<K, T>>::new(limits, weigher, dead_letter);
        let driver = Run::new(shared.clone(), shared.clone(), handler, driven);
        Ok((KeyedBatcher::over(shared), Driver(Box::pin(driver))))
    }
}

const MOST_KEYS: usize = i32::MAX as usize;

impl<K, T> fmt::Debug for KeyedBuilder<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBuilder")
            .field("max_keys", &self.max_keys)
            .field("capacity_per_key", &self.capacity_per_key)
            .field("in_order", &self.in_order)
            .field("of_each", &self.inner)
            .finish_non_exhaustive()
    }
}
