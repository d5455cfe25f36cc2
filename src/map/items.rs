//! Items that have left the map.

use core::fmt;
use core::iter::FusedIterator;

use super::index::NoIndex;

/// An item on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<V, Id> {
    pub(super) value: V,
    pub(super) id: Option<Id>,
}

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
    /// Kept apart so that a single item, which most keys hold, takes no allocation.
    first: Option<Entry<V, Id>>,
    rest: std::vec::IntoIter<Entry<V, Id>>,
}

impl<V, Id> Items<V, Id> {
    pub(super) fn none() -> Self {
        Self { first: None, rest: Vec::new().into_iter() }
    }

    /// Of entries that are there, oldest first.
    pub(super) fn gather(count: usize, mut next: impl FnMut() -> Entry<V, Id>) -> Self {
        let first = (count > 0).then(&mut next);
        let mut rest = Vec::with_capacity(count.saturating_sub(1));
        rest.extend((1..count).map(|_| next()));
        Self { first, rest: rest.into_iter() }
    }

    /// The values that are left, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &V> + '_ {
        self.first.iter().chain(self.rest.as_slice()).map(|entry| &entry.value)
    }

    /// Each value with the id that it was pushed with, if any, oldest first.
    #[must_use = "these items have left the map and are lost if this is dropped"]
    pub fn with_ids(self) -> impl DoubleEndedIterator<Item = (V, Option<Id>)> {
        self.first.into_iter().chain(self.rest).map(|entry| (entry.value, entry.id))
    }
}

impl<V, Id> Iterator for Items<V, Id> {
    type Item = V;

    fn next(&mut self) -> Option<V> {
        let entry = self.first.take().or_else(|| self.rest.next())?;
        Some(entry.value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = usize::from(self.first.is_some()) + self.rest.len();
        (len, Some(len))
    }
}

impl<V, Id> DoubleEndedIterator for Items<V, Id> {
    fn next_back(&mut self) -> Option<V> {
        let entry = self.rest.next_back().or_else(|| self.first.take())?;
        Some(entry.value)
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
        let ours = self.first.iter().chain(self.rest.as_slice());
        ours.eq(other.first.iter().chain(other.rest.as_slice()))
    }
}

impl<V: Eq, Id: Eq> Eq for Items<V, Id> {}
