//! How items come in, and what leaves for them: second steps, which call no user code.

use std::time::Instant;

use super::{Core, Lookup};
use crate::map::entry::Entry;
use crate::map::items::Items;
use crate::map::keys::Record;
use crate::map::limits::{FullKey, FullMap, Limits, MOST};
use crate::map::outcome::{Pushed, RejectReason, UnusedKey};

/// What leaves a full key for the new item.
#[derive(Debug, Clone, Copy, Default)]
struct Displaced {
    items: usize,
    weight: u64,
}

impl<K, V, Id> Core<K, V, Id> {
    /// The [fast path](Self::fast_path) of a push to a resident key, which the caller promotes.
    #[inline]
    pub(in crate::map) fn fast_push(&mut self, slot: u32, value: V) -> Pushed<K, V, Id> {
        self.pushed += 1;
        let most = self.limits.max_items_per_key;
        match self.keys.at_mut(slot).items.push_at_most(most, value, &mut self.pool) {
            None => {
                self.items += 1;
                Pushed::Stored
            }
            Some(value) => {
                self.displaced += 1;
                Pushed::Displaced { value, id: None }
            }
        }
    }

    /// The [fast path](Self::fast_path) of a push to a new key.
    #[inline(never)]
    pub(in crate::map) fn fast_push_new_key(
        &mut self,
        hash: u64,
        key: K,
        value: V,
    ) -> Pushed<K, V, Id> {
        self.pushed += 1;
        if self.keys.len() < self.limits.max_keys {
            self.keys.insert(hash, key, value);
            self.items += 1;
            self.counts.peak_keys = self.counts.peak_keys.max(self.keys.len());
            return Pushed::Stored;
        }
        let Record { key, items, .. } = self.keys.replace_least_recent(hash, key, value);
        self.count_out(items.len());
        self.count_evicted(items.len());
        self.items += 1;
        Pushed::Evicted { key, items: Items::of(items) }
    }

    /// The slow path of a push. If the key is resident, the one passed goes to `unused`.
    ///
    /// Not inlined, to keep the fast path small.
    #[inline(never)]
    pub(in crate::map) fn push(
        &mut self,
        lookup: Lookup,
        entry: Entry<K, V, Id>,
        unused: &mut UnusedKey<K>,
    ) -> Pushed<K, V, Id> {
        let displaced = match self.check_limits(&lookup) {
            Ok(displaced) => displaced,
            Err(reason) => {
                self.counts.duplicates += u64::from(lookup.duplicate);
                return self.reject(entry, reason);
            }
        };
        self.pushed += 1;
        let Entry { key, value, id, now } = entry;
        // The clock is read only if it matters.
        let now = now.or_else(|| self.limits.time_to_live.map(|_| Instant::now()));
        let mut pushed = Pushed::Stored;
        if let Some(slot) = lookup.key {
            // First, so that what is evicted below is not this one.
            self.keys.promote(slot);
            for _ in 0..displaced.items {
                self.displaced += 1;
                let (value, id) = self.remove_item(slot, 0);
                pushed.add_displaced(value, id);
            }
        }
        while self.is_over(&lookup) {
            let Some(victim) = self.victim(lookup.key) else {
                unreachable!("`check_limits` found one")
            };
            let (key, items) = self.evict(victim);
            pushed.add_evicted(key, items);
        }
        let slot = match lookup.key {
            Some(slot) => {
                self.keys.at_mut(slot).items.push(value, &mut self.pool);
                unused.0 = Some(key);
                slot
            }
            None => self.keys.insert(lookup.key_hash, key, value),
        };
        self.items += 1;
        self.weight += lookup.weight;
        if let Some(item_meta) = &mut self.item_meta {
            item_meta.insert(slot, id.map(|id| (id, lookup.id_hash)), lookup.weight, now);
        }
        self.counts.peak_keys = self.counts.peak_keys.max(self.keys.len());
        pushed
    }

    /// Hands an item back without looking at the limits.
    pub(in crate::map) fn reject(
        &mut self,
        entry: Entry<K, V, Id>,
        reason: RejectReason,
    ) -> Pushed<K, V, Id> {
        self.pushed += 1;
        self.counts.rejected += 1;
        let Entry { key, value, id, .. } = entry;
        Pushed::Rejected { reason, key, value, id }
    }

    /// Whether the item may come in, and if so, what must leave its key. Other keys then leave as
    /// long as the map [is over](Self::is_over) its limits.
    #[inline]
    fn check_limits(&self, lookup: &Lookup) -> Result<Displaced, RejectReason> {
        if lookup.duplicate {
            return Err(RejectReason::Duplicate);
        }
        if lookup.weight > self.limits.max_weight {
            return Err(RejectReason::TooHeavy);
        }
        let displaced = match lookup.key {
            Some(slot) => self.to_displace(slot, lookup.weight)?,
            None => Displaced::default(),
        };
        let items = self.items - displaced.items;
        let weight = self.weight - displaced.weight;
        if self.exceeds(lookup, self.keys.len(), items, weight)
            && (self.limits.full_map == FullMap::RejectNewKey
                || (self.keys.held() > 0 && !self.can_evict(lookup, items, weight)))
        {
            return Err(RejectReason::MapFull);
        }
        Ok(displaced)
    }

