//! Which ids are resident, and on which ticket.

use core::borrow::Borrow;

use crate::base::table::SlotTable;

/// The index of a map that has none: no value of this type exists, so such a map has no ids, and
/// its index takes neither memory nor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoIndex {}

#[derive(Debug)]
pub(super) struct Index<Id> {
    /// By ticket, as long as the highest that ever had an id; with the hash that it came in with.
    ids: Vec<Option<(Id, u64)>>,
    table: SlotTable,
}

impl<Id> Index<Id> {
    pub(super) fn new() -> Self {
        Self { ids: Vec::new(), table: SlotTable::new() }
    }

    pub(super) fn insert(&mut self, ticket: u32, hash: u64, id: Id) {
        if self.ids.len() <= ticket as usize {
            self.ids.resize_with(ticket as usize + 1, || None);
        }
        self.ids[ticket as usize] = Some((id, hash));
        let hash_of = |ticket| self.ids[ticket as usize].as_ref().map_or(0, |(_, hash)| *hash);
        self.table.insert(hash, ticket, hash_of);
    }

    /// Takes out the id of an item that leaves, if it has one.
    pub(super) fn remove(&mut self, ticket: u32) -> Option<Id> {
        let (id, hash) = self.ids.get_mut(ticket as usize)?.take()?;
        self.table.remove(hash, ticket);
        Some(id)
    }

    /// The ticket of the item with this id.
    pub(super) fn find<Q>(&self, hash: u64, id: &Q) -> Option<u32>
    where
        Id: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.table.find(hash, |ticket| match &self.ids[ticket as usize] {
            Some((known, _)) => known.borrow() == id,
            None => false,
        })
    }
}
