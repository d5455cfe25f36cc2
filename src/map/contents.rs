//! The state machine behind both forms of the map.
//!
//! ```text
//!              survey                     push
//!  (key, id) ---------> Survey ---------------------> Pushed
//!
//!                push                        take | evict | displace | expire | cancel | clear
//!  (not in) -----------------> resident item -------------------------------------------> (out)
//!                                 |    ^                                                    ^
//!                        check out|    |settle                                              |
//!                                 v    |                 acknowledge                        |
//!                          item in a checkout ----------------------------------------------'
//! ```
//!
//! Everything is done in two steps. The first takes `&self`, calls what the user wrote (`Hash`,
//! `Eq`, `Clone` of a key, predicates) and finds out where to go; a panic there changes nothing.
//! The second takes `&mut self`, calls nothing of the user's and drops nothing of the user's:
//! whatever leaves is returned, so that a lock around it can be released first.
//!
//! This file holds the first steps; `admit` holds how items come in, `leave` how they go.

use core::borrow::Borrow;
use core::hash::{BuildHasher, Hash};
use std::time::Instant;

use super::builder::{FullMap, Limits};
use super::heaviest::Heaviest;
use super::keys::Keys;
use super::line::Spares;
use super::stats::MapStats;
use super::tickets::Tickets;
use crate::base::sync::HashBuilder;

/// What most pushes write comes first, as the lock does before it, and in the order given.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Contents<K, V, Id> {
    /// Whether all there is to a push are the two caps, both of which displace and evict, and
    /// neither of which is exceeded.
    pub(super) plain: bool,
    /// Whether the last change of the limits may have left more than there may be.
    pub(super) may_exceed: bool,
    pub(super) pushed: u64,
    pub(super) items: usize,
    pub(super) displaced: u64,
    pub(super) weight: u64,
    pub(super) limits: Limits,
    pub(super) hasher: HashBuilder,
    pub(super) keys: Keys<K, V>,
    pub(super) spares: Spares<V>,
    /// `None` if nothing has to be known of an item but its value.
    pub(super) tickets: Option<Tickets<Id>>,
    /// `None` unless the heaviest key is what a full map evicts.
    pub(super) heaviest: Option<Heaviest>,
    /// All that is not counted above.
    pub(super) stats: MapStats,
}

/// What the first step of a push found out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Survey {
    pub(super) key_hash: u64,
    pub(super) key: Option<u32>,
    pub(super) id_hash: u64,
    pub(super) duplicate: bool,
    pub(super) weight: u64,
}

impl<K, V, Id> Contents<K, V, Id> {
    pub(super) fn new(limits: Limits) -> Self {
        let tickets = limits.indexed || limits.weighed || limits.time_to_live.is_some();
        Self {
            plain: limits.plain,
            may_exceed: false,
            pushed: 0,
            items: 0,
            displaced: 0,
            weight: 0,
            limits,
            hasher: HashBuilder::default(),
            keys: Keys::new(),
            spares: Spares::new(limits.max_items_per_key),
            tickets: tickets.then(|| Tickets::new(limits.time_to_live, limits.indexed)),
            heaviest: (limits.full_map == FullMap::EvictHeaviest).then(Heaviest::default),
            stats: MapStats::default(),
        }
    }

    pub(super) fn stats(&self) -> MapStats {
        MapStats {
            pushed: self.pushed,
            displaced: self.displaced,
            items: self.items,
            keys: self.keys.len(),
            weight: self.weight,
            peak_items: self.stats.peak_items.max(self.items),
            ..self.stats
        }
    }

    pub(super) fn set_plain(&mut self) {
        self.plain = self.limits.plain && self.keys.held() == 0 && !self.may_exceed;
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.tickets.as_ref().and_then(Tickets::next_expiry)
    }

