//! Outcomes of pushes and pops, and statistics.

use core::fmt;
use core::iter::FusedIterator;
use std::vec;

/// What a push did, with every item that it displaced, dropped or rejected.
///
/// There will be no other variants, so a `match` can name them all.
///
/// ```
/// use sluicegate::OverflowQueue;
/// use sluicegate::queue::{Pushed, WhenFull};
///
/// let queue = OverflowQueue::builder().capacity(1).when_full(WhenFull::DropOldest).build()?;
/// for event in [1, 2] {
///     match queue.try_push(event) {
///         Pushed::Stored => {}
///         Pushed::Displaced(older) => assert_eq!(older.collect::<Vec<_>>(), [1]),
///         Pushed::DroppedNewest(event) => println!("{event} was dropped"),
///         Pushed::Rejected(rejected) => println!("{} came back: {rejected}", rejected.item),
///     }
/// }
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
#[derive(Debug)]
#[must_use = "it owns what was displaced, dropped or rejected, which is lost if it is dropped"]
pub enum Pushed<T> {
    /// The item is in the queue, and none was displaced.
    Stored,
    /// The item is in the queue. These, the oldest of the ordinary lane, were displaced.
    Displaced(Displaced<T>),
    /// The item is not in the queue, which is full and has
    /// [`WhenFull::DropNewest`](super::WhenFull). Readers learn of the gap.
    DroppedNewest(T),
    /// The item is not in the queue, for the reason that is given. Readers see no gap.
    Rejected(Rejected<T>),
}

impl<T> Pushed<T> {
    /// Whether the item is in the queue now.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        matches!(self, Self::Stored | Self::Displaced(_))
    }

    /// The items that were displaced, if the new item is in the queue.
    ///
    /// # Errors
    ///
    /// The item, with the reason, if it is not in the queue: [`RejectReason::Full`] if it was dropped
    /// as the newest.
    pub fn into_displaced(self) -> Result<Displaced<T>, Rejected<T>> {
        match self {
            Self::Stored => Ok(Displaced::from(None)),
            Self::Displaced(displaced) => Ok(displaced),
            Self::DroppedNewest(item) => Err(Rejected { reason: RejectReason::Full, item }),
            Self::Rejected(rejected) => Err(rejected),
        }
    }
}

/// Items that were displaced to make room, oldest first.
#[must_use = "it owns what was displaced, which is lost if it is dropped"]
pub struct Displaced<T>(Inner<T>);

/// A single item is by far the most frequent case and needs no allocation.
enum Inner<T> {
    One(Option<T>),
    Many(vec::IntoIter<T>),
}

impl<T> From<Option<T>> for Displaced<T> {
    #[inline]
    fn from(item: Option<T>) -> Self {
        Self(Inner::One(item))
    }
}

impl<T> From<Vec<T>> for Displaced<T> {
    fn from(items: Vec<T>) -> Self {
        Self(Inner::Many(items.into_iter()))
    }
}

impl<T> Iterator for Displaced<T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Inner::One(item) => item.take(),
            Inner::Many(items) => items.next(),
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Inner::One(item) => item.iter().size_hint(),
            Inner::Many(items) => items.size_hint(),
        }
    }
}

impl<T> ExactSizeIterator for Displaced<T> {}
impl<T> FusedIterator for Displaced<T> {}

impl<T> fmt::Debug for Displaced<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Displaced").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// An item that was rejected, and why.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected<T> {
    /// The reason.
    pub reason: RejectReason,
    /// The item.
    pub item: T,
}

impl<T> Rejected<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        self.item
    }
}

impl<T> fmt::Debug for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<T> std::error::Error for Rejected<T> {}

/// Why an item was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectReason {
    /// The lane is full, or its room is reserved for waiting pushes.
    Full,
    /// The item weighs more than its whole lane may hold.
    TooHeavy,
    /// The queue is closed.
    Closed,
    /// The push was for the protected lane, and the queue was built without one.
    NoProtectedLane,
}

impl RejectReason {
    pub(super) const COUNT: usize = 4;
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the queue is full, or its room is reserved for waiting pushes",
            Self::TooHeavy => "the item weighs more than its whole lane may hold",
            Self::Closed => "the queue is closed",
            Self::NoProtectedLane => "the queue was built without a protected lane",
        })
    }
}

impl std::error::Error for RejectReason {}

