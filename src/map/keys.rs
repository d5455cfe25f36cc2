//! Which keys there are, and in which order they were last used.
//!
//! ```text
//!             insert                 hold
//!  (not in) ----------> in the order ------> held: found, but in no order
//!                        | |  |   ^            |    |
//!                 remove | |  |   '- release --'    | remove
//!                        v |  |                     v
//!                 (not in) |  | hold_in_place    (not in)
//!                          |  v
//!                 release  '- held, and keeps its place, which the order skips
//! ```
//!
//! The table holds slots and rehashes by hashes that were computed once; so of the user's code
//! only `Eq` is called, and only by look-ups, which change nothing.

use core::borrow::Borrow;

use hashbrown::HashTable;

use super::line::Line;
use super::slab::{NONE, Slab};

/// A resident key with its items.
#[derive(Debug)]
pub(super) struct Record<K, V> {
    pub(super) key: K,
    pub(super) items: Line<V>,
    hash: u64,
    newer: u32,
    older: u32,
    /// How many items, older than all of `items`, are checked out.
    pub(super) out: u32,
    /// Whether the key is checked out, even if all its items have been acknowledged.
    pub(super) held: bool,
    /// Whether it is in no order meanwhile.
    aside: bool,
}

impl<K, V> Record<K, V> {
    /// Items that count against the cap.
    pub(super) fn len(&self) -> usize {
        self.items.len() + self.out as usize
    }
}

#[derive(Debug)]
pub(super) struct Keys<K, V> {
    records: Slab<Record<K, V>>,
    table: HashTable<u32>,
    newest: u32,
    oldest: u32,
    held: usize,
}

impl<K, V> Keys<K, V> {
    pub(super) fn new() -> Self {
        Self { records: Slab::new(), table: HashTable::new(), newest: NONE, oldest: NONE, held: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// How many keys are checked out.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    #[inline]
    pub(super) fn find<Q>(&self, hash: u64, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.table.find(hash, |slot| self.records[*slot].key.borrow() == key).copied()
    }

    #[inline]
    pub(super) fn at(&self, slot: u32) -> &Record<K, V> {
        &self.records[slot]
    }

    #[inline]
    pub(super) fn at_mut(&mut self, slot: u32) -> &mut Record<K, V> {
        &mut self.records[slot]
    }

    /// The key that was not used for longest, of which there must be one.
    pub(super) fn least_recent(&self) -> u32 {
        self.oldest
    }

    /// Adds a key, which must not be there yet, with its first item, as the most recently used.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, key: K, item: V) -> u32 {
        let items = Line::One(item);
        let (newer, older, held) = (NONE, NONE, false);
        let record = Record { key, items, hash, newer, older, out: 0, held, aside: false };
        let slot = self.records.insert(record);
        self.table.insert_unique(hash, slot, |slot| self.records[*slot].hash);
        self.link(slot);
        slot
    }

    #[inline]
    pub(super) fn remove(&mut self, slot: u32) -> Record<K, V> {
        if !self.records[slot].aside {
            self.unlink(slot);
        }
        let record = self.records.remove(slot);
        self.held -= usize::from(record.held);
        if let Ok(entry) = self.table.find_entry(record.hash, |known| *known == slot) {
            entry.remove();
        }
        record
    }

    /// Makes a key the most recently used, unless it is in no order.
    #[inline]
    pub(super) fn promote(&mut self, slot: u32) {
        if self.newest != slot && !self.records[slot].aside {
            self.unlink(slot);
            self.link(slot);
        }
    }

    pub(super) fn hold(&mut self, slot: u32) {
        self.hold_in_place(slot);
        self.unlink(slot);
        self.records[slot].aside = true;
    }

    /// A hold that is over soon, as each look at the order has to skip it.
    pub(super) fn hold_in_place(&mut self, slot: u32) {
        self.records[slot].held = true;
        self.held += 1;
    }

    /// Ends a hold. If the key had lost its place, it is the most recently used.
    pub(super) fn release(&mut self, slot: u32) {
        let record = &mut self.records[slot];
        record.held = false;
        self.held -= 1;
        if core::mem::take(&mut record.aside) {
            self.link(slot);
        }
    }

    #[inline]
    fn link(&mut self, slot: u32) {
        let older = self.newest;
        match older {
            NONE => self.oldest = slot,
            older => self.records[older].newer = slot,
        }
        let record = &mut self.records[slot];
        record.older = older;
        record.newer = NONE;
        self.newest = slot;
    }

    #[inline]
    fn unlink(&mut self, slot: u32) {
        let Record { older, newer, .. } = self.records[slot];
        match older {
            NONE => self.oldest = newer,
            older => self.records[older].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.records[newer].older = older,
        }
    }

    /// The slots of the keys that are held, in no order of use. O(1) if there are none, O(keys
    /// ever resident at once) otherwise.
    pub(super) fn held_slots(&self) -> impl Iterator<Item = u32> + '_ {
        let held = self.records.iter_from(0).filter(|(_, record)| record.held);
        held.map(|(slot, _)| slot).take(self.held)
    }

    /// The first slot from this one on whose key is not held.
    pub(super) fn free_slot_from(&self, first: u32) -> Option<u32> {
        let mut free = self.records.iter_from(first).filter(|(_, record)| !record.held);
        free.next().map(|(slot, _)| slot)
    }

    pub(super) fn order(&self) -> Order<'_, K, V> {
        let left = self.len() - self.held;
        Order { keys: self, newest: self.newest, oldest: self.oldest, left }
    }
}

/// The slots of the keys that are not held, from the most to the least recently used.
#[derive(Debug)]
pub(super) struct Order<'a, K, V> {
    keys: &'a Keys<K, V>,
    newest: u32,
    oldest: u32,
    left: usize,
}

impl<K, V> Clone for Order<'_, K, V> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<'a, K, V> Order<'a, K, V> {
    pub(super) fn keys(&self) -> &'a Keys<K, V> {
        self.keys
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }
}

impl<K, V> Iterator for Order<'_, K, V> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        loop {
            let slot = self.newest;
            let record = &self.keys.records[slot];
            self.newest = record.older;
            if !record.held {
                return Some(slot);
            }
        }
    }
}

impl<K, V> DoubleEndedIterator for Order<'_, K, V> {
    fn next_back(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        loop {
            let slot = self.oldest;
            let record = &self.keys.records[slot];
            self.oldest = record.newer;
            if !record.held {
                return Some(slot);
            }
        }
    }
}
