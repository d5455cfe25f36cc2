//! Why an item has no value.

use core::fmt;
use std::error::Error;

use super::{Scope, SettledKind};
use crate::Panic;

/// Why an item of a batch has no value: the error of a [`Settled`](crate::Settled) outcome.
///
/// The enum, and its last two variants, may grow: a `match` needs a last arm and a `..`.
///
/// ```
/// use sluicegate::{ItemError, Settled};
///
/// fn told(outcome: Settled<u32, &str>) -> String {
///     match outcome {
///         Ok(value) => format!("got {value}"),
///         Err(ItemError::Rejected(error)) => format!("refused: {error}"),
///         Err(ItemError::Cancelled { started: false, .. }) => "never started, safe to repeat".into(),
///         Err(other) => other.to_string(),
///     }
/// }
///
/// assert_eq!(told(Ok(7)), "got 7");
/// assert_eq!(told(Err(ItemError::timed_out())), "timed out");
/// assert_eq!(told(Err(ItemError::cancelled(false))), "never started, safe to repeat");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ItemError<E> {
    /// The future returned this error.
    Rejected(E),
    /// The closure, the key function or the future panicked.
    Panicked(Panic),
    /// A time limit passed before it was done: its attempt's, its own, or the batch's deadline.
    #[non_exhaustive]
    TimedOut {
        /// Whose limit it was.
        scope: Scope,
        /// What the last attempt before that ended with an error ended with.
        last_error: Option<E>,
    },
    /// The batch was stopped before the item was done, or its deadline passed before the item
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

impl<E> ItemError<E> {
    /// A [`Cancelled`](Self::Cancelled) error, for tests and for code that stands in for an executor.
    pub fn cancelled(started: bool) -> Self {
        Self::Cancelled { started, scope: Scope::Batch, last_error: None }
    }

    /// A [`TimedOut`](Self::TimedOut) error of an item that had one attempt, for tests and for code that
    /// stands in for an executor.
    pub fn timed_out() -> Self {
        Self::TimedOut { scope: Scope::Item, last_error: None }
    }

    /// Which of the endings this is, without what it holds.
    pub fn kind(&self) -> SettledKind {
        match self {
            Self::Rejected(_) => SettledKind::Rejected,
            Self::Panicked(_) => SettledKind::Panicked,
            Self::TimedOut { .. } => SettledKind::TimedOut,
            Self::Cancelled { .. } => SettledKind::Cancelled,
        }
    }

    /// The error that the future returned, or else the last one that an attempt before the end
    /// returned.
    pub fn last_error(&self) -> Option<&E> {
        match self {
            Self::Rejected(error) => Some(error),
            Self::TimedOut { last_error, .. } | Self::Cancelled { last_error, .. } => {
                last_error.as_ref()
            }
            Self::Panicked(_) => None,
        }
    }

    /// The same with the item's own error changed.
    pub fn map<F>(self, change: impl FnOnce(E) -> F) -> ItemError<F> {
        match self {
            Self::Rejected(error) => ItemError::Rejected(change(error)),
            Self::Panicked(panic) => ItemError::Panicked(panic),
            Self::TimedOut { scope, last_error } => {
                ItemError::TimedOut { scope, last_error: last_error.map(change) }
            }
            Self::Cancelled { started, scope, last_error } => {
                ItemError::Cancelled { started, scope, last_error: last_error.map(change) }
            }
        }
    }
}

/// `rejected: …`, `panicked: …`, `timed out`, or `cancelled` with whether it had started; the last
/// two with the last error, if there was one.
impl<E: fmt::Display> fmt::Display for ItemError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last_error = match self {
            Self::Rejected(error) => return write!(f, "rejected: {error}"),
            Self::Panicked(panic) => return panic.fmt(f),
            Self::TimedOut { scope, last_error } => {
                f.write_str(match scope {
                    Scope::Attempt => "last attempt timed out",
                    Scope::Item => "timed out",
                    Scope::Batch => "batch timed out",
                })?;
                last_error
            }
            Self::Cancelled { started, last_error, .. } => {
                f.write_str(match started {
                    true => "cancelled while it ran",
                    false => "cancelled before it started",
                })?;
                last_error
            }
        };
        match last_error {
            Some(error) => write!(f, ", and before that: {error}"),
            None => Ok(()),
        }
    }
}

impl<E: Error> Error for ItemError<E> {
    /// What lies behind the item's own error, whose message is already part of this one's.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected(error) => error.source(),
            Self::TimedOut { last_error, .. } | Self::Cancelled { last_error, .. } => {
                last_error.as_ref().and_then(Error::source)
            }
            Self::Panicked(_) => None,
        }
    }
}
