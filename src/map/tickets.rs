//! What is known of each item beside its value: when it came, what it weighs, its id. Kept only by
//! maps whose items expire, weigh something or are indexed.
//!
//! ```text
//!  issue            leave (in any way)
//! -------> ticket ---------------------> Gone
//!            | ^
//!   call_out | | call_in
//!            v |
//!     out: with its item in a checkout
//! ```

use core::borrow::Borrow;
use std::time::{Duration, Instant};

use super::index::Index;
use super::line::{Line, Spares};
use crate::base::list::List;
use crate::base::slab::Slab;

#[derive(Debug)]
struct Ticket {
    /// The slot of its key.
    key: u32,
    weight: u64,
    /// When it came, if items expire.
    at: Option<Instant>,
    out: bool,
}

/// The tickets of one key, in the order of its items: first those that are out.
#[derive(Debug)]
struct Row {
    tickets: Line<u32>,
    weight: u64,
}

/// What an item leaves behind when it leaves.
#[derive(Debug)]
pub(super) struct Gone<Id> {
    pub(super) id: Option<Id>,
    pub(super) weight: u64,
}

#[derive(Debug)]
pub(super) struct Tickets<Id> {
    time_to_live: Option<Duration>,
    tickets: Slab<Ticket>,
    /// By the slot of the key.
    rows: Vec<Row>,
    spares: Spares<u32>,
    /// In order of arrival; empty if items do not expire.
    arrivals: List,
    index: Index<Id>,
    indexed: bool,
}

impl<Id> Tickets<Id> {
    pub(super) fn new(time_to_live: Option<Duration>, indexed: bool) -> Self {
        Self {
            time_to_live,
            tickets: Slab::new(),
            rows: Vec::new(),
            spares: Spares::new(usize::MAX),
            arrivals: List::new(),
            index: Index::new(),
            indexed,
        }
    }

    /// For an item that is put last under a key.
    pub(super) fn issue(
        &mut self,
        key: u32,
        id: Option<(Id, u64)>,
        weight: u64,
        now: Option<Instant>,
    ) {
        let at = self.time_to_live.and(now).map(|now| match self.arrivals.back() {
            // Never before the newest, so that the list stays sorted whatever the clock does.
            Some(newest) => self.tickets[newest].at.map_or(now, |at| at.max(now)),
            None => now,
        });
        let ticket = self.tickets.insert(Ticket { key, weight, at, out: false });
        if at.is_some() {
            self.arrivals.push_back(ticket);
        }
        if self.rows.len() <= key as usize {
            self.rows.resize_with(key as usize + 1, || Row { tickets: Line::EMPTY, weight: 0 });
        }
        let row = &mut self.rows[key as usize];
        row.tickets.push(ticket, &mut self.spares);
        row.weight += weight;
        if let Some((id, hash)) = id {
            self.index.insert(ticket, hash, id);
        }
    }

    /// The item in this place under this key leaves.
    pub(super) fn leave(&mut self, key: u32, place: usize) -> Gone<Id> {
        let row = &mut self.rows[key as usize];
        let ticket = if place == 0 { row.tickets.pop_first() } else { row.tickets.remove(place) };
        match ticket {
            Some(ticket) => self.retire(ticket),
            None => unreachable!("each item has a ticket"),
        }
    }

    /// Those in the places that are marked leave, with their ids if there is an index.
    pub(super) fn leave_some(&mut self, key: u32, marks: &[bool]) -> (Line<Option<Id>>, u64) {
        let left = self.rows[key as usize].tickets.extract(marks, &mut self.spares);
        self.retire_all(left)
    }

    pub(super) fn leave_all(&mut self, key: u32) -> (Line<Option<Id>>, u64) {
        let left = core::mem::replace(&mut self.rows[key as usize].tickets, Line::EMPTY);
        self.retire_all(left)
    }

    fn retire_all(&mut self, mut left: Line<u32>) -> (Line<Option<Id>>, u64) {
        let mut ids = Line::with_room(if self.indexed { left.len() } else { 0 });
        let mut weight = 0;
        while let Some(ticket) = left.pop_first() {
            let gone = self.retire(ticket);
            weight += gone.weight;
            if self.indexed {
                ids.push(gone.id, &mut Spares::new(usize::MAX));
            }
        }
        self.spares.recycle(left);
        (ids, weight)
    }

    /// The one way out: the order of arrival, the weight of the key and the index forget it.
    fn retire(&mut self, ticket: u32) -> Gone<Id> {
        let Ticket { key, weight, at, .. } = self.tickets.remove(ticket);
        if at.is_some() {
            self.arrivals.remove(ticket);
        }
        self.rows[key as usize].weight -= weight;
        Gone { id: self.index.remove(ticket), weight }
    }

    /// The key has left, after all its items.
    pub(super) fn forget(&mut self, key: u32) {
        if let Some(row) = self.rows.get_mut(key as usize) {
            self.spares.recycle(core::mem::replace(&mut row.tickets, Line::EMPTY));
        }
    }

    /// Marks all tickets of a key as out.
    pub(super) fn call_out(&mut self, key: u32, out: bool) {
        for ticket in self.rows[key as usize].tickets.iter() {
            self.tickets[*ticket].out = out;
        }
    }

    pub(super) fn weight_of(&self, key: u32) -> u64 {
        self.rows.get(key as usize).map_or(0, |row| row.weight)
    }

    /// What the items of a key weigh, in order, those that are out included.
    pub(super) fn weights_of(&self, key: u32) -> impl Iterator<Item = u64> + '_ {
        let row = self.rows.get(key as usize);
        row.into_iter()
            .flat_map(|row| row.tickets.iter())
            .map(|ticket| self.tickets[*ticket].weight)
    }

    pub(super) fn find_id<Q>(&self, hash: u64, id: &Q) -> Option<u32>
    where
        Id: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.index.find(hash, id)
    }

    pub(super) fn is_out(&self, ticket: u32) -> bool {
        self.tickets[ticket].out
    }

    pub(super) fn key_of(&self, ticket: u32) -> u32 {
        self.tickets[ticket].key
    }

    /// The place of an item among those of its key, those that are out included.
    pub(super) fn place_of(&self, ticket: u32) -> usize {
        let row = &self.rows[self.key_of(ticket) as usize];
        match row.tickets.iter().position(|known| *known == ticket) {
            Some(place) => place,
            None => unreachable!("a ticket is in its key's row"),
        }
    }

    /// Whether no item has come under the same key since.
    pub(super) fn is_newest_of_key(&self, ticket: u32) -> bool {
        self.rows[self.key_of(ticket) as usize].tickets.last() == Some(&ticket)
    }

    /// When the oldest item is due; `None` also if that lies beyond what an `Instant` can say.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let oldest = self.arrivals.iter().find(|ticket| !self.is_out(*ticket))?;
        self.tickets[oldest].at?.checked_add(self.time_to_live?)
    }

    /// The tickets of the items that are due at `now`, oldest arrival first.
    pub(super) fn overdue(&self, now: Instant) -> impl Iterator<Item = u32> + '_ {
        let due = move |ticket: &u32| match (self.tickets[*ticket].at, self.time_to_live) {
            // Subtracting cannot overflow, adding could.
            (Some(at), Some(ttl)) => now.saturating_duration_since(at) >= ttl,
            _ => false,
        };
        self.arrivals.iter().take_while(due).filter(|ticket| !self.is_out(*ticket))
    }
}
