//! A vector that grows by a chunk at a time: no push copies what is there.

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
        let mut chunks = Chunks::new();
        assert_eq!(chunks.len(), 0);
        for value in 0..3 * CHUNK + 1 {
            chunks.push(value);
            assert_eq!(chunks.len(), value + 1);
            chunks[value / 2] += 1;
        }
        let twice = |value: usize| value + usize::from(2 * value < 3 * CHUNK) * 2;
        assert!((0..3 * CHUNK / 2).all(|value| chunks[value] == twice(value)));
        assert!((3 * CHUNK / 2 + 1..3 * CHUNK).all(|value| chunks[value] == value));
        assert!(chunks.0.iter().skip(1).all(|chunk| chunk.capacity() == CHUNK), "none was moved");
    }
}
