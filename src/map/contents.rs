//! The state machine behind both forms of the map.
//!
//! ```text
//!              survey                     push
//!  (key, id) ---------> Survey ---------------------> Pushed
//!
//!                push                        take | evict | displace | expire | cancel | clear
//!  (not in) -----------------> resident item -------------------------------------------> (out)
//! ```
//!
//! Everything is done in two steps. The first takes `&self`, calls what the user wrote (`Hash`,
//! `Eq`, `Clone` of a key) and finds out where to go; a panic there changes nothing. The second
//! takes `&mut self`, calls nothing of the user's and drops nothing of the user's: whatever
//! leaves is returned, so that a lock around it can be released first.

use core::borrow::Borrow;
use core::hash::{BuildHasher, Hash};
use std::time::Instant;

use super::arrivals::Arrivals;
use super::builder::{FullKey, FullMap, Limits};
use super::handle::Handle;
use super::index::Index;
use super::items::{Entry, Items};
use super::outcome::{Expired, Pushed, RejectReason};
use super::recency::Recency;
use super::slab::{NONE, Slab};
use super::stats::Stats;

/// A resident key, and the list of its items.
#[derive(Debug)]
pub(super) struct KeyRecord<K> {
    pub(super) key: K,
    hash: u64,
    pub(super) oldest: u32,
    pub(super) newest: u32,
    pub(super) len: u32,
}

/// A resident item; the links are those of its key's list.
#[derive(Debug)]
pub(super) struct Node<V> {
    pub(super) value: V,
    key: u32,
    pub(super) older: u32,
    pub(super) newer: u32,
}

#[derive(Debug)]
pub(super) struct Contents<K, V, Id> {
    pub(super) limits: Limits,
    hasher: lru::DefaultHasher,
    pub(super) keys: Slab<KeyRecord<K>>,
    pub(super) items: Slab<Node<V>>,
    pub(super) recency: Recency,
    pub(super) arrivals: Arrivals,
    index: Index<Id>,
    stats: Stats,
}

/// What the first step of a push found out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Survey {
    key_hash: u64,
    key: Option<u32>,
    id_hash: u64,
    duplicate: bool,
}

