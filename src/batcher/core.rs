//! The batcher's state machine: it knows no clock, no runtime and no lock.
//!
//! Where an item is:
//!
//! ```text
//!          full, flush, close
//!   open ─────────────────────► sealed ──► unsent
//!    │                            │           ▲ stop
//!    │ window over and            │ a place   │
//!    │ a place free               │ free      │
//!    └──────────────► out ◄───────┘        (open, sealed)
//!                     │ ▲
//!              failed │ │ due and a place free
//!                     ▼ │
//!                   waiting        (out, waiting) ── stop ──► indeterminate
//!
//!   out ──► delivered, failed
//! ```
//!
//! And the batcher itself: `Accepting ── close ──► Draining ── empty, or stop ──► Stopped`.
//! A stop also comes straight from `Accepting` when the driver is dropped.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::barrier::Barriers;
use super::report::{ClosedBy, Fate, FlushReport, Stats};
use super::wake::Wakes;
use crate::retry::Delays;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_items: usize,
    pub(crate) window: Duration,
    pub(crate) concurrency: usize,
}

/// A batch that is closed to further items.
pub(crate) struct Job<T> {
    pub(crate) id: u64,
    pub(crate) items: Vec<T>,
    pub(crate) closed_by: ClosedBy,
    /// Attempts begun, the first counted.
    pub(crate) attempts: u32,
    /// Made when the first attempt has failed.
    pub(crate) delays: Option<Delays>,
    opened_at: Instant,
}

/// What the core still knows of a batch that was handed over.
struct Out<T> {
    id: u64,
    handed: usize,
    /// What its guard held when that was dropped.
    back: Option<Vec<T>>,
    /// The handler is done; only the guard is missing.
    handled: bool,
}

/// What the driver should do.
pub(crate) enum Next<T> {
    /// Hand this batch to the handler.
    Run(Job<T>),
    /// The guard of this batch came back after its handler was done.
    Returned(u64),
    /// Sleep until then, or until woken.
    Sleep(Option<Instant>),
    /// The deadline of the shutdown is over: drop the handlers, then call `stop`.
    Stop,
    /// Everything is finished and nothing more will come.
    Done,
}

/// What a stopped batcher had not delivered.
pub(crate) struct Remains<T> {
    pub(crate) unsent: Vec<T>,
    pub(crate) indeterminate: Vec<T>,
    /// The backoffs of retries that will not be: a policy's own iterators, so that they too are
    /// dropped outside the lock.
    pub(crate) delays: Vec<Delays>,
}

impl<T> Remains<T> {
    const NONE: Self = Self { unsent: Vec::new(), indeterminate: Vec::new(), delays: Vec::new() };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Accepting,
    Draining,
    Stopped,
}

pub(crate) struct Core<T> {
    limits: Limits,
    phase: Phase,
    /// The batch that takes items, and the time of its first.
    open: Vec<T>,
    opened_at: Option<Instant>,
    sealed: VecDeque<Job<T>>,
    waiting: BTreeMap<(Instant, u64), Job<T>>,
    /// Whether the batch handed over last was a retry.
    retried_last: bool,
    out: Vec<Out<T>>,
    next_id: u64,
    /// Emptied vectors, for batches to come.
    spare: Vec<Vec<T>>,
    stop_at: Option<Instant>,
    remains: Remains<T>,
    still_held: u64,
    stats: Stats,
    barriers: Barriers,
    stop_wakers: BTreeMap<u64, Option<Waker>>,
    next_ticket: u64,
    /// Present exactly while the driver sleeps.
    driver: Option<Waker>,
}

