//! The attempts of one thing that is tried.
//!
//! ```text
//!              failed, and may be retried
//!           ┌──────────────────────────────┐
//!           ▼                              │
//!  attempt 1, 2, 3 … ──────────────────────┴──▶ given up: not retryable, attempts spent,
//!           │ succeeded                         waits ended, or budget spent
//!           ▼
//!          done
//! ```

use core::fmt;
use core::time::Duration;

#[cfg(feature = "tokio")]
use super::RetryError;
use super::{Delays, Retry};
use crate::base::panic::quietly;

/// The attempts of one thing that is tried, for callers that keep the time themselves.
///
/// It holds no policy, and nothing on the heap before something has failed. `E` is the type of the
/// errors, of which it keeps the last one, if it is [told](Self::keep). See [`Retry::next_wait`].
#[derive(Debug)]
pub struct RetryState<E = ()> {
    failures: u32,
    delays: Option<Delays>,
    last_error: Option<E>,
}

impl<E> RetryState<E> {
    /// For something that has not been tried yet.
    pub const fn new() -> Self {
        Self { failures: 0, delays: None, last_error: None }
    }

    /// How many attempts have failed so far.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The last error that it was told to keep.
    pub fn last_error(&self) -> Option<&E> {
        self.last_error.as_ref()
    }

    /// Takes the last error out.
    pub fn take_last_error(&mut self) -> Option<E> {
        self.last_error.take()
    }

    /// No other attempt is made.
    #[cfg(feature = "tokio")]
    pub(super) fn give_up(&mut self, timeout: Option<Duration>, gave_up: GaveUp) -> RetryError<E> {
        let last_error = self.take_last_error();
        RetryError { last_error, timeout, attempts: self.failures, gave_up }
    }

    /// Keeps the error of an attempt, and drops the one before.
    pub fn keep(&mut self, error: E) {
        drop(self.last_error.replace(error));
    }

    /// Drops what is the caller's, one part after the other, where a panic has nowhere to go.
    pub(crate) fn discard(self) {
        let Self { delays, last_error, .. } = self;
        quietly(|| drop(delays));
        quietly(|| drop(last_error));
    }

    /// Counts a failure that nothing follows.
    pub(super) fn fail(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    pub(super) fn next(&mut self, policy: &Retry) -> Result<Duration, GaveUp> {
        self.fail();
        let delays = self.delays.get_or_insert_with(|| policy.delays());
        if delays.is_spent() {
            return Err(GaveUp::AttemptsSpent);
        }
        delays.next().ok_or(GaveUp::WaitsEnded)
    }
}

impl<E> Default for RetryState<E> {
    fn default() -> Self {
        Self::new()
    }
}

/// Why there was no other attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GaveUp {
    /// The error is not one that another attempt may get round.
    NotRetryable,
    /// As many attempts were made as the policy allows.
    AttemptsSpent,
    /// The iterator of waits ended before the attempts did.
    WaitsEnded,
    /// The [budget](crate::RetryBudget) allowed no retry.
    BudgetSpent,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotRetryable => "not retryable",
            Self::AttemptsSpent => "no attempts left",
            Self::WaitsEnded => "no waits left",
            Self::BudgetSpent => "no retry budget left",
        })
    }
}
