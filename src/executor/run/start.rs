//! From being pulled to being polled: slots, keys, permits, the throttle, and further attempts.

use core::future::Future;
use core::task::Poll;

use super::Run;
use crate::base::panic::{caught, quietly};
use crate::base::timer::now;
use crate::executor::order::Order;
use crate::executor::outcome_sink::OutcomeSink;
use crate::executor::policies::Policy;
use crate::executor::slots::{Cancelled, Slots};
use crate::executor::source::Source;
use crate::settled::{ItemError, SettledKind};

impl<S, F, Fut, P, O, T, E> Run<S, F, Fut, P, O, E>
where
    S: Source,
    F: FnMut(S::Input) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    P: Policy<S::Input, E>,
    O: OutcomeSink<S::Input, T, E>,
{
    /// Gives an input a slot, where it may have to wait for its key or for permits.
    pub(super) fn admit(&mut self, index: usize, input: S::Input) {
        let slot = self.vacant_slot();
        self.slots.hold(slot, index, input);
        if let Some(reporter) = &mut self.reporter {
            reporter.pulled(slot, index, now());
        }
        if self.aborted {
            self.ended_early = true;
            self.cancel_unstarted(slot);
            return;
        }
        let Some(input) = self.slots.held(slot) else { return };
        let admitted = caught(|| {
            // The weight first: an order that has admitted an item is told when it settles.
            let weight = if P::WEIGHS { self.policy.weigh(input) } else { 1 };
            (weight, self.order.admit(slot, input))
        });
        match admitted {
            Ok((weight, may_start)) => {
                if let Some(permits) = &mut self.permits {
                    permits.weigh(slot, weight);
                }
                if self.permits.is_some() || self.throttling.is_some() {
                    if may_start {
                        self.due.push_back(slot);
                        self.start_due();
                    }
                } else if may_start {
                    self.start_slot(slot);
                }
            }
            Err(panic) => {
                if let Some((_, Cancelled::NotStarted(input))) = self.slots.cancel(slot) {
                    self.dead_letter_unstarted(index, input, SettledKind::Panicked);
                }
                self.vacate(slot, Err(ItemError::Panicked(panic)));
            }
        }
    }

    /// Starts the next item that may start, if there is one and it has its permits; whether it did.
    /// Those that are to be tried again go first.
    pub(super) fn start_due(&mut self) -> bool {
        // An item that was polled in this step may have stopped the batch.
        if self.none_due() || self.stops.is_news() {
            return false;
        }
        let slot = match self.next {
            Some(slot) => slot,
            None => match self.next_due() {
                Some(slot) => slot,
                None => return true,
            },
        };
        if self.next.is_none() {
            return false;
        }
        if let Some(throttling) = &mut self.throttling {
            if !throttling.may_start(now) {
                return false;
            }
        }
        self.next = None;
        if P::RETRIES && self.slots.is_backing_off(slot) {
            self.start_again(slot);
        } else {
            self.start_slot(slot);
        }
        if self.none_due() {
            self.stop_waiting();
        }
        true
    }

    /// Gets the item in front of those that are due its permits, if it may have them; `None` if it
    /// ended instead.
    fn next_due(&mut self) -> Option<usize> {
        let again = if P::RETRIES { self.retries.ready() } else { None };
        let slot = again.or_else(|| self.due.front().copied())?;
        // `room` does not count items held for their keys.
        if P::RETRIES && self.slots.running() >= self.limit {
            return Some(slot);
        }
        let permitted = match &mut self.permits {
            Some(permits) => permits.poll(slot),
            None => Poll::Ready(Ok(())),
        };
        match permitted {
            Poll::Pending => return Some(slot),
            Poll::Ready(Ok(())) => self.next = Some(slot),
            Poll::Ready(Err(end)) => self.refuse(end),
        }
        if again.is_some() {
            self.retries.take_ready();
        } else {
            self.due.pop_front();
        }
        if self.next.is_some() {
            return Some(slot);
        }
        if let Some(next) = self.order.release(slot) {
            self.due.push_back(next);
        }
        self.cancel_unstarted(slot);
        None
    }

    /// Nothing is due: gives back what was asked for.
    pub(super) fn stop_waiting(&mut self) {
        if let Some(permits) = &mut self.permits {
            permits.stop_waiting();
        }
        if let Some(throttling) = &mut self.throttling {
            throttling.stop_waiting();
        }
    }

    /// Nobody is to start any more.
    pub(super) fn start_no_more(&mut self) {
        self.due.clear();
        self.next = None;
        self.retries.clear();
        self.stop_waiting();
    }

    fn start_slot(&mut self, slot: usize) {
        let Some(input) = self.slots.begin(slot) else { return };
        self.ready.new_started();
        let index = self.slots.index(slot);
        if let Some(reporter) = &mut self.reporter {
            reporter.started(slot, index, now());
        }
        if P::RETRIES {
            match caught(|| self.policy.keep(&input)) {
                Ok(kept) => self.retries.insert(slot, kept),
                Err(panic) => {
                    self.dead_letter_unstarted(index, input, SettledKind::Panicked);
                    return self.settle(slot, Err(ItemError::Panicked(panic)));
                }
            }
        }
        if self.poll_with(slot, |slots, start| slots.future(slot).start(|| start(input))) {
            self.time(slot, index);
        }
    }

    /// Starts another attempt.
    fn start_again(&mut self, slot: usize) {
        self.slots.resume(slot);
        self.ready.new_started();
        let index = self.slots.index(slot);
        if let Some(reporter) = &mut self.reporter {
            reporter.started(slot, index, now());
        }
        let attempts = &*self.policy;
        let Some(retry_item) = self.retries.begin(slot) else { return };
        let input = match caught(|| attempts.keep(&retry_item.input)) {
            Ok(Some(input)) => input,
            Ok(None) => return,
            Err(panic) => return self.settle(slot, Err(ItemError::Panicked(panic))),
        };
        retry_item.attempts = retry_item.attempts.saturating_add(1);
        if self.poll_with(slot, |slots, start| slots.future(slot).start(|| start(input))) {
            self.time(slot, index);
        }
    }

    pub(super) fn poll_slot(&mut self, slot: usize) {
        self.poll_with(slot, |slots, _| slots.future(slot).poll());
    }

    /// Polls the item in this slot, and settles it if it is done; whether it is not.
    pub(super) fn poll_with(
        &mut self,
        slot: usize,
        poll: impl FnOnce(&mut Slots<S::Input, Fut>, &mut F) -> Poll<Result<T, E>>,
    ) -> bool {
        if let Some(permits) = &mut self.permits {
            permits.begin_poll(slot);
        }
        // Outside the closure, so that a future that panics when dropped does not take along
        // what it has already returned.
        let mut output = None;
        let run = caught(|| {
            if let Poll::Ready(result) = poll(&mut self.slots, &mut self.start) {
                output = Some(result);
                self.slots.clear(slot);
            }
        });
        if let Some(permits) = &mut self.permits {
            permits.end_poll(slot);
        }
        match (output, run) {
            (None, Ok(())) => return true,
            (Some(result), Ok(())) => self.attempt_ended(slot, result),
            (Some(result), Err(panic)) => {
                quietly(|| drop(panic));
                self.attempt_ended(slot, result);
            }
            (None, Err(panic)) => {
                quietly(|| self.slots.clear(slot));
                self.settle(slot, Err(ItemError::Panicked(panic)));
            }
        }
        false
    }

    /// An item has been started, and is pending.
    #[inline]
    pub(super) fn time(&mut self, slot: usize, index: usize) {
        self.time_item(slot, index);
        if let (true, Some(serial)) = (P::RETRIES, self.retries.serial_at(slot)) {
            let (slots, retries) = (&self.slots, &self.retries);
            let tries =
                |slot, serial| slots.has_started(slot) && retries.serial_at(slot) == Some(serial);
            self.limits.attempt_started(slot, serial, slots.len(), tries);
        }
    }

    /// The time of an item counts from now on, if it does not yet.
    #[inline]
    pub(super) fn time_item(&mut self, slot: usize, index: usize) {
        if P::RETRIES {
            if let Some(retry_item) = self.retries.get(slot) {
                if core::mem::replace(&mut retry_item.timed, true) {
                    return;
                }
            }
        }
        let slots = &self.slots;
        let runs = |slot, index| slots.runs(slot, index);
        self.limits.item_started(slot, index, slots.len(), runs);
    }
}
