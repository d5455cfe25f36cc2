//! What a map answers: the outcome of a push, and the items that expired.

use core::fmt;

use super::items::{Items, NoIndex};
use crate::base::panic::quietly;

/// Drops a key or an id that is not part of an answer. The answer owns values, which a panic in
/// this destructor must not take with it.
#[inline]
pub(super) fn drop_quietly<T>(leftover: T) {
    if core::mem::needs_drop::<T>() {
        quietly(|| drop(leftover));
    }
}

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
/// There are these four outcomes and no others, so a `match` can name them all.
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
}

/// Why a push was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectReason {
    /// The key holds `max_items_per_key` items, or as much weight as the map may, and
    /// [`FullKey::RejectNew`](super::FullKey) was chosen or all of them are checked out. Also if a
    /// [`resize`](crate::BoundedArrayMap::resize) has left it with so many that more than one
    /// would have to go for a single [`push`](crate::BoundedArrayMap::push).
    KeyFull,
    /// The map has no room for the item without evicting a key, and
    /// [`FullMap::RejectNewKey`](super::FullMap) was chosen or too much is checked out. Also if a
    /// [`resize`](crate::BoundedArrayMap::resize) has left it with so many keys that more than one
    /// would have to go for a single [`push`](crate::BoundedArrayMap::push).
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
