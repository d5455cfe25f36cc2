//! What came of trying.

use core::fmt;
use core::time::Duration;
use std::error::Error;

use super::GaveUp;

/// A value, and how many attempts it took: what [`Retry::run`](crate::Retry::run) returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it holds the value"]
pub struct Retried<T> {
    /// What the last attempt returned.
    pub value: T,
    /// How many attempts were made, the last included: at least 1.
    pub attempts: u32,
}

/// How an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptError<E> {
    /// It returned this error.
    Failed(E),
    /// It took longer than it may, and was dropped.
    TimedOut {
        /// How long it might have taken.
        timeout: Duration,
        /// The error of the last attempt before it that returned one.
        earlier: Option<E>,
    },
}

/// No attempt succeeded, and there is no other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it holds the last error"]
pub struct RetryError<E> {
    /// How the last attempt failed.
    pub last: AttemptError<E>,
    /// How many attempts were made: at least 1.
    pub attempts: u32,
    /// Why there was no other attempt.
    pub gave_up: GaveUp,
}

impl<E> RetryError<E> {
    /// The last error that an attempt returned; `None` if all of them timed out.
    pub fn last_error(&self) -> Option<&E> {
        match &self.last {
            AttemptError::Failed(error) => Some(error),
            AttemptError::TimedOut { earlier, .. } => earlier.as_ref(),
        }
    }

    /// The last error that an attempt returned, handed over; `None` if all of them timed out.
    pub fn into_last_error(self) -> Option<E> {
        match self.last {
            AttemptError::Failed(error) => Some(error),
            AttemptError::TimedOut { earlier, .. } => earlier,
        }
    }

    /// Whether the last attempt took longer than it may.
    pub fn timed_out(&self) -> bool {
        matches!(self.last, AttemptError::TimedOut { .. })
    }
}

impl<E: fmt::Display> fmt::Display for AttemptError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::TimedOut { timeout, earlier: None } => {
                write!(f, "timed out after {timeout:?}")
            }
            Self::TimedOut { timeout, earlier: Some(error) } => {
                write!(f, "timed out after {timeout:?}, and before that: {error}")
            }
        }
    }
}

impl<E: fmt::Display> fmt::Display for RetryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { last, attempts, gave_up } = self;
        let plural = if *attempts == 1 { "" } else { "s" };
        write!(f, "{attempts} attempt{plural} failed, {gave_up}: {last}")
    }
}

impl<E: Error> Error for RetryError<E> {
    /// What lies behind the last error, whose message is already part of this one's.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.last_error().and_then(Error::source)
    }
}

impl<E: Error> Error for AttemptError<E> {
    /// What lies behind the error, whose message is already part of this one's.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => error.source(),
            Self::TimedOut { earlier, .. } => earlier.as_ref().and_then(Error::source),
        }
    }
}
