//! Acknowledgements out of order: how far a source is done while the work on it finishes in any order.

mod ack;
mod acked;
mod builder;
mod checkpoint;
mod core;
mod error;
mod shared;
mod stats;
mod wait;

use ::core::fmt;
use std::sync::Arc;
use std::time::Instant;

pub use self::ack::Ack;
pub use self::acked::Acked;
pub use self::builder::Builder;
pub use self::checkpoint::{Checkpoint, CheckpointError, Committed};
pub use self::core::{Oldest, Parked};
pub use self::error::TrackError;
pub use self::stats::OffsetStats;
pub use self::wait::{Changed, NextRedelivery, Track};

use self::core::Delivery;
use self::shared::Shared;
use crate::base::config::ConfigError;
use crate::base::timer::now;

/// Tells a source "done up to here", while the work on what it delivered finishes in any order.
///
/// A source delivers positions in order: line numbers, offsets, sequence numbers. Each is
/// [tracked](Self::track), and its [`Ack`] travels with the work. [`committable`](Self::committable) is
/// the highest position up to which everything is complete or rejected: what may be stored, so that
/// after a crash the source is replayed from there and nothing is lost. A [`checkpoint`](Self::checkpoint)
/// also says what is complete beyond that, so that little is done twice.
///
/// Positions are numbers that increase strictly within an epoch, gaps are fine, and they are the same
/// when the source is replayed. Timestamps are no positions: real streams go backwards. A payload
/// goes along, a byte offset or a cursor; it is `Copy`, so that no code of the caller's runs under the lock.
///
/// Handles are cheap to clone, and all of one tracker.
///
/// # When not to use it
///
/// If the work finishes in order, a number is enough. If each record is acknowledged to the source by
/// itself (as in most message queues), there is nothing to commit.
///
/// # Bounds
///
/// At most `capacity` positions are incomplete at a time, and at most `window` positions lie beyond what is
/// committed, whether complete or not: while the oldest is stuck, [`track`](Self::track) waits. Each takes
/// 16 bytes and its payload, and one in sixteen the time. Positions that are [skipped](Self::skip) take as
/// much for each run of them, at most as many times as others.
///
/// # Fairness
///
/// Calls of `track` are served first come, first served; so are calls of
/// [`redelivery`](Self::redelivery). A position is tracked for its waiter in that order, also if the waiter
/// is kept and not polled.
///
/// ```
/// use sluicegate::OffsetTracker;
///
/// # futures_util::FutureExt::now_or_never(async {
/// let tracker = OffsetTracker::new(1_000)?;
/// let first = tracker.track(1, "byte 0").await?;
/// let second = tracker.track(2, "byte 80").await?;
///
/// second.complete();
/// assert_eq!(tracker.committable(), None, "the first is in work");
/// first.complete();
/// assert_eq!(tracker.committable().map(|it| (it.position, it.payload)), Some((2, "byte 80")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap().unwrap();
/// ```
pub struct OffsetTracker<P: Copy = ()> {
    shared: Arc<Shared<P>>,
}

/// A position that was released, on its way through the pipeline again.
#[derive(Debug)]
#[must_use = "dropping it releases the position once more"]
pub struct Redelivery<P: Copy = ()> {
    /// The position.
    pub position: u64,
    /// What was handed in with it.
    pub payload: P,
    /// How often it has been delivered, this time included: 2 or more.
    pub deliveries: u32,
    /// Its new acknowledgement.
    pub ack: Ack<P>,
}

impl<P: Copy> OffsetTracker<P> {
    /// A tracker of at most `capacity` incomplete positions, with the defaults of [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// With a capacity of 0.
    pub fn new(capacity: usize) -> Result<Self, ConfigError> {
        Self::builder().capacity(capacity).build()
    }

    /// A tracker with all its options.
    pub fn builder() -> Builder<P> {
        Builder::new()
    }

