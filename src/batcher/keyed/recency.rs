//! Which lane was used least recently, at the price of one number for each use.
//!
//! A use only writes down when it was. The order is made when it is asked for: a heap holds each
//! lane with some earlier use of it, and one that comes to the top is put back by its last. What is
//! at the top by its last use is what was used least recently, as all others were used no earlier
//! than the heap says.

use core::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Debug, Default)]
pub(super) struct Recency {
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    /// Whether a slot is in the heap, for its present lane or an earlier one.
    inside: Vec<bool>,
    uses: u64,
}

impl Recency {
    /// The number of a use: greater than that of any before.
    #[inline]
    pub(super) fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// What the next use will have for a number.
    pub(super) fn coming_use(&self) -> u64 {
        self.uses + 1
    }

    /// A lane is in use from now on, and will at once have the next use.
    pub(super) fn enter(&mut self, slot: u32) {
        let used = self.coming_use();
        let place = slot as usize;
        if self.inside.len() <= place {
            self.inside.resize(place + 1, false);
        }
        if !self.inside[place] {
            self.inside[place] = true;
            self.heap.push(Reverse((used, slot)));
        }
    }

    /// The lane that was used least recently of those that are in use, for which `last_use` says when
    /// that was.
    ///
    /// Each step is paid for by a use or an end of it since the last time: O(log lanes) for that.
    pub(super) fn least(&mut self, last_use: impl Fn(u32) -> Option<u64>) -> Option<u32> {
        while let Some(Reverse((used, slot))) = self.heap.pop() {
            match last_use(slot) {
                Some(last) => {
                    self.heap.push(Reverse((last, slot)));
                    if last == used {
                        return Some(slot);
                    }
                }
                None => self.inside[slot as usize] = false,
            }
        }
        None
    }
}
