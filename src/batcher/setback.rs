//! What comes after an attempt that failed: another one, a closer look, or nothing more.

use core::time::Duration;

use super::error::{BatchError, HandlerError};
use crate::retry::{Course, GaveUp};
use crate::settled::{caught, quietly};
use crate::{Panic, RetryWhen};

/// How an attempt failed.
pub(crate) enum Failure {
    Failed(HandlerError),
    Panicked(Panic),
    TimedOut,
}

/// What happens to a batch that fails.
#[derive(Debug)]
pub(crate) struct Failing {
    pub(crate) retry: RetryWhen<HandlerError>,
    /// How many handler calls may be made to find the items that make it fail.
    pub(crate) max_probes: u32,
}

/// What a batch carries along once an attempt has failed. It may hold what is the user's.
#[derive(Default)]
pub(crate) struct Setback {
    course: Course,
    /// How many handler calls are left to find what makes it fail, once its retries have failed.
    probes: Option<u32>,
    /// What the last attempt that returned an error returned.
    earlier: Option<HandlerError>,
}

/// What is to be done with what an attempt left behind.
pub(crate) enum Then {
    TryAgain(Duration),
    /// Cut in two, to be tried one after the other.
    Split,
    Bury(GaveUp),
}

impl Failing {
    /// An attempt ended well.
    #[inline]
    pub(crate) fn succeeded(&self) {
        self.retry.policy().succeeded();
    }

    /// An attempt failed that left so many items. Runs the caller's code.
    pub(crate) fn next(&self, setback: &mut Setback, failure: &Failure, items: usize) -> Then {
        let gave_up = match self.next_wait(setback, failure) {
            Ok(wait) => return Then::TryAgain(wait),
            Err(gave_up) => gave_up,
        };
        let probes = setback.probes.get_or_insert(self.max_probes);
        // One for each half, so that a part that was cut off is sure to be tried.
        if *probes < 2 || items < 2 {
            Then::Bury(gave_up)
        } else if !self.retry.policy().may_retry() {
            Then::Bury(GaveUp::BudgetSpent)
        } else {
            *probes -= 2;
            Then::Split
        }
    }

    /// The wait before the next attempt, unless this was the last. What panics allows none.
    fn next_wait(&self, setback: &mut Setback, failure: &Failure) -> Result<Duration, GaveUp> {
        let policy = self.retry.policy();
        let retryable = match failure {
            Failure::Failed(error) => caught(|| self.retry.is_retryable(error)),
            Failure::Panicked(_) | Failure::TimedOut => Ok(true),
        };
        let retryable = retryable.unwrap_or_else(|panic| {
            quietly(|| drop(panic));
            false
        });
        if !retryable {
            return Err(GaveUp::NotRetryable);
        }
        if setback.probes.is_some() {
            policy.charge();
            return Err(GaveUp::AttemptsSpent);
        }
        caught(|| policy.next_wait(&mut setback.course)).unwrap_or_else(|panic| {
            quietly(|| drop(panic));
            Err(GaveUp::WaitsEnded)
        })
    }

    /// Why a batch is not tried any more after so many attempts.
    pub(crate) fn error(
        &self,
        failure: Failure,
        setback: &mut Setback,
        attempts: u32,
        gave_up: GaveUp,
    ) -> BatchError {
        match failure {
            Failure::Failed(error) => BatchError::Failed { error, attempts, gave_up },
            Failure::Panicked(panic) => BatchError::Panicked { panic, attempts, gave_up },
            Failure::TimedOut => {
                let limit = self.retry.policy().time_limit().unwrap_or_default();
                let earlier = setback.earlier.take();
                BatchError::TimedOut { limit, earlier, attempts, gave_up }
            }
        }
    }
}

impl Setback {
    /// The batch goes on, though an attempt failed.
    pub(crate) fn note(&mut self, failure: Failure) {
        let dropped = match failure {
            Failure::Failed(error) => self.earlier.replace(error).map(Failure::Failed),
            other => Some(other),
        };
        quietly(|| drop(dropped));
    }
}