    #[inline]
    pub(super) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.hasher.hash_one(key)
    }

    #[inline]
    pub(super) fn find<Q>(&self, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.keys.find(self.hash(key), key)
    }

    /// The key, unless it is checked out.
    pub(super) fn find_free<Q>(&self, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.find_free_hashed(self.hash(key), key)
    }

    pub(super) fn find_free_hashed<Q>(&self, hash: u64, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.keys.find(hash, key).filter(|slot| !self.keys.is_held(*slot))
    }

    /// Uses a key, and says whether it has items.
    pub(super) fn promote<Q>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.promote_hashed(self.hash(key), key)
    }

    pub(super) fn promote_hashed<Q>(&mut self, hash: u64, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let Some(slot) = self.keys.find(hash, key) else { return false };
        self.keys.promote(slot);
        self.keys.at(slot).items.len() > 0
    }

    /// The ticket of the item with this id, also if it is checked out.
    pub(super) fn find_id<Q>(&self, id: &Q) -> Option<u32>
    where
        Id: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.tickets.as_ref()?.find_id(self.hash(id), id)
    }

    /// The ticket of the item with this id, unless it is checked out.
    pub(super) fn find_free_id<Q>(&self, id: &Q) -> Option<u32>
    where
        Id: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let ticket = self.find_id(id)?;
        let out = self.tickets.as_ref().is_some_and(|tickets| tickets.is_out(ticket));
        (!out).then_some(ticket)
    }

    #[inline]
    pub(super) fn survey(&self, key: &K, weight: u64) -> Survey
    where
        K: Hash + Eq,
    {
        self.survey_hashed(self.hash(key), key, weight)
    }

    #[inline]
    pub(super) fn survey_hashed(&self, key_hash: u64, key: &K, weight: u64) -> Survey
    where
        K: Eq,
    {
        let found = self.keys.find(key_hash, key);
        Survey { key_hash, key: found, id_hash: 0, duplicate: false, weight }
    }

    pub(super) fn survey_unique(&self, key: &K, id: &Id, weight: u64) -> Survey
    where
        K: Hash + Eq,
        Id: Hash + Eq,
    {
        let id_hash = self.hash(id);
        let resident = self.tickets.as_ref().and_then(|tickets| tickets.find_id(id_hash, id));
        Survey { id_hash, duplicate: resident.is_some(), ..self.survey(key, weight) }
    }

    /// A key to hand back with an item that is about to leave: a clone, or `None` if the item is
    /// the last one under its key, which will then be there to be had.
    pub(super) fn key_to_hand_back(&self, ticket: u32) -> Option<K>
    where
        K: Clone,
    {
        let slot = self.tickets.as_ref()?.key_of(ticket);
        let stays = self.keys.is_held(slot) || self.keys.items_of(slot) > 1;
        stays.then(|| self.keys.at(slot).key.clone())
    }

    /// As [`Self::key_to_hand_back`], for each item that is due, up to `budget` of them.
    pub(super) fn keys_to_hand_back(
        &self,
        now: Instant,
        budget: usize,
        keys: &mut Vec<(u32, Option<K>)>,
    ) where
        K: Clone,
    {
        let Some(tickets) = &self.tickets else { return };
        for ticket in tickets.overdue(now).take(budget) {
            let slot = tickets.key_of(ticket);
            // A key's items arrived in the order of its line, so that before its newest is due
            // all of its others will have left.
            let last = tickets.is_newest_of_key(ticket) && !self.keys.is_held(slot);
            keys.push((ticket, (!last).then(|| self.keys.at(slot).key.clone())));
        }
    }

    /// Which items of a key satisfy a predicate, by their place in its line; `None`: not one.
    pub(super) fn mark(&self, slot: u32, mut leaves: impl FnMut(&K, &V) -> bool) -> Option<Marked> {
        let record = self.keys.at(slot);
        let marks: Vec<bool> = record.items.iter().map(|item| leaves(&record.key, item)).collect();
        marks.contains(&true).then_some(Marked { slot, marks })
    }
}

/// Items that are to leave.
#[derive(Debug)]
pub(super) struct Marked {
    pub(super) slot: u32,
    pub(super) marks: Vec<bool>,
}

impl Marked {
    pub(super) fn all(&self) -> bool {
        !self.marks.contains(&false)
    }
}
