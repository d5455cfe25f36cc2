//! The index: items by their id.

use core::borrow::Borrow;

use crate::base::table::SlotTable;

#[derive(Debug)]
pub(in crate::map) struct Ids<Id> {
    /// The ids and their hashes, by the slot of their item.
    ids: Vec<Option<(Id, u64)>>,
    table: SlotTable,
}

impl<Id> Ids<Id> {
    pub(in crate::map) fn new() -> Self {
        Self { ids: Vec::new(), table: SlotTable::new() }
    }

    pub(in crate::map) fn insert(&mut self, meta: u32, hash: u64, id: Id) {
        if self.ids.len() <= meta as usize {
            self.ids.resize_with(meta as usize + 1, || None);
        }
        self.ids[meta as usize] = Some((id, hash));
        let hash_of = |meta| self.ids[meta as usize].as_ref().map_or(0, |(_, hash)| *hash);
        self.table.insert(hash, meta, hash_of);
    }

    /// Removes the id of an item, if it has one.
    pub(in crate::map) fn remove(&mut self, meta: u32) -> Option<Id> {
        let (id, hash) = self.ids.get_mut(meta as usize)?.take()?;
        self.table.remove(hash, meta);
        Some(id)
    }

    /// The slot of the item with this id.
    pub(in crate::map) fn find<Q>(&self, hash: u64, id: &Q) -> Option<u32>
    where
        Id: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.table.find(hash, |meta| match &self.ids[meta as usize] {
            Some((known, _)) => known.borrow() == id,
            None => false,
        })
    }

    /// The slots of the items with an id.
    #[cfg(debug_assertions)]
    pub(in crate::map) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.ids).filter(|(_, id)| id.is_some()).map(|(meta, _)| meta)
    }

    /// Panics unless the table finds each id and nothing else.
    #[cfg(debug_assertions)]
    pub(in crate::map) fn validate(&self) {
        let ids = (0..).zip(&self.ids);
        self.table.validate(ids.filter_map(|(meta, id)| Some((meta, id.as_ref()?.1))));
    }
}
