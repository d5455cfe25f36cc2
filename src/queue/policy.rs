//! What a full queue does.

/// What the ordinary lane of a queue does with an item for which there is no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// A push waits; a `try_push` hands the item back.
    #[default]
    Wait,
    /// The item is handed back. It was never in the queue: readers do not learn of it.
    Reject,
    /// The item is handed back, and readers learn that one is missing here.
    DropNewest,
    /// The oldest item has to go, and more of them if its weight requires it.
    DropOldest,
    /// The oldest items have to go, so many at once, and more of them if its weight requires it.
    DropOldestShare {
        /// How many in a hundred of the items that are in the lane, rounded up: from 1 to 100.
        percent: u8,
    },
}

impl WhenFull {
    /// How many of so many items go at once, if the oldest go.
    pub(super) fn share(self, items: usize) -> Option<usize> {
        match self {
            Self::Wait | Self::Reject | Self::DropNewest => None,
            Self::DropOldest => Some(1),
            // In two steps, so that it does not overflow.
            Self::DropOldestShare { percent } => {
                let percent = usize::from(percent);
                Some(items / 100 * percent + (items % 100 * percent).div_ceil(100))
            }
        }
    }
}
