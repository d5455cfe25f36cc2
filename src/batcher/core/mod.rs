//! The batcher's state machine: it knows no clock, no runtime and no lock.
//!
//! Where an item is:
//!
//! ```text
//!          full, flush, close          taken beside another
//!   open ─────────────────────► sealed ────────────────────► ahead
//!    │                            │                            │
//!    │ window over, or idle,      │ a place                    │ its turn
//!    │ and a place free           │ free                       │
//!    └──────────────► out ◄───────┴────────────────────────────┘
//!                     │ ▲
//!              failed │ │ due and a place free
//!                     ▼ │
//!                   waiting        (out, waiting) ── stop ──► indeterminate
//!
//!   out ──► delivered, failed      (open, sealed, ahead) ── stop ──► unsent
//! ```
//!
//! And the batcher itself: `Accepting ── close ──► Draining ── empty, or stop ──► Stopped`.
//! A stop also comes straight from `Accepting` when the driver is dropped.

mod drive;
mod end;

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::barrier::Barriers;
use super::flight::Flights;
use super::lanes::{Lanes, Sealer, Single};
use super::report::{ClosedBy, FlushReport, Stats};
use super::room::{Room, Weight};
use super::setback::Setback;
use super::spare::Spares;
use super::wake::Wakes;
use crate::semaphore::line::Ticket;
use crate::timeline::Timeline;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_items: usize,
    /// `u64::MAX` if items are not weighed.
    pub(crate) max_weight: u64,
    pub(crate) window: Duration,
    pub(crate) eager_when_idle: bool,
    pub(crate) capacity: usize,
    pub(crate) capacity_weight: Option<u64>,
    pub(crate) concurrency: usize,
    /// How long an attempt may take.
    pub(crate) attempt_timeout: Option<Duration>,
    /// Whether a place in the handler also takes a permit of a semaphore that is shared.
    pub(crate) shared: bool,
    /// Keys with an open batch; without meaning where there are none, as the next two.
    pub(crate) max_keys: usize,
    /// `usize::MAX` if it is not limited.
    pub(crate) capacity_per_key: usize,
    /// One batch of a key at a time.
    pub(crate) in_order: bool,
}

impl Limits {
    /// The room that an item of this weight takes up.
    #[inline]
    pub(crate) fn room_for(&self, weight: u64) -> Weight {
        // No item weighs more than a batch may, and that is at most the largest `Weight`.
        if self.capacity_weight.is_some() { weight as Weight } else { 0 }
    }
}

/// A batch that is closed to further items.
pub(crate) struct Job<T, G = ()> {
    pub(crate) id: u64,
    pub(crate) lane: u32,
    pub(crate) tag: G,
    /// What is to be handed over next.
    pub(crate) items: Vec<T>,
    /// The parts of a failing batch that come after it, the last one first.
    pub(crate) parts: Vec<Vec<T>>,
    pub(crate) weight: u64,
    pub(crate) closed_by: ClosedBy,
    /// Attempts begun, the first counted.
    pub(crate) attempts: u32,
    /// Made when the first attempt has failed.
    pub(crate) setback: Option<Box<Setback>>,
    pub(crate) opened_at: Instant,
    /// A number that grows with when its first item was accepted.
    pub(crate) first: u64,
}

impl<T, G> Job<T, G> {
    pub(crate) fn len(&self) -> usize {
        self.items.len() + self.parts.iter().map(Vec::len).sum::<usize>()
    }
}

/// What is handed to the handler.
pub(crate) struct Handed<T, G = ()> {
    pub(crate) tag: G,
    pub(crate) place: usize,
    pub(crate) id: u64,
    pub(crate) attempt: u32,
    pub(crate) closed_by: ClosedBy,
    pub(crate) items: Vec<T>,
}

/// What the driver should do.
pub(crate) enum Next<T, G = ()> {
    /// Hand this to the handler; and, if it is finished at once and `flows`, those ahead.
    Run { handed: Handed<T, G>, flows: bool },
    /// The handler is done with this place, and the guard is back: of the items that were handed over
    /// the job holds those that the guard still held.
    Returned { place: usize, handed: usize, job: Job<T, G> },
    /// The attempt in this place has run out of time: the handler is to be done with it.
    Overdue { place: usize },
    /// Sleep until then, or until woken; and, if so, until there is a permit.
    Sleep { until: Option<Instant>, wants_permit: bool },
    /// The deadline of the shutdown is over: drop the handlers, then call `stop`.
    Stop,
    /// Everything is finished and nothing more will come.
    Done,
}

