//! When what has run out of time. All that are noted have the same limit, so that they are due in
//! the order in which they started, and the earliest is always in front.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What runs under a time limit, in the order in which it is due.
pub(crate) struct Timeline {
    limit: Duration,
    started: VecDeque<Started>,
}

#[derive(Clone, Copy)]
pub(crate) struct Started {
    pub(crate) place: usize,
    /// Tells it from others that had the same place.
    pub(crate) index: usize,
    due: Instant,
}

impl Timeline {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, started: VecDeque::new() }
    }

    /// Notes what starts now. `runs` tells whether what was noted earlier still runs, and `places`
    /// bounds how many of them can.
    ///
    /// Those that have settled leave when they come to the front. Behind one that takes long they
    /// would pile up, so they are cleared out whenever they may be half of all: O(1) amortised.
    pub(crate) fn start(
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

    /// When the first of those noted is due, whether it still runs or not.
    #[inline]
    pub(crate) fn first_due(&self) -> Option<Instant> {
        self.started.front().map(|first| first.due)
    }

    /// When the next is due.
    pub(crate) fn next_due(&mut self, runs: impl Fn(&Started) -> bool) -> Option<Instant> {
        while let Some(first) = self.started.front() {
            if runs(first) {
                return Some(first.due);
            }
            self.started.pop_front();
        }
        None
    }

    /// Takes out the one in front, whose instant has come.
    pub(crate) fn take_due(&mut self) -> Option<Started> {
        self.started.pop_front()
    }
}
