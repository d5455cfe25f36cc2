//! A batch between its seal and its result, and the vector that it is handed out in and comes back in.

use std::time::Instant;

use super::failure_state::FailureState;
use super::report::SealedBy;

/// A batch that is closed to further items.
pub(crate) struct Job<T, G = ()> {
    pub(crate) id: u64,
    pub(crate) lane: u32,
    pub(crate) tag: G,
    /// What is to be handed over next.
    pub(crate) items: Vec<T>,
    /// The parts of a failing batch that come after it, the last one first.
    pub(crate) parts: Vec<Vec<T>>,
    pub(crate) weight: u64,
    pub(crate) sealed_by: SealedBy,
    /// Attempts begun, the first counted.
    pub(crate) attempts: u32,
    /// Made when the first attempt has failed.
    pub(crate) failure_state: Option<Box<FailureState>>,
    pub(crate) opened_at: Instant,
    /// A number that grows with when its first item was accepted.
    pub(crate) first: u64,
}

impl<T, G> Job<T, G> {
    pub(crate) fn len(&self) -> usize {
        self.items.len() + self.parts.iter().map(Vec::len).sum::<usize>()
    }
}

/// What is handed to the handler.
pub(crate) struct Handed<T, G = ()> {
    pub(crate) tag: G,
    pub(crate) slot: usize,
    pub(crate) id: u64,
    pub(crate) attempt: u32,
    pub(crate) sealed_by: SealedBy,
    pub(crate) items: Vec<T>,
}

/// What a guard held when it was dropped.
pub(crate) struct Returned<T> {
    pub(crate) slot: usize,
    pub(crate) id: u64,
    pub(crate) items: Vec<T>,
}

/// Where a guard gives its items back.
pub(crate) trait ReturnItems<T>: Send + Sync {
    fn return_items(&self, slot: usize, id: u64, items: Vec<T>);
}

/// Emptied vectors, kept for batches to come. They have room for `most` items together, and not more.
pub(crate) struct Spares<T> {
    vectors: Vec<Vec<T>>,
    items: usize,
    most: usize,
}

impl<T> Spares<T> {
    pub(crate) fn new(most: usize) -> Self {
        Self { vectors: Vec::new(), items: 0, most }
    }

    #[inline]
    pub(crate) fn take(&mut self) -> Option<Vec<T>> {
        let vector = self.vectors.pop()?;
        self.items -= vector.capacity();
        Some(vector)
    }

    /// Keeps an empty vector, if it is worth keeping and not one too many.
    pub(crate) fn keep(&mut self, vector: Vec<T>) {
        debug_assert!(vector.is_empty(), "what is in it would be lost");
        let room = vector.capacity();
        if room > 0 && room <= self.most - self.items {
            self.items += room;
            self.vectors.push(vector);
        }
    }
}
