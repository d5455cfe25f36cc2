//! The map for threads that would wait for one lock.

use core::borrow::Borrow;
use core::fmt;
use core::hash::{BuildHasher, Hash};
use core::ops::Deref;
use std::panic::{self, AssertUnwindSafe, RefUnwindSafe, UnwindSafe};
use std::time::Instant;

use super::admit::Arrival;
use super::builder::{FullMap, Limits};
use super::contents::{Contents, Survey};
use super::index::NoIndex;
use super::items::Items;
use super::iter::IntoIter;
use super::outcome::{Expired, Pushed, Spare, drop_quietly};
use super::stats::Stats;
use crate::sync::{AtomicUsize, HashBuilder, Mutex, Ordering};

type Shard<K, V> = Contents<K, V, NoIndex>;

/// What a push handed back, and the key if it was there already.
type Done<K, V> = (Pushed<K, V>, Spare<K>);

/// A [`BoundedArrayMap`](super::BoundedArrayMap) in several parts with a lock each, for threads
/// that would wait too long for one.
///
/// The cap on keys is that of the whole: as long as it has room nothing is evicted, however the
/// keys are spread. Under each key all is exact. What is given up is the exact order of use: a full
/// map evicts the first in line of the new key's own part, or if that is empty, of another.
///
/// When not to use it: if one lock is not what holds you up, take
/// [`SharedBoundedArrayMap`](super::SharedBoundedArrayMap), whose order of use is exact, and which
/// has an index, totals, checkouts and listeners.
///
/// # Fairness and what runs under a lock
///
/// As for `SharedBoundedArrayMap`.
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
/// Of parts like that of the shared map and one counter of keys. A new key first counts itself in;
/// if that fails it takes the place of a key, which leaves the counter as it is. A key counts
/// itself out under the lock under which it leaves. Where two locks are held at once, the one of
/// the lower number was taken first.
pub struct ShardedBoundedArrayMap<K, V> {
    shards: Box<[Apart<Shard<K, V>>]>,
    hasher: HashBuilder,
    limits: Limits,
    /// Keys in all shards together: at most `limits.max_keys`.
    keys: AtomicUsize,
}

/// In cache lines of its own, and not in one that is fetched along with a neighbour's.
#[repr(align(128))]
struct Apart<T>(Mutex<T>);

impl<T> Deref for Apart<T> {
    type Target = Mutex<T>;

    fn deref(&self) -> &Mutex<T> {
        &self.0
    }
}

impl<K, V> ShardedBoundedArrayMap<K, V> {
    pub(super) fn build(limits: Limits, shards: usize) -> Self {
        let shards = (0..shards).map(|_| Apart(Mutex::new(Contents::new(limits)))).collect();
        let keys = AtomicUsize::new(0);
        Self { shards, hasher: HashBuilder::default(), limits, keys }
    }

