//! What a batcher tells about itself.

use core::fmt;
use core::time::Duration;

/// Where accepted items end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    Failed,
    Unsent,
    Indeterminate,
}

/// What closed a batch to further items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SealedBy {
    /// It held `max_items` items.
    Count,
    /// It weighed `max_weight`, or the next item would have made it weigh more.
    Weight,
    /// Its window was over and the handler was free.
    Window,
    /// The handler had nothing to do, and the batcher is
    /// [`eager_when_idle`](super::Builder::eager_when_idle).
    Idle,
    /// [`Batcher::flush`](super::Batcher::flush) was called, or the key's own.
    Flush,
    /// Its key was the least recently used of a [`KeyedBatcher`](super::KeyedBatcher) that was
    /// full of keys.
    Evicted,
    /// The batcher was shut down, or its last handle was dropped.
    Shutdown,
}

/// How many batches were closed, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchesSealed {
    /// By [`SealedBy::Count`].
    pub count: u64,
    /// By [`SealedBy::Weight`].
    pub weight: u64,
    /// By [`SealedBy::Window`].
    pub window: u64,
    /// By [`SealedBy::Idle`].
    pub idle: u64,
    /// By [`SealedBy::Flush`].
    pub flush: u64,
    /// By [`SealedBy::Evicted`].
    pub evicted: u64,
    /// By [`SealedBy::Shutdown`].
    pub shutdown: u64,
}

impl BatchesSealed {
    pub(crate) fn add(&mut self, reason: SealedBy) {
        *match reason {
            SealedBy::Count => &mut self.count,
            SealedBy::Weight => &mut self.weight,
            SealedBy::Window => &mut self.window,
            SealedBy::Idle => &mut self.idle,
            SealedBy::Flush => &mut self.flush,
            SealedBy::Evicted => &mut self.evicted,
            SealedBy::Shutdown => &mut self.shutdown,
        } += 1;
    }

    /// All batches that were ever closed. A batch that is retried stays the same batch.
    pub fn total(&self) -> u64 {
        self.count
            + self.weight
            + self.window
            + self.idle
            + self.flush
            + self.evicted
            + self.shutdown
    }
}

/// A batcher's figures, as of one instant.
///
/// At every instant `accepted = delivered + failed + unsent + indeterminate + pending`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatcherStats {
    /// Items that `send` and its like took.
    pub accepted: u64,
    /// Items the handler took out of its batch, and those left in it when it returned `Ok`.
    pub delivered: u64,
    /// Items whose last attempt failed; the dead letter got them.
    pub failed: u64,
    /// Items that were never handed to the handler because the batcher stopped first.
    pub unsent: u64,
    /// Items that the handler held, or had failed with, when the batcher stopped.
    pub indeterminate: u64,
    /// Items accepted and unfinished: in the open batch, closed, in the handler, or waiting for a
    /// retry. At most the capacity.
    pub pending: u64,
    /// The weight of the batches that are not finished; 0 if items are not weighed. At most the
    /// capacity in weight, if there is one.
    pub pending_weight: u64,
    /// The most items that were ever pending at once.
    pub peak_pending: u64,
    /// Keys with an open batch; 0 for a batcher without keys. At most `max_keys`.
    pub keys: usize,
    /// The most keys that ever had an open batch at once.
    pub peak_keys: usize,
    /// Senders that wait in line for room.
    pub waiting_senders: usize,
    /// Batches by what closed them.
    pub batches: BatchesSealed,
    /// Items in all closed batches; divided by their number it is the mean size.
    pub batched_items: u64,
    /// The size of the largest batch. At most `max_items`.
    pub largest_batch: usize,
    /// The weight of all closed batches; 0 if items are not weighed.
    pub batched_weight: u64,
    /// The weight of the heaviest batch. At most `max_weight`.
    pub heaviest_batch: u64,
    /// Attempts after a batch's first, those to find what makes it fail included.
    pub retries: u64,
    /// Batches that were handed over at least once.
    pub handed_over: u64,
    /// How long a batch is open at the most if the handler is free: what the ages are to be compared
    /// with.
    pub window: Duration,
    /// The greatest age of a first item, the oldest of its batch, when that was first handed over.
    pub oldest_handed_over: Duration,
    /// The sum of these ages; divided by `handed_over` it is the mean.
    pub total_age: Duration,
    /// By how much the greatest age among the batches that were closed by their window went beyond
    /// it: the timer's granularity, and how long the handler was not free.
    pub longest_overrun: Duration,
    /// How often the driver ran until there was nothing left to do.
    pub wakeups: u64,
}

