//! Whose end it was.

use core::fmt;

/// What came to its end: one attempt, the item with all its attempts, or the whole batch.
///
/// [`TimedOut`](crate::ItemError::TimedOut) and [`Cancelled`](crate::ItemError::Cancelled) tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// One attempt: the time limit of a [`Retry`](crate::Retry).
    Attempt,
    /// An item with all its attempts and the waits between them.
    Item,
    /// The batch: its deadline passed, or it was stopped.
    Batch,
}

/// `attempt`, `item` or `batch`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attempt => "attempt",
            Self::Item => "item",
            Self::Batch => "batch",
        })
    }
}
