//! The map for many threads and tasks.

use core::borrow::Borrow;
use core::fmt;
use core::hash::{BuildHasher, Hash};
use std::collections::VecDeque;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Instant;

use super::bounded::BoundedArrayMap;
use super::builder::Builder;
use super::core::{Core, Lookup};
use super::entry::Entry;
use super::items::Items;
use super::items::NoIndex;
use super::iter::{IntoIter, Iter};
use super::limits::{MapLimits, Weigher};
use super::observer::{Event, Observer};
use super::outcome::{Expired, Pushed, UnusedKey, push_each};
use super::resize::{Resize, Shrunk};
use super::stats::MapStats;
use crate::ConfigError;
use crate::base::panic::drop_quietly;
use crate::base::sync::{HashBuilder, Mutex};

/// A [`BoundedArrayMap`] behind one lock, for many threads and tasks.
///
/// It does what [`BoundedArrayMap`] does, with exact caps and exact order of use, through `&self`;
/// put it into an `Arc` to share it. No call waits for anything but the lock, which is held for the
/// length of one such call; so it may be called from async code.
///
/// When not to use it: if one thread or task owns the map, `BoundedArrayMap` is quicker and can
/// also lend its items out. If a decision takes two calls ("is the parent there? no: push"), put
/// the `BoundedArrayMap` into your own lock together with what the decision rests on.
///
/// # Fairness
///
/// The lock is not fair, which over such short spans starves no thread. The order of items and keys
/// is that in which the lock was had.
///
/// # What runs under the lock
///
/// `Eq` of keys and ids, `Hash` of them, and `Clone` of keys: these must not call back into the
/// same map. Nothing is dropped under the lock: all that leaves is moved out first, also what is
/// left when one of those panics. Weighers, sinks, observers and predicates run without it.
///
/// # Example
///
/// ```
/// use std::thread;
/// use sluicegate::SharedBoundedArrayMap;
///
/// let map = SharedBoundedArrayMap::new(10, 100)?;
/// thread::scope(|scope| {
///     for producer in 0..2 {
///         let map = &map;
///         scope.spawn(move || assert!(map.push("post", producer).is_stored()));
///     }
/// });
/// assert_eq!(map.take("post").len(), 2);
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
///
/// # How it is built
///
/// Of a mutex around the state machine of `BoundedArrayMap`. As every step of that returns what
/// leaves, no value can be dropped before the lock is released. To ask a predicate about items,
/// these are lent out, as to a checkout.
pub struct SharedBoundedArrayMap<K, V, Id = NoIndex> {
    pub(super) core: Mutex<Core<K, V, Id>>,
    /// The same as theirs, so that keys are hashed outside the lock.
    hasher: HashBuilder,
    weigher: Weigher<K, V>,
    observer: Observer<K, V, Id>,
    /// Whether a push calls a weigher or an observer.
    calls_user_code: bool,
}

impl<K: Hash + Eq, V> SharedBoundedArrayMap<K, V> {
    /// As [`BoundedArrayMap::new`]. For all other choices there is
    /// [`Builder::build_shared`](super::Builder::build_shared).
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] unless both are at least 1 and their product at most
    /// 4,294,967,294.
    pub fn new(max_keys: usize, max_items_per_key: usize) -> Result<Self, ConfigError> {
        BoundedArrayMap::new(max_keys, max_items_per_key).map(Self::from)
    }
}

// In what follows a function's arguments outlive the guard: should user code panic under the
// lock, they are dropped when it has been released.

impl<K: Hash + Eq, V, Id> SharedBoundedArrayMap<K, V, Id> {
    /// As [`BoundedArrayMap::push`].
    #[inline]
    pub fn push(&self, key: K, value: V) -> Pushed<K, V, Id> {
        let hash = self.hasher.hash_one(&key);
        if self.calls_user_code {
            return self.push_and_report(Entry::new(key, value), |core, entry, weight| {
                core.lookup_hashed(hash, &entry.key, weight)
            });
        }
        // In this order, so that the outcome is written in place.
        let mut unused = UnusedKey(None);
        let mut core = self.core.lock();
        if !core.fast_path {
            let lookup = core.lookup_hashed(hash, &key, 0);
            return core.push(lookup, Entry::new(key, value), &mut unused);
        }
        match core.keys.find(hash, &key) {
            Some(slot) => {
                unused.0 = Some(key);
                core.keys.promote(slot);
                core.fast_push(slot, value)
            }
            None => core.fast_push_new_key(hash, key, value),
        }
    }

