//! A heap of instants by entry: the earliest one is known, and each can be changed or removed in
//! O(log entries).

use super::chunks::Chunks;

/// How many children a node has: they lie side by side in memory, and the heap is flatter.
const CHILDREN: usize = 4;

/// Not in the heap.
const NOWHERE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Heap {
    /// An instant and its entry. None is earlier than its parent.
    nodes: Chunks<(u64, u32)>,
    /// Where each entry is.
    places: Chunks<u32>,
    /// How many nodes were looked at.
    #[cfg(test)]
    pub(super) steps: usize,
}

impl Heap {
    pub(super) const fn new() -> Self {
        Self {
            nodes: Chunks::new(),
            places: Chunks::new(),
            #[cfg(test)]
            steps: 0,
        }
    }

    /// The earliest instant, and an entry that has it.
    pub(super) fn first(&self) -> Option<(u64, u32)> {
        self.nodes.get(0).copied()
    }

    fn place(&self, entry: u32) -> Option<usize> {
        self.places.get(entry as usize).filter(|place| **place != NOWHERE).map(|at| *at as usize)
    }

    /// Entries are numbered from zero on: each number is at most one more than any before.
    pub(super) fn set(&mut self, entry: u32, instant: u64) {
        while self.places.len() <= entry as usize {
            self.places.push(NOWHERE);
        }
        let place = self.place(entry).unwrap_or_else(|| {
            self.nodes.push((instant, entry));
            self.nodes.len() - 1
        });
        self.settle(place, (instant, entry));
    }

    pub(super) fn remove(&mut self, entry: u32) -> Option<u64> {
        let place = self.place(entry)?;
        let (instant, _) = self.nodes[place];
        self.places[entry as usize] = NOWHERE;
        let last = self.nodes.pop()?;
        if place < self.nodes.len() {
            self.settle(place, last);
        }
        Some(instant)
    }

    /// Puts a node where it belongs, of those above and below a place that is vacant.
    fn settle(&mut self, mut place: usize, node: (u64, u32)) {
        while place > 0 {
            let parent = (place - 1) / CHILDREN;
            if self.nodes[parent].0 <= node.0 {
                break;
            }
            self.put(place, self.nodes[parent]);
            place = parent;
        }
        loop {
            let first = place * CHILDREN + 1;
            let children =
                (first..first + CHILDREN).filter_map(|at| Some((self.nodes.get(at)?.0, at)));
            match children.min() {
                Some((instant, child)) if instant < node.0 => {
                    self.put(place, self.nodes[child]);
                    place = child;
                }
                _ => break,
            }
        }
        self.put(place, node);
    }

    fn put(&mut self, place: usize, node: (u64, u32)) {
        #[cfg(test)]
        {
            self.steps += 1;
        }
        self.nodes[place] = node;
        self.places[node.1 as usize] = place as u32;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    impl Heap {
        fn validate(&self) {
            for place in 0..self.nodes.len() {
                let (instant, entry) = self.nodes[place];
                assert_eq!(self.place(entry), Some(place));
                assert!(place == 0 || self.nodes[(place - 1) / CHILDREN].0 <= instant);
            }
            let here = (0..self.places.len()).filter(|entry| self.places[*entry] != NOWHERE);
            assert_eq!(here.count(), self.nodes.len());
        }
    }

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
