//! One of the two lanes: a ring of items, its limits, and the line of those who wait for room.

use std::collections::VecDeque;

use super::line::Line;

/// An item and its number: how many arrived at the queue before it, lost ones included.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) number: u64,
    pub(super) item: T,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) items: usize,
    pub(super) bytes: u64,
}

/// So that the bytes of a lane and of one item more cannot overflow.
pub(super) const MOST_BYTES: u64 = u64::MAX / 2;

/// A larger ring than this grows with what is in it.
const AT_ONCE: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct Lane<T> {
    limits: Limits,
    entries: VecDeque<Entry<T>>,
    /// The bytes of each, if they are weighed at all.
    each: Option<VecDeque<u64>>,
    bytes: u64,
    pub(super) line: Line,
}

impl<T> Lane<T> {
    pub(super) fn new(limits: Limits, weighed: bool) -> Self {
        let at_once = limits.items.min(AT_ONCE);
        Self {
            limits,
            entries: VecDeque::with_capacity(at_once),
            each: weighed.then(|| VecDeque::with_capacity(at_once)),
            bytes: 0,
            line: Line::new(),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether so large an item fits in when there is nothing else.
    pub(super) fn takes(&self, bytes: u64) -> bool {
        bytes <= self.limits.bytes
    }

    /// Whether there is room beside what is in it and what is kept for those who were called.
    fn fits(&self, bytes: u64) -> bool {
        self.len() + self.line.called() < self.limits.items
            && bytes <= self.limits.bytes - self.bytes - self.line.reserved()
    }

    pub(super) fn is_weighed(&self) -> bool {
        self.each.is_some()
    }

    /// How many items must be in it for the next not to fit in, if they are not weighed.
    pub(super) fn open_below(&self) -> usize {
        self.limits.items - self.line.called()
    }

    #[inline]
    pub(super) fn push_unweighed(&mut self, entry: Entry<T>) {
        self.entries.push_back(entry);
    }

    #[inline]
    pub(super) fn pop_unweighed(&mut self) -> Option<Entry<T>> {
        self.entries.pop_front()
    }

    /// Whether somebody who comes new may put an item in without passing anybody.
    pub(super) fn is_open_to(&self, bytes: u64) -> bool {
        self.line.waiting() == 0 && self.fits(bytes)
    }

    /// Whether the next in line can be called.
    pub(super) fn can_call(&self) -> bool {
        self.line.waiting() != 0 && self.line.next_need().is_some_and(|bytes| self.fits(bytes))
    }

    /// Whether the oldest item of this lane arrived before that of the other.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        match (self.entries.front(), other.entries.front()) {
            (Some(ours), Some(theirs)) => ours.number < theirs.number,
            (ours, _) => ours.is_some(),
        }
    }

    pub(super) fn push(&mut self, entry: Entry<T>, bytes: u64) {
        self.entries.push_back(entry);
        if let Some(each) = &mut self.each {
            each.push_back(bytes);
            self.bytes += bytes;
        }
    }

    pub(super) fn pop(&mut self) -> Option<Entry<T>> {
        let entry = self.entries.pop_front()?;
        if let Some(each) = &mut self.each {
            self.bytes -= each.pop_front().unwrap_or(0);
        }
        Some(entry)
    }

    /// How many of the oldest have to go for one more of so many bytes, at least `at_least` (of
    /// those there are).
    pub(super) fn in_the_way(&self, bytes: u64, at_least: usize) -> usize {
        let mut count = at_least.min(self.len());
        let Some(each) = &self.each else { return count };
        let mut left = self.bytes - each.iter().take(count).sum::<u64>();
        for each in each.iter().skip(count) {
            if left <= self.limits.bytes - bytes {
                break;
            }
            left -= each;
            count += 1;
        }
        count
    }

    /// Takes so many of the oldest out.
    pub(super) fn take(&mut self, count: usize) -> Vec<Entry<T>> {
        if let Some(each) = &mut self.each {
            self.bytes -= each.drain(..count).sum::<u64>();
        }
        self.entries.drain(..count).collect()
    }
}
