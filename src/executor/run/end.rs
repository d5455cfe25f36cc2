//! How items end before they are done: limits in time, stops, and a run that is dropped.

use core::future::Future;
use core::task::{Context, Poll};
use std::task::Waker;

use super::{Run, SourceState};
use crate::base::panic::{caught, quietly};
use crate::executor::attempts::Attempts;
use crate::executor::clock::Overdue;
use crate::executor::order::Order;
use crate::executor::outlet::Outlet;
use crate::executor::places::Unfinished;
use crate::executor::source::Source;
use crate::executor::stop::Stop;
use crate::executor::summary::BatchEnd;
use crate::executor::weight::Weigher;
use crate::settled::{Scope, Settled, SettledKind};

impl<S, F, Fut, R, W, A, O, T, E> Run<S, F, Fut, R, W, A, O, E>
where
    S: Source,
    F: FnMut(S::Input) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    R: Order<S::Input>,
    W: Weigher<S::Input>,
    A: Attempts<S::Input, E>,
    O: Outlet<S::Input, T, E>,
{
    /// Settles whatever has run out of time; whether there was anything.
    pub(super) fn settle_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        loop {
            let throttle = self.throttling.as_ref().and_then(|throttling| throttling.until());
            let retry = if A::RETRIES { self.trials.next_due() } else { None };
            let alarm = [throttle, retry].into_iter().flatten().min();
            let (places, trials) = (&self.places, &self.trials);
            let runs = |place, index| places.runs(place, index);
            let tries = |place, serial| {
                places.has_started(place) && trials.serial_at(place) == Some(serial)
            };
            match self.clock.poll_overdue(cx, alarm, runs, tries) {
                None => return any,
                Some(Overdue::Item(place)) => self.end_item(place),
                Some(Overdue::Attempt(place)) => self.end_attempt(place),
                Some(Overdue::Alarm) => {
                    let now = self.clock.now();
                    self.trials.wake_due(now);
                    if let (true, Some(throttling)) =
                        (throttle.is_some_and(|until| until <= now), &mut self.throttling)
                    {
                        throttling.woken();
                    }
                }
                Some(Overdue::Batch) => self.stop(Stop::Abort, BatchEnd::DeadlinePassed),
            }
            any = true;
        }
    }

    fn end_item(&mut self, place: usize) {
        if self.places.is_resting(place) {
            if let (true, Some(permits)) = (self.trials.ready() == Some(place), &mut self.permits) {
                // What is asked for is what this one weighs.
                permits.rest();
            }
            self.trials.forget(place);
            if self.next == Some(place) {
                self.next = None;
                if let Some(throttling) = &mut self.throttling {
                    throttling.rest();
                }
            }
        } else {
            // What is ready by now counts, be it a failure that is worth another attempt: then the
            // item is out of time for that.
            let pending = self.poll_with(place, |places, _| places.slot(place).poll());
            if A::RETRIES && self.places.is_resting(place) {
                return self.end_item(place);
            }
            if !pending {
                return;
            }
        }
        self.places.cancel(place);
        let outcome = self.timed_out(place, Scope::Item);
        self.settle(place, outcome);
        if self.nobody_is_due() {
            self.rest_lines();
        }
    }

    fn end_attempt(&mut self, place: usize) {
        if !self.poll_with(place, |places, _| places.slot(place).poll()) {
            return;
        }
        quietly(|| self.places.clear(place));
        if self.try_again(place, None).is_err() {
            let outcome = self.timed_out(place, Scope::Attempt);
            self.settle(place, outcome);
        }
    }

    /// Stops pulling and, in an abort, ends every item in hand.
    pub(super) fn stop(&mut self, how: Stop, end: BatchEnd) {
        let late = matches!(end, BatchEnd::DeadlinePassed);
        self.ended_early |= how == Stop::Abort && self.places.occupied() > 0;
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
        self.ended_early |= self.places.occupied() > 0;
        self.note_end(end);
        self.stop(Stop::Drain, BatchEnd::Stopped);
    }

    /// The batch comes to this end, if it has not come to another one before.
    fn note_end(&mut self, end: BatchEnd) {
        if matches!(self.summary.end, BatchEnd::Exhausted) {
            self.source.cut_short(end.of_stop());
            self.summary.end = end;
        }
    }

    /// The order is not told, so that no held item starts because the one ahead of it ends.
    fn abort(&mut self) {
        self.aborted = true;
        self.clear_lines();
        for place in 0..self.places.len() {
            // What is ready by now counts.
            if self.places.has_started(place) {
                if let Some(permits) = &mut self.permits {
                    permits.enter(place);
                }
                let mut output = None;
                let polled = caught(|| {
                    if let Poll::Ready(result) = self.places.slot(place).poll() {
                        output = Some(result);
                    }
                });
                if let Some(permits) = &mut self.permits {
                    permits.leave(place);
                }
                quietly(|| self.places.clear(place));
                let outcome = match (output, polled) {
                    (Some(result), _) => result.into(),
                    (None, Ok(())) => self.unfinished(place),
                    (None, Err(panic)) => Settled::Panicked(panic),
                };
                self.vacate(place, outcome);
            } else {
                self.cut_short(place);
            }
        }
    }

    /// Ends an item that does not run, if there is one at this place: one that has not started, or
    /// rests.
    pub(super) fn cut_short(&mut self, place: usize) {
        let outcome = match self.places.cancel(place) {
            None => return,
            Some(Unfinished::Started) => self.unfinished(place),
            Some(Unfinished::NotStarted(input)) => {
                let index = self.places.index(place);
                if let Some(input) = self.outlet.not_started(index, input) {
                    self.return_unstarted(index, input, SettledKind::Cancelled);
                }
                Settled::cancelled(false)
            }
        };
        self.vacate(place, outcome);
    }

    /// Ends a run that is dropped before it is done, without outcomes: inputs go to the dead letters.
    pub(super) fn return_inputs(&mut self) {
        if !A::RETRIES {
            return;
        }
        for place in 0..self.places.len() {
            let index = self.places.index(place);
            match self.places.cancel(place) {
                None => {}
                Some(Unfinished::Started) => {
                    if let Some(trial) = self.trials.take(place) {
                        self.let_go(index, &Settled::cancelled(true), trial);
                    }
                }
                Some(Unfinished::NotStarted(input)) => {
                    self.return_unstarted(index, input, SettledKind::Cancelled);
                }
            }
        }
        while let Some((index, input)) = self.source.take_unpulled() {
            self.return_unstarted(index, input, SettledKind::Cancelled);
        }
    }

    /// Ends a run that is dropped before it is done, without polling what is in hand.
    pub(super) fn cut_off(&mut self) {
        self.note_end(BatchEnd::Stopped);
        self.ended_early |= self.places.occupied() > 0;
        self.source.close();
        self.aborted = true;
        self.clear_lines();
        for place in 0..self.places.len() {
            if self.places.has_started(place) || self.places.is_resting(place) {
                self.places.cancel(place);
                let outcome = self.unfinished(place);
                self.vacate(place, outcome);
            } else {
                self.cut_short(place);
            }
        }
        self.source.leave();
        // What was set aside for this run.
        let cx = &mut Context::from_waker(Waker::noop());
        while let Ok(Poll::Ready(Some((index, input)))) = caught(|| self.source.poll_pull(1, cx)) {
            self.admit(index, input);
        }
    }
}
