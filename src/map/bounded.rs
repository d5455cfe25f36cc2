//! The map for one owner.

use core::borrow::Borrow;
use core::fmt;
use core::hash::Hash;
use std::collections::VecDeque;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Instant;

use super::builder::Builder;
use super::core::{Core, Lookup};
use super::entry::Entry;
use super::items::{Items, NoIndex};
use super::iter::{Array, IntoIter, Iter, IterLru};
use super::limits::{MapLimits, Weigher};
use super::observer::{Event, Observer};
use super::outcome::{Expired, Pushed, UnusedKey, push_each};
use super::resize::{Resize, Shrunk};
use super::stats::MapStats;
use crate::ConfigError;
use crate::base::panic::drop_quietly;

/// Arrays of items under keys, with a cap on the keys and a cap on the items under each.
///
/// It is for what has to wait under a key for something that has not come yet: likes that arrive
/// before their post, say. Every push says what it did and hands back what it pushed out, so that
/// nothing leaves in silence.
///
/// When not to use it: for a cache of one value a key, take `lru` or `quick_cache`. If items must
/// never be refused or pushed out, this is not a map but a database. To share it between threads
/// or tasks, take [`SharedBoundedArrayMap`](super::SharedBoundedArrayMap).
///
/// # Which key goes, and which item
///
/// If the map is full, a new key takes the place of the least recently used one, or is refused
/// ([`FullMap`](super::FullMap)). A key is used by each push to it that is not refused, and by
/// [`get`](Self::get). Looking ([`peek`](Self::peek), [`contains`](Self::contains), iteration,
/// [`stats`](Self::stats)), [`expire`](Self::expire) and [`remove_by_id`](Self::remove_by_id) use
/// nothing.
///
/// If a key is full, its oldest item goes, or the new one is refused
/// ([`FullKey`](super::FullKey)). A key whose last item has left is no longer in the map.
///
/// # Example
///
/// ```
/// use sluicegate::{BoundedArrayMap, Pushed};
///
/// let mut waiting = BoundedArrayMap::new(10_000, 100)?;
///
/// // Likes of a post that is not there yet wait under its name.
/// assert_eq!(waiting.push("post/1", "like by ann"), Pushed::Stored);
/// assert_eq!(waiting.push("post/1", "like by bob"), Pushed::Stored);
///
/// // The post has come: they go on, in the order in which they came.
/// let likes: Vec<_> = waiting.take("post/1").collect();
/// assert_eq!(likes, ["like by ann", "like by bob"]);
/// assert!(waiting.is_empty());
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
///
/// # Type parameters
///
/// `K` is the key and `V` the item. `Id` is what the items are indexed by, if they are: see
/// [`Builder::indexed`]. A map without an index pays nothing for not having one.
///
/// # Checkouts
///
/// While a key is [checked out](Self::checkout), its items stay in the map: they count, cannot be
/// evicted, and their ids stay resident. To all other calls the key has only what has come since,
/// and [`take`](Self::take) and another checkout get nothing, so that the order is kept.
///
/// # Panics in user code
///
/// `Hash` and `Eq` of keys and ids, and `Clone` of keys, are called before anything is changed. If
/// one of them panics, the map is as it was; the arguments of the call are dropped.
///
/// A panic in the destructor of a key or an id that an answer has no use for ends there: the
/// values are handed over all the same.
///
/// # How it is built
///
/// Keys live in a slab; a hash table and a linked list in order of use refer to its slots. A key's
/// only item lies beside the key, more of them in a ring buffer, which is handed over as it is by
/// `take` and grows up to the cap, from where on an item comes to lie where the one that it
/// displaces was. Buffers that were grown out of or emptied are kept for other keys. Only if items
/// expire, weigh something or are indexed does each have metadata: its key, arrival and weight, and
/// its position in the list of all items in order of arrival. Hashes are computed once, so nothing
/// but a look-up calls user code.
///
/// Memory grows with what is resident and is kept for what comes next, until
/// [`clear`](Self::clear). With `u64` for keys and items, a key with a single item takes 66 to 122
/// bytes, depending on how well the number of keys fits the arrays, which double; an item in a
/// buffer takes 8 to 16, and up to as much again where its buffer has left smaller ones behind.
/// Once a map has reached its usual size, items come and go without a request for memory; a key
/// that was handed over with a buffer costs one when the next key grows as large.
pub struct BoundedArrayMap<K, V, Id = NoIndex> {
    pub(super) core: Core<K, V, Id>,
    pub(super) weigher: Weigher<K, V>,
    pub(super) observer: Observer<K, V, Id>,
}

impl<K, V> BoundedArrayMap<K, V> {
    /// Chooses limits and policies one by one.
    pub fn builder() -> Builder<K, V> {
        Builder::new()
    }
}

