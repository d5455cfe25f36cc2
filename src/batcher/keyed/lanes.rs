//! A lane for each key: its open batch, its closed ones, and its place among the others.
//!
//! ```text
//!            first item                full, evicted, flush, close
//!   no lane ───────────► open ────────────────────────────────────► closed
//!      ▲                  │                                           │
//!      │                  │ window over, or idle                      │
//!      │                  ▼                                           ▼
//!      │                ripe: goes on filling ───────────────► in turn, one batch a turn
//!      │                                                              │
//!      └────────────────── nothing is left of it ◄──────── with the handler
//! ```
//!
//! A lane may be open, closed and with the handler at once. It is gone in the step in which nothing
//! is left of it, and nobody holds room in it or waits for its flush. As all windows are of one
//! length, the order in which batches were opened is that in which their windows end: the head of
//! that list is all that a timer must know.

use core::borrow::Borrow;
use core::hash::{BuildHasher, Hash};
use core::mem;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use hashbrown::HashTable;

use super::batch::KeyedBatch;
use super::lane::{Lane, Open};
use super::list::List;
use super::recency::Recency;
use crate::base::slab::{NONE, Slab};
use crate::base::sync::HashBuilder;
use crate::batcher::barrier;
use crate::batcher::batch::Batch;
use crate::batcher::core::{Job, Limits};
use crate::batcher::lanes::{Lanes, Sealer};
use crate::batcher::open;
use crate::batcher::report::{ClosedBy, Fate, FlushReport, Stats};
use crate::batcher::wake::Wakes;
use crate::semaphore::line::Ticket;

/// Lanes with an open batch whose window is not over, the oldest batch first.
const OPENED: usize = 0;
/// Lanes that a batch may be taken from, in turn.
const TURNS: usize = 1;
/// Lanes in whose line are some who can be served now, or are to be sent away.
const UNSERVED: usize = 2;

/// A key with its hash, which was found outside the lock.
pub(crate) struct Hashed<K> {
    pub(crate) hash: u64,
    pub(crate) key: K,
    pub(crate) place: Place,
}

/// Where the lane of a key is. It is looked up before any room is taken for an item, as that calls
/// the key's `Eq`, and holds until the lock is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Unknown,
    /// There is none yet.
    New,
    Lane(u32),
    /// Room for the item is reserved in it already, which keeps it.
    Reserved(u32),
}

impl<K: Hash> Hashed<K> {
    #[inline]
    pub(crate) fn new(hasher: &HashBuilder, key: K) -> Self {
        Self { hash: hasher.hash_one(&key), key, place: Place::Unknown }
    }
}

/// A closed batch, and the one of the same key after it.
struct Closed<K, T> {
    job: Job<T, Arc<K>>,
    next: u32,
}

pub(crate) struct KeyedLanes<K, T> {
    table: HashTable<u32>,
    lanes: Slab<Lane>,
    /// What a send touches, by lane: that of a lane which is gone stays until another comes.
    open: Vec<Open<K, T>>,
    closed: Slab<Closed<K, T>>,
    opened: List<OPENED>,
    recency: Recency,
    turns: List<TURNS>,
    /// Lanes with an open batch.
    keys: usize,
    peak_keys: usize,
    /// Items in open batches, their weight, and items in closed ones.
    items: usize,
    weight: u64,
    /// Those who wait for room in some lane.
    waiting: usize,
    unserved: List<UNSERVED>,
    /// Whether all who wait are sent away.
    dismissed: bool,
    max_per_key: usize,
    in_order: bool,
}

impl<K: Hash + Eq, T> KeyedLanes<K, T> {
    #[inline]
    fn find<Q>(&self, hash: u64, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.table.find(hash, |slot| self.open[*slot as usize].key.is(key)).copied()
    }

    fn insert(&mut self, hash: u64, key: K) -> u32 {
        let slot = self.lanes.insert(Lane::new(hash));
        let open = Open::new(key);
        match self.open.get_mut(slot as usize) {
            // Of the lane that was here nothing is left that has a destructor.
            Some(gone) => *gone = open,
            None => self.open.push(open),
        }
        self.table.insert_unique(hash, slot, |slot| self.lanes[*slot].hash);
        slot
    }

    // ---- room for the items of one key

