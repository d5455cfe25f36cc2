//! The batcher's state machine: it knows no clock, no runtime and no lock.
//!
//! Where an item is:
//!
//! ```text
//!          full, flush, close          taken beside another
//!   open ─────────────────────► sealed ────────────────────► ahead
//!    │                            │                            │
//!    │ window over, or idle,      │ a slot                     │ its turn
//!    │ and a slot free            │ free                       │
//!    └──────────────► out ◄───────┴────────────────────────────┘
//!                     │ ▲
//!              failed │ │ due and a slot free
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
use std::time::Instant;

use super::buffers::{Buffers, Sealer, SingleBuffer};
use super::capacity::{Capacity, Limits, Weight};
use super::failure_state::FailureState;
use super::flush::Flushes;
use super::in_flight::InFlightBatches;
use super::job::{Handed, Job, Spares};
use super::report::{BatcherStats, FlushReport, SealedBy};
use super::wake::Wakes;
use crate::base::deadlines::Deadlines;
use crate::base::wait_list::WaiterId;

/// What the driver should do.
pub(crate) enum Next<T, G = ()> {
    /// Hand this to the handler; and, if it is finished at once and `flows`, those ahead.
    Run { handed: Handed<T, G>, flows: bool },
    /// The handler is done with this slot, and the guard is back: of the items that were handed over
    /// the job holds those that the guard still held.
    Returned { slot: usize, handed: usize, job: Job<T, G> },
    /// The attempt in this slot has run out of time: the handler is to be done with it.
    Overdue { slot: usize },
    /// Sleep until then, or until woken; and, if so, until there is a permit.
    Sleep { until: Option<Instant>, wants_permit: bool },
    /// The deadline of the shutdown is over: drop the handlers, then call `stop`.
    Stop,
    /// Everything is finished and nothing more will come.
    Done,
}

/// What a stopped batcher had not delivered.
pub(crate) struct Undelivered<R, G> {
    pub(crate) unsent: Vec<R>,
    pub(crate) indeterminate: Vec<R>,
    /// Keys that are no longer needed.
    pub(crate) tags: Vec<G>,
    /// Of batches that will not be tried again: with a policy's own iterators and a handler's own
    /// errors, so that they too are dropped outside the lock.
    pub(crate) failure_states: Vec<FailureState>,
}