    #[inline]
    fn to_displace(&self, slot: u32, weight: u64) -> Result<Displaced, RejectReason> {
        let (len, known) = (self.keys.items_of(slot), self.weight_of(slot));
        let fits = |gone: Displaced| {
            len - gone.items < self.limits.max_items_per_key
                && known - gone.weight + weight <= self.limits.max_weight
        };
        let mut gone = Displaced::default();
        if fits(gone) {
            return Ok(gone);
        }
        let weights = self.item_meta.iter().flat_map(|item_meta| item_meta.weights_of(slot));
        let mut weights = weights.skip(self.keys.out(slot));
        let present = self.keys.at(slot).items.len();
        while !fits(gone) {
            // Checked-out items cannot leave.
            if self.limits.full_key == FullKey::RejectNew || gone.items == present {
                return Err(RejectReason::KeyFull);
            }
            gone.items += 1;
            gone.weight += weights.next().unwrap_or(0);
        }
        Ok(gone)
    }

    fn is_over(&self, lookup: &Lookup) -> bool {
        self.exceeds(lookup, self.keys.len(), self.items, self.weight)
    }

    /// Whether a map of this size has no room for the item.
    #[inline]
    fn exceeds(&self, lookup: &Lookup, keys: usize, items: usize, weight: u64) -> bool {
        (lookup.key.is_none() && keys >= self.limits.max_keys)
            // Keys that were checked out during a `resize` can together hold more than the product
            // of the caps, which the builder has checked.
            || items >= self.limits.max_items.min(MOST)
            || weight + lookup.weight > self.limits.max_weight
    }

    /// Whether evicting the keys that are not checked out makes room.
    fn can_evict(&self, lookup: &Lookup, mut items: usize, mut weight: u64) -> bool {
        let mut keys = self.keys.len();
        self.keys.order().filter(|slot| Some(*slot) != lookup.key).any(|victim| {
            keys -= 1;
            items -= self.keys.at(victim).items.len();
            weight -= self.weight_of(victim);
            !self.exceeds(lookup, keys, items, weight)
        })
    }

    /// The next key to evict, which is never `except`.
    fn victim(&self, except: Option<u32>) -> Option<u32> {
        self.keys.order().rev().find(|slot| Some(*slot) != except)
    }

    #[inline]
    fn evict(&mut self, slot: u32) -> (K, Items<V, Id>) {
        let (key, items) = self.remove_key(slot);
        self.count_evicted(items.len());
        (key, items)
    }

    #[inline]
    fn count_evicted(&mut self, items: usize) {
        self.counts.evicted += items as u64;
        self.counts.evicted_keys += 1;
    }

    #[inline]
    fn weight_of(&self, slot: u32) -> u64 {
        self.item_meta.as_ref().map_or(0, |item_meta| item_meta.weight_of(slot))
    }

    /// Displaces the items of a key beyond its cap, oldest first.
    pub(in crate::map) fn displace_excess(&mut self, slot: u32) -> Option<Items<V, Id>> {
        let present = self.keys.at(slot).items.len();
        let excess = self.keys.items_of(slot).saturating_sub(self.limits.max_items_per_key);
        let excess = excess.min(present);
        if excess == 0 {
            return None;
        }
        let marks: Vec<bool> = (0..present).map(|position| position < excess).collect();
        self.displaced += excess as u64;
        Some(self.remove_marked(slot, &marks))
    }

    /// Evicts a key to make room for one of another shard.
    pub(in crate::map) fn evict_next(&mut self) -> Option<(K, Items<V, Id>)> {
        let victim = self.victim(None)?;
        Some(self.evict(victim))
    }

    /// Evicts a key if the map is over its limits.
    pub(in crate::map) fn evict_excess(&mut self) -> Option<(u32, K, Items<V, Id>)> {
        let Limits { max_keys, max_items, max_weight, .. } = self.limits;
        if self.keys.len() <= max_keys && self.items <= max_items && self.weight <= max_weight {
            return None;
        }
        let victim = self.victim(None)?;
        let (key, items) = self.evict(victim);
        Some((victim, key, items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Resize;

    #[test]
    fn items_never_outgrow_their_numbers() {
        let limits = crate::BoundedArrayMap::<u8, ()>::builder().max_keys(2);
        let mut map = limits.max_items_per_key(MOST / 2).build().unwrap();
        assert!(map.push(1, ()).is_stored());
        assert!(map.push(2, ()).is_stored());
        for key in [1, 2] {
            core::mem::forget(map.checkout(&key));
        }
        // The two keys may now hold double of what all keys together may.
        assert!(map.resize(Resize::new().max_keys(1).max_items_per_key(MOST)).unwrap().is_empty());
        map.core.items = MOST - 1;
        assert!(map.push(1, ()).is_stored());
        assert!(matches!(
            map.push(2, ()),
            Pushed::Rejected { reason: RejectReason::MapFull, key: 2, .. }
        ));
    }
}
