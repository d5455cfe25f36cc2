//! Many outcomes together: counted, parted, or all fulfilled.

use core::fmt;
use std::error::Error;

use super::{ItemError, Settled, SettledKind};

/// How many outcomes there were of each kind.
///
/// ```
/// use sluicegate::{ItemError, SettledCounts};
///
/// let outcomes = [Ok(1), Err(ItemError::Rejected("no")), Ok(2)];
/// let counts: SettledCounts = outcomes.iter().collect();
/// assert_eq!(counts.to_string(), "2 fulfilled, 1 rejected");
/// assert_eq!((counts.total(), counts.failed()), (3, 1));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettledCounts {
    /// Items whose future returned `Ok`.
    pub fulfilled: usize,
    /// Items whose future returned `Err`.
    pub rejected: usize,
    /// Items that panicked.
    pub panicked: usize,
    /// Items whose own time limit passed.
    pub timed_out: usize,
    /// Items of which the batch was stopped first.
    pub cancelled: usize,
}

impl SettledCounts {
    /// Counts one more outcome.
    pub fn record<T, E>(&mut self, outcome: &Settled<T, E>) {
        *match SettledKind::of(outcome) {
            SettledKind::Fulfilled => &mut self.fulfilled,
            SettledKind::Rejected => &mut self.rejected,
            SettledKind::Panicked => &mut self.panicked,
            SettledKind::TimedOut => &mut self.timed_out,
            SettledKind::Cancelled => &mut self.cancelled,
        } += 1;
    }

    /// All outcomes counted.
    pub fn total(&self) -> usize {
        self.fulfilled + self.failed()
    }

    /// All outcomes counted but the fulfilled.
    pub fn failed(&self) -> usize {
        self.rejected + self.panicked + self.timed_out + self.cancelled
    }

    /// Whether nothing failed; true also of nothing at all.
    pub fn all_fulfilled(&self) -> bool {
        self.failed() == 0
    }
}

impl core::ops::AddAssign for SettledCounts {
    fn add_assign(&mut self, other: Self) {
        self.fulfilled += other.fulfilled;
        self.rejected += other.rejected;
        self.panicked += other.panicked;
        self.timed_out += other.timed_out;
        self.cancelled += other.cancelled;
    }
}

/// The fulfilled, and of the others those that there are: `98 fulfilled, 2 timed out`.
impl fmt::Display for SettledCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fulfilled", self.fulfilled)?;
        let failures = [
            (self.rejected, "rejected"),
            (self.panicked, "panicked"),
            (self.timed_out, "timed out"),
            (self.cancelled, "cancelled"),
        ];
        for (count, kind) in failures {
            if count > 0 {
                write!(f, ", {count} {kind}")?;
            }
        }
        Ok(())
    }
}

impl<'a, T: 'a, E: 'a> Extend<&'a Settled<T, E>> for SettledCounts {
    fn extend<I: IntoIterator<Item = &'a Settled<T, E>>>(&mut self, outcomes: I) {
        for outcome in outcomes {
            self.record(outcome);
        }
    }
}

impl<'a, T: 'a, E: 'a> FromIterator<&'a Settled<T, E>> for SettledCounts {
    fn from_iter<I: IntoIterator<Item = &'a Settled<T, E>>>(outcomes: I) -> Self {
        let mut counts = Self::default();
        counts.extend(outcomes);
        counts
    }
}

/// The outcomes of a batch in two heaps, each with the index of its input, in input order.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "the failed half is easily forgotten"]
pub struct Partition<T, E> {
    /// The values, each with the index of its input.
    pub fulfilled: Vec<(usize, T)>,
    /// The failures, each with the index of its input.
    pub failed: Vec<(usize, ItemError<E>)>,
}

/// Parts outcomes into values and failures.
///
/// ```
/// use sluicegate::{ItemError, partition};
///
/// let parted = partition([Err(ItemError::Rejected("no")), Ok(2)]);
/// assert_eq!(parted.fulfilled, [(1, 2)]);
/// assert_eq!(parted.failed[0].0, 0);
/// ```
pub fn partition<T, E>(outcomes: impl IntoIterator<Item = Settled<T, E>>) -> Partition<T, E> {
    let mut parted = Partition { fulfilled: Vec::new(), failed: Vec::new() };
    for (index, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(value) => parted.fulfilled.push((index, value)),
            Err(error) => parted.failed.push((index, error)),
        }
    }
    parted
}

/// All values in order, if every outcome is fulfilled: `Promise.all`, asked afterwards.
///
/// # Errors
///
/// [`NotAllFulfilled`] if any outcome is a failure; it hands all of them back. Where the first failure
/// is enough, `collect` into a `Result`.
///
/// ```
/// use sluicegate::{ItemError, all_fulfilled};
///
/// let all = all_fulfilled::<_, &str>([Ok(1), Ok(2)]);
/// assert_eq!(all.unwrap(), [1, 2]);
///
/// let error = all_fulfilled([Ok(1), Err(ItemError::Rejected("no"))]).unwrap_err();
/// assert_eq!(error.to_string(), "1 of 2 items failed, item 1 first: rejected: no");
/// assert_eq!(error.into_outcomes().len(), 2);
/// ```
pub fn all_fulfilled<T, E>(
    outcomes: impl IntoIterator<Item = Settled<T, E>>,
) -> Result<Vec<T>, NotAllFulfilled<T, E>> {
    let mut outcomes = outcomes.into_iter();
    let mut values = Vec::with_capacity(outcomes.size_hint().0);
    while let Some(outcome) = outcomes.next() {
        match outcome {
            Ok(value) => values.push(value),
            Err(failed) => {
                let first = values.len();
                let mut all: Vec<_> = values.into_iter().map(Ok).collect();
                all.push(Err(failed));
                all.extend(outcomes);
                return Err(NotAllFulfilled { outcomes: all, first });
            }
        }
    }
    Ok(values)
}

/// Some of the outcomes are failures; here they all are.
#[derive(Debug)]
#[must_use = "it holds every outcome, also the fulfilled"]
pub struct NotAllFulfilled<T, E> {
    outcomes: Vec<Settled<T, E>>,
    first: usize,
}

impl<T, E> NotAllFulfilled<T, E> {
    /// All outcomes, in input order.
    pub fn outcomes(&self) -> &[Settled<T, E>] {
        &self.outcomes
    }

    /// All outcomes, in input order, handed back.
    pub fn into_outcomes(self) -> Vec<Settled<T, E>> {
        self.outcomes
    }

    /// The index of the first failure.
    pub fn first_failure(&self) -> usize {
        self.first
    }

    /// How many outcomes there are of each kind.
    ///
    /// # Complexity
    ///
    /// Linear in the number of outcomes.
    pub fn counts(&self) -> SettledCounts {
        self.outcomes.iter().collect()
    }
}

impl<T, E: fmt::Display> fmt::Display for NotAllFulfilled<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (counts, first) = (self.counts(), self.first);
        write!(f, "{} of {} items failed, item {first} first", counts.failed(), counts.total())?;
        match &self.outcomes[first] {
            Ok(_) => Ok(()),
            Err(error) => write!(f, ": {error}"),
        }
    }
}

impl<T: fmt::Debug, E: Error> Error for NotAllFulfilled<T, E> {
    /// What lies behind the first failure, if that is an error, whose message is already part of
    /// this one's.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.outcomes[self.first].as_ref().err().and_then(Error::source)
    }
}
