//! The map for threads that would wait for one lock.

use core::borrow::Borrow;
use core::fmt;
use core::hash::{BuildHasher, Hash};
use core::ops::Deref;
use std::panic::{self, AssertUnwindSafe, RefUnwindSafe, UnwindSafe};
use std::time::Instant;

use super::builder::Builder;
use super::core::{Core, Lookup};
use super::entry::Entry;
use super::items::Items;
use super::items::NoIndex;
use super::iter::IntoIter;
use super::limits::{FullMap, Limits, MapLimits};
use super::observer::{Event, Observer};
use super::outcome::{Expired, Pushed, RejectReason, UnusedKey, push_each};
use super::stats::MapStats;
use crate::ConfigError;
use crate::base::panic::drop_quietly;
use crate::base::sync::{AtomicUsize, HashBuilder, Mutex, MutexGuard, Ordering};
use crate::base::table::part_of;

type Shard<K, V> = Core<K, V, NoIndex>;

/// One shard of the map.
pub(super) struct ShardRef<'a, K, V> {
    map: &'a ShardedBoundedArrayMap<K, V>,
    at: usize,
}

impl<K, V> ShardRef<'_, K, V> {
    /// Does something by which keys can leave, and counts them out.
    pub(super) fn removing<R>(&self, act: impl FnOnce(&mut Shard<K, V>) -> R) -> R {
        let mut shard = self.map.shards[self.at].lock();
        let before = shard.keys.len();
        let result = act(&mut shard);
        let gone = before - shard.keys.len();
        if gone > 0 {
            self.map.keys.fetch_sub(gone, Ordering::Relaxed);
        }
        result
    }
}

/// A [`BoundedArrayMap`](super::BoundedArrayMap) in several shards with a lock each, for threads
/// that would wait too long for one.
///
/// The cap on keys is that of the whole: as long as it has room nothing is evicted, however the
/// keys are spread. Under each key all is exact. What is given up is the exact order of all keys: a
/// full map evicts the least recently used key of the new key's own
/// shard, or if that has none to evict, of the next shard that has.
///
/// When not to use it: if one lock is not what holds you up, take
/// [`SharedBoundedArrayMap`](super::SharedBoundedArrayMap), whose order of use is exact, and which
/// has an index and totals.
///
/// # What it has not
///
/// - An index by item id: whether an id is resident would have to be known to all shards at once,
///   and each item that leaves with an evicted key would need another shard's lock. If an item
///   always comes under the same key, [`remove_if`](Self::remove_if) finds it there.
/// - Totals of items or weight: a map that has reached one is at it with every push, and to find
///   out what has to go before anything goes, as a refused push changes nothing, would take all
///   locks each time.
/// - `resize`: its limits are those that it was built with.
///
/// An index is refused when the program is compiled, and a total when the map is
/// [built](super::Builder::build_sharded).
///
/// ```compile_fail
/// # use sluicegate::BoundedArrayMap;
/// let builder = BoundedArrayMap::<u8, u8>::builder().max_keys(9).max_items_per_key(9);
/// let map = builder.indexed::<u8>().build_sharded(4);
/// ```
///
/// The same builder does build the sharded form without the index, and the shared form with it:
///
/// ```
/// # use sluicegate::BoundedArrayMap;
/// let builder = BoundedArrayMap::<u8, u8>::builder().max_keys(9).max_items_per_key(9);
/// let map = builder.clone().build_sharded(4)?;
/// let indexed = builder.clone().indexed::<u8>().build_shared()?;
/// assert_eq!(builder.max_items(9).build_sharded(4).unwrap_err().field(), "max_items");
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
///
/// # Fairness and what runs under a lock
///
/// As for `SharedBoundedArrayMap`. A push of a new key to a full map takes a second lock if its own
/// shard has no key to evict, and once all locks if other threads were faster each time or all keys
/// are checked out. Locks are taken in order, so there is no deadlock, and no push is rejected
/// while a key can be evicted.
///
/// # Example
///
/// ```
/// use sluicegate::BoundedArrayMap;
///
/// let map = BoundedArrayMap::builder().max_keys(10).max_items_per_key(100).build_sharded(4)?;
/// for key in 0..10 {
///     assert!(map.push(key, "item").is_stored());
/// }
/// assert_eq!((map.len(), map.stats().evicted), (10, 0));
/// assert_eq!(map.take(&7).len(), 1);
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
///
/// # How it is built
///
/// Of shards like the core of the shared map, and one counter of keys. A push of a new key first
/// raises the counter; if the map is full it evicts a key instead, which leaves the counter as it
/// is. The counter falls under the lock under which a key leaves. Where several locks are held at
/// once, they were taken from the lowest number up.
pub struct ShardedBoundedArrayMap<K, V> {
    shards: Box<[CachePadded<Shard<K, V>>]>,
    hasher: HashBuilder,
    limits: Limits,
    observer: Observer<K, V, NoIndex>,
    /// Keys in all shards together: at most `limits.max_keys`.
    keys: AtomicUsize,
}

