//! The sender's side: accepting items, flushing, shutting down.

use core::fmt;
use core::future::Future;
use core::mem;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use super::builder::{Builder, Keyed};
use super::capacity::Weight;
use super::error::{Closed, SendError, SendManyError, TrySendError};
use super::report::{BatcherStats, FlushReport, ShutdownReport};
use super::send::{Reserving, Sending, SendingMany};
use super::shared::Shared;
use super::wait::{FlushWait, StopWait};

/// Collects items into batches, by number and by time, and hands each to an async handler.
///
/// For work that is cheaper by the batch: rows in a transaction, messages in a frame, points in a
/// write to a time series. The window of a batch opens with its first item and is never extended.
/// The batcher is bounded: at most `capacity` items are accepted and unfinished, those in the
/// handler included, and senders beyond that wait in line. Each accepted item is delivered, goes
/// to the dead letter with the reason, or comes back from [`shutdown`](Self::shutdown); at every
/// instant `accepted = delivered + failed + unsent + indeterminate + pending`
/// ([`stats`](Self::stats)).
///
/// Items that each need an answer of their own are sent through a [`Caller`](super::Caller), made by
/// [`Builder::build_caller`]. Not for a source that is a stream anyway and may wait: chunk that. With a `max_items` of 1 a channel does the same for a quarter.
///
/// Handles are cheap to clone. When the last is dropped the batcher drains: what was accepted is
/// still handed to the handler, without waiting for windows. The handler, the dead letter and the
/// items must not own a handle, else there may be no last one; nor may a handler wait for a flush or
/// a shutdown, which wait for it.
///
/// # Fairness and order
///
/// Senders get room in the order they asked for it. One exception: a task whose cooperative budget
/// is spent, while there is room and nobody waits, yields before it asks. Items of one sender are handed over in the
/// order it sent them, within a batch and from batch to batch. With a `concurrency` of 1, the
/// default, one batch is finished with all its retries before the next begins; with more, batches
/// are begun in order but run side by side, and a batch that waits for its retry lets others pass:
/// retries that are due and batches that were never tried are handed over in turn.
///
/// # Example
///
/// ```
/// use core::time::Duration;
/// use sluicegate::batcher::{Batch, Batcher};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let batcher = Batcher::builder()
///     .max_items(500)
///     .window(Duration::from_millis(50))
///     .dead_letter(|rows: Vec<u32>, why| eprintln!("{} rows lost: {why}", rows.len()))
///     .build(|rows: Batch<u32>| async move {
///         println!("one transaction for {} rows", rows.len());
///         Ok::<(), std::io::Error>(())
///     })?;
///
/// for row in 0..1200 {
///     batcher.send(row).await?;
/// }
/// let report = batcher.flush().await;
/// assert_eq!(report.failed, 0);
///
/// let ended = batcher.shutdown(Some(Duration::from_secs(5))).await;
/// assert_eq!(ended.delivered, 1200);
/// # Ok(())
/// # }
/// ```
///
/// # How it is built
///
/// A state machine that knows neither clock nor runtime, behind one lock, which also guards the room
/// that is left and the line of those who wait for it: to accept an item is to take that lock once.
/// And one driver, a future that owns the handlers and a single timer. A sender wakes the driver with
/// the first item of a batch and with the one that fills it, and only when a handler may start: an
/// empty batcher does nothing at all. While handlers are done at once, it begins up to 32 closed
/// batches, for at most 50 microseconds, before it takes the lock again to say that they are
/// finished and to make their room free. The vectors of batches are used again, and so are the slots of
/// the handlers' futures. The handlers run within the driver's task, so what computes or blocks for
/// long belongs on a thread of its own; the [`Batch`](super::Batch) guard may go with it.
pub struct Batcher<T> {
    handle: Arc<Handle<T>>,
}

struct Handle<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        self.shared.close(None);
    }
}

impl<T> Batcher<T> {
    /// A builder with the default limits.
    pub fn builder() -> Builder<T> {
        Builder::unkeyed()
    }

