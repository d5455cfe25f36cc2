//! How items leave, one by one or with their key: second steps, which call no user code.

use core::borrow::Borrow;

use super::contents::{Contents, Marked};
use super::items::Items;
use super::keys::Record;
use super::line::Line;
use super::outcome::Expired;
use super::tickets::Gone;

type KeysWithItems<K, V, Id> = Vec<(K, Items<V, Id>)>;

impl<K, V, Id> Contents<K, V, Id> {
    /// The most there ever were is noted as they become fewer, so that a push need not look.
    #[inline]
    pub(super) fn count_out(&mut self, items: usize) {
        self.stats.peak_items = self.stats.peak_items.max(self.items);
        self.items -= items;
    }

    /// The one way out for a single item: its key's line and its ticket go together. The key
    /// stays, with no items perhaps.
    pub(super) fn remove_item(&mut self, slot: u32, place: usize) -> (V, Option<Id>) {
        let out = self.keys.out(slot);
        let items = &mut self.keys.at_mut(slot).items;
        let value = if place == 0 { items.pop_first() } else { items.remove(place) };
        let Some(value) = value else { unreachable!("only what is there is removed") };
        self.count_out(1);
        let id = match &mut self.tickets {
            Some(tickets) => {
                let Gone { id, weight } = tickets.leave(slot, out + place);
                self.weight -= weight;
                id
            }
            None => None,
        };
        self.rank(slot);
        (value, id)
    }

    /// The way out for some items of a key. The key stays, with no items perhaps.
    pub(super) fn remove_marked(&mut self, slot: u32, marks: &[bool]) -> Items<V, Id> {
        let out = self.keys.out(slot);
        let values = self.keys.at_mut(slot).items.extract(marks, &mut self.spares);
        self.count_out(values.len());
        let ids = match &mut self.tickets {
            Some(tickets) => {
                let mut with_out = vec![false; out];
                with_out.extend(marks);
                let (ids, weight) = tickets.leave_some(slot, &with_out);
                self.weight -= weight;
                ids
            }
            None => Line::EMPTY,
        };
        self.rank(slot);
        Items::new(values, ids)
    }

    /// The way out for a key that is not checked out and all its items.
    #[inline]
    pub(super) fn remove_key(&mut self, slot: u32) -> (K, Items<V, Id>) {
        let record = self.keys.remove(slot);
        self.remove_rest(slot, record)
    }

    /// The rest of the way, for a key that has left the record of keys.
    #[inline]
    fn remove_rest(&mut self, slot: u32, record: Record<K, V>) -> (K, Items<V, Id>) {
        self.count_out(record.items.len());
        if let Some(heaviest) = &mut self.heaviest {
            heaviest.forget(slot);
        }
        let items = match &mut self.tickets {
            Some(tickets) => {
                let (ids, weight) = tickets.leave_all(slot);
                self.weight -= weight;
                Items::new(record.items, ids)
            }
            None => Items::of(record.items),
        };
        (record.key, items)
    }

    /// A key whose last item has left leaves too, unless it is checked out.
    pub(super) fn remove_if_empty(&mut self, slot: u32) -> Option<K> {
        if self.keys.is_held(slot) || self.keys.at(slot).items.len() > 0 {
            return None;
        }
        let record = self.keys.remove(slot);
        self.spares.recycle(record.items);
        if let Some(heaviest) = &mut self.heaviest {
            heaviest.forget(slot);
        }
        if let Some(tickets) = &mut self.tickets {
            tickets.forget(slot);
        }
        Some(record.key)
    }

    #[inline]
    pub(super) fn take(&mut self, slot: u32) -> (K, Items<V, Id>) {
        let (key, items) = self.remove_key(slot);
        self.stats.taken += items.len() as u64;
        (key, items)
    }

