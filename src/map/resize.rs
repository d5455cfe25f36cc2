//! Changes of the limits, and the items for which they leave no room.

use core::hash::Hash;
use std::collections::VecDeque;

use super::bounded::BoundedArrayMap;
use super::builder::Total;
use super::core::Core;
use super::items::{Items, NoIndex};
use super::limits::Limits;
use super::outcome::drop_quietly;
use crate::ConfigError;

/// What a [`resize`](BoundedArrayMap::resize) left no room for.
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
        max_keys: usize,
        max_items_per_key: usize,
        keys: &mut VecDeque<(u32, K)>,
    ) -> Result<Shrunk<K, V, Id>, ConfigError>
    where
        K: Clone,
    {
        let limits = Limits { max_keys, max_items_per_key, ..self.limits };
        limits.check()?;
        for slot in self.keys.order().rev().chain(self.keys.held_slots()) {
            if self.keys.items_of(slot) > max_items_per_key {
                keys.push_back((slot, self.keys.at(slot).key.clone()));
            }
        }

        self.limits = limits;
        // What is checked out now cannot go, so that there may be too much when it is back.
        self.may_exceed = self.keys.held() > 0;
        self.refresh_fast_path();
        self.pool.set_most(max_items_per_key);
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

    pub(super) fn resize_total_items(
        &mut self,
        max_items: usize,
    ) -> Result<Shrunk<K, V, Id>, ConfigError> {
        self.resize_totals(Limits { max_items, ..self.limits })
    }

    pub(super) fn resize_weight(
        &mut self,
        max_weight: u64,
    ) -> Result<Shrunk<K, V, Id>, ConfigError> {
        if !self.limits.weighed {
            let expected = "chosen when the map is built, with what weighs its items";
            return Err(ConfigError::new("max_weight", max_weight, expected));
        }
        self.resize_totals(Limits { max_weight, ..self.limits })
    }

    fn resize_totals(&mut self, limits: Limits) -> Result<Shrunk<K, V, Id>, ConfigError> {
        limits.check()?;
        self.limits = Limits { fast_path: false, ..limits };
        self.refresh_fast_path();
        let evicted = core::iter::from_fn(|| self.evict_excess());
        let evicted = evicted.map(|(_, key, items)| (key, items)).collect();
        Ok(Shrunk { evicted, displaced: Vec::new() })
    }
}

impl<K: Hash + Eq, V, Id, L> BoundedArrayMap<K, V, Id, L> {
    /// Changes the limits, and hands over what a smaller map leaves no room for: exactly the
    /// excess, which counts as evicted and displaced.
    ///
    /// Keys that are checked out stay, with what is checked out; they and the map are over their
    /// limits until enough has left. As long as a key or the map is so far over its limit that
    /// room for one item takes more than one thing to go, a [`push`](Self::push) is refused, while
    /// [`push_with`](Self::push_with) hands over all that has to go; and a further call of this,
    /// with the same limits say, hands over the excess that is no longer checked out.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] if a limit is not what it may be, as when the map was built. Nothing has
    /// changed then.
    ///
    /// O(keys in the map + items handed over); if some keys are checked out, O(the most keys that
    /// were ever in it at once + items handed over).
    ///
    /// ```
    /// use sluicegate::BoundedArrayMap;
    ///
    /// let mut map = BoundedArrayMap::new(2, 2)?;
    /// for (key, value) in [("a", 1), ("b", 2), ("b", 3)] {
    ///     assert!(map.push(key, value).is_stored());
    /// }
    /// let gone = map.resize(1, 1)?;
    /// assert_eq!(gone.evicted[0].0, "a");
    /// assert_eq!(gone.displaced[0].0, "b");
    /// assert_eq!(map.take("b").collect::<Vec<_>>(), [3]);
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn resize(
        &mut self,
        max_keys: usize,
        max_items_per_key: usize,
    ) -> Result<Shrunk<K, V, Id>, ConfigError>
    where
        K: Clone,
    {
        let mut keys = VecDeque::new();
        let shrunk = self.core.resize(max_keys, max_items_per_key, &mut keys);
        drop_quietly(keys);
        let shrunk = shrunk?;
        self.observer.report_shrunk(&shrunk);
        Ok(shrunk)
    }
}

impl<K, V, Id> BoundedArrayMap<K, V, Id, Total> {
    /// Changes the limit on all items together, and hands over what there is no room for any
    /// more: whole keys, as [`FullMap`](super::FullMap) says of a full map (the least recently used
    /// ones also if that refuses new keys), and no more of them than it takes. They count as
    /// evicted. To have no such limit, set `usize::MAX`.
    ///
    /// Keys that are checked out stay; of what they leave the map over its limits holds what
    /// [`resize`](Self::resize) says.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] unless `max_items` is at least `max_items_per_key`. Nothing has changed
    /// then.
    ///
    /// O(keys and items handed over).
    ///
    /// ```
    /// use sluicegate::BoundedArrayMap;
    ///
    /// let builder = BoundedArrayMap::builder().max_keys(9).max_items_per_key(2);
    /// let mut map = builder.max_items(9).build()?;
    /// for (key, value) in [("a", 1), ("b", 2), ("b", 3), ("c", 4)] {
    ///     assert!(map.push_with(key, value, |_| unreachable!("it fits")));
    /// }
    /// let gone = map.resize_total_items(2)?;
    /// let keys: Vec<_> = gone.evicted.iter().map(|(key, items)| (*key, items.len())).collect();
    /// assert_eq!(keys, [("a", 1), ("b", 2)]);
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn resize_total_items(
        &mut self,
        max_items: usize,
    ) -> Result<Shrunk<K, V, Id>, ConfigError> {
        let shrunk = self.core.resize_total_items(max_items)?;
        self.observer.report_shrunk(&shrunk);
        Ok(shrunk)
    }

    /// Changes the limit on what all items may weigh together, and hands over what is too heavy
    /// now: whole keys, as with [`resize_total_items`](Self::resize_total_items). The items keep
    /// the weight that they came in with.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] unless `max_weight` is from 1 to 9,223,372,036,854,775,807, and the map was
    /// [built](super::Builder::max_weight) with what weighs its items. Nothing has changed then.
    ///
    /// O(keys and items handed over).
    pub fn resize_weight(&mut self, max_weight: u64) -> Result<Shrunk<K, V, Id>, ConfigError> {
        let shrunk = self.core.resize_weight(max_weight)?;
        self.observer.report_shrunk(&shrunk);
        Ok(shrunk)
    }

    /// The most items at once under all keys together, if that is limited.
    #[must_use]
    pub fn max_items(&self) -> Option<usize> {
        self.core.limits.most_items()
    }

    /// The most that all items may weigh together, if they are weighed.
    #[must_use]
    pub fn max_weight(&self) -> Option<u64> {
        self.core.limits.most_weight()
    }
}