    /// Finds the lane of a key, and whether there is room for one more item of it, if nobody waits
    /// for that.
    #[inline]
    pub(crate) fn look_up(&self, key: &mut Hashed<K>) -> bool {
        let lane = match key.place {
            Place::Reserved(_) => return true,
            _ => self.find(key.hash, &key.key),
        };
        key.place = lane.map_or(Place::New, Place::Lane);
        lane.is_none_or(|lane| !self.limits_keys() || self.lane_has_room(lane))
    }

    pub(crate) fn lane_has_room(&self, slot: u32) -> bool {
        let lane = &self.lanes[slot];
        self.pending(slot) + lane.reserved < self.max_per_key && lane.nobody_waits()
    }

    /// Items of a lane that are accepted and unfinished.
    fn pending(&self, slot: u32) -> usize {
        self.open[slot as usize].items.len() + self.lanes[slot].closed_items
    }

    pub(crate) fn limits_keys(&self) -> bool {
        self.max_per_key != usize::MAX
    }

    /// The lane of a key, which is made with `spare` if it must be.
    pub(crate) fn lane_of(&mut self, key: &Hashed<K>, spare: &mut Option<K>) -> Option<u32> {
        match self.find(key.hash, &key.key) {
            Some(slot) => Some(slot),
            None => spare.take().map(|spare| self.insert(key.hash, spare)),
        }
    }

    /// Takes room in a lane that has some.
    pub(crate) fn reserve(&mut self, slot: u32) {
        self.lanes[slot].reserved += 1;
    }

    /// Gives reserved room back. What is to be dropped once the lock is released.
    pub(crate) fn unreserve(&mut self, slot: u32, wakes: &mut Wakes) -> Option<Arc<K>> {
        self.lanes[slot].reserved -= 1;
        self.serve_lane(slot, wakes);
        self.remove_if_unused(slot)
    }

    /// Takes a place in line for room in a lane that has none.
    pub(crate) fn join(&mut self, slot: u32, waker: Waker) -> Ticket {
        self.waiting += 1;
        self.lanes[slot].line.get_or_insert_default().join(1, waker)
    }

    /// The waker of one who waits in a lane; `None` once room was granted to it.
    pub(crate) fn waker(&mut self, slot: u32, ticket: Ticket) -> Option<&mut Waker> {
        self.lanes[slot].line.as_mut()?.waker(ticket)
    }

    /// Gives up a place in line, or the room that was granted to it.
    pub(crate) fn leave(&mut self, slot: u32, ticket: Ticket, wakes: &mut Wakes) -> Option<Arc<K>> {
        match self.lanes[slot].line.as_mut().and_then(|line| line.leave(ticket)) {
            Some((_, waker)) => {
                self.waiting -= 1;
                wakes.discard(Some(waker));
                self.remove_if_unused(slot)
            }
            None => self.unreserve(slot, wakes),
        }
    }

    fn serve_lane(&mut self, slot: u32, wakes: &mut Wakes) {
        if self.dismissed {
            return;
        }
        let pending = self.pending(slot);
        let lane = &mut self.lanes[slot];
        let Some(line) = &mut lane.line else { return };
        let mut free = self.max_per_key - pending - lane.reserved;
        while line.can_serve(free) {
            if wakes.senders_are_full() {
                self.unserved.enter(&mut self.lanes, slot);
                return;
            }
            if let Some((_, waker)) = line.serve_head(&mut free) {
                lane.reserved += 1;
                self.waiting -= 1;
                wakes.sender(waker);
            }
        }
    }

    fn remove_if_unused(&mut self, slot: u32) -> Option<Arc<K>> {
        if self.open[slot as usize].is_open() || !self.lanes[slot].is_unused() {
            return None;
        }
        self.unserved.leave(&mut self.lanes, slot);
        let lane = self.lanes.remove(slot);
        if let Ok(entry) = self.table.find_entry(lane.hash, |known| *known == slot) {
            entry.remove();
        }
        Some(self.open[slot as usize].key.take())
    }

    // ---- closing batches

    /// The lane that was used least recently of those with an open batch.
    fn least_recent(&mut self) -> Option<u32> {
        let Self { recency, open, .. } = self;
        recency.least(|slot| {
            let open = &open[slot as usize];
            open.is_open().then_some(open.used)
        })
    }

