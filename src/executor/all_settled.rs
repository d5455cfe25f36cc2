//! All outcomes of a batch, with what there is to say of it as a whole.

use core::fmt;
use core::ops::Deref;

use super::summary::{BatchEnd, BatchSummary};
use crate::settled::{NotAllFulfilled, Partition, Settled, all_fulfilled, partition};

/// All outcomes of a batch, in input order, and why the batch ended.
///
/// It is a list: it derefs to a slice, is indexed and iterated as one, and turns into a `Vec`. But
/// a list alone does not tell whether it is complete; [`end`](Self::end) does.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sluicegate::ConfigError> {
/// let executor = sluicegate::BatchExecutor::new(2)?;
/// let all = executor.all_settled(0..3, async |n| Ok::<_, ()>(n)).await;
/// assert!(all[2].is_ok() && all.summary().is_complete());
/// assert_eq!(all.to_string(), "3 fulfilled");
/// assert_eq!(all.into_iter().filter_map(|outcome| outcome.ok()).sum::<u32>(), 3);
/// # Ok(())
/// # }
/// ```
#[must_use = "outcomes that nobody looks at hide failures"]
pub struct AllSettled<T, E> {
    pub(super) outcomes: Vec<Settled<T, E>>,
    pub(super) summary: BatchSummary,
}

impl<T, E> AllSettled<T, E> {
    /// The counts, and why the batch ended.
    pub fn summary(&self) -> &BatchSummary {
        &self.summary
    }

    /// Why the batch ended: the source may have been exhausted or have panicked, or somebody may
    /// have stopped it.
    pub fn end(&self) -> &BatchEnd {
        self.summary.end()
    }

    /// All values in order, if every outcome is fulfilled.
    ///
    /// # Errors
    ///
    /// [`NotAllFulfilled`] if any outcome is a failure; it hands all of them back.
    pub fn all_fulfilled(self) -> Result<Vec<T>, NotAllFulfilled<T, E>> {
        all_fulfilled(self.outcomes)
    }

    /// The values and the failures, each with the index of its input.
    pub fn partition(self) -> Partition<T, E> {
        partition(self.outcomes)
    }

    /// The outcomes alone.
    pub fn into_vec(self) -> Vec<Settled<T, E>> {
        self.outcomes
    }

    /// The outcomes, and the summary with the source's panic if there was one.
    pub fn into_parts(self) -> (Vec<Settled<T, E>>, BatchSummary) {
        (self.outcomes, self.summary)
    }
}

impl<T, E> Deref for AllSettled<T, E> {
    type Target = [Settled<T, E>];

    fn deref(&self) -> &[Settled<T, E>] {
        &self.outcomes
    }
}

impl<T, E> IntoIterator for AllSettled<T, E> {
    type Item = Settled<T, E>;
    type IntoIter = std::vec::IntoIter<Settled<T, E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.outcomes.into_iter()
    }
}

impl<'a, T, E> IntoIterator for &'a AllSettled<T, E> {
    type Item = &'a Settled<T, E>;
    type IntoIter = core::slice::Iter<'a, Settled<T, E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.outcomes.iter()
    }
}

impl<T, E> From<AllSettled<T, E>> for Vec<Settled<T, E>> {
    fn from(all: AllSettled<T, E>) -> Self {
        all.outcomes
    }
}

/// How many outcomes there are of each kind: `98 fulfilled, 2 timed out`.
impl<T, E> fmt::Display for AllSettled<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.summary.counts().fmt(f)
    }
}

impl<T: fmt::Debug, E: fmt::Debug> fmt::Debug for AllSettled<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllSettled")
            .field("outcomes", &self.outcomes)
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}