    /// As [`Self::take`], after one look for the key, in which `Eq` is called before anything is
    /// changed; `None` if the key is not there or is checked out.
    #[inline]
    pub(super) fn find_and_take<Q>(&mut self, hash: u64, key: &Q) -> Option<(K, Items<V, Id>)>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let slot = self.keys.detach(hash, key)?;
        let record = self.keys.remove_detached(slot);
        let (key, items) = self.remove_rest(slot, record);
        self.stats.taken += items.len() as u64;
        Some((key, items))
    }

    /// `key` is what [`Self::key_to_hand_back`] said.
    pub(super) fn remove_by_id(
        &mut self,
        ticket: u32,
        key: Option<K>,
    ) -> Option<Expired<K, V, Id>> {
        self.stats.removed += 1;
        self.remove_with_key(ticket, key)
    }

    /// `keys` is what [`Self::keys_to_hand_back`] said.
    pub(super) fn expire(&mut self, keys: Vec<(u32, Option<K>)>) -> Vec<Expired<K, V, Id>> {
        self.stats.expired += keys.len() as u64;
        let mut expired = Vec::with_capacity(keys.len());
        for (ticket, key) in keys {
            expired.extend(self.remove_with_key(ticket, key));
        }
        expired
    }

    fn remove_with_key(&mut self, ticket: u32, key: Option<K>) -> Option<Expired<K, V, Id>> {
        let tickets = self.tickets.as_ref()?;
        let slot = tickets.key_of(ticket);
        let place = tickets.place_of(ticket) - self.keys.out(slot);
        let (value, id) = self.remove_item(slot, place);
        let key = key.or_else(|| self.remove_if_empty(slot))?;
        Some(Expired { key, value, id })
    }

    /// Removes what was marked, and its key if it was all of its items.
    pub(super) fn cancel_marked(&mut self, marked: &Marked) -> (Option<K>, Items<V, Id>) {
        let items = self.remove_marked(marked.slot, &marked.marks);
        self.stats.removed += items.len() as u64;
        (self.remove_if_empty(marked.slot), items)
    }

    /// Hands over all keys that are not checked out, leaving a map that goes on counting: those
    /// keys one by one if some are, all at once otherwise.
    pub(super) fn clear(&mut self) -> (KeysWithItems<K, V, Id>, Option<Self>) {
        if self.keys.held() == 0 {
            let mut empty = Self::new(self.limits);
            empty.stats = self.stats();
            (empty.pushed, empty.displaced) = (self.pushed, self.displaced);
            // The shared form has hashed keys with it.
            empty.hasher = self.hasher.clone();
            empty.stats.taken += self.items as u64;
            return (Vec::new(), Some(core::mem::replace(self, empty)));
        }
        let slots: Vec<u32> = self.keys.order().rev().collect();
        (slots.into_iter().map(|slot| self.take(slot)).collect(), None)
    }

    /// Hands over everything in the map, and leaves an empty one with the same limits. The counts
    /// go along.
    pub(super) fn take_all(&mut self) -> Self {
        core::mem::replace(self, Self::new(self.limits))
    }

    /// What is in a map that nobody can use any more, in the order of eviction, and then what has
    /// come under keys whose checkouts were leaked. What these hold is leaked too.
    pub(super) fn into_rest(mut self) -> impl Iterator<Item = (K, Items<V, Id>)> {
        let order: Vec<u32> = self.keys.order().rev().chain(self.keys.held_slots()).collect();
        order.into_iter().filter_map(move |slot| {
            if !self.keys.is_held(slot) {
                return Some(self.remove_key(slot));
            }
            let present = self.keys.at(slot).items.len();
            let items = self.remove_marked(slot, &vec![true; present]);
            let key = self.keys.remove(slot).key;
            (present > 0).then_some((key, items))
        })
    }

    /// Moves the items of a key into a checkout.
    pub(super) fn check_out(&mut self, slot: u32) -> Line<V> {
        self.keys.hold(slot);
        self.move_out(slot)
    }

    /// As [`Self::check_out`] for a short while, in which the key keeps its place in the order.
    pub(super) fn lend_out(&mut self, slot: u32) -> Line<V> {
        self.keys.hold_in_place(slot);
        self.move_out(slot)
    }

    fn move_out(&mut self, slot: u32) -> Line<V> {
        self.set_plain();
        if let Some(tickets) = &mut self.tickets {
            tickets.call_out(slot, true);
        }
        let items = core::mem::replace(&mut self.keys.at_mut(slot).items, Line::EMPTY);
        self.keys.set_out(slot, items.len());
        self.rank(slot);
        items
    }

    /// The oldest item of a checkout, whose value is there, leaves for good.
    pub(super) fn acknowledge(&mut self, slot: u32) -> Option<Id> {
        self.keys.set_out(slot, self.keys.out(slot) - 1);
        self.count_out(1);
        self.stats.taken += 1;
        let gone = self.tickets.as_mut()?.leave(slot, 0);
        self.weight -= gone.weight;
        gone.id
    }

    /// Those items of a checkout that are marked leave for good. Their values are there.
    pub(super) fn cancel_out(&mut self, slot: u32, marks: &[bool]) -> Line<Option<Id>> {
        let gone = marks.iter().filter(|leaves| **leaves).count();
        self.keys.set_out(slot, marks.len() - gone);
        self.count_out(gone);
        self.stats.removed += gone as u64;
        let Some(tickets) = &mut self.tickets else { return Line::EMPTY };
        let mut with_in = marks.to_vec();
        with_in.resize(marks.len() + self.keys.at(slot).items.len(), false);
        let (ids, weight) = tickets.leave_some(slot, &with_in);
        self.weight -= weight;
        ids
    }

    /// Ends a checkout: what is left of it goes back before what has come since. Returns the key
    /// if it has no items.
    pub(super) fn settle(&mut self, slot: u32, mut rest: Line<V>) -> Option<K> {
        if let Some(tickets) = &mut self.tickets {
            tickets.call_out(slot, false);
        }
        self.keys.set_out(slot, 0);
        let record = self.keys.at_mut(slot);
        while let Some(item) = record.items.pop_first() {
            rest.push(item, &mut self.spares);
        }
        self.spares.recycle(core::mem::replace(&mut record.items, rest));
        self.keys.release(slot);
        self.set_plain();
        self.rank(slot);
        self.remove_if_empty(slot)
    }
}