    /// Opens a batch in a lane, which is to be given an item at once. Whether that is news for the
    /// driver.
    fn open(&mut self, slot: u32, now: Instant, sealer: &mut Sealer<'_, T>) -> bool {
        let mut news = false;
        if self.keys == sealer.limits.max_keys {
            if let Some(oldest) = self.least_recent() {
                self.seal(oldest, ClosedBy::Evicted, sealer);
                news = true;
            }
        }
        self.keys += 1;
        self.peak_keys = self.peak_keys.max(self.keys);
        // The timer is set for the first of them, and the others come after it.
        news |= self.opened.head().is_none();
        self.opened.enter(&mut self.lanes, slot);
        let lane = &mut self.lanes[slot];
        (lane.opened_at, lane.first_use) = (Some(now), self.recency.coming_use());
        self.recency.enter(slot);
        if let Some(items) = sealer.spare.take() {
            self.open[slot as usize].items = items;
        }
        news
    }

    /// Closes the open batch of a lane and puts it behind the closed ones.
    fn close(&mut self, slot: u32, closed_by: ClosedBy, sealer: &mut Sealer<'_, T>) {
        let lane = &mut self.lanes[slot];
        let Some(opened_at) = lane.opened_at.take() else { return };
        let open = &mut self.open[slot as usize];
        let (items, weight) = (mem::take(&mut open.items), mem::take(&mut open.weight));
        self.items -= items.len();
        self.weight -= weight;
        self.keys -= 1;
        lane.closed_items += items.len();
        lane.ripe = None;
        let closed = open::Closed { items, weight, opened_at, first: lane.first_use };
        let job = sealer.seal(closed, closed_by, slot, open.key.share());
        let closed = self.closed.insert(Closed { job, next: NONE });
        match lane.last {
            NONE => lane.first = closed,
            last => self.closed[last].next = closed,
        }
        lane.last = closed;
        self.opened.leave(&mut self.lanes, slot);
    }

    fn seal(&mut self, slot: u32, closed_by: ClosedBy, sealer: &mut Sealer<'_, T>) {
        self.close(slot, closed_by, sealer);
        self.take_turn(slot);
    }

    /// Whether the lane has its turn, now or later: it has something to hand over and may.
    fn take_turn(&mut self, slot: u32) {
        let lane = &self.lanes[slot];
        let something = lane.has_closed() || lane.ripe.is_some();
        if something && !lane.ahead && !(self.in_order && lane.running > 0) {
            self.turns.enter(&mut self.lanes, slot);
        }
    }

    fn pop_closed(&mut self, slot: u32) -> Option<Job<T, Arc<K>>> {
        let lane = &mut self.lanes[slot];
        if !lane.has_closed() {
            return None;
        }
        let Closed { job, next } = self.closed.remove(lane.first);
        lane.first = next;
        if next == NONE {
            lane.last = NONE;
        }
        Some(job)
    }

    /// The oldest of the open batches may be handed over.
    fn ripen(&mut self, slot: u32, closed_by: ClosedBy) {
        self.lanes[slot].ripe = Some(closed_by);
        self.opened.leave(&mut self.lanes, slot);
        self.take_turn(slot);
    }

    /// Closes the open batch of a key, if it has one. The lane, if there is one.
    pub(crate) fn seal_key<Q>(
        &mut self,
        (hash, key): (u64, &Q),
        sealer: &mut Sealer<'_, T>,
    ) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let slot = self.find(hash, key)?;
        self.seal(slot, ClosedBy::Flush, sealer);
        Some(slot)
    }

    // ---- flushes of one key

    /// A barrier over all that is pending in a lane; `before` is the number of the next batch.
    pub(crate) fn raise(&mut self, slot: u32, before: u64) -> barrier::Ticket {
        let pending = self.pending(slot) as u64;
        let flushes = self.lanes[slot].flushes.get_or_insert_default();
        flushes.waiting += 1;
        flushes.barriers.raise(before, pending, flushes.ended)
    }

    pub(crate) fn poll_flush(
        &mut self,
        slot: u32,
        ticket: barrier::Ticket,
        waker: &mut Option<Waker>,
    ) -> Option<FlushReport> {
        self.lanes[slot].flushes.as_mut()?.barriers.poll(ticket, waker)
    }

    /// Nobody waits for this flush any more. What is to be dropped once the lock is released.
    pub(crate) fn lower(
        &mut self,
        slot: u32,
        ticket: barrier::Ticket,
    ) -> (Option<Waker>, Option<Arc<K>>) {
        let lane = &mut self.lanes[slot];
        let Some(flushes) = &mut lane.flushes else { return (None, None) };
        let waker = flushes.barriers.lower(ticket);
        flushes.waiting -= 1;
        if flushes.waiting == 0 {
            lane.flushes = None;
        }
        (waker, self.remove_if_unused(slot))
    }

    pub(crate) fn keys(&self) -> usize {
        self.keys
    }
}

