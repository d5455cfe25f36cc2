//! The ways into the map for one owner.

use core::hash::Hash;
use std::time::Instant;

use super::bounded::BoundedArrayMap;
use super::core::Lookup;
use super::core::insert::NewItem;
use super::outcome::{Pushed, UnusedKey, drop_quietly};

impl<K: Hash + Eq, V, Id> BoundedArrayMap<K, V, Id> {
    /// Pushes an item with no id, as having arrived now. Reads the clock only if items expire.
    ///
    /// O(1) amortised, plus the number of items under a key that is evicted if items expire or are
    /// indexed.
    #[inline]
    pub fn push(&mut self, key: K, value: V) -> Pushed<K, V, Id> {
        if !self.core.fast_path {
            return self.push_arrived(None, key, value);
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

    /// Pushes an item with no id, as having arrived at `now`.
    ///
    /// Time does not run backwards here: an item counts as having arrived no earlier than any
    /// that was pushed before it and is resident. If items do not expire, `now` is not used.
    ///
    /// As costly as [`push`](Self::push).
    pub fn push_at(&mut self, now: Instant, key: K, value: V) -> Pushed<K, V, Id> {
        self.push_arrived(Some(now), key, value)
    }

    fn push_arrived(&mut self, now: Option<Instant>, key: K, value: V) -> Pushed<K, V, Id> {
        let lookup = self.core.lookup(&key, 0);
        self.push_looked_up(lookup, NewItem { key, value, id: None, now })
    }

    fn push_looked_up(&mut self, lookup: Lookup, item: NewItem<K, V, Id>) -> Pushed<K, V, Id> {
        if self.observer.is_set() {
            return self.push_and_report(lookup, item);
        }
        self.core.push_one(lookup, item, &mut UnusedKey(None))
    }

    #[inline(never)]
    fn push_and_report(&mut self, lookup: Lookup, item: NewItem<K, V, Id>) -> Pushed<K, V, Id> {
        let mut unused = UnusedKey(None);
        let pushed = self.core.push_one(lookup, item, &mut unused);
        self.observer.report_pushed(&pushed, unused.0.as_ref());
        pushed
    }

    /// Pushes an item unless one with the same id is resident, as having arrived now. Reads the
    /// clock only if items expire.
    ///
    /// An id is resident exactly as long as its item, whichever way that leaves. An item that is
    /// due to expire is resident until [`expire`](Self::expire) has handed it over.
    ///
    /// O(1) amortised, plus the number of items under a key that is evicted.
    ///
    /// ```
    /// use sluicegate::{BoundedArrayMap, Pushed, RejectReason};
    ///
    /// let mut map =
    ///     BoundedArrayMap::builder().max_keys(1).max_items_per_key(9).indexed().build()?;
    /// assert_eq!(map.push_unique("post", 7, "like"), Pushed::Stored);
    ///
    /// let again = map.push_unique("post", 7, "like, redelivered");
    /// assert!(matches!(again, Pushed::Rejected { reason: RejectReason::Duplicate, .. }));
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn push_unique(&mut self, key: K, id: Id, value: V) -> Pushed<K, V, Id>
    where
        Id: Hash + Eq,
    {
        self.push_unique_arrived(None, key, id, value)
    }

    /// Pushes an item unless one with the same id is resident, as having arrived at `now`: see
    /// [`push_unique`](Self::push_unique) and [`push_at`](Self::push_at).
    pub fn push_unique_at(&mut self, now: Instant, key: K, id: Id, value: V) -> Pushed<K, V, Id>
    where
        Id: Hash + Eq,
    {
        self.push_unique_arrived(Some(now), key, id, value)
    }

    fn push_unique_arrived(
        &mut self,
        now: Option<Instant>,
        key: K,
        id: Id,
        value: V,
    ) -> Pushed<K, V, Id>
    where
        Id: Hash + Eq,
    {
        let lookup = self.core.lookup_unique(&key, &id, 0);
        self.push_looked_up(lookup, NewItem { key, value, id: Some(id), now })
    }
}

impl<K: Hash + Eq, V, Id, L> BoundedArrayMap<K, V, Id, L> {
    /// Pushes an item and hands all that it pushes out, or the item itself if it is refused, to
    /// `sink`: what [`push`](Self::push) would return, except that there can be more of it. Returns
    /// whether the item was stored. Reads the clock only if items expire.
    ///
    /// # Panics
    ///
    /// If the weigher does, the map is as it was. If `sink` does, the push has been done; `sink` is
    /// still called with the rest before the panic goes on.
    ///
    /// O(1) amortised, plus the number of keys that are evicted and, if items expire, weigh
    /// something or are indexed, of the items under them.
    pub fn push_with(&mut self, key: K, value: V, sink: impl FnMut(Pushed<K, V, Id>)) -> bool {
        self.push_with_arrived(None, key, value, sink)
    }

    /// As [`push_with`](Self::push_with), as having arrived at `now`: see
    /// [`push_at`](BoundedArrayMap::push_at).
    pub fn push_with_at(
        &mut self,
        now: Instant,
        key: K,
        value: V,
        sink: impl FnMut(Pushed<K, V, Id>),
    ) -> bool {
        self.push_with_arrived(Some(now), key, value, sink)
    }

    fn push_with_arrived(
        &mut self,
        now: Option<Instant>,
        key: K,
        value: V,
        sink: impl FnMut(Pushed<K, V, Id>),
    ) -> bool {
        let weight = self.weigher.weigh(&key, &value);
        let lookup = self.core.lookup(&key, weight);
        let item = NewItem { key, value, id: None, now };
        let (outcomes, unused) = self.core.push_many(lookup, item);
        self.observer.report_and_hand_over(outcomes, unused, sink)
    }

    /// As [`push_with`](Self::push_with), unless an item with the same id is resident.
    pub fn push_unique_with(
        &mut self,
        key: K,
        id: Id,
        value: V,
        sink: impl FnMut(Pushed<K, V, Id>),
    ) -> bool
    where
        Id: Hash + Eq,
    {
        self.push_unique_with_arrived(None, key, id, value, sink)
    }

    /// As [`push_unique_with`](Self::push_unique_with), as having arrived at `now`.
    pub fn push_unique_with_at(
        &mut self,
        now: Instant,
        key: K,
        id: Id,
        value: V,
        sink: impl FnMut(Pushed<K, V, Id>),
    ) -> bool
    where
        Id: Hash + Eq,
    {
        self.push_unique_with_arrived(Some(now), key, id, value, sink)
    }

    fn push_unique_with_arrived(
        &mut self,
        now: Option<Instant>,
        key: K,
        id: Id,
        value: V,
        sink: impl FnMut(Pushed<K, V, Id>),
    ) -> bool
    where
        Id: Hash + Eq,
    {
        let weight = self.weigher.weigh(&key, &value);
        let lookup = self.core.lookup_unique(&key, &id, weight);
        let item = NewItem { key, value, id: Some(id), now };
        let (outcomes, unused) = self.core.push_many(lookup, item);
        self.observer.report_and_hand_over(outcomes, unused, sink)
    }

    /// Pushes items one after another, as [`push_with`](Self::push_with) does, and returns how many
    /// of them were stored.
    ///
    /// # Panics
    ///
    /// As `push_with`; what `items` has not yielded by then is not pushed.
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
        mut sink: impl FnMut(Pushed<K, V, Id>),
    ) -> usize {
        let pushes = items.into_iter().map(|(key, value)| self.push_with(key, value, &mut sink));
        pushes.filter(|stored| *stored).count()
    }
}
