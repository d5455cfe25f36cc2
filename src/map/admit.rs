//! How an item comes in, and what has to go for it: second steps, which call no user code.

use std::panic::{self, AssertUnwindSafe};
use std::time::Instant;

use super::builder::{FullKey, FullMap, Limits};
use super::contents::{Contents, Survey};
use super::items::Items;
use super::outcome::{Pushed, RejectReason, drop_quietly};
use super::tickets::Tickets;

/// An item at the door.
#[derive(Debug)]
pub(super) struct Arrival<K, V, Id> {
    pub(super) key: K,
    pub(super) value: V,
    pub(super) id: Option<Id>,
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
    /// A push that is refused if more than one thing would have to go, as is so only if the map is
    /// over its limits. Returns also the key, if it was there already and the one handed in is not
    /// needed.
    #[inline]
    pub(super) fn push_one(
        &mut self,
        survey: Survey,
        arrival: Arrival<K, V, Id>,
    ) -> (Pushed<K, V, Id>, Option<K>) {
        if self.is_plain(&survey) {
            return self.push_plain(survey, arrival);
        }
        let mut pushed = None;
        let spare = self.push(survey, arrival, 1, &mut |outcome| {
            debug_assert!(pushed.is_none(), "one push has one outcome");
            pushed = Some(outcome);
        });
        (pushed.unwrap_or(Pushed::Stored), spare)
    }

    /// Whether all there is to a push are the two caps, both of which displace and evict, and
    /// neither of which is exceeded.
    #[inline]
    fn is_plain(&self, survey: &Survey) -> bool {
        self.limits.plain
            && self.keys.held() == 0
            && match survey.key {
                Some(slot) => self.keys.at(slot).items.len() <= self.limits.max_items_per_key,
                None => self.keys.len() <= self.limits.max_keys,
            }
    }

    /// What [`Self::push`] comes down to in a plain map: by far the most common one.
    #[inline]
    fn push_plain(
        &mut self,
        survey: Survey,
        arrival: Arrival<K, V, Id>,
    ) -> (Pushed<K, V, Id>, Option<K>) {
        let Arrival { key, value, .. } = arrival;
        self.stats.pushed += 1;
        let Some(slot) = survey.key else {
            let mut pushed = Pushed::Stored;
            if self.keys.len() >= self.limits.max_keys {
                let (key, items) = self.evict(self.keys.least_recent());
                pushed = Pushed::Evicted { key, items };
            }
            self.keys.insert(survey.key_hash, key, value);
            self.stats.peak_keys = self.stats.peak_keys.max(self.keys.len());
            self.count_in();
            return (pushed, None);
        };
        self.keys.promote(slot);
        let items = &mut self.keys.at_mut(slot).items;
        if items.len() < self.limits.max_items_per_key {
            items.push(value, &mut self.spares);
            self.count_in();
            return (Pushed::Stored, Some(key));
        }
        let Some(oldest) = items.replace_first(value, &mut self.spares) else {
            unreachable!("a full key has an item")
        };
        self.stats.displaced += 1;
        (Pushed::Displaced { value: oldest, id: None }, Some(key))
    }

    #[inline]
    fn count_in(&mut self) {
        self.items += 1;
        self.stats.peak_items = self.stats.peak_items.max(self.items);
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
    ///
    /// Not inlined, so that the short way stays short.
    #[inline(never)]
    fn push(
        &mut self,
        survey: Survey,
        arrival: Arrival<K, V, Id>,
        most: usize,
        spill: &mut impl FnMut(Pushed<K, V, Id>),
    ) -> Option<K> {
        self.stats.pushed += 1;
        let Arrival { key, value, id, now } = arrival;
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
        self.count_in();
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
        self.stats.pushed += 1;
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
        let (len, known) = (self.keys.at(slot).len(), self.weight_of(slot));
        let fits = |gone: Displaced| {
            len - gone.items < self.limits.max_items_per_key
                && known - gone.weight + weight <= self.limits.max_weight
        };
        let mut gone = Displaced::default();
        if fits(gone) {
            return Ok(gone);
        }
        let record = self.keys.at(slot);
        let weights = self.tickets.iter().flat_map(|tickets| tickets.weights_of(slot));
        let mut weights = weights.skip(record.out as usize);
        while !fits(gone) {
            // What is checked out cannot leave.
            if self.limits.full_key == FullKey::RejectNew || gone.items == record.items.len() {
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
            || items >= self.limits.max_items
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
        self.stats.displaced += 1;
        self.remove_item(slot, 0)
    }

    #[inline]
    fn evict(&mut self, slot: u32) -> (K, Items<V, Id>) {
        let (key, items) = self.remove_key(slot);
        self.stats.evicted += items.len() as u64;
        self.stats.evicted_keys += 1;
        (key, items)
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
        let held = self.keys.at(slot).held;
        match &mut self.heaviest {
            Some(heaviest) if held => heaviest.set_aside(slot),
            Some(heaviest) => heaviest.set(slot, weight),
            None => {}
        }
    }

    /// Moves what a shrunk cap leaves no room for out of a key, oldest first.
    pub(super) fn displace_excess(&mut self, slot: u32) -> Option<Items<V, Id>> {
        let record = self.keys.at(slot);
        let excess = record.len().saturating_sub(self.limits.max_items_per_key);
        let excess = excess.min(record.items.len());
        if excess == 0 {
            return None;
        }
        let marks: Vec<bool> = (0..record.items.len()).map(|place| place < excess).collect();
        self.stats.displaced += excess as u64;
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
