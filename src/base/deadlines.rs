//! What has run out of time: deadlines of slots, the earliest first.
//!
//! Limits of equal length, noted as they start, are due in the order in which they are noted. Those
//! form a queue, O(1) each; a deadline that comes before one already noted goes into a heap,
//! O(log n).
//!
//! A deadline that is not needed any more stays until it comes to the front, where a `stamp` that
//! its slot no longer has gives it away. Behind one that lasts long such notes would pile up, so they
//! are cleared out when they may be half of all: O(1) amortised.

use core::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

/// A slot and when it is due.
// Ordered by its fields, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// Tells the slot's present use from earlier ones.
    pub(crate) stamp: usize,
    pub(crate) slot: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    in_order: VecDeque<Deadline>,
    others: BinaryHeap<Reverse<Deadline>>,
}

impl Deadlines {
    pub(crate) const fn new() -> Self {
        Self { in_order: VecDeque::new(), others: BinaryHeap::new() }
    }

    /// Notes a deadline. At most `live` slots have one that `is_live`.
    #[inline]
    pub(crate) fn push(
        &mut self,
        deadline: Deadline,
        live: usize,
        is_live: impl Fn(&Deadline) -> bool,
    ) {
        if self.in_order.len() + self.others.len() >= 2 * live.max(1) {
            self.in_order.retain(&is_live);
            self.others.retain(|Reverse(deadline)| is_live(deadline));
        }
        if self.in_order.back().is_none_or(|last| last.at <= deadline.at) {
            self.in_order.push_back(deadline);
        } else {
            self.others.push(Reverse(deadline));
        }
    }

    /// The earliest deadline that `is_live`; those before it are forgotten.
    #[inline]
    pub(crate) fn peek(&mut self, is_live: impl Fn(&Deadline) -> bool) -> Option<Deadline> {
        while let Some(first) = self.in_order.front() {
            if is_live(first) {
                break;
            }
            self.in_order.pop_front();
        }
        while let Some(Reverse(first)) = self.others.peek() {
            if is_live(first) {
                break;
            }
            self.others.pop();
        }
        let other = self.others.peek().map(|Reverse(first)| *first);
        match (self.in_order.front().copied(), other) {
            (Some(first), Some(other)) => Some(first.min(other)),
            (first, other) => first.or(other),
        }
    }

    /// When the first of those noted is due, live or not.
    #[inline]
    pub(crate) fn first_noted(&self) -> Option<Instant> {
        let other = self.others.peek().map(|Reverse(first)| first.at);
        let first = self.in_order.front().map(|first| first.at);
        match (first, other) {
            (Some(first), Some(other)) => Some(first.min(other)),
            (first, other) => first.or(other),
        }
    }

    /// Takes out the earliest deadline that `is_live`, if it has come by `now`.
    #[inline]
    pub(crate) fn pop_due(
        &mut self,
        now: Instant,
        is_live: impl Fn(&Deadline) -> bool,
    ) -> Option<Deadline> {
        let first = self.peek(is_live).filter(|first| first.at <= now)?;
        if self.in_order.front() == Some(&first) {
            self.in_order.pop_front();
        } else {
            self.others.pop();
        }
        Some(first)
    }

    pub(crate) fn clear(&mut self) {
        self.in_order.clear();
        self.others.clear();
    }

    /// How many are noted, live or not.
    #[cfg(any(all(test, not(loom)), debug_assertions))]
    pub(crate) fn noted(&self) -> usize {
        self.in_order.len() + self.others.len()
    }

    /// Panics unless the queue is sorted and at most twice as many are noted as are live.
    #[cfg(any(all(test, not(loom)), debug_assertions))]
    pub(crate) fn validate(&self, live: usize) {
        assert!(self.in_order.iter().is_sorted_by_key(|deadline| deadline.at), "the queue's order");
        assert!(self.noted() <= 2 * live.max(1), "{} noted for {live} slots", self.noted());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn equal_limits_and_others_come_due_in_order() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new();
        for (stamp, millis) in [30, 40, 10, 20, 40, 35].into_iter().enumerate() {
            let deadline = Deadline { at: at(start, millis), slot: stamp, stamp };
            deadlines.push(deadline, 8, |_| true);
            deadlines.validate(8);
        }
        assert_eq!(deadlines.pop_due(at(start, 9), |_| true), None);
        let due = core::iter::from_fn(|| deadlines.pop_due(at(start, 40), |_| true));
        assert_eq!(due.map(|deadline| deadline.slot).collect::<Vec<_>>(), [2, 3, 0, 5, 1, 4]);
        assert_eq!(deadlines.noted(), 0);
    }

    #[test]
    fn notes_behind_one_that_lasts_are_cleared_out() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new();
        // Slot 0 lasts; slot 1 is used again and again, and only its latest use is live.
        deadlines.push(Deadline { at: start, slot: 0, stamp: 0 }, 2, |_| true);
        for stamp in 1..1_000 {
            let deadline = Deadline { at: at(start, stamp as u64), slot: 1, stamp };
            deadlines.push(deadline, 2, |known| known.slot == 0 || known.stamp == stamp);
            deadlines.validate(2);
        }
        assert_eq!(deadlines.peek(|_| true).map(|first| first.slot), Some(0));
    }

    #[test]
    fn behaves_as_a_sorted_vector() {
        let start = Instant::now();
        let mut random = fastrand::Rng::with_seed(5);
        let (mut deadlines, mut model) = (Deadlines::new(), Vec::<Deadline>::new());
        for stamp in 0..3_000 {
            if random.bool() {
                let deadline = Deadline { at: at(start, random.u64(..50)), slot: stamp, stamp };
                let live = model.clone();
                deadlines.push(deadline, live.len() + 1, |known| live.contains(known));
                model.push(deadline);
                model.sort();
            } else if random.bool() && !model.is_empty() {
                model.remove(random.usize(..model.len()));
            } else {
                let now = at(start, random.u64(..50));
                let live = model.clone();
                let due = deadlines.pop_due(now, |known| live.contains(known));
                let expected = model.first().copied().filter(|first| first.at <= now);
                assert_eq!(due, expected);
                model.retain(|known| Some(*known) != due);
            }
            if let Some(first) = model.first() {
                assert!(deadlines.first_noted().is_some_and(|noted| noted <= first.at));
            }
            let live = model.clone();
            assert_eq!(deadlines.peek(|known| live.contains(known)), model.first().copied());
        }
    }
}
