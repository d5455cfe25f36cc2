//! How an item ends: its outcome, or another attempt.

use core::future::Future;

use super::Run;
use crate::base::panic::{caught, quietly};
use crate::executor::attempts::{Attempts, DeadLetter};
use crate::executor::order::Order;
use crate::executor::outlet::Outlet;
use crate::executor::source::Source;
use crate::executor::trials::Trial;
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
    /// An attempt has come to its end.
    pub(super) fn finish(&mut self, place: usize, result: Result<T, E>) {
        match result {
            Ok(value) => {
                if A::RETRIES {
                    self.attempts.succeeded();
                }
                self.settle(place, Settled::Fulfilled(value));
            }
            Err(error) if A::RETRIES => {
                if let Err(Some(error)) = self.try_again(place, Some(error)) {
                    self.settle(place, Settled::Rejected(error));
                }
            }
            Err(error) => self.settle(place, Settled::Rejected(error)),
        }
    }

    /// Lets an item rest whose attempt failed, or timed out if there is no error, if it is to be
    /// tried again.
    ///
    /// # Errors
    ///
    /// The error, if there is to be no other attempt.
    pub(super) fn try_again(&mut self, place: usize, error: Option<E>) -> Result<(), Option<E>> {
        let attempts = &self.attempts;
        let Some(trial) = self.trials.get(place) else { return Err(error) };
        // What cannot decide does not try again.
        let wait = caught(|| attempts.next_wait(&mut trial.course, error.as_ref()));
        let wait = wait.map_err(|panic| quietly(|| drop(panic)));
        let Ok(Ok(wait)) = wait else { return Err(error) };
        let due = (!wait.is_zero()).then(|| self.clock.now() + wait);
        if due.is_some_and(|due| self.clock.is_past_the_deadline(due)) {
            return Err(error);
        }
        if let Some(error) = error {
            let before = trial.last_error.replace(error);
            quietly(|| drop(before));
        }
        self.places.rest(place);
        if let Some(permits) = &mut self.permits {
            permits.release(place);
        }
        self.trials.rest(place, due);
        let index = self.places.index(place);
        self.time_item(place, index);
        if let Some(watch) = &mut self.watch {
            watch.retrying(index, wait);
        }
        Ok(())
    }

    /// The outcome of a started item that ends with the batch.
    pub(super) fn unfinished(&mut self, place: usize) -> Settled<T, E> {
        if self.late {
            return self.timed_out(place, Scope::Batch);
        }
        let last_error = self.trials.get(place).and_then(|trial| trial.last_error.take());
        Settled::Cancelled { started: true, scope: Scope::Batch, last_error }
    }

    /// The outcome of an item that has run out of time.
    pub(super) fn timed_out(&mut self, place: usize, scope: Scope) -> Settled<T, E> {
        let last_error = self.trials.get(place).and_then(|trial| trial.last_error.take());
        Settled::TimedOut { scope, last_error }
    }

    pub(super) fn settle(&mut self, place: usize, outcome: Settled<T, E>) {
        if let Some(next) = self.order.release(place) {
            self.due.push_back(next);
        }
        self.vacate(place, outcome);
    }

    pub(super) fn vacate(&mut self, place: usize, outcome: Settled<T, E>) {
        let (index, kind) = (self.places.index(place), outcome.kind());
        self.places.vacate(place);
        if let Some(permits) = &mut self.permits {
            permits.release(place);
        }
        let trial = if A::RETRIES { self.trials.take(place) } else { None };
        self.record(index, outcome, trial);
        if let Some(watch) = &mut self.watch {
            watch.settled(place, index, kind, self.clock.now());
        }
    }

    #[inline]
    pub(super) fn record(
        &mut self,
        index: usize,
        outcome: Settled<T, E>,
        trial: Option<Trial<S::Input, E>>,
    ) {
        self.summary.counts.record(&outcome);
        if !outcome.is_fulfilled() {
            self.stops.failed();
        }
        if let Some(trial) = trial {
            self.let_go(index, &outcome, trial);
        }
        self.outlet.settle(index, outcome);
    }

    /// The input of an item that ends before its first attempt goes to the dead letters.
    pub(super) fn return_unstarted(&self, index: usize, input: S::Input, kind: SettledKind) {
        quietly(|| {
            self.attempts.bury(DeadLetter { index, input, kind, attempts: 0, error: None });
        });
    }

    /// What was kept of an item that has settled goes to the dead letters, unless it is done.
    pub(super) fn let_go(&self, index: usize, outcome: &Settled<T, E>, trial: Trial<S::Input, E>) {
        if outcome.is_fulfilled() {
            return trial.end();
        }
        let Trial { input, attempts, last_error, course, .. } = trial;
        let error = outcome.last_error().or(last_error.as_ref());
        quietly(|| {
            let kind = outcome.kind();
            self.attempts.bury(DeadLetter { index, input, kind, attempts, error });
        });
        quietly(|| drop(last_error));
        quietly(|| drop(course));
    }
}