impl<T> Core<T> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            phase: Phase::Accepting,
            open: Vec::new(),
            opened_at: None,
            sealed: VecDeque::new(),
            waiting: BTreeMap::new(),
            retried_last: false,
            out: Vec::new(),
            next_id: 0,
            spare: Vec::new(),
            stop_at: None,
            remains: Remains::NONE,
            still_held: 0,
            stats: Stats::default(),
            barriers: Barriers::default(),
            stop_wakers: BTreeMap::new(),
            next_ticket: 0,
            driver: None,
        }
    }

    /// Accepts an item, or hands it back when closed. The clock is read for the first item of a
    /// batch only.
    pub(crate) fn push(
        &mut self,
        item: T,
        clock: impl FnOnce() -> Instant,
        wakes: &mut Wakes,
    ) -> Result<(), T> {
        if self.phase != Phase::Accepting {
            return Err(item);
        }
        let first = self.open.is_empty();
        if first {
            self.opened_at = Some(clock());
        }
        self.open.push(item);
        self.stats.accepted += 1;
        self.stats.peak_pending = self.stats.peak_pending.max(self.pending());
        let full = self.open.len() == self.limits.max_items;
        if full {
            self.seal(ClosedBy::Count);
        }
        // Without a free place there is nothing to start and no window to watch.
        if (first || full) && self.has_place() {
            wakes.push(self.driver.take());
        }
        Ok(())
    }

    /// Closes the open batch, if it holds anything.
    fn seal(&mut self, closed_by: ClosedBy) {
        let Some(opened_at) = self.opened_at.take() else { return };
        let items = mem::replace(&mut self.open, self.spare.pop().unwrap_or_default());
        self.stats.batches.add(closed_by);
        self.stats.batched_items += items.len() as u64;
        self.stats.largest_batch = self.stats.largest_batch.max(items.len());
        let id = self.next_id;
        self.next_id += 1;
        self.sealed.push_back(Job { id, items, closed_by, attempts: 0, delays: None, opened_at });
    }

    fn has_place(&self) -> bool {
        // With one batch at a time a retry keeps its place, so that no later batch overtakes it.
        let kept = if self.limits.concurrency == 1 { self.waiting.len() } else { 0 };
        self.out.len() + kept < self.limits.concurrency
    }

    /// The next thing to do. When it is to sleep, `waker` is kept for whoever changes that, in the
    /// same step as nothing was found to do.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        waker: &mut Option<Waker>,
        wakes: &mut Wakes,
    ) -> Next<T> {
        let next = self.decide(now, wakes);
        if matches!(next, Next::Sleep(_)) {
            self.stats.wakeups += 1;
            mem::swap(&mut self.driver, waker);
        } else {
            wakes.discard(self.driver.take());
        }
        next
    }

    fn decide(&mut self, now: Instant, wakes: &mut Wakes) -> Next<T> {
        if self.phase == Phase::Stopped {
            return Next::Done;
        }
        // Before the deadline is looked at: what is known to be finished is not given up.
        if let Some(out) = self.out.iter().find(|out| out.handled && out.back.is_some()) {
            return Next::Returned(out.id);
        }
        if self.stop_at.is_some_and(|at| at <= now) {
            return Next::Stop;
        }
        if let Some(mut job) = self.ripe(now) {
            job.attempts += 1;
            self.retried_last = job.attempts > 1;
            if job.attempts == 1 {
                let age = now.saturating_duration_since(job.opened_at);
                self.stats.oldest_handed_over = self.stats.oldest_handed_over.max(age);
            } else {
                self.stats.retries += 1;
            }
            let handed = job.items.len();
            self.out.push(Out { id: job.id, handed, back: None, handled: false });
            return Next::Run(job);
        }
        if self.phase == Phase::Draining && self.pending() == 0 {
            self.phase = Phase::Stopped;
            self.wake_stopped(wakes);
            return Next::Done;
        }
        Next::Sleep(self.alarm())
    }

    /// A batch to hand over: a retry that is due, a sealed one, or the open one if its window is
    /// over. Side by side, retries take turns with the others, so that a batch that always fails
    /// cannot keep them out.
    fn ripe(&mut self, now: Instant) -> Option<Job<T>> {
        if self.out.len() == self.limits.concurrency {
            return None;
        }
        let due = self.waiting.keys().next().is_some_and(|(due, _)| *due <= now);
        let yields = self.retried_last && self.limits.concurrency > 1;
        let fresh = if due && !yields { None } else { self.fresh(now) };
        if fresh.is_some() || !due {
            return fresh;
        }
        self.waiting.pop_first().map(|(_, job)| job)
    }

    /// A batch to hand over for the first time.
    fn fresh(&mut self, now: Instant) -> Option<Job<T>> {
        if !self.has_place() {
            return None;
        }
        if self.sealed.is_empty() && self.window_end().is_some_and(|end| end <= now) {
            self.seal(ClosedBy::Window);
        }
        self.sealed.pop_front()
    }

    fn window_end(&self) -> Option<Instant> {
        self.opened_at.map(|at| at + self.limits.window)
    }

    /// When something changes by time alone.
    fn alarm(&self) -> Option<Instant> {
        let window = if self.has_place() { self.window_end() } else { None };
        let place = self.out.len() < self.limits.concurrency;
        let retry = self.waiting.keys().next().map(|(due, _)| *due).filter(|_| place);
        [self.stop_at, window, retry].into_iter().flatten().min()
    }

    /// The guard of a batch was dropped, and this was left in it. It comes straight back when the
    /// batcher has stopped and nobody asks for it any more.
    pub(crate) fn give_back(
        &mut self,
        id: u64,
        items: Vec<T>,
        wakes: &mut Wakes,
    ) -> Result<(), Vec<T>> {
        match self.out.iter_mut().find(|out| out.id == id) {
            Some(out) => {
                out.back = Some(items);
                if out.handled {
                    wakes.push(self.driver.take());
                }
                Ok(())
            }
            None => Err(items),
        }
    }

    /// The handler is done with a batch: how many items it was handed and what its guard held, or
    /// nothing while the guard is still about; then `Next::Returned` tells when it is back.
    pub(crate) fn reclaim(&mut self, id: u64) -> Option<(usize, Vec<T>)> {
        let out = self.out.iter_mut().find(|out| out.id == id)?;
        out.handled = true;
        let items = out.back.take()?;
        Some((out.handed, items))
    }

    /// A reclaimed batch is finished. Its emptied vector is used again.
    pub(crate) fn settle(
        &mut self,
        id: u64,
        delivered: usize,
        failed: usize,
        emptied: Vec<T>,
        wakes: &mut Wakes,
    ) {
        self.out.retain(|out| out.id != id);
        self.count(id, Fate::Delivered, delivered, wakes);
        self.count(id, Fate::Failed, failed, wakes);
        if self.spare.len() <= self.limits.concurrency {
            self.spare.push(emptied);
        }
    }

    /// A reclaimed batch is tried again at `due`, without the items that were `delivered`.
    pub(crate) fn retry(&mut self, job: Job<T>, due: Instant, delivered: usize, wakes: &mut Wakes) {
        self.out.retain(|out| out.id != job.id);
        self.count(job.id, Fate::Delivered, delivered, wakes);
        self.waiting.insert((due, job.id), job);
    }

    fn count(&mut self, batch: u64, fate: Fate, items: usize, wakes: &mut Wakes) {
        if items > 0 {
            self.stats.add(fate, items);
            self.barriers.count(batch, fate, items, wakes);
        }
    }

    /// Seals the open batch and raises a barrier over all that is pending.
    pub(crate) fn flush(&mut self, wakes: &mut Wakes) -> u64 {
        self.seal(ClosedBy::Flush);
        if self.has_place() {
            wakes.push(self.driver.take());
        }
        self.barriers.raise(self.next_id, self.pending())
    }

    pub(crate) fn poll_flush(
        &mut self,
        ticket: u64,
        waker: &mut Option<Waker>,
    ) -> Option<FlushReport> {
        self.barriers.poll(ticket, waker)
    }

    pub(crate) fn forget_flush(&mut self, ticket: u64) -> Option<Waker> {
        self.barriers.lower(ticket)
    }

    /// Accepts nothing more, seals, and drains; what is not finished at `stop_at` is given up. A
    /// later call can only bring that forward.
    pub(crate) fn close(&mut self, stop_at: Option<Instant>, wakes: &mut Wakes) {
        if self.phase == Phase::Stopped {
            return;
        }
        if self.phase == Phase::Accepting {
            self.phase = Phase::Draining;
            self.seal(ClosedBy::Shutdown);
        }
        self.stop_at = [self.stop_at, stop_at].into_iter().flatten().min();
        wakes.push(self.driver.take());
    }

    /// Ends now. The handlers have been dropped before; what is left comes back.
    pub(crate) fn stop(&mut self, wakes: &mut Wakes) -> Remains<T> {
        if self.phase == Phase::Stopped {
            return Remains::NONE;
        }
        self.seal(ClosedBy::Shutdown);
        self.phase = Phase::Stopped;
        let mut remains = Remains::NONE;
        for mut job in mem::take(&mut self.sealed) {
            self.count(job.id, Fate::Unsent, job.items.len(), wakes);
            remains.unsent.append(&mut job.items);
        }
        // In the order they were accepted: by the number of the batch, not by when a retry is due.
        let mut given_up: Vec<_> = mem::take(&mut self.out)
            .into_iter()
            .map(|out| (out.id, out.handed, out.back))
            .collect();
        for job in mem::take(&mut self.waiting).into_values() {
            given_up.push((job.id, job.items.len(), Some(job.items)));
            remains.delays.extend(job.delays);
        }
        given_up.sort_unstable_by_key(|(id, ..)| *id);
        for (id, handed, back) in given_up {
            match back {
                Some(mut items) => {
                    self.count(id, Fate::Delivered, handed - items.len(), wakes);
                    self.count(id, Fate::Indeterminate, items.len(), wakes);
                    remains.indeterminate.append(&mut items);
                }
                None => {
                    self.still_held += handed as u64;
                    self.count(id, Fate::Indeterminate, handed, wakes);
                }
            }
        }
        self.wake_stopped(wakes);
        wakes.push(self.driver.take());
        remains
    }

    fn wake_stopped(&mut self, wakes: &mut Wakes) {
        for waker in mem::take(&mut self.stop_wakers).into_values() {
            wakes.push(waker);
        }
    }

    /// Keeps what a stop left for a shutdown to hand out.
    pub(crate) fn keep(&mut self, remains: Remains<T>) {
        self.remains = remains;
    }

    pub(crate) fn take_remains(&mut self) -> Remains<T> {
        mem::replace(&mut self.remains, Remains::NONE)
    }

    pub(crate) fn still_held(&self) -> u64 {
        self.still_held
    }

    /// A place among those who wait for the end.
    pub(crate) fn await_stop(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.stop_wakers.insert(ticket, None);
        ticket
    }

    /// Whether all is over; until then `waker` is kept, and the one before it takes its place.
    pub(crate) fn poll_stopped(&mut self, ticket: u64, waker: &mut Option<Waker>) -> bool {
        if self.phase == Phase::Stopped {
            return true;
        }
        if let Some(kept) = self.stop_wakers.get_mut(&ticket) {
            mem::swap(kept, waker);
        }
        false
    }

    pub(crate) fn forget_stop(&mut self, ticket: u64) -> Option<Waker> {
        self.stop_wakers.remove(&ticket).flatten()
    }

    pub(crate) fn is_accepting(&self) -> bool {
        self.phase == Phase::Accepting
    }

    /// Items accepted and unfinished. Asked for at each rest of a batcher that drains, so it must
    /// not look at every batch.
    fn pending(&self) -> u64 {
        self.stats.accepted - self.stats.finished()
    }

    /// The same, counted where the items are, so that the equation of the figures can be wrong.
    fn counted(&self) -> usize {
        self.open.len()
            + self.sealed.iter().map(|job| job.items.len()).sum::<usize>()
            + self.waiting.values().map(|job| job.items.len()).sum::<usize>()
            + self.out.iter().map(|out| out.handed).sum::<usize>()
    }

    pub(crate) fn stats(&self) -> Stats {
        debug_assert_eq!(self.pending(), self.counted() as u64, "an item was lost or made up");
        Stats { pending: self.pending(), ..self.stats }
    }
}
