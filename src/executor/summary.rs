//! What there is to say of a run as a whole, beside its outcomes.

use core::fmt;

use crate::base::panic::Panic;
use crate::settled::SettledCounts;

/// Why a run ended.
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum BatchEnd {
    /// The source had no more inputs.
    #[default]
    Exhausted,
    /// The batch's time limit passed before it was done.
    TimedOut,
    /// It was stopped from outside before it was done.
    Stopped,
    /// As many items failed as were to stop it.
    TooManyFailures,
    /// The semaphore that it shared was closed.
    SemaphoreClosed,
    /// It was nested in an item of another batch on the same semaphore, and one of its own items would
    /// have taken more permits than that one held. Nothing more was started; what had been went on.
    ///
    /// Waiting for the rest would be a deadlock where other parents hold it and do the same. So give
    /// the outer item at least the weight of what runs in it, or the nested batch a
    /// [semaphore](super::BatchExecutorBuilder::semaphore) of its own.
    #[non_exhaustive]
    NestedTooHeavy {
        /// How many permits the item would have taken: its weight, or the semaphore's limit.
        weight: u32,
        /// How many the item around it held.
        permits: u32,
    },
    /// The source panicked. What had been pulled ran to its outcome.
    SourcePanicked(Panic),
}

impl BatchEnd {
    /// The same once more, of an end that is no panic.
    pub(super) fn of_stop(&self) -> Self {
        match self {
            Self::TimedOut => Self::TimedOut,
            Self::TooManyFailures => Self::TooManyFailures,
            Self::SemaphoreClosed => Self::SemaphoreClosed,
            _ => Self::Stopped,
        }
    }
}

impl fmt::Display for BatchEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted => f.write_str("exhausted"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Stopped => f.write_str("stopped"),
            Self::TooManyFailures => f.write_str("too many failures"),
            Self::SemaphoreClosed => f.write_str("semaphore closed"),
            Self::NestedTooHeavy { weight, permits } => write!(
                f,
                "an item that takes {weight} permits is nested in one that holds {permits} of the \
                 same semaphore: give the outer item that weight, or the nested batch another semaphore"
            ),
            Self::SourcePanicked(panic) => write!(f, "source {panic}"),
        }
    }
}

/// What a run came to, beside its outcomes: how many of each kind, and why it ended.
///
/// Each pulled input had exactly one outcome and went through the sink, so
/// [`pulled`](Self::pulled) is the sum of the [`counts`](Self::counts).
#[derive(Debug, Default)]
#[must_use = "it tells whether the input was exhausted, and holds the source's panic if not"]
pub struct BatchSummary {
    pub(super) counts: SettledCounts,
    pub(super) end: BatchEnd,
}

impl BatchSummary {
    /// How many outcomes there were of each kind.
    pub fn counts(&self) -> SettledCounts {
        self.counts
    }

    /// How many inputs were pulled.
    pub fn pulled(&self) -> usize {
        self.counts.total()
    }

    /// Why the run ended.
    pub fn end(&self) -> &BatchEnd {
        &self.end
    }

    /// Why the run ended, with the source's panic if that was it.
    pub fn into_end(self) -> BatchEnd {
        self.end
    }

    /// Whether the source was exhausted and every item fulfilled.
    pub fn is_complete(&self) -> bool {
        matches!(self.end, BatchEnd::Exhausted) && self.counts.all_fulfilled()
    }
}

/// The counts, and the end: `98 fulfilled, 2 rejected; exhausted`.
impl fmt::Display for BatchSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.counts, self.end)
    }
}
