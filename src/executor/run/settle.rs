//! How an item ends: its outcome, or another attempt.

use core::future::Future;

use super::Run;
use crate::base::panic::{caught, quietly};
use crate::base::timer::now;
use crate::executor::attempts::DeadLetter;
use crate::executor::order::Order;
use crate::executor::outcome_sink::OutcomeSink;
use crate::executor::policies::Policy;
use crate::executor::retry_queue::RetryItem;
use crate::executor::source::Source;
use crate::retry::Failure;
use crate::settled::{ItemError, Scope, Settled, SettledKind};

impl<S, F, Fut, P, O, T, E> Run<S, F, Fut, P, O, E>
where
    S: Source,
    F: FnMut(S::Input) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    P: Policy<S::Input, E>,
    O: OutcomeSink<S::Input, T, E>,
{
    /// An attempt has come to its end.
    pub(super) fn attempt_ended(&mut self, slot: usize, result: Result<T, E>) {
        match result {
            Ok(value) => {
                if P::RETRIES {
                    self.policy.succeeded();
                }
                self.settle(slot, Ok(value));
            }
            Err(error) if P::RETRIES => {
                if let Err(Failure::Failed(error)) = self.try_to_retry(slot, Failure::Failed(error))
                {
                    self.settle(slot, Err(ItemError::Rejected(error)));
                }
            }
            Err(error) => self.settle(slot, Err(ItemError::Rejected(error))),
        }
    }

    /// Lets an item back off whose attempt failed, if it is to be tried again.
    ///
    /// # Errors
    ///
    /// The failure, if there is to be no other attempt.
    pub(super) fn try_to_retry(
        &mut self,
        slot: usize,
        failure: Failure<E>,
    ) -> Result<(), Failure<E>> {
        let attempts = &self.policy;
        let Some(retry_item) = self.retries.get(slot) else { return Err(failure) };
        // What cannot decide does not try again.
        let wait = caught(|| attempts.next_wait(&mut retry_item.state, &failure));
        let wait = wait.map_err(|panic| quietly(|| drop(panic)));
        let Ok(Ok(wait)) = wait else { return Err(failure) };
        let due = (!wait.is_zero()).then(|| now() + wait);
        if due.is_some_and(|due| self.limits.is_past_the_deadline(due)) {
            return Err(failure);
        }
        if let Failure::Failed(error) = failure {
            quietly(|| retry_item.state.keep(error));
        }
        self.slots.back_off(slot);
        if let Some(permits) = &mut self.permits {
            permits.release(slot);
        }
        self.retries.back_off(slot, due);
        let index = self.slots.index(slot);
        self.time_item(slot, index);
        if let Some(reporter) = &mut self.reporter {
            reporter.retrying(index, wait);
        }
        Ok(())
    }

    /// The outcome of a started item that ends with the batch.
    pub(super) fn ended_with_batch(&mut self, slot: usize) -> Settled<T, E> {
        if self.late {
            return self.timed_out(slot, Scope::Batch);
        }
        let last_error = self.take_last_error(slot);
        Err(ItemError::Cancelled { started: true, scope: Scope::Batch, last_error })
    }

    /// The outcome of an item that has run out of time.
    pub(super) fn timed_out(&mut self, slot: usize, scope: Scope) -> Settled<T, E> {
        let last_error = self.take_last_error(slot);
        Err(ItemError::TimedOut { scope, last_error })
    }

    fn take_last_error(&mut self, slot: usize) -> Option<E> {
        self.retries.get(slot)?.state.take_last_error()
    }

    pub(super) fn settle(&mut self, slot: usize, outcome: Settled<T, E>) {
        if let Some(next) = self.order.release(slot) {
            self.due.push_back(next);
        }
        self.vacate(slot, outcome);
    }

    pub(super) fn vacate(&mut self, slot: usize, outcome: Settled<T, E>) {
        let (index, kind) = (self.slots.index(slot), SettledKind::of(&outcome));
        self.slots.vacate(slot);
        if let Some(permits) = &mut self.permits {
            permits.release(slot);
        }
        let retry_item = if P::RETRIES { self.retries.take(slot) } else { None };
        self.record(index, outcome, retry_item);
        if let Some(reporter) = &mut self.reporter {
            reporter.settled(slot, index, kind, now());
        }
    }

    #[inline]
    pub(super) fn record(
        &mut self,
        index: usize,
        outcome: Settled<T, E>,
        retry_item: Option<RetryItem<S::Input, E>>,
    ) {
        self.summary.counts.record(&outcome);
        match (&outcome, retry_item) {
            (Ok(_), Some(retry_item)) => retry_item.discard(),
            (Ok(_), None) => {}
            (Err(error), retry_item) => {
                self.stops.failed();
                if let Some(retry_item) = retry_item {
                    self.release_input(index, error, retry_item);
                }
            }
        }
        self.sink.settle(index, outcome);
    }

    /// The input of an item that ends before its first attempt goes to the dead letters.
    pub(super) fn dead_letter_unstarted(&self, index: usize, input: S::Input, kind: SettledKind) {
        quietly(|| {
            self.policy.dead_letter(DeadLetter { index, input, kind, attempts: 0, error: None });
        });
    }

    /// What was kept of an item that has failed goes to the dead letter.
    pub(super) fn release_input(
        &self,
        index: usize,
        failure: &ItemError<E>,
        retry_item: RetryItem<S::Input, E>,
    ) {
        let RetryItem { input, attempts, state, .. } = retry_item;
        let error = failure.last_error().or(state.last_error());
        quietly(|| {
            let kind = failure.kind();
            self.policy.dead_letter(DeadLetter { index, input, kind, attempts, error });
        });
        state.discard();
    }
}
