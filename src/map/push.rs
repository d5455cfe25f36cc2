//! The ways into the map for one owner.

use core::hash::Hash;

use super::bounded::BoundedArrayMap;
use super::core::Lookup;
use super::entry::Entry;
use super::outcome::{Pushed, UnusedKey, drop_quietly};

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

/// Pushes items one after another. Returns how many of them were stored.
pub(super) fn push_each<K, V, Id>(
    items: impl IntoIterator<Item = (K, V)>,
    mut push: impl FnMut(K, V) -> Pushed<K, V, Id>,
    mut sink: impl FnMut(Pushed<K, V, Id>),
) -> usize {
    let mut stored = 0;
    for (key, value) in items {
        let pushed = push(key, value);
        stored += usize::from(pushed.is_stored());
        if !matches!(pushed, Pushed::Stored) {
            sink(pushed);
        }
    }
    stored
}