impl BatcherStats {
    pub(crate) fn handed_over(&mut self, age: Duration, sealed_by: SealedBy) {
        self.handed_over += 1;
        self.total_age = self.total_age.saturating_add(age);
        self.oldest_handed_over = self.oldest_handed_over.max(age);
        if sealed_by == SealedBy::Window {
            self.longest_overrun = self.longest_overrun.max(age.saturating_sub(self.window));
        }
    }

    /// The mean size of the batches closed so far, 0 if there was none.
    pub fn mean_batch(&self) -> f64 {
        match self.batches.total() {
            0 => 0.0,
            batches => self.batched_items as f64 / batches as f64,
        }
    }

    /// The mean age of the first item when its batch was first handed over, zero if there was none.
    pub fn mean_age(&self) -> Duration {
        match self.handed_over {
            0 => Duration::ZERO,
            batches => self.total_age.div_f64(batches as f64),
        }
    }
}

/// What became of the items that a [`flush`](super::Batcher::flush) waited for: all that were
/// pending when it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a flush also ends when items failed: look at `all_delivered`"]
pub struct FlushReport {
    /// Items that were delivered.
    pub delivered: u64,
    /// Items whose last attempt failed; the dead letter got them.
    pub failed: u64,
    /// Items that were never handed over because the batcher stopped first.
    pub unsent: u64,
    /// Items that the handler held, or had failed with, when the batcher stopped.
    pub indeterminate: u64,
}

impl FlushReport {
    pub(crate) fn add(&mut self, fate: Fate, items: usize) {
        *match fate {
            Fate::Delivered => &mut self.delivered,
            Fate::Failed => &mut self.failed,
            Fate::Unsent => &mut self.unsent,
            Fate::Indeterminate => &mut self.indeterminate,
        } += items as u64;
    }

    pub(crate) fn total(&self) -> u64 {
        self.delivered + self.failed + self.unsent + self.indeterminate
    }

    pub(crate) fn merge(&mut self, more: &Self) {
        self.delivered += more.delivered;
        self.failed += more.failed;
        self.unsent += more.unsent;
        self.indeterminate += more.indeterminate;
    }

    /// What came after `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            delivered: self.delivered - earlier.delivered,
            failed: self.failed - earlier.failed,
            unsent: self.unsent - earlier.unsent,
            indeterminate: self.indeterminate - earlier.indeterminate,
        }
    }

    /// Whether each item was delivered.
    pub fn all_delivered(&self) -> bool {
        self.failed == 0 && self.unsent == 0 && self.indeterminate == 0
    }
}

/// How a batcher ended.
///
/// The figures are those of its whole life. The items are handed out once, to the first
/// [`shutdown`](super::Batcher::shutdown) that returns; if none does, the dead letter gets them.
#[non_exhaustive]
#[must_use = "it holds the items that were not delivered"]
pub struct ShutdownReport<T> {
    /// Items that were delivered.
    pub delivered: u64,
    /// Items whose last attempt failed; the dead letter got them.
    pub failed: u64,
    /// Items that were never handed to the handler, in the order they were accepted; of a keyed
    /// batcher by batch, in the order in which their first items were.
    pub unsent: Vec<T>,
    /// Items that the handler held, or had failed with, when it was stopped: they may have been
    /// delivered or not. In the same order.
    pub indeterminate: Vec<T>,
    /// Items in a [`Batch`](super::Batch) that a thread or task of the handler's own still holds;
    /// indeterminate too. The dead letter gets those that remain when that guard is dropped.
    pub still_held: u64,
    pub(crate) accepted: u64,
}

impl<T> ShutdownReport<T> {
    /// Whether every item that was ever accepted was delivered.
    pub fn all_delivered(&self) -> bool {
        self.delivered == self.accepted
    }
}

impl<T> fmt::Debug for ShutdownReport<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShutdownReport")
            .field("delivered", &self.delivered)
            .field("failed", &self.failed)
            .field("unsent", &self.unsent.len())
            .field("indeterminate", &self.indeterminate.len())
            .field("still_held", &self.still_held)
            .finish()
    }
}