/// Aligned to two cache lines, as hardware prefetches them in pairs.
#[repr(align(128))]
struct CachePadded<T>(Mutex<T>);

impl<T> Deref for CachePadded<T> {
    type Target = Mutex<T>;

    fn deref(&self) -> &Mutex<T> {
        &self.0
    }
}

impl<K, V> ShardedBoundedArrayMap<K, V> {
    pub(super) fn build(limits: Limits, shards: usize) -> Self {
        let shards = (0..shards).map(|_| CachePadded(Mutex::new(Core::new(limits)))).collect();
        let (hasher, observer) = (HashBuilder::default(), Observer::none());
        Self { shards, hasher, limits, observer, keys: AtomicUsize::new(0) }
    }

    /// Raises the number of keys, unless the map is full.
    fn reserve_key(&self) -> bool {
        // The keys themselves are passed on by the locks; this only counts.
        let counted = self.keys.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |keys| {
            (keys < self.limits.max_keys).then_some(keys + 1)
        });
        counted.is_ok()
    }

    fn shard_of_hash(&self, hash: u64) -> usize {
        part_of(hash, self.shards.len())
    }

    pub(super) fn iter_shards(&self) -> impl Iterator<Item = ShardRef<'_, K, V>> + '_ {
        (0..self.shards.len()).map(|at| ShardRef { map: self, at })
    }
}

