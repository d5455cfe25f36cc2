//! One of the two lanes: a ring of items, its limits, and the wait list for room.

use std::collections::{TryReserveError, VecDeque};

use super::outcome::Displaced;
use super::waiters::Waiters;

/// An item that leaves.
#[derive(Debug)]
pub(super) struct Entry<T> {
    /// How many items arrived at the queue before it, lost ones included.
    pub(super) number: u64,
    pub(super) item: T,
}

/// What is kept beside an item in a lane with marks.
#[derive(Debug, Clone, Copy)]
struct Mark {
    number: u64,
    weight: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) items: usize,
    pub(super) weight: u64,
}

/// So that the weight of a lane and of one item more cannot overflow.
pub(super) const MAX_WEIGHT: u64 = u64::MAX / 2;

/// A larger ring than this grows with its items.
const RESERVED_AT_ONCE: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct Lane<T> {
    limits: Limits,
    items: VecDeque<T>,
    /// One for each item. `None` in a lane whose items weigh nothing and are those that arrived
    /// last, so that their numbers follow from how many there are.
    marks: Option<VecDeque<Mark>>,
    weight: u64,
    pub(super) waiters: Waiters,
}

impl<T> Lane<T> {
    /// # Errors
    ///
    /// If the memory for its items cannot be reserved.
    pub(super) fn new(limits: Limits, with_marks: bool) -> Result<Self, TryReserveError> {
        let at_once = limits.items.min(RESERVED_AT_ONCE);
        let mut items = VecDeque::new();
        items.try_reserve_exact(at_once)?;
        Ok(Self {
            limits,
            items,
            marks: with_marks.then(|| VecDeque::with_capacity(at_once)),
            weight: 0,
            waiters: Waiters::new(),
        })
    }

    /// Whether the queue has this lane.
    #[inline]
    pub(super) fn exists(&self) -> bool {
        self.limits.items != 0
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    #[inline]
    pub(super) fn has_marks(&self) -> bool {
        self.marks.is_some()
    }

    /// Whether the empty lane holds an item of this weight.
    pub(super) fn can_hold(&self, weight: u64) -> bool {
        weight <= self.limits.weight
    }

    /// How many items it holds beside those for which room is reserved.
    pub(super) fn unreserved(&self) -> usize {
        self.limits.items - self.waiters.granted()
    }

    /// Whether there is room for one more item beside what is reserved.
    pub(super) fn has_room(&self, weight: u64) -> bool {
        self.len() < self.unreserved()
            && weight <= self.limits.weight - self.weight - self.waiters.reserved()
    }

    /// Whether a new push can store an item without passing a waiter.
    pub(super) fn is_open_to(&self, weight: u64) -> bool {
        self.waiters.waiting() == 0 && self.has_room(weight)
    }

    /// Whether the oldest item of this lane arrived before that of the other. A lane without marks
    /// is the only one.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        let number = |lane: &Self| lane.marks.as_ref()?.front().map(|mark| mark.number);
        match (number(self), number(other)) {
            (Some(ours), Some(theirs)) => ours < theirs,
            (ours, _) => ours.is_some(),
        }
    }

    /// Stores an item in a lane without marks.
    #[inline]
    pub(super) fn push_fast(&mut self, item: T) {
        self.items.push_back(item);
    }

    /// Takes the oldest item out of a lane without marks.
    #[inline]
    pub(super) fn pop_fast(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    pub(super) fn push(&mut self, Entry { number, item }: Entry<T>, weight: u64) {
        self.items.push_back(item);
        if let Some(marks) = &mut self.marks {
            marks.push_back(Mark { number, weight });
            self.weight += weight;
        }
    }

    /// Takes the oldest item out. `arrived` is the number of the next item to arrive.
    pub(super) fn pop(&mut self, arrived: u64) -> Option<Entry<T>> {
        let without_marks = arrived - self.items.len() as u64;
        let item = self.items.pop_front()?;
        let mark = self.marks.as_mut().and_then(VecDeque::pop_front);
        let Mark { number, weight } = mark.unwrap_or(Mark { number: without_marks, weight: 0 });
        self.weight -= weight;
        Some(Entry { number, item })
    }

    /// Takes out the oldest items: at least `at_least` of those there are, and as many as it takes to
    /// make room for one more of this weight.
    pub(super) fn displace(&mut self, weight: u64, at_least: usize) -> Displaced<T> {
        let mut count = at_least.min(self.len());
        if let Some(marks) = &mut self.marks {
            let displaced: u64 = marks.drain(..count).map(|mark| mark.weight).sum();
            self.weight -= displaced;
            while self.weight > self.limits.weight - weight {
                let Some(mark) = marks.pop_front() else { break };
                self.weight -= mark.weight;
                count += 1;
            }
        }
        if count == 1 {
            return Displaced::from(self.items.pop_front());
        }
        Displaced::from(self.items.drain(..count).collect::<Vec<_>>())
    }

    /// Panics unless there is one mark for each item, in order, and weights and limits hold.
    #[cfg(debug_assertions)]
    pub(super) fn validate(&self) {
        self.waiters.validate();
        assert!(self.len() <= self.unreserved(), "items beyond the limit");
        assert!(self.weight + self.waiters.reserved() <= self.limits.weight, "weight");
        let Some(marks) = &self.marks else { return assert_eq!(self.weight, 0) };
        assert_eq!(marks.len(), self.len(), "marks");
        assert!(marks.iter().is_sorted_by(|a, b| a.number < b.number), "numbers");
        assert_eq!(marks.iter().map(|mark| mark.weight).sum::<u64>(), self.weight, "weight");
    }
}
