//! The limits and policies of a map, and the checks on them.

use core::fmt;
use core::hash::Hash;
use core::marker::PhantomData;
use std::time::Duration;

use super::bounded::BoundedArrayMap;
use super::contents::Contents;
use super::index::NoIndex;
use super::shared::SharedBoundedArrayMap;
use super::slab::NONE;
use crate::ConfigError;

/// What a push does if its key holds `max_items_per_key` items already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FullKey {
    /// Stores the new item and hands back the key's oldest one.
    #[default]
    DisplaceOldest,
    /// Hands back the new item and changes nothing.
    RejectNew,
}

/// What a push of a new key does if the map holds `max_keys` keys already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FullMap {
    /// Stores the new item and hands back the least recently used key with all its items.
    #[default]
    EvictLeastRecentlyUsed,
    /// Hands back the new item and changes nothing.
    RejectNewKey,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_keys: usize,
    pub(super) max_items_per_key: usize,
    pub(super) full_key: FullKey,
    pub(super) full_map: FullMap,
    pub(super) time_to_live: Option<Duration>,
}

/// Chooses the limits and policies of a [`BoundedArrayMap`] or a [`SharedBoundedArrayMap`].
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
#[must_use = "a builder does nothing until `build` or `build_shared` is called"]
pub struct Builder<K, V, Id = NoIndex> {
    limits: Limits,
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
        };
        Self { limits, of: PhantomData }
    }

    /// Gives the map an index by an id of each item, which is what
    /// [`push_unique`](BoundedArrayMap::push_unique) and [`cancel`](BoundedArrayMap::cancel) use.
    ///
    /// ```
    /// use sluicegate::BoundedArrayMap;
    ///
    /// let mut likes = BoundedArrayMap::<&str, u64>::builder()
    ///     .max_keys(10_000)
    ///     .max_items_per_key(100)
    ///     .indexed::<String>()
    ///     .build()?;
    /// assert!(likes.push_unique("post", "like/1".to_string(), 7).is_stored());
    /// assert_eq!(likes.cancel("like/1"), Some(("post", 7)));
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn indexed<Id>(self) -> Builder<K, V, Id> {
        Builder { limits: self.limits, of: PhantomData }
    }
}

impl<K, V, Id> Builder<K, V, Id> {
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

    fn checked(self) -> Result<Limits, ConfigError> {
        let limits = self.limits;
        ConfigError::at_least_one("max_keys", limits.max_keys)?;
        ConfigError::at_least_one("max_items_per_key", limits.max_items_per_key)?;
        // The slots of the items are numbered in 32 bits.
        let most = NONE as usize - 1;
        if limits.max_keys > most {
            return Err(ConfigError::new("max_keys", limits.max_keys, "at most 4294967294"));
        }
        if limits.max_items_per_key > most / limits.max_keys {
            return Err(ConfigError::new(
                "max_items_per_key",
                limits.max_items_per_key,
                "at most 4294967294 / `max_keys`",
            ));
        }
        if limits.time_to_live == Some(Duration::ZERO) {
            return Err(ConfigError::new("time_to_live", Duration::ZERO, "longer than zero"));
        }
        Ok(limits)
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
        Ok(BoundedArrayMap(Contents::new(self.checked()?)))
    }

    /// Builds the form that many threads and tasks can share.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_shared(self) -> Result<SharedBoundedArrayMap<K, V, Id>, ConfigError>
    where
        K: Hash + Eq,
    {
        self.build().map(SharedBoundedArrayMap::from)
    }
}

impl<K, V, Id> Clone for Builder<K, V, Id> {
    fn clone(&self) -> Self {
        Self { limits: self.limits, of: PhantomData }
    }
}

impl<K, V, Id> fmt::Debug for Builder<K, V, Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Builder").field(&self.limits).finish()
    }
}
