//! How many inputs a worker takes at a time.

use std::time::{Duration, Instant};

/// So many that they keep it busy for about this long: long beside the price of taking them, and
/// too short for another worker that waits for inputs to notice.
const GOAL: Duration = Duration::from_micros(40);

const MOST: usize = if cfg!(loom) { 2 } else { 64 };

/// Starts with one and finds its measure.
pub(super) struct ChunkSize {
    size: usize,
    since: Option<Instant>,
}

impl ChunkSize {
    pub(super) fn new() -> Self {
        Self { size: 1, since: None }
    }

    /// What it was the last time.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The worker needs more: what it took last has kept it busy until now.
    pub(super) fn next(&mut self, now: Instant) -> usize {
        if let Some(since) = self.since.replace(now) {
            // A model must take the same way each time, however long it takes.
            let busy = match cfg!(loom) {
                true => Duration::ZERO,
                false => now.saturating_duration_since(since),
            };
            if busy < GOAL {
                self.size = (2 * self.size).min(MOST);
            } else if busy > 2 * GOAL {
                self.size = (self.size / 2).max(1);
            }
        }
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_its_measure_both_ways() {
        let (mut chunk_size, mut now) = (ChunkSize::new(), Instant::now());
        assert_eq!(chunk_size.next(now), 1);
        for expected in [2, 4, 8, 16, 32, 64, 64] {
            now += GOAL / 4;
            assert_eq!(chunk_size.next(now), expected);
        }
        now += GOAL * 3 / 2;
        assert_eq!(chunk_size.next(now), 64);
        for expected in [32, 16, 8, 4, 2, 1, 1] {
            now += GOAL * 4;
            assert_eq!(chunk_size.next(now), expected);
        }
    }
}
