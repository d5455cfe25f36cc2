use std::time::Duration;

/// Figures of a semaphore's waiting, since it was made: see
/// [`Semaphore::stats`](crate::Semaphore::stats).
///
/// A permit that is had without waiting is not counted, and so costs nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SemaphoreStats {
    /// How often somebody took a place in line.
    pub waits: u64,
    /// How many left it before they had their permits, or before they fetched them, other than
    /// because the semaphore was closed.
    pub cancellations: u64,
    /// The most that ever waited at once.
    pub peak_waiters: usize,
    /// How long they waited, if the semaphore was made by
    /// [`with_wait_times`](crate::Semaphore::with_wait_times).
    pub wait_times: Option<WaitTimes>,
}

/// How long those who were granted permits had stood in line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitTimes {
    /// All of them together.
    pub total: Duration,
    /// The longest of them.
    pub longest: Duration,
}

impl WaitTimes {
    pub(super) fn add(&mut self, waited: Duration) {
        self.total = self.total.saturating_add(waited);
        self.longest = self.longest.max(waited);
    }
}
