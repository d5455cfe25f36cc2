//! Flushes, and the end of it all.

use std::mem;
use std::task::Waker;
use std::time::Instant;

use super::{Core, Phase, Undelivered};
use crate::batcher::buffers::Buffers;
use crate::batcher::driver_buffers::DriverBuffers;
use crate::batcher::flush;
use crate::batcher::job::Job;
use crate::batcher::report::{Fate, FlushReport, SealedBy};
use crate::batcher::wake::Wakes;

impl<T, L: Buffers<T>> Core<T, L> {
    /// Seals the open batch and raises a barrier over all that is pending.
    pub(crate) fn flush(&mut self, wakes: &mut Wakes) -> flush::FlushId {
        self.seal_all(SealedBy::Flush);
        self.wake_for_work(wakes);
        self.flushes.begin(self.next_id, self.pending(), self.ended)
    }

    /// Batches were closed.
    pub(in crate::batcher) fn wake_for_work(&mut self, wakes: &mut Wakes) {
        if self.has_place() {
            wakes.driver(self.driver.take());
        }
    }

    pub(crate) fn poll_flush(
        &mut self,
        ticket: flush::FlushId,
        waker: &mut Option<Waker>,
    ) -> Option<FlushReport> {
        self.flushes.poll(ticket, waker)
    }

    pub(crate) fn forget_flush(&mut self, ticket: flush::FlushId) -> Option<Waker> {
        self.flushes.forget(ticket)
    }

    /// Accepts nothing more, sends those who wait away, seals, and drains; what is not finished at
    /// `stop_at` is given up. A later call can only bring that forward.
    pub(crate) fn close(&mut self, stop_at: Option<Instant>, wakes: &mut Wakes) {
        if self.phase == Phase::Stopped {
            return;
        }
        if self.phase == Phase::Accepting {
            self.phase = Phase::Draining;
            self.seal_all(SealedBy::Shutdown);
            self.dismiss(wakes);
        }
        self.stop_at = [self.stop_at, stop_at].into_iter().flatten().min();
        wakes.driver(self.driver.take());
    }

    /// Ends now. The handlers have been dropped before; undelivered items come back.
    pub(crate) fn stop(
        &mut self,
        driver_buffers: &mut DriverBuffers<T, L::Tag>,
        wakes: &mut Wakes,
    ) -> Undelivered<L::Unsent, L::Tag> {
        if self.phase == Phase::Stopped {
            return Undelivered::NONE;
        }
        self.learn(driver_buffers);
        self.seal_all(SealedBy::Shutdown);
        self.phase = Phase::Stopped;
        self.dismiss(wakes);
        self.note_peak();
        let mut undelivered = Undelivered::NONE;
        let mut unsent = self.never_begun(driver_buffers, &mut undelivered.tags);
        unsent.append(&mut self.buffers.drain());
        // In the order they were accepted, which for batches of several keys is not that in which
        // they were closed, nor that in which retries are due.
        unsent.sort_unstable_by_key(|job| job.first);
        for job in unsent {
            self.count(job.id, job.lane, Fate::Unsent, job.items.len(), wakes);
            undelivered.tags.extend(self.buffers.over(job.lane));
            L::add_unsent(job.tag, job.items, &mut undelivered.unsent);
        }
        let mut given_up: Vec<_> = self
            .in_flight
            .drain()
            .filter_map(|batch_in_flight| {
                Some((batch_in_flight.job?, batch_in_flight.handed, batch_in_flight.back))
            })
            .collect();
        for mut job in mem::take(&mut self.waiting).into_values() {
            let items = mem::take(&mut job.items);
            given_up.push((job, items.len(), Some(items)));
        }
        given_up.sort_unstable_by_key(|(job, ..)| job.first);
        for (mut job, handed, back) in given_up {
            let (id, lane) = (job.id, job.lane);
            undelivered
                .failure_states
                .extend(job.failure_state.take().map(|failure_state| *failure_state));
            match back {
                Some(items) => {
                    self.count(id, lane, Fate::Delivered, handed - items.len(), wakes);
                    self.count(id, lane, Fate::Indeterminate, items.len(), wakes);
                    L::add_unsent(job.tag.clone(), items, &mut undelivered.indeterminate);
                }
                None => {
                    self.still_held += handed as u64;
                    self.count(id, lane, Fate::Indeterminate, handed, wakes);
                    self.strays.insert(id, job.tag.clone());
                }
            }
            for part in job.parts.drain(..).rev() {
                self.count(id, lane, Fate::Indeterminate, part.len(), wakes);
                L::add_unsent(job.tag.clone(), part, &mut undelivered.indeterminate);
            }
            undelivered.tags.extend(self.buffers.over(lane));
            undelivered.tags.push(job.tag);
        }
        self.finished_weight = self.stats.batched_weight;
        self.over.clear();
        self.wake_stopped(wakes);
        wakes.driver(self.driver.take());
        undelivered
    }

    /// The batches that were ahead when it all ended.
    fn never_begun(
        &mut self,
        driver_buffers: &mut DriverBuffers<T, L::Tag>,
        tags: &mut Vec<L::Tag>,
    ) -> Vec<Job<T, L::Tag>> {
        let mut jobs = Vec::new();
        for handed in driver_buffers.ahead.drain(..) {
            let job = self
                .in_flight
                .get_mut(handed.slot)
                .and_then(|batch_in_flight| batch_in_flight.job.take());
            self.in_flight.end(handed.slot);
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
    pub(crate) fn keep(&mut self, undelivered: Undelivered<L::Unsent, L::Tag>) {
        self.undelivered = undelivered;
    }

    pub(crate) fn take_remains(&mut self) -> Undelivered<L::Unsent, L::Tag> {
        mem::replace(&mut self.undelivered, Undelivered::NONE)
    }

    pub(crate) fn still_held(&self) -> u64 {
        self.still_held
    }

    /// A slot among those who wait for the end.
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
