//! Items that have left the map.

use core::fmt;
use core::iter::FusedIterator;

use super::index::NoIndex;
use super::line::Line;
use super::outcome::drop_quietly;

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
    values: Line<V>,
    /// As long as the values, or empty if the map has no index.
    ids: Line<Option<Id>>,
}

impl<V, Id> Items<V, Id> {
    pub(super) fn none() -> Self {
        Self { values: Line::EMPTY, ids: Line::EMPTY }
    }

    pub(super) fn new(values: Line<V>, ids: Line<Option<Id>>) -> Self {
        Self { values, ids }
    }

    /// The values that are left, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &V> + '_ {
        self.values.iter()
    }

    pub(super) fn iter_with_ids(&self) -> impl Iterator<Item = (&V, Option<&Id>)> + '_ {
        let mut ids = self.ids.iter();
        self.values.iter().map(move |value| (value, ids.next().and_then(Option::as_ref)))
    }

    /// Each value with the id that it was pushed with, if any, oldest first.
    #[must_use = "these items have left the map and are lost if this is dropped"]
    pub fn with_ids(mut self) -> impl Iterator<Item = (V, Option<Id>)> {
        core::iter::from_fn(move || {
            let value = self.values.pop_first()?;
            Some((value, self.ids.pop_first().flatten()))
        })
    }
}

impl<V, Id> Iterator for Items<V, Id> {
    type Item = V;

    fn next(&mut self) -> Option<V> {
        // Both first: should dropping the id panic, the rest must still be in pairs.
        let (value, id) = (self.values.pop_first(), self.ids.pop_first());
        drop_quietly(id);
        value
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.values.len(), Some(self.values.len()))
    }
}

impl<V, Id> DoubleEndedIterator for Items<V, Id> {
    fn next_back(&mut self) -> Option<V> {
        let (value, id) = (self.values.pop_last(), self.ids.pop_last());
        drop_quietly(id);
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
        self.values.iter().eq(other.values.iter()) && self.ids.iter().eq(other.ids.iter())
    }
}

impl<V: Eq, Id: Eq> Eq for Items<V, Id> {}
