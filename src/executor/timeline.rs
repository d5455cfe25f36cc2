//! When which item is overdue. All items of a run have the same limit, so that they are due in the
//! order in which they started, and the earliest is always in front.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The items that run under a time limit, in the order in which they are due.
pub(super) struct Timeline {
    limit: Duration,
    started: VecDeque<Started>,
}

#[derive(Clone, Copy)]
pub(super) struct Started {
    pub(super) place: usize,
    pub(super) index: usize,
    due: Instant,
}

impl Timeline {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, started: VecDeque::new() }
    }

    /// Notes an item that starts now. `runs` tells whether an item noted earlier still runs, and
    /// `places` bounds how many of them can.
    ///
    /// Items that have settled leave when they come to the front. Behind one that takes long they
    /// would pile up, so they are cleared out whenever they may be half of all: O(1) amortised.
    pub(super) fn start(
        &mut self,
        place: usize,
        index: usize,
        now: Instant,
        places: usize,
        runs: impl Fn(&Started) -> bool,
    ) {
        if self.started.len() >= 2 * places {
            self.started.retain(runs);
        }
        self.started.push_back(Started { place, index, due: now + self.limit });
    }

    /// When the next item is due.
    pub(super) fn next_due(&mut self, runs: impl Fn(&Started) -> bool) -> Option<Instant> {
        while let Some(first) = self.started.front() {
            if runs(first) {
                return Some(first.due);
            }
            self.started.pop_front();
        }
        None
    }

    /// Takes out the item in front, whose instant has come.
    pub(super) fn take_due(&mut self) -> Option<Started> {
        self.started.pop_front()
    }
}
