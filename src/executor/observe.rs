//! What an observer is told while a batch runs, and the report of an item.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use super::summary::BatchSummary;
use crate::base::panic::quietly;
use crate::settled::SettledKind;

/// What an observer is told; see [`observer`](super::BatchExecutorBuilder::observer).
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchEvent<'a> {
    /// An input was pulled: that with this index.
    #[non_exhaustive]
    Pulled {
        /// The position of the input.
        index: usize,
    },
    /// An item starts, or starts again: its closure is about to be called.
    #[non_exhaustive]
    Started {
        /// The position of the input.
        index: usize,
    },
    /// An attempt failed, and the item waits for another.
    #[non_exhaustive]
    Retrying {
        /// The position of the input.
        index: usize,
        /// How long it waits, until it is due.
        wait: Duration,
    },
    /// An item has settled, and its future is gone.
    #[non_exhaustive]
    Settled {
        /// How, and after how long.
        report: ItemReport,
    },
    /// The run is over: each input that was pulled has settled, and been sunk if there is a sink.
    /// A spawned batch tells it once, when the last of its workers is done; a run whose future is
    /// dropped before does not.
    #[non_exhaustive]
    Ended {
        /// The counts, and why it ended.
        summary: &'a BatchSummary,
    },
}

/// How one item went: what an [observer](super::BatchExecutorBuilder::observer) is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ItemReport {
    /// The position of the input.
    pub index: usize,
    /// How it ended.
    pub kind: SettledKind,
    /// From being pulled to being started, or cancelled unstarted: it waited for its key or for
    /// permits.
    pub queued: Duration,
    /// From being started to its end, with all attempts and the waits between them.
    pub running: Duration,
}

/// `item 7 fulfilled, 2ms queued, 40ms running`.
impl fmt::Display for ItemReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, kind, queued, running } = self;
        write!(f, "item {index} {kind}, {queued:?} queued, {running:?} running")
    }
}

pub(super) type Observer = Arc<dyn Fn(BatchEvent<'_>) + Send + Sync>;

/// Tells an observer; its panic costs nothing.
pub(super) fn tell(observer: Option<&Observer>, event: BatchEvent<'_>) {
    if let Some(observer) = observer {
        quietly(|| observer(event));
    }
}

/// Keeps the times of the items of a run for its observer.
pub(super) struct Reporter {
    observer: Observer,
    /// By slot.
    times: Vec<Times>,
}

#[derive(Clone, Copy)]
struct Times {
    pulled: Instant,
    started: Option<Instant>,
}

impl Reporter {
    pub(super) fn new(observer: Observer) -> Box<Self> {
        Box::new(Self { observer, times: Vec::new() })
    }

    pub(super) fn pulled(&mut self, slot: usize, index: usize, now: Instant) {
        let times = Times { pulled: now, started: None };
        match self.times.get_mut(slot) {
            Some(slot) => *slot = times,
            None => self.times.resize(slot + 1, times),
        }
        tell(Some(&self.observer), BatchEvent::Pulled { index });
    }

    pub(super) fn started(&mut self, slot: usize, index: usize, now: Instant) {
        self.times[slot].started.get_or_insert(now);
        tell(Some(&self.observer), BatchEvent::Started { index });
    }

    pub(super) fn retrying(&self, index: usize, wait: Duration) {
        tell(Some(&self.observer), BatchEvent::Retrying { index, wait });
    }

    pub(super) fn settled(&mut self, slot: usize, index: usize, kind: SettledKind, now: Instant) {
        let Times { pulled, started } = self.times[slot];
        let queued = started.unwrap_or(now).saturating_duration_since(pulled);
        let running = started.map(|started| now.saturating_duration_since(started));
        let running = running.unwrap_or_default();
        let report = ItemReport { index, kind, queued, running };
        tell(Some(&self.observer), BatchEvent::Settled { report });
    }
}
