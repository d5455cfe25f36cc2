//! What a map knows of each item besides its value: arrival, weight, id. Kept only by maps whose
//! items expire, weigh something or are indexed.
//!
//! ```text
//!            insert            remove_at, remove_marked, remove_all
//!  (no item) -------> resident ------------------------------------> RemovedMeta
//!                       |  ^                                              ^
//!                       |  |  set_checked_out                             |
//!                       v  |                                              |
//!                    checked out -----------------------------------------'
//! ```

use core::borrow::Borrow;
use std::time::{Duration, Instant};

use super::ids::Ids;
use crate::base::list::List;
use crate::base::slab::Slab;
use crate::map::item_buf::{BufPool, ItemBuf};

#[derive(Debug)]
struct Meta {
    /// The slot of its key.
    key: u32,
    weight: u64,
    /// The arrival, if items expire.
    at: Option<Instant>,
    checked_out: bool,
}

/// The slots of one key's items, in order: first those that are checked out.
#[derive(Debug)]
struct KeyMeta {
    slots: ItemBuf<u32>,
    weight: u64,
}

impl KeyMeta {
    const EMPTY: Self = Self { slots: ItemBuf::EMPTY, weight: 0 };
}

/// What an item that leaves had besides its value.
#[derive(Debug)]
pub(in crate::map) struct RemovedMeta<Id> {
    pub(in crate::map) id: Option<Id>,
    pub(in crate::map) weight: u64,
}

/// Everything but the values, by the slot of each item here (`meta`) and of its key (`key`).
#[derive(Debug)]
pub(in crate::map) struct ItemMeta<Id> {
    time_to_live: Option<Duration>,
    metas: Slab<Meta>,
    by_key: Vec<KeyMeta>,
    pool: BufPool<u32>,
    /// Oldest arrival first; empty if items do not expire.
    arrivals: List,
    ids: Ids<Id>,
    indexed: bool,
}

impl<Id> ItemMeta<Id> {
    pub(in crate::map) fn new(time_to_live: Option<Duration>, indexed: bool) -> Self {
        Self {
            time_to_live,
            metas: Slab::new(),
            by_key: Vec::new(),
            pool: BufPool::new(usize::MAX),
            arrivals: List::new(),
            ids: Ids::new(),
            indexed,
        }
    }

    /// Adds an item, the last one under its key.
    pub(in crate::map) fn insert(
        &mut self,
        key: u32,
        id: Option<(Id, u64)>,
        weight: u64,
        now: Option<Instant>,
    ) {
        let at = self.time_to_live.and(now).map(|now| match self.arrivals.back() {
            // At least that of the newest, so that the list stays sorted if the clock goes back.
            Some(newest) => self.metas[newest].at.map_or(now, |at| at.max(now)),
            None => now,
        });
        let meta = self.metas.insert(Meta { key, weight, at, checked_out: false });
        if at.is_some() {
            self.arrivals.push_back(meta);
        }
        if self.by_key.len() <= key as usize {
            self.by_key.resize_with(key as usize + 1, || KeyMeta::EMPTY);
        }
        let key_meta = &mut self.by_key[key as usize];
        key_meta.slots.push(meta, &mut self.pool);
        key_meta.weight += weight;
        if let Some((id, hash)) = id {
            self.ids.insert(meta, hash, id);
        }
    }

    /// Removes the item at this position under a key.
    pub(in crate::map) fn remove_at(&mut self, key: u32, position: usize) -> RemovedMeta<Id> {
        let slots = &mut self.by_key[key as usize].slots;
        let meta = if position == 0 { slots.pop_first() } else { slots.remove(position) };
        match meta {
            Some(meta) => self.remove(meta),
            None => unreachable!("each item has metadata"),
        }
    }

    /// Removes the marked items of a key. Returns their ids, if there is an index, and their
    /// weight.
    pub(in crate::map) fn remove_marked(
        &mut self,
        key: u32,
        marks: &[bool],
    ) -> (ItemBuf<Option<Id>>, u64) {
        let left = self.by_key[key as usize].slots.extract(marks, &mut self.pool);
        self.remove_each(left)
    }

    /// As [`Self::remove_marked`], for all items of a key.
    pub(in crate::map) fn remove_all(&mut self, key: u32) -> (ItemBuf<Option<Id>>, u64) {
        let left = core::mem::replace(&mut self.by_key[key as usize].slots, ItemBuf::EMPTY);
        self.remove_each(left)
    }

    fn remove_each(&mut self, mut left: ItemBuf<u32>) -> (ItemBuf<Option<Id>>, u64) {
        let mut ids = ItemBuf::with_room(if self.indexed { left.len() } else { 0 });
        let mut weight = 0;
        while let Some(meta) = left.pop_first() {
            let gone = self.remove(meta);
            weight += gone.weight;
            if self.indexed {
                ids.push(gone.id, &mut BufPool::new(usize::MAX));
            }
        }
        self.pool.recycle(left);
        (ids, weight)
    }

