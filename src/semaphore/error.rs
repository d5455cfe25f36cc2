use core::fmt;

/// The semaphore was closed: no permits are given any more.
///
/// Returned by every waiting form of acquiring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcquireError(pub(super) ());

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("semaphore closed")
    }
}

impl std::error::Error for AcquireError {}

/// Why [`Semaphore::try_acquire`](crate::Semaphore::try_acquire) and its kin gave no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryAcquireError {
    /// The semaphore was closed: no permits are given any more.
    Closed,
    /// Fewer permits are free than were asked for, or there are waiters.
    NoPermits,
}

impl fmt::Display for TryAcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "semaphore closed",
            Self::NoPermits => "no permits available",
        })
    }
}

impl std::error::Error for TryAcquireError {}

/// Why a form of acquiring with a timeout or a deadline gave no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcquireTimeoutError {
    /// The semaphore was closed: no permits are given any more.
    Closed,
    /// The time was up. It left the wait list, and took nothing.
    Elapsed,
}

impl From<AcquireError> for AcquireTimeoutError {
    fn from(AcquireError(()): AcquireError) -> Self {
        Self::Closed
    }
}

impl fmt::Display for AcquireTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "semaphore closed",
            Self::Elapsed => "no permits became available in time",
        })
    }
}

impl std::error::Error for AcquireTimeoutError {}
