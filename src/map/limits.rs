//! The limits and policies of a map, and the checks on them.

use std::sync::Arc;
use std::time::Duration;

use crate::ConfigError;
use crate::base::slab::NONE;

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

/// The limits of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapLimits {
    /// The most keys at once.
    pub max_keys: usize,
    /// The most items at once under each key.
    pub max_items_per_key: usize,
    /// The most items at once under all keys together, if that is limited.
    pub max_items: Option<usize>,
    /// The most that all items may weigh together, if they are weighed.
    pub max_weight: Option<u64>,
    /// How long items live, if they expire.
    pub time_to_live: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_keys: usize,
    pub(super) max_items_per_key: usize,
    pub(super) full_key: FullKey,
    pub(super) full_map: FullMap,
    pub(super) time_to_live: Option<Duration>,
    pub(super) max_items: usize,
    pub(super) max_weight: u64,
    pub(super) weighed: bool,
    pub(super) indexed: bool,
    /// Whether nothing was chosen but the two caps.
    pub(super) fast_path: bool,
}

impl Limits {
    pub(super) fn shown(&self) -> MapLimits {
        MapLimits {
            max_keys: self.max_keys,
            max_items_per_key: self.max_items_per_key,
            max_items: (self.max_items < usize::MAX).then_some(self.max_items),
            max_weight: self.weighed.then_some(self.max_weight),
            time_to_live: self.time_to_live,
        }
    }

    /// Checks what can be changed later too.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        ConfigError::at_least_one("max_keys", self.max_keys)?;
        ConfigError::at_least_one("max_items_per_key", self.max_items_per_key)?;
        if self.max_keys > MOST {
            return Err(ConfigError::new("max_keys", self.max_keys, "at most 4294967294"));
        }
        if self.max_items_per_key > MOST / self.max_keys {
            return Err(ConfigError::new(
                "max_items_per_key",
                self.max_items_per_key,
                "at most 4294967294 / `max_keys`",
            ));
        }
        if self.max_items < self.max_items_per_key {
            let expected = "at least `max_items_per_key`";
            return Err(ConfigError::new("max_items", self.max_items, expected));
        }
        if self.max_weight == 0 || self.max_weight > HEAVIEST {
            let expected = "at least 1 and at most 9223372036854775807";
            return Err(ConfigError::new("max_weight", self.max_weight, expected));
        }
        Ok(())
    }
}

/// Keys and items are numbered in 32 bits.
pub(super) const MOST: usize = NONE as usize - 1;

/// So that the weight of a map and of one item more cannot overflow.
pub(super) const HEAVIEST: u64 = u64::MAX / 2;

/// Says what an item weighs.
pub(super) struct Weigher<K, V>(Option<Arc<Weigh<K, V>>>);

type Weigh<K, V> = dyn Fn(&K, &V) -> u64 + Send + Sync;

impl<K, V> Weigher<K, V> {
    pub(super) const NONE: Self = Self(None);

    pub(super) fn new(weigh: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(weigh)))
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    #[inline]
    pub(super) fn weigh(&self, key: &K, value: &V) -> u64 {
        self.0.as_ref().map_or(0, |weigh| weigh(key, value))
    }
}

impl<K, V> Clone for Weigher<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