/// What a stopped batcher had not delivered.
pub(crate) struct Remains<R, G> {
    pub(crate) unsent: Vec<R>,
    pub(crate) indeterminate: Vec<R>,
    /// Keys that are no longer needed.
    pub(crate) tags: Vec<G>,
    /// Of batches that will not be tried again: with a policy's own iterators and a handler's own
    /// errors, so that they too are dropped outside the lock.
    pub(crate) setbacks: Vec<Setback>,
}

impl<R, G> Remains<R, G> {
    const NONE: Self = Self {
        unsent: Vec::new(),
        indeterminate: Vec::new(),
        tags: Vec::new(),
        setbacks: Vec::new(),
    };
}

/// Why an item was not accepted.
pub(crate) enum Refusal {
    Full,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Accepting,
    Draining,
    Stopped,
}

pub(crate) struct Core<T, L: Lanes<T> = Single<T>> {
    limits: Limits,
    phase: Phase,
    room: Room,
    pub(super) lanes: L,
    waiting: BTreeMap<(Instant, u64), Job<T, L::Tag>>,
    /// Whether the batch handed over last was a retry.
    retried_last: bool,
    flights: Flights<T, L::Tag>,
    /// How many of them the driver has not begun, as far as is known here.
    ahead: usize,
    /// When which attempt has run out of time, if they have a limit.
    timeline: Option<Timeline>,
    /// Places whose handler is done and whose guard is back.
    over: VecDeque<usize>,
    next_id: u64,
    spare: Spares<T>,
    stop_at: Option<Instant>,
    remains: Remains<L::Remain, L::Tag>,
    still_held: u64,
    /// The batches in guards that outlive the batcher.
    strays: BTreeMap<u64, L::Tag>,
    /// How all finished items ended.
    ended: FlushReport,
    finished_weight: u64,
    stats: Stats,
    barriers: Barriers,
    stop_wakers: BTreeMap<u64, Option<Waker>>,
    next_ticket: u64,
    /// Present exactly while the driver sleeps.
    driver: Option<Waker>,
}

impl<T, L: Lanes<T>> Core<T, L> {
    pub(crate) fn new(limits: Limits) -> Self {
        let weight = limits.capacity_weight.unwrap_or(0);
        Self {
            limits,
            phase: Phase::Accepting,
            room: Room::new(limits.capacity, usize::try_from(weight).unwrap_or(usize::MAX)),
            lanes: L::new(&limits),
            waiting: BTreeMap::new(),
            retried_last: false,
            flights: Flights::new(),
            ahead: 0,
            timeline: limits.attempt_timeout.map(Timeline::new),
            over: VecDeque::new(),
            next_id: 0,
            spare: Spares::new(limits.capacity),
            stop_at: None,
            remains: Remains::NONE,
            still_held: 0,
            strays: BTreeMap::new(),
            ended: FlushReport::default(),
            finished_weight: 0,
            stats: Stats { window: limits.window, ..Stats::default() },
            barriers: Barriers::default(),
            stop_wakers: BTreeMap::new(),
            next_ticket: 0,
            driver: None,
        }
    }

    // ---- what senders do

    /// Takes room for one item of this weight, which is then to be given to `accept`.
    #[inline]
    pub(crate) fn take_room(&mut self, weight: Weight) -> Result<(), Refusal> {
        if self.phase != Phase::Accepting {
            Err(Refusal::Closed)
        } else if self.room.take(weight) {
            Ok(())
        } else {
            Err(Refusal::Full)
        }
    }

    /// Whether `take_room` would find room, or finds the batcher closed: a send need not wait then.
    pub(crate) fn is_immediate(&self, weight: Weight) -> bool {
        self.phase != Phase::Accepting || self.room.fits(weight)
    }

    /// Takes a place in line for room.
    pub(crate) fn join(&mut self, weight: Weight, waker: Waker) -> Ticket {
        self.room.join(weight, waker)
    }

