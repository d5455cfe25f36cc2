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
//!
//! The order is a ring of links apart from the records: a promotion writes to four places of it,
//! which lie closely together there.

use core::borrow::Borrow;

use hashbrown::HashTable;

use super::line::Line;
use crate::base::slab::{NONE, Slab};

/// A resident key with its items.
#[derive(Debug)]
pub(super) struct Record<K, V> {
    pub(super) key: K,
    pub(super) items: Line<V>,
    hash: u64,
}

/// A place in the order of use.
#[derive(Debug, Clone, Copy)]
struct Link {
    newer: u32,
    older: u32,
}

impl Link {
    /// Of a key that is held and has lost its place.
    const OUT_OF_ORDER: Self = Self { newer: NONE, older: NONE };
}

/// The link that is newer than the newest key's and older than the oldest's, so that no link is
/// without neighbours. That of a slot is the one after the slot's number.
const ENDS: u32 = 0;

#[derive(Debug)]
pub(super) struct Keys<K, V> {
    records: Slab<Record<K, V>>,
    table: HashTable<u32>,
    links: Vec<Link>,
    held: usize,
    /// By slot, as far as keys were ever held: how many items, older than all of the record's, are
    /// checked out.
    out: Vec<u32>,
    /// The slots that are held and keep their places: few, and not for long.
    in_place: Vec<u32>,
}

impl<K, V> Keys<K, V> {
    pub(super) fn new() -> Self {
        let (records, table) = (Slab::new(), HashTable::new());
        Self { records, table, links: Vec::new(), held: 0, out: Vec::new(), in_place: Vec::new() }
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

    /// Whether the key is checked out, even if all its items have been acknowledged.
    pub(super) fn is_held(&self, slot: u32) -> bool {
        self.is_out_of_order(slot) || self.in_place.contains(&slot)
    }

    #[inline]
    fn is_out_of_order(&self, slot: u32) -> bool {
        self.links[slot as usize + 1].newer == NONE
    }

    /// How many of a key's items are checked out.
    pub(super) fn out(&self, slot: u32) -> usize {
        self.out.get(slot as usize).map_or(0, |out| *out as usize)
    }

    pub(super) fn set_out(&mut self, slot: u32, out: usize) {
        self.out[slot as usize] = out as u32;
    }

    /// How many of a key's items count against its cap.
    pub(super) fn items_of(&self, slot: u32) -> usize {
        self.at(slot).items.len() + self.out(slot)
    }

    /// The key that was not used for longest, of which there must be one that is not held.
    pub(super) fn least_recent(&self) -> u32 {
        self.links[ENDS as usize].newer - 1
    }

    /// Adds a key, which must not be there yet, with its first item, as the most recently used.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, key: K, item: V) -> u32 {
        let slot = self.records.insert(Record { key, items: Line::One(item), hash });
        self.table.insert_unique(hash, slot, |slot| self.records[*slot].hash);
        if self.links.len() < slot as usize + 2 {
            // An empty ring's ends are each other's neighbours.
            self.links.resize(slot as usize + 2, Link { newer: 0, older: 0 });
        }
        self.link(slot);
        slot
    }

    /// Puts a key, which must not be there yet, with its first item in the place of the one that
    /// was not used for longest, of which there must be one that is not held.
    #[inline]
    pub(super) fn replace_least_recent(&mut self, hash: u64, key: K, item: V) -> Record<K, V> {
        let slot = self.least_recent();
        let new = Record { key, items: Line::One(item), hash };
        let old = core::mem::replace(&mut self.records[slot], new);
        if let Ok(entry) = self.table.find_entry(old.hash, |known| *known == slot) {
            entry.remove();
        }
        self.table.insert_unique(hash, slot, |slot| self.records[*slot].hash);
        self.promote(slot);
        old
    }

    #[inline]
    pub(super) fn remove(&mut self, slot: u32) -> Record<K, V> {
        if self.is_out_of_order(slot) {
            self.held -= 1;
        } else {
            self.unlink(slot);
        }
        let hash = self.records[slot].hash;
        if let Ok(entry) = self.table.find_entry(hash, |known| *known == slot) {
            entry.remove();
        }
        self.records.remove(slot)
    }

