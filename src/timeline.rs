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
    #[cfg(test)]
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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    /// One that takes long is in front, and so many others pass beside it: their notes are cleared out.
    ///
    /// Seen to fail (10,001 notes) when `start` does not clear them out, and (nothing is due) when it
    /// clears out those that run.
    #[test]
    fn notes_do_not_pile_up_behind_one_that_takes_long() {
        const PLACES: usize = 4;
        let begun = Instant::now();
        let mut timeline = Timeline::new(LIMIT);
        timeline.start(0, 0, begun, PLACES, |_| unreachable!());
        for index in 1..=10_000 {
            let now = begun + Duration::from_micros(index);
            let place = 1 + index as usize % (PLACES - 1);
            // Of the others only the last three run.
            let runs = |item: &Started| item.place == 0 || item.index + PLACES > index as usize;
            timeline.start(place, index as usize, now, PLACES, runs);
            assert!(timeline.started.len() <= 2 * PLACES + 1, "{}", timeline.started.len());
            assert_eq!(timeline.first_due(), Some(begun + LIMIT));
        }
        assert_eq!(timeline.next_due(|item| item.place == 0), Some(begun + LIMIT));
        assert_eq!(timeline.take_due().map(|item| item.index), Some(0));
        assert!(timeline.next_due(|_| true).is_some(), "the last ones are noted");
        assert_eq!(timeline.next_due(|_| false), None);
        assert_eq!(timeline.started.len(), 0);
    }
}
