//! How items leave, singly or with their key: second steps, which call no user code.

use core::borrow::Borrow;

use super::item_meta::RemovedMeta;
use super::{Core, Marked};
use crate::map::item_buf::ItemBuf;
use crate::map::items::Items;
use crate::map::keys::Record;
use crate::map::outcome::Expired;

type KeysWithItems<K, V, Id> = Vec<(K, Items<V, Id>)>;

impl<K, V, Id> Core<K, V, Id> {
    /// Takes the peak before the number falls, so that a push need not.
    #[inline]
    pub(in crate::map) fn count_out(&mut self, items: usize) {
        self.counts.peak_items = self.counts.peak_items.max(self.items);
        self.items -= items;
    }

    /// Removes one item with its metadata. The key stays, perhaps with no items.
    pub(in crate::map) fn remove_item(&mut self, slot: u32, position: usize) -> (V, Option<Id>) {
        let out = self.keys.out(slot);
        let items = &mut self.keys.at_mut(slot).items;
        let value = if position == 0 { items.pop_first() } else { items.remove(position) };
        let Some(value) = value else { unreachable!("only what is there is removed") };
        self.count_out(1);
        let id = match &mut self.item_meta {
            Some(item_meta) => {
                let RemovedMeta { id, weight } = item_meta.remove_at(slot, out + position);
                self.weight -= weight;
                id
            }
            None => None,
        };
        (value, id)
    }

    /// Removes the marked items of a key. The key stays, perhaps with no items.
    pub(in crate::map) fn remove_marked(&mut self, slot: u32, marks: &[bool]) -> Items<V, Id> {
        let out = self.keys.out(slot);
        let values = self.keys.at_mut(slot).items.extract(marks, &mut self.pool);
        self.count_out(values.len());
        let ids = match &mut self.item_meta {
            Some(item_meta) => {
                let mut with_out = vec![false; out];
                with_out.extend(marks);
                let (ids, weight) = item_meta.remove_marked(slot, &with_out);
                self.weight -= weight;
                ids
            }
            None => ItemBuf::EMPTY,
        };
        Items::new(values, ids)
    }

    /// Removes a key that is not checked out, with all its items.
    #[inline]
    pub(in crate::map) fn remove_key(&mut self, slot: u32) -> (K, Items<V, Id>) {
        let record = self.keys.remove(slot);
        self.finish_removal(slot, record)
    }

    /// Ends the removal of a key that has left `keys`.
    #[inline]
    fn finish_removal(&mut self, slot: u32, record: Record<K, V>) -> (K, Items<V, Id>) {
        self.count_out(record.items.len());
        let items = match &mut self.item_meta {
            Some(item_meta) => {
                let (ids, weight) = item_meta.remove_all(slot);
                self.weight -= weight;
                Items::new(record.items, ids)
            }
            None => Items::of(record.items),
        };
        (record.key, items)
    }

    /// Removes a key without items, unless it is checked out.
    pub(in crate::map) fn remove_if_empty(&mut self, slot: u32) -> Option<K> {
        if self.keys.is_held(slot) || self.keys.at(slot).items.len() > 0 {
            return None;
        }
        let record = self.keys.remove(slot);
        self.pool.recycle(record.items);
        if let Some(item_meta) = &mut self.item_meta {
            item_meta.forget_key(slot);
        }
        Some(record.key)
    }

    #[inline]
    pub(in crate::map) fn take(&mut self, slot: u32) -> (K, Items<V, Id>) {
        let (key, items) = self.remove_key(slot);
        self.counts.taken += items.len() as u64;
        (key, items)
    }

