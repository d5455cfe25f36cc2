//! The kinds of endings, by name.

use core::fmt;

use super::Settled;

/// How an item ended, without what its outcome holds: see [`Settled`](crate::Settled).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SettledKind {
    /// Its future returned `Ok`.
    Fulfilled,
    /// Its future returned `Err`.
    Rejected,
    /// The closure, the key function, the weigher or the future panicked.
    Panicked,
    /// A time limit passed: its attempt's, its own, or the batch's deadline.
    TimedOut,
    /// The batch was stopped first, or its deadline passed before it started.
    Cancelled,
}

impl SettledKind {
    /// That of an outcome.
    ///
    /// ```
    /// use sluicegate::{ItemError, Settled, SettledKind};
    ///
    /// let outcome: Settled<u8, ()> = Err(ItemError::timed_out());
    /// assert_eq!(SettledKind::of(&outcome), SettledKind::TimedOut);
    /// ```
    pub fn of<T, E>(outcome: &Settled<T, E>) -> Self {
        outcome.as_ref().map_or_else(|error| error.kind(), |_| Self::Fulfilled)
    }
}

/// `fulfilled`, `rejected`, `panicked`, `timed out` or `cancelled`.
impl fmt::Display for SettledKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fulfilled => "fulfilled",
            Self::Rejected => "rejected",
            Self::Panicked => "panicked",
            Self::TimedOut => "timed out",
            Self::Cancelled => "cancelled",
        })
    }
}
