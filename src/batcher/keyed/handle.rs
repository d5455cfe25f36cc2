//! The sender's side of the keyed batcher.

use core::borrow::Borrow;
use core::fmt;
use core::future::Future;
use core::hash::{BuildHasher, Hash};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use super::buffers::{Hashed, LaneState};
use super::many::KeyedSendingMany;
use super::send::{KeyedReserving, KeyedSending, KeyedShared};
use super::wait::KeyFlushWait;
use crate::base::sync::HashBuilder;
use crate::batcher::capacity::Weight;
use crate::batcher::error::{Closed, SendError, SendManyError, TrySendError};
use crate::batcher::report::{BatcherStats, FlushReport, ShutdownReport};
use crate::batcher::send::heaviest;
use crate::batcher::wait::{FlushWait, StopWait};

/// Collects items into batches by key, and hands each to an async handler.
///
/// For what must be together by table, room or partition: all that a [`Batcher`](super::super::Batcher)
/// promises holds for the batches of each key. At most `max_keys` keys have an open batch; when one
/// more comes, the batch of the least recently used key is closed and handed over, never discarded.
/// A key of which nothing is left is forgotten at once.
///
/// Not for a handful of keys that are known beforehand: a [`Batcher`](super::super::Batcher) for each needs
/// no look-up. Not for keys that rarely get more than one item within the window: there is nothing to
/// gather.
///
/// Dropping the last handle drains, as it does there, and the same is forbidden: a handler must not
/// own a handle, nor wait for a flush or a shutdown.
///
/// # Fairness and order
///
/// A key that has something to hand over gets its turn, one batch, after all those that had
/// something before it: no key waits for more than one round of the others, however many batches
/// they have. Senders get room in the order they asked for it, with the one exception that a
/// [`Batcher`](super::super::Batcher) makes too; with a
/// [`capacity_per_key`](crate::batcher::Builder::capacity_per_key), those to a full key wait in a line of
/// their own. The batches of a key are begun in order; with [`in_order`](crate::batcher::Builder::in_order)
/// each is finished before the next begins.
///
/// # Example
///
/// ```
/// use core::time::Duration;
/// use sluicegate::batcher::{Batcher, KeyedBatch};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rooms = Batcher::keyed(10_000)
///     .max_items(100)
///     .window(Duration::from_millis(50))
///     .dead_letter(|room: &String, messages: Vec<String>, why| {
///         eprintln!("{} messages to {room} lost: {why}", messages.len());
///     })
///     .build(|messages: KeyedBatch<String, String>| async move {
///         println!("{}: {:?}", messages.key(), messages.as_slice());
///         Ok::<(), std::io::Error>(())
///     })?;
///
/// rooms.send("tea".to_owned(), "hello".to_owned()).await?;
/// rooms.send("coffee".to_owned(), "hi".to_owned()).await?;
/// assert_eq!(rooms.flush_key("tea").await.delivered, 1);
///
/// let ended = rooms.shutdown(Some(Duration::from_secs(5))).await;
/// assert_eq!(ended.delivered, 2);
/// # Ok(())
/// # }
/// ```
///
/// # How it is built
///
/// On the state machine and the driver of the batcher without keys; what differs is where the
/// batches are that were never handed over. A table finds the lane of a key. Buffers are kept in a slab
/// and linked into lists: by when their open batch was opened, by when they were last used, and in
/// the order of their turns. As all windows are equally long, the first of those lists is all that
/// the one timer must know. What a send touches of a lane, the key included until a batch shares it,
/// is one cache line apart from the rest. A key is hashed before the lock is taken and dropped after
/// it was released; under it, its `Eq` is asked, before anything is changed.
pub struct KeyedBatcher<K: Hash + Eq, T> {
    handle: Arc<Handle<K, T>>,
}

struct Handle<K: Hash + Eq, T> {
    shared: Arc<KeyedShared<K, T>>,
    hasher: HashBuilder,
}