    /// As [`BoundedArrayMap::push_entry`]. Threads that read the clock in one order may come to the
    /// lock in another; the order of arrival is that of the lock.
    pub fn push_entry(&self, entry: Entry<K, V, Id>) -> Pushed<K, V, Id>
    where
        Id: Hash + Eq,
    {
        self.push_and_report(entry, Core::lookup_entry)
    }

    /// The weigher and the observer run without the lock.
    #[inline(never)]
    fn push_and_report(
        &self,
        entry: Entry<K, V, Id>,
        look_up: impl FnOnce(&Core<K, V, Id>, &Entry<K, V, Id>, u64) -> Lookup,
    ) -> Pushed<K, V, Id> {
        let weight = self.weigher.weigh(&entry.key, &entry.value);
        let mut unused = UnusedKey(None);
        let pushed = {
            let mut core = self.core.lock();
            let lookup = look_up(&core, &entry, weight);
            core.push(lookup, entry, &mut unused)
        };
        self.observer.report_pushed(&pushed, unused.0.as_ref());
        pushed
    }

    /// Pushes items one after another, each under the lock by itself: see
    /// [`BoundedArrayMap::extend`].
    pub fn extend(
        &self,
        items: impl IntoIterator<Item = (K, V)>,
        sink: impl FnMut(Pushed<K, V, Id>),
    ) -> usize {
        push_each(items, |key, value| self.push(key, value), sink)
    }

    /// As [`BoundedArrayMap::remove_by_id`].
    pub fn remove_by_id<Q>(&self, id: &Q) -> Option<(K, V)>
    where
        K: Clone,
        Id: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let gone = {
            let mut core = self.core.lock();
            let meta = core.find_available_id(id)?;
            let key = core.key_to_hand_back(meta);
            core.remove_by_id(meta, key)
        };
        gone.map(Expired::into_pair)
    }

    /// As [`BoundedArrayMap::contains_id`]: true of the moment at which the lock was had.
    pub fn contains_id<Q>(&self, id: &Q) -> bool
    where
        Id: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.core.lock().find_id(id).is_some()
    }

    /// As [`BoundedArrayMap::take`].
    pub fn take<Q>(&self, key: &Q) -> Items<V, Id>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let taken = self.core.lock().find_and_take(hash, key);
        let Some((key, items)) = taken else { return Items::none() };
        drop_quietly(key);
        items
    }

    /// Uses a key, as [`BoundedArrayMap::get`] does: it becomes the most recently used one. Returns
    /// whether there are items under it.
    ///
    /// O(1).
    pub fn promote<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.core.lock().promote(key)
    }

    /// As [`BoundedArrayMap::contains`]: true of the moment at which the lock was had.
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let core = self.core.lock();
        core.find(key).is_some_and(|slot| core.keys.at(slot).items.len() > 0)
    }
}

impl<K, V, Id> SharedBoundedArrayMap<K, V, Id> {
    /// As [`BoundedArrayMap::expire`]. The lock is held while up to `limit` items move out, so the
    /// limit bounds how long other calls wait.
    #[must_use = "these items have left the map and are lost if this is dropped"]
    pub fn expire(&self, now: Instant, limit: usize) -> Vec<Expired<K, V, Id>>
    where
        K: Clone,
    {
        let mut keys = Vec::new();
        let expired = {
            let mut core = self.core.lock();
            core.keys_to_hand_back(now, limit, &mut keys);
            core.expire(keys)
        };
        self.observer.report_expired(&expired);
        expired
    }

