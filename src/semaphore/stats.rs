use std::time::{Duration, Instant};

/// Figures about the waiters of a semaphore since it was made: see
/// [`Semaphore::stats`](crate::Semaphore::stats).
///
/// A permit acquired without waiting is not counted, and so costs nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SemaphoreStats {
    /// Waiters that ever joined the wait list.
    pub waits: u64,
    /// Waiters that left before they were granted permits, or before they fetched them, other than
    /// because the semaphore was closed.
    pub cancellations: u64,
    /// The largest number of waiters at any moment.
    pub peak_waiters: usize,
    /// How long waiters waited, if the semaphore was made by
    /// [`with_wait_times`](crate::Semaphore::with_wait_times).
    pub wait_times: Option<WaitTimes>,
}

/// How long the waiters that were granted permits had been in the wait list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitTimes {
    /// The sum over all of them.
    pub total: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl WaitTimes {
    #[cold]
    pub(super) fn add(&mut self, since: Option<Instant>) {
        let waited = since.map_or(Duration::ZERO, |since| since.elapsed());
        self.total = self.total.saturating_add(waited);
        self.longest = self.longest.max(waited);
    }
}
