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

use super::batch::KeyedBatch;
use super::lane::{Lane, OpenLane};
use super::recency::Recency;
use crate::base::list::List;
use crate::base::slab::{NONE, Slab};
use crate::base::sync::HashBuilder;
use crate::base::table::SlotTable;
use crate::base::wait_list::WaiterId;
use crate::batcher::batch::Batch;
use crate::batcher::buffers::{Buffers, Sealer};
use crate::batcher::capacity::Limits;
use crate::batcher::flush;
use crate::batcher::job::Job;
use crate::batcher::open_batch;
use crate::batcher::report::{BatcherStats, Fate, FlushReport, SealedBy};
use crate::batcher::wake::Wakes;

/// A key with its hash, which was found outside the lock.
pub(crate) struct Hashed<K> {
    pub(crate) hash: u64,
    pub(crate) key: K,
    pub(crate) lane: LaneState,
}

/// Where the lane of a key is. It is looked up before any room is taken for an item, as that calls
/// the key's `Eq`, and holds until the lock is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneState {
    Unknown,
    /// There is none yet.
    New,
    Lane(u32),
    /// Capacity for the item is reserved in it already, which keeps it.
    Reserved(u32),
}

impl<K: Hash> Hashed<K> {
    #[inline]
    pub(crate) fn new(hasher: &HashBuilder, key: K) -> Self {
        Self { hash: hasher.hash_one(&key), key, lane: LaneState::Unknown }
    }
}

/// A closed batch, and the one of the same key after it.
struct Sealed<K, T> {
    job: Job<T, Arc<K>>,
    next: u32,
}

pub(crate) struct KeyedBuffers<K, T> {
    table: SlotTable,
    lanes: Slab<Lane>,
    /// What a send touches, by lane: that of a lane which is gone stays until another comes.
    open: Vec<OpenLane<K, T>>,
    sealed: Slab<Sealed<K, T>>,
    /// Lanes with an open batch whose window is not over, the oldest batch first.
    opened: List,
    recency: Recency,
    /// Lanes that a batch may be taken from, in turn.
    turns: List,
    /// Buffers with an open batch.
    keys: usize,
    peak_keys: usize,
    /// Items in open batches, their weight, and items in closed ones.
    items: usize,
    weight: u64,
    /// Those who wait for room in some lane.
    waiting: usize,
    /// Lanes with waiters that can be served now, or are to be sent away.
    unserved: List,
    /// Whether all who wait are sent away.
    dismissed: bool,
    max_per_key: usize,
    in_order: bool,
}

impl<K: Hash + Eq, T> KeyedBuffers<K, T> {
    #[inline]
    fn find<Q>(&self, hash: u64, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.table.find(hash, |slot| self.open[slot as usize].key.is(key))
    }

    fn insert(&mut self, hash: u64, key: K) -> u32 {
        let slot = self.lanes.insert(Lane::new(hash));
        let open = OpenLane::new(key);
        match self.open.get_mut(slot as usize) {
            // Of the lane that was here nothing is left that has a destructor.
            Some(gone) => *gone = open,
            None => self.open.push(open),
        }
        self.table.insert(hash, slot, |slot| self.lanes[slot].hash);
        slot
    }

    // ---- room for the items of one key

    /// Finds the lane of a key, and whether there is room for one more item of it, if nobody waits
    /// for that.
    #[inline]
    pub(crate) fn look_up(&self, key: &mut Hashed<K>) -> bool {
        let lane = match key.lane {
            LaneState::Reserved(_) => return true,
            _ => self.find(key.hash, &key.key),
        };
        key.lane = lane.map_or(LaneState::New, LaneState::Lane);
        lane.is_none_or(|lane| !self.limits_keys() || self.lane_has_room(lane))
    }

    pub(crate) fn lane_has_room(&self, slot: u32) -> bool {
        let lane = &self.lanes[slot];
        self.pending(slot) + lane.reserved < self.max_per_key && lane.nobody_waits()
    }

