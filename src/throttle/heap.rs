//! A heap of instants by entry: the earliest one is known, and each can be changed or removed in
//! O(log entries).
//!
//! Kept beside `base::deadlines`, which clears out stale deadlines in one long step now and then; here
//! each step is short, and the earliest instant exact.

use super::chunks::Chunks;

/// How many children a node has: they lie side by side in memory, and the heap is flatter.
const CHILDREN: usize = 4;

/// Not in the heap.
const NOWHERE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Heap {
    /// An instant and its entry. None is earlier than its parent.
    nodes: Chunks<(u64, u32)>,
    /// The position of each entry in `nodes`.
    positions: Chunks<u32>,
    /// How many nodes were looked at.
    #[cfg(test)]
    pub(super) steps: usize,
}

impl Heap {
    pub(super) const fn new() -> Self {
        Self {
            nodes: Chunks::new(),
            positions: Chunks::new(),
            #[cfg(test)]
            steps: 0,
        }
    }

    /// The earliest instant, and an entry that has it.
    pub(super) fn first(&self) -> Option<(u64, u32)> {
        self.nodes.get(0).copied()
    }

    fn position(&self, entry: u32) -> Option<usize> {
        self.positions
            .get(entry as usize)
            .filter(|position| **position != NOWHERE)
            .map(|at| *at as usize)
    }

    #[cfg(debug_assertions)]
    pub(super) fn contains(&self, entry: u32) -> bool {
        self.position(entry).is_some()
    }

    /// Entries are numbered from zero on: each number is at most one more than any before.
    pub(super) fn set(&mut self, entry: u32, instant: u64) {
        while self.positions.len() <= entry as usize {
            self.positions.push(NOWHERE);
        }
        let position = self.position(entry).unwrap_or_else(|| {
            self.nodes.push((instant, entry));
            self.nodes.len() - 1
        });
        self.sift(position, (instant, entry));
    }

    pub(super) fn remove(&mut self, entry: u32) -> Option<u64> {
        let position = self.position(entry)?;
        let (instant, _) = self.nodes[position];
        self.positions[entry as usize] = NOWHERE;
        let last = self.nodes.pop()?;
        if position < self.nodes.len() {
            self.sift(position, last);
        }
        Some(instant)
    }

    /// Puts a node where it belongs, of those above and below a vacant position.
    fn sift(&mut self, mut position: usize, node: (u64, u32)) {
        while position > 0 {
            let parent = (position - 1) / CHILDREN;
            if self.nodes[parent].0 <= node.0 {
                break;
            }
            self.put(position, self.nodes[parent]);
            position = parent;
        }
        loop {
            let first = position * CHILDREN + 1;
            let children =
                (first..first + CHILDREN).filter_map(|at| Some((self.nodes.get(at)?.0, at)));
            match children.min() {
                Some((instant, child)) if instant < node.0 => {
                    self.put(position, self.nodes[child]);
                    position = child;
                }
                _ => break,
            }
        }
        self.put(position, node);
    }

    fn put(&mut self, position: usize, node: (u64, u32)) {
        #[cfg(test)]
        {
            self.steps += 1;
        }
        self.nodes[position] = node;
        self.positions[node.1 as usize] = position as u32;
    }

    /// Panics unless no node is earlier than its parent, and each entry's position is that of its node.
    #[cfg(any(all(test, not(loom)), debug_assertions))]
    pub(super) fn validate(&self) {
        for position in 0..self.nodes.len() {
            let (instant, entry) = self.nodes[position];
            assert_eq!(self.position(entry), Some(position));
            assert!(position == 0 || self.nodes[(position - 1) / CHILDREN].0 <= instant);
        }
        let here = (0..self.positions.len()).filter(|entry| self.positions[*entry] != NOWHERE);
        assert_eq!(here.count(), self.nodes.len());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_is_a_map_whose_earliest_instant_is_known() {
        let (mut heap, mut map, mut random) = (Heap::new(), BTreeMap::new(), 1_u64);
        for turn in 0..20_000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (entry, instant) = ((random >> 33) as u32 % (1 + turn / 10).min(300), random >> 50);
            if turn % 3 == 2 {
                assert_eq!(heap.remove(entry), map.remove(&entry));
            } else {
                heap.set(entry, instant);
                map.insert(entry, instant);
            }
            heap.validate();
            assert_eq!(heap.first().map(|(instant, _)| instant), map.values().min().copied());
            assert!(heap.first().is_none_or(|(instant, entry)| map[&entry] == instant));
        }
    }
}