    /// Removes an item from the order of arrival, the weight of its key and the index. Every
    /// removal ends here.
    fn remove(&mut self, meta: u32) -> RemovedMeta<Id> {
        let Meta { key, weight, at, .. } = self.metas.remove(meta);
        if at.is_some() {
            self.arrivals.remove(meta);
        }
        self.by_key[key as usize].weight -= weight;
        RemovedMeta { id: self.ids.remove(meta), weight }
    }

    /// Recycles the buffer of a key that has left after all its items.
    pub(in crate::map) fn forget_key(&mut self, key: u32) {
        if let Some(key_meta) = self.by_key.get_mut(key as usize) {
            self.pool.recycle(core::mem::replace(&mut key_meta.slots, ItemBuf::EMPTY));
        }
    }

    /// Says of all items of a key whether they are checked out.
    pub(in crate::map) fn set_checked_out(&mut self, key: u32, checked_out: bool) {
        for meta in self.by_key[key as usize].slots.iter() {
            self.metas[*meta].checked_out = checked_out;
        }
    }

    pub(in crate::map) fn weight_of(&self, key: u32) -> u64 {
        self.by_key.get(key as usize).map_or(0, |key_meta| key_meta.weight)
    }

    /// The weights of a key's items, in order, those of checked-out items included.
    pub(in crate::map) fn weights_of(&self, key: u32) -> impl Iterator<Item = u64> + '_ {
        let key_meta = self.by_key.get(key as usize);
        key_meta
            .into_iter()
            .flat_map(|key_meta| key_meta.slots.iter())
            .map(|meta| self.metas[*meta].weight)
    }

    pub(in crate::map) fn find_id<Q>(&self, hash: u64, id: &Q) -> Option<u32>
    where
        Id: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.ids.find(hash, id)
    }

    pub(in crate::map) fn is_checked_out(&self, meta: u32) -> bool {
        self.metas[meta].checked_out
    }

    pub(in crate::map) fn key_of(&self, meta: u32) -> u32 {
        self.metas[meta].key
    }

    /// The position of an item under its key, checked-out items included.
    pub(in crate::map) fn position_of(&self, meta: u32) -> usize {
        let key_meta = &self.by_key[self.key_of(meta) as usize];
        match key_meta.slots.iter().position(|known| *known == meta) {
            Some(position) => position,
            None => unreachable!("an item is listed under its key"),
        }
    }

    /// Whether the item is the last one under its key.
    pub(in crate::map) fn is_newest_of_key(&self, meta: u32) -> bool {
        self.by_key[self.key_of(meta) as usize].slots.last() == Some(&meta)
    }

    /// When the oldest item is due; `None` also if no `Instant` can say it.
    pub(in crate::map) fn next_expiry(&self) -> Option<Instant> {
        let oldest = self.arrivals.iter().find(|meta| !self.is_checked_out(*meta))?;
        self.metas[oldest].at?.checked_add(self.time_to_live?)
    }

    /// The items that are due at `now`, oldest arrival first, without those that are checked out.
    pub(in crate::map) fn overdue(&self, now: Instant) -> impl Iterator<Item = u32> + '_ {
        let due = move |meta: &u32| match (self.metas[*meta].at, self.time_to_live) {
            // Subtracting cannot overflow, adding could.
            (Some(at), Some(ttl)) => now.saturating_duration_since(at) >= ttl,
            _ => false,
        };
        self.arrivals.iter().take_while(due).filter(|meta| !self.is_checked_out(*meta))
    }

    /// Panics unless the items listed by key, by arrival and by id are those in the slab.
    #[cfg(debug_assertions)]
    pub(in crate::map) fn validate(&self) {
        self.metas.validate();
        self.arrivals.validate();
        self.ids.validate();
        let mut listed = 0;
        for (key, key_meta) in (0..).zip(&self.by_key) {
            let mut weight = 0;
            for meta in key_meta.slots.iter() {
                assert_eq!(self.metas[*meta].key, key, "the key of item {meta}");
                weight += self.metas[*meta].weight;
                listed += 1;
            }
            assert_eq!(key_meta.weight, weight, "the weight of key {key}");
        }
        assert_eq!(listed, self.metas.len(), "items listed by key");
        let expiring = self.metas.iter().filter(|(_, meta)| meta.at.is_some()).count();
        assert_eq!(self.arrivals.iter().count(), expiring, "items listed by arrival");
        let arrivals = self.arrivals.iter().map(|meta| self.metas[meta].at);
        assert!(arrivals.is_sorted(), "the order of arrival");
        for meta in self.ids.slots() {
            assert!(self.metas.get(meta).is_some(), "an item with an id");
        }
    }

    /// The number of items of a key, checked-out items included.
    #[cfg(debug_assertions)]
    pub(in crate::map) fn items_of(&self, key: u32) -> usize {
        self.by_key.get(key as usize).map_or(0, |key_meta| key_meta.slots.len())
    }
}
