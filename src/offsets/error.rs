use core::fmt;

/// Why a position was not tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrackError {
    /// `capacity` positions are incomplete, or the window beyond what is committed is full, or
    /// others wait. Only [`try_track`](super::OffsetTracker::try_track) says so.
    Full {
        /// How many positions may be incomplete.
        capacity: usize,
    },
    /// Positions of one epoch must increase strictly.
    NotIncreasing {
        /// The position that was handed in.
        position: u64,
        /// The last position that was tracked, skipped or committed.
        last: u64,
    },
    /// A new epoch began while this waited: its position is from before.
    NewEpoch,
    /// The tracker is closed.
    Closed,
}

impl fmt::Display for TrackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { capacity } => {
                write!(f, "the tracker is full: at most {capacity} positions may be incomplete")
            }
            Self::NotIncreasing { position, last } => {
                write!(f, "position {position} is not above {last}, the last one of this epoch")
            }
            Self::NewEpoch => f.write_str("a new epoch began while the position waited"),
            Self::Closed => f.write_str("the tracker is closed"),
        }
    }
}

impl std::error::Error for TrackError {}
