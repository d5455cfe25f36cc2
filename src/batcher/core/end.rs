//! Flushes, and the end of it all.

use std::mem;
use std::task::Waker;
use std::time::Instant;

use super::{Core, Job, Phase, Remains};
use crate::batcher::barrier;
use crate::batcher::exchange::Exchange;
use crate::batcher::lanes::Lanes;
use crate::batcher::report::{ClosedBy, Fate, FlushReport};
use crate::batcher::wake::Wakes;

impl<T, L: Lanes<T>> Core<T, L> {
    /// Seals the open batch and raises a barrier over all that is pending.
    pub(crate) fn flush(&mut self, wakes: &mut Wakes) -> barrier::Ticket {
        self.seal_all(ClosedBy::Flush);
        self.wake_for_work(wakes);
        self.barriers.raise(self.next_id, self.pending(), self.ended)
    }

    /// Batches were closed.
    pub(in crate::batcher) fn wake_for_work(&mut self, wakes: &mut Wakes) {
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
    pub(crate) fn stop(
        &mut self,
        exchange: &mut Exchange<T, L::Tag>,
        wakes: &mut Wakes,
    ) -> Remains<L::Remain, L::Tag> {
        if self.phase == Phase::Stopped {
            return Remains::NONE;
        }
        self.learn(exchange);
        self.seal_all(ClosedBy::Shutdown);
        self.phase = Phase::Stopped;
        self.dismiss(wakes);
        self.note_peak();
        let mut remains = Remains::NONE;
        let mut unsent = self.never_begun(exchange, &mut remains.tags);
        unsent.append(&mut self.lanes.drain());
        // In the order they were accepted, which for batches of several keys is not that in which
        // they were closed, nor that in which retries are due.
        unsent.sort_unstable_by_key(|job| job.first);
        for job in unsent {
            self.count(job.id, job.lane, Fate::Unsent, job.items.len(), wakes);
            remains.tags.extend(self.lanes.over(job.lane));
            L::remain(job.tag, job.items, &mut remains.unsent);
        }
        let mut given_up: Vec<_> = self
            .flights
            .drain()
            .filter_map(|flight| Some((flight.job?, flight.handed, flight.back)))
            .collect();
        for mut job in mem::take(&mut self.waiting).into_values() {
            let items = mem::take(&mut job.items);
            given_up.push((job, items.len(), Some(items)));
        }
        given_up.sort_unstable_by_key(|(job, ..)| job.first);
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

    /// The batches that were ahead when it all ended.
    fn never_begun(
        &mut self,
        exchange: &mut Exchange<T, L::Tag>,
        tags: &mut Vec<L::Tag>,
    ) -> Vec<Job<T, L::Tag>> {
        let mut jobs = Vec::new();
        for handed in exchange.ahead.drain(..) {
            let job = self.flights.get_mut(handed.place).and_then(|flight| flight.job.take());
            self.flights.end(handed.place);
            tags.push(handed.tag);
            jobs.extend(job.map(|job| Job { items: handed.items, ..job }));
        }
        self.ahead = 0;
        jobs
    }

    pub(super) fn wake_stopped(&mut self, wakes: &mut Wakes) {
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
}
