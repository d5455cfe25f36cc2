//! What the driver does: it takes batches out, and brings back what became of them.

use std::collections::VecDeque;
use std::mem;
use std::task::Waker;
use std::time::Instant;

use super::{Core, Next, Phase};
use crate::base::deadlines::Deadline;
use crate::batcher::buffers::Buffers;
use crate::batcher::driver_buffers::DriverBuffers;
use crate::batcher::job::{Handed, Job, Returned};
use crate::batcher::report::Fate;
use crate::batcher::wake::Wakes;

/// Which batch is to be handed over.
enum Ripe {
    Retry,
    Fresh,
}

/// How many batches the driver is given at once, beside the one that it is to begin.
const AHEAD: usize = if cfg!(loom) { 1 } else { 31 };

impl<T, L: Buffers<T>> Core<T, L> {
    /// Whether a batch that is handed over for the first time may go.
    pub(super) fn has_place(&self) -> bool {
        // With one batch at a time a retry keeps its turn, so that no later batch overtakes it.
        let kept = if L::ONE_LINE && self.limits.concurrency == 1 { self.waiting.len() } else { 0 };
        self.busy() + kept < self.limits.concurrency
    }

    /// Batches that are with the handler.
    fn busy(&self) -> usize {
        self.in_flight.len() - self.ahead
    }

    /// What the driver did since it was here.
    pub(super) fn learn(&mut self, driver_buffers: &mut DriverBuffers<T, L::Tag>) {
        if self.driver.is_some() {
            driver_buffers.stale = self.driver.take();
        }
        for (slot, at) in driver_buffers.begun.drain(..) {
            self.begin_ahead(slot, at);
        }
        for back in driver_buffers.returned.drain(..) {
            if let Some(batch_in_flight) = self.in_flight.get_mut(back.slot) {
                batch_in_flight.back = Some(back.items);
                if batch_in_flight.is_over() {
                    self.over.push_back(back.slot);
                }
            }
        }
        for (slot, well) in driver_buffers.handled.drain(..) {
            if let Some(batch_in_flight) = self.in_flight.get_mut(slot) {
                batch_in_flight.handled = Some(well);
                if batch_in_flight.is_over() {
                    self.over.push_back(slot);
                }
            }
        }
    }

    /// Parks the driver: stores its waker in the same critical section that found no work.
    pub(crate) fn rest(&mut self, waker: &mut Option<Waker>) {
        self.stats.wakeups += 1;
        mem::swap(&mut self.driver, waker);
    }

