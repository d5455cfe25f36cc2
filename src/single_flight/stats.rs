//! What became of calls and runs.

/// Counts of a [`SingleFlight`](crate::SingleFlight): see [`stats`](crate::SingleFlight::stats).
///
/// At any moment
///
/// ```text
/// started = completed + panicked + cancelled + runs in work
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SingleFlightStats {
    /// Calls that were polled.
    pub calls: u64,
    /// Those of [`calls`](Self::calls) that found a run of their key to share.
    pub shared: u64,
    /// Runs that were begun.
    pub started: u64,
    /// Runs that returned a value.
    pub completed: u64,
    /// Runs that panicked.
    pub panicked: u64,
    /// Runs that were begun and dropped, as all their callers had left.
    pub cancelled: u64,
    /// Runs that have a place now, at most `max_keys`.
    pub running: usize,
    /// Keys that wait for a place now.
    pub queued: usize,
    /// Calls that wait for an outcome, or have not fetched it yet.
    pub callers: usize,
}
