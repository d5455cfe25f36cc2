//! Which ids are resident, and under which item.

use core::borrow::Borrow;
use std::collections::HashSet;

use super::handle::{Handle, Lookup, Prehashed, Probe};

/// The index of a map that has none: no value of this type exists, so such a map has no ids, and
/// its index takes neither memory nor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoIndex {}

#[derive(Debug)]
pub(super) struct Index<Id> {
    /// By item slot, as long as the highest slot that ever had an id.
    ids: Vec<Option<(Id, u64)>>,
    handles: HashSet<Handle, Prehashed>,
}

impl<Id> Index<Id> {
    pub(super) fn new() -> Self {
        Self { ids: Vec::new(), handles: HashSet::default() }
    }

    pub(super) fn insert(&mut self, slot: u32, hash: u64, id: Id) {
        if self.ids.len() <= slot as usize {
            self.ids.resize_with(slot as usize + 1, || None);
        }
        self.ids[slot as usize] = Some((id, hash));
        self.handles.insert(Handle { hash, slot });
    }

    /// Takes out the id of an item that leaves, if it has one.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Id> {
        let (id, hash) = self.ids.get_mut(slot as usize)?.take()?;
        self.handles.remove(&Handle { hash, slot });
        Some(id)
    }

    /// The slot of the item with this id.
    pub(super) fn find<Q>(&self, hash: u64, id: &Q) -> Option<u32>
    where
        Id: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let same = |slot: u32| match &self.ids[slot as usize] {
            Some((known, _)) => known.borrow() == id,
            None => false,
        };
        let lookup: &dyn Probe = &Lookup { hash, same };
        self.handles.get(lookup).map(|handle| handle.slot)
    }
}
