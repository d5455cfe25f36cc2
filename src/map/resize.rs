//! Changes of the limits, and the items for which they leave no room.

use std::collections::VecDeque;

use super::core::Core;
use super::items::{Items, NoIndex};
use super::limits::Limits;
use crate::ConfigError;

/// New limits for a [`resize`](crate::BoundedArrayMap::resize). Those that are not set stay as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use = "it changes nothing until it is passed to `resize`"]
pub struct Resize {
    max_keys: Option<usize>,
    max_items_per_key: Option<usize>,
    max_items: Option<usize>,
    max_weight: Option<u64>,
}

impl Resize {
    /// Changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The most keys at once.
    pub fn max_keys(mut self, max_keys: usize) -> Self {
        self.max_keys = Some(max_keys);
        self
    }

    /// The most items at once under each key.
    pub fn max_items_per_key(mut self, max_items_per_key: usize) -> Self {
        self.max_items_per_key = Some(max_items_per_key);
        self
    }

    /// The most items at once under all keys together. `usize::MAX` removes the limit.
    pub fn max_items(mut self, max_items: usize) -> Self {
        self.max_items = Some(max_items);
        self
    }

    /// The most that all items may weigh together. Only for a map with a
    /// [weigher](super::Builder::max_weight).
    pub fn max_weight(mut self, max_weight: u64) -> Self {
        self.max_weight = Some(max_weight);
        self
    }

    fn apply(self, old: Limits) -> Result<Limits, ConfigError> {
        if let (Some(max_weight), false) = (self.max_weight, old.weighed) {
            let expected = "chosen when the map is built, with what weighs its items";
            return Err(ConfigError::new("max_weight", max_weight, expected));
        }
        let max_items = self.max_items.unwrap_or(old.max_items);
        let limits = Limits {
            max_keys: self.max_keys.unwrap_or(old.max_keys),
            max_items_per_key: self.max_items_per_key.unwrap_or(old.max_items_per_key),
            max_items,
            max_weight: self.max_weight.unwrap_or(old.max_weight),
            fast_path: old.fast_path && max_items == usize::MAX,
            ..old
        };
        limits.check()?;
        Ok(limits)
    }
}

/// What a [`resize`](crate::BoundedArrayMap::resize) left no room for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "these items have left the map and are lost if this is dropped"]
pub struct Shrunk<K, V, Id = NoIndex> {
    /// The keys that were too many, in the order in which a full map evicts.
    pub evicted: Vec<(K, Items<V, Id>)>,
    /// The oldest items of the keys that held too many, from the least to the most recently used
    /// key, and then those of keys that are checked out. The keys are clones: they stay.
    pub displaced: Vec<(K, Items<V, Id>)>,
}

impl<K, V, Id> Shrunk<K, V, Id> {
    /// Whether there was room for everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.evicted.is_empty() && self.displaced.is_empty()
    }
}

impl<K, V, Id> Core<K, V, Id> {
    /// `keys` is where clones of keys go, those in the end not needed too; what is left in it is
    /// to be dropped after any lock.
    pub(super) fn resize(
        &mut self,
        new: Resize,
        keys: &mut VecDeque<(u32, K)>,
    ) -> Result<Shrunk<K, V, Id>, ConfigError>
    where
        K: Clone,
    {
        let limits = new.apply(self.limits)?;
        for slot in self.keys.order().rev().chain(self.keys.held_slots()) {
            if self.keys.items_of(slot) > limits.max_items_per_key {
                keys.push_back((slot, self.keys.at(slot).key.clone()));
            }
        }

        self.limits = limits;
        // What is checked out now cannot go, so that there may be too much when it is back.
        self.may_exceed = self.keys.held() > 0;
        self.refresh_fast_path();
        self.pool.set_most(limits.max_items_per_key);
        let (mut evicted, mut gone) = (Vec::new(), Vec::new());
        while let Some((slot, key, items)) = self.evict_excess() {
            gone.push(slot);
            evicted.push((key, items));
        }
        gone.sort_unstable();
        let mut displaced = Vec::new();
        for _ in 0..keys.len() {
            let Some((slot, key)) = keys.pop_front() else { break };
            let stays = gone.binary_search(&slot).is_err();
            match stays.then(|| self.displace_excess(slot)).flatten() {
                Some(items) => displaced.push((key, items)),
                None => keys.push_back((slot, key)),
            }
        }
        Ok(Shrunk { evicted, displaced })
    }
}
