//! What comes after an attempt that failed: another one, a closer look, or nothing more.

use core::fmt;
use core::time::Duration;

use super::error::{BatchError, HandlerError};
use crate::RetryWhen;
use crate::base::panic::{caught, quietly};
use crate::retry::{Failure, GaveUp, RetryState};

/// What happens to a batch that fails.
pub(crate) struct Failing {
    pub(crate) retry: RetryWhen<HandlerError>,
    pub(crate) isolation: Option<Isolation>,
}

/// How to look for the items that make a batch fail.
pub(crate) struct Isolation {
    /// How many handler calls may be made to find them.
    pub(crate) max_probes: u32,
    /// For which errors, if that is said.
    pub(crate) when: Option<Box<CutWhen>>,
}

pub(crate) type CutWhen = dyn Fn(&HandlerError) -> bool + Send + Sync;

/// What a batch carries along once an attempt has failed. It may hold what is the user's.
#[derive(Default)]
pub(crate) struct FailureState {
    retry: RetryState<HandlerError>,
    /// Whether its retries are used up.
    attempts_over: bool,
    /// The search for what makes it fail, once it has begun.
    search: Option<Search>,
}

/// A search for the items that make a batch fail.
struct Search {
    /// How many handler calls are left for it.
    probes: u32,
    /// How many in a row have failed and delivered nothing, and how many may.
    in_vain: u32,
    most_in_vain: u32,
}

/// As many probes in a row may fail, or twice as many as it takes to halve the batch down to one
/// item, whichever is more. One item is found by then, in every batch; and in one of up to 8 items,
/// all are.
const LEAST_IN_VAIN: u32 = 16;

impl Search {
    fn new(probes: u32, items: usize) -> Self {
        let halvings = items.next_power_of_two().trailing_zeros();
        Self { probes, in_vain: 0, most_in_vain: LEAST_IN_VAIN.max(2 * halvings) }
    }
}

/// What is to be done with what an attempt left behind.
pub(crate) enum Then {
    TryAgain(Duration),
    /// Cut in two, to be tried one after the other.
    Split,
    GiveUp(GaveUp),
}

impl Failing {
    /// An attempt ended well.
    #[inline]
    pub(crate) fn succeeded(&self) {
        self.retry.policy().succeeded();
    }

    /// An attempt failed that was given `handed` items and left `left`. Runs the caller's code.
    pub(crate) fn next(
        &self,
        failure_state: &mut FailureState,
        failure: &Failure<HandlerError>,
        handed: usize,
        left: usize,
    ) -> Then {
        if let Some(search) = &mut failure_state.search {
            search.in_vain = if left < handed { 0 } else { search.in_vain.saturating_add(1) };
        }
        let retryable = self.is_retryable(failure);
        let gave_up = match self.next_wait(failure_state, retryable) {
            Ok(wait) => return Then::TryAgain(wait),
            Err(gave_up) => gave_up,
        };
        let Some(isolation) = &self.isolation else { return Then::GiveUp(gave_up) };
        if left < 2 || !self.is_worth_a_cut(isolation, failure, retryable) {
            return Then::GiveUp(gave_up);
        }
        let search =
            failure_state.search.get_or_insert_with(|| Search::new(isolation.max_probes, left));
        // One for each half, so that a part that was cut off is sure to be tried.
        if search.probes < 2 || search.in_vain >= search.most_in_vain {
            Then::GiveUp(gave_up)
        } else if !self.retry.policy().may_retry() {
            Then::GiveUp(GaveUp::BudgetSpent)
        } else {
            search.probes -= 2;
            Then::Split
        }
    }

    /// Whether another attempt may get round it. A choice that panics says no.
    fn is_retryable(&self, failure: &Failure<HandlerError>) -> bool {
        match failure {
            Failure::Failed(error) => says_yes(|| self.retry.is_retryable(error)),
            Failure::Panicked(_) | Failure::TimedOut => true,
        }
    }

    /// Whether an item may be to blame for it.
    fn is_worth_a_cut(
        &self,
        isolation: &Isolation,
        failure: &Failure<HandlerError>,
        retryable: bool,
    ) -> bool {
        match (failure, &isolation.when) {
            (Failure::Failed(error), Some(when)) => says_yes(|| when(error)),
            // What may pass is no item's fault, if somebody has said what may.
            (Failure::Failed(_), None) => !(retryable && self.retry.has_choice()),
            (Failure::Panicked(_) | Failure::TimedOut, _) => true,
        }
    }

    /// The wait before the next attempt, unless this was the last. What panics allows none.
    fn next_wait(
        &self,
        failure_state: &mut FailureState,
        retryable: bool,
    ) -> Result<Duration, GaveUp> {
        let policy = self.retry.policy();
        if retryable && !failure_state.attempts_over {
            let next =
                caught(|| policy.next_wait(&mut failure_state.retry)).unwrap_or_else(|panic| {
                    quietly(|| drop(panic));
                    Err(GaveUp::WaitsEnded)
                });
            failure_state.attempts_over = next.is_err();
            return next;
        }
        // Every probe is charged, whatever it failed with: an outage is seen by that.
        if retryable || failure_state.search.is_some() {
            policy.charge();
        }
        Err(if retryable { GaveUp::AttemptsSpent } else { GaveUp::NotRetryable })
    }

    /// Why a batch is not tried any more after so many attempts.
    pub(crate) fn error(
        &self,
        failure: Failure<HandlerError>,
        failure_state: &mut FailureState,
        attempts: u32,
        gave_up: GaveUp,
    ) -> BatchError {
        match failure {
            Failure::Failed(error) => BatchError::Failed { error, attempts, gave_up },
            Failure::Panicked(panic) => BatchError::Panicked { panic, attempts, gave_up },
            Failure::TimedOut => {
                let limit = self.retry.policy().attempt_timeout().unwrap_or_default();
                let earlier = failure_state.retry.take_last_error();
                BatchError::TimedOut { limit, earlier, attempts, gave_up }
            }
        }
    }
}

/// What a function of the caller's says; no, if it panics.
fn says_yes(says: impl FnOnce() -> bool) -> bool {
    caught(says).unwrap_or_else(|panic| {
        quietly(|| drop(panic));
        false
    })
}

impl FailureState {
    /// A part of the batch was delivered.
    pub(crate) fn delivered(&mut self) {
        if let Some(search) = &mut self.search {
            search.in_vain = 0;
        }
    }

    /// The batch goes on, though an attempt failed.
    pub(crate) fn note(&mut self, failure: Failure<HandlerError>) {
        quietly(|| match failure {
            Failure::Failed(error) => self.retry.keep(error),
            other => drop(other),
        });
    }

    /// Drops what is the user's, where a panic has nowhere to go.
    pub(crate) fn discard(self) {
        self.retry.discard();
    }
}

impl fmt::Debug for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failing").field("retry", &self.retry).finish_non_exhaustive()
    }
}
