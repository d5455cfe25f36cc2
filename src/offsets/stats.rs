/// What has become of the positions of a tracker.
///
/// `tracked = completed + parked + fenced + incomplete`, at every moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct OffsetStats {
    /// Positions that were tracked.
    pub tracked: u64,
    /// Positions that were completed.
    pub completed: u64,
    /// Positions that were rejected: handled for good, though without success.
    pub parked: u64,
    /// Positions that were incomplete when a new epoch began.
    pub fenced: u64,
    /// Positions that are in work or await redelivery.
    pub incomplete: usize,
    /// Those of them that were released and have not been redelivered.
    pub awaiting_redelivery: usize,
    /// Positions beyond what is committed that take up room in the window.
    pub window_used: usize,
    /// Calls of `track` that wait.
    pub waiting: usize,
    /// How often a position was released.
    pub released: u64,
    /// How often a position was redelivered.
    pub redelivered: u64,
    /// Positions of a replay that were complete already.
    pub skipped: u64,
    /// Acknowledgements from before an epoch, which were ignored.
    pub late_acks: u64,
    /// Rejected positions that fell off the list of parked ones, because it was full.
    pub parked_unlisted: u64,
}