impl<K: Hash + Eq, T> Lanes<T> for KeyedLanes<K, T> {
    type Key = Hashed<K>;
    type Tag = Arc<K>;
    type Remain = (Arc<K>, Vec<T>);
    type Guard = KeyedBatch<K, T>;

    const ONE_LINE: bool = false;
    const TAGS_NEED_DROP: bool = core::mem::needs_drop::<K>();

    fn new(limits: &Limits) -> Self {
        Self {
            table: HashTable::new(),
            lanes: Slab::new(),
            open: Vec::new(),
            closed: Slab::new(),
            opened: List::new(),
            recency: Recency::default(),
            turns: List::new(),
            keys: 0,
            peak_keys: 0,
            items: 0,
            weight: 0,
            waiting: 0,
            unserved: List::new(),
            dismissed: false,
            max_per_key: limits.capacity_per_key,
            in_order: limits.in_order,
        }
    }

    #[inline]
    fn items(&self) -> usize {
        self.items
    }

    fn weight(&self) -> u64 {
        self.weight
    }

    fn counted(&self) -> usize {
        let open = self.open.iter().map(|open| open.items.len()).sum::<usize>();
        open + self.closed.iter_from(0).map(|(_, closed)| closed.job.len()).sum::<usize>()
    }

    #[inline]
    fn push(
        &mut self,
        key: Hashed<K>,
        item: impl FnOnce() -> T,
        weight: u64,
        clock: impl FnOnce() -> Instant,
        mut sealer: Sealer<'_, T>,
    ) -> (bool, Option<Hashed<K>>) {
        let limits = sealer.limits;
        let (slot, key) = match key.place {
            Place::Lane(slot) => (slot, Some(key)),
            Place::Reserved(slot) => {
                self.lanes[slot].reserved -= 1;
                (slot, Some(key))
            }
            Place::New => (self.insert(key.hash, key.key), None),
            Place::Unknown => unreachable!("it is looked up before room is taken"),
        };
        let mut news = false;
        let mut open = &mut self.open[slot as usize];
        if weight > limits.max_weight - open.weight {
            self.seal(slot, ClosedBy::Weight, &mut sealer);
            news = true;
            open = &mut self.open[slot as usize];
        }
        if !open.is_open() {
            news |= self.open(slot, clock(), &mut sealer);
            open = &mut self.open[slot as usize];
        }
        open.used = self.recency.next_use();
        open.items.push(item());
        open.weight += weight;
        let (items, heft) = (open.items.len(), open.weight);
        self.items += 1;
        self.weight += weight;
        if items == limits.max_items {
            self.seal(slot, ClosedBy::Count, &mut sealer);
            news = true;
        } else if heft == limits.max_weight {
            self.seal(slot, ClosedBy::Weight, &mut sealer);
            news = true;
        }
        (news, key)
    }

    fn is_ripe(&mut self, now: Instant, idle: bool, limits: &Limits) -> bool {
        while let Some(slot) = self.opened.head() {
            let opened_at = self.lanes[slot].opened_at;
            let over = |at: Instant| limits.window.is_zero() || at + limits.window <= now;
            if opened_at.is_some_and(over) {
                self.ripen(slot, ClosedBy::Window);
            } else if limits.eager_when_idle && idle && self.turns.head().is_none() {
                self.ripen(slot, ClosedBy::Idle);
            } else {
                break;
            }
        }
        self.turns.head().is_some()
    }

    fn next(
        &mut self,
        _now: Instant,
        _idle: bool,
        mut sealer: Sealer<'_, T>,
    ) -> Option<Job<T, Arc<K>>> {
        let slot = self.turns.head()?;
        if !self.lanes[slot].has_closed() {
            let closed_by = self.lanes[slot].ripe?;
            self.close(slot, closed_by, &mut sealer);
        }
        let job = self.next_closed()?;
        self.begun(slot);
        Some(job)
    }

