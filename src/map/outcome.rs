//! What a map answers: the outcome of a push, and the items that expired.

use core::fmt;

use super::items::{Items, NoIndex};
use crate::base::panic::drop_quietly;

/// A key that an outcome does not need. Declared before a lock guard, it is dropped quietly after
/// it.
#[derive(Debug)]
pub(super) struct UnusedKey<K>(pub(super) Option<K>);

impl<K> Drop for UnusedKey<K> {
    #[inline]
    fn drop(&mut self) {
        drop_quietly(self.0.take());
    }
}

/// What a push did, with everything that it pushed out or refused.
///
/// There are these five outcomes and no others, so a `match` can name them all.
///
/// ```
/// use sluicegate::{BoundedArrayMap, Pushed};
///
/// let mut map = BoundedArrayMap::new(1, 2)?;
/// assert_eq!(map.push("likes", 1), Pushed::Stored);
/// assert_eq!(map.push("likes", 2), Pushed::Stored);
///
/// match map.push("likes", 3) {
///     Pushed::Stored => {}
///     Pushed::Displaced { value, .. } => assert_eq!(value, 1),
///     Pushed::Evicted { key, items } => println!("{key} went, with {} items", items.len()),
///     Pushed::Several(gone) => println!("{} keys went", gone.evicted.len()),
///     Pushed::Rejected { reason, value, .. } => println!("{value} was not stored: {reason}"),
/// }
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it owns what was displaced, evicted or rejected, which is lost if it is dropped"]
pub enum Pushed<K, V, Id = NoIndex> {
    /// Stored, and nothing had to go.
    Stored,
    /// Stored, and this, the oldest item under the same key, had to go.
    Displaced {
        /// The item that went.
        value: V,
        /// Its id, if it was pushed with one.
        id: Option<Id>,
    },
    /// Stored, and the least recently used key had to go with all its items.
    Evicted {
        /// The key that went.
        key: K,
        /// Its items, at least one, oldest first.
        items: Items<V, Id>,
    },
    /// Stored, and more than one item or key had to go. This takes a limit on all items or on
    /// their weight, or a map that a [`resize`](crate::BoundedArrayMap::resize) has left over its
    /// limits. The only outcome that allocates.
    Several(Box<Several<K, V, Id>>),
    /// Not stored; the map is as it was, order of recency included. Everything is handed back.
    Rejected {
        /// Why.
        reason: RejectReason,
        /// The key as handed in.
        key: K,
        /// The value as handed in.
        value: V,
        /// The id as handed in, if there was one.
        id: Option<Id>,
    },
}

impl<K, V, Id> Pushed<K, V, Id> {
    /// Whether the item is in the map now: true of all outcomes but [`Rejected`](Self::Rejected).
    #[must_use]
    pub fn is_stored(&self) -> bool {
        !matches!(self, Self::Rejected { .. })
    }

    #[inline]
    pub(super) fn add_displaced(&mut self, value: V, id: Option<Id>) {
        match self {
            Self::Stored => *self = Self::Displaced { value, id },
            _ => self.several().displaced.push((value, id)),
        }
    }

    #[inline]
    pub(super) fn add_evicted(&mut self, key: K, items: Items<V, Id>) {
        match self {
            Self::Stored => *self = Self::Evicted { key, items },
            _ => self.several().evicted.push((key, items)),
        }
    }

    #[cold]
    fn several(&mut self) -> &mut Several<K, V, Id> {
        let mut several = Box::<Several<K, V, Id>>::default();
        match core::mem::replace(self, Self::Stored) {
            Self::Stored => {}
            Self::Displaced { value, id } => several.displaced.push((value, id)),
            Self::Evicted { key, items } => several.evicted.push((key, items)),
            Self::Several(earlier) => several = earlier,
            Self::Rejected { .. } => unreachable!("nothing leaves for an item that is refused"),
        }
        *self = Self::Several(several);
        match self {
            Self::Several(several) => several,
            _ => unreachable!("it was set above"),
        }
    }
}

/// What a push displaced and evicted, if that was more than one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "these items have left the map and are lost if this is dropped"]
#[non_exhaustive]
pub struct Several<K, V, Id = NoIndex> {
    /// The oldest items under the same key, oldest first, each with the id that it was pushed with.
    pub displaced: Vec<(V, Option<Id>)>,
    /// The least recently used keys with all their items, least recently used first.
    pub evicted: Vec<(K, Items<V, Id>)>,
}

impl<K, V, Id> Default for Several<K, V, Id> {
    fn default() -> Self {
        Self { displaced: Vec::new(), evicted: Vec::new() }
    }
}

/// Why a push was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectReason {
    /// The key holds `max_items_per_key` items, or as much weight as the map may, and
    /// [`FullKey::RejectNew`](super::FullKey) was chosen or all of them are checked out.
    KeyFull,
    /// The map has no room for the item without evicting a key, and
    /// [`FullMap::RejectNewKey`](super::FullMap) was chosen or too much is checked out.
    MapFull,
    /// An item with the same id is resident.
    Duplicate,
    /// The item weighs more than the whole map may.
    TooHeavy,
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyFull => "the key holds as much as it may",
            Self::MapFull => "the map holds as much as it may",
            Self::Duplicate => "an item with this id is already in the map",
            Self::TooHeavy => "the item weighs more than the whole map may",
        })
    }
}

impl std::error::Error for RejectReason {}

/// An item whose time to live has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expired<K, V, Id = NoIndex> {
    /// The key that it was under: a clone, if the key still has items.
    pub key: K,
    /// The item.
    pub value: V,
    /// Its id, if it was pushed with one.
    pub id: Option<Id>,
}

impl<K, V, Id> Expired<K, V, Id> {
    /// What is left without the id.
    pub(super) fn into_pair(self) -> (K, V) {
        drop_quietly(self.id);
        (self.key, self.value)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_small() {
        assert!(core::mem::size_of::<Pushed<u64, u64>>() <= 72);
    }
}
