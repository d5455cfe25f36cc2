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

use super::{Delays, Retry};

/// The attempts of one thing that is tried, for callers that keep the time themselves.
///
/// It holds no policy, and nothing on the heap before something has failed. See
/// [`Retry::next_wait`].
#[derive(Debug, Default)]
pub struct RetryState {
    failures: u32,
    delays: Option<Delays>,
}

impl RetryState {
    /// For something that has not been tried yet.
    pub const fn new() -> Self {
        Self { failures: 0, delays: None }
    }

    /// How many attempts have failed so far.
    pub fn failures(&self) -> u32 {
        self.failures
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
