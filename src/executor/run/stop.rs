//! How items end before they are done: limits in time, stops, and a run that is dropped.

use core::future::Future;
use core::task::{Context, Poll};
use std::task::Waker;

use super::{Run, SourceState};
use crate::base::panic::{caught, quietly};
use crate::base::timer::now;
use crate::executor::limits::Overdue;
use crate::executor::outcome_sink::OutcomeSink;
use crate::executor::policies::Policy;
use crate::executor::slots::Cancelled;
use crate::executor::source::Source;
use crate::executor::stop::Stop;
use crate::executor::summary::BatchEnd;
use crate::retry::Failure;
use crate::settled::{ItemError, Scope, SettledKind};

impl<S, F, Fut, P, O, T, E> Run<S, F, Fut, P, O, E>
where
    S: Source,
    F: FnMut(S::Input) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    P: Policy<S::Input, E>,
    O: OutcomeSink<S::Input, T, E>,
{
    /// Settles whatever has run out of time; whether there was anything.
    pub(super) fn settle_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        loop {
            let throttle = self.throttling.as_ref().and_then(|throttling| throttling.until());
            let retry = if P::RETRIES { self.retries.next_due() } else { None };
            let alarm = [throttle, retry].into_iter().flatten().min();
            let (slots, retries) = (&self.slots, &self.retries);
            let runs = |slot, index| slots.runs(slot, index);
            let tries =
                |slot, serial| slots.has_started(slot) && retries.serial_at(slot) == Some(serial);
            match self.limits.poll_overdue(cx, alarm, runs, tries) {
                None => return any,
                Some(Overdue::Item(slot)) => self.end_item(slot),
                Some(Overdue::Attempt(slot)) => self.end_attempt(slot),
                Some(Overdue::Alarm) => {
                    let now = now();
                    self.retries.take_due(now);
                    if let (true, Some(throttling)) =
                        (throttle.is_some_and(|until| until <= now), &mut self.throttling)
                    {
                        throttling.woken();
                    }
                }
                Some(Overdue::Batch) => self.stop(Stop::Abort, BatchEnd::TimedOut),
            }
            any = true;
        }
    }

    fn end_item(&mut self, slot: usize) {
        if self.slots.is_backing_off(slot) {
            if let (true, Some(permits)) = (self.retries.ready() == Some(slot), &mut self.permits) {
                // What is asked for is what this one weighs.
                permits.stop_waiting();
            }
            self.retries.cancel(slot);
            if self.next == Some(slot) {
                self.next = None;
                if let Some(throttling) = &mut self.throttling {
                    throttling.stop_waiting();
                }
            }
        } else {
            // What is ready by now counts, be it a failure that is worth another attempt: then the
            // item is out of time for that.
            let pending = self.poll_with(slot, |slots, _| slots.future(slot).poll());
            if P::RETRIES && self.slots.is_backing_off(slot) {
                return self.end_item(slot);
            }
            if !pending {
                return;
            }
        }
        self.slots.cancel(slot);
        let outcome = self.timed_out(slot, Scope::Item);
        self.settle(slot, outcome);
        if self.none_due() {
            self.stop_waiting();
        }
    }

    fn end_attempt(&mut self, slot: usize) {
        if !self.poll_with(slot, |slots, _| slots.future(slot).poll()) {
            return;
        }
        quietly(|| self.slots.clear(slot));
        if self.try_to_retry(slot, Failure::TimedOut).is_err() {
            let outcome = self.timed_out(slot, Scope::Attempt);
            self.settle(slot, outcome);
        }
    }

    /// Stops pulling and, in an abort, ends every item in hand.
    pub(super) fn stop(&mut self, how: Stop, end: BatchEnd) {
        let late = matches!(end, BatchEnd::TimedOut);
        self.ended_early |= how == Stop::Abort && self.slots.occupied() > 0;
        // What is set aside for this run is not in hand yet, and ends with it too.
        let may_have_more = self.source_state != SourceState::Done
            && (how == Stop::Abort || !self.source.is_exhausted());
        if may_have_more || self.ended_early {
            self.note_end(end);
        }
        self.source.close();
        self.ask_source_again();
        if how == Stop::Abort {
            self.late = late;
            self.abort();
        }
    }

    /// Nothing more starts, as it gets no permits.
    pub(super) fn refuse(&mut self, end: BatchEnd) {
        // Also if nothing is left to pull: an item that was pulled does not start.
        self.ended_early |= self.slots.occupied() > 0;
        self.note_end(end);
        self.stop(Stop::Drain, BatchEnd::Stopped);
    }

    /// The batch comes to this end, if it has not come to another one before.
    fn note_end(&mut self, end: BatchEnd) {
        if matches!(self.summary.end, BatchEnd::Exhausted) {
            self.source.note_end(end.of_stop());
            self.summary.end = end;
        }
    }

    /// The order is not told, so that no held item starts because the one ahead of it ends.
    fn abort(&mut self) {
        self.aborted = true;
        self.start_no_more();
        for slot in 0..self.slots.len() {
            // What is ready by now counts.
            if self.slots.has_started(slot) {
                if let Some(permits) = &mut self.permits {
                    permits.begin_poll(slot);
                }
                let mut output = None;
                let polled = caught(|| {
                    if let Poll::Ready(result) = self.slots.future(slot).poll() {
                        output = Some(result);
                    }
                });
                if let Some(permits) = &mut self.permits {
                    permits.end_poll(slot);
                }
                quietly(|| self.slots.clear(slot));
                let outcome = match (output, polled) {
                    (Some(result), _) => result.map_err(ItemError::Rejected),
                    (None, Ok(())) => self.ended_with_batch(slot),
                    (None, Err(panic)) => Err(ItemError::Panicked(panic)),
                };
                self.vacate(slot, outcome);
            } else {
                self.cancel_unstarted(slot);
            }
        }
    }

    /// Ends an item that does not run, if there is one in this slot: one that has not started, or
    /// backs off.
    pub(super) fn cancel_unstarted(&mut self, slot: usize) {
        let outcome = match self.slots.cancel(slot) {
            None => return,
            Some((_, Cancelled::Started)) => self.ended_with_batch(slot),
            Some((index, Cancelled::NotStarted(input))) => {
                if let Some(input) = self.sink.not_started(index, input) {
                    self.dead_letter_unstarted(index, input, SettledKind::Cancelled);
                }
                Err(ItemError::cancelled(false))
            }
        };
        self.vacate(slot, outcome);
    }

    /// Ends a run that is dropped before it is done, without outcomes: inputs go to the dead letters.
    pub(super) fn dead_letter_inputs(&mut self) {
        if !P::RETRIES {
            return;
        }
        for slot in 0..self.slots.len() {
            match self.slots.cancel(slot) {
                None => {}
                Some((index, Cancelled::Started)) => {
                    if let Some(retry_item) = self.retries.take(slot) {
                        self.release_input(index, &ItemError::cancelled(true), retry_item);
                    }
                }
                Some((index, Cancelled::NotStarted(input))) => {
                    self.dead_letter_unstarted(index, input, SettledKind::Cancelled);
                }
            }
        }
        while let Some((index, input)) = self.source.take_unpulled() {
            self.dead_letter_unstarted(index, input, SettledKind::Cancelled);
        }
    }

    /// Ends a run that is dropped before it is done, without polling what is in hand.
    pub(super) fn cancel_all(&mut self) {
        self.note_end(BatchEnd::Stopped);
        self.ended_early |= self.slots.occupied() > 0;
        self.source.close();
        self.aborted = true;
        self.start_no_more();
        for slot in 0..self.slots.len() {
            if self.slots.has_started(slot) || self.slots.is_backing_off(slot) {
                self.slots.cancel(slot);
                let outcome = self.ended_with_batch(slot);
                self.vacate(slot, outcome);
            } else {
                self.cancel_unstarted(slot);
            }
        }
        self.source.detach();
        // What was set aside for this run.
        let cx = &mut Context::from_waker(Waker::noop());
        while let Ok(Poll::Ready(Some((index, input)))) = caught(|| self.source.poll_pull(1, cx)) {
            self.admit(index, input);
        }
    }
}
