//! A bound on the retries of many callers together.

use core::fmt;
use std::sync::Arc;

use crate::ConfigError;
use crate::base::sync::{AtomicU64, Ordering};

/// A token is counted in thousandths, as fine as the ratio is.
const TOKEN: u64 = 1000;

/// Allows retries only while most attempts succeed, over all policies that share it.
///
/// When a service is down, every caller's retries multiply what it has to refuse. A budget sees
/// over many calls that it is down, and then lets each of them try once.
///
/// It begins with `max_tokens` tokens. Each failure that is worth a retry takes a token; each
/// success gives back `token_ratio` of one, up to `max_tokens`. While no more than half of them are
/// left, nothing is retried. So after an outage it takes successes, not time, to retry again. This
/// is the retry throttling of gRPC (proposal A6, "Client Retries"), whose limits for the two numbers
/// it keeps, too.
///
/// Cloning it gives another handle to the same budget.
///
/// ```
/// use core::time::Duration;
/// use sluicegate::{Retry, RetryBudget, retry::{RetryState, GaveUp}};
///
/// let budget = RetryBudget::new(4, 0.1)?;
/// let retry = Retry::constant(10, Duration::ZERO)?.budget(&budget);
///
/// let mut state: RetryState = RetryState::new();
/// assert!(retry.next_wait(&mut state).is_ok(), "three tokens of four are left");
/// assert_eq!(retry.next_wait(&mut state), Err(GaveUp::BudgetSpent), "half of them are");
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
///
/// # How it is built
///
/// One atomic number, changed by a compare-exchange; nothing waits.
#[derive(Clone)]
pub struct RetryBudget(Arc<Shared>);

struct Shared {
    left: AtomicU64,
    max: u64,
    ratio: u64,
}

impl RetryBudget {
    /// Makes a budget of `max_tokens` tokens, of which a success gives back `token_ratio`.
    ///
    /// # Errors
    ///
    /// `max_tokens` must be from 1 to 1,000, `token_ratio` from 0.001 to 1,000; of its decimals,
    /// three count.
    pub fn new(max_tokens: u32, token_ratio: f64) -> Result<Self, ConfigError> {
        if !(1..=1000).contains(&max_tokens) {
            return Err(ConfigError::new("max_tokens", max_tokens, "from 1 to 1000"));
        }
        if !(0.001..=1000.0).contains(&token_ratio) {
            return Err(ConfigError::new("token_ratio", token_ratio, "from 0.001 to 1000"));
        }
        let max = u64::from(max_tokens) * TOKEN;
        let ratio = (token_ratio * TOKEN as f64).round() as u64;
        Ok(Self(Arc::new(Shared { left: AtomicU64::new(max), max, ratio })))
    }

    /// How many whole tokens are left.
    pub fn tokens(&self) -> u32 {
        (self.0.left.load(Ordering::Relaxed) / TOKEN) as u32
    }

    /// Whether a failure may be retried now.
    pub fn allows_retries(&self) -> bool {
        self.is_enough(self.0.left.load(Ordering::Relaxed))
    }

    fn is_enough(&self, left: u64) -> bool {
        left > self.0.max / 2
    }

    /// A failure takes a token; says whether it may be retried.
    pub(super) fn withdraw(&self) -> bool {
        self.is_enough(self.change(|left| left.saturating_sub(TOKEN)))
    }

    /// A success gives back its share.
    pub(super) fn deposit(&self) {
        // Most of the time it is full, and nothing is to be written.
        if self.0.left.load(Ordering::Relaxed) < self.0.max {
            self.change(|left| (left + self.0.ratio).min(self.0.max));
        }
    }

    /// Returns what is left after the change. No other memory depends on it: relaxed suffices.
    fn change(&self, change: impl Fn(u64) -> u64) -> u64 {
        let mut left = self.0.left.load(Ordering::Relaxed);
        loop {
            let new = change(left);
            match self.0.left.compare_exchange_weak(left, new, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return new,
                Err(seen) => left = seen,
            }
        }
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget")
            .field("tokens", &self.tokens())
            .field("max_tokens", &(self.0.max / TOKEN))
            .finish_non_exhaustive()
    }
}