impl<K: Hash + Eq, V> BoundedArrayMap<K, V> {
    /// A map that displaces the oldest item of a full key and evicts the least recently used key
    /// when it is full, whose items neither expire nor are indexed. It reserves no memory yet.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] unless both are at least 1 and their product at most 4,294,967,294.
    pub fn new(max_keys: usize, max_items_per_key: usize) -> Result<Self, ConfigError> {
        Self::builder().max_keys(max_keys).max_items_per_key(max_items_per_key).build()
    }
}

impl<K: Hash + Eq, V, Id> BoundedArrayMap<K, V, Id> {
    /// Takes out the item with this id, wherever it is; `None` if none is resident, or if it is
    /// checked out.
    ///
    /// The key comes with it, as a clone if it has other items. Its order of use stays as it is.
    ///
    /// O(items under its key): finds its position in an array of numbers and closes the gap.
    pub fn remove_by_id<Q>(&mut self, id: &Q) -> Option<(K, V)>
    where
        K: Clone,
        Id: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let meta = self.core.find_available_id(id)?;
        let key = self.core.key_to_hand_back(meta);
        self.core.remove_by_id(meta, key).map(Expired::into_pair)
    }

    /// Whether an item with this id is resident, found out without using its key.
    ///
    /// O(1). True also of an item that is checked out.
    pub fn contains_id<Q>(&self, id: &Q) -> bool
    where
        Id: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.core.find_id(id).is_some()
    }

    /// Takes out a key and hands over all its items, oldest first; none if it is not in the map or
    /// is checked out.
    ///
    /// O(1), or O(items handed over) if items expire, weigh something or are indexed.
    pub fn take<Q>(&mut self, key: &Q) -> Items<V, Id>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.core.hash(key);
        let taken = self.core.find_and_take(hash, key);
        let Some((key, items)) = taken else { return Items::none() };
        drop_quietly(key);
        items
    }

    /// The items under a key, which this uses: it becomes the most recently used one.
    ///
    /// O(1).
    pub fn get<Q>(&mut self, key: &Q) -> Option<Array<'_, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let slot = self.core.find(key)?;
        self.core.keys.promote(slot);
        Array::new(&self.core.keys.at(slot).items)
    }

    /// The items under a key, to look at without using it.
    ///
    /// O(1).
    pub fn peek<Q>(&self, key: &Q) -> Option<Array<'_, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let slot = self.core.find(key)?;
        Array::new(&self.core.keys.at(slot).items)
    }

    /// Whether there are items under a key, found out without using it.
    ///
    /// O(1).
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.peek(key).is_some()
    }
}

impl<K, V, Id> BoundedArrayMap<K, V, Id> {
    /// Takes out the items whose time to live has passed at `now`, oldest arrival first, but no
    /// more than `limit` of them; none if items do not expire.
    ///
    /// An item is due from its arrival plus the time to live on. If as many come back as the
    /// limit allows, more may be due: call again, perhaps after letting others have the map. It
    /// uses no key, so a sweep keeps nothing alive.
    ///
    /// O(items handed over + items checked out), whatever the size of the map.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use sluicegate::BoundedArrayMap;
    /// use sluicegate::map::Entry;
    ///
    /// let day = Duration::from_secs(24 * 60 * 60);
    /// let mut map = BoundedArrayMap::builder()
    ///     .max_keys(10)
    ///     .max_items_per_key(10)
    ///     .time_to_live(day)
    ///     .build()?;
    /// let start = Instant::now();
    /// assert!(map.push_entry(Entry::new("post", "like").at(start)).is_stored());
    ///
    /// assert_eq!(map.next_expiry(), Some(start + day));
    /// assert!(map.expire(start + day / 2, 1_000).is_empty());
    /// for overdue in map.expire(start + day, 1_000) {
    ///     assert_eq!((overdue.key, overdue.value), ("post", "like"));
    /// }
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    #[must_use = "these items have left the map and are lost if this is dropped"]
    pub fn expire(&mut self, now: Instant, limit: usize) -> Vec<Expired<K, V, Id>>
    where
        K: Clone,
    {
        let mut keys = Vec::new();
        self.core.keys_to_hand_back(now, limit, &mut keys);
        let expired = self.core.expire(keys);
        self.observer.report_expired(&expired);
        expired
    }

