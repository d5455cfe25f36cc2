//! A vector that grows by a chunk at a time: no push copies what is there.
//!
//! Kept beside `base::slab` because the entries of a keyed throttle are pushed and replaced, never
//! removed, and are many and large: a push that moves all of them would be the slowest of calls.

use core::ops::{Index, IndexMut};

const CHUNK: usize = 1024;

#[derive(Debug)]
pub(super) struct Chunks<T>(Vec<Vec<T>>);

impl<T> Chunks<T> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        match &*self.0 {
            [full @ .., last] => full.len() * CHUNK + last.len(),
            [] => 0,
        }
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.0.get(at / CHUNK)?.get(at % CHUNK)
    }

    pub(super) fn push(&mut self, value: T) {
        match self.0.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(value),
            // The first one grows, for those that stay small.
            last => {
                let mut chunk = Vec::with_capacity(if last.is_none() { 1 } else { CHUNK });
                chunk.push(value);
                self.0.push(chunk);
            }
        }
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let value = self.0.last_mut()?.pop();
        // An empty chunk is kept only if it is the first.
        if self.0.len() > 1 && self.0.last().is_some_and(Vec::is_empty) {
            self.0.pop();
        }
        value
    }
}

impl<T> Index<usize> for Chunks<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: usize) -> &T {
        &self.0[at / CHUNK][at % CHUNK]
    }
}

impl<T> IndexMut<usize> for Chunks<T> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.0[at / CHUNK][at % CHUNK]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_vector() {
        let (mut chunks, mut vector) = (Chunks::new(), Vec::new());
        for round in 0..5 {
            for value in 0..2_500 {
                chunks.push(value * round);
                vector.push(value * round);
            }
            for _ in 0..1_700 {
                assert_eq!(chunks.pop(), vector.pop());
                assert_eq!(chunks.len(), vector.len());
            }
            assert!((0..5_000).all(|at| chunks.get(at) == vector.get(at)));
        }
        while let Some(value) = vector.pop() {
            assert_eq!(chunks[vector.len()], value);
            assert_eq!(chunks.pop(), Some(value));
        }
        assert_eq!((chunks.pop(), chunks.len()), (None, 0));
    }
}