impl<K, V, Id> Contents<K, V, Id> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            hasher: lru::DefaultHasher::default(),
            keys: Slab::new(),
            items: Slab::new(),
            recency: Recency::new(limits.max_keys),
            arrivals: Arrivals::new(limits.time_to_live),
            index: Index::new(),
            stats: Stats::default(),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        Stats { items: self.items.len(), keys: self.keys.len(), ..self.stats }
    }

    /// The clock, read only if it matters.
    pub(super) fn now(&self) -> Option<Instant> {
        self.limits.time_to_live.map(|_| Instant::now())
    }

    // The first steps: user code, and no change.

    pub(super) fn find<Q>(&self, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.find_hashed(self.hasher.hash_one(key), key)
    }

    fn find_hashed<Q>(&self, hash: u64, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.recency.find(hash, |slot| self.keys[slot].key.borrow() == key)
    }

    pub(super) fn find_id<Q>(&self, id: &Q) -> Option<u32>
    where
        Id: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.index.find(self.hasher.hash_one(id), id)
    }

    pub(super) fn survey(&self, key: &K) -> Survey
    where
        K: Hash + Eq,
    {
        let key_hash = self.hasher.hash_one(key);
        Survey { key_hash, key: self.find_hashed(key_hash, key), id_hash: 0, duplicate: false }
    }

    pub(super) fn survey_unique(&self, key: &K, id: &Id) -> Survey
    where
        K: Hash + Eq,
        Id: Hash + Eq,
    {
        let id_hash = self.hasher.hash_one(id);
        let duplicate = self.index.find(id_hash, id).is_some();
        Survey { id_hash, duplicate, ..self.survey(key) }
    }

    /// A key to hand back with an item that is about to leave: a clone, or `None` if the item is
    /// the last one under its key, which will then be there to be had.
    pub(super) fn key_to_hand_back(&self, item: u32) -> Option<K>
    where
        K: Clone,
    {
        let record = &self.keys[self.items[item].key];
        (record.len > 1).then(|| record.key.clone())
    }

    /// As [`Self::key_to_hand_back`], for each item that is due, up to `budget` of them.
    pub(super) fn keys_to_hand_back(&self, now: Instant, budget: usize, keys: &mut Vec<Option<K>>)
    where
        K: Clone,
    {
        for item in self.arrivals.overdue(now).take(budget) {
            let node = &self.items[item];
            // A key's items arrived in the order of its list, so that before its newest is due
            // all of its others will have left.
            let last = node.newer == NONE;
            keys.push((!last).then(|| self.keys[node.key].key.clone()));
        }
    }

    // The second steps: no user code.

    /// Returns also the key, if it was there already and the one handed in is not needed.
    pub(super) fn push(
        &mut self,
        survey: Survey,
        key: K,
        value: V,
        id: Option<Id>,
        now: Option<Instant>,
    ) -> (Pushed<K, V, Id>, Option<K>) {
        self.stats.pushed += 1;
        if let Some(reason) = self.objection(&survey) {
            self.stats.rejected += 1;
            self.stats.duplicates += u64::from(survey.duplicate);
            return (Pushed::Rejected { reason, key, value, id }, None);
        }
        let id = id.map(|id| (id, survey.id_hash));
        let (pushed, spare) = match survey.key {
            Some(slot) => {
                let displaced = self.make_room(slot);
                self.promote(slot);
                self.append(slot, value, id, now);
                let pushed = match displaced {
                    Some(Entry { value, id }) => Pushed::Displaced { value, id },
                    None => Pushed::Stored,
                };
                (pushed, Some(key))
            }
            None => {
                let hash = survey.key_hash;
                let record = KeyRecord { key, hash, oldest: NONE, newest: NONE, len: 0 };
                let slot = self.keys.insert(record);
                let pushed = match self.recency.insert(Handle { hash, slot }) {
                    Some(evicted) => self.evict(evicted),
                    None => Pushed::Stored,
                };
                self.append(slot, value, id, now);
                (pushed, None)
            }
        };
        self.stats.peak_keys = self.stats.peak_keys.max(self.keys.len());
        self.stats.peak_items = self.stats.peak_items.max(self.items.len());
        (pushed, spare)
    }

    fn objection(&self, survey: &Survey) -> Option<RejectReason> {
        if survey.duplicate {
            return Some(RejectReason::Duplicate);
        }
        match survey.key {
            Some(slot) => (self.is_full(slot) && self.limits.full_key == FullKey::RejectNew)
                .then_some(RejectReason::KeyFull),
            None => (self.keys.len() >= self.limits.max_keys
                && self.limits.full_map == FullMap::RejectNewKey)
                .then_some(RejectReason::MapFull),
        }
    }

    fn is_full(&self, slot: u32) -> bool {
        self.keys[slot].len as usize >= self.limits.max_items_per_key
    }

    fn make_room(&mut self, slot: u32) -> Option<Entry<V, Id>> {
        if !self.is_full(slot) {
            return None;
        }
        self.stats.displaced += 1;
        Some(self.remove_item(self.keys[slot].oldest))
    }

    pub(super) fn promote(&mut self, slot: u32) {
        let hash = self.keys[slot].hash;
        self.recency.promote(Handle { hash, slot });
    }

    fn append(&mut self, slot: u32, value: V, id: Option<(Id, u64)>, now: Option<Instant>) {
        let older = self.keys[slot].newest;
        let item = self.items.insert(Node { value, key: slot, older, newer: NONE });
        match older {
            NONE => self.keys[slot].oldest = item,
            older => self.items[older].newer = item,
        }
        let record = &mut self.keys[slot];
        record.newest = item;
        record.len += 1;
        self.arrivals.push(item, now);
        if let Some((id, hash)) = id {
            self.index.insert(item, hash, id);
        }
    }

    /// The one way out for an item: its key's list, the order of arrival and the index forget it
    /// together. The key stays, with no items perhaps.
    fn remove_item(&mut self, item: u32) -> Entry<V, Id> {
        let Node { value, key, older, newer } = self.items.remove(item);
        match older {
            NONE => self.keys[key].oldest = newer,
            older => self.items[older].newer = newer,
        }
        match newer {
            NONE => self.keys[key].newest = older,
            newer => self.items[newer].older = older,
        }
        self.keys[key].len -= 1;
        self.arrivals.remove(item);
        Entry { value, id: self.index.remove(item) }
    }

    fn remove_key(&mut self, slot: u32) -> (K, Items<V, Id>) {
        let count = self.keys[slot].len as usize;
        let items = Items::gather(count, || self.remove_item(self.keys[slot].oldest));
        (self.remove_empty_key(slot), items)
    }

    fn remove_empty_key(&mut self, slot: u32) -> K {
        let KeyRecord { key, hash, .. } = self.keys.remove(slot);
        self.recency.remove(Handle { hash, slot });
        key
    }

    fn evict(&mut self, slot: u32) -> Pushed<K, V, Id> {
        let (key, items) = self.remove_key(slot);
        self.stats.evicted += items.len() as u64;
        self.stats.evicted_keys += 1;
        Pushed::Evicted { key, items }
    }

    pub(super) fn take(&mut self, slot: u32) -> (K, Items<V, Id>) {
        let (key, items) = self.remove_key(slot);
        self.stats.taken += items.len() as u64;
        (key, items)
    }

    /// `key` is what [`Self::key_to_hand_back`] said.
    pub(super) fn cancel(&mut self, item: u32, key: Option<K>) -> (K, Entry<V, Id>) {
        self.stats.cancelled += 1;
        self.remove_with_key(item, key)
    }

    /// `keys` is what [`Self::keys_to_hand_back`] said.
    pub(super) fn expire(&mut self, keys: Vec<Option<K>>) -> Vec<Expired<K, V, Id>> {
        self.stats.expired += keys.len() as u64;
        let mut expired = Vec::with_capacity(keys.len());
        for key in keys {
            let (key, Entry { value, id }) = self.remove_with_key(self.arrivals.oldest(), key);
            expired.push(Expired { key, value, id });
        }
        expired
    }

    fn remove_with_key(&mut self, item: u32, key: Option<K>) -> (K, Entry<V, Id>) {
        let slot = self.items[item].key;
        let entry = self.remove_item(item);
        let key = match key {
            Some(key) => key,
            None => self.remove_empty_key(slot),
        };
        (key, entry)
    }

    /// Hands over everything at once, leaving an empty map that goes on counting.
    pub(super) fn clear(&mut self) -> Self {
        let mut empty = Self::new(self.limits);
        empty.stats = self.stats;
        empty.stats.taken += self.items.len() as u64;
        core::mem::replace(self, empty)
    }
}