impl<K: Hash + Eq, T> Drop for Handle<K, T> {
    fn drop(&mut self) {
        self.shared.close(None);
    }
}

impl<K: Hash + Eq, T> KeyedBatcher<K, T> {
    pub(crate) fn over(shared: Arc<KeyedShared<K, T>>) -> Self {
        Self { handle: Arc::new(Handle { shared, hasher: HashBuilder::default() }) }
    }

    pub(crate) fn shared(&self) -> &KeyedShared<K, T> {
        &self.handle.shared
    }

    #[inline]
    pub(crate) fn hashed(&self, key: K) -> Hashed<K> {
        Hashed::new(&self.handle.hasher, key)
    }

    /// Accepts `item` if there is room under `key` and in all, and nobody waits in line.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with key and item.
    ///
    /// # Panics
    ///
    /// If the key's `Hash` or `Eq` or the weigher does; nothing was accepted then. That of `Drop`
    /// goes on, too, where the key is not needed: the item was accepted all the same.
    #[inline]
    pub fn try_send(&self, key: K, item: T) -> Result<(), TrySendError<(K, T)>> {
        self.shared().try_send_keyed(self.hashed(key), item)
    }

    /// Closes all open batches and waits for all that was accepted so far: what is in the handler
    /// or waits for a retry included, what is sent later never.
    ///
    /// ReturnBox how those items ended; the dead letter has been given what failed.
    ///
    /// # Cancel safety
    ///
    /// The batches are closed when the future is first polled. Dropping it changes nothing more.
    ///
    /// # Complexity
    ///
    /// To begin, O(the most keys that ever had something pending at once). That is one critical
    /// section, so that it covers all that was accepted before and nothing that comes later, and
    /// senders wait for it: where there are very many keys, let their windows close the batches, or
    /// [`flush_key`](Self::flush_key). The same goes for [`shutdown`](Self::shutdown).
    pub async fn flush(&self) -> FlushReport {
        FlushWait::new(self.shared()).await
    }

    /// Closes the open batch of `key` and waits for all that was accepted under it so far. The other
    /// keys go on as they are.
    ///
    /// ReturnBox how those items ended.
    ///
    /// # Cancel safety
    ///
    /// The batch is closed when the future is first polled. Dropping it changes nothing more.
    ///
    /// # Complexity
    ///
    /// O(1) to begin; logarithmic in the flushes of the same key that are waited for, for each batch
    /// of it that ends meanwhile.
    pub async fn flush_key<Q>(&self, key: &Q) -> FlushReport
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.handle.hasher.hash_one(key);
        KeyFlushWait::new(self.shared(), (hash, key)).await
    }

    /// Refuses further items, sends those who wait to send away with theirs, closes all open
    /// batches, and waits until everything is finished or `deadline` (from now on) has passed.
    ///
    /// As [`Batcher::shutdown`](super::super::Batcher::shutdown); what comes back is by batch, with its
    /// key.
    ///
    /// # Cancel safety
    ///
    /// The batcher is closed when the future is first polled, and stays so when it is dropped. The
    /// items that it would have handed out wait for another call; failing that, they go to the
    /// dead letter when the last handle and the driver are gone.
    pub async fn shutdown(&self, deadline: Option<Duration>) -> ShutdownReport<(Arc<K>, Vec<T>)> {
        let shared = self.shared();
        shared.close_within(deadline);
        StopWait::new(shared).await
    }

    /// How many keys have an open batch; at most `max_keys`.
    pub fn keys(&self) -> usize {
        self.shared().lock().buffers.keys()
    }

    /// A [`Sink`](futures_sink::Sink) to forward a stream of items with their keys to: a
    /// handle of its own.
    #[cfg(feature = "sink")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sink")))]
    pub fn sink(&self) -> super::KeyedBatcherSink<K, T> {
        super::KeyedBatcherSink::new(self.clone())
    }

    /// Whether the batcher takes no more items.
    pub fn is_closed(&self) -> bool {
        !self.shared().is_accepting()
    }

    /// The most items that can be accepted and unfinished.
    pub fn capacity(&self) -> usize {
        self.shared().limits().capacity
    }

    /// The most that items accepted and unfinished can weigh together, if that is limited.
    pub fn capacity_weight(&self) -> Option<u64> {
        self.shared().limits().capacity_weight
    }

    /// The most items of one key that can be accepted and unfinished, if that is limited.
    pub fn capacity_per_key(&self) -> Option<usize> {
        Some(self.shared().limits().capacity_per_key).filter(|most| *most != usize::MAX)
    }

    /// The figures of this instant, over all keys.
    ///
    /// # Complexity
    ///
    /// O(1). With debug assertions the pending items are counted again, batch by batch.
    pub fn stats(&self) -> BatcherStats {
        self.shared().stats()
    }
}

