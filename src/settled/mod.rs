//! How one item of a batch ended, and what a batch of such endings says.

mod collect;
mod error;
mod kind;
mod scope;

use core::fmt;

use crate::Panic;
pub use collect::{NotAllFulfilled, Partition, SettledCounts};
pub use error::SettledError;
pub use kind::SettledKind;
pub use scope::Scope;

/// How one item of a batch ended: `Promise.allSettled`'s outcome, with the endings that Rust and a
/// bounded, timed batch add to it.
///
/// Each input that a [`BatchExecutor`](crate::BatchExecutor) pulls ends in exactly one of these.
/// Where only "did it work" matters, [`into_result`](Self::into_result) folds the four ways to
/// fail into one error; [`partition`](Self::partition), [`all_fulfilled`](Self::all_fulfilled) and
/// [`SettledCounts`] look at many outcomes together.
///
/// It is not meant for a single call, for which `Result` says all there is to say.
///
/// The enum, and its last two variants, may grow: a `match` needs a last arm and a `..`.
///
/// ```
/// use sluicegate::Settled;
///
/// fn told(outcome: Settled<u32, &str>) -> String {
///     match outcome {
///         Settled::Fulfilled(value) => format!("got {value}"),
///         Settled::Rejected(error) => format!("refused: {error}"),
///         Settled::Cancelled { started: false, .. } => "never started, safe to repeat".into(),
///         other => other.to_string(),
///     }
/// }
///
/// assert_eq!(told(Settled::Fulfilled(7)), "got 7");
/// assert_eq!(told(Settled::timed_out()), "timed out");
/// assert_eq!(told(Settled::cancelled(false)), "never started, safe to repeat");
/// ```
#[derive(Debug)]
#[must_use = "an outcome that nobody looks at hides a failure"]
#[non_exhaustive]
pub enum Settled<T, E> {
    /// The future returned `Ok`.
    Fulfilled(T),
    /// The future returned `Err`.
    Rejected(E),
    /// The closure, the key function or the future panicked.
    Panicked(Panic),
    /// A time limit passed before it was done, and its future was dropped.
    #[non_exhaustive]
    TimedOut {
        /// Whose limit it was: the attempt's, after which there was to be no other, the item's, or
        /// the batch's [deadline](crate::BatchExecutorBuilder::timeout).
        scope: Scope,
        /// What the last attempt before that ended with an error ended with.
        last_error: Option<E>,
    },
    /// The batch was stopped before the item was done, or its timed out before the item
    /// started.
    #[non_exhaustive]
    Cancelled {
        /// Whether its closure had been called: if not, nothing of it has happened.
        started: bool,
        /// What was cancelled: always the batch.
        scope: Scope,
        /// What the last attempt that ended with an error ended with.
        last_error: Option<E>,
    },
}

impl<T, E> Settled<T, E> {
    /// A [`Cancelled`](Self::Cancelled) outcome, for tests and for code that stands in for an
    /// executor.
    pub fn cancelled(started: bool) -> Self {
        Self::Cancelled { started, scope: Scope::Batch, last_error: None }
    }

    /// A [`TimedOut`](Self::TimedOut) outcome of an item that had one attempt, for tests and for
    /// code that stands in for an executor.
    pub fn timed_out() -> Self {
        Self::TimedOut { scope: Scope::Item, last_error: None }
    }

    /// Which of the endings this is, without what it holds.
    pub fn kind(&self) -> SettledKind {
        match self {
            Self::Fulfilled(_) => SettledKind::Fulfilled,
            Self::Rejected(_) => SettledKind::Rejected,
            Self::Panicked(_) => SettledKind::Panicked,
            Self::TimedOut { .. } => SettledKind::TimedOut,
            Self::Cancelled { .. } => SettledKind::Cancelled,
        }
    }

    /// Whether the future returned `Ok`.
    pub fn is_fulfilled(&self) -> bool {
        matches!(self, Self::Fulfilled(_))
    }

