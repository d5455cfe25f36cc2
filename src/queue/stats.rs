//! What was offered, and by which way it left.

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
    pub given_up: u64,
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
