//! The batch that takes items.

use std::time::Instant;
use std::{iter, mem};

/// The items accepted since the last batch was closed, and when the first of them was.
pub(crate) struct OpenBatch<T> {
    items: Vec<T>,
    weight: u64,
    opened_at: Option<Instant>,
}

/// What an open batch leaves when it is closed.
pub(crate) struct Sealed<T> {
    pub(crate) items: Vec<T>,
    pub(crate) weight: u64,
    pub(crate) opened_at: Instant,
    /// A number that grows with when its first item was accepted.
    pub(crate) first: u64,
}

impl<T> OpenBatch<T> {
    pub(crate) fn new() -> Self {
        Self { items: Vec::new(), weight: 0, opened_at: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    pub(crate) fn opened_at(&self) -> Option<Instant> {
        self.opened_at
    }

    /// Whether this was the first item.
    #[inline]
    pub(crate) fn push(
        &mut self,
        item: impl FnOnce() -> T,
        weight: u64,
        clock: impl FnOnce() -> Instant,
    ) -> bool {
        let first = self.opened_at.is_none();
        if first {
            self.opened_at = Some(clock());
        }
        // Unlike `push`, which makes it elsewhere and moves it: that takes long if it is large.
        self.items.extend(iter::once_with(item));
        self.weight += weight;
        first
    }

    /// Takes everything out; nothing if there is nothing. `first` goes with it, and `next` makes the vector for the next
    /// batch, and is told how many items this one held.
    pub(crate) fn seal(
        &mut self,
        first: u64,
        next: impl FnOnce(usize) -> Vec<T>,
    ) -> Option<Sealed<T>> {
        let opened_at = self.opened_at.take()?;
        let next = next(self.items.len());
        let items = mem::replace(&mut self.items, next);
        Some(Sealed { items, weight: mem::take(&mut self.weight), opened_at, first })
    }
}