impl<K: Hash + Eq, V> ShardedBoundedArrayMap<K, V> {
    /// Which shard a key belongs to: less than [`shards`](Self::shards). It differs from map to
    /// map.
    pub fn shard_of<Q>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        self.shard_of_hash(self.hasher.hash_one(key))
    }

    /// The hash of a key, and its shard.
    pub(super) fn shard_with<Q>(&self, key: &Q) -> (u64, ShardRef<'_, K, V>)
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        (hash, ShardRef { map: self, at: self.shard_of_hash(hash) })
    }

    /// As [`BoundedArrayMap::push`](super::BoundedArrayMap::push), but for which key is evicted.
    pub fn push(&self, key: K, value: V) -> Pushed<K, V> {
        self.push_arrived(None, key, value)
    }

    /// As [`BoundedArrayMap::push_entry`](super::BoundedArrayMap::push_entry), but for which key is
    /// evicted.
    pub fn push_entry(&self, entry: Entry<K, V>) -> Pushed<K, V> {
        self.push_arrived(entry.now, entry.key, entry.value)
    }

    fn push_arrived(&self, now: Option<Instant>, key: K, value: V) -> Pushed<K, V> {
        let hash = self.hasher.hash_one(&key);
        let own = self.shard_of_hash(hash);
        // Before the guard, so that if `Eq` panics they are dropped after the lock.
        let mut unused = UnusedKey(None);
        let mut item;
        let mut shard = self.shards[own].lock();
        let found = shard.keys.find(hash, &key);
        let fast_path = shard.fast_path && !self.observer.is_set();
        if let (Some(slot), true) = (found, fast_path) {
            unused.0 = Some(key);
            shard.keys.promote(slot);
            return shard.fast_push(slot, value);
        }
        item = Some(Entry { key, value, id: None, now });
        let pushed = self.push_here(&mut shard, hash, found, &mut item, &mut unused);
        drop(shard);
        let pushed = match pushed {
            Some(pushed) => pushed,
            None => self.push_evicting_elsewhere(own, hash, &mut item, &mut unused),
        };
        self.observer.report_pushed(&pushed, unused.0.as_ref());
        pushed
    }

    fn look_and_push_here(
        &self,
        shard: &mut Shard<K, V>,
        hash: u64,
        item: &mut Option<Entry<K, V, NoIndex>>,
        unused: &mut UnusedKey<K>,
    ) -> Option<Pushed<K, V>> {
        let found = shard.keys.find(hash, &item.as_ref()?.key);
        self.push_here(shard, hash, found, item, unused)
    }

    /// Pushes, if that takes nothing from another shard.
    fn push_here(
        &self,
        shard: &mut Shard<K, V>,
        key_hash: u64,
        found: Option<u32>,
        item: &mut Option<Entry<K, V, NoIndex>>,
        unused: &mut UnusedKey<K>,
    ) -> Option<Pushed<K, V>> {
        if found.is_none() {
            // The shard's limit for this push, which follows from the size of the whole map.
            shard.limits.max_keys = if self.reserve_key() {
                usize::MAX
            } else if self.limits.full_map == FullMap::RejectNewKey {
                0
            } else if shard.keys.len() > shard.keys.held() {
                shard.keys.len()
            } else {
                return None;
            };
        }
        let item = item.take()?;
        if found.is_none() && shard.fast_path {
            return Some(shard.fast_push_new_key(key_hash, item.key, item.value));
        }
        let lookup = Lookup { key_hash, key: found, id_hash: 0, duplicate: false, weight: 0 };
        Some(shard.push(lookup, item, unused))
    }

    /// Pushes a key whose own shard had none to evict when the map was full.
    #[cold]
    fn push_evicting_elsewhere(
        &self,
        own: usize,
        hash: u64,
        item: &mut Option<Entry<K, V, NoIndex>>,
        unused: &mut UnusedKey<K>,
    ) -> Pushed<K, V> {
        for step in 1..self.shards.len() {
            let other = (own + step) % self.shards.len();
            let mut low = self.shards[own.min(other)].lock();
            let mut high = self.shards[own.max(other)].lock();
            if let Some(done) =
                self.push_with_both_locked([own, other], &mut low, &mut high, hash, item, unused)
            {
                return done;
            }
        }
        // Other threads were faster each time, or all keys are checked out: with all locks held,
        // nothing changes any more.
        let mut shards: Vec<_> = self.shards.iter().map(|shard| shard.lock()).collect();
        let free = |shard: &MutexGuard<'_, Shard<K, V>>| shard.keys.len() > shard.keys.held();
        let done = match (0..shards.len()).find(|at| *at != own && free(&shards[*at])) {
            Some(other) => {
                let (low, high) = shards.split_at_mut(own.max(other));
                let (low, high) = (&mut *low[own.min(other)], &mut *high[0]);
                self.push_with_both_locked([own, other], low, high, hash, item, unused)
            }
            None => self.look_and_push_here(&mut shards[own], hash, item, unused),
        };
        match (done, item.take()) {
            (Some(done), _) => done,
            (None, Some(item)) => shards[own].reject(item, RejectReason::MapFull),
            (None, None) => unreachable!("what was not pushed is still there"),
        }
    }

    /// Pushes, if that takes nothing from a third shard. Both are locked, the lower one first.
    fn push_with_both_locked(
        &self,
        [own, other]: [usize; 2],
        low: &mut Shard<K, V>,
        high: &mut Shard<K, V>,
        hash: u64,
        item: &mut Option<Entry<K, V, NoIndex>>,
        unused: &mut UnusedKey<K>,
    ) -> Option<Pushed<K, V>> {
        let (mine, theirs) = if own < other { (low, high) } else { (high, low) };
        // Again, as the locks were released in between.
        self.look_and_push_here(mine, hash, item, unused)
            .or_else(|| Self::push_evicting_from(mine, theirs, hash, item, unused))
    }

    /// Evicts a key of another shard. The counter stays: the new key replaces it.
    fn push_evicting_from(
        mine: &mut Shard<K, V>,
        theirs: &mut Shard<K, V>,
        hash: u64,
        item: &mut Option<Entry<K, V, NoIndex>>,
        unused: &mut UnusedKey<K>,
    ) -> Option<Pushed<K, V>> {
        let lookup = mine.lookup_hashed(hash, &item.as_ref()?.key, 0);
        let (key, items) = theirs.evict_next()?;
        mine.limits.max_keys = usize::MAX;
        let _stored = mine.push(lookup, item.take()?, unused);
        Some(Pushed::Evicted { key, items })
    }

    /// As [`BoundedArrayMap::take`](super::BoundedArrayMap::take).
    pub fn take<Q>(&self, key: &Q) -> Items<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (hash, shard) = self.shard_with(key);
        let taken = shard.removing(|shard| {
            let slot = shard.find_available_hashed(hash, key)?;
            Some(shard.take(slot))
        });
        let Some((key, items)) = taken else { return Items::none() };
        drop_quietly(key);
        items
    }

    /// As [`SharedBoundedArrayMap::promote`](super::SharedBoundedArrayMap::promote), among the keys
    /// of its shard.
    pub fn promote<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (hash, shard) = self.shard_with(key);
        self.shards[shard.at].lock().promote_hashed(hash, key)
    }

    /// As [`BoundedArrayMap::contains`](super::BoundedArrayMap::contains): true of the moment at
    /// which the lock was had.
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (hash, shard) = self.shard_with(key);
        let shard = self.shards[shard.at].lock();
        shard.keys.find(hash, key).is_some_and(|slot| shard.keys.at(slot).items.len() > 0)
    }

    /// Pushes items one after another, as [`push`](Self::push) does, hands what each pushes out, or
    /// itself if it is refused, to `sink`, and returns how many of them were stored.
    ///
    /// # Panics
    ///
    /// If `items` or `sink` does; what `items` has not yielded by then is not pushed.
    pub fn extend(
        &self,
        items: impl IntoIterator<Item = (K, V)>,
        sink: impl FnMut(Pushed<K, V>),
    ) -> usize {
        push_each(items, |key, value| self.push(key, value), sink)
    }
}

