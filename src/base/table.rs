//! A hash table from keys to slots: the keys themselves, and their hashes, are kept in the slots.

use hashbrown::HashTable;

/// Which of `parts` a hash belongs to.
///
/// The low bits of the hashes of keys that follow each other may all be equal, in one process of forty;
/// the high bits of a product depend on all of them.
#[inline]
pub(crate) fn part_of(hash: u64, parts: usize) -> usize {
    const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
    ((u128::from(hash.wrapping_mul(GOLDEN_RATIO)) * parts as u128) >> 64) as usize
}

/// Slots by the hash of their key. A hash is computed once, when its key comes in, and is asked for
/// again when the table grows; so `Eq` is the only user code that runs here, and only in look-ups,
/// which change nothing.
#[derive(Debug)]
pub(crate) struct SlotTable {
    slots: HashTable<u32>,
}

impl SlotTable {
    pub(crate) const fn new() -> Self {
        Self { slots: HashTable::new() }
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many slots fit without growth.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is_key: impl FnMut(u32) -> bool) -> Option<u32> {
        self.slots.find(hash, |slot| is_key(*slot)).copied()
    }

    /// Adds a slot, whose key must not be in the table.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        self.slots.insert_unique(hash, slot, |slot| hash_of(*slot));
    }

    /// Finds the slot of a key and takes it out in one probe, if `may_go`.
    #[inline]
    pub(crate) fn take_if(
        &mut self,
        hash: u64,
        mut is_key: impl FnMut(u32) -> bool,
        may_go: impl FnOnce(u32) -> bool,
    ) -> Option<u32> {
        let entry = self.slots.find_entry(hash, |slot| is_key(*slot)).ok()?;
        let slot = *entry.get();
        if !may_go(slot) {
            return None;
        }
        entry.remove();
        Some(slot)
    }

    /// Takes a slot out, if it is in the table under this hash.
    #[inline]
    pub(crate) fn remove(&mut self, hash: u64, slot: u32) -> bool {
        self.take_if(hash, |known| known == slot, |_| true).is_some()
    }

    /// Panics unless the table finds each of these slots by its hash, and no others are in it.
    #[cfg(any(all(test, not(loom)), debug_assertions))]
    pub(crate) fn validate(&self, slots: impl IntoIterator<Item = (u32, u64)>) {
        let mut count = 0;
        for (slot, hash) in slots {
            assert_eq!(self.find(hash, |known| known == slot), Some(slot), "slot {slot}");
            count += 1;
        }
        assert_eq!(count, self.slots.len(), "slots in the table");
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn hashes_that_differ_in_few_bits_are_spread_over_the_parts() {
        for (shift, parts) in (0..56).flat_map(|shift| [2, 3, 16].map(|parts| (shift, parts))) {
            let mut counts = vec![0_usize; parts];
            (0..256_u64).for_each(|number| counts[part_of(number << shift, parts)] += 1);
            let (least, most) = (256 / parts / 2, 256 * 2 / parts);
            let fair = counts.iter().all(|count| (least..=most).contains(count));
            assert!(fair, "{counts:?} for bits from {shift} on");
        }
        assert_eq!((part_of(0, 1), part_of(u64::MAX, 1)), (0, 0));
    }

    #[test]
    fn equal_hashes_are_told_apart_by_their_keys() {
        let keys = ["a", "b", "c"];
        let mut table = SlotTable::new();
        (0..3).for_each(|slot| table.insert(1, slot, |_| 1));
        let find = |table: &SlotTable, key| table.find(1, |slot| keys[slot as usize] == key);
        assert_eq!((find(&table, "b"), find(&table, "d")), (Some(1), None));
        assert!(table.remove(1, 1) && !table.remove(1, 1));
        assert_eq!((find(&table, "b"), find(&table, "c")), (None, Some(2)));
        table.validate([(0, 1), (2, 1)]);
    }

    #[test]
    fn a_slot_that_may_not_go_stays() {
        let mut table = SlotTable::new();
        table.insert(9, 4, |_| 9);
        assert_eq!(table.take_if(9, |slot| slot == 4, |_| false), None);
        table.validate([(4, 9)]);
        assert_eq!(table.take_if(9, |slot| slot == 4, |_| true), Some(4));
        table.validate([]);
    }

    #[test]
    fn growth_finds_every_slot_again() {
        let hash_of = |slot: u32| u64::from(slot).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut table = SlotTable::new();
        for slot in 0..1_000 {
            table.insert(hash_of(slot), slot, hash_of);
        }
        table.validate((0..1_000).map(|slot| (slot, hash_of(slot))));
    }
}
