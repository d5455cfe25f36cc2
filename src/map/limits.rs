//! The limits and policies of a map, and the checks on them.

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
    /// The limit on all items, if one was chosen.
    pub(super) fn most_items(&self) -> Option<usize> {
        (self.max_items < usize::MAX).then_some(self.max_items)
    }

    /// The limit on what all items weigh, if they are weighed.
    pub(super) fn most_weight(&self) -> Option<u64> {
        self.weighed.then_some(self.max_weight)
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
