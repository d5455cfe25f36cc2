//! Chooses the limits and policies of a map.

use core::fmt;
use core::hash::Hash;
use core::marker::PhantomData;
use std::time::Duration;

use super::bounded::BoundedArrayMap;
use super::core::Core;
use super::items::NoIndex;
use super::limits::{FullKey, FullMap, HEAVIEST, Limits, Weigher};
use super::observer::Observer;
use crate::ConfigError;

/// Chooses the limits and policies of a [`BoundedArrayMap`] or a [`SharedBoundedArrayMap`](super::SharedBoundedArrayMap).
///
/// [`max_keys`](Self::max_keys) and [`max_items_per_key`](Self::max_items_per_key) must be
/// chosen; the rest has defaults.
///
/// ```
/// use std::time::Duration;
/// use sluicegate::{BoundedArrayMap, FullKey, FullMap};
///
/// let map: BoundedArrayMap<String, u64> = BoundedArrayMap::builder()
///     .max_keys(10_000)
///     .max_items_per_key(100)
///     .full_key(FullKey::RejectNew)
///     .full_map(FullMap::EvictLeastRecentlyUsed)
///     .time_to_live(Duration::from_secs(24 * 60 * 60))
///     .build()?;
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
#[must_use = "a builder does nothing until `build`, `build_shared` or `build_sharded` is called"]
pub struct Builder<K, V, Id = NoIndex> {
    limits: Limits,
    weigher: Weigher<K, V>,
    of: PhantomData<Maker<K, V, Id>>,
}

type Maker<K, V, Id> = fn() -> BoundedArrayMap<K, V, Id>;

impl<K, V> Builder<K, V> {
    pub(super) fn new() -> Self {
        let limits = Limits {
            max_keys: 0,
            max_items_per_key: 0,
            full_key: FullKey::default(),
            full_map: FullMap::default(),
            time_to_live: None,
            max_items: usize::MAX,
            max_weight: HEAVIEST,
            weighed: false,
            indexed: false,
            fast_path: false,
        };
        Self { limits, weigher: Weigher::NONE, of: PhantomData }
    }
}

impl<K, V> Builder<K, V> {
    /// Gives the map an index by an id of each item, which is what
    /// [`Entry::id`](super::Entry::id) and
    /// [`remove_by_id`](BoundedArrayMap::remove_by_id) use.
    ///
    /// ```
    /// use sluicegate::BoundedArrayMap;
    /// use sluicegate::map::Entry;
    ///
    /// let mut likes = BoundedArrayMap::<&str, u64>::builder()
    ///     .max_keys(10_000)
    ///     .max_items_per_key(100)
    ///     .indexed::<String>()
    ///     .build()?;
    /// assert!(likes.push_entry(Entry::new("post", 7).id("like/1".to_string())).is_stored());
    /// assert_eq!(likes.remove_by_id("like/1"), Some(("post", 7)));
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn indexed<Id>(self) -> Builder<K, V, Id> {
        let limits = Limits { indexed: true, ..self.limits };
        Builder { limits, weigher: self.weigher, of: PhantomData }
    }
}

impl<K, V, Id> Builder<K, V, Id> {
    /// The most items at once under all keys together: at least `max_items_per_key`. By default
    /// only that and `max_keys` limit them.
    ///
    /// If a push exceeds it, whole keys go as [`FullMap`] says, but never the one that is pushed
    /// to. A push for which more than one thing goes answers
    /// [`Pushed::Several`](super::Pushed).
    pub fn max_items(mut self, max_items: usize) -> Self {
        self.limits.max_items = max_items;
        self
    }

    /// The most that all items may weigh together, from 1 to 9,223,372,036,854,775,807 (2⁶³ - 1),
    /// in whatever unit `weigh` answers in: bytes, say. It is asked once about each item, when
    /// that is pushed.
    ///
    /// What is exceeded is made room for as with [`max_items`](Self::max_items). A key whose items
    /// would weigh more than the whole map may is full, and does what [`FullKey`] says; an item
    /// that weighs more by itself is refused.
    ///
    /// ```
    /// use sluicegate::{BoundedArrayMap, Pushed};
    ///
    /// let mut map = BoundedArrayMap::builder()
    ///     .max_keys(100)
    ///     .max_items_per_key(100)
    ///     .max_weight(10, |_key: &&str, text: &String| text.len() as u64)
    ///     .build()?;
    /// for (key, text) in [("a", "1234"), ("b", "1234")] {
    ///     assert_eq!(map.push(key, text.to_string()), Pushed::Stored);
    /// }
    /// let Pushed::Several(gone) = map.push("c", "1234567890".to_string()) else { panic!() };
    /// let keys: Vec<_> = gone.evicted.iter().map(|(key, _)| *key).collect();
    /// assert_eq!(keys, ["a", "b"]);
    /// assert_eq!(map.stats().weight, 10);
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn max_weight(
        mut self,
        max_weight: u64,
        weigh: impl Fn(&K, &V) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.limits.max_weight = max_weight;
        self.limits.weighed = true;
        self.weigher = Weigher::new(weigh);
        self
    }

    /// The most keys at once: at least 1. Must be chosen.
    pub fn max_keys(mut self, max_keys: usize) -> Self {
        self.limits.max_keys = max_keys;
        self
    }

    /// The most items at once under each key: at least 1, and `max_keys` x `max_items_per_key`
    /// at most 4,294,967,294. Must be chosen.
    pub fn max_items_per_key(mut self, max_items_per_key: usize) -> Self {
        self.limits.max_items_per_key = max_items_per_key;
        self
    }

    /// What to do if a key is full. The default is [`FullKey::DisplaceOldest`].
    pub fn full_key(mut self, full_key: FullKey) -> Self {
        self.limits.full_key = full_key;
        self
    }

    /// What to do if the map is full. The default is [`FullMap::EvictLeastRecentlyUsed`].
    pub fn full_map(mut self, full_map: FullMap) -> Self {
        self.limits.full_map = full_map;
        self
    }

    /// How long after its arrival an item is due to be handed over by
    /// [`expire`](BoundedArrayMap::expire): longer than zero. By default items do not expire.
    pub fn time_to_live(mut self, time_to_live: Duration) -> Self {
        self.limits.time_to_live = Some(time_to_live);
        self
    }

    pub(super) fn checked(&self) -> Result<Limits, ConfigError> {
        let limits = self.limits;
        limits.check()?;
        if limits.time_to_live == Some(Duration::ZERO) {
            return Err(ConfigError::new("time_to_live", Duration::ZERO, "longer than zero"));
        }
        let fast_path = limits.full_key == FullKey::DisplaceOldest
            && limits.full_map == FullMap::EvictLeastRecentlyUsed
            && limits.max_items == usize::MAX
            && limits.time_to_live.is_none()
            && !limits.weighed
            && !limits.indexed;
        Ok(Limits { fast_path, ..limits })
    }

    /// Builds the map. It reserves no memory yet.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] if a limit is missing or is not what it may be.
    pub fn build(self) -> Result<BoundedArrayMap<K, V, Id>, ConfigError>
    where
        K: Hash + Eq,
    {
        let core = Core::new(self.checked()?);
        let observer = Observer::none();
        Ok(BoundedArrayMap { core, weigher: self.weigher, observer })
    }
}

impl<K, V, Id> Clone for Builder<K, V, Id> {
    fn clone(&self) -> Self {
        Self { limits: self.limits, weigher: self.weigher.clone(), of: PhantomData }
    }
}

impl<K, V, Id> fmt::Debug for Builder<K, V, Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Builder").field(&self.limits).finish()
    }
}
