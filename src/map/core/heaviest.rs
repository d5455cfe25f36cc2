//! The keys in the order of what they weigh, kept only if the heaviest is to be evicted.

use core::cmp::Reverse;
use std::collections::BTreeSet;

/// Of two keys of the same weight, the one that came first counts as the heavier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    weight: u64,
    came: Reverse<u64>,
    slot: u32,
}

#[derive(Debug, Default)]
pub(in crate::map) struct Heaviest {
    order: BTreeSet<Rank>,
    /// By slot: its rank in the order, or the one that it had when it was set aside.
    ranks: Vec<Option<Rank>>,
    came: u64,
}

impl Heaviest {
    /// Enters a key, or changes what it weighs. O(log keys).
    pub(in crate::map) fn set(&mut self, slot: u32, weight: u64) {
        if self.ranks.len() <= slot as usize {
            self.ranks.resize(slot as usize + 1, None);
        }
        let came = match self.remove(slot) {
            Some(rank) => rank.came,
            None => {
                self.came += 1;
                Reverse(self.came)
            }
        };
        let rank = Rank { weight, came, slot };
        self.ranks[slot as usize] = Some(rank);
        self.order.insert(rank);
    }

    fn remove(&mut self, slot: u32) -> Option<Rank> {
        let rank = self.ranks.get_mut(slot as usize)?.take()?;
        self.order.remove(&rank);
        Some(rank)
    }

    /// Takes a key out of the order until it is entered again, as one that came when it did.
    /// O(log keys).
    pub(in crate::map) fn set_aside(&mut self, slot: u32) {
        if let Some(Some(rank)) = self.ranks.get(slot as usize) {
            self.order.remove(rank);
        }
    }

    /// O(log keys).
    pub(in crate::map) fn forget(&mut self, slot: u32) {
        self.remove(slot);
    }

    /// The slots, heaviest first.
    pub(in crate::map) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.order.iter().rev().map(|rank| rank.slot)
    }
}
