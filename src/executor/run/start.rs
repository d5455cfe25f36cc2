//! From being pulled to being polled: places, keys, permits, the throttle, and further attempts.

use core::future::Future;
use core::task::Poll;

use super::Run;
use crate::base::panic::{caught, quietly};
use crate::executor::attempts::Attempts;
use crate::executor::order::Order;
use crate::executor::outlet::Outlet;
use crate::executor::places::{Places, Unfinished};
use crate::executor::source::Source;
use crate::executor::weight::Weigher;
use crate::settled::{Settled, SettledKind};

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
    /// Gives an input a place, where it may have to wait for its key or for permits.
    pub(super) fn admit(&mut self, index: usize, input: S::Input) {
        let place = self.vacant_place();
        self.places.hold(place, index, input);
        if let Some(watch) = &mut self.watch {
            watch.pulled(place, index, self.clock.now());
        }
        if self.aborted {
            self.ended_early = true;
            self.cut_short(place);
            return;
        }
        let Some(input) = self.places.held(place) else { return };
        let admitted = caught(|| {
            // The weight first: an order that has admitted an item is told when it settles.
            let weight = if W::WEIGHS { self.weigher.weigh(input) } else { 1 };
            (weight, self.order.admit(place, input))
        });
        match admitted {
            Ok((weight, may_start)) => {
                if let Some(permits) = &mut self.permits {
                    permits.weigh(place, weight);
                }
                if self.permits.is_some() || self.throttling.is_some() {
                    if may_start {
                        self.due.push_back(place);
                        self.start_due();
                    }
                } else if may_start {
                    self.start_place(place);
                }
            }
            Err(panic) => {
                if let Some(Unfinished::NotStarted(input)) = self.places.cancel(place) {
                    self.return_unstarted(index, input, SettledKind::Panicked);
                }
                self.vacate(place, Settled::Panicked(panic));
            }
        }
    }

    /// Starts the next item that may start, if there is one and it has its permits; whether it did.
    /// Those that are to be tried again go first.
    pub(super) fn start_due(&mut self) -> bool {
        // An item that was polled in this turn may have stopped the batch.
        if self.nobody_is_due() || self.stops.is_news() {
            return false;
        }
        let place = match self.next {
            Some(place) => place,
            None => match self.next_due() {
                Some(place) => place,
                None => return true,
            },
        };
        if self.next.is_none() {
            return false;
        }
        if let Some(throttling) = &mut self.throttling {
            if !throttling.may_start(|| self.clock.now()) {
                return false;
            }
        }
        self.next = None;
        if A::RETRIES && self.places.is_resting(place) {
            self.start_again(place);
        } else {
            self.start_place(place);
        }
        if self.nobody_is_due() {
            self.rest_lines();
        }
        true
    }

    /// Gets the item in front of those that are due its permits, if it may have them; `None` if it
    /// ended instead.
    fn next_due(&mut self) -> Option<usize> {
        let again = if A::RETRIES { self.trials.ready() } else { None };
        let place = again.or_else(|| self.due.front().copied())?;
        // Those held for their keys are not seen by the room that there is.
        if A::RETRIES && self.places.running() >= self.limit {
            return Some(place);
        }
        let permitted = match &mut self.permits {
            Some(permits) => permits.poll(place),
            None => Poll::Ready(Ok(())),
        };
        match permitted {
            Poll::Pending => return Some(place),
            Poll::Ready(Ok(())) => self.next = Some(place),
            Poll::Ready(Err(end)) => self.refuse(end),
        }
        if again.is_some() {
            self.trials.take_ready();
        } else {
            self.due.pop_front();
        }
        if self.next.is_some() {
            return Some(place);
        }
        if let Some(next) = self.order.release(place) {
            self.due.push_back(next);
        }
        self.cut_short(place);
        None
    }

    /// Nobody is in line: what was asked for is given back.
    pub(super) fn rest_lines(&mut self) {
        if let Some(permits) = &mut self.permits {
            permits.rest();
        }
        if let Some(throttling) = &mut self.throttling {
            throttling.rest();
        }
    }

    /// Nobody is to start any more.
    pub(super) fn clear_lines(&mut self) {
        self.due.clear();
        self.next = None;
        self.trials.forget_all();
        self.rest_lines();
    }

    fn start_place(&mut self, place: usize) {
        let Some(input) = self.places.begin(place) else { return };
        self.wakes.new_started();
        let index = self.places.index(place);
        if let Some(watch) = &mut self.watch {
            watch.started(place, index, self.clock.now());
        }
        if A::RETRIES {
            match caught(|| self.attempts.keep(&input)) {
                Ok(kept) => self.trials.open(place, kept),
                Err(panic) => {
                    self.return_unstarted(index, input, SettledKind::Panicked);
                    return self.settle(place, Settled::Panicked(panic));
                }
            }
        }
        if self.poll_with(place, |places, start| places.slot(place).start(|| start(input))) {
            self.time(place, index);
        }
    }

    /// Starts another attempt.
    fn start_again(&mut self, place: usize) {
        self.places.resume(place);
        self.wakes.new_started();
        let index = self.places.index(place);
        if let Some(watch) = &mut self.watch {
            watch.started(place, index, self.clock.now());
        }
        let attempts = &*self.attempts;
        let Some(trial) = self.trials.begin(place) else { return };
        let input = match caught(|| attempts.keep(&trial.input)) {
            Ok(Some(input)) => input,
            Ok(None) => return,
            Err(panic) => return self.settle(place, Settled::Panicked(panic)),
        };
        trial.attempts = trial.attempts.saturating_add(1);
        if self.poll_with(place, |places, start| places.slot(place).start(|| start(input))) {
            self.time(place, index);
        }
    }

    pub(super) fn poll_place(&mut self, place: usize) {
        self.poll_with(place, |places, _| places.slot(place).poll());
    }

    /// Polls the item at this place, and settles it if it is done; whether it is not.
    pub(super) fn poll_with(
        &mut self,
        place: usize,
        poll: impl FnOnce(&mut Places<S::Input, Fut>, &mut F) -> Poll<Result<T, E>>,
    ) -> bool {
        if let Some(permits) = &mut self.permits {
            permits.enter(place);
        }
        // Outside the closure, so that a future that panics when dropped does not take along
        // what it has already returned.
        let mut output = None;
        let run = caught(|| {
            if let Poll::Ready(result) = poll(&mut self.places, &mut self.start) {
                output = Some(result);
                self.places.clear(place);
            }
        });
        if let Some(permits) = &mut self.permits {
            permits.leave(place);
        }
        match (output, run) {
            (None, Ok(())) => return true,
            (Some(result), Ok(())) => self.finish(place, result),
            (Some(result), Err(panic)) => {
                quietly(|| drop(panic));
                self.finish(place, result);
            }
            (None, Err(panic)) => {
                quietly(|| self.places.clear(place));
                self.settle(place, Settled::Panicked(panic));
            }
        }
        false
    }

    /// An item has been started, and is pending.
    #[inline]
    pub(super) fn time(&mut self, place: usize, index: usize) {
        self.time_item(place, index);
        if let (true, Some(serial)) = (A::RETRIES, self.trials.serial_at(place)) {
            let (places, trials) = (&self.places, &self.trials);
            let tries = |place, serial| {
                places.has_started(place) && trials.serial_at(place) == Some(serial)
            };
            self.clock.attempt_started(place, serial, places.len(), tries);
        }
    }

    /// The time of an item counts from now on, if it does not yet.
    #[inline]
    pub(super) fn time_item(&mut self, place: usize, index: usize) {
        if A::RETRIES {
            if let Some(trial) = self.trials.get(place) {
                if core::mem::replace(&mut trial.timed, true) {
                    return;
                }
            }
        }
        let places = &self.places;
        let runs = |place, index| places.runs(place, index);
        self.clock.item_started(place, index, places.len(), runs);
    }
}
