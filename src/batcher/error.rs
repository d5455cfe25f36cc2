//! What a batcher refuses, and why a batch failed.

use core::fmt;
use core::time::Duration;
use std::error::Error;

use crate::Panic;
use crate::retry::GaveUp;

/// What the error of a handler becomes, of whatever type it is: what a [`Retry`](crate::Retry) is
/// [asked about](super::Builder::retry), and what a [`BatchError`] holds.
pub type HandlerError = Box<dyn Error + Send + Sync>;

/// The item was not accepted; here it is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError<T> {
    /// The batcher takes no more items.
    Closed(T),
    /// The item weighs more than a batch may.
    TooHeavy(T),
}

impl<T> SendError<T> {
    /// The item that was handed in.
    pub fn into_inner(self) -> T {
        match self {
            Self::Closed(item) | Self::TooHeavy(item) => item,
        }
    }

    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> SendError<U> {
        match self {
            Self::Closed(item) => SendError::Closed(f(item)),
            Self::TooHeavy(item) => SendError::TooHeavy(f(item)),
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(_) => f.write_str("Closed(..)"),
            Self::TooHeavy(_) => f.write_str("TooHeavy(..)"),
        }
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(_) => Closed.fmt(f),
            Self::TooHeavy(_) => f.write_str(TOO_HEAVY),
        }
    }
}

impl<T> Error for SendError<T> {}

const TOO_HEAVY: &str = "the item weighs more than `max_weight`, which is the most for a batch";

/// Not all of the items were accepted; those that were not are where they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendManyError {
    /// The batcher takes no more items.
    Closed,
    /// The first of the items that are left weighs more than a batch may.
    TooHeavy,
}

impl From<Closed> for SendManyError {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl fmt::Display for SendManyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => Closed.fmt(f),
            Self::TooHeavy => f.write_str(TOO_HEAVY),
        }
    }
}

impl Error for SendManyError {}

/// The item could not be accepted at once; here it is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrySendError<T> {
    /// As many items as the batcher's capacity are accepted and unfinished, or others wait in line.
    Full(T),
    /// The batcher takes no more items.
    Closed(T),
    /// The item weighs more than a batch may.
    TooHeavy(T),
}

impl<T> TrySendError<T> {
    /// The item that was handed in.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(item) | Self::Closed(item) | Self::TooHeavy(item) => item,
        }
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("Full(..)"),
            Self::Closed(_) => f.write_str("Closed(..)"),
            Self::TooHeavy(_) => f.write_str("TooHeavy(..)"),
        }
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the batcher is full: wait in line with `send`"),
            Self::Closed(_) => Closed.fmt(f),
            Self::TooHeavy(_) => f.write_str(TOO_HEAVY),
        }
    }
}

impl<T> Error for TrySendError<T> {}

/// The batcher takes no more items: it was shut down, or its driver is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the batcher is closed: it was shut down, or its driver is gone")
    }
}

impl Error for Closed {}

/// Why items came to the dead letter.
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchError {
    /// The handler gave up on the batch: its last attempt ended with `error`.
    #[non_exhaustive]
    Failed {
        /// What the last attempt ended with.
        error: HandlerError,
        /// How many attempts were made, the first counted.
        attempts: u32,
        /// Why there was no other.
        gave_up: GaveUp,
    },
    /// The handler panicked in its last attempt.
    #[non_exhaustive]
    Panicked {
        /// What the panic carried.
        panic: Panic,
        /// How many attempts were made, the first counted.
        attempts: u32,
        /// Why there was no other.
        gave_up: GaveUp,
    },
    /// The last attempt took longer than its [`Retry`](crate::Retry::attempt_timeout) allows, and the
    /// handler's future was dropped: the items may have been delivered or not.
    #[non_exhaustive]
    TimedOut {
        /// How long an attempt may take.
        limit: Duration,
        /// What the last attempt of the batch before it that returned an error returned.
        earlier: Option<HandlerError>,
        /// How many attempts were made, the first counted.
        attempts: u32,
        /// Why there was no other.
        gave_up: GaveUp,
    },
    /// The batcher stopped before the items were handed to the handler: its driver or runtime went
    /// away, or a shutdown gave them up and nobody waited for its report.
    Unsent,
    /// The batcher stopped while the handler held the items or before it was given them again:
    /// they may have been delivered or not.
    Indeterminate,
    /// A `KeyedBatcherSink` was dropped with an item that waited for room
    /// under its key. The batcher's figures do not count it.
    NeverAccepted,
}

impl BatchError {
    /// How many attempts ended before this, if the handler was given its full share of them.
    pub fn attempts(&self) -> Option<u32> {
        match self {
            Self::Failed { attempts, .. }
            | Self::Panicked { attempts, .. }
            | Self::TimedOut { attempts, .. } => Some(*attempts),
            Self::Unsent | Self::Indeterminate | Self::NeverAccepted => None,
        }
    }

    /// Why there was no other attempt, if the handler was given the items.
    pub fn gave_up(&self) -> Option<GaveUp> {
        match self {
            Self::Failed { gave_up, .. }
            | Self::Panicked { gave_up, .. }
            | Self::TimedOut { gave_up, .. } => Some(*gave_up),
            Self::Unsent | Self::Indeterminate | Self::NeverAccepted => None,
        }
    }

    /// The error that the handler returned last; `None` if it never returned one.
    pub fn last_error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        match self {
            Self::Failed { error, .. } => Some(&**error),
            Self::TimedOut { earlier, .. } => earlier.as_deref(),
            Self::Panicked { .. } | Self::Unsent | Self::Indeterminate | Self::NeverAccepted => {
                None
            }
        }
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { error, attempts, gave_up } => {
                write!(f, "the batch failed in attempt {attempts}, {gave_up}: {error}")
            }
            Self::Panicked { panic, attempts, gave_up } => {
                write!(f, "the handler failed in attempt {attempts}, {gave_up}: it {panic}")
            }
            Self::TimedOut { limit, earlier, attempts, gave_up } => {
                write!(f, "the batch timed out after {limit:?} in attempt {attempts}, {gave_up}")?;
                match earlier {
                    Some(error) => write!(f, "; before that: {error}"),
                    None => Ok(()),
                }
            }
            Self::Unsent => f.write_str("the batcher stopped before the items were handed over"),
            Self::Indeterminate => {
                f.write_str("the batcher stopped while the items were with its handler")
            }
            Self::NeverAccepted => {
                f.write_str("the sink was dropped before there was room for the item under its key")
            }
        }
    }
}

impl Error for BatchError {
    /// What lies behind the handler's error, whose message is already part of this one's.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.last_error().and_then(Error::source)
    }
}
