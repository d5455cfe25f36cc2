//! The batches that take items and those that are closed and were never handed over: one line of
//! them, or one for each key.

use std::collections::VecDeque;
use std::time::Instant;

use super::batch::Batch;
use super::capacity::Limits;
use super::job::{Job, Spares};
use super::open_batch::{OpenBatch, Sealed};
use super::report::{BatcherStats, Fate, SealedBy};
use super::wake::Wakes;

/// What the state machine asks of the lanes, behind its lock: no key's destructor may run in here.
pub(crate) trait Buffers<T> {
    /// Says into which lane an item goes.
    type Key;
    /// What a batch carries of its key.
    type Tag: Clone;
    /// What a stop hands back.
    type Unsent;
    /// What the handler is given.
    type Guard;

    /// Whether a batch that waits for its retry holds up those behind it, where one is handled at
    /// a time.
    const ONE_LINE: bool;
    /// Whether dropping a tag may run a destructor of the user's.
    const TAGS_NEED_DROP: bool;

    fn new(limits: &Limits) -> Self;

    /// Items in open batches.
    fn items(&self) -> usize;

    /// Their weight.
    fn weight(&self) -> u64;

    /// Items in open and closed batches, counted where they are.
    fn counted(&self) -> usize;

    /// Takes an item in, which is made in place. Whether the driver has something to do now, or
    /// another time to wake at; and the key, if it is not needed any more.
    fn push(
        &mut self,
        key: Self::Key,
        item: impl FnOnce() -> T,
        weight: u64,
        clock: impl FnOnce() -> Instant,
        sealer: Sealer<'_, T>,
    ) -> (bool, Option<Self::Key>);

    /// Whether a batch may be handed over, `idle` if none is with the handler.
    fn is_ripe(&mut self, now: Instant, idle: bool, limits: &Limits) -> bool;

    /// A batch to hand over for the first time, after `is_ripe`.
    fn next(
        &mut self,
        now: Instant,
        idle: bool,
        sealer: Sealer<'_, T>,
    ) -> Option<Job<T, Self::Tag>>;

    /// The batch whose turn it is, if it is closed already. It is to be handed over later, and its
    /// lane has no other turn until then.
    fn next_sealed(&mut self) -> Option<Job<T, Self::Tag>>;

    /// The batch of a lane that was to be handed over later was handed over.
    fn begun(&mut self, _lane: u32) {}

    /// When the oldest open batch that is not ripe was opened.
    fn opened_at(&self) -> Option<Instant>;

    /// Closes all open batches.
    fn seal_all(&mut self, sealed_by: SealedBy, sealer: Sealer<'_, T>);

    /// Panics if the structures below do not agree.
    #[cfg(debug_assertions)]
    fn validate(&self) {}

    /// All closed batches.
    fn drain(&mut self) -> Vec<Job<T, Self::Tag>>;

    fn add_unsent(tag: Self::Tag, items: Vec<T>, undelivered: &mut Vec<Self::Unsent>);

    /// Calls `to_dead_letter` with what undelivered.
    fn to_dead_letter(
        undelivered: Vec<Self::Unsent>,
        to_dead_letter: impl FnMut(&Self::Tag, Vec<T>),
    );

    fn guard(batch: Batch<T>, tag: Self::Tag) -> Self::Guard;

    /// Items of a lane are finished.
    fn count(&mut self, _lane: u32, _batch: u64, _fate: Fate, _items: usize, _wakes: &mut Wakes) {}

    /// A batch of a lane is finished. What of it is to be dropped once the lock is released.
    fn over(&mut self, _lane: u32) -> Option<Self::Tag> {
        None
    }

    /// Serves those who wait for room in their lane, while `wakes` has room.
    fn serve(&mut self, _wakes: &mut Wakes) {}

    /// Sends them all away, while `wakes` has room.
    fn dismiss(&mut self, _wakes: &mut Wakes) {}

    /// How many they are.
    fn waiting(&self) -> usize {
        0
    }

    /// Writes the figures of its own.
    fn note(&self, _stats: &mut BatcherStats) {}
}

/// Closes batches: what of the state machine that takes.
pub(crate) struct Sealer<'a, T> {
    pub(crate) limits: &'a Limits,
    pub(crate) stats: &'a mut BatcherStats,
    pub(crate) next_id: &'a mut u64,
    pub(crate) spare: &'a mut Spares<T>,
}

