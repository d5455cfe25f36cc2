//! Looking without promoting: the items of a key, and the keys in order of use.

use core::fmt;
use core::iter::{FusedIterator, Rev};

use super::bounded::BoundedArrayMap;
use super::contents::{Contents, KeyRecord, Node};
use super::handle::Handle;
use super::index::NoIndex;
use super::items::Items;
use super::slab::Slab;

/// The items under one key, oldest first, to look at.
///
/// There is no mutable counterpart through which the cap could be passed.
pub struct Array<'a, V> {
    items: &'a Slab<Node<V>>,
    oldest: u32,
    newest: u32,
    len: usize,
}

impl<'a, V> Array<'a, V> {
    pub(super) fn new<K>(record: &KeyRecord<K>, items: &'a Slab<Node<V>>) -> Self {
        let KeyRecord { oldest, newest, len, .. } = *record;
        Self { items, oldest, newest, len: len as usize }
    }

    /// How many items there are: at least 1, at most `max_items_per_key`.
    #[expect(clippy::len_without_is_empty, reason = "a resident key has at least one item")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The item that a full key displaces next.
    pub fn oldest(&self) -> &'a V {
        &self.items[self.oldest].value
    }

    /// The item that was pushed last.
    pub fn newest(&self) -> &'a V {
        &self.items[self.newest].value
    }

    /// The items, oldest first.
    pub fn iter(&self) -> ArrayIter<'a, V> {
        ArrayIter { array: *self }
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
    /// What is left of it.
    array: Array<'a, V>,
}

impl<V> Clone for ArrayIter<'_, V> {
    fn clone(&self) -> Self {
        Self { array: self.array }
    }
}

impl<'a, V> Iterator for ArrayIter<'a, V> {
    type Item = &'a V;

    fn next(&mut self) -> Option<&'a V> {
        self.array.len = self.array.len.checked_sub(1)?;
        let node = &self.array.items[self.array.oldest];
        self.array.oldest = node.newer;
        Some(&node.value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.array.len, Some(self.array.len))
    }
}

impl<V> DoubleEndedIterator for ArrayIter<'_, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.array.len = self.array.len.checked_sub(1)?;
        let node = &self.array.items[self.array.newest];
        self.array.newest = node.older;
        Some(&node.value)
    }
}

impl<V> ExactSizeIterator for ArrayIter<'_, V> {}

impl<V> FusedIterator for ArrayIter<'_, V> {}

/// Iterates over keys and their items, from the most to the least recently used key.
///
/// Looking promotes nothing.
#[must_use = "iterators are lazy"]
pub struct Iter<'a, K, V> {
    keys: &'a Slab<KeyRecord<K>>,
    items: &'a Slab<Node<V>>,
    order: lru::Iter<'a, Handle, u32>,
}

/// [`Iter`] backwards: from the least to the most recently used key, which is the order in which
/// keys are evicted.
pub type IterLru<'a, K, V> = Rev<Iter<'a, K, V>>;

impl<'a, K, V> Iter<'a, K, V> {
    pub(super) fn new<Id>(contents: &'a Contents<K, V, Id>) -> Self {
        let order = contents.recency.iter();
        Self { keys: &contents.keys, items: &contents.items, order }
    }

    fn at(&self, slot: u32) -> (&'a K, Array<'a, V>) {
        let record = &self.keys[slot];
        (&record.key, Array::new(record, self.items))
    }
}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Self { keys: self.keys, items: self.items, order: self.order.clone() }
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
        self.order.next().map(|(handle, _)| self.at(handle.slot))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.order.size_hint()
    }
}

impl<K, V> DoubleEndedIterator for Iter<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.order.next_back().map(|(handle, _)| self.at(handle.slot))
    }
}

impl<K, V> ExactSizeIterator for Iter<'_, K, V> {}

impl<K, V> FusedIterator for Iter<'_, K, V> {}

/// Owns what was in a map, and hands it over key by key, from the least to the most recently used.
#[must_use = "everything that was in the map is lost if this is dropped"]
pub struct IntoIter<K, V, Id = NoIndex>(pub(super) Contents<K, V, Id>);

impl<K, V, Id> Iterator for IntoIter<K, V, Id> {
    type Item = (K, Items<V, Id>);

    fn next(&mut self) -> Option<Self::Item> {
        let slot = self.0.recency.least_recent()?;
        Some(self.0.take(slot))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.0.keys.len();
        (len, Some(len))
    }
}

impl<K, V, Id> ExactSizeIterator for IntoIter<K, V, Id> {}

impl<K, V, Id> FusedIterator for IntoIter<K, V, Id> {}

impl<K: fmt::Debug, V: fmt::Debug, Id> fmt::Debug for IntoIter<K, V, Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(Iter::new(&self.0).rev()).finish()
    }
}

impl<K, V, Id> IntoIterator for BoundedArrayMap<K, V, Id> {
    type Item = (K, Items<V, Id>);
    type IntoIter = IntoIter<K, V, Id>;

    fn into_iter(self) -> IntoIter<K, V, Id> {
        IntoIter(self.0)
    }
}

impl<'a, K, V, Id> IntoIterator for &'a BoundedArrayMap<K, V, Id> {
    type Item = (&'a K, Array<'a, V>);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        Iter::new(&self.0)
    }
}