impl<K, V> ShardedBoundedArrayMap<K, V> {
    /// As [`SharedBoundedArrayMap::with_observer`](super::SharedBoundedArrayMap::with_observer).
    #[must_use]
    pub fn with_observer(
        mut self,
        observer: impl Fn(Event<'_, K, V>) + Send + Sync + 'static,
    ) -> Self {
        self.observer = Observer::new(observer);
        self
    }

    /// The number of panics in the observer.
    #[must_use]
    pub fn observer_panics(&self) -> usize {
        self.observer.panics()
    }

    /// As [`BoundedArrayMap::expire`](super::BoundedArrayMap::expire), shard by shard: oldest
    /// arrival first within each. `limit` is for all shards together.
    ///
    /// # Panics
    ///
    /// If `Clone` of a key does, unless items of another shard were taken out before that: then
    /// these are handed over, and the panic is left to the next call, which comes to that key
    /// again.
    #[must_use = "these items have left the map and are lost if this is dropped"]
    pub fn expire(&self, now: Instant, limit: usize) -> Vec<Expired<K, V>>
    where
        K: Clone,
    {
        let mut expired = Vec::new();
        for shard in self.iter_shards() {
            let (mut keys, left) = (Vec::new(), limit - expired.len());
            let sweep = AssertUnwindSafe(|| {
                shard.removing(|shard| {
                    shard.keys_to_hand_back(now, left, &mut keys);
                    shard.expire(core::mem::take(&mut keys))
                })
            });
            match panic::catch_unwind(sweep) {
                Ok(mut swept) => expired.append(&mut swept),
                Err(panic) if expired.is_empty() => panic::resume_unwind(panic),
                Err(panic) => {
                    drop_quietly(keys);
                    drop_quietly(panic);
                    break;
                }
            }
        }
        self.observer.report_expired(&expired);
        expired
    }

    /// As [`BoundedArrayMap::next_expiry`](super::BoundedArrayMap::next_expiry).
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.shards.iter().filter_map(|shard| shard.lock().next_expiry()).min()
    }