    /// Sets the observer, which replaces an earlier one. It sees every item that is displaced,
    /// evicted, expired or rejected from now on and, when the map is [dropped](Event::Dropped), all
    /// items in it.
    ///
    /// The observer runs before the call returns. It gets references: the values go to the caller.
    /// Its panics are caught and [counted](Self::observer_panics), and it keeps seeing events.
    ///
    /// When a map with an observer is dropped, panics in destructors of keys and items are caught,
    /// so that the observer sees all of them.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use sluicegate::BoundedArrayMap;
    /// use sluicegate::map::Event;
    ///
    /// let (lost, losses) = mpsc::channel();
    /// let mut map = BoundedArrayMap::new(10, 10)?.with_observer(move |event| {
    ///     if let Event::Dropped { key, items } = event {
    ///         let _ = lost.send((*key, items.len()));
    ///     }
    /// });
    /// assert!(map.push("post", "like by ann").is_stored());
    /// drop(map);
    /// assert_eq!(losses.recv(), Ok(("post", 1)));
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    #[must_use]
    pub fn with_observer(
        mut self,
        observer: impl Fn(Event<'_, K, V, Id>) + Send + Sync + 'static,
    ) -> Self {
        self.observer = Observer::new(observer);
        // The fast path of a push does not report.
        self.core.limits.fast_path = false;
        self.core.refresh_fast_path();
        self
    }

    /// The number of panics in the observer.
    #[must_use]
    pub fn observer_panics(&self) -> usize {
        self.observer.panics()
    }

    /// When the next item is due, to set a timer by. `None` if nothing is resident or all of it is
    /// checked out, if items do not expire, or if that moment lies beyond what an [`Instant`] can
    /// say. What is checked out has no say in it: ask again when a checkout has ended.
    ///
    /// O(1 + items checked out that arrived before all others).
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.core.next_expiry()
    }

    /// Takes out everything and hands it over, from the least to the most recently used key. The
    /// items count as taken; the counts go on.
    ///
    /// What is checked out stays, with what has come under the same keys since.
    ///
    /// O(1), and then O(1) for each item as it is handed over, and gives up the map's memory; if
    /// some keys are checked out, O(keys).
    pub fn clear(&mut self) -> IntoIter<K, V, Id> {
        let (first, rest) = self.core.clear();
        IntoIter::new(first, rest)
    }

    /// The keys and their items, from the most to the least recently used key. Uses none of them.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter::new(&self.core)
    }

    /// The keys and their items in the order in which they would be evicted: from the least to
    /// the most recently used key. Uses none of them.
    pub fn iter_lru(&self) -> IterLru<'_, K, V> {
        self.iter().rev()
    }

    /// The keys, from the most to the least recently used. Uses none of them.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + ExactSizeIterator + '_ {
        self.iter().map(|(key, _)| key)
    }

    /// How many keys are resident: at most `max_keys`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.core.keys.len()
    }

    /// How many items are resident under all keys together. O(1).
    #[must_use]
    pub fn total_items(&self) -> usize {
        self.core.items
    }

    /// Whether nothing is resident.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> MapLimits {
        self.core.limits.shown()
    }

    /// Panics unless its structures agree: for tests. O(keys + items).
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub fn validate(&self) {
        self.core.validate();
    }

    /// What went in and by which way it left. O(1).
    #[must_use]
    pub fn stats(&self) -> MapStats {
        self.core.stats()
    }
}

impl<K: Hash + Eq, V, Id> BoundedArrayMap<K, V, Id> {
    /// Pushes an item with no id, as having arrived now. Reads the clock only if items expire.
    ///
    /// # Panics
    ///
    /// If the weigher does; the map is as it was.
    ///
    /// O(1) amortised, plus the number of items under each key that is evicted if items expire, weigh
    /// something or are indexed.
    #[inline]
    pub fn push(&mut self, key: K, value: V) -> Pushed<K, V, Id> {
        if !self.core.fast_path {
            return self.push_slow(key, value);
        }
        let hash = self.core.hash(&key);
        match self.core.keys.find(hash, &key) {
            Some(slot) => {
                drop_quietly(key);
                self.core.keys.promote(slot);
                self.core.fast_push(slot, value)
            }
            None => self.core.fast_push_new_key(hash, key, value),
        }
    }

    fn push_slow(&mut self, key: K, value: V) -> Pushed<K, V, Id> {
        let weight = self.weigher.weigh(&key, &value);
        let lookup = self.core.lookup(&key, weight);
        self.push_looked_up(lookup, Entry::new(key, value))
    }

    /// Pushes an item with an id or a time of arrival: see [`Entry`].
    ///
    /// As costly as [`push`](Self::push).
    ///
    /// ```
    /// use sluicegate::{BoundedArrayMap, Pushed, RejectReason};
    /// use sluicegate::map::Entry;
    ///
    /// let mut map =
    ///     BoundedArrayMap::builder().max_keys(1).max_items_per_key(9).indexed().build()?;
    /// assert_eq!(map.push_entry(Entry::new("post", "like").id(7)), Pushed::Stored);
    ///
    /// let again = map.push_entry(Entry::new("post", "like, redelivered").id(7));
    /// assert!(matches!(again, Pushed::Rejected { reason: RejectReason::Duplicate, .. }));
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn push_entry(&mut self, entry: Entry<K, V, Id>) -> Pushed<K, V, Id>
    where
        Id: Hash + Eq,
    {
        let weight = self.weigher.weigh(&entry.key, &entry.value);
        let lookup = self.core.lookup_entry(&entry, weight);
        self.push_looked_up(lookup, entry)
    }

