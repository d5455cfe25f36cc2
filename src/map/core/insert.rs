//! How items come in, and what leaves for them: second steps, which call no user code.

use std::panic::{self, AssertUnwindSafe};
use std::time::Instant;

use super::{Core, Lookup};
use crate::map::items::Items;
use crate::map::keys::Record;
use crate::map::limits::{FullKey, FullMap, Limits, MOST};
use crate::map::outcome::{Pushed, RejectReason, UnusedKey, drop_quietly};

/// An item that is pushed.
#[derive(Debug)]
pub(in crate::map) struct NewItem<K, V, Id> {
    pub(in crate::map) key: K,
    pub(in crate::map) value: V,
    pub(in crate::map) id: Option<Id>,
    /// The arrival, if the caller passed one.
    pub(in crate::map) now: Option<Instant>,
}

/// What leaves a full key for the new item.
#[derive(Debug, Clone, Copy, Default)]
struct Displaced {
    items: usize,
    weight: u64,
}

/// Gives each outcome to the sink, also if the sink panics.
pub(in crate::map) fn hand_over<K, V, Id>(
    outcomes: Vec<Pushed<K, V, Id>>,
    mut sink: impl FnMut(Pushed<K, V, Id>),
) -> bool {
    let (mut stored, mut panicked) = (true, None);
    for outcome in outcomes {
        stored &= outcome.is_stored();
        let call = AssertUnwindSafe(|| sink(outcome));
        if let Err(panic) = panic::catch_unwind(call) {
            match panicked {
                None => panicked = Some(panic),
                // The rest must still be handed over.
                Some(_) => drop_quietly(panic),
            }
        }
    }
    match panicked {
        Some(panic) => panic::resume_unwind(panic),
        None => stored,
    }
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

    /// The slow path of a push that evicts or displaces at most one thing; it is rejected if more
    /// would have to leave, which is so only if the map is over its limits. If the key is resident,
    /// the one passed goes to `unused`.
    ///
    /// Not inlined, to keep the fast path small.
    #[inline(never)]
    pub(in crate::map) fn push_one(
        &mut self,
        lookup: Lookup,
        item: NewItem<K, V, Id>,
        unused: &mut UnusedKey<K>,
    ) -> Pushed<K, V, Id> {
        let mut pushed = None;
        unused.0 = self.push(lookup, item, 1, &mut |outcome| {
            debug_assert!(pushed.is_none(), "one push has one outcome");
            pushed = Some(outcome);
        });
        pushed.unwrap_or(Pushed::Stored)
    }

    pub(in crate::map) fn push_many(
        &mut self,
        lookup: Lookup,
        item: NewItem<K, V, Id>,
    ) -> (Vec<Pushed<K, V, Id>>, Option<K>) {
        let mut outcomes = Vec::new();
        let unused = self.push(lookup, item, usize::MAX, &mut |outcome| outcomes.push(outcome));
        (outcomes, unused)
    }

    /// Passes everything that the item pushes out, at most `most` things, or the item itself to
    /// `sink`. Returns the key passed if it is resident.
    fn push(
        &mut self,
        lookup: Lookup,
        item: NewItem<K, V, Id>,
        most: usize,
        sink: &mut impl FnMut(Pushed<K, V, Id>),
    ) -> Option<K> {
        self.pushed += 1;
        let NewItem { key, value, id, now } = item;
        // The clock is read only if it matters.
        let now = now.or_else(|| self.limits.time_to_live.map(|_| Instant::now()));
        let displaced = match self.check_limits(&lookup, most) {
            Ok(displaced) => displaced,
            Err(reason) => {
                self.counts.rejected += 1;
                self.counts.duplicates += u64::from(lookup.duplicate);
                sink(Pushed::Rejected { reason, key, value, id });
                return None;
            }
        };
        if let Some(slot) = lookup.key {
            // First, so that what is evicted below is not this one.
            self.keys.promote(slot);
            for _ in 0..displaced.items {
                let (value, id) = self.displace(slot);
                sink(Pushed::Displaced { value, id });
            }
        }
        while self.is_over(&lookup) {
            match self.victim(lookup.key) {
                Some(victim) => {
                    let (key, items) = self.evict(victim);
                    sink(Pushed::Evicted { key, items });
                }
                None => unreachable!("`check_limits` found one"),
            }
        }
        let (slot, unused) = match lookup.key {
            Some(slot) => {
                self.keys.at_mut(slot).items.push(value, &mut self.pool);
                (slot, Some(key))
            }
            None => (self.keys.insert(lookup.key_hash, key, value), None),
        };
        self.items += 1;
        self.weight += lookup.weight;
        if let Some(item_meta) = &mut self.item_meta {
            item_meta.insert(slot, id.map(|id| (id, lookup.id_hash)), lookup.weight, now);
        }
        self.counts.peak_keys = self.counts.peak_keys.max(self.keys.len());
        unused
    }

    /// Hands an item back without looking at the limits.
    pub(in crate::map) fn reject(
        &mut self,
        item: NewItem<K, V, Id>,
        reason: RejectReason,
    ) -> Pushed<K, V, Id> {
        self.pushed += 1;
        self.counts.rejected += 1;
        let NewItem { key, value, id, .. } = item;
        Pushed::Rejected { reason, key, value, id }
    }

    /// Whether the item may come in if at most `most` items of its key and other keys leave for it,
    /// and if so, what must leave its key. Other keys then leave as long as the map
    /// [is over](Self::is_over) its limits.
    #[inline]
    fn check_limits(&self, lookup: &Lookup, most: usize) -> Result<Displaced, RejectReason> {
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
        if displaced.items > most {
            return Err(RejectReason::KeyFull);
        }
        let items = self.items - displaced.items;
        let weight = self.weight - displaced.weight;
        if self.exceeds(lookup, self.keys.len(), items, weight)
            && (self.limits.full_map == FullMap::RejectNewKey
                || ((self.keys.held() > 0 || most < usize::MAX)
                    && !self.can_evict(lookup, items, weight, most - displaced.items)))
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

    /// Whether evicting at most `most` keys that are not checked out makes room.
    fn can_evict(&self, lookup: &Lookup, mut items: usize, mut weight: u64, most: usize) -> bool {
        let mut keys = self.keys.len();
        // Which ones matters only to totals, where `most` bounds nothing.
        for victim in self.keys.order().filter(|slot| Some(*slot) != lookup.key).take(most) {
            keys -= 1;
            items -= self.keys.at(victim).items.len();
            weight -= self.weight_of(victim);
            if !self.exceeds(lookup, keys, items, weight) {
                return true;
            }
        }
        false
    }

    /// The next key to evict, which is never `except`.
    fn victim(&self, except: Option<u32>) -> Option<u32> {
        self.keys.order().rev().find(|slot| Some(*slot) != except)
    }

    fn displace(&mut self, slot: u32) -> (V, Option<Id>) {
        self.displaced += 1;
        self.remove_item(slot, 0)
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
        assert!(map.resize(1, MOST).unwrap().is_empty());
        map.core.items = MOST - 1;
        assert!(map.push(1, ()).is_stored());
        assert!(matches!(
            map.push(2, ()),
            Pushed::Rejected { reason: RejectReason::MapFull, key: 2, .. }
        ));
    }
}
