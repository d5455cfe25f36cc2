//! The state machine of the map, in all its forms.
//!
//! ```text
//!              lookup                     push
//!  (key, id) ---------> Lookup ---------------------> Pushed
//!
//!               push                 take | evict | displace | expire | remove | clear
//!  (not in) ----------> resident ---------------------------------------------------> (out)
//!                         |   ^                                                         ^
//!               check_out |   | check_in                                                |
//!                         v   |                     acknowledge                         |
//!                      checked out -----------------------------------------------------'
//! ```
//!
//! Every operation has two steps. The first takes `&self`, calls user code (`Hash`, `Eq`, `Clone`
//! of a key, predicates) and finds what to change; a panic there changes nothing. The second takes
//! `&mut self` and neither calls user code nor drops user values: it returns all that leaves, so
//! that a lock around the core is released first.
//!
//! This file holds the first steps, `insert` and `remove` the second ones.

mod ids;
pub(super) mod insert;
pub(super) mod item_meta;
mod remove;

use core::borrow::Borrow;
use core::hash::{BuildHasher, Hash};
use std::time::Instant;

use crate::map::entry::Entry;
use crate::map::item_buf::BufPool;
use crate::map::keys::Keys;
use crate::map::limits::Limits;
use crate::map::stats::{Counts, MapStats};
use item_meta::ItemMeta;

use crate::base::sync::HashBuilder;
/// In the order given: what most pushes write comes first, next to the lock before it.
#[derive(Debug)]
#[repr(C)]
pub(in crate::map) struct Core<K, V, Id> {
    /// Whether a push has only the two caps to look at, both of which displace and evict, and
    /// neither of which is exceeded.
    pub(in crate::map) fast_path: bool,
    /// Whether the last `resize` may have left the map over its limits.
    pub(in crate::map) may_exceed: bool,
    pub(in crate::map) pushed: u64,
    pub(in crate::map) items: usize,
    pub(in crate::map) displaced: u64,
    pub(in crate::map) weight: u64,
    pub(in crate::map) limits: Limits,
    pub(in crate::map) hasher: HashBuilder,
    pub(in crate::map) keys: Keys<K, V>,
    pub(in crate::map) pool: BufPool<V>,
    /// `None` if items neither expire nor weigh anything nor are indexed.
    pub(in crate::map) item_meta: Option<ItemMeta<Id>>,
    /// The counts that are not above.
    pub(in crate::map) counts: Counts,
}

/// The result of the first step of a push.
#[derive(Debug, Clone, Copy)]
pub(in crate::map) struct Lookup {
    pub(in crate::map) key_hash: u64,
    pub(in crate::map) key: Option<u32>,
    pub(in crate::map) id_hash: u64,
    pub(in crate::map) duplicate: bool,
    pub(in crate::map) weight: u64,
}

impl<K, V, Id> Core<K, V, Id> {
    pub(in crate::map) fn new(limits: Limits) -> Self {
        let item_meta = limits.indexed || limits.weighed || limits.time_to_live.is_some();
        Self {
            fast_path: limits.fast_path,
            may_exceed: false,
            pushed: 0,
            items: 0,
            displaced: 0,
            weight: 0,
            limits,
            hasher: HashBuilder::default(),
            keys: Keys::new(),
            pool: BufPool::new(limits.max_items_per_key),
            item_meta: item_meta.then(|| ItemMeta::new(limits.time_to_live, limits.indexed)),
            counts: Counts::default(),
        }
    }

    pub(in crate::map) fn stats(&self) -> MapStats {
        let counted = self.counts.stats();
        MapStats {
            pushed: self.pushed,
            items: self.items,
            keys: self.keys.len(),
            weight: self.weight,
            displaced: self.displaced,
            peak_items: counted.peak_items.max(self.items),
            ..counted
        }
    }

    pub(in crate::map) fn refresh_fast_path(&mut self) {
        self.fast_path = self.limits.fast_path && self.keys.held() == 0 && !self.may_exceed;
    }

    /// Panics unless all structures agree. O(keys + items).
    #[cfg(debug_assertions)]
    pub(in crate::map) fn validate(&self) {
        self.keys.validate();
        let slots = || self.keys.order().chain(self.keys.held_slots());
        let items: usize = slots().map(|slot| self.keys.items_of(slot)).sum();
        assert_eq!(items, self.items, "items under all keys");
        if let Some(item_meta) = &self.item_meta {
            item_meta.validate();
            let same = |slot| item_meta.items_of(slot) == self.keys.items_of(slot);
            assert!(slots().all(same), "items and their metadata, by key");
            let weight: u64 = slots().map(|slot| item_meta.weight_of(slot)).sum();
            assert_eq!(weight, self.weight, "the weight of all keys");
        }
        let fast = self.limits.fast_path && self.keys.held() == 0 && !self.may_exceed;
        assert_eq!(self.fast_path, fast, "the fast path");
    }