    /// Whether the future returned `Err`.
    pub fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected(_))
    }

    /// Whether the closure, the key function or the future panicked.
    pub fn is_panicked(&self) -> bool {
        matches!(self, Self::Panicked(_))
    }

    /// Whether a time limit passed: its attempt's, its own, or the batch's deadline.
    pub fn is_timed_out(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
    }

    /// Whether the batch was stopped before the item was done, or its timed out before it
    /// started.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled { .. })
    }

    /// The error that the future returned, or else the last one that an attempt before the end
    /// returned.
    pub fn last_error(&self) -> Option<&E> {
        match self {
            Self::Rejected(error) => Some(error),
            Self::TimedOut { last_error, .. } | Self::Cancelled { last_error, .. } => {
                last_error.as_ref()
            }
            _ => None,
        }
    }

    /// The value, if there is one.
    pub fn fulfilled(self) -> Option<T> {
        match self {
            Self::Fulfilled(value) => Some(value),
            _ => None,
        }
    }

    /// The value, or every other ending as one error.
    ///
    /// # Errors
    ///
    /// [`SettledError`] if the outcome is anything but [`Fulfilled`](Self::Fulfilled); it holds
    /// what the outcome held.
    ///
    /// ```
    /// use sluicegate::Settled;
    /// use std::error::Error;
    ///
    /// fn first(outcome: Settled<u32, std::fmt::Error>) -> Result<u32, Box<dyn Error>> {
    ///     Ok(outcome.into_result()?)
    /// }
    ///
    /// assert_eq!(first(Settled::Fulfilled(1)).unwrap(), 1);
    /// assert_eq!(first(Settled::timed_out()).unwrap_err().to_string(), "timed out");
    /// ```
    pub fn into_result(self) -> Result<T, SettledError<E>> {
        match self {
            Self::Fulfilled(value) => Ok(value),
            Self::Rejected(error) => Err(SettledError::Rejected(error)),
            Self::Panicked(panic) => Err(SettledError::Panicked(panic)),
            Self::TimedOut { scope, last_error } => {
                Err(SettledError::TimedOut { scope, last_error })
            }
            Self::Cancelled { started, scope, last_error } => {
                Err(SettledError::Cancelled { started, scope, last_error })
            }
        }
    }

    /// The same outcome with its value changed.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Settled<U, E> {
        match self.into_result() {
            Ok(value) => Settled::Fulfilled(change(value)),
            Err(error) => error.into(),
        }
    }

    /// The same outcome with its error changed.
    pub fn map_rejected<F>(self, change: impl FnOnce(E) -> F) -> Settled<T, F> {
        match self {
            Self::Fulfilled(value) => Settled::Fulfilled(value),
            Self::Rejected(error) => Settled::Rejected(change(error)),
            Self::Panicked(panic) => Settled::Panicked(panic),
            Self::TimedOut { scope, last_error } => {
                Settled::TimedOut { scope, last_error: last_error.map(change) }
            }
            Self::Cancelled { started, scope, last_error } => {
                Settled::Cancelled { started, scope, last_error: last_error.map(change) }
            }
        }
    }
}

/// `fulfilled`, `rejected: …`, `panicked: …`, `timed out`, or `cancelled` with whether it had
/// started; the last two with the last error, if there was one. The value is not shown, so it need not be displayable.
impl<T, E: fmt::Display> fmt::Display for Settled<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fulfilled(_) => f.write_str("fulfilled"),
            Self::Rejected(error) => error::write_rejected(f, error),
            Self::Panicked(panic) => panic.fmt(f),
            Self::TimedOut { scope, last_error } => {
                error::write_timed_out(f, *scope, last_error.as_ref())
            }
            Self::Cancelled { started, last_error, .. } => {
                error::write_cancelled(f, *started, last_error.as_ref())
            }
        }
    }
}

impl<T, E> From<Result<T, E>> for Settled<T, E> {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::Fulfilled(value),
            Err(error) => Self::Rejected(error),
        }
    }
}

impl<T, E> From<SettledError<E>> for Settled<T, E> {
    fn from(error: SettledError<E>) -> Self {
        match error {
            SettledError::Rejected(error) => Self::Rejected(error),
            SettledError::Panicked(panic) => Self::Panicked(panic),
            SettledError::TimedOut { scope, last_error } => Self::TimedOut { scope, last_error },
            SettledError::Cancelled { started, scope, last_error } => {
                Self::Cancelled { started, scope, last_error }
            }
        }
    }
}

impl<T, E> From<Settled<T, E>> for Result<T, SettledError<E>> {
    fn from(outcome: Settled<T, E>) -> Self {
        outcome.into_result()
    }
}