    fn next_closed(&mut self) -> Option<Job<T, Arc<K>>> {
        let slot = self.turns.head()?;
        let job = self.pop_closed(slot)?;
        self.turns.leave(&mut self.lanes, slot);
        let lane = &mut self.lanes[slot];
        (lane.running, lane.ahead) = (lane.running + 1, true);
        Some(job)
    }

    fn begun(&mut self, slot: u32) {
        self.lanes[slot].ahead = false;
        self.take_turn(slot);
    }

    fn opened_at(&self) -> Option<Instant> {
        self.lanes[self.opened.head()?].opened_at
    }

    fn seal_all(&mut self, closed_by: ClosedBy, mut sealer: Sealer<'_, T>) {
        // Those that are ripe first, and then the others, the oldest first.
        let ripe = self.lanes.iter_from(0).filter(|(_, lane)| lane.ripe.is_some());
        for slot in ripe.map(|(slot, _)| slot).collect::<Vec<_>>() {
            self.seal(slot, closed_by, &mut sealer);
        }
        while let Some(slot) = self.opened.head() {
            self.seal(slot, closed_by, &mut sealer);
        }
    }

    fn drain(&mut self) -> Vec<Job<T, Arc<K>>> {
        let slots: Vec<_> = self.lanes.iter_from(0).map(|(slot, _)| slot).collect();
        let mut jobs = Vec::new();
        for slot in slots {
            while let Some(job) = self.pop_closed(slot) {
                self.lanes[slot].running += 1;
                jobs.push(job);
            }
            self.turns.leave(&mut self.lanes, slot);
        }
        jobs
    }

    fn remain(key: Arc<K>, items: Vec<T>, remains: &mut Vec<(Arc<K>, Vec<T>)>) {
        if !items.is_empty() {
            remains.push((key, items));
        }
    }

    fn bury(remains: Vec<(Arc<K>, Vec<T>)>, mut bury: impl FnMut(&Arc<K>, Vec<T>)) {
        for (key, items) in remains {
            bury(&key, items);
        }
    }

    fn guard(batch: Batch<T>, key: Arc<K>) -> KeyedBatch<K, T> {
        KeyedBatch::new(key, batch)
    }

    fn count(&mut self, slot: u32, batch: u64, fate: Fate, items: usize, wakes: &mut Wakes) {
        let lane = &mut self.lanes[slot];
        lane.closed_items -= items;
        if let Some(flushes) = &mut lane.flushes {
            flushes.ended.add(fate, items);
            flushes.barriers.count(batch, fate, items, wakes);
        }
        self.serve_lane(slot, wakes);
    }

    fn over(&mut self, slot: u32) -> Option<Arc<K>> {
        self.lanes[slot].running -= 1;
        self.take_turn(slot);
        self.remove_if_unused(slot)
    }

    fn serve(&mut self, wakes: &mut Wakes) {
        while !wakes.senders_are_full() {
            let Some(slot) = self.unserved.head() else { return };
            self.unserved.leave(&mut self.lanes, slot);
            self.serve_lane(slot, wakes);
        }
    }

    fn dismiss(&mut self, wakes: &mut Wakes) {
        if !self.dismissed {
            self.dismissed = true;
            let lanes = self.lanes.iter_from(0).filter(|(_, lane)| lane.line.is_some());
            for slot in lanes.map(|(slot, _)| slot).collect::<Vec<_>>() {
                self.unserved.enter(&mut self.lanes, slot);
            }
        }
        while let Some(slot) = self.unserved.head() {
            if wakes.senders_are_full() {
                return;
            }
            match self.lanes[slot].line.as_mut().and_then(|line| line.dismiss_head()) {
                Some(waker) => {
                    self.waiting -= 1;
                    wakes.sender(waker);
                }
                None => self.unserved.leave(&mut self.lanes, slot),
            }
        }
    }

    fn waiting(&self) -> usize {
        self.waiting
    }

    fn note(&self, stats: &mut Stats) {
        stats.keys = self.keys;
        stats.peak_keys = self.peak_keys;
    }
}
