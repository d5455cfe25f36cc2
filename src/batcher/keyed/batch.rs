//! The guard that a handler of keyed batches is given.

use core::fmt;
use core::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::batcher::batch::Batch;

/// A [`Batch`] of items of one key, which can do all that a batch can.
///
/// ```
/// use sluicegate::batcher::KeyedBatch;
///
/// async fn handler(mut batch: KeyedBatch<String, u64>) -> Result<(), std::io::Error> {
///     println!("{} points for {}", batch.len(), batch.key());
///     for point in batch.take() {
///         println!("{point}");
///     }
///     Ok(())
/// }
/// ```
///
/// # How it is built
///
/// The key is kept once for all batches of it that are on their way, and shared with each.
#[must_use = "dropping a batch at once hands its items straight back"]
pub struct KeyedBatch<K, T> {
    batch: Batch<T>,
    key: Arc<K>,
}

impl<K, T> KeyedBatch<K, T> {
    pub(crate) fn new(key: Arc<K>, batch: Batch<T>) -> Self {
        Self { batch, key }
    }

    /// The key of all items in it.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// The same key, to be kept when the batch is gone.
    pub fn shared_key(&self) -> Arc<K> {
        Arc::clone(&self.key)
    }
}

impl<K, T> Deref for KeyedBatch<K, T> {
    type Target = Batch<T>;

    fn deref(&self) -> &Batch<T> {
        &self.batch
    }
}

impl<K, T> DerefMut for KeyedBatch<K, T> {
    fn deref_mut(&mut self) -> &mut Batch<T> {
        &mut self.batch
    }
}

impl<K, T> AsRef<[T]> for KeyedBatch<K, T> {
    fn as_ref(&self) -> &[T] {
        self.batch.as_slice()
    }
}

impl<'a, K, T> IntoIterator for &'a KeyedBatch<K, T> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.batch.iter()
    }
}

impl<K: fmt::Debug, T> fmt::Debug for KeyedBatch<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBatch").field("key", &self.key).field("batch", &self.batch).finish()
    }
}
