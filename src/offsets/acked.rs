//! An item that travels with its acknowledgement, and how the other primitives settle it.

use core::future::Future;
use std::borrow::Cow;

use super::ack::Ack;
#[cfg(any(feature = "tokio", loom))]
use crate::batcher::BatchError;

/// An item on its way through a pipeline, with the duty to say what became of its position.
///
/// Dropping it drops the acknowledgement, which releases the position. So whatever loses an item on the
/// way, a panic, a time limit, a cancelled task, has it delivered again.
///
/// | in | completed | rejected | released |
/// | --- | --- | --- | --- |
/// | [`OverflowQueue`](crate::OverflowQueue) | | | what is displaced comes back to the pusher, with its acknowledgement; what is in the queue as it is dropped |
/// | [`Batcher`](crate::Batcher) with [`delivered`](crate::batcher::Builder::delivered) and [`dead_letter`](Self::dead_letter) | what is left in the batch when the handler returns `Ok` | what fails for good | what comes back unsent, or may have been sent |
/// | [`BatchExecutor`](crate::BatchExecutor) with [`complete_with`](Self::complete_with) | what is fulfilled | | what is rejected, panics, runs out of time or is cancelled |
///
/// What a handler takes out of its batch it must settle itself. For items that are tried again by an
/// executor, which clones its inputs, retry within the item: [`Retry::run`](crate::Retry::run).
///
/// ```
/// use sluicegate::queue::{Pushed, WhenFull};
/// use sluicegate::{Acked, OffsetTracker, OverflowQueue};
///
/// let tracker = OffsetTracker::new(100)?;
/// let queue = OverflowQueue::builder().capacity(1).when_full(WhenFull::DropOldest).build()?;
/// for line in 1..=2 {
///     let acked = Acked::new(format!("line {line}"), tracker.try_track(line, ())?);
///     if let Pushed::Displaced(older) = queue.try_push(acked) {
///         older.for_each(|acked| acked.reject("displaced"));
///     }
/// }
/// assert_eq!(tracker.committable().map(|committed| committed.position), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A whole pipeline is shown at [`dead_letter`](Self::dead_letter).
#[derive(Debug)]
#[must_use = "dropping it releases the position, which is then delivered again"]
pub struct Acked<T, P: Copy = ()> {
    /// The item.
    pub item: T,
    /// Its acknowledgement.
    pub ack: Ack<P>,
}

impl<T, P: Copy> Acked<T, P> {
    /// An item and its acknowledgement.
    pub fn new(item: T, ack: Ack<P>) -> Self {
        Self { item, ack }
    }

    /// The same acknowledgement with another item.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Acked<U, P> {
        let Self { item, ack } = self;
        Acked { item: map(item), ack }
    }

    /// The item and its acknowledgement.
    pub fn into_parts(self) -> (T, Ack<P>) {
        (self.item, self.ack)
    }

    /// The effect of the item is durable: see [`Ack::complete`]. It is dropped.
    pub fn complete(self) {
        self.ack.complete();
    }

    /// The item is handled for good, though without success: see [`Ack::reject`]. It is dropped.
    pub fn reject(self, reason: impl Into<Cow<'static, str>>) {
        self.ack.reject(reason);
    }

    /// Works on the item, and completes its position if that succeeds. An error, a panic and a future that
    /// is dropped release it.
    ///
    /// # Errors
    ///
    /// That of the work.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future releases the position.
    ///
    /// ```
    /// use sluicegate::{Acked, BatchExecutor, OffsetTracker};
    ///
    /// # async fn store(line: u64) -> Result<(), &'static str> { if line == 2 { Err("busy") } else { Ok(()) } }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tracker = OffsetTracker::new(100)?;
    /// let mut lines = Vec::new();
    /// for line in 1..=3 {
    ///     lines.push(Acked::new(line, tracker.track(line, ()).await?));
    /// }
    /// let outcomes = BatchExecutor::new(8)?
    ///     .all_settled(lines, async |line| line.complete_with(store).await)
    ///     .await;
    /// assert_eq!(outcomes.summary().counts().rejected, 1);
    /// assert_eq!(tracker.committable().map(|committed| committed.position), Some(1));
    /// assert_eq!(tracker.redeliver().map(|again| again.position), Some(2));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn complete_with<V, E, F, R>(self, work: F) -> Result<V, E>
    where
        F: FnOnce(T) -> R,
        R: Future<Output = Result<V, E>>,
    {
        let Self { item, ack } = self;
        let done = work(item).await?;
        ack.complete();
        Ok(done)
    }

    /// Settles what comes to a [batcher's dead letter](crate::batcher::Builder::dead_letter): what failed
    /// for good is rejected, with the error as its reason, and what was not sent, or may not have been, is
    /// released.
    ///
    /// A whole pipeline: look-ups side by side, rows in batches, and what is stored says how far it is done.
    ///
    /// ```
    /// use sluicegate::batcher::{Batch, Batcher};
    /// use sluicegate::{Acked, BatchExecutor, OffsetTracker};
    ///
    /// # async fn look_up(line: &str) -> Result<String, std::io::Error> { Ok(line.to_uppercase()) }
    /// # async fn insert(_: impl Iterator<Item = &String>) -> Result<(), std::io::Error> { Ok(()) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tracker = OffsetTracker::new(1_000)?;
    /// let rows = Batcher::builder()
    ///     .delivered(Acked::complete)
    ///     .dead_letter(|rows: Vec<Acked<String>>, why| {
    ///         eprintln!("{} rows: {why}", rows.len());
    ///         Acked::dead_letter(rows, why);
    ///     })
    ///     .build(|rows: Batch<Acked<String>>| async move { insert(rows.iter().map(|row| &row.item)).await })?;
    ///
    /// let mut lines = Vec::new();
    /// for (position, line) in (1..).zip(["ann", "bob"]) {
    ///     lines.push(Acked::new(line, tracker.track(position, ()).await?));
    /// }
    /// let outcomes = BatchExecutor::new(8)?
    ///     .all_settled(lines, async |Acked { item, ack }| {
    ///         let row = look_up(item).await?; // an error releases the line
    ///         rows.send(Acked::new(row, ack)).await.map_err(std::io::Error::other)
    ///     })
    ///     .await;
    /// assert!(outcomes.summary().is_complete());
    /// rows.flush().await;
    /// // Stored together with the rows, this is where the next run begins.
    /// assert_eq!(tracker.committable().map(|committed| committed.position), Some(2));
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(any(feature = "tokio", loom))]
    pub fn dead_letter(items: Vec<Self>, why: BatchError) {
        let reason = match why {
            BatchError::Failed { .. }
            | BatchError::Panicked { .. }
            | BatchError::TimedOut { .. } => why.to_string(),
            BatchError::Unsent | BatchError::Indeterminate | BatchError::NeverAccepted => {
                return items.into_iter().for_each(|acked| acked.ack.release());
            }
        };
        items.into_iter().for_each(|acked| acked.reject(reason.clone()));
    }
}
