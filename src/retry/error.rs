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

/// No attempt succeeded, and there is no other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it holds the last error"]
pub struct RetryError<E> {
    /// The last error that an attempt returned; `None` if all of them timed out.
    pub last_error: Option<E>,
    /// How long the last attempt might have taken, if it timed out.
    pub timeout: Option<Duration>,
    /// How many attempts were made: at least 1.
    pub attempts: u32,
    /// Why there was no other attempt.
    pub gave_up: GaveUp,
}

impl<E: fmt::Display> fmt::Display for RetryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { last_error, timeout, attempts, gave_up } = self;
        let plural = if *attempts == 1 { "" } else { "s" };
        write!(f, "{attempts} attempt{plural} failed, {gave_up}")?;
        if let Some(timeout) = timeout {
            write!(f, ": timed out after {timeout:?}")?;
        }
        match last_error {
            None => Ok(()),
            Some(error) if timeout.is_some() => write!(f, ", and before that: {error}"),
            Some(error) => write!(f, ": {error}"),
        }
    }
}

impl<E: Error> Error for RetryError<E> {
    /// What lies behind the last error, whose message is already part of this one's.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.last_error.as_ref().and_then(Error::source)
    }
}