    /// Counts one key in if there is room for it.
    fn reserve(&self) -> bool {
        // The keys themselves are passed on by the locks; this only counts.
        let counted = self.keys.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |keys| {
            (keys < self.limits.max_keys).then_some(keys + 1)
        });
        counted.is_ok()
    }

    /// Does something by which keys can leave, and counts them out.
    fn removing<R>(&self, shard: &mut Shard<K, V>, act: impl FnOnce(&mut Shard<K, V>) -> R) -> R {
        let before = shard.keys.len();
        let result = act(shard);
        let gone = before - shard.keys.len();
        if gone > 0 {
            self.keys.fetch_sub(gone, Ordering::Relaxed);
        }
        result
    }

    fn shard_of_hash(&self, hash: u64) -> usize {
        // Of bits that the tables within do not go by.
        (hash >> 24) as u32 as usize % self.shards.len()
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

    /// As [`BoundedArrayMap::push`](super::BoundedArrayMap::push), but for which key is evicted.
    pub fn push(&self, key: K, value: V) -> Pushed<K, V> {
        self.push_arrived(None, key, value)
    }

    /// As [`BoundedArrayMap::push_at`](super::BoundedArrayMap::push_at), but for which key is
    /// evicted.
    pub fn push_at(&self, now: Instant, key: K, value: V) -> Pushed<K, V> {
        self.push_arrived(Some(now), key, value)
    }

    fn push_arrived(&self, now: Option<Instant>, key: K, value: V) -> Pushed<K, V> {
        let hash = self.hasher.hash_one(&key);
        let own = self.shard_of_hash(hash);
        // Before the guard, so that if `Eq` panics they are dropped after the lock.
        let mut spare = Spare(None);
        let mut arrival;
        let mut shard = self.shards[own].lock();
        let found = shard.keys.find(hash, &key);
        if let (Some(slot), true) = (found, shard.plain) {
            spare.0 = Some(key);
            shard.keys.promote(slot);
            return shard.push_to(slot, value);
        }
        arrival = Some(Arrival { key, value, id: None, now });
        let done = self.push_here(&mut shard, hash, found, &mut arrival);
        drop(shard);
        let (pushed, _spare) = match done {
            Some(done) => done,
            None => self.push_for_another(own, hash, &mut arrival),
        };
        pushed
    }

    fn look_and_push_here(
        &self,
        shard: &mut Shard<K, V>,
        hash: u64,
        arrival: &mut Option<Arrival<K, V, NoIndex>>,
    ) -> Option<Done<K, V>> {
        let found = shard.keys.find(hash, &arrival.as_ref()?.key);
        self.push_here(shard, hash, found, arrival)
    }

    /// Pushes, if that takes nothing from another shard.
    fn push_here(
        &self,
        shard: &mut Shard<K, V>,
        key_hash: u64,
        found: Option<u32>,
        arrival: &mut Option<Arrival<K, V, NoIndex>>,
    ) -> Option<Done<K, V>> {
        if found.is_none() {
            // The limit of this shard for this push: how the whole stands, said in its terms.
            shard.limits.max_keys = if self.reserve() {
                usize::MAX
            } else if self.limits.full_map == FullMap::RejectNewKey {
                0
            } else if shard.keys.len() > 0 {
                shard.keys.len()
            } else {
                return None;
            };
        }
        let arrival = arrival.take()?;
        if found.is_none() && shard.plain {
            return Some((shard.push_first(key_hash, arrival.key, arrival.value), Spare(None)));
        }
        let survey = Survey { key_hash, key: found, id_hash: 0, duplicate: false, weight: 0 };
        let mut spare = Spare(None);
        let pushed = shard.push_one(survey, arrival, &mut spare);
        Some((pushed, spare))
    }

    /// Pushes a key whose own shard was empty when the map was full.
    #[cold]
    fn push_for_another(
        &self,
        own: usize,
        hash: u64,
        arrival: &mut Option<Arrival<K, V, NoIndex>>,
    ) -> Done<K, V> {
        let count = self.shards.len();
        // Once round finds a key, unless others have taken out all of them ahead of it, which
        // makes room.
        for step in (1..count.max(2)).cycle() {
            let other = (own + step) % count;
            let done = if other == own {
                self.look_and_push_here(&mut self.shards[own].lock(), hash, arrival)
            } else {
                let mut low = self.shards[own.min(other)].lock();
                let mut high = self.shards[own.max(other)].lock();
                let (mine, theirs) =
                    if own < other { (&mut *low, &mut *high) } else { (&mut *high, &mut *low) };
                // Looked at afresh: the locks were not held in between.
                self.look_and_push_here(mine, hash, arrival)
                    .or_else(|| Self::push_in_place_of(mine, theirs, hash, arrival))
            };
            if let Some(done) = done {
                return done;
            }
        }
        unreachable!("the cycle does not end")
    }

    /// Evicts a key of another shard, whose place in the count passes to the new key.
    fn push_in_place_of(
        mine: &mut Shard<K, V>,
        theirs: &mut Shard<K, V>,
        hash: u64,
        arrival: &mut Option<Arrival<K, V, NoIndex>>,
    ) -> Option<Done<K, V>> {
        let survey = mine.survey_hashed(hash, &arrival.as_ref()?.key, 0);
        let (key, items) = theirs.make_way()?;
        mine.limits.max_keys = usize::MAX;
        let mut spare = Spare(None);
        let _stored = mine.push_one(survey, arrival.take()?, &mut spare);
        Some((Pushed::Evicted { key, items }, spare))
    }

    /// As [`BoundedArrayMap::take`](super::BoundedArrayMap::take).
    pub fn take<Q>(&self, key: &Q) -> Items<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let taken = {
            let mut shard = self.shards[self.shard_of_hash(hash)].lock();
            let slot = shard.keys.find(hash, key);
            slot.map(|slot| self.removing(&mut shard, |shard| shard.take(slot)))
        };
        let Some((key, items)) = taken else { return Items::none() };
        drop_quietly(key);
        items
    }

    /// As [`BoundedArrayMap::contains`](super::BoundedArrayMap::contains): true of the moment at
    /// which the lock was had.
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        self.shards[self.shard_of_hash(hash)].lock().keys.find(hash, key).is_some()
    }
}

impl<K, V> ShardedBoundedArrayMap<K, V> {
    /// As [`BoundedArrayMap::expire`](super::BoundedArrayMap::expire), shard by shard: oldest
    /// arrival first within each. `budget` is that of all together.
    ///
    /// # Panics
    ///
    /// If `Clone` of a key does, unless items of another shard were taken out before that: then
    /// these are handed over, and the panic is left to the next call, which comes to that key
    /// again.
    #[must_use = "these items have left the map and are lost if this is dropped"]
    pub fn expire(&self, now: Instant, budget: usize) -> Vec<Expired<K, V>>
    where
        K: Clone,
    {
        let mut expired = Vec::new();
        for shard in &self.shards {
            let (mut keys, left) = (Vec::new(), budget - expired.len());
            let sweep = AssertUnwindSafe(|| {
                let mut shard = shard.lock();
                shard.keys_to_hand_back(now, left, &mut keys);
                let keys = core::mem::take(&mut keys);
                self.removing(&mut shard, |shard| shard.expire(keys))
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
        let clear = |shard: &Apart<Shard<K, V>>| {
            let (first, rest) = self.removing(&mut shard.lock(), Contents::clear);
            IntoIter::new(first, rest)
        };
        self.shards.iter().map(clear).collect()
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
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

    /// The counts of all shards together, each of which is looked at in turn: while others use the
    /// map, they are not of one moment, but each item is counted once. The peaks are the sums of
    /// the shards' own, and so at least what they were. O(shards).
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shards.iter().fold(Stats::default(), |sum, shard| sum.and(shard.lock().stats()))
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
