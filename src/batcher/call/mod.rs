//! Batchers that answer each item.

mod batch;
mod builder;
mod error;
mod future;
mod item;
mod replies;

use core::fmt;
use core::future::Future;
use core::hash::Hash;
use core::ops::Deref;
use std::sync::Arc;

pub use self::error::CallError;
use self::future::Calling;
pub use self::item::Call;
use self::replies::Replies;
use crate::batcher::handle::Batcher;
use crate::batcher::keyed::{KeyedBatcher, KeyedSending};
use crate::batcher::send::Sending;

/// A batcher whose handler answers each item: a data loader, say.
///
/// Made by [`Builder::build_caller`](super::Builder::build_caller). It can do all that a [`Batcher`] can,
/// and [`call`](Self::call); a [`KeyedCaller`] is the same over a [`KeyedBatcher`]. The handler is given a
/// [`Batch`](super::Batch) of [`Call`]s, and answers in it with
/// [`reply_with`](super::Batch::reply_with) and its like.
///
/// Not for items that need no answer of their own: [`send`](Batcher::send) costs less.
///
/// Handles are cheap to clone. When the last is dropped the batcher drains.
///
/// ```
/// use sluicegate::batcher::{Batch, Batcher, Call};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let squares = Batcher::builder()
///     .max_items(100)
///     .eager_when_idle()
///     .build_caller(|mut batch: Batch<Call<u32, u32>>| async move {
///         batch.reply_with(|n| n * n);
///         Ok::<(), std::io::Error>(())
///     })?;
///
/// assert_eq!(squares.call(12).await?, 144);
/// assert_eq!(squares.stats().delivered, 1);
/// # Ok(())
/// # }
/// ```
///
/// # How it is built
///
/// All callers of a batcher share one table of reply slots, which are reused. A call takes its slot when
/// it is first polled and carries the right to answer in it. Dropping a batch sends its answers, in one
/// critical section per 32 calls.
///
/// The table grows with the most calls that were ever in work at once, those that wait for room included,
/// and so with the memory of their tasks; `capacity` bounds the others.
pub struct Caller<T, R, B = Batcher<Call<T, R>>> {
    batcher: B,
    replies: Arc<Replies<T, R>>,
}

/// A [`Caller`] whose items are batched by key.
pub type KeyedCaller<K, T, R> = Caller<T, R, KeyedBatcher<K, Call<T, R>>>;

impl<T, R, B> Caller<T, R, B> {
    fn new(batcher: B) -> Self {
        Self { batcher, replies: Replies::new() }
    }
}

impl<T, R> Caller<T, R> {
    /// Sends `item`, which waits in first-come order while the batcher is full, and returns its answer.
    ///
    /// While its batch is retried, the call keeps waiting.
    ///
    /// # Errors
    ///
    /// [`CallError`], with the item.
    ///
    /// # Panics
    ///
    /// As [`send`](Batcher::send).
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it was accepted has sent nothing: its item is dropped with it.
    /// After that the item is handled and its answer dropped.
    ///
    /// # Complexity
    ///
    /// O(1). Nothing is allocated in the steady state.
    #[inline]
    pub fn call(&self, item: T) -> impl Future<Output = Result<R, CallError<T>>> + use<'_, T, R> {
        let sending = Sending::new(self.batcher.shared(), Call::new(item));
        Calling::new(&self.replies, sending, |item| item)
    }
}

impl<K: Hash + Eq + Clone, T, R> KeyedCaller<K, T, R> {
    /// Sends `item` under `key`, which waits in first-come order while the key or the batcher is full,
    /// and returns its answer.
    ///
    /// While its batch is retried, the call keeps waiting.
    ///
    /// # Errors
    ///
    /// [`CallError`], with key and item.
    ///
    /// # Panics
    ///
    /// As [`send`](KeyedBatcher::send).
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it was accepted has sent nothing: its item is dropped with it.
    /// After that the item is handled and its answer dropped.
    ///
    /// # Complexity
    ///
    /// That of [`send`](KeyedBatcher::send), and one clone of the key, which the error gives back: share
    /// large keys in an [`Arc`].
    #[inline]
    pub fn call(
        &self,
        key: K,
        item: T,
    ) -> impl Future<Output = Result<R, CallError<(K, T)>>> + use<'_, K, T, R> {
        let kept = key.clone();
        let batcher = &self.batcher;
        let sending = KeyedSending::new(batcher.shared(), batcher.hashed(key), Call::new(item));
        Calling::new(&self.replies, sending, |item| (kept, item))
    }
}

impl<T, R, B> Deref for Caller<T, R, B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.batcher
    }
}

impl<T, R, B: Clone> Clone for Caller<T, R, B> {
    fn clone(&self) -> Self {
        Self { batcher: self.batcher.clone(), replies: Arc::clone(&self.replies) }
    }
}

impl<T, R, B: fmt::Debug> fmt::Debug for Caller<T, R, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("batcher", &self.batcher).finish()
    }
}