    /// A builder of a [`KeyedBatcher`](super::KeyedBatcher), with the default limits. At most `max_keys`
    /// keys, from 1 to 2³¹ − 1, have an open batch at once. When one more comes, the open batch of the
    /// key that got an item least recently is sealed, and handed over in its turn: nothing is discarded.
    pub fn keyed<K>(max_keys: usize) -> Builder<T, Keyed<K>> {
        Builder::keyed(max_keys)
    }

    pub(crate) fn over(shared: Arc<Shared<T>>) -> Self {
        Self { handle: Arc::new(Handle { shared }) }
    }

    pub(crate) fn shared(&self) -> &Shared<T> {
        &self.handle.shared
    }

    /// Accepts `item`, waiting in line while the batcher is full.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the item once the batcher is closed, also for those that wait already, and
    /// at once if it weighs more than a batch may.
    ///
    /// # Panics
    ///
    /// When polled for the first time with 2^32 − 1 others in line, or polled again after it
    /// completed.
    ///
    /// # Cancel safety
    ///
    /// A dropped future gives up its place in the wait list and has accepted nothing; its item is dropped
    /// with it. Where that must not be, [`reserve`](Self::reserve) first, or
    /// [`send_many`](Self::send_many).
    ///
    /// # Complexity
    ///
    /// O(1). Nothing is allocated for the item beyond its share of the batch's vector, which is used
    /// again; nor, in the steady state, to wait.
    #[inline]
    pub fn send(&self, item: T) -> impl Future<Output = Result<(), SendError<T>>> + use<'_, T> {
        Sending::new(self.shared(), item)
    }

    /// Accepts `item` if there is room and nobody waits in line.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the item.
    #[inline]
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        self.shared().try_send(item)
    }

    /// Accepts all of `items`, from the front, waiting in line whenever the batcher is full.
    ///
    /// It takes out what was accepted, so that nothing is lost however it ends. It is quicker than
    /// to send one by one, as long as there is room. Others get their turn in between: in line, it is
    /// one sender, and asks for room for one item at a time.
    ///
    /// # Errors
    ///
    /// [`SendManyError`] once the batcher is closed, or if the next item weighs more than a batch
    /// may; that item and those behind it are left in `items`.
    ///
    /// # Panics
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// A dropped future gives up its place in the wait list; what was not accepted is left in `items`.
    ///
    /// ```
    /// # use sluicegate::batcher::{Batch, Batcher};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let batcher = Batcher::builder()
    /// #     .dead_letter(|_items: Vec<u32>, _why| {})
    /// #     .build(|_: Batch<u32>| async { Ok::<(), std::io::Error>(()) })?;
    /// let mut rows = std::collections::VecDeque::from_iter(0..10_000);
    /// batcher.send_many(&mut rows).await?;
    /// assert!(rows.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_many<'a>(
        &'a self,
        items: &'a mut VecDeque<T>,
    ) -> impl Future<Output = Result<(), SendManyError>> + use<'a, T> {
        SendingMany::new(self.shared(), items)
    }

    /// Waits in line for room for one item.
    ///
    /// With the slot in hand the item is accepted by a plain call that cannot wait: so it can be
    /// decided under a lock of the caller's own what is sent, in the order of those decisions. With a
    /// capacity in weight it takes up as much of it as the heaviest item may weigh.
    ///
    /// # Errors
    ///
    /// [`Closed`] once the batcher is closed, also for those that wait already.
    ///
    /// # Cancel safety
    ///
    /// A dropped future gives up its place in the wait list, and nothing else.
    ///
    /// ```
    /// # use sluicegate::batcher::{Batch, Batcher};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let batcher = Batcher::builder()
    /// #     .dead_letter(|_items: Vec<u32>, _why| {})
    /// #     .build(|_: Batch<u32>| async { Ok::<(), std::io::Error>(()) })?;
    /// let last = std::sync::Mutex::new(0);
    ///
    /// let slot = batcher.reserve().await?;
    /// let mut last = last.lock().unwrap();
    /// *last += 1;
    /// slot.send(*last)?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reserve(&self) -> Result<Slot<'_, T>, Closed> {
        let shared = self.shared();
        Reserving::new(shared).await.map(|room| Slot { shared, room })
    }

    /// Closes the open batch and waits for all that was accepted so far: what is in the handler or
    /// waits for a retry included, what is sent later never.
    ///
    /// ReturnBox how those items ended; the dead letter has been given what failed.
    ///
    /// It seals whatever the open batch holds, so a flush for each item means a batch for each
    /// item: where a window is soon enough, let it close the batch.
    ///
    /// # Cancel safety
    ///
    /// The open batch is closed when the future is first polled. Dropping it changes nothing more:
    /// the items go on as they are.
    ///
    /// # Complexity
    ///
    /// Logarithmic in the flushes that are waited for, to begin, to end and for each batch that ends
    /// meanwhile.
    pub async fn flush(&self) -> FlushReport {
        FlushWait::new(self.shared()).await
    }

    /// Refuses further items, sends those who wait to send away with theirs, closes the open
    /// batch, and waits until everything is finished or `deadline` (from now on) has passed.
    ///
    /// At the deadline the handlers' futures are dropped, and what was not delivered comes back in
    /// the report: as `unsent` if the handler never saw it, as `indeterminate` if it did. Without a
    /// deadline that takes as long as the handlers and their retries. A zero stops at once. A
    /// deadline further off than ten years is none. It is the driver that keeps the deadline: one
    /// that is neither polled nor dropped leaves the shutdown waiting.
    ///
    /// It may be called again, from any handle: the earliest deadline counts, and each call
    /// returns when all is over. The items go to the first that returns.
    ///
    /// # Cancel safety
    ///
    /// The batcher is closed when the future is first polled, and stays so when it is dropped. The
    /// items that it would have handed out wait for another call; failing that, they go to the
    /// dead letter when the last handle and the driver are gone.
    pub async fn shutdown(&self, deadline: Option<Duration>) -> ShutdownReport<T> {
        let shared = self.shared();
        shared.close_within(deadline);
        StopWait::new(shared).await
    }

    /// A [`Sink`](futures_sink::Sink) to forward a stream to: a handle of its own.
    #[cfg(feature = "sink")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sink")))]
    pub fn sink(&self) -> super::BatcherSink<T> {
        super::BatcherSink::new(self.clone())
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

    /// The figures of this instant.
    ///
    /// # Complexity
    ///
    /// O(1). With debug assertions the pending items are counted again, batch by batch.
    pub fn stats(&self) -> BatcherStats {
        self.shared().stats()
    }
}

impl<T> Clone for Batcher<T> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }
}

impl<T> fmt::Debug for Batcher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher")
            .field("capacity", &self.capacity())
            .field("stats", &self.stats())
            .finish()
    }
}

/// Capacity for one item, held until it is used or dropped.
///
/// Made by [`Batcher::reserve`].
#[must_use = "a slot takes up room until an item is sent with it or it is dropped"]
pub struct Slot<'a, T> {
    shared: &'a Shared<T>,
    /// The weight that it took up, with one slot.
    room: Weight,
}

impl<T> Slot<'_, T> {
    /// Accepts `item` without waiting.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the item if the batcher was closed since the slot was reserved, or if the
    /// item weighs more than a batch may.
    pub fn send(self, item: T) -> Result<(), SendError<T>> {
        let (shared, room) = (self.shared, self.room);
        // Before the slot is given up: weighing is the user's code, and may panic.
        let weight = shared.weigh(&item);
        // What becomes of the room is settled there.
        mem::forget(self);
        shared.send_reserved(room, item, weight)
    }
}

impl<T> Drop for Slot<'_, T> {
    fn drop(&mut self) {
        self.shared.return_capacity(self.room);
    }
}

impl<T> fmt::Debug for Slot<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}
