//! The keys of a map, and the order in which they were last used.
//!
//! ```text
//!             insert                 hold
//!  (not in) ----------> in the order ------> held: found, but not in the order
//!                        | |  |   ^            |    |
//!                 remove | |  |   '- release --'    | remove
//!                        v |  |                     v
//!                 (not in) |  | hold_in_place    (not in)
//!                          |  v
//!                 release  '- held, but still in the order, whose iterators skip it
//! ```

use core::borrow::Borrow;

use super::item_buf::ItemBuf;
use crate::base::list::List;
use crate::base::slab::Slab;
use crate::base::table::SlotTable;

/// A resident key with its items.
#[derive(Debug)]
pub(super) struct Record<K, V> {
    pub(super) key: K,
    pub(super) items: ItemBuf<V>,
    hash: u64,
}

#[derive(Debug)]
pub(super) struct Keys<K, V> {
    records: Slab<Record<K, V>>,
    table: SlotTable,
    /// The least recently used key first.
    order: List,
    held: usize,
    /// The number of items checked out by slot, for slots that were ever held. These items are
    /// older than all items of the record.
    out: Vec<u32>,
    /// The slots that are held and still in the order: few, and not for long.
    in_place: Vec<u32>,
}

impl<K, V> Keys<K, V> {
    pub(super) fn new() -> Self {
        Self {
            records: Slab::new(),
            table: SlotTable::new(),
            order: List::new(),
            held: 0,
            out: Vec::new(),
            in_place: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// The number of keys that are checked out.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    #[inline]
    pub(super) fn find<Q>(&self, hash: u64, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.table.find(hash, |slot| self.records[slot].key.borrow() == key)
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
        !self.order.contains(slot) || self.in_place.contains(&slot)
    }

    /// The number of a key's items that are checked out.
    pub(super) fn out(&self, slot: u32) -> usize {
        self.out.get(slot as usize).map_or(0, |out| *out as usize)
    }

    pub(super) fn set_out(&mut self, slot: u32, out: usize) {
        self.out[slot as usize] = out as u32;
    }

    /// The number of a key's items that count against its cap.
    pub(super) fn items_of(&self, slot: u32) -> usize {
        self.at(slot).items.len() + self.out(slot)
    }

    /// Adds a key, which must not be there yet, with its first item, as the most recently used.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, key: K, item: V) -> u32 {
        let slot = self.records.insert(Record { key, items: ItemBuf::One(item), hash });
        self.table.insert(hash, slot, |slot| self.records[slot].hash);
        self.order.push_back(slot);
        slot
    }

    /// Replaces the least recently used key by another, which must not be there yet, and its first
    /// item. There must be a key that is not held, and none that is held in the order.
    #[inline]
    pub(super) fn replace_least_recent(&mut self, hash: u64, key: K, item: V) -> Record<K, V> {
        let Some(slot) = self.order.front() else { unreachable!("a full map has a key to evict") };
        let new = Record { key, items: ItemBuf::One(item), hash };
        let old = core::mem::replace(&mut self.records[slot], new);
        self.table.remove(old.hash, slot);
        self.table.insert(hash, slot, |slot| self.records[slot].hash);
        self.order.move_to_back(slot);
        old
    }

    #[inline]
    pub(super) fn remove(&mut self, slot: u32) -> Record<K, V> {
        if self.order.contains(slot) {
            self.order.remove(slot);
        } else {
            self.held -= 1;
        }
        let record = self.records.remove(slot);
        self.table.remove(record.hash, slot);
        record
    }

    /// Finds a key and removes it from everything but the records, unless it is held.
    #[inline]
    pub(super) fn detach<Q>(&mut self, hash: u64, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let is_key = |slot| self.records[slot].key.borrow() == key;
        let is_free = |slot| self.order.contains(slot) && !self.in_place.contains(&slot);
        let slot = self.table.take_if(hash, is_key, is_free)?;
        self.order.remove(slot);
        Some(slot)
    }

    /// Ends what [`Self::detach`] began.
    #[inline]
    pub(super) fn remove_detached(&mut self, slot: u32) -> Record<K, V> {
        self.records.remove(slot)
    }

    /// Makes a key the most recently used, unless it is not in the order.
    #[inline]
    pub(super) fn promote(&mut self, slot: u32) {
        self.order.move_to_back(slot);
    }

    pub(super) fn hold(&mut self, slot: u32) {
        self.order.remove(slot);
        self.count_held(slot);
    }

    /// A short hold: every iterator of the order has to skip the key.
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

    /// Ends a hold. A key that was not in the order becomes the most recently used.
    pub(super) fn release(&mut self, slot: u32) {
        self.held -= 1;
        match self.in_place.iter().position(|held| *held == slot) {
            Some(at) => drop(self.in_place.swap_remove(at)),
            None => self.order.push_back(slot),
        }
    }

    /// Panics unless records, table and order agree, and all keys that are not held have items.
    #[cfg(debug_assertions)]
    pub(super) fn validate(&self) {
        self.records.validate();
        self.table.validate(self.records.iter().map(|(slot, record)| (slot, record.hash)));
        self.order.validate();
        let mut held = 0;
        for (slot, record) in self.records.iter() {
            held += usize::from(self.is_held(slot));
            assert!(self.is_held(slot) || record.items.len() > 0, "key {slot} has no items");
            assert!(self.is_held(slot) || self.out(slot) == 0, "key {slot} is not held");
        }
        assert_eq!(held, self.held, "held keys");
        let ordered = self.order.iter().count();
        assert_eq!(ordered + held - self.in_place.len(), self.len(), "keys in order or held");
        assert!(self.in_place.iter().all(|slot| self.order.contains(*slot)), "held in the order");
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
        let (newest, oldest) = (self.order.back(), self.order.front());
        Order { keys: self, newest, oldest, left: self.len() - self.held }
    }
}

/// The slots of the keys that are not held, from the most to the least recently used.
#[derive(Debug)]
pub(super) struct Order<'a, K, V> {
    keys: &'a Keys<K, V>,
    /// The next from either side.
    newest: Option<u32>,
    oldest: Option<u32>,
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
            let slot = self.newest?;
            self.newest = self.keys.order.prev(slot);
            if !self.keys.in_place.contains(&slot) {
                return Some(slot);
            }
        }
    }
}

impl<K, V> DoubleEndedIterator for Order<'_, K, V> {
    fn next_back(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        loop {
            let slot = self.oldest?;
            self.oldest = self.keys.order.next(slot);
            if !self.keys.in_place.contains(&slot) {
                return Some(slot);
            }
        }
    }
}