    /// Takes out everything, shard by shard, as
    /// [`BoundedArrayMap::clear`](super::BoundedArrayMap::clear) does.
    #[must_use = "everything that was in the map is lost if this is dropped"]
    pub fn clear(&self) -> Vec<IntoIter<K, V>> {
        let clear = |shard: ShardRef<'_, K, V>| {
            let (first, rest) = shard.removing(Core::clear);
            IntoIter::new(first, rest)
        };
        self.iter_shards().map(clear).collect()
    }

    /// The limits, of all shards together.
    #[must_use]
    pub fn limits(&self) -> MapLimits {
        self.limits.shown()
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// How many items are resident under all keys together, counted shard by shard. O(shards).
    #[must_use]
    pub fn total_items(&self) -> usize {
        let items = self.shards.iter().map(|shard| shard.lock().items);
        // Not of one moment, so that they can be more together than there ever were.
        items.fold(0, usize::saturating_add)
    }

    /// How many keys are resident: never more than `max_keys`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Whether nothing is resident.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Panics unless its structures agree: for tests. O(keys + items).
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub fn validate(&self) {
        let shards: Vec<_> = self.shards.iter().map(|shard| shard.lock()).collect();
        shards.iter().for_each(|shard| shard.validate());
        let keys: usize = shards.iter().map(|shard| shard.keys.len()).sum();
        assert_eq!(keys, self.keys.load(Ordering::Relaxed), "keys in all shards");
    }

    /// The counts of all shards together, each of which is looked at in turn: while others use the
    /// map, they are not of one moment, but each item is counted once. The peaks are the sums of
    /// the shards' own, and so at least what they were. O(shards).
    #[must_use]
    pub fn stats(&self) -> MapStats {
        self.shards.iter().fold(MapStats::default(), |sum, shard| sum.and(shard.lock().stats()))
    }
}

impl<K: Hash + Eq, V> Builder<K, V> {
    /// Builds the form in several parts with a lock each: from 1 to 65,536 of them, best a
    /// few times as many as threads. There is no such form with an index or with totals:
    /// [`ShardedBoundedArrayMap`] says why.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_sharded(self, shards: usize) -> Result<ShardedBoundedArrayMap<K, V>, ConfigError> {
        let limits = self.checked()?;
        if !(1..=65_536).contains(&shards) {
            return Err(ConfigError::new("shards", shards, "at least 1 and at most 65536"));
        }
        if let Some(max_items) = limits.shown().max_items {
            return Err(ConfigError::new("max_items", max_items, "not chosen for a sharded map"));
        }
        if let Some(max_weight) = limits.shown().max_weight {
            return Err(ConfigError::new("max_weight", max_weight, "not chosen for a sharded map"));
        }
        Ok(ShardedBoundedArrayMap::build(limits, shards))
    }
}

impl<K, V> Drop for ShardedBoundedArrayMap<K, V> {
    /// Reports everything in the map to the observer, if there is one, shard by shard. O(items)
    /// then.
    fn drop(&mut self) {
        if self.observer.is_set() {
            for shard in &self.shards {
                let core = shard.lock().take_all();
                self.observer.report_dropped(core);
            }
        }
    }
}

// No panic leaves the map half changed, and what is in it is lent to nobody.
impl<K, V> UnwindSafe for ShardedBoundedArrayMap<K, V> {}

impl<K, V> RefUnwindSafe for ShardedBoundedArrayMap<K, V> {}

/// Shows the counts, not the contents.
impl<K, V> fmt::Debug for ShardedBoundedArrayMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ShardedBoundedArrayMap").field(&self.stats()).finish()
    }
}