    /// Finds a key and removes it from all but the records, unless it is held.
    #[inline]
    pub(super) fn detach<Q>(&mut self, hash: u64, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let same = |slot: &u32| self.records[*slot].key.borrow() == key;
        let entry = self.table.find_entry(hash, same).ok()?;
        let slot = *entry.get();
        if self.links[slot as usize + 1].newer == NONE || self.in_place.contains(&slot) {
            return None;
        }
        entry.remove();
        self.unlink(slot);
        Some(slot)
    }

    /// Ends what [`Self::detach`] began.
    #[inline]
    pub(super) fn remove_detached(&mut self, slot: u32) -> Record<K, V> {
        self.records.remove(slot)
    }

    /// Makes a key the most recently used, unless it has no place.
    #[inline]
    pub(super) fn promote(&mut self, slot: u32) {
        if !matches!(self.links[slot as usize + 1].newer, ENDS | NONE) {
            self.unlink(slot);
            self.link(slot);
        }
    }

    pub(super) fn hold(&mut self, slot: u32) {
        self.unlink(slot);
        self.links[slot as usize + 1] = Link::OUT_OF_ORDER;
        self.count_held(slot);
    }

    /// A hold that is over soon, as each look at the order has to skip it.
    pub(super) fn hold_in_place(&mut self, slot: u32) {
        self.in_place.push(slot);
        self.count_held(slot);
    }

    fn count_held(&mut self, slot: u32) {
        self.held += 1;
        if self.out.len() <= slot as usize {
            self.out.resize(slot as usize + 1, 0);
        }
    }

    /// Ends a hold. If the key had lost its place, it is the most recently used.
    pub(super) fn release(&mut self, slot: u32) {
        self.held -= 1;
        match self.in_place.iter().position(|held| *held == slot) {
            Some(at) => drop(self.in_place.swap_remove(at)),
            None => self.link(slot),
        }
    }

    #[inline]
    fn link(&mut self, slot: u32) {
        let link = slot + 1;
        let older = self.links[ENDS as usize].older;
        self.links[link as usize] = Link { newer: ENDS, older };
        self.links[older as usize].newer = link;
        self.links[ENDS as usize].older = link;
    }

    #[inline]
    fn unlink(&mut self, slot: u32) {
        let Link { newer, older } = self.links[slot as usize + 1];
        self.links[newer as usize].older = older;
        self.links[older as usize].newer = newer;
    }

    /// The slots of the keys that are held, in no order of use. O(1) if there are none, O(keys
    /// ever resident at once) otherwise.
    pub(super) fn held_slots(&self) -> impl Iterator<Item = u32> + '_ {
        let slots = self.records.iter_from(0).map(|(slot, _)| slot);
        slots.filter(|slot| self.is_held(*slot)).take(self.held)
    }

    /// The first slot from this one on whose key is not held.
    pub(super) fn free_slot_from(&self, first: u32) -> Option<u32> {
        let mut slots = self.records.iter_from(first).map(|(slot, _)| slot);
        slots.find(|slot| !self.is_held(*slot))
    }

    pub(super) fn order(&self) -> Order<'_, K, V> {
        let left = self.len() - self.held;
        let ends = self.links.first().copied().unwrap_or(Link::OUT_OF_ORDER);
        Order { keys: self, newest: ends.older, oldest: ends.newer, left }
    }
}

/// The slots of the keys that are not held, from the most to the least recently used.
#[derive(Debug)]
pub(super) struct Order<'a, K, V> {
    keys: &'a Keys<K, V>,
    /// The links of the next from either side.
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
            let link = self.newest;
            self.newest = self.keys.links[link as usize].older;
            if !self.keys.in_place.contains(&(link - 1)) {
                return Some(link - 1);
            }
        }
    }
}

impl<K, V> DoubleEndedIterator for Order<'_, K, V> {
    fn next_back(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        loop {
            let link = self.oldest;
            self.oldest = self.keys.links[link as usize].newer;
            if !self.keys.in_place.contains(&(link - 1)) {
                return Some(link - 1);
            }
        }
    }
}
