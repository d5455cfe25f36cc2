//! What came of items that went through phases.

use core::fmt;
use core::time::Duration;
use std::error::Error;

use crate::settled::ItemError;

/// How an item failed, and in which phase.
#[derive(Debug)]
#[non_exhaustive]
pub struct PhaseError<E> {
    /// The name of the phase.
    pub phase: &'static str,
    /// How it failed there.
    pub error: ItemError<E>,
}

/// `create: rejected: …`.
impl<E: fmt::Display> fmt::Display for PhaseError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.phase, self.error)
    }
}

impl<E: Error> Error for PhaseError<E> {
    /// What lies behind the error, whose message is already part of this one's.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// How one phase went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PhaseReport {
    /// Its name.
    pub phase: &'static str,
    /// How many items entered it: those that had not failed before.
    pub entered: usize,
    /// How many came through.
    pub succeeded: usize,
    /// From its begin to its end; of the phases of a flow, that of the whole flow.
    pub elapsed: Duration,
}

impl PhaseReport {
    pub(super) fn new(
        phase: &'static str,
        entered: usize,
        succeeded: usize,
        elapsed: Duration,
    ) -> Self {
        Self { phase, entered, succeeded, elapsed }
    }

    /// How many failed in it.
    pub fn failed(&self) -> usize {
        self.entered - self.succeeded
    }
}

/// What came of items that went through phases.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "it holds the values and the failures"]
pub struct PhasesReport<V, E> {
    /// One an input, in input order: what the last phase returned, or in which phase it failed.
    pub outcomes: Vec<Result<V, PhaseError<E>>>,
    /// In order.
    pub phases: Vec<PhaseReport>,
    /// From the first phase's begin to now.
    pub elapsed: Duration,
}

impl<V, E> PhasesReport<V, E> {
    /// How many came through all phases.
    pub fn succeeded(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.is_ok()).count()
    }

    /// Those that failed, each with its index.
    pub fn failed(&self) -> impl Iterator<Item = (usize, &PhaseError<E>)> {
        let outcomes = self.outcomes.iter().enumerate();
        outcomes.filter_map(|(index, outcome)| Some((index, outcome.as_ref().err()?)))
    }

    /// Items that came through, a second.
    pub fn throughput(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.succeeded() as f64 / seconds } else { 0.0 }
    }
}