/// An item, and the gap before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it owns an item of the queue, which is lost if it is dropped"]
#[non_exhaustive]
pub struct Popped<T> {
    /// The item.
    pub item: T,
    /// How many items were lost, displaced as the oldest or dropped as the newest, between this one
    /// and the one that was popped before it by any reader.
    pub dropped_before: u64,
}

/// All items of a queue, from [`OverflowQueue::drain`](super::OverflowQueue::drain).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it owns the items of the queue, which are lost if it is dropped"]
#[non_exhaustive]
pub struct Drained<T> {
    /// The items of both lanes, in the order of their arrival.
    pub items: Vec<Popped<T>>,
    /// How many items were lost after the last of them.
    pub dropped_after: u64,
}

/// The queue is closed and empty.
///
/// ```
/// use sluicegate::OverflowQueue;
/// use sluicegate::queue::WhenFull;
///
/// let queue = OverflowQueue::builder().capacity(1).when_full(WhenFull::DropNewest).build()?;
/// for event in [1, 2, 3] {
///     let _ = queue.try_push(event);
/// }
/// queue.close();
/// assert_eq!(queue.try_pop().unwrap().item, 1);
/// assert_eq!(queue.try_pop().unwrap_err().closed().unwrap().dropped_before, 2);
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// How many items were lost between the last one and the end. The first reader at the end gets
    /// the count; later ones get 0.
    pub dropped_before: u64,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue is closed and empty")
    }
}

impl std::error::Error for Closed {}

/// No item can be popped at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryPopError {
    /// The queue is empty, or its items are reserved for waiting readers.
    Empty,
    /// The queue is closed and empty.
    Closed(Closed),
}

impl TryPopError {
    /// The end of the queue, if it is closed.
    #[must_use]
    pub fn closed(self) -> Option<Closed> {
        match self {
            Self::Empty => None,
            Self::Closed(closed) => Some(closed),
        }
    }
}

impl fmt::Display for TryPopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => {
                f.write_str("the queue is empty, or its items are reserved for waiting readers")
            }
            Self::Closed(closed) => closed.fmt(f),
        }
    }
}

impl std::error::Error for TryPopError {}

/// Counts of all items that were pushed, by outcome.
///
/// Each item is counted exactly once, so that at any moment
///
/// ```text
/// pushed = popped + displaced() + rejected() + drained + len
/// ```
///
/// All counts start at zero when the queue is built. A push that waits, or that was cancelled while
/// it waited, is not counted as pushed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct QueueStats {
    /// Pushes that have completed, rejected ones included.
    pub pushed: u64,
    /// Items that readers popped.
    pub popped: u64,
    /// Resident items that were displaced to make room.
    pub displaced_oldest: u64,
    /// New items dropped because the queue was full.
    pub displaced_newest: u64,
    /// Items taken out by `drain`.
    pub drained: u64,
    /// Items rejected as [`RejectReason::Full`].
    pub rejected_full: u64,
    /// Items rejected as [`RejectReason::TooHeavy`].
    pub rejected_too_heavy: u64,
    /// Items rejected as [`RejectReason::Closed`].
    pub rejected_closed: u64,
    /// Items rejected as [`RejectReason::NoProtectedLane`].
    pub rejected_no_lane: u64,
    /// Items resident now, in both lanes.
    pub len: usize,
    /// Inner of [`len`](Self::len) in the protected lane.
    pub protected_len: usize,
    /// The weight of the resident items; 0 if they are not weighed.
    pub weight: u64,
    /// The most items that were ever resident at once.
    pub peak_len: usize,
    /// Pushes in the wait lists of both lanes now, woken ones that were not polled since included.
    pub waiting_pushers: usize,
    /// Readers in the wait list now, woken ones that were not polled since included.
    pub waiting_readers: usize,
    /// How often a push had to wait.
    pub push_waits: u64,
    /// How often a reader had to wait.
    pub pop_waits: u64,
    /// How often a waiting push or reader was cancelled, woken or not.
    pub cancellations: u64,
}

impl QueueStats {
    /// All items lost because the queue was full: what readers learn as `dropped_before` and at the
    /// end.
    #[must_use]
    pub fn displaced(&self) -> u64 {
        self.displaced_oldest + self.displaced_newest
    }

    /// All rejected items, for any reason.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected_full + self.rejected_too_heavy + self.rejected_closed + self.rejected_no_lane
    }
}