impl<K: Hash + Eq + Clone, T> KeyedBatcher<K, T> {
    /// Accepts `item` under `key`, waiting in line while the key or the batcher is full.
    ///
    /// # Errors
    ///
    /// [`SendError`] with key and item once the batcher is closed, also for those that wait already,
    /// and at once if the item weighs more than a batch may.
    ///
    /// # Panics
    ///
    /// When polled for the first time with 2^32 − 1 others in line, or polled again after it
    /// completed. As [`try_send`](Self::try_send), and if the key's `Clone` does.
    ///
    /// # Cancel safety
    ///
    /// A dropped future gives up its place in line and has accepted nothing; its item is dropped
    /// with it. Where that must not be, [`reserve`](Self::reserve) first, or
    /// [`send_many`](Self::send_many).
    ///
    /// # Complexity
    ///
    /// O(1), but that to find the least recently used of full keys is amortised O(log `max_keys`).
    /// Nothing is allocated for the item beyond its share of the batch's vector, which is used
    /// again. A key that has nothing pending takes one allocation. The key is cloned only to hold
    /// room under it while the batcher is full.
    #[inline]
    pub fn send(
        &self,
        key: K,
        item: T,
    ) -> impl Future<Output = Result<(), SendError<(K, T)>>> + use<'_, K, T> {
        KeyedSending::new(self.shared(), self.hashed(key), item)
    }

    /// Accepts all of `items`, from the front, each under its key, waiting in line whenever the next
    /// one's key or the batcher is full.
    ///
    /// It takes out what was accepted, so that nothing is lost however it ends. It is quicker than
    /// to send one by one, as long as there is room. Others get their turn in between: in line, it is
    /// one sender, and asks for room for one item at a time. Items stay in order, also those of
    /// different keys: one whose key is full keeps those behind it waiting.
    ///
    /// # Errors
    ///
    /// [`SendManyError`] once the batcher is closed, or if the next item weighs more than a batch
    /// may; that item and those behind it are left in `items`.
    ///
    /// # Panics
    ///
    /// As [`send`](Self::send). What was not accepted is left in `items`.
    ///
    /// # Cancel safety
    ///
    /// A dropped future gives up its place in line; what was not accepted is left in `items`.
    ///
    /// ```
    /// # use sluicegate::batcher::{Batcher, KeyedBatch};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let batcher = Batcher::keyed(1_000)
    /// #     .dead_letter(|_: &u32, _items: Vec<u32>, _why| {})
    /// #     .build(|_: KeyedBatch<u32, u32>| async { Ok::<(), std::io::Error>(()) })?;
    /// let mut rows = (0..10_000).map(|row| (row % 7, row)).collect();
    /// batcher.send_many(&mut rows).await?;
    /// assert!(rows.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_many<'a>(
        &'a self,
        items: &'a mut VecDeque<(K, T)>,
    ) -> impl Future<Output = Result<(), SendManyError>> + use<'a, K, T> {
        KeyedSendingMany::new(self.shared(), &self.handle.hasher, items)
    }

    /// Waits in line for room for one item under `key`.
    ///
    /// With the slot in hand the item is accepted by a plain call that cannot wait.
    ///
    /// # Errors
    ///
    /// [`Closed`] once the batcher is closed, also for those that wait already.
    ///
    /// # Cancel safety
    ///
    /// A dropped future gives up its place in line, and nothing else.
    pub async fn reserve(&self, key: K) -> Result<KeyedSlot<'_, K, T>, Closed> {
        let shared = self.shared();
        let reserving = KeyedReserving::new(shared, self.hashed(key), heaviest(shared));
        reserving.await.map(|(key, room)| KeyedSlot { shared, key: Some(key), room: Some(room) })
    }
}