impl<T> Sealer<'_, T> {
    /// A batch of what was taken out of an open one.
    pub(crate) fn seal<G>(
        &mut self,
        closed: Sealed<T>,
        sealed_by: SealedBy,
        lane: u32,
        tag: G,
    ) -> Job<T, G> {
        let Sealed { items, weight, opened_at, first } = closed;
        self.stats.batches.add(sealed_by);
        self.stats.batched_items += items.len() as u64;
        self.stats.batched_weight += weight;
        self.stats.largest_batch = self.stats.largest_batch.max(items.len());
        self.stats.heaviest_batch = self.stats.heaviest_batch.max(weight);
        let id = *self.next_id;
        *self.next_id += 1;
        Job {
            id,
            lane,
            tag,
            items,
            parts: Vec::new(),
            weight,
            sealed_by,
            attempts: 0,
            failure_state: None,
            opened_at,
            first,
        }
    }
}

/// The batcher without keys: one lane.
pub(crate) struct SingleBuffer<T> {
    open: OpenBatch<T>,
    sealed: VecDeque<Job<T>>,
}

impl<T> SingleBuffer<T> {
    /// Closes the open batch, if it holds anything.
    fn seal(&mut self, sealed_by: SealedBy, sealer: &mut Sealer<'_, T>) {
        let spare = &mut *sealer.spare;
        // Without one to use again: as large as the last, not as large as might be.
        let next = |len| spare.take().unwrap_or_else(|| Vec::with_capacity(len));
        // All items of the batches before it were accepted before.
        let first = sealer.stats.batched_items;
        if let Some(closed) = self.open.seal(first, next) {
            self.sealed.push_back(sealer.seal(closed, sealed_by, 0, ()));
        }
    }

    /// What closes the open batch now that there is a slot for it, if anything.
    fn closes_open(&self, now: Instant, idle: bool, limits: &Limits) -> Option<SealedBy> {
        let opened_at = self.open.opened_at()?;
        // Without looking at the clock, which may have been read before the batch was opened.
        if limits.window.is_zero() || opened_at + limits.window <= now {
            Some(SealedBy::Window)
        } else if limits.eager_when_idle && idle {
            Some(SealedBy::Idle)
        } else {
            None
        }
    }
}

impl<T> Buffers<T> for SingleBuffer<T> {
    type Key = ();
    type Tag = ();
    type Unsent = T;
    type Guard = Batch<T>;

    const ONE_LINE: bool = true;
    const TAGS_NEED_DROP: bool = false;

    fn new(_: &Limits) -> Self {
        Self { open: OpenBatch::new(), sealed: VecDeque::new() }
    }

    #[inline]
    fn items(&self) -> usize {
        self.open.len()
    }

    fn weight(&self) -> u64 {
        self.open.weight()
    }

    fn counted(&self) -> usize {
        self.open.len() + self.sealed.iter().map(Job::len).sum::<usize>()
    }

    #[inline]
    fn push(
        &mut self,
        (): (),
        item: impl FnOnce() -> T,
        weight: u64,
        clock: impl FnOnce() -> Instant,
        mut sealer: Sealer<'_, T>,
    ) -> (bool, Option<()>) {
        let limits = sealer.limits;
        let fits = weight <= limits.max_weight - self.open.weight();
        if !fits {
            self.seal(SealedBy::Weight, &mut sealer);
        }
        let first = self.open.push(item, weight, clock);
        if self.open.len() == limits.max_items {
            self.seal(SealedBy::Count, &mut sealer);
        } else if self.open.weight() == limits.max_weight {
            self.seal(SealedBy::Weight, &mut sealer);
        }
        // Within a batch nothing changes for the driver.
        (first || self.open.opened_at().is_none(), None)
    }

    fn is_ripe(&mut self, now: Instant, idle: bool, limits: &Limits) -> bool {
        !self.sealed.is_empty() || self.closes_open(now, idle, limits).is_some()
    }

    fn next(&mut self, now: Instant, idle: bool, mut sealer: Sealer<'_, T>) -> Option<Job<T>> {
        if self.sealed.is_empty() {
            let sealed_by = self.closes_open(now, idle, sealer.limits)?;
            self.seal(sealed_by, &mut sealer);
        }
        self.sealed.pop_front()
    }

    fn next_sealed(&mut self) -> Option<Job<T>> {
        self.sealed.pop_front()
    }

    fn opened_at(&self) -> Option<Instant> {
        self.open.opened_at()
    }

    fn seal_all(&mut self, sealed_by: SealedBy, mut sealer: Sealer<'_, T>) {
        self.seal(sealed_by, &mut sealer);
    }

    fn drain(&mut self) -> Vec<Job<T>> {
        self.sealed.drain(..).collect()
    }

    fn add_unsent((): (), mut items: Vec<T>, undelivered: &mut Vec<T>) {
        undelivered.append(&mut items);
    }

    fn to_dead_letter(undelivered: Vec<T>, mut to_dead_letter: impl FnMut(&(), Vec<T>)) {
        to_dead_letter(&(), undelivered);
    }

    fn guard(batch: Batch<T>, (): ()) -> Batch<T> {
        batch
    }
}
