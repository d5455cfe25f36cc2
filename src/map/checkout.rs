//! Working through a key's items under a guard, which puts back what was not acknowledged.

use core::borrow::Borrow;
use core::fmt;
use core::hash::Hash;

use super::bounded::BoundedArrayMap;
use super::core::Core;
use super::item_buf::ItemBuf;
use super::items::NoIndex;
use super::sharded::{ShardRef, ShardedBoundedArrayMap};
use super::shared::SharedBoundedArrayMap;
use crate::base::panic::drop_quietly;

/// Where items that are out came from, and how to get at it.
pub(super) trait Source<K, V, Id> {
    fn with<R>(&mut self, act: impl FnOnce(&mut Core<K, V, Id>) -> R) -> R;
}

impl<K, V, Id> Source<K, V, Id> for &mut BoundedArrayMap<K, V, Id> {
    fn with<R>(&mut self, act: impl FnOnce(&mut Core<K, V, Id>) -> R) -> R {
        act(&mut self.core)
    }
}

impl<K, V, Id> Source<K, V, Id> for &SharedBoundedArrayMap<K, V, Id> {
    fn with<R>(&mut self, act: impl FnOnce(&mut Core<K, V, Id>) -> R) -> R {
        act(&mut self.core.lock())
    }
}

impl<K, V> Source<K, V, NoIndex> for ShardRef<'_, K, V> {
    fn with<R>(&mut self, act: impl FnOnce(&mut Core<K, V, NoIndex>) -> R) -> R {
        self.removing(act)
    }
}

macro_rules! guard {
    ($(#[$doc:meta])* $Guard:ident[$($Of:ident $(= $Usual:ty)?),+], $Source:ty) => {
        $(#[$doc])*
        #[must_use = "its items go back as soon as it is dropped"]
        pub struct $Guard<'a, $($Of $(= $Usual)?),+> {
            source: $Source,
            slot: u32,
            items: ItemBuf<V>,
        }

        impl<$($Of),+> $Guard<'_, $($Of),+> {
            /// How many items are left to acknowledge.
            #[must_use]
            pub fn len(&self) -> usize {
                self.items.len()
            }

            /// Whether all items have been acknowledged.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The oldest item that is left: the one that is acknowledged next.
            #[must_use]
            pub fn first(&self) -> Option<&V> {
                self.items.get(0)
            }

            /// The items that are left, oldest first.
            pub fn iter(&self) -> impl DoubleEndedIterator<Item = &V> + '_ {
                self.items.iter()
            }

            /// The oldest item is done with: it leaves the map for good, with its id, and is
            /// handed over. It counts as taken. O(1).
            #[must_use = "it owns the item, which is lost if it is dropped"]
            pub fn acknowledge(&mut self) -> Option<V> {
                let value = self.items.pop_first()?;
                let slot = self.slot;
                // Dropped after the lock, if there is one.
                let id = self.source.with(|core| core.acknowledge(slot));
                drop_quietly(id);
                Some(value)
            }
        }

        impl<$($Of),+> Drop for $Guard<'_, $($Of),+> {
            /// Puts back what was not acknowledged. O(items that have come since).
            fn drop(&mut self) {
                let rest = core::mem::replace(&mut self.items, ItemBuf::EMPTY);
                let slot = self.slot;
                let key = self.source.with(|core| core.check_in(slot, rest));
                drop_quietly(key);
            }
        }

        impl<$($Of),+> fmt::Debug for $Guard<'_, $($Of),+>
        where
            V: fmt::Debug,
        {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(self.iter()).finish()
            }
        }
    };
}

guard! {
    /// The items of one key of a [`BoundedArrayMap`], to be worked through one by one.
    ///
    /// [`acknowledge`](Self::acknowledge) each item when it is done with. What is left when this
    /// is dropped, after an error say, is in the map as before, and the key is the most recently
    /// used. If it is leaked (`mem::forget`), the key and its items still count.
    Checkout[K, V, Id = NoIndex], &'a mut BoundedArrayMap<K, V, Id>
}

guard! {
    /// The items of one key of a [`SharedBoundedArrayMap`], to be worked through one by one while
    /// others use the map: no lock is held meanwhile.
    ///
    /// [`acknowledge`](Self::acknowledge) each item when it is done with. What is left when this
    /// is dropped, after an error or a cancellation, for example, is in the map again, in order and
    /// before what has been pushed since; it counted all the time. The key is then the most
    /// recently used. If it is leaked (`mem::forget`), the key and its items still count.
    SharedCheckout[K, V, Id = NoIndex], &'a SharedBoundedArrayMap<K, V, Id>
}

guard! {
    /// The items of one key of a [`ShardedBoundedArrayMap`], to be worked through one by one while
    /// others use the map: all that is said of [`SharedCheckout`] is true of this.
    ShardedCheckout[K, V], ShardRef<'a, K, V>
}

impl<K: Hash + Eq, V, Id> BoundedArrayMap<K, V, Id> {
    /// All items of a key, under a guard that puts back those that are not acknowledged; `None` if
    /// the key is not in the map.
    ///
    /// O(1), or O(items under the key) if items expire, weigh something or are indexed.
    ///
    /// ```
    /// use sluicegate::BoundedArrayMap;
    ///
    /// let mut map = BoundedArrayMap::new(10, 10)?;
    /// for like in 0..3 {
    ///     assert!(map.push("post", like).is_stored());
    /// }
    /// let store = |like: &i32| if *like < 2 { Ok(()) } else { Err("the disk is full") };
    ///
    /// let mut likes = map.checkout("post").expect("there are some");
    /// while likes.first().is_some_and(|like| store(like).is_ok()) {
    ///     assert!(likes.acknowledge().is_some());
    /// }
    /// drop(likes);
    /// assert_eq!(map.take("post").collect::<Vec<_>>(), [2]);
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    pub fn checkout<Q>(&mut self, key: &Q) -> Option<Checkout<'_, K, V, Id>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let slot = self.core.find_available(key)?;
        let items = self.core.check_out(slot);
        Some(Checkout { source: self, slot, items })
    }
}

impl<K: Hash + Eq, V, Id> SharedBoundedArrayMap<K, V, Id> {
    /// As [`BoundedArrayMap::checkout`]: `None` also if the key is checked out already.
    pub fn checkout<Q>(&self, key: &Q) -> Option<SharedCheckout<'_, K, V, Id>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (slot, items) = {
            let mut core = self.core.lock();
            let slot = core.find_available(key)?;
            (slot, core.check_out(slot))
        };
        Some(SharedCheckout { source: self, slot, items })
    }
}

impl<K: Hash + Eq, V> ShardedBoundedArrayMap<K, V> {
    /// As [`SharedBoundedArrayMap::checkout`]. The key stays counted in the cap of the whole, and
    /// none of the shards evicts it.
    pub fn checkout<Q>(&self, key: &Q) -> Option<ShardedCheckout<'_, K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (hash, mut source) = self.shard_with(key);
        let (slot, items) = source.with(|core| {
            let slot = core.find_available_hashed(hash, key)?;
            Some((slot, core.check_out(slot)))
        })?;
        Some(ShardedCheckout { source, slot, items })
    }
}