    /// The waker of a place in line; `None` once room was granted to it. Not to be asked when
    /// closed.
    pub(crate) fn waiting(&mut self, ticket: Ticket) -> Option<&mut Waker> {
        self.room.waker(ticket)
    }

    /// Gives up a place in line, or the room that was granted to it.
    pub(crate) fn leave(&mut self, ticket: Ticket, weight: Weight, wakes: &mut Wakes) {
        // When it was closed the line was emptied, and room is of no use any more.
        if self.phase == Phase::Accepting {
            self.room.leave(ticket, weight, wakes);
        }
    }

    /// Gives room back that was taken and not used.
    pub(crate) fn give_room(&mut self, items: usize, weight: Weight, wakes: &mut Wakes) {
        self.room.give(items, weight as usize, wakes);
    }

    /// Serves those who wait, or sends them away.
    pub(crate) fn serve(&mut self, wakes: &mut Wakes) {
        match self.phase {
            Phase::Accepting => {
                self.lanes.serve(wakes);
                self.room.serve(wakes);
            }
            Phase::Draining | Phase::Stopped => self.dismiss(wakes),
        }
    }

    fn dismiss(&mut self, wakes: &mut Wakes) {
        self.room.dismiss(wakes);
        self.lanes.dismiss(wakes);
    }

    /// Accepts an item for which room was taken. The clock is read for the first item of a batch
    /// only. The driver's waker, if it has something to do now; and the key, if it is not needed.
    #[inline]
    pub(crate) fn accept(
        &mut self,
        key: L::Key,
        item: impl FnOnce() -> T,
        weight: u64,
        clock: impl FnOnce() -> Instant,
    ) -> (Option<Waker>, Option<L::Key>) {
        let (lanes, sealer) = self.sealing();
        let (news, key) = lanes.push(key, item, weight, clock, sealer);
        // Without a free place there is nothing to start and no window to watch.
        let driver = if news && self.has_place() { self.driver.take() } else { None };
        (driver, key)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    pub(crate) fn is_accepting(&self) -> bool {
        self.phase == Phase::Accepting
    }

    /// The lanes, and what it takes to close batches in them.
    #[inline]
    pub(super) fn sealing(&mut self) -> (&mut L, Sealer<'_, T>) {
        let Self { limits, stats, next_id, spare, lanes, .. } = self;
        (lanes, Sealer { limits, stats, next_id, spare })
    }

    fn seal_all(&mut self, closed_by: ClosedBy) {
        let (lanes, sealer) = self.sealing();
        lanes.seal_all(closed_by, sealer);
    }

    // ---- figures

    fn accepted(&self) -> u64 {
        self.stats.batched_items + self.lanes.items() as u64
    }

    /// Items accepted and unfinished. Asked for at each rest of a batcher that drains, so it must
    /// not look at every batch.
    fn pending(&self) -> u64 {
        self.accepted() - self.ended.total()
    }

    /// To be called before it falls: that is when it may have been at its highest.
    fn note_peak(&mut self) {
        self.stats.peak_pending = self.stats.peak_pending.max(self.pending());
    }

    /// The pending items counted where they are, so that the equation of the figures can be wrong.
    fn counted(&self) -> usize {
        self.lanes.counted()
            + self.waiting.values().map(Job::len).sum::<usize>()
            + self.flights.iter().map(|flight| flight.unfinished).sum::<usize>()
    }

    pub(crate) fn stats(&self) -> Stats {
        let pending = self.pending();
        debug_assert_eq!(pending, self.counted() as u64, "an item was lost or made up");
        let mut stats = self.stats;
        let FlushReport { delivered, failed, unsent, indeterminate } = self.ended;
        (stats.delivered, stats.failed) = (delivered, failed);
        (stats.unsent, stats.indeterminate) = (unsent, indeterminate);
        stats.accepted = self.accepted();
        stats.pending = pending;
        stats.pending_weight = stats.batched_weight + self.lanes.weight() - self.finished_weight;
        stats.peak_pending = stats.peak_pending.max(pending);
        stats.waiting_senders = self.room.waiting() + self.lanes.waiting();
        self.lanes.note(&mut stats);
        stats
    }
}
