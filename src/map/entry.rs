//! What a push takes.

use std::time::Instant;

use super::items::NoIndex;

/// An item to [push](crate::BoundedArrayMap::push_entry), with more than its key and value.
///
/// ```
/// use std::time::Instant;
/// use sluicegate::{BoundedArrayMap, Pushed};
/// use sluicegate::map::Entry;
///
/// let builder = BoundedArrayMap::builder().max_keys(1).max_items_per_key(9);
/// let mut map = builder.indexed().build()?;
/// let entry = Entry::new("post", "like").id(7).at(Instant::now());
/// assert_eq!(map.push_entry(entry), Pushed::Stored);
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an entry is in no map until it is pushed"]
pub struct Entry<K, V, Id = NoIndex> {
    pub(super) key: K,
    pub(super) value: V,
    pub(super) id: Option<Id>,
    pub(super) now: Option<Instant>,
}

impl<K, V, Id> Entry<K, V, Id> {
    /// An item with no id, which arrives when it is pushed.
    pub fn new(key: K, value: V) -> Self {
        Self { key, value, id: None, now: None }
    }

    /// The item's id. The push is refused if an item with the same id is resident.
    ///
    /// An id is resident exactly as long as its item, whichever way that leaves. An item that is
    /// due to expire is resident until `expire` has handed it over.
    pub fn id(mut self, id: Id) -> Self {
        self.id = Some(id);
        self
    }

    /// The item's arrival; by default the map reads the clock if items expire.
    ///
    /// An item counts as having arrived no earlier than any that was pushed before it and is
    /// resident. If items do not expire, `now` is not used.
    pub fn at(mut self, now: Instant) -> Self {
        self.now = Some(now);
        self
    }
}
