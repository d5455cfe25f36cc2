//! One of the two lanes: a ring of items, its limits, and the wait list for room.

use std::collections::{TryReserveError, VecDeque};

use super::waiters::Waiters;

/// An item on its way out.
#[derive(Debug)]
pub(super) struct Entry<T> {
    /// How many arrived at the queue before it, lost ones included.
    pub(super) number: u64,
    pub(super) item: T,
}

/// What is kept about an item beside it, in a lane that is not plain.
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

/// A larger ring than this grows with what is in it.
const AT_ONCE: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct Lane<T> {
    limits: Limits,
    items: VecDeque<T>,
    /// One for each item; `None` in a plain lane, whose items weigh nothing and are those that
    /// arrived last, so that their numbers go without saying.
    marks: Option<VecDeque<Mark>>,
    weight: u64,
    pub(super) waiters: Waiters,
}

impl<T> Lane<T> {
    /// # Errors
    ///
    /// If the memory for its items is not to be had.
    pub(super) fn new(limits: Limits, plain: bool) -> Result<Self, TryReserveError> {
        let at_once = limits.items.min(AT_ONCE);
        let mut items = VecDeque::new();
        items.try_reserve_exact(at_once)?;
        Ok(Self {
            limits,
            items,
            marks: (!plain).then(|| VecDeque::with_capacity(at_once)),
            weight: 0,
            waiters: Waiters::new(),
        })
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    pub(super) fn is_fast(&self) -> bool {
        self.marks.is_none()
    }

    /// Whether so large an item fits in when there is nothing else.
    pub(super) fn takes(&self, weight: u64) -> bool {
        weight <= self.limits.weight
    }

    /// How many items it can hold beside the room that is kept for called waiters.
    pub(super) fn room_beyond_called(&self) -> usize {
        self.limits.items - self.waiters.called()
    }

    /// Whether there is room beside its items and what is kept for called waiters.
    fn fits(&self, weight: u64) -> bool {
        self.len() < self.room_beyond_called()
            && weight <= self.limits.weight - self.weight - self.waiters.reserved()
    }

    /// Whether a new push may store an item without passing a waiter.
    pub(super) fn is_open_to(&self, weight: u64) -> bool {
        self.waiters.waiting() == 0 && self.fits(weight)
    }

    /// Whether the next waiter can be called.
    pub(super) fn can_call(&self) -> bool {
        self.waiters.waiting() != 0
            && self.waiters.next_need().is_some_and(|weight| self.fits(weight))
    }

    /// Whether the oldest item of this lane arrived before that of the other. Neither is plain.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        let number = |lane: &Self| lane.marks.as_ref()?.front().map(|mark| mark.number);
        match (number(self), number(other)) {
            (Some(ours), Some(theirs)) => ours < theirs,
            (ours, _) => ours.is_some(),
        }
    }

    /// Puts an item into a plain lane.
    #[inline]
    pub(super) fn push_fast(&mut self, item: T) {
        self.items.push_back(item);
    }

    /// Takes the oldest item out of a plain lane.
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

    /// Takes the oldest item out. `arrived` is the number of the next to arrive.
    pub(super) fn pop(&mut self, arrived: u64) -> Option<Entry<T>> {
        let plain = arrived - self.items.len() as u64;
        let item = self.items.pop_front()?;
        let mark = self.marks.as_mut().and_then(VecDeque::pop_front);
        let Mark { number, weight } = mark.unwrap_or(Mark { number: plain, weight: 0 });
        self.weight -= weight;
        Some(Entry { number, item })
    }

    /// How many of the oldest have to go for one more of this weight, at least `at_least` (of
    /// those there are).
    pub(super) fn in_the_way(&self, weight: u64, at_least: usize) -> usize {
        let mut count = at_least.min(self.len());
        let Some(marks) = &self.marks else { return count };
        let mut left = self.weight - marks.iter().take(count).map(|mark| mark.weight).sum::<u64>();
        for mark in marks.iter().skip(count) {
            if left <= self.limits.weight - weight {
                break;
            }
            left -= mark.weight;
            count += 1;
        }
        count
    }

    /// Displaces the oldest item.
    pub(super) fn take_one(&mut self) -> Option<T> {
        if let Some(mark) = self.marks.as_mut().and_then(VecDeque::pop_front) {
            self.weight -= mark.weight;
        }
        self.items.pop_front()
    }

    /// Displaces so many of the oldest items.
    pub(super) fn take(&mut self, count: usize) -> Vec<T> {
        if let Some(marks) = &mut self.marks {
            self.weight -= marks.drain(..count).map(|mark| mark.weight).sum::<u64>();
        }
        self.items.drain(..count).collect()
    }
}
