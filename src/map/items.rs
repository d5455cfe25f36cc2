//! Items that have left the map.

use core::fmt;
use core::iter::FusedIterator;

use super::item_buf::ItemBuf;
use crate::base::panic::drop_quietly;

/// The index of a map that has none: no value of this type exists, so such a map has no ids, and
/// its index takes neither memory nor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoIndex {}

/// The items of one key, which have left the map, oldest first.
///
/// An iterator over the values; [`with_ids`](Self::with_ids) makes it one over values and ids.
///
/// ```
/// use sluicegate::BoundedArrayMap;
///
/// let mut map = BoundedArrayMap::new(10, 10)?;
/// for like in 0..3 {
///     assert!(map.push("post", like).is_stored());
/// }
/// assert_eq!(map.take("post").collect::<Vec<_>>(), [0, 1, 2]);
/// assert_eq!(map.take("post").len(), 0);
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
#[must_use = "these items have left the map and are lost if this is dropped"]
#[derive(Clone)]
pub struct Items<V, Id = NoIndex> {
    values: ItemBuf<V>,
    /// As long as the values; none if the map has no index, and then no larger than a pointer.
    ids: Option<Box<ItemBuf<Option<Id>>>>,
}

impl<V, Id> Items<V, Id> {
    pub(super) fn none() -> Self {
        Self::of(ItemBuf::EMPTY)
    }

    /// Without ids.
    #[inline]
    pub(super) fn of(values: ItemBuf<V>) -> Self {
        Self { values, ids: None }
    }

    pub(super) fn new(values: ItemBuf<V>, ids: ItemBuf<Option<Id>>) -> Self {
        Self { values, ids: (ids.len() > 0).then(|| Box::new(ids)) }
    }

    fn ids(&self) -> impl Iterator<Item = &Option<Id>> {
        self.ids.iter().flat_map(|ids| ids.iter())
    }

    /// The values that are left, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &V> + '_ {
        self.values.iter()
    }

    pub(super) fn iter_with_ids(&self) -> impl Iterator<Item = (&V, Option<&Id>)> + '_ {
        let mut ids = self.ids();
        self.values.iter().map(move |value| (value, ids.next().and_then(Option::as_ref)))
    }

    /// Each value with the id that it was pushed with, if any, oldest first.
    #[must_use = "these items have left the map and are lost if this is dropped"]
    pub fn with_ids(mut self) -> impl Iterator<Item = (V, Option<Id>)> {
        core::iter::from_fn(move || {
            let value = self.values.pop_first()?;
            let id = self.ids.as_mut().and_then(|ids| ids.pop_first());
            Some((value, id.flatten()))
        })
    }
}

impl<V, Id> Iterator for Items<V, Id> {
    type Item = V;

    fn next(&mut self) -> Option<V> {
        let value = self.values.pop_first();
        if let Some(ids) = &mut self.ids {
            drop_quietly(ids.pop_first());
        }
        value
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.values.len(), Some(self.values.len()))
    }
}

impl<V, Id> DoubleEndedIterator for Items<V, Id> {
    fn next_back(&mut self) -> Option<V> {
        let value = self.values.pop_last();
        if let Some(ids) = &mut self.ids {
            drop_quietly(ids.pop_last());
        }
        value
    }
}

impl<V, Id> ExactSizeIterator for Items<V, Id> {}

impl<V, Id> FusedIterator for Items<V, Id> {}

impl<V: fmt::Debug, Id> fmt::Debug for Items<V, Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<V: PartialEq, Id: PartialEq> PartialEq for Items<V, Id> {
    fn eq(&self, other: &Self) -> bool {
        self.values.iter().eq(other.values.iter()) && self.ids().eq(other.ids())
    }
}

impl<V: Eq, Id: Eq> Eq for Items<V, Id> {}
