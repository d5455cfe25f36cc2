//! Which errors are worth another attempt.

use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::time::Duration;
use std::sync::Arc;

use super::{Failure, GaveUp, Retry, RetryState};

/// A [`Retry`] for errors of one type, with the choice of those that are worth another attempt.
///
/// Made by [`Retry::when`], or from a plain policy, which takes every error for one that may pass.
/// Cloning it is cheap.
pub struct RetryWhen<E> {
    policy: Retry,
    retryable: Option<Arc<Choice<E>>>,
}

type Choice<E> = dyn Fn(&E) -> bool + Send + Sync;

impl<E> RetryWhen<E> {
    pub(super) fn new<F>(policy: Retry, retryable: F) -> Self
    where
        F: Fn(&E) -> bool + Send + Sync + 'static,
    {
        Self { policy, retryable: Some(Arc::new(retryable)) }
    }

    /// The policy without the choice.
    pub fn policy(&self) -> &Retry {
        &self.policy
    }

    /// Whether an error is worth another attempt, however many were made.
    pub fn is_retryable(&self, error: &E) -> bool {
        self.retryable.as_ref().is_none_or(|retryable| retryable(error))
    }

    /// Whether there is a choice: without one, every error is retryable for want of knowing better.
    #[cfg(any(feature = "tokio", loom))]
    pub(crate) fn has_choice(&self) -> bool {
        self.retryable.is_some()
    }

    /// [`next_wait`](Self::next_wait) after any failure: a panic and a time-out are worth another
    /// attempt.
    ///
    /// # Errors
    ///
    /// [`GaveUp`], as [`next_wait`](Self::next_wait).
    ///
    /// # Panics
    ///
    /// As [`next_wait`](Self::next_wait).
    pub fn next_wait_after(
        &self,
        state: &mut RetryState<E>,
        failure: &Failure<E>,
    ) -> Result<Duration, GaveUp> {
        match failure {
            Failure::Failed(error) => self.next_wait(state, error),
            Failure::Panicked(_) | Failure::TimedOut => self.policy.next_wait(state),
        }
    }

    /// [`Retry::next_wait`] after an attempt that returned `error`.
    ///
    /// # Errors
    ///
    /// [`GaveUp`] if there is to be no other attempt. An error that is not retryable costs no
    /// budget.
    ///
    /// # Panics
    ///
    /// If the caller's choice does, or the iterator of waits.
    pub fn next_wait(&self, state: &mut RetryState<E>, error: &E) -> Result<Duration, GaveUp> {
        if !self.is_retryable(error) {
            state.fail();
            return Err(GaveUp::NotRetryable);
        }
        self.policy.next_wait(state)
    }
}

// A panic in a caller's choice leaves it whole.
impl<E> UnwindSafe for RetryWhen<E> {}
impl<E> RefUnwindSafe for RetryWhen<E> {}

impl<E> Clone for RetryWhen<E> {
    fn clone(&self) -> Self {
        Self { policy: self.policy.clone(), retryable: self.retryable.clone() }
    }
}

impl<E> From<Retry> for RetryWhen<E> {
    /// Every error is worth another attempt.
    fn from(policy: Retry) -> Self {
        Self { policy, retryable: None }
    }
}

impl<E> fmt::Debug for RetryWhen<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryWhen").field("policy", &self.policy).finish_non_exhaustive()
    }
}