    /// Items of a lane that are accepted and unfinished.
    fn pending(&self, slot: u32) -> usize {
        self.open[slot as usize].items.len() + self.lanes[slot].sealed_items
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
    pub(crate) fn join(&mut self, slot: u32, waker: Waker) -> WaiterId {
        self.waiting += 1;
        self.lanes[slot].waiters.get_or_insert_with(Default::default).push((), Some(waker))
    }

    /// The waker of a waiter in a lane; `None` once it was granted room.
    pub(crate) fn waker(&mut self, slot: u32, waiter: WaiterId) -> Option<&mut Waker> {
        self.lanes[slot].waiters.as_mut()?.get_mut(waiter)?.waker.as_mut()
    }

    /// Gives up a place in line, or the room that was granted to it.
    pub(crate) fn leave(
        &mut self,
        slot: u32,
        waiter: WaiterId,
        wakes: &mut Wakes,
    ) -> Option<Arc<K>> {
        match self.lanes[slot].waiters.as_mut().and_then(|waiters| waiters.remove(waiter)) {
            Some(waiter) => {
                self.waiting -= 1;
                wakes.discard(waiter.waker);
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
        let Some(waiters) = &mut lane.waiters else { return };
        while !waiters.is_empty() && pending + lane.reserved < self.max_per_key {
            if wakes.senders_are_full() {
                self.unserved.insert(slot);
                return;
            }
            let Some(waiter) = waiters.pop_front() else { return };
            lane.reserved += 1;
            self.waiting -= 1;
            waiter.waker.into_iter().for_each(|waker| wakes.sender(waker));
        }
    }

    fn remove_if_unused(&mut self, slot: u32) -> Option<Arc<K>> {
        if self.open[slot as usize].is_open() || !self.lanes[slot].is_unused() {
            return None;
        }
        self.unserved.discard(slot);
        let lane = self.lanes.remove(slot);
        self.table.remove(lane.hash, slot);
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
                self.seal(oldest, SealedBy::Evicted, sealer);
                news = true;
            }
        }
        self.keys += 1;
        self.peak_keys = self.peak_keys.max(self.keys);
        // The timer is set for the first of them, and the others come after it.
        news |= self.opened.front().is_none();
        self.opened.insert(slot);
        let lane = &mut self.lanes[slot];
        (lane.opened_at, lane.first_use) = (Some(now), self.recency.coming_use());
        self.recency.enter(slot);
        if let Some(items) = sealer.spare.take() {
            self.open[slot as usize].items = items;
        }
        news
    }

    /// Closes the open batch of a lane and puts it behind the closed ones.
    fn seal_open(&mut self, slot: u32, sealed_by: SealedBy, sealer: &mut Sealer<'_, T>) {
        let lane = &mut self.lanes[slot];
        let Some(opened_at) = lane.opened_at.take() else { return };
        let open = &mut self.open[slot as usize];
        let (items, weight) = (mem::take(&mut open.items), mem::take(&mut open.weight));
        self.items -= items.len();
        self.weight -= weight;
        self.keys -= 1;
        lane.sealed_items += items.len();
        lane.ripe = None;
        let sealed = open_batch::Sealed { items, weight, opened_at, first: lane.first_use };
        let job = sealer.seal(sealed, sealed_by, slot, open.key.share());
        let sealed = self.sealed.insert(Sealed { job, next: NONE });
        match lane.last {
            NONE => lane.first = sealed,
            last => self.sealed[last].next = sealed,
        }
        lane.last = sealed;
        self.opened.discard(slot);
    }

    fn seal(&mut self, slot: u32, sealed_by: SealedBy, sealer: &mut Sealer<'_, T>) {
        self.seal_open(slot, sealed_by, sealer);
        self.take_turn(slot);
    }

    /// Whether the lane has its turn, now or later: it has something to hand over and may.
    fn take_turn(&mut self, slot: u32) {
        let lane = &self.lanes[slot];
        let something = lane.has_sealed() || lane.ripe.is_some();
        if something && !lane.ahead && !(self.in_order && lane.running > 0) {
            self.turns.insert(slot);
        }
    }

    fn pop_sealed(&mut self, slot: u32) -> Option<Job<T, Arc<K>>> {
        let lane = &mut self.lanes[slot];
        if !lane.has_sealed() {
            return None;
        }
        let Sealed { job, next } = self.sealed.remove(lane.first);
        lane.first = next;
        if next == NONE {
            lane.last = NONE;
        }
        Some(job)
    }

    /// The oldest of the open batches may be handed over.
    fn ripen(&mut self, slot: u32, sealed_by: SealedBy) {
        self.lanes[slot].ripe = Some(sealed_by);
        self.opened.discard(slot);
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
        self.seal(slot, SealedBy::Flush, sealer);
        Some(slot)
    }

    // ---- flushes of one key

    /// A barrier over all that is pending in a lane; `before` is the number of the next batch.
    pub(crate) fn begin_flush(&mut self, slot: u32, before: u64) -> flush::FlushId {
        let pending = self.pending(slot) as u64;
        let flushes = self.lanes[slot].flushes.get_or_insert_default();
        flushes.waiting += 1;
        flushes.spans.begin(before, pending, flushes.ended)
    }

    pub(crate) fn poll_flush(
        &mut self,
        slot: u32,
        ticket: flush::FlushId,
        waker: &mut Option<Waker>,
    ) -> Option<FlushReport> {
        self.lanes[slot].flushes.as_mut()?.spans.poll(ticket, waker)
    }

    /// Nobody waits for this flush any more. What is to be dropped once the lock is released.
    pub(crate) fn forget_flush(
        &mut self,
        slot: u32,
        ticket: flush::FlushId,
    ) -> (Option<Waker>, Option<Arc<K>>) {
        let lane = &mut self.lanes[slot];
        let Some(flushes) = &mut lane.flushes else { return (None, None) };
        let waker = flushes.spans.forget(ticket);
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

impl<K: Hash + Eq, T> Buffers<T> for KeyedBuffers<K, T> {
    type Key = Hashed<K>;
    type Tag = Arc<K>;
    type Unsent = (Arc<K>, Vec<T>);
    type Guard = KeyedBatch<K, T>;

    const ONE_LINE: bool = false;
    const TAGS_NEED_DROP: bool = core::mem::needs_drop::<K>();

    fn new(limits: &Limits) -> Self {
        Self {
            table: SlotTable::new(),
            lanes: Slab::new(),
            open: Vec::new(),
            sealed: Slab::new(),
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
        open + self.sealed.iter_from(0).map(|(_, sealed)| sealed.job.len()).sum::<usize>()
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
        let (slot, key) = match key.lane {
            LaneState::Lane(slot) => (slot, Some(key)),
            LaneState::Reserved(slot) => {
                self.lanes[slot].reserved -= 1;
                (slot, Some(key))
            }
            LaneState::New => (self.insert(key.hash, key.key), None),
            LaneState::Unknown => unreachable!("it is looked up before room is taken"),
        };
        let mut news = false;
        let mut open = &mut self.open[slot as usize];
        if weight > limits.max_weight - open.weight {
            self.seal(slot, SealedBy::Weight, &mut sealer);
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
            self.seal(slot, SealedBy::Count, &mut sealer);
            news = true;
        } else if heft == limits.max_weight {
            self.seal(slot, SealedBy::Weight, &mut sealer);
            news = true;
        }
        (news, key)
    }

    fn is_ripe(&mut self, now: Instant, idle: bool, limits: &Limits) -> bool {
        while let Some(slot) = self.opened.front() {
            let opened_at = self.lanes[slot].opened_at;
            let over = |at: Instant| limits.window.is_zero() || at + limits.window <= now;
            if opened_at.is_some_and(over) {
                self.ripen(slot, SealedBy::Window);
            } else if limits.eager_when_idle && idle && self.turns.front().is_none() {
                self.ripen(slot, SealedBy::Idle);
            } else {
                break;
            }
        }
        self.turns.front().is_some()
    }

    fn next(
        &mut self,
        _now: Instant,
        _idle: bool,
        mut sealer: Sealer<'_, T>,
    ) -> Option<Job<T, Arc<K>>> {
        let slot = self.turns.front()?;
        if !self.lanes[slot].has_sealed() {
            let sealed_by = self.lanes[slot].ripe?;
            self.seal_open(slot, sealed_by, &mut sealer);
        }
        let job = self.next_sealed()?;
        self.begun(slot);
        Some(job)
    }

    fn next_sealed(&mut self) -> Option<Job<T, Arc<K>>> {
        let slot = self.turns.front()?;
        let job = self.pop_sealed(slot)?;
        self.turns.discard(slot);
        let lane = &mut self.lanes[slot];
        (lane.running, lane.ahead) = (lane.running + 1, true);
        Some(job)
    }

    fn begun(&mut self, slot: u32) {
        self.lanes[slot].ahead = false;
        self.take_turn(slot);
    }

    #[cfg(debug_assertions)]
    fn validate(&self) {
        self.lanes.validate();
        self.sealed.validate();
        for list in [&self.opened, &self.turns, &self.unserved] {
            list.validate();
            assert!(list.iter().all(|slot| self.lanes.get(slot).is_some()), "a lane that is gone");
        }
        self.table.validate(self.lanes.iter().map(|(slot, lane)| (slot, lane.hash)));
        let waiters = self.lanes.iter().filter_map(|(_, lane)| lane.waiters.as_ref());
        let waiting = waiters.inspect(|waiters| waiters.validate()).map(|waiters| waiters.len());
        assert_eq!(waiting.sum::<usize>(), self.waiting, "waiters");
    }

    fn opened_at(&self) -> Option<Instant> {
        self.lanes[self.opened.front()?].opened_at
    }

    fn seal_all(&mut self, sealed_by: SealedBy, mut sealer: Sealer<'_, T>) {
        // Those that are ripe first, and then the others, the oldest first.
        let ripe = self.lanes.iter_from(0).filter(|(_, lane)| lane.ripe.is_some());
        for slot in ripe.map(|(slot, _)| slot).collect::<Vec<_>>() {
            self.seal(slot, sealed_by, &mut sealer);
        }
        while let Some(slot) = self.opened.front() {
            self.seal(slot, sealed_by, &mut sealer);
        }
    }

    fn drain(&mut self) -> Vec<Job<T, Arc<K>>> {
        let slots: Vec<_> = self.lanes.iter_from(0).map(|(slot, _)| slot).collect();
        let mut jobs = Vec::new();
        for slot in slots {
            while let Some(job) = self.pop_sealed(slot) {
                self.lanes[slot].running += 1;
                jobs.push(job);
            }
            self.turns.discard(slot);
        }
        jobs
    }

    fn add_unsent(key: Arc<K>, items: Vec<T>, undelivered: &mut Vec<(Arc<K>, Vec<T>)>) {
        if !items.is_empty() {
            undelivered.push((key, items));
        }
    }

    fn to_dead_letter(
        undelivered: Vec<(Arc<K>, Vec<T>)>,
        mut to_dead_letter: impl FnMut(&Arc<K>, Vec<T>),
    ) {
        for (key, items) in undelivered {
            to_dead_letter(&key, items);
        }
    }

    fn guard(batch: Batch<T>, key: Arc<K>) -> KeyedBatch<K, T> {
        KeyedBatch::new(key, batch)
    }

    fn count(&mut self, slot: u32, batch: u64, fate: Fate, items: usize, wakes: &mut Wakes) {
        let lane = &mut self.lanes[slot];
        lane.sealed_items -= items;
        if let Some(flushes) = &mut lane.flushes {
            flushes.ended.add(fate, items);
            flushes.spans.count(batch, fate, items, wakes);
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
            let Some(slot) = self.unserved.front() else { return };
            self.unserved.discard(slot);
            self.serve_lane(slot, wakes);
        }
    }

    fn dismiss(&mut self, wakes: &mut Wakes) {
        if !self.dismissed {
            self.dismissed = true;
            let lanes = self.lanes.iter_from(0).filter(|(_, lane)| lane.waiters.is_some());
            for slot in lanes.map(|(slot, _)| slot).collect::<Vec<_>>() {
                self.unserved.insert(slot);
            }
        }
        while let Some(slot) = self.unserved.front() {
            if wakes.senders_are_full() {
                return;
            }
            match self.lanes[slot].waiters.as_mut().and_then(|waiters| waiters.pop_front()) {
                Some(waiter) => {
                    self.waiting -= 1;
                    waiter.waker.into_iter().for_each(|waker| wakes.sender(waker));
                }
                None => self.unserved.discard(slot),
            }
        }
    }

    fn waiting(&self) -> usize {
        self.waiting
    }

    fn note(&self, stats: &mut BatcherStats) {
        stats.keys = self.keys;
        stats.peak_keys = self.peak_keys;
    }
}
