//! The batcher's state machine: it knows no clock, no runtime and no lock.
//!
//! Where an item is:
//!
//! ```text
//!          full, flush, close
//!   open ─────────────────────► sealed ──► unsent
//!    │                            │           ▲ stop
//!    │ window over, or idle,      │ a place   │
//!    │ and a place free           │ free      │
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

use super::barrier::{self, Barriers};
use super::flight::Flights;
use super::lanes::{Lanes, Sealer, Single};
use super::report::{ClosedBy, Fate, FlushReport, Stats};
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
    /// Hand this to the handler.
    Run(Handed<T, G>),
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

/// Which batch is to be handed over.
enum Ripe {
    Retry,
    Fresh,
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
        item: T,
        weight: u64,
        clock: impl FnOnce() -> Instant,
    ) -> (Option<Waker>, Option<L::Key>) {
        let (lanes, sealer) = self.sealing();
        let (news, key) = lanes.push(key, item, weight, clock, sealer);
        // Without a free place there is nothing to start and no window to watch.
        let driver = if news && self.has_place() { self.driver.take() } else { None };
        (driver, key)
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

    // ---- what the driver does

    /// Whether a batch that is handed over for the first time may go.
    fn has_place(&self) -> bool {
        // With one batch at a time a retry keeps its place, so that no later batch overtakes it.
        let kept = if L::ONE_LINE && self.limits.concurrency == 1 { self.waiting.len() } else { 0 };
        self.flights.len() + kept < self.limits.concurrency
    }

    /// The next thing to do, after the handlers of the places in `handled` are done, well or not.
    /// When it is to sleep, `waker` is kept for whoever changes that, in the same step as nothing was
    /// found to do.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        handled: &mut Vec<(usize, bool)>,
        has_permit: bool,
        waker: &mut Option<Waker>,
        wakes: &mut Wakes,
    ) -> Next<T, L::Tag> {
        for (place, well) in handled.drain(..) {
            if let Some(flight) = self.flights.get_mut(place) {
                flight.handled = Some(well);
                if flight.is_over() {
                    self.over.push_back(place);
                }
            }
        }
        let next = self.decide(now, has_permit, wakes);
        if matches!(next, Next::Sleep { .. }) {
            self.stats.wakeups += 1;
            mem::swap(&mut self.driver, waker);
        } else if self.driver.is_some() {
            *waker = self.driver.take();
        }
        next
    }

    fn decide(&mut self, now: Instant, has_permit: bool, wakes: &mut Wakes) -> Next<T, L::Tag> {
        if self.phase == Phase::Stopped {
            return Next::Done;
        }
        // Before the deadline is looked at: what is known to be finished is not given up.
        while let Some(place) = self.over.pop_front() {
            if let Some(returned) = self.returned(place, wakes) {
                return returned;
            }
        }
        if self.stop_at.is_some_and(|at| at <= now) {
            return Next::Stop;
        }
        if self.next_overdue().is_some_and(|due| due <= now) {
            if let Some(attempt) = self.timeline.as_mut().and_then(Timeline::take_due) {
                return Next::Overdue { place: attempt.place };
            }
        }
        let ripe = self.ripe(now);
        let wants_permit = ripe.is_some() && self.limits.shared && !has_permit;
        let job = match ripe {
            Some(_) if wants_permit => None,
            Some(Ripe::Retry) => self.waiting.pop_first().map(|(_, job)| job),
            Some(Ripe::Fresh) => self.fresh(now),
            None => None,
        };
        if let Some(job) = job {
            return Next::Run(self.hand_over(job, now));
        }
        if self.phase == Phase::Draining && self.pending() == 0 {
            self.phase = Phase::Stopped;
            self.wake_stopped(wakes);
            return Next::Done;
        }
        // While a permit is all that lacks, only what ends changes anything by time alone.
        let begins = if wants_permit { None } else { self.alarm() };
        let until = [begins, self.stop_at, self.next_overdue()].into_iter().flatten().min();
        Next::Sleep { until, wants_permit }
    }

    /// What is to be done about a place that is over, if that is not done here: where nothing of the
    /// user's is left that would have to be dropped.
    fn returned(&mut self, place: usize, wakes: &mut Wakes) -> Option<Next<T, L::Tag>> {
        let flight = self.flights.get_mut(place)?;
        let (left, handed) = (flight.back.take()?, flight.handed);
        let well = flight.handled == Some(true);
        let mut job = flight.job.take()?;
        let bare = job.setback.is_none() && job.parts.is_empty() && !self.limits.shared;
        let bare = bare && !L::TAGS_NEED_DROP;
        if well && bare && (left.is_empty() || !mem::needs_drop::<T>()) {
            // Dropped here, but for what has no destructor.
            let _tag = self.settle(place, job.weight, (handed, 0), left, wakes);
            return None;
        }
        job.items = left;
        Some(Next::Returned { place, handed, job })
    }

    /// Which batch may be handed over. Side by side, retries take turns with the others, so that a
    /// batch that always fails cannot keep them out.
    fn ripe(&mut self, now: Instant) -> Option<Ripe> {
        if self.flights.len() == self.limits.concurrency {
            return None;
        }
        let due = self.waiting.keys().next().is_some_and(|(due, _)| *due <= now);
        let yields = self.retried_last && self.limits.concurrency > 1;
        if due && !yields {
            return Some(Ripe::Retry);
        }
        let idle = self.flights.len() == 0;
        if self.has_place() && self.lanes.is_ripe(now, idle, &self.limits) {
            return Some(Ripe::Fresh);
        }
        due.then_some(Ripe::Retry)
    }

    /// A batch to hand over for the first time.
    fn fresh(&mut self, now: Instant) -> Option<Job<T, L::Tag>> {
        let idle = self.flights.len() == 0;
        let (lanes, sealer) = self.sealing();
        lanes.next(now, idle, sealer)
    }

    fn hand_over(&mut self, mut job: Job<T, L::Tag>, now: Instant) -> Handed<T, L::Tag> {
        job.attempts += 1;
        self.retried_last = job.attempts > 1;
        if self.retried_last {
            self.stats.retries += 1;
        } else {
            let age = now.saturating_duration_since(job.opened_at);
            self.stats.handed_over(age, job.closed_by);
        }
        let (id, attempt, closed_by) = (job.id, job.attempts, job.closed_by);
        let items = mem::take(&mut job.items);
        let tag = job.tag.clone();
        let place = self.flights.begin(job, items.len());
        if let Some(timeline) = &mut self.timeline {
            let flights = &self.flights;
            let (serial, places) = (flights.serial(), flights.len());
            timeline.start(place, serial, now, places, |attempt| flights.runs(attempt));
        }
        Handed { tag, place, id, attempt, closed_by, items }
    }

    /// When the next attempt has run out of time.
    fn next_overdue(&mut self) -> Option<Instant> {
        let (timeline, flights) = (self.timeline.as_mut()?, &self.flights);
        timeline.next_due(|attempt| flights.runs(attempt))
    }

    /// When something begins by time alone.
    fn alarm(&self) -> Option<Instant> {
        let opened_at = self.lanes.opened_at().filter(|_| self.has_place());
        let window = opened_at.map(|at| at + self.limits.window);
        let place = self.flights.len() < self.limits.concurrency;
        let retry = self.waiting.keys().next().map(|(due, _)| *due).filter(|_| place);
        [window, retry].into_iter().flatten().min()
    }

    /// The guard of a batch was dropped, and this was left in it. It comes straight back when the
    /// batcher has stopped and nobody asks for it any more.
    pub(crate) fn give_back(
        &mut self,
        place: usize,
        id: u64,
        items: Vec<T>,
        wakes: &mut Wakes,
    ) -> Result<(), (Vec<T>, Option<L::Tag>)> {
        match self.flights.get_mut(place).filter(|flight| flight.id == id) {
            Some(flight) => {
                flight.back = Some(items);
                if flight.is_over() {
                    self.over.push_back(place);
                    wakes.driver(self.driver.take());
                }
                Ok(())
            }
            None => Err((items, self.strays.remove(&id))),
        }
    }

    /// A returned batch is finished, so many of its items delivered and so many failed. Its emptied
    /// vector is used again.
    pub(crate) fn settle(
        &mut self,
        place: usize,
        weight: u64,
        ended: (usize, usize),
        mut emptied: Vec<T>,
        wakes: &mut Wakes,
    ) -> Option<L::Tag> {
        let (id, lane) = self.flights.end(place)?;
        self.count_both(id, lane, ended, wakes);
        // Under the lock, so of nothing that has a destructor.
        emptied.clear();
        self.spare.keep(emptied);
        self.finished_weight += weight;
        let weight = self.limits.room_for(weight) as usize;
        self.room.give(ended.0 + ended.1, weight, wakes);
        self.lanes.over(lane)
    }

    /// A returned batch goes on at `due`, without those of its items that were delivered and those
    /// that failed.
    pub(crate) fn go_on(
        &mut self,
        place: usize,
        job: Job<T, L::Tag>,
        due: Instant,
        ended: (usize, usize),
        wakes: &mut Wakes,
    ) {
        self.flights.end(place);
        self.count_both(job.id, job.lane, ended, wakes);
        self.waiting.insert((due, job.id), job);
        // The weight is given back when all of the batch is finished: which of its items weighed how
        // much, the handler may have changed.
        self.room.give(ended.0 + ended.1, 0, wakes);
    }

    fn count_both(
        &mut self,
        batch: u64,
        lane: u32,
        (delivered, failed): (usize, usize),
        wakes: &mut Wakes,
    ) {
        self.note_peak();
        self.count(batch, lane, Fate::Delivered, delivered, wakes);
        self.count(batch, lane, Fate::Failed, failed, wakes);
    }

    fn count(&mut self, batch: u64, lane: u32, fate: Fate, items: usize, wakes: &mut Wakes) {
        if items > 0 {
            self.ended.add(fate, items);
            self.barriers.count(batch, fate, items, wakes);
            self.lanes.count(lane, batch, fate, items, wakes);
        }
    }

    // ---- flushing and stopping

    /// Seals the open batch and raises a barrier over all that is pending.
    pub(crate) fn flush(&mut self, wakes: &mut Wakes) -> barrier::Ticket {
        self.seal_all(ClosedBy::Flush);
        self.wake_for_work(wakes);
        self.barriers.raise(self.next_id, self.pending(), self.ended)
    }

    /// Batches were closed.
    pub(super) fn wake_for_work(&mut self, wakes: &mut Wakes) {
        if self.has_place() {
            wakes.driver(self.driver.take());
        }
    }

    pub(crate) fn poll_flush(
        &mut self,
        ticket: barrier::Ticket,
        waker: &mut Option<Waker>,
    ) -> Option<FlushReport> {
        self.barriers.poll(ticket, waker)
    }

    pub(crate) fn forget_flush(&mut self, ticket: barrier::Ticket) -> Option<Waker> {
        self.barriers.lower(ticket)
    }

    /// Accepts nothing more, sends those who wait away, seals, and drains; what is not finished at
    /// `stop_at` is given up. A later call can only bring that forward.
    pub(crate) fn close(&mut self, stop_at: Option<Instant>, wakes: &mut Wakes) {
        if self.phase == Phase::Stopped {
            return;
        }
        if self.phase == Phase::Accepting {
            self.phase = Phase::Draining;
            self.seal_all(ClosedBy::Shutdown);
            self.dismiss(wakes);
        }
        self.stop_at = [self.stop_at, stop_at].into_iter().flatten().min();
        wakes.driver(self.driver.take());
    }

    /// Ends now. The handlers have been dropped before; what is left comes back.
    pub(crate) fn stop(&mut self, wakes: &mut Wakes) -> Remains<L::Remain, L::Tag> {
        if self.phase == Phase::Stopped {
            return Remains::NONE;
        }
        self.seal_all(ClosedBy::Shutdown);
        self.phase = Phase::Stopped;
        self.dismiss(wakes);
        self.note_peak();
        let mut remains = Remains::NONE;
        for job in self.lanes.drain() {
            self.count(job.id, job.lane, Fate::Unsent, job.items.len(), wakes);
            remains.tags.extend(self.lanes.over(job.lane));
            L::remain(job.tag, job.items, &mut remains.unsent);
        }
        // In the order they were accepted: by the number of the batch, not by when a retry is due.
        let mut given_up: Vec<_> = self
            .flights
            .drain()
            .filter_map(|flight| Some((flight.job?, flight.handed, flight.back)))
            .collect();
        for mut job in mem::take(&mut self.waiting).into_values() {
            let items = mem::take(&mut job.items);
            given_up.push((job, items.len(), Some(items)));
        }
        given_up.sort_unstable_by_key(|(job, ..)| job.id);
        for (mut job, handed, back) in given_up {
            let (id, lane) = (job.id, job.lane);
            remains.setbacks.extend(job.setback.take().map(|setback| *setback));
            match back {
                Some(items) => {
                    self.count(id, lane, Fate::Delivered, handed - items.len(), wakes);
                    self.count(id, lane, Fate::Indeterminate, items.len(), wakes);
                    L::remain(job.tag.clone(), items, &mut remains.indeterminate);
                }
                None => {
                    self.still_held += handed as u64;
                    self.count(id, lane, Fate::Indeterminate, handed, wakes);
                    self.strays.insert(id, job.tag.clone());
                }
            }
            for part in job.parts.drain(..).rev() {
                self.count(id, lane, Fate::Indeterminate, part.len(), wakes);
                L::remain(job.tag.clone(), part, &mut remains.indeterminate);
            }
            remains.tags.extend(self.lanes.over(lane));
            remains.tags.push(job.tag);
        }
        self.finished_weight = self.stats.batched_weight;
        self.over.clear();
        self.wake_stopped(wakes);
        wakes.driver(self.driver.take());
        remains
    }

    fn wake_stopped(&mut self, wakes: &mut Wakes) {
        for waker in mem::take(&mut self.stop_wakers).into_values() {
            wakes.push(waker);
        }
    }

    /// Keeps what a stop left for a shutdown to hand out.
    pub(crate) fn keep(&mut self, remains: Remains<L::Remain, L::Tag>) {
        self.remains = remains;
    }

    pub(crate) fn take_remains(&mut self) -> Remains<L::Remain, L::Tag> {
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
