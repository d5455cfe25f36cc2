//! How an item comes in, and what has to go for it: second steps, which call no user code.

use std::panic::{self, AssertUnwindSafe};
use std::time::Instant;

use super::builder::{FullKey, FullMap, Limits, MOST};
use super::contents::{Contents, Survey};
use super::items::Items;
use super::keys::Record;
use super::outcome::{Pushed, RejectReason, Spare, drop_quietly};
use super::tickets::Tickets;

/// An item at the door.
#[derive(Debug)]
pub(super) struct Arrival<K, V, Id> {
    pub(super) key: K,
    pub(super) value: V,
    pub(super) id: Option<Id>,
    /// When it came, if the caller says so.
    pub(super) now: Option<Instant>,
}

/// What has to leave an item's own key to let it in.
#[derive(Debug, Clone, Copy, Default)]
struct Displaced {
    items: usize,
    weight: u64,
}

/// Gives each outcome to the sink, also if the sink panics.
pub(super) fn hand_over<K, V, Id>(
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

impl<K, V, Id> Contents<K, V, Id> {
    /// The short way of a push to a key that is there already, for [plain](Self::plain) maps. To
    /// promote it is left to the caller.
    #[inline]
    pub(super) fn push_to(&mut self, slot: u32, value: V) -> Pushed<K, V, Id> {
        self.pushed += 1;
        let most = self.limits.max_items_per_key;
        match self.keys.at_mut(slot).items.push_at_most(most, value, &mut self.spares) {
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

    /// The short way of a push to a key that is not there yet, for [plain](Self::plain) maps.
    #[inline(never)]
    pub(super) fn push_first(&mut self, hash: u64, key: K, value: V) -> Pushed<K, V, Id> {
        self.pushed += 1;
        if self.keys.len() < self.limits.max_keys {
            self.keys.insert(hash, key, value);
            self.items += 1;
            self.stats.peak_keys = self.stats.peak_keys.max(self.keys.len());
            return Pushed::Stored;
        }
        let Record { key, items, .. } = self.keys.replace_least_recent(hash, key, value);
        self.count_out(items.len());
        self.count_evicted(items.len());
        self.items += 1;
        Pushed::Evicted { key, items: Items::of(items) }
    }

    /// A push that is refused if more than one thing would have to go, as is so only if the map is
    /// over its limits. If the key was there already, the one handed in goes to `spare`.
    ///
    /// Not inlined, so that the short way stays short.
    #[inline(never)]
    pub(super) fn push_one(
        &mut self,
        survey: Survey,
        arrival: Arrival<K, V, Id>,
        spare: &mut Spare<K>,
    ) -> Pushed<K, V, Id> {
        let mut pushed = None;
        spare.0 = self.push(survey, arrival, 1, &mut |outcome| {
            debug_assert!(pushed.is_none(), "one push has one outcome");
            pushed = Some(outcome);
        });
        pushed.unwrap_or(Pushed::Stored)
    }

    pub(super) fn push_many(
        &mut self,
        survey: Survey,
        arrival: Arrival<K, V, Id>,
    ) -> (Vec<Pushed<K, V, Id>>, Option<K>) {
        let mut outcomes = Vec::new();
        let spare = self.push(survey, arrival, usize::MAX, &mut |outcome| outcomes.push(outcome));
        (outcomes, spare)
    }

    /// Hands everything that the item pushes out, or the item itself, to `spill`, which is at most
    /// `most` things. Returns the key if it was there already and the one handed in is not needed.
    fn push(
        &mut self,
        survey: Survey,
        arrival: Arrival<K, V, Id>,
        most: usize,
        spill: &mut impl FnMut(Pushed<K, V, Id>),
    ) -> Option<K> {
        self.pushed += 1;
        let Arrival { key, value, id, now } = arrival;
        // The clock is read only if it matters.
        let now = now.or_else(|| self.limits.time_to_live.map(|_| Instant::now()));
        let displaced = match self.judge(&survey, most) {
            Ok(displaced) => displaced,
            Err(reason) => {
                self.stats.rejected += 1;
                self.stats.duplicates += u64::from(survey.duplicate);
                spill(Pushed::Rejected { reason, key, value, id });
                return None;
            }
        };
        if let Some(slot) = survey.key {
            // First, so that what is evicted below is not this one.
            self.keys.promote(slot);
            for _ in 0..displaced.items {
                let (value, id) = self.displace(slot);
                spill(Pushed::Displaced { value, id });
            }
        }
        while self.is_over(&survey) {
            match self.victim(survey.key) {
                Some(victim) => {
                    let (key, items) = self.evict(victim);
                    spill(Pushed::Evicted { key, items });
                }
                None => unreachable!("the judge has seen to it that there is one"),
            }
        }
        let (slot, spare) = match survey.key {
            Some(slot) => {
                self.keys.at_mut(slot).items.push(value, &mut self.spares);
                (slot, Some(key))
            }
            None => (self.keys.insert(survey.key_hash, key, value), None),
        };
        self.items += 1;
        self.weight += survey.weight;
        if let Some(tickets) = &mut self.tickets {
            tickets.issue(slot, id.map(|id| (id, survey.id_hash)), survey.weight, now);
        }
        self.rank(slot);
        self.stats.peak_keys = self.stats.peak_keys.max(self.keys.len());
        spare
    }

    /// Hands an item back that never came to be judged.
    pub(super) fn refuse(
        &mut self,
        arrival: Arrival<K, V, Id>,
        reason: RejectReason,
    ) -> Pushed<K, V, Id> {
        self.pushed += 1;
        self.stats.rejected += 1;
        let Arrival { key, value, id, .. } = arrival;
        Pushed::Rejected { reason, key, value, id }
    }

    /// Whether the item may come in, with at most `most` items of its own key or other keys gone
    /// for it, and if so, how many must leave its own key. Whole keys leave as long as the map
    /// [is over](Self::is_over) its limits.
    #[inline]
    fn judge(&self, survey: &Survey, most: usize) -> Result<Displaced, RejectReason> {
        if survey.duplicate {
            return Err(RejectReason::Duplicate);
        }
        if survey.weight > self.limits.max_weight {
            return Err(RejectReason::TooHeavy);
        }
        let displaced = match survey.key {
            Some(slot) => self.to_displace(slot, survey.weight)?,
            None => Displaced::default(),
        };
        if displaced.items > most {
            return Err(RejectReason::KeyFull);
        }
        let items = self.items - displaced.items;
        let weight = self.weight - displaced.weight;
        if self.exceeds(survey, self.keys.len(), items, weight)
            && (self.limits.full_map == FullMap::RejectNewKey
                || ((self.keys.held() > 0 || most < usize::MAX)
                    && !self.can_evict(survey, items, weight, most - displaced.items)))
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
        let weights = self.tickets.iter().flat_map(|tickets| tickets.weights_of(slot));
        let mut weights = weights.skip(self.keys.out(slot));
        let present = self.keys.at(slot).items.len();
        while !fits(gone) {
            // What is checked out cannot leave.
            if self.limits.full_key == FullKey::RejectNew || gone.items == present {
                return Err(RejectReason::KeyFull);
            }
            gone.items += 1;
            gone.weight += weights.next().unwrap_or(0);
        }
        Ok(gone)
    }

    fn is_over(&self, survey: &Survey) -> bool {
        self.exceeds(survey, self.keys.len(), self.items, self.weight)
    }

    /// Whether a map of this size has no room for the item.
    #[inline]
    fn exceeds(&self, survey: &Survey, keys: usize, items: usize, weight: u64) -> bool {
        (survey.key.is_none() && keys >= self.limits.max_keys)
            // Keys that were checked out during a `resize` can together hold more than the product
            // of the caps, which the builder has checked.
            || items >= self.limits.max_items.min(MOST)
            || weight + survey.weight > self.limits.max_weight
    }

    /// Whether evicting at most so many keys that are not checked out can make room.
    fn can_evict(&self, survey: &Survey, mut items: usize, mut weight: u64, most: usize) -> bool {
        let mut keys = self.keys.len();
        // Which ones matters only to totals, where `most` bounds nothing.
        for victim in self.keys.order().filter(|slot| Some(*slot) != survey.key).take(most) {
            keys -= 1;
            items -= self.keys.at(victim).items.len();
            weight -= self.weight_of(victim);
            if !self.exceeds(survey, keys, items, weight) {
                return true;
            }
        }
        false
    }

    /// The key that goes next to make room, which is never `spared`.
    fn victim(&self, spared: Option<u32>) -> Option<u32> {
        match &self.heaviest {
            Some(heaviest) => heaviest.iter().find(|slot| Some(*slot) != spared),
            None => self.keys.order().rev().find(|slot| Some(*slot) != spared),
        }
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
        self.stats.evicted += items as u64;
        self.stats.evicted_keys += 1;
    }

    #[inline]
    fn weight_of(&self, slot: u32) -> u64 {
        self.tickets.as_ref().map_or(0, |tickets| Tickets::weight_of(tickets, slot))
    }

    /// Enters a key into the order of weights, if one is kept, as it is now.
    #[inline]
    pub(super) fn rank(&mut self, slot: u32) {
        if self.heaviest.is_some() {
            self.enter_rank(slot);
        }
    }

    fn enter_rank(&mut self, slot: u32) {
        let weight = match self.limits.weighed {
            true => self.weight_of(slot),
            false => self.keys.at(slot).items.len() as u64,
        };
        let held = self.keys.is_held(slot);
        match &mut self.heaviest {
            Some(heaviest) if held => heaviest.set_aside(slot),
            Some(heaviest) => heaviest.set(slot, weight),
            None => {}
        }
    }

    /// Moves what a shrunk cap leaves no room for out of a key, oldest first.
    pub(super) fn displace_excess(&mut self, slot: u32) -> Option<Items<V, Id>> {
        let present = self.keys.at(slot).items.len();
        let excess = self.keys.items_of(slot).saturating_sub(self.limits.max_items_per_key);
        let excess = excess.min(present);
        if excess == 0 {
            return None;
        }
        let marks: Vec<bool> = (0..present).map(|place| place < excess).collect();
        self.displaced += excess as u64;
        Some(self.remove_marked(slot, &marks))
    }

    /// The next key to go leaves for one of another shard.
    pub(super) fn make_way(&mut self) -> Option<(K, Items<V, Id>)> {
        let victim = self.victim(None)?;
        Some(self.evict(victim))
    }

    /// The next key to go leaves if there is more than there may be.
    pub(super) fn evict_excess(&mut self) -> Option<(u32, K, Items<V, Id>)> {
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
        // The two keys may now hold the double of what all may together.
        assert!(map.resize(1, MOST).unwrap().is_empty());
        map.contents.items = MOST - 1;
        assert!(map.push(1, ()).is_stored());
        assert!(matches!(
            map.push(2, ()),
            Pushed::Rejected { reason: RejectReason::MapFull, key: 2, .. }
        ));
    }
}
