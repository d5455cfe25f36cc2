//! Why a call has no answer.

use core::fmt;
use std::error::Error;
use std::sync::Arc;

use crate::batcher::error::{BatchError, SendError};

/// Why a call has no answer; its item comes back with the error.
#[non_exhaustive]
pub enum CallError<T> {
    /// The item was not accepted.
    Refused(SendError<T>),
    /// The batch of the item failed for good, or the batcher stopped before the batch was finished. All
    /// callers of a batch share the reason.
    Failed {
        /// The item.
        item: T,
        /// What happened to the batch.
        error: Arc<BatchError>,
    },
    /// The handler finished the item without answering it, or the call was dropped.
    Unanswered(T),
    /// The handler answered its batch [in order](crate::batcher::Batch::reply_all), but not with exactly
    /// one answer per call: no call of the batch gets one, since it could be the answer to another.
    #[non_exhaustive]
    CountMismatch {
        /// The item.
        item: T,
        /// The number of answers. If the iterator does not know its length, at most one surplus answer
        /// is counted.
        answers: usize,
        /// The number of calls.
        calls: usize,
    },
}

/// Two numbers that should be equal.
#[derive(Debug, Clone, Copy)]
pub(super) struct CountMismatch {
    pub(super) answers: usize,
    pub(super) calls: usize,
}

impl<T> CallError<T> {
    /// The item, with its key if it was sent under one.
    pub fn into_item(self) -> T {
        match self {
            Self::Refused(error) => error.into_inner(),
            Self::Failed { item, .. }
            | Self::Unanswered(item)
            | Self::CountMismatch { item, .. } => item,
        }
    }

    /// The same error with its item changed by `f`.
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> CallError<U> {
        match self {
            Self::Refused(error) => CallError::Refused(error.map(f)),
            Self::Failed { item, error } => CallError::Failed { item: f(item), error },
            Self::Unanswered(item) => CallError::Unanswered(f(item)),
            Self::CountMismatch { item, answers, calls } => {
                CallError::CountMismatch { item: f(item), answers, calls }
            }
        }
    }
}

impl<T> fmt::Debug for CallError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => f.debug_tuple("Refused").field(error).finish(),
            Self::Failed { error, .. } => f.debug_tuple("Failed").field(error).finish(),
            Self::Unanswered(_) => f.write_str("Unanswered(..)"),
            Self::CountMismatch { answers, calls, .. } => {
                write!(f, "CountMismatch({answers} answers, {calls} calls)")
            }
        }
    }
}

impl<T> fmt::Display for CallError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Failed { error, .. } => error.fmt(f),
            Self::Unanswered(_) => f.write_str("the handler did not answer the item"),
            Self::CountMismatch { answers, calls, .. } => write!(
                f,
                "the handler gave {answers} answers for {calls} calls: `reply_all` takes one for each"
            ),
        }
    }
}

impl<T> Error for CallError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed { error, .. } => error.source(),
            Self::Refused(_) | Self::Unanswered(_) | Self::CountMismatch { .. } => None,
        }
    }
}
