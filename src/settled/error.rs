//! Every ending but success, as one error.

use core::fmt;
use std::error::Error;

use super::{Panic, Scope};

/// Why an item of a batch has no value: what [`Settled::into_result`](crate::Settled::into_result)
/// gives for every ending but success.
///
/// It holds what the outcome held, and turns back into it with `Settled::from`.
#[derive(Debug)]
#[non_exhaustive]
pub enum SettledError<E> {
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

pub(super) fn write_rejected(f: &mut fmt::Formatter<'_>, error: &impl fmt::Display) -> fmt::Result {
    write!(f, "rejected: {error}")
}

pub(super) fn write_timed_out(
    f: &mut fmt::Formatter<'_>,
    scope: Scope,
    last_error: Option<&impl fmt::Display>,
) -> fmt::Result {
    f.write_str(match scope {
        Scope::Attempt => "last attempt timed out",
        Scope::Item => "timed out",
        Scope::Batch => "batch timed out",
    })?;
    write_last(f, last_error)
}

pub(super) fn write_cancelled(
    f: &mut fmt::Formatter<'_>,
    started: bool,
    last_error: Option<&impl fmt::Display>,
) -> fmt::Result {
    f.write_str(if started { "cancelled while it ran" } else { "cancelled before it started" })?;
    write_last(f, last_error)
}

fn write_last(f: &mut fmt::Formatter<'_>, error: Option<&impl fmt::Display>) -> fmt::Result {
    match error {
        Some(error) => write!(f, ", and before that: {error}"),
        None => Ok(()),
    }
}

impl<E: fmt::Display> fmt::Display for SettledError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(error) => write_rejected(f, error),
            Self::Panicked(panic) => panic.fmt(f),
            Self::TimedOut { scope, last_error } => write_timed_out(f, *scope, last_error.as_ref()),
            Self::Cancelled { started, last_error, .. } => {
                write_cancelled(f, *started, last_error.as_ref())
            }
        }
    }
}

impl<E: Error> Error for SettledError<E> {
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
