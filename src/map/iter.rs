//! Looking without promoting: the items of a key, and the keys in order of use.

use core::fmt;
use core::iter::{FusedIterator, Rev};

use super::bounded::BoundedArrayMap;
use super::core::Core;
use super::item_buf::{ItemBuf, ItemBufIter};
use super::items::Items;
use super::items::NoIndex;
use super::keys::Order;

/// The items under one key, oldest first, to look at.
///
/// There is no mutable counterpart through which the cap could be passed.
pub struct Array<'a, V>(&'a ItemBuf<V>);

impl<'a, V> Array<'a, V> {
    /// `None` if there are no items: all are checked out.
    pub(super) fn new(items: &'a ItemBuf<V>) -> Option<Self> {
        (items.len() > 0).then_some(Self(items))
    }

    /// How many items there are: at least 1, at most `max_items_per_key`.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one item")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The item that a full key displaces next.
    #[must_use]
    pub fn oldest(&self) -> &'a V {
        self.at(0)
    }

    /// The item that was pushed last.
    #[must_use]
    pub fn newest(&self) -> &'a V {
        self.at(self.len() - 1)
    }

    fn at(&self, position: usize) -> &'a V {
        match self.0.get(position) {
            Some(item) => item,
            None => unreachable!("there is at least one item"),
        }
    }

    /// The items, oldest first.
    pub fn iter(&self) -> ArrayIter<'a, V> {
        ArrayIter { left: self.len(), items: self.0.iter() }
    }
}

impl<V> Clone for Array<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Array<'_, V> {}

impl<V: fmt::Debug> fmt::Debug for Array<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, V> IntoIterator for Array<'a, V> {
    type Item = &'a V;
    type IntoIter = ArrayIter<'a, V>;

    fn into_iter(self) -> ArrayIter<'a, V> {
        self.iter()
    }
}

/// Iterates over the items of an [`Array`], oldest first.
#[must_use = "iterators are lazy"]
#[derive(Debug)]
pub struct ArrayIter<'a, V> {
    items: ItemBufIter<'a, V>,
    left: usize,
}

impl<V> Clone for ArrayIter<'_, V> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), left: self.left }
    }
}

impl<'a, V> Iterator for ArrayIter<'a, V> {
    type Item = &'a V;

    fn next(&mut self) -> Option<&'a V> {
        let item = self.items.next()?;
        self.left -= 1;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<V> DoubleEndedIterator for ArrayIter<'_, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let item = self.items.next_back()?;
        self.left -= 1;
        Some(item)
    }
}

impl<V> ExactSizeIterator for ArrayIter<'_, V> {}

impl<V> FusedIterator for ArrayIter<'_, V> {}

/// Iterates over keys and their items, from the most to the least recently used key.
///
/// Looking promotes nothing.
#[must_use = "iterators are lazy"]
pub struct Iter<'a, K, V>(Order<'a, K, V>);

/// [`Iter`] backwards: from the least to the most recently used key, which is the order in which
/// keys are evicted.
pub type IterLru<'a, K, V> = Rev<Iter<'a, K, V>>;

impl<'a, K, V> Iter<'a, K, V> {
    pub(super) fn new<Id>(core: &'a Core<K, V, Id>) -> Self {
        Self(core.keys.order())
    }

    fn at(&self, slot: u32) -> (&'a K, Array<'a, V>) {
        let record = self.0.keys().at(slot);
        (&record.key, Array(&record.items))
    }
}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Iter<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.clone()).finish()
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, Array<'a, V>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|slot| self.at(slot))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.left(), Some(self.0.left()))
    }
}

impl<K, V> DoubleEndedIterator for Iter<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(|slot| self.at(slot))
    }
}

impl<K, V> ExactSizeIterator for Iter<'_, K, V> {}

impl<K, V> FusedIterator for Iter<'_, K, V> {}

/// Owns what was in a map, and hands it over key by key, from the least to the most recently used.
#[must_use = "everything that was in the map is lost if this is dropped"]
pub struct IntoIter<K, V, Id = NoIndex> {
    first: std::vec::IntoIter<(K, Items<V, Id>)>,
    rest: Option<Core<K, V, Id>>,
}

impl<K, V, Id> IntoIter<K, V, Id> {
    pub(super) fn new(first: Vec<(K, Items<V, Id>)>, rest: Option<Core<K, V, Id>>) -> Self {
        Self { first: first.into_iter(), rest }
    }
}

impl<K, V, Id> Iterator for IntoIter<K, V, Id> {
    type Item = (K, Items<V, Id>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(next) = self.first.next() {
            return Some(next);
        }
        let rest = self.rest.as_mut()?;
        let slot = rest.keys.order().next_back()?;
        Some(rest.take(slot))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.keys.order().left());
        let len = self.first.len() + rest;
        (len, Some(len))
    }
}

impl<K, V, Id> ExactSizeIterator for IntoIter<K, V, Id> {}

impl<K, V, Id> FusedIterator for IntoIter<K, V, Id> {}

impl<K: fmt::Debug, V: fmt::Debug, Id> fmt::Debug for IntoIter<K, V, Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        map.entries(self.first.as_slice().iter().map(|(key, items)| (key, items)));
        map.entries(self.rest.iter().flat_map(|rest| Iter::new(rest).rev())).finish()
    }
}

impl<K, V, Id> IntoIterator for BoundedArrayMap<K, V, Id> {
    type Item = (K, Items<V, Id>);
    type IntoIter = IntoIter<K, V, Id>;

    fn into_iter(mut self) -> IntoIter<K, V, Id> {
        IntoIter::new(Vec::new(), Some(self.core.take_all()))
    }
}

impl<'a, K, V, Id> IntoIterator for &'a BoundedArrayMap<K, V, Id> {
    type Item = (&'a K, Array<'a, V>);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        Iter::new(&self.core)
    }
}