    /// [`Self::take`] with one probe for the key; `Eq` runs before anything changes. `None` if the
    /// key is not there or is checked out.
    #[inline]
    pub(in crate::map) fn find_and_take<Q>(
        &mut self,
        hash: u64,
        key: &Q,
    ) -> Option<(K, Items<V, Id>)>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let slot = self.keys.detach(hash, key)?;
        let record = self.keys.remove_detached(slot);
        let (key, items) = self.finish_removal(slot, record);
        self.counts.taken += items.len() as u64;
        Some((key, items))
    }

    /// `key` comes from [`Self::key_to_hand_back`].
    pub(in crate::map) fn remove_by_id(
        &mut self,
        meta: u32,
        key: Option<K>,
    ) -> Option<Expired<K, V, Id>> {
        self.counts.removed += 1;
        self.remove_with_key(meta, key)
    }

    /// `keys` comes from [`Self::keys_to_hand_back`].
    pub(in crate::map) fn expire(&mut self, keys: Vec<(u32, Option<K>)>) -> Vec<Expired<K, V, Id>> {
        self.counts.expired += keys.len() as u64;
        let mut expired = Vec::with_capacity(keys.len());
        for (meta, key) in keys {
            expired.extend(self.remove_with_key(meta, key));
        }
        expired
    }

    fn remove_with_key(&mut self, meta: u32, key: Option<K>) -> Option<Expired<K, V, Id>> {
        let item_meta = self.item_meta.as_ref()?;
        let slot = item_meta.key_of(meta);
        let position = item_meta.position_of(meta) - self.keys.out(slot);
        let (value, id) = self.remove_item(slot, position);
        let key = key.or_else(|| self.remove_if_empty(slot))?;
        Some(Expired { key, value, id })
    }

    /// Removes the marked items, and their key if it has no others.
    pub(in crate::map) fn take_marked(&mut self, marked: &Marked) -> (Option<K>, Items<V, Id>) {
        let items = self.remove_marked(marked.slot, &marked.marks);
        self.counts.removed += items.len() as u64;
        (self.remove_if_empty(marked.slot), items)
    }

    /// Hands over all keys that are not checked out: one by one if some are checked out, all at
    /// once otherwise. The counts go on.
    pub(in crate::map) fn clear(&mut self) -> (KeysWithItems<K, V, Id>, Option<Self>) {
        if self.keys.held() == 0 {
            let mut empty = Self::new(self.limits);
            empty.counts = self.counts;
            empty.counts.peak_items = self.counts.peak_items.max(self.items);
            (empty.pushed, empty.displaced) = (self.pushed, self.displaced);
            // The shared map hashes with a clone of it.
            empty.hasher = self.hasher.clone();
            empty.counts.taken += self.items as u64;
            return (Vec::new(), Some(core::mem::replace(self, empty)));
        }
        let slots: Vec<u32> = self.keys.order().rev().collect();
        (slots.into_iter().map(|slot| self.take(slot)).collect(), None)
    }

    /// Moves everything out, counts included, and leaves an empty core with the same limits.
    pub(in crate::map) fn take_all(&mut self) -> Self {
        core::mem::replace(self, Self::new(self.limits))
    }

    /// The keys and items of a dropped map in the order of eviction, then those pushed under keys
    /// whose checkouts were leaked. The items of a leaked checkout are leaked too.
    pub(in crate::map) fn into_entries(mut self) -> impl Iterator<Item = (K, Items<V, Id>)> {
        let order: Vec<u32> = self.keys.order().rev().chain(self.keys.held_slots()).collect();
        order.into_iter().filter_map(move |slot| {
            if !self.keys.is_held(slot) {
                return Some(self.remove_key(slot));
            }
            let present = self.keys.at(slot).items.len();
            let items = self.remove_marked(slot, &vec![true; present]);
            let key = self.keys.remove(slot).key;
            (present > 0).then_some((key, items))
        })
    }

    /// Moves the items of a key into a checkout.
    pub(in crate::map) fn check_out(&mut self, slot: u32) -> ItemBuf<V> {
        self.keys.hold(slot);
        self.move_out(slot)
    }

    /// As [`Self::check_out`] for a short while, in which the key stays in the order.
    pub(in crate::map) fn check_out_in_place(&mut self, slot: u32) -> ItemBuf<V> {
        self.keys.hold_in_place(slot);
        self.move_out(slot)
    }

    fn move_out(&mut self, slot: u32) -> ItemBuf<V> {
        self.refresh_fast_path();
        if let Some(item_meta) = &mut self.item_meta {
            item_meta.set_checked_out(slot, true);
        }
        let items = core::mem::replace(&mut self.keys.at_mut(slot).items, ItemBuf::EMPTY);
        self.keys.set_out(slot, items.len());
        items
    }

    /// Counts out the oldest item of a checkout, which has its value. Returns the id.
    pub(in crate::map) fn acknowledge(&mut self, slot: u32) -> Option<Id> {
        self.keys.set_out(slot, self.keys.out(slot) - 1);
        self.count_out(1);
        self.counts.taken += 1;
        let gone = self.item_meta.as_mut()?.remove_at(slot, 0);
        self.weight -= gone.weight;
        gone.id
    }

    /// Counts out the marked items of a checkout, which has their values. Returns the ids.
    pub(in crate::map) fn remove_checked_out(
        &mut self,
        slot: u32,
        marks: &[bool],
    ) -> ItemBuf<Option<Id>> {
        let gone = marks.iter().filter(|leaves| **leaves).count();
        self.keys.set_out(slot, marks.len() - gone);
        self.count_out(gone);
        self.counts.removed += gone as u64;
        let Some(item_meta) = &mut self.item_meta else { return ItemBuf::EMPTY };
        let mut with_in = marks.to_vec();
        with_in.resize(marks.len() + self.keys.at(slot).items.len(), false);
        let (ids, weight) = item_meta.remove_marked(slot, &with_in);
        self.weight -= weight;
        ids
    }

    /// Ends a checkout: the remaining items go back, before those pushed since. Returns the key if
    /// it has no items.
    pub(in crate::map) fn check_in(&mut self, slot: u32, mut rest: ItemBuf<V>) -> Option<K> {
        if let Some(item_meta) = &mut self.item_meta {
            item_meta.set_checked_out(slot, false);
        }
        self.keys.set_out(slot, 0);
        let record = self.keys.at_mut(slot);
        while let Some(item) = record.items.pop_first() {
            rest.push(item, &mut self.pool);
        }
        self.pool.recycle(core::mem::replace(&mut record.items, rest));
        self.keys.release(slot);
        self.refresh_fast_path();
        self.remove_if_empty(slot)
    }
}