    pub(in crate::map) fn next_expiry(&self) -> Option<Instant> {
        self.item_meta.as_ref().and_then(ItemMeta::next_expiry)
    }

    #[inline]
    pub(in crate::map) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.hasher.hash_one(key)
    }

    #[inline]
    pub(in crate::map) fn find<Q>(&self, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.keys.find(self.hash(key), key)
    }

    /// The key, unless it is checked out.
    pub(in crate::map) fn find_available<Q>(&self, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.find_available_hashed(self.hash(key), key)
    }

    pub(in crate::map) fn find_available_hashed<Q>(&self, hash: u64, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.keys.find(hash, key).filter(|slot| !self.keys.is_held(*slot))
    }

    /// Promotes a key. Returns whether it has items.
    pub(in crate::map) fn promote<Q>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.promote_hashed(self.hash(key), key)
    }

    pub(in crate::map) fn promote_hashed<Q>(&mut self, hash: u64, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let Some(slot) = self.keys.find(hash, key) else { return false };
        self.keys.promote(slot);
        self.keys.at(slot).items.len() > 0
    }

    /// The item with this id, also if it is checked out.
    pub(in crate::map) fn find_id<Q>(&self, id: &Q) -> Option<u32>
    where
        Id: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.item_meta.as_ref()?.find_id(self.hash(id), id)
    }

    /// The item with this id, unless it is checked out.
    pub(in crate::map) fn find_available_id<Q>(&self, id: &Q) -> Option<u32>
    where
        Id: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let meta = self.find_id(id)?;
        let out = self.item_meta.as_ref().is_some_and(|item_meta| item_meta.is_checked_out(meta));
        (!out).then_some(meta)
    }

    #[inline]
    pub(in crate::map) fn lookup(&self, key: &K, weight: u64) -> Lookup
    where
        K: Hash + Eq,
    {
        self.lookup_hashed(self.hash(key), key, weight)
    }

    #[inline]
    pub(in crate::map) fn lookup_hashed(&self, key_hash: u64, key: &K, weight: u64) -> Lookup
    where
        K: Eq,
    {
        let found = self.keys.find(key_hash, key);
        Lookup { key_hash, key: found, id_hash: 0, duplicate: false, weight }
    }

    pub(in crate::map) fn lookup_entry(&self, entry: &Entry<K, V, Id>, weight: u64) -> Lookup
    where
        K: Hash + Eq,
        Id: Hash + Eq,
    {
        let lookup = self.lookup(&entry.key, weight);
        let Some(id) = &entry.id else { return lookup };
        let id_hash = self.hash(id);
        let resident = self.item_meta.as_ref().and_then(|item_meta| item_meta.find_id(id_hash, id));
        Lookup { id_hash, duplicate: resident.is_some(), ..lookup }
    }

    /// A clone of an item's key, to hand back with the item; `None` if the item is the last one
    /// under its key, so that the key itself leaves too.
    pub(in crate::map) fn key_to_hand_back(&self, meta: u32) -> Option<K>
    where
        K: Clone,
    {
        let slot = self.item_meta.as_ref()?.key_of(meta);
        let stays = self.keys.is_held(slot) || self.keys.items_of(slot) > 1;
        stays.then(|| self.keys.at(slot).key.clone())
    }

    /// As [`Self::key_to_hand_back`], for each item that is due, up to `limit` of them.
    pub(in crate::map) fn keys_to_hand_back(
        &self,
        now: Instant,
        limit: usize,
        keys: &mut Vec<(u32, Option<K>)>,
    ) where
        K: Clone,
    {
        let Some(item_meta) = &self.item_meta else { return };
        for meta in item_meta.overdue(now).take(limit) {
            let slot = item_meta.key_of(meta);
            // The items of a key arrived in order, so that all others leave before its newest.
            let last = item_meta.is_newest_of_key(meta) && !self.keys.is_held(slot);
            keys.push((meta, (!last).then(|| self.keys.at(slot).key.clone())));
        }
    }

    /// Marks the items of a key that satisfy a predicate, by position; `None` if none does.
    pub(in crate::map) fn mark(
        &self,
        slot: u32,
        mut leaves: impl FnMut(&K, &V) -> bool,
    ) -> Option<Marked> {
        let record = self.keys.at(slot);
        let marks: Vec<bool> = record.items.iter().map(|item| leaves(&record.key, item)).collect();
        marks.contains(&true).then_some(Marked { slot, marks })
    }
}

/// Items to remove.
#[derive(Debug)]
pub(in crate::map) struct Marked {
    pub(in crate::map) slot: u32,
    pub(in crate::map) marks: Vec<bool>,
}

impl Marked {
    pub(in crate::map) fn all(&self) -> bool {
        !self.marks.contains(&false)
    }
}