    /// The next thing to do, after what the driver did is learnt.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        driver_buffers: &mut DriverBuffers<T, L::Tag>,
        has_permit: bool,
        wakes: &mut Wakes,
    ) -> Next<T, L::Tag> {
        self.learn(driver_buffers);
        if self.phase == Phase::Stopped {
            return Next::Done;
        }
        // Before the deadline is looked at: what is known to be finished is not given up.
        while let Some(slot) = self.over.pop_front() {
            if let Some(returned) = self.returned(slot, &mut driver_buffers.tags, wakes) {
                return returned;
            }
        }
        if self.stop_at.is_some_and(|at| at <= now) {
            return Next::Stop;
        }
        let in_flight = &self.in_flight;
        if let Some(attempt) = self.deadlines.pop_due(now, |attempt| in_flight.runs(attempt)) {
            return Next::Overdue { slot: attempt.slot };
        }
        let ripe = self.ripe(now);
        let wants_permit = ripe.is_some() && self.limits.shared && !has_permit;
        let handed = match ripe {
            Some(_) if wants_permit => None,
            Some(Ripe::Retry) => self.waiting.pop_first().map(|(_, job)| self.hand_over(job, now)),
            Some(Ripe::Fresh) => self.fresh(now, &mut driver_buffers.ahead),
            None => None,
        };
        if let Some(handed) = handed {
            let flows = self.may_flow() && handed.attempt == 1;
            if flows && driver_buffers.ahead.is_empty() {
                self.take_ahead(&mut driver_buffers.ahead);
            }
            return Next::Run { handed, flows };
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

    /// What is to be done about a slot that is over, if that is not done here: where nothing of the
    /// user's is left that would have to be dropped.
    fn returned(
        &mut self,
        slot: usize,
        tags: &mut Vec<L::Tag>,
        wakes: &mut Wakes,
    ) -> Option<Next<T, L::Tag>> {
        let batch_in_flight = self.in_flight.get_mut(slot)?;
        let (left, handed) = (batch_in_flight.back.take()?, batch_in_flight.handed);
        let well = batch_in_flight.handled == Some(true);
        let mut job = batch_in_flight.job.take()?;
        let bare = job.failure_state.is_none() && job.parts.is_empty() && !self.limits.shared;
        if well && bare && (left.is_empty() || !mem::needs_drop::<T>()) {
            let tag = self.settle(slot, job.weight, (handed, 0), left, wakes);
            // Dropped here only if it has no destructor of the user's.
            if L::TAGS_NEED_DROP {
                tags.extend(tag);
                tags.push(job.tag);
            }
            return None;
        }
        job.items = left;
        Some(Next::Returned { slot, handed, job })
    }

    /// Which batch may be handed over. Side by side, retries take turns with the others, so that a
    /// batch that always fails cannot keep them out.
    fn ripe(&mut self, now: Instant) -> Option<Ripe> {
        if self.busy() >= self.limits.concurrency {
            return None;
        }
        let due = self.waiting.keys().next().is_some_and(|(due, _)| *due <= now);
        let yields = self.retried_last && self.limits.concurrency > 1;
        if due && !yields {
            return Some(Ripe::Retry);
        }
        let idle = self.busy() == 0;
        // In any case: batches take their turns when they are seen to be ripe.
        if self.has_place() && (self.buffers.is_ripe(now, idle, &self.limits) || self.ahead > 0) {
            return Some(Ripe::Fresh);
        }
        due.then_some(Ripe::Retry)
    }

    /// A batch to hand over for the first time.
    fn fresh(
        &mut self,
        now: Instant,
        ahead: &mut VecDeque<Handed<T, L::Tag>>,
    ) -> Option<Handed<T, L::Tag>> {
        if let Some(handed) = ahead.pop_front() {
            self.begin_ahead(handed.slot, now);
            return Some(handed);
        }
        let idle = self.busy() == 0;
        let (buffers, sealer) = self.sealing();
        let job = buffers.next(now, idle, sealer)?;
        Some(self.hand_over(job, now))
    }

    /// Whether the driver may go on to the next batch by itself: where nothing comes between two
    /// batches, and no deadline, permit or limit is to be looked at before each.
    fn may_flow(&self) -> bool {
        let simple = !self.limits.shared
            && !self.limits.eager_when_idle
            && self.limits.attempt_timeout.is_none();
        simple && self.waiting.is_empty() && self.stop_at.is_none()
    }

    /// Gives the driver closed batches to begin after the one that it is given now. An open batch
    /// whose time has come is not among them: it goes on filling until its turn.
    fn take_ahead(&mut self, ahead: &mut VecDeque<Handed<T, L::Tag>>) {
        while ahead.len() < AHEAD {
            let Some(mut job) = self.buffers.next_sealed() else { return };
            job.attempts = 1;
            self.ahead += 1;
            ahead.push_back(self.slot(job));
        }
    }

    /// The driver begins a batch that was ahead.
    fn begin_ahead(&mut self, slot: usize, at: Instant) {
        self.ahead -= 1;
        self.retried_last = false;
        if let Some(job) =
            self.in_flight.get_mut(slot).and_then(|batch_in_flight| batch_in_flight.job.as_ref())
        {
            let age = at.saturating_duration_since(job.opened_at);
            self.stats.handed_over(age, job.sealed_by);
            self.buffers.begun(job.lane);
        }
    }

    fn hand_over(&mut self, mut job: Job<T, L::Tag>, now: Instant) -> Handed<T, L::Tag> {
        job.attempts += 1;
        self.retried_last = job.attempts > 1;
        if self.retried_last {
            self.stats.retries += 1;
        } else {
            let age = now.saturating_duration_since(job.opened_at);
            self.stats.handed_over(age, job.sealed_by);
        }
        let handed = self.slot(job);
        if let Some(timeout) = self.limits.attempt_timeout {
            let in_flight = &self.in_flight;
            let deadline =
                Deadline { at: now + timeout, slot: handed.slot, stamp: in_flight.serial() };
            self.deadlines.push(deadline, in_flight.len(), |attempt| in_flight.runs(attempt));
        }
        handed
    }

    fn slot(&mut self, mut job: Job<T, L::Tag>) -> Handed<T, L::Tag> {
        let (id, attempt, sealed_by) = (job.id, job.attempts, job.sealed_by);
        let items = mem::take(&mut job.items);
        let tag = job.tag.clone();
        let slot = self.in_flight.begin(job, items.len());
        Handed { tag, slot, id, attempt, sealed_by, items }
    }

    /// When the next attempt has run out of time.
    fn next_overdue(&mut self) -> Option<Instant> {
        let in_flight = &self.in_flight;
        self.deadlines.peek(|attempt| in_flight.runs(attempt)).map(|attempt| attempt.at)
    }

    /// When something begins by time alone.
    fn alarm(&self) -> Option<Instant> {
        let opened_at = self.buffers.opened_at().filter(|_| self.has_place());
        let window = opened_at.map(|at| at + self.limits.window);
        let slot = self.busy() < self.limits.concurrency;
        let retry = self.waiting.keys().next().map(|(due, _)| *due).filter(|_| slot);
        [window, retry].into_iter().flatten().min()
    }

    /// The guard of a batch was dropped, and this was left in it. It comes straight back when the
    /// batcher has stopped and nobody asks for it any more.
    pub(crate) fn return_items(
        &mut self,
        back: Returned<T>,
        wakes: &mut Wakes,
    ) -> Result<(), (Vec<T>, Option<L::Tag>)> {
        let Returned { slot, id, items } = back;
        match self.in_flight.get_mut(slot).filter(|batch_in_flight| batch_in_flight.id == id) {
            Some(batch_in_flight) => {
                batch_in_flight.back = Some(items);
                if batch_in_flight.is_over() {
                    self.over.push_back(slot);
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
        slot: usize,
        weight: u64,
        ended: (usize, usize),
        mut emptied: Vec<T>,
        wakes: &mut Wakes,
    ) -> Option<L::Tag> {
        let (id, lane) = self.in_flight.end(slot)?;
        self.count_both(id, lane, ended, wakes);
        // Under the lock, so of nothing that has a destructor.
        emptied.clear();
        self.spare.keep(emptied);
        self.finished_weight += weight;
        let weight = self.limits.room_for(weight) as usize;
        self.capacity.give(ended.0 + ended.1, weight, wakes);
        self.buffers.over(lane)
    }

    /// A returned batch goes on at `due`, without those of its items that were delivered and those
    /// that failed.
    pub(crate) fn go_on(
        &mut self,
        slot: usize,
        job: Job<T, L::Tag>,
        due: Instant,
        ended: (usize, usize),
        wakes: &mut Wakes,
    ) {
        self.in_flight.end(slot);
        self.count_both(job.id, job.lane, ended, wakes);
        self.waiting.insert((due, job.id), job);
        // The weight is given back when all of the batch is finished: which of its items weighed how
        // much, the handler may have changed.
        self.capacity.give(ended.0 + ended.1, 0, wakes);
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

    pub(super) fn count(
        &mut self,
        batch: u64,
        lane: u32,
        fate: Fate,
        items: usize,
        wakes: &mut Wakes,
    ) {
        if items > 0 {
            self.ended.add(fate, items);
            self.flushes.count(batch, fate, items, wakes);
            self.buffers.count(lane, batch, fate, items, wakes);
        }
    }
}
