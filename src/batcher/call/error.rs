//! Why a call has no answer.

use core::fmt;
use std::error::Error;
use std::sync::Arc;

use crate::batcher::error::{BatchError, SendError};

/// There is no answer to an item.
///
/// The item comes back with it.
#[non_exhaustive]
pub enum CallError<T> {
    /// The item was not accepted.
    Refused(SendError<T>),
    /// The batch that the item was in failed for good, or the batcher stopped before it was
    /// finished; all callers of a batch share the reason.
    Failed {
        /// What was handed in.
        item: T,
        /// What became of the batch.
        error: Arc<BatchError>,
    },
    /// The handler was done with the item and had not answered it, or its holder dropped it.
    Unanswered(T),
    /// The handler answered its batch [in order](crate::batcher::Batch::reply_all), but not with one
    /// answer for each call: no call of the batch got any, since each could have got another's.
    #[non_exhaustive]
    CountMismatch {
        /// What was handed in.
        item: T,
        /// How many answers there were. Of an iterator that does not know its length, no more than
        /// one surplus answer is counted.
        answers: usize,
        /// How many calls there were.
        calls: usize,
    },
}

/// How many answers there were for how many calls, if these are not as many.
#[derive(Debug, Clone, Copy)]
pub(super) struct CountMismatch {
    pub(super) answers: usize,
    pub(super) calls: usize,
}

impl<T> CallError<T> {
    /// What was handed in.
    pub fn into_item(self) -> T {
        match self {
            Self::Refused(error) => error.into_inner(),
            Self::Failed { item, .. }
            | Self::Unanswered(item)
            | Self::CountMismatch { item, .. } => item,
        }
    }

    /// The same error with what `f` makes of the item.
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
