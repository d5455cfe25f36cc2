//! Removal by predicate. The predicates of the shared maps run without the lock:
//!
//! ```text
//!              lend                   marked by the predicate: remove_checked_out
//!  resident ----------> checked out ---------------------------------------------> (out)
//!     ^                     |
//!     '----- check_in ------'  not marked, or the predicate panicked
//! ```

use core::borrow::Borrow;
use core::hash::Hash;
use std::panic::{self, AssertUnwindSafe};

use super::bounded::BoundedArrayMap;
use super::checkout::Source;
use super::core::Core;
use super::item_buf::{BufPool, ItemBuf};
use super::items::Items;
use super::sharded::ShardedBoundedArrayMap;
use super::shared::SharedBoundedArrayMap;
use crate::base::panic::drop_quietly;

/// The items of a key, checked out while a predicate looks at them.
struct Lent<V> {
    slot: u32,
    items: ItemBuf<V>,
}

impl<V> Lent<V> {
    /// Takes the items for which `leaves` is true and checks in the rest, or all if `leaves`
    /// panics.
    fn take_matching<K, Id>(
        self,
        source: &mut impl Source<K, V, Id>,
        leaves: impl FnMut(&V) -> bool,
    ) -> Items<V, Id> {
        let Self { slot, mut items } = self;
        let ask = AssertUnwindSafe(|| items.iter().map(leaves).collect::<Vec<bool>>());
        let (marks, panicked) = match panic::catch_unwind(ask) {
            Ok(marks) => (marks, None),
            Err(panic) => (vec![false; items.len()], Some(panic)),
        };
        let gone = items.extract(&marks, &mut BufPool::new(usize::MAX));
        let (ids, key) = source.with(|core| {
            let ids = core.remove_checked_out(slot, &marks);
            (ids, core.check_in(slot, items))
        });
        drop_quietly(key);
        match panicked {
            Some(panic) => panic::resume_unwind(panic),
            None => Items::new(gone, ids),
        }
    }
}

impl<K, V, Id> Core<K, V, Id> {
    /// The predicate is asked about everything before anything is changed.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) -> Removed<K, V, Id>
    where
        K: Clone,
    {
        let order = self.keys.order().rev();
        let marked = order.filter_map(|slot| self.mark(slot, |key, item| !keep(key, item)));
        let marked: Vec<_> = marked
            .map(|marked| {
                let stays = !marked.all();
                (stays.then(|| self.keys.at(marked.slot).key.clone()), marked)
            })
            .collect();
        let mut removed = Vec::with_capacity(marked.len());
        for (key, marked) in marked {
            let (gone, items) = self.take_marked(&marked);
            if let Some(key) = key.or(gone) {
                removed.push((key, items));
            }
        }
        removed
    }

    fn lend(&mut self, slot: u32) -> Lent<V> {
        Lent { slot, items: self.check_out_in_place(slot) }
    }

    /// The key is cloned first, as that can panic.
    fn lend_with_key(&mut self, slot: u32) -> (K, Lent<V>)
    where
        K: Clone,
    {
        (self.keys.at(slot).key.clone(), self.lend(slot))
    }
}

/// One key at a time, so that all others stay available.
fn retain_all<K: Clone, V, Id>(
    mut source: impl Source<K, V, Id>,
    mut keep: impl FnMut(&K, &V) -> bool,
    mut sink: impl FnMut(K, Items<V, Id>),
) {
    let mut first = 0;
    loop {
        let lent = source.with(|core| {
            let slot = core.keys.free_slot_from(first)?;
            Some(core.lend_with_key(slot))
        });
        let Some((key, lent)) = lent else { return };
        first = lent.slot + 1;
        let gone = lent.take_matching(&mut source, |item| !keep(&key, item));
        match gone.len() {
            0 => drop_quietly(key),
            _ => sink(key, gone),
        }
    }
}

type Removed<K, V, Id> = Vec<(K, Items<V, Id>)>;