    /// Sets the observer, which replaces an earlier one. It sees every item that is displaced,
    /// evicted, expired or rejected from now on by any call and, when the map is
    /// [dropped](Event::Dropped), all items in it.
    ///
    /// The observer runs without the lock, on the thread of the call and before the call returns;
    /// it may call the map. Events of several threads may reach it in another order than that of
    /// the lock. It gets references: the values go to the caller. Its panics are caught and
    /// [counted](Self::observer_panics), and it keeps seeing events.
    ///
    /// When a map with an observer is dropped, panics in destructors of keys and items are caught,
    /// so that the observer sees all of them. It does not see the items of a leaked checkout, which
    /// are leaked too.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// use sluicegate::SharedBoundedArrayMap;
    /// use sluicegate::map::Event;
    ///
    /// let evicted = Arc::new(AtomicUsize::new(0));
    /// let count = Arc::clone(&evicted);
    /// let map = SharedBoundedArrayMap::new(1, 10)?.with_observer(move |event| {
    ///     if let Event::Evicted { items, .. } = event {
    ///         count.fetch_add(items.len(), Ordering::Relaxed);
    ///     }
    /// });
    /// assert!(map.push("a", 1).is_stored());
    /// assert!(map.push("b", 2).is_stored());
    /// assert_eq!(evicted.load(Ordering::Relaxed), 1);
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    #[must_use]
    pub fn with_observer(
        mut self,
        observer: impl Fn(Event<'_, K, V, Id>) + Send + Sync + 'static,
    ) -> Self {
        self.observer = Observer::new(observer);
        self.calls_user_code = true;
        self
    }

    /// Clones of the keys, from the most to the least recently used, but for those that are checked
    /// out. Uses none of them.
    ///
    /// O(keys), for all of which the lock is held: to look at a map, not to work on it.
    #[must_use]
    pub fn keys(&self) -> Vec<K>
    where
        K: Clone,
    {
        // Out here, so that if `Clone` panics they are dropped after the lock.
        let mut keys = Vec::new();
        {
            let core = self.core.lock();
            keys.extend(Iter::new(&core).map(|(key, _)| key.clone()));
        }
        keys
    }

    /// The number of panics in the observer.
    #[must_use]
    pub fn observer_panics(&self) -> usize {
        self.observer.panics()
    }

    /// As [`BoundedArrayMap::resize`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn resize(&self, limits: Resize) -> Result<Shrunk<K, V, Id>, ConfigError>
    where
        K: Clone,
    {
        let mut keys = VecDeque::new();
        let shrunk = self.core.lock().resize(limits, &mut keys);
        drop_quietly(keys);
        let shrunk = shrunk?;
        self.observer.report_shrunk(&shrunk);
        Ok(shrunk)
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> MapLimits {
        self.core.lock().limits.shown()
    }

    /// As [`BoundedArrayMap::next_expiry`].
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.core.lock().next_expiry()
    }

    /// As [`BoundedArrayMap::clear`]. The lock is held for O(1).
    pub fn clear(&self) -> IntoIter<K, V, Id> {
        let (first, rest) = self.core.lock().clear();
        IntoIter::new(first, rest)
    }

    /// As [`BoundedArrayMap::len`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.core.lock().keys.len()
    }

    /// As [`BoundedArrayMap::total_items`].
    #[must_use]
    pub fn total_items(&self) -> usize {
        self.core.lock().items
    }

    /// As [`BoundedArrayMap::is_empty`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Panics unless its structures agree: for tests. O(keys + items).
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub fn validate(&self) {
        self.core.lock().validate();
    }

    /// As [`BoundedArrayMap::stats`]: all figures are of one moment.
    #[must_use]
    pub fn stats(&self) -> MapStats {
        self.core.lock().stats()
    }

    /// The [`BoundedArrayMap`] with all items, limits and counts; it has no observer.
    /// Out of an `Arc`, the last handle has it:
    /// `Arc::into_inner(map).map(SharedBoundedArrayMap::into_inner)`. A `Sweeper` has one for the
    /// length of each of its steps, so stop it before.
    ///
    /// What a leaked checkout holds stays checked out.
    pub fn into_inner(self) -> BoundedArrayMap<K, V, Id> {
        let core = self.core.lock().take_all();
        let (weigher, observer) = (self.weigher.clone(), Observer::none());
        BoundedArrayMap { core, weigher, observer }
    }
}

impl<K: Hash + Eq, V, Id> Builder<K, V, Id> {
    /// Builds the form that many threads and tasks can share.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_shared(self) -> Result<SharedBoundedArrayMap<K, V, Id>, ConfigError> {
        self.build().map(SharedBoundedArrayMap::from)
    }
}

impl<K, V, Id> From<BoundedArrayMap<K, V, Id>> for SharedBoundedArrayMap<K, V, Id> {
    /// The observer stays set.
    fn from(mut map: BoundedArrayMap<K, V, Id>) -> Self {
        Self {
            hasher: map.core.hasher.clone(),
            core: Mutex::new(map.core.take_all()),
            weigher: map.weigher.clone(),
            calls_user_code: map.weigher.is_set() || map.observer.is_set(),
            observer: core::mem::replace(&mut map.observer, Observer::none()),
        }
    }
}

impl<K, V, Id> Drop for SharedBoundedArrayMap<K, V, Id> {
    /// Reports everything in the map to the observer, if there is one. O(items) then.
    fn drop(&mut self) {
        if self.observer.is_set() {
            let core = self.core.lock().take_all();
            self.observer.report_dropped(core);
        }
    }
}

// No panic leaves the map half changed, and what is in it is lent to nobody.
impl<K, V, Id> UnwindSafe for SharedBoundedArrayMap<K, V, Id> {}

impl<K, V, Id> RefUnwindSafe for SharedBoundedArrayMap<K, V, Id> {}

/// Shows the counts, not the contents.
impl<K, V, Id> fmt::Debug for SharedBoundedArrayMap<K, V, Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedBoundedArrayMap").field(&self.stats()).finish()
    }
}
