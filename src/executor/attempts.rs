//! Whether an item that failed is tried again, and where it goes if it is not.

use core::fmt;
use core::time::Duration;

use crate::retry::{Failure, GaveUp, RetryState, RetryWhen};
use crate::settled::SettledKind;

/// How often an item is tried.
pub trait Attempts<I, E> {
    /// Whether inputs may be kept for another attempt.
    const RETRIES: bool = false;

    /// A copy of an input for its further attempts, or for the dead letters. Runs the caller's
    /// code.
    fn keep(&self, input: &I) -> Option<I>;

    /// How long an attempt may take.
    fn attempt_timeout(&self) -> Option<Duration>;

    /// An attempt succeeded.
    fn succeeded(&self);

    /// How long to wait after an attempt that failed. Runs the caller's code.
    fn next_wait(
        &self,
        state: &mut RetryState<E>,
        failure: &Failure<E>,
    ) -> Result<Duration, GaveUp>;

    /// Nothing more is tried. Runs the caller's code.
    fn dead_letter(&self, letter: DeadLetter<'_, I, E>);
}

/// Each item is tried once.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRetry;

impl<I, E> Attempts<I, E> for NoRetry {
    #[inline]
    fn keep(&self, _: &I) -> Option<I> {
        None
    }

    fn attempt_timeout(&self) -> Option<Duration> {
        None
    }

    #[inline]
    fn succeeded(&self) {}

    fn next_wait(&self, _: &mut RetryState<E>, _: &Failure<E>) -> Result<Duration, GaveUp> {
        Err(GaveUp::AttemptsSpent)
    }

    fn dead_letter(&self, _: DeadLetter<'_, I, E>) {}
}

/// Items are tried as a [`Retry`](crate::Retry) says, and what fails for good goes to `D`.
pub struct Retrying<E, D = NoDeadLetter> {
    pub(super) retry: RetryWhen<E>,
    pub(super) dead_letter: D,
}

impl<E, D: Clone> Clone for Retrying<E, D> {
    fn clone(&self) -> Self {
        Self { retry: self.retry.clone(), dead_letter: self.dead_letter.clone() }
    }
}

impl<E, D> fmt::Debug for Retrying<E, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrying").field("retry", &self.retry).finish_non_exhaustive()
    }
}

impl<I: Clone, E, D: DeadLetterSink<I, E>> Attempts<I, E> for Retrying<E, D> {
    const RETRIES: bool = true;

    #[inline]
    fn keep(&self, input: &I) -> Option<I> {
        // An attempt's time limit is that of something that is known.
        let policy = self.retry.policy();
        let known = D::WANTED || policy.max_attempts() > 1 || policy.attempt_timeout().is_some();
        known.then(|| input.clone())
    }

    fn attempt_timeout(&self) -> Option<Duration> {
        self.retry.policy().attempt_timeout()
    }

    #[inline]
    fn succeeded(&self) {
        self.retry.policy().succeeded();
    }

    fn next_wait(
        &self,
        state: &mut RetryState<E>,
        failure: &Failure<E>,
    ) -> Result<Duration, GaveUp> {
        self.retry.next_wait_after(state, failure)
    }

    fn dead_letter(&self, letter: DeadLetter<'_, I, E>) {
        self.dead_letter.dead_letter(letter);
    }
}

/// What was not done, with its input: what
/// [`dead_letter`](super::BatchExecutor::dead_letter) hands out.
#[derive(Debug)]
#[non_exhaustive]
pub struct DeadLetter<'a, I, E> {
    /// The position of the input.
    pub index: usize,
    /// The input, as it was pulled.
    pub input: I,
    /// Rejected, panicked, timed out or cancelled.
    pub kind: SettledKind,
    /// How many attempts were begun: 0 if it was cancelled before, or its key, its weight or the clone
    /// for the first attempt panicked.
    pub attempts: u32,
    /// The last error; `None` if no attempt returned one.
    pub error: Option<&'a E>,
}

/// Where dead letters go; implemented for what [`Retrying`] puts in for its second parameter.
pub trait DeadLetterSink<I, E> {
    /// Whether there is somewhere.
    const WANTED: bool;

    /// Runs the caller's code.
    fn dead_letter(&self, letter: DeadLetter<'_, I, E>);
}

/// What fails for good is an outcome, and nothing else.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDeadLetter;

impl<I, E> DeadLetterSink<I, E> for NoDeadLetter {
    const WANTED: bool = false;

    fn dead_letter(&self, _: DeadLetter<'_, I, E>) {}
}

/// Dead letters go to a function.
#[cfg(any(feature = "tokio", loom))]
#[derive(Clone)]
pub struct FnSink<F>(pub(super) F);

#[cfg(any(feature = "tokio", loom))]
impl<I, E, F: Fn(DeadLetter<'_, I, E>)> DeadLetterSink<I, E> for FnSink<F> {
    const WANTED: bool = true;

    fn dead_letter(&self, letter: DeadLetter<'_, I, E>) {
        (self.0)(letter);
    }
}

#[cfg(any(feature = "tokio", loom))]
impl<F> fmt::Debug for FnSink<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FnSink(..)")
    }
}
