//! What a queue answers.

use core::fmt;
use core::iter::FusedIterator;
use std::vec;

/// What a push did, with everything that it pushed out or that was refused.
///
/// There are these four outcomes and no others, so a `match` can name them all.
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
    /// In the queue, and nothing had to go.
    Stored,
    /// In the queue, and these, the oldest of the ordinary lane, had to go.
    Displaced(Displaced<T>),
    /// Not in the queue: there was no room, and [`WhenFull::DropNewest`](super::WhenFull) was
    /// chosen. Readers learn of it.
    DroppedNewest(T),
    /// Not in the queue; here it is, with the reason. Readers do not learn of it.
    Rejected(Rejected<T>),
}

impl<T> Pushed<T> {
    /// Whether the item is in the queue now.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        matches!(self, Self::Stored | Self::Displaced(_))
    }

    /// The items that were displaced, if the new one is in the queue.
    ///
    /// # Errors
    ///
    /// The item, with the reason, if it is not: [`RejectReason::Full`] if it was dropped as the
    /// newest.
    pub fn into_displaced(self) -> Result<Displaced<T>, Rejected<T>> {
        match self {
            Self::Stored => Ok(Displaced::from(None)),
            Self::Displaced(displaced) => Ok(displaced),
            Self::DroppedNewest(item) => Err(Rejected { reason: RejectReason::Full, item }),
            Self::Rejected(rejected) => Err(rejected),
        }
    }
}

/// Items that had to go to make room, oldest first.
#[must_use = "it owns what was displaced, which is lost if it is dropped"]
pub struct Displaced<T>(Those<T>);

/// One, or none any more, is by far the most frequent and needs no memory of its own.
enum Those<T> {
    One(Option<T>),
    Many(vec::IntoIter<T>),
}

impl<T> From<Option<T>> for Displaced<T> {
    #[inline]
    fn from(item: Option<T>) -> Self {
        Self(Those::One(item))
    }
}

impl<T> From<Vec<T>> for Displaced<T> {
    fn from(items: Vec<T>) -> Self {
        Self(Those::Many(items.into_iter()))
    }
}

impl<T> Iterator for Displaced<T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Those::One(item) => item.take(),
            Those::Many(items) => items.next(),
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Those::One(item) => {
                let count = usize::from(item.is_some());
                (count, Some(count))
            }
            Those::Many(items) => items.size_hint(),
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

/// An item that was not let in, and why.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected<T> {
    /// Why.
    pub reason: RejectReason,
    /// The item as handed in.
    pub item: T,
}

impl<T> Rejected<T> {
    /// The item that was handed in.
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

/// Why an item was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectReason {
    /// There is no room for it, or others wait for room.
    Full,
    /// It has more weight than its whole lane may hold.
    TooHeavy,
    /// The queue is closed.
    Closed,
    /// It was to go into the protected lane, and the queue was built without one.
    NoProtectedLane,
}

impl RejectReason {
    pub(super) const COUNT: usize = 4;
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the queue has no room for it, or others wait for room",
            Self::TooHeavy => "the item has more weight than its whole lane may hold",
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
    /// How many items were lost between the one that left the queue before it, to whichever
    /// reader, and this one: displaced as the oldest, or dropped as the newest.
    pub dropped_before: u64,
}

/// What was left in a queue.
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
    /// How many items were lost between the last one and the end. The first reader to see the end
    /// is told; for the others it is 0.
    pub dropped_before: u64,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue is closed, and empty")
    }
}

impl std::error::Error for Closed {}

/// There is no item to be had at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryPopError {
    /// The queue is empty, or what is in it is kept for waiting readers.
    Empty,
    /// The queue is closed and empty.
    Closed(Closed),
}

impl TryPopError {
    /// What there is to know of the end, if the queue is closed.
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
            Self::Empty => f.write_str("the queue is empty, or readers wait for it"),
            Self::Closed(closed) => closed.fmt(f),
        }
    }
}

impl std::error::Error for TryPopError {}

/// Counts of everything a queue was offered, by the way it left. Reading them is O(1).
///
/// Each item is counted in exactly one place, so that at any moment
///
/// ```text
/// pushed = popped + displaced() + rejected() + drained + len
/// ```
///
/// Counts are of items unless they say otherwise, and start at zero when the queue is built. A push
/// that waits, or was given up while it waited, has offered nothing yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct QueueStats {
    /// Pushes of any kind that have their answer, those refused included.
    pub pushed: u64,
    /// Handed to readers, one by one or many at once.
    pub popped: u64,
    /// Resident items that had to go to make room.
    pub displaced_oldest: u64,
    /// New items dropped because the queue was full.
    pub displaced_newest: u64,
    /// Handed over by `drain`.
    pub drained: u64,
    /// Handed back because there was no room, or others waited for it.
    pub rejected_full: u64,
    /// Handed back because they had more weight than their whole lane may hold.
    pub rejected_too_heavy: u64,
    /// Handed back because the queue was closed.
    pub rejected_closed: u64,
    /// Handed back because there is no protected lane.
    pub rejected_no_lane: u64,
    /// Resident now, in both lanes.
    pub len: usize,
    /// Those of [`len`](Self::len) in the protected lane.
    pub protected_len: usize,
    /// The weight of the resident items; 0 if they are not weighed.
    pub weight: u64,
    /// The most items that were ever resident at once.
    pub peak_len: usize,
    /// Pushes in the wait list now, for both lanes, those included that were called and not polled since.
    pub waiting_pushers: usize,
    /// Readers in the wait list now, those included that were called and not polled since.
    pub waiting_readers: usize,
    /// How often a push had to wait.
    pub push_waits: u64,
    /// How often a reader had to wait.
    pub pop_waits: u64,
    /// How often a waiter gave up, called or not.
    pub cancellations: u64,
}

impl QueueStats {
    /// All that had to go because there was no room: what readers learn as `dropped_before` and at
    /// the end.
    #[must_use]
    pub fn displaced(&self) -> u64 {
        self.displaced_oldest + self.displaced_newest
    }

    /// All that was handed back, whatever the reason.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected_full + self.rejected_too_heavy + self.rejected_closed + self.rejected_no_lane
    }
}