impl<K: Hash + Eq, V, Id> BoundedArrayMap<K, V, Id> {
    /// Takes the items for which `leaves` is true out from under a key and hands them over, oldest
    /// first. Uses no key. The items count as removed.
    ///
    /// # Panics
    ///
    /// If `leaves` does; the map is then as it was.
    ///
    /// O(items under the key).
    ///
    /// ```
    /// use sluicegate::BoundedArrayMap;
    ///
    /// let mut map = BoundedArrayMap::new(10, 10)?;
    /// for like in 0..6 {
    ///     assert!(map.push("post", like).is_stored());
    /// }
    /// let odd = map.remove_if("post", |like| like % 2 == 1);
    /// assert_eq!(odd.collect::<Vec<_>>(), [1, 3, 5]);
    /// assert_eq!(map.take("post").collect::<Vec<_>>(), [0, 2, 4]);
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn remove_if<Q>(&mut self, key: &Q, mut leaves: impl FnMut(&V) -> bool) -> Items<V, Id>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let marked = self.core.find(key);
        let marked = marked.and_then(|slot| self.core.mark(slot, |_, item| leaves(item)));
        let Some(marked) = marked else { return Items::none() };
        let (key, items) = self.core.take_marked(&marked);
        drop_quietly(key);
        items
    }

    /// Takes out all items for which `keep` is false and hands them over with their keys (clones
    /// of those that stay), from the least to the most recently used key. Uses no key. The items
    /// count as removed.
    ///
    /// # Panics
    ///
    /// If `keep` does; the map is then as it was.
    ///
    /// O(items in the map).
    #[must_use = "these items have left the map and are lost if this is dropped"]
    pub fn retain(&mut self, keep: impl FnMut(&K, &V) -> bool) -> Vec<(K, Items<V, Id>)>
    where
        K: Clone,
    {
        self.core.retain(keep)
    }
}

impl<K: Hash + Eq, V, Id> SharedBoundedArrayMap<K, V, Id> {
    /// Takes the items for which `leaves` is true out from under a key and hands them over, oldest
    /// first; none if the key is checked out. Uses no key. The items count as removed.
    ///
    /// `leaves` runs without the lock and may call the map. Until it has answered for all of them,
    /// the items are as if [checked out](Self::checkout), except that the key stays in the order of
    /// use: they count and their ids are resident, while [`take`](Self::take) gets
    /// none of them and a push to a full key is refused. So keep it short; and if no `take` may
    /// come away empty meanwhile, put a [`BoundedArrayMap`] into your own lock instead.
    ///
    /// # Panics
    ///
    /// If `leaves` does; the items are then in the map as before.
    ///
    /// O(items under the key).
    pub fn remove_if<Q>(&self, key: &Q, leaves: impl FnMut(&V) -> bool) -> Items<V, Id>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut source = self;
        let lent = source.with(|core| {
            let slot = core.find_available(key)?;
            Some(core.lend(slot))
        });
        lent.map_or_else(Items::none, |lent| lent.take_matching(&mut source, leaves))
    }

    /// Takes out all items for which `keep` is false, key by key, and hands them to `sink` with a
    /// clone of their key. Uses no key. The items count as removed.
    ///
    /// Asks about all that is in the map from the beginning to the end of the call, except for
    /// keys that are checked out at that moment; the keys come in no particular order. `keep` and
    /// `sink` run without the lock and may call the map. While `keep` is asked about the items of a
    /// key, these are where [`remove_if`](Self::remove_if) says; all other keys are there for
    /// everyone.
    ///
    /// # Panics
    ///
    /// If `keep`, `sink` or `Clone` of a key does. What was handed to `sink` by then has left the
    /// map, and nothing else has.
    ///
    /// O(items in the map + the most keys that were ever in it at once).
    ///
    /// ```
    /// use sluicegate::SharedBoundedArrayMap;
    ///
    /// let map = SharedBoundedArrayMap::new(10, 10)?;
    /// for like in 0..6 {
    ///     assert!(map.push(if like < 3 { "post/1" } else { "post/2" }, like).is_stored());
    /// }
    /// let mut odd = Vec::new();
    /// map.retain(|_post, like| like % 2 == 0, |_post, likes| odd.extend(likes));
    /// odd.sort();
    /// assert_eq!(odd, [1, 3, 5]);
    /// assert_eq!(map.take("post/1").collect::<Vec<_>>(), [0, 2]);
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn retain(&self, keep: impl FnMut(&K, &V) -> bool, sink: impl FnMut(K, Items<V, Id>))
    where
        K: Clone,
    {
        retain_all(self, keep, sink);
    }
}

impl<K: Hash + Eq, V> ShardedBoundedArrayMap<K, V> {
    /// As [`SharedBoundedArrayMap::remove_if`].
    ///
    /// # Panics
    ///
    /// As there.
    pub fn remove_if<Q>(&self, key: &Q, leaves: impl FnMut(&V) -> bool) -> Items<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (hash, mut source) = self.shard_with(key);
        let lent = source.with(|core| {
            let slot = core.find_available_hashed(hash, key)?;
            Some(core.lend(slot))
        });
        lent.map_or_else(Items::none, |lent| lent.take_matching(&mut source, leaves))
    }

    /// As [`SharedBoundedArrayMap::retain`], shard by shard.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn retain(&self, mut keep: impl FnMut(&K, &V) -> bool, mut sink: impl FnMut(K, Items<V>))
    where
        K: Clone,
    {
        for shard in self.iter_shards() {
            retain_all(shard, &mut keep, &mut sink);
        }
    }
}