    /// Tracks a position, with its payload; waits in line while `capacity` positions are incomplete or the
    /// window is full.
    ///
    /// # Errors
    ///
    /// [`TrackError::NotIncreasing`] unless the position is above the last one of this epoch, also after
    /// a wait; [`TrackError::NewEpoch`] if an epoch begins while this waits; [`TrackError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future tracks nothing, and gives up its turn.
    ///
    /// # Complexity
    ///
    /// O(1) amortised, without an allocation in the steady state.
    #[inline]
    pub fn track(&self, position: u64, payload: P) -> Track<'_, P> {
        Track::new(self, position, payload)
    }

    /// Tracks a position at once.
    ///
    /// # Errors
    ///
    /// Those of [`track`](Self::track), and [`TrackError::Full`] if it would have to wait.
    #[inline]
    pub fn try_track(&self, position: u64, payload: P) -> Result<Ack<P>, TrackError> {
        let serial = self.shared.read(|core| core.track(position, payload, now))?;
        Ok(Ack::new(Arc::clone(&self.shared), serial, position))
    }

    /// The highest position up to which everything is complete or rejected; `None` if there is none yet.
    pub fn committable(&self) -> Option<Committed<P>> {
        self.shared.read(|core| core.committed())
    }

    /// Waits until [`committable`](Self::committable) is another than `seen`, the position that the caller
    /// knows of. `None` once the tracker is closed, nothing is incomplete and `seen` is the last.
    ///
    /// Moves that come before the task is polled are one: it is woken once.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: the next call compares with the same position.
    ///
    /// ```
    /// # async fn store(_: u64) {}
    /// # async fn watch(tracker: sluicegate::OffsetTracker) {
    /// let mut stored = None;
    /// while let Some(committed) = tracker.changed(stored).await {
    ///     store(committed.position).await;
    ///     stored = Some(committed.position);
    /// }
    /// # }
    /// ```
    pub fn changed(&self, seen: Option<u64>) -> Changed<'_, P> {
        Changed::new(self, seen)
    }

    /// Hands out the position that was released first, to be worked on again; `None` if there is none, or
    /// if calls of [`redelivery`](Self::redelivery) wait for it.
    pub fn redeliver(&self) -> Option<Redelivery<P>> {
        let delivery = self.shared.act(|core| core.redeliver())?;
        Some(self.redelivery_of(delivery))
    }

    /// As [`redeliver`](Self::redeliver); waits in line while no position is released. `None` once the tracker
    /// is closed and nothing is incomplete.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the position to the next call.
    pub fn redelivery(&self) -> NextRedelivery<'_, P> {
        NextRedelivery::new(self)
    }

    fn redelivery_of(&self, delivery: Delivery<P>) -> Redelivery<P> {
        let Delivery { serial, position, payload, deliveries } = delivery;
        let ack = Ack::new(Arc::clone(&self.shared), serial, position);
        Redelivery { position, payload, deliveries, ack }
    }

    /// How far the source is done, to be stored together with the effects of the work.
    ///
    /// # Complexity
    ///
    /// O(positions beyond what is committed), under the lock.
    pub fn checkpoint(&self) -> Checkpoint<P> {
        self.shared.read(|core| core.checkpoint())
    }

    /// Begins a new epoch after a checkpoint, and says its number: the source is replayed from what that has
    /// committed. What is incomplete is fenced, as by [`new_epoch`](Self::new_epoch).
    ///
    /// ```
    /// use sluicegate::OffsetTracker;
    /// use sluicegate::offsets::Checkpoint;
    ///
    /// let tracker = OffsetTracker::new(100)?;
    /// tracker.resume(&Checkpoint::from_parts(None, [(2, 3)])?);
    /// let mut again = Vec::new();
    /// for line in 1..=4 {
    ///     if !tracker.skip(line, ()) {
    ///         again.push(tracker.try_track(line, ())?);
    ///     }
    /// }
    /// assert!(again.iter().map(|ack| ack.position()).eq([1, 4]));
    /// again.remove(0).complete();
    /// assert_eq!(tracker.committable().map(|committed| committed.position), Some(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resume(&self, checkpoint: &Checkpoint<P>) -> u64 {
        self.shared.begin_epoch(|core| core.resume(checkpoint))
    }

    /// Begins a new epoch after what is [committable](Self::committable), and says its number; the first is 0.
    ///
    /// For when the source is taken away, or replayed. What is incomplete is fenced: its acknowledgements are
    /// counted and ignored. Calls of [`track`](Self::track) that wait are refused. What is complete beyond what
    /// is committed stays known to [`is_complete`](Self::is_complete) and [`skip`](Self::skip).
    pub fn new_epoch(&self) -> u64 {
        self.shared.begin_epoch(|core| core.new_epoch())
    }

    /// The number of the epoch: how many began after the first.
    pub fn epoch(&self) -> u64 {
        self.shared.read(|core| core.epoch())
    }

    /// Whether a position that a replay delivers is complete or rejected already. O(log n).
    pub fn is_complete(&self, position: u64) -> bool {
        self.shared.read(|core| core.is_complete(position))
    }

    /// Passes over a position of a replay that [is complete](Self::is_complete), with its payload, and says
    /// whether it is: then it must not be tracked, and what is committed moves over it in its turn.
    pub fn skip(&self, position: u64, payload: P) -> bool {
        self.shared.act(|core| core.skip(position, payload))
    }

    /// The oldest position that is neither complete nor rejected, and its age: the figure to raise an alarm on.
    ///
    /// The clock is read by this method and, while something is incomplete, for one position in sixteen. So
    /// the age is off by at most the time that sixteen positions took to come or the time between two calls
    /// of this, whichever is less; that of a position that came alone counts from the next one, or from the
    /// next call.
    pub fn oldest_incomplete(&self) -> Option<Oldest> {
        self.oldest_incomplete_at(now())
    }

    /// [`oldest_incomplete`](Self::oldest_incomplete) at a time of the caller's.
    pub fn oldest_incomplete_at(&self, now: Instant) -> Option<Oldest> {
        self.shared.read(|core| core.oldest(now))
    }

    /// Takes the list of positions that were rejected, oldest first. At most `max_parked` are listed: beyond
    /// that the oldest falls off, counted as [`parked_unlisted`](OffsetStats::parked_unlisted).
    pub fn take_parked(&self) -> Vec<Parked> {
        self.shared.read(|core| core.take_parked()).into()
    }

    /// Tracks nothing more: calls that wait are refused. What is in work can be settled, and what is released
    /// be redelivered.
    pub fn close(&self) {
        self.shared.act(|core| core.close());
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.shared.read(|core| core.is_closed())
    }

    /// What has become of the positions, at one moment.
    pub fn stats(&self) -> OffsetStats {
        self.shared.read(|core| core.stats())
    }

    /// Panics unless the structures within agree.
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub fn validate(&self) {
        self.shared.read(|core| core.validate());
    }
}

impl<P: Copy> Clone for OffsetTracker<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P: Copy> fmt::Debug for OffsetTracker<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OffsetTracker").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