impl<K: Hash + Eq, T> Clone for KeyedBatcher<K, T> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }
}

impl<K: Hash + Eq, T> fmt::Debug for KeyedBatcher<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBatcher")
            .field("capacity", &self.capacity())
            .field("capacity_per_key", &self.capacity_per_key())
            .field("stats", &self.stats())
            .finish()
    }
}

const UNUSED: &str = "a slot is used once";

/// Capacity for one item of a key, held until it is used or dropped.
///
/// Made by [`KeyedBatcher::reserve`].
#[must_use = "a slot takes up room until an item is sent with it or it is dropped"]
pub struct KeyedSlot<'a, K: Hash + Eq, T> {
    shared: &'a KeyedShared<K, T>,
    /// Until the slot is used.
    key: Option<Hashed<K>>,
    /// The weight that it took up, with one place; until that is used or goes back.
    room: Option<Weight>,
}

impl<K: Hash + Eq, T> KeyedSlot<'_, K, T> {
    /// Accepts `item` without waiting.
    ///
    /// # Errors
    ///
    /// [`SendError`] with key and item if the batcher was closed since the slot was reserved, or if
    /// the item weighs more than a batch may.
    ///
    /// # Panics
    ///
    /// If the key's `Eq` or the weigher does. The room goes back, nothing was accepted, and key and
    /// item are dropped as the panic goes on. With a
    /// [`capacity_per_key`](crate::batcher::Builder::capacity_per_key) the key is not compared again.
    pub fn send(mut self, item: T) -> Result<(), SendError<(K, T)>> {
        let weight = self.shared.weigh(&item);
        let key = self.key.take().expect(UNUSED);
        match self.shared.send_reserved_keyed(&mut self.room, key, item, weight) {
            Ok(()) => Ok(()),
            Err(TrySendError::TooHeavy((key, item))) => {
                self.key = Some(key);
                Err(SendError::TooHeavy((self.return_items().expect(UNUSED), item)))
            }
            // Never full, as room under the key is reserved where that is limited.
            Err(TrySendError::Closed((key, item)) | TrySendError::Full((key, item))) => {
                Err(SendError::Closed((key.key, item)))
            }
        }
    }

    /// Gives back what room there is, and returns the key if the slot was not used.
    fn return_items(&mut self) -> Option<K> {
        let (key, room) = (self.key.take(), self.room.take());
        let lane = match &key {
            Some(Hashed { lane: LaneState::Reserved(lane), .. }) => Some(*lane),
            _ => None,
        };
        if lane.is_some() || room.is_some() {
            let _gone = self.shared.locked(|core, wakes| {
                if let Some(room) = room {
                    core.return_capacity(1, room, wakes);
                }
                core.return_key_capacity(lane, wakes)
            });
        }
        key.map(|key| key.key)
    }
}

impl<K: Hash + Eq, T> Drop for KeyedSlot<'_, K, T> {
    fn drop(&mut self) {
        let _key = self.return_items();
    }
}

impl<K: Hash + Eq, T> fmt::Debug for KeyedSlot<'_, K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedSlot").finish_non_exhaustive()
    }
}