impl<R, G> Undelivered<R, G> {
    const NONE: Self = Self {
        unsent: Vec::new(),
        indeterminate: Vec::new(),
        tags: Vec::new(),
        failure_states: Vec::new(),
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

pub(crate) struct Core<T, L: Buffers<T> = SingleBuffer<T>> {
    limits: Limits,
    phase: Phase,
    capacity: Capacity,
    pub(super) buffers: L,
    waiting: BTreeMap<(Instant, u64), Job<T, L::Tag>>,
    /// Whether the batch handed over last was a retry.
    retried_last: bool,
    in_flight: InFlightBatches<T, L::Tag>,
    /// How many of them the driver has not begun, as far as is known here.
    ahead: usize,
    /// When which attempt has run out of time, if they have a limit.
    deadlines: Deadlines,
    /// Slots whose handler is done and whose guard is back.
    over: VecDeque<usize>,
    next_id: u64,
    spare: Spares<T>,
    stop_at: Option<Instant>,
    undelivered: Undelivered<L::Unsent, L::Tag>,
    still_held: u64,
    /// The batches in guards that outlive the batcher.
    strays: BTreeMap<u64, L::Tag>,
    /// How all finished items ended.
    ended: FlushReport,
    finished_weight: u64,
    stats: BatcherStats,
    flushes: Flushes,
    stop_wakers: BTreeMap<u64, Option<Waker>>,
    next_ticket: u64,
    /// Present exactly while the driver sleeps.
    driver: Option<Waker>,
}

impl<T, L: Buffers<T>> Core<T, L> {
    pub(crate) fn new(limits: Limits) -> Self {
        let weight = limits.capacity_weight.unwrap_or(0);
        Self {
            limits,
            phase: Phase::Accepting,
            capacity: Capacity::new(limits.capacity, usize::try_from(weight).unwrap_or(usize::MAX)),
            buffers: L::new(&limits),
            waiting: BTreeMap::new(),
            retried_last: false,
            in_flight: InFlightBatches::new(),
            ahead: 0,
            deadlines: Deadlines::new(),
            over: VecDeque::new(),
            next_id: 0,
            spare: Spares::new(limits.capacity),
            stop_at: None,
            undelivered: Undelivered::NONE,
            still_held: 0,
            strays: BTreeMap::new(),
            ended: FlushReport::default(),
            finished_weight: 0,
            stats: BatcherStats { window: limits.window, ..BatcherStats::default() },
            flushes: Flushes::default(),
            stop_wakers: BTreeMap::new(),
            next_ticket: 0,
            driver: None,
        }
    }

    // ---- what senders do

    /// Takes room for one item of this weight, which is then to be given to `accept`.
    #[inline]
    pub(crate) fn take_capacity(&mut self, weight: Weight) -> Result<(), Refusal> {
        if self.phase != Phase::Accepting {
            Err(Refusal::Closed)
        } else if self.capacity.take(weight) {
            Ok(())
        } else {
            Err(Refusal::Full)
        }
    }

    /// Whether `take_capacity` would find room, or finds the batcher closed: a send need not wait then.
    pub(crate) fn is_immediate(&self, weight: Weight) -> bool {
        self.phase != Phase::Accepting || self.capacity.fits(weight)
    }

    /// Takes a place in the wait list for room.
    pub(crate) fn join(&mut self, weight: Weight, waker: Waker) -> WaiterId {
        self.capacity.join(weight, waker)
    }

    /// The waker of a place in the wait list; `None` once room was granted to it. Not to be asked when
    /// closed.
    pub(crate) fn waiting(&mut self, waiter: WaiterId) -> Option<&mut Waker> {
        self.capacity.waker(waiter)
    }

    /// Gives up a place in the wait list, or the room that was granted to it.
    pub(crate) fn leave(&mut self, waiter: WaiterId, weight: Weight, wakes: &mut Wakes) {
        // When it was closed the line was emptied, and room is of no use any more.
        if self.phase == Phase::Accepting {
            self.capacity.leave(waiter, weight, wakes);
        }
    }

    /// Gives room back that was taken and not used.
    pub(crate) fn return_capacity(&mut self, items: usize, weight: Weight, wakes: &mut Wakes) {
        self.capacity.give(items, weight as usize, wakes);
    }

    /// Serves those who wait, or sends them away.
    pub(crate) fn serve(&mut self, wakes: &mut Wakes) {
        match self.phase {
            Phase::Accepting => {
                self.buffers.serve(wakes);
                self.capacity.serve(wakes);
            }
            Phase::Draining | Phase::Stopped => self.dismiss(wakes),
        }
    }

    fn dismiss(&mut self, wakes: &mut Wakes) {
        self.capacity.dismiss(wakes);
        self.buffers.dismiss(wakes);
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
        let (buffers, sealer) = self.sealing();
        let (news, key) = buffers.push(key, item, weight, clock, sealer);
        // Without a free slot there is nothing to start and no window to watch.
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
        let Self { limits, stats, next_id, spare, buffers, .. } = self;
        (buffers, Sealer { limits, stats, next_id, spare })
    }

    fn seal_all(&mut self, sealed_by: SealedBy) {
        let (buffers, sealer) = self.sealing();
        buffers.seal_all(sealed_by, sealer);
    }

    // ---- figures

    fn accepted(&self) -> u64 {
        self.stats.batched_items + self.buffers.items() as u64
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
        self.buffers.counted()
            + self.waiting.values().map(Job::len).sum::<usize>()
            + self.in_flight.iter().map(|batch_in_flight| batch_in_flight.unfinished).sum::<usize>()
    }

    /// Panics if the structures do not agree.
    #[cfg(debug_assertions)]
    pub(crate) fn validate(&self) {
        self.capacity.validate();
        self.in_flight.validate();
        self.buffers.validate();
    }

    pub(crate) fn stats(&self) -> BatcherStats {
        let pending = self.pending();
        debug_assert_eq!(pending, self.counted() as u64, "an item was lost or made up");
        #[cfg(debug_assertions)]
        self.validate();
        let mut stats = self.stats;
        let FlushReport { delivered, failed, unsent, indeterminate } = self.ended;
        (stats.delivered, stats.failed) = (delivered, failed);
        (stats.unsent, stats.indeterminate) = (unsent, indeterminate);
        stats.accepted = self.accepted();
        stats.pending = pending;
        stats.pending_weight = stats.batched_weight + self.buffers.weight() - self.finished_weight;
        stats.peak_pending = stats.peak_pending.max(pending);
        stats.waiting_senders = self.capacity.waiting() + self.buffers.waiting();
        self.buffers.note(&mut stats);
        stats
    }
}