    fn push_looked_up(&mut self, lookup: Lookup, entry: Entry<K, V, Id>) -> Pushed<K, V, Id> {
        if self.observer.is_set() {
            return self.push_and_report(lookup, entry);
        }
        self.core.push(lookup, entry, &mut UnusedKey(None))
    }

    #[inline(never)]
    fn push_and_report(&mut self, lookup: Lookup, entry: Entry<K, V, Id>) -> Pushed<K, V, Id> {
        let mut unused = UnusedKey(None);
        let pushed = self.core.push(lookup, entry, &mut unused);
        self.observer.report_pushed(&pushed, unused.0.as_ref());
        pushed
    }

    /// Pushes items one after another, hands what each pushes out, or itself if it is refused, to
    /// `sink`, and returns how many of them were stored.
    ///
    /// # Panics
    ///
    /// If `items`, `sink` or the weigher does; what `items` has not yielded by then is not pushed.
    ///
    /// ```
    /// use sluicegate::{BoundedArrayMap, Pushed};
    ///
    /// let mut map = BoundedArrayMap::new(10, 2)?;
    /// let mut displaced = 0;
    /// let stored = map.extend((0..5).map(|like| ("post", like)), |pushed| {
    ///     displaced += usize::from(matches!(pushed, Pushed::Displaced { .. }));
    /// });
    /// assert_eq!((stored, displaced), (5, 3));
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn extend(
        &mut self,
        items: impl IntoIterator<Item = (K, V)>,
        sink: impl FnMut(Pushed<K, V, Id>),
    ) -> usize {
        push_each(items, |key, value| self.push(key, value), sink)
    }
}

impl<K: Hash + Eq, V, Id> BoundedArrayMap<K, V, Id> {
    /// Changes the limits, and hands over what a smaller map leaves no room for: exactly the
    /// excess, which counts as evicted and displaced.
    ///
    /// A total is kept to by evicting whole keys, the least recently used ones also if a full map
    /// refuses new keys. Items keep the weight that they came in with.
    ///
    /// Keys that are checked out stay, with what is checked out; they and the map are over their
    /// limits until enough has left. Pushes and further calls of this, with the same limits say,
    /// hand over the excess that is no longer checked out.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] if a limit is not what it may be, as when the map was built, or if
    /// `max_weight` is set and the map was built without a weigher. Nothing has changed then.
    ///
    /// O(keys in the map + items handed over); if some keys are checked out, O(the most keys that
    /// were ever in it at once + items handed over).
    ///
    /// ```
    /// use sluicegate::BoundedArrayMap;
    /// use sluicegate::map::Resize;
    ///
    /// let mut map = BoundedArrayMap::new(2, 2)?;
    /// for (key, value) in [("a", 1), ("b", 2), ("b", 3)] {
    ///     assert!(map.push(key, value).is_stored());
    /// }
    /// let gone = map.resize(Resize::new().max_keys(1).max_items_per_key(1))?;
    /// assert_eq!(gone.evicted[0].0, "a");
    /// assert_eq!(gone.displaced[0].0, "b");
    /// assert_eq!(map.take("b").collect::<Vec<_>>(), [3]);
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn resize(&mut self, limits: Resize) -> Result<Shrunk<K, V, Id>, ConfigError>
    where
        K: Clone,
    {
        let mut keys = VecDeque::new();
        let shrunk = self.core.resize(limits, &mut keys);
        drop_quietly(keys);
        let shrunk = shrunk?;
        self.observer.report_shrunk(&shrunk);
        Ok(shrunk)
    }
}

impl<K, V, Id> Drop for BoundedArrayMap<K, V, Id> {
    /// Reports everything in the map to the observer, if there is one. O(items) then.
    fn drop(&mut self) {
        if self.observer.is_set() {
            self.observer.report_dropped(self.core.take_all());
        }
    }
}

// No panic leaves the map half changed, not even one in the weigher, which by itself stands in the
// way of the two.
impl<K: UnwindSafe, V: UnwindSafe, Id: UnwindSafe> UnwindSafe for BoundedArrayMap<K, V, Id> {}

impl<K: RefUnwindSafe, V: RefUnwindSafe, Id: RefUnwindSafe> RefUnwindSafe
    for BoundedArrayMap<K, V, Id>
{
}

impl<K: fmt::Debug, V: fmt::Debug, Id> fmt::Debug for BoundedArrayMap<K, V, Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
