//! What survives a crash: how far everything is done, and what is done beyond.

use core::fmt;

/// A position up to which everything is complete or parked, with the payload that came with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Committed<P> {
    /// The position.
    pub position: u64,
    /// What was handed in with it.
    pub payload: P,
}

/// Positions in ascending, disjoint ranges, both ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds a range beyond all others; `adjoins` if no position lies between it and the last.
    pub(super) fn push(&mut self, first: u64, last: u64, adjoins: bool) {
        match self.0.last_mut() {
            Some((_, end)) if adjoins || end.checked_add(1) == Some(first) => *end = last,
            _ => self.0.push((first, last)),
        }
    }

    pub(super) fn contains(&self, position: u64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= position);
        after > 0 && position <= self.0[after - 1].1
    }

    /// What is in either, beyond `committed`.
    pub(super) fn merge(&self, other: &Self, committed: Option<u64>) -> Self {
        let mut all: Vec<(u64, u64)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut merged = Self::default();
        for (first, last) in all {
            let first = committed.map_or(first, |committed| first.max(committed.saturating_add(1)));
            match merged.0.last_mut() {
                _ if first > last || committed.is_some_and(|committed| last <= committed) => {}
                Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
                _ => merged.0.push((first, last)),
            }
        }
        merged
    }
}

/// How far a source is done: the position up to which everything is, and what is done beyond it.
///
/// Made by [`OffsetTracker::checkpoint`](super::OffsetTracker::checkpoint), to be stored together
/// with the effects of the work, and given to [`OffsetTracker::resume`](super::OffsetTracker::resume)
/// after a crash.
///
/// With the feature `serde` it is serialized as `{ committed: { position, payload } | null,
/// completed_beyond: [[first, last], ..], forgotten }`. One that cannot be right, with ranges that are
/// empty, overlap, are not in order or begin at or below what is committed, is an error and never a guess.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "serial::Raw<P>", into = "serial::Raw<P>"))]
#[cfg_attr(feature = "serde", serde(bound(serialize = "P: Copy + serde::Serialize")))]
#[cfg_attr(feature = "serde", serde(bound(deserialize = "P: serde::Deserialize<'de>")))]
pub struct Checkpoint<P> {
    committed: Option<Committed<P>>,
    ranges: Ranges,
    forgotten: usize,
}

impl<P> Checkpoint<P> {
    /// Keeps the lowest `max_ranges` ranges.
    pub(super) fn new(
        committed: Option<Committed<P>>,
        mut ranges: Ranges,
        max_ranges: usize,
    ) -> Self {
        let forgotten = ranges.0.len().saturating_sub(max_ranges);
        ranges.0.truncate(max_ranges);
        Self { committed, ranges, forgotten }
    }

    /// A checkpoint of the caller's own, for instance from a database that stores the parts.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] unless each range has its first position at or below its last, lies
    /// beyond the range before it, and lies beyond what is committed.
    pub fn from_parts(
        committed: Option<Committed<P>>,
        completed_beyond: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<Self, CheckpointError> {
        let ranges: Vec<(u64, u64)> = completed_beyond.into_iter().collect();
        let mut below = committed.as_ref().map(|committed| committed.position);
        for &(first, last) in &ranges {
            if first > last || below.is_some_and(|below| first <= below) {
                return Err(CheckpointError { first, last, below });
            }
            below = Some(last);
        }
        Ok(Self { committed, ranges: Ranges(ranges), forgotten: 0 })
    }

    /// The ranges of positions that are complete or parked beyond what is committed, first and last
    /// included, in ascending order.
    pub fn completed_beyond(&self) -> &[(u64, u64)] {
        &self.ranges.0
    }

    /// How many ranges there were beyond the bound. What is in them is done, and will be done again
    /// if the source is replayed from this checkpoint.
    pub fn forgotten(&self) -> usize {
        self.forgotten
    }

    pub(super) fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Whether a position is complete or parked.
    pub fn is_complete(&self, position: u64) -> bool {
        self.committed.as_ref().is_some_and(|committed| position <= committed.position)
            || self.ranges.contains(position)
    }
}

impl<P: Copy> Checkpoint<P> {
    /// The position up to which everything is complete or parked.
    pub fn committed(&self) -> Option<Committed<P>> {
        self.committed
    }
}

/// A checkpoint that cannot be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointError {
    first: u64,
    last: u64,
    below: Option<u64>,
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, below } = self;
        write!(f, "the completed range {first} to {last} of a checkpoint ")?;
        match below {
            _ if first > last => {
                f.write_str("is empty: its first position must not exceed its last")
            }
            Some(below) => write!(
                f,
                "begins at or below {below}: ranges must ascend, beyond what is committed"
            ),
            None => f.write_str("is out of order"),
        }
    }
}

impl std::error::Error for CheckpointError {}

#[cfg(feature = "serde")]
mod serial {
    use serde::{Deserialize, Serialize};

    use super::{Checkpoint, CheckpointError, Committed};

    #[derive(Serialize, Deserialize)]
    #[serde(rename = "Checkpoint", deny_unknown_fields)]
    pub(super) struct Raw<P> {
        committed: Option<RawCommitted<P>>,
        completed_beyond: Vec<(u64, u64)>,
        #[serde(default)]
        forgotten: usize,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename = "Committed", deny_unknown_fields)]
    struct RawCommitted<P> {
        position: u64,
        payload: P,
    }

    impl<P> TryFrom<Raw<P>> for Checkpoint<P> {
        type Error = CheckpointError;

        fn try_from(raw: Raw<P>) -> Result<Self, CheckpointError> {
            let committed = raw
                .committed
                .map(|RawCommitted { position, payload }| Committed { position, payload });
            let checkpoint = Self::from_parts(committed, raw.completed_beyond)?;
            Ok(Self { forgotten: raw.forgotten, ..checkpoint })
        }
    }

    impl<P: Copy> From<Checkpoint<P>> for Raw<P> {
        fn from(checkpoint: Checkpoint<P>) -> Self {
            let committed = checkpoint
                .committed
                .map(|Committed { position, payload }| RawCommitted { position, payload });
            Self {
                committed,
                completed_beyond: checkpoint.ranges.0,
                forgotten: checkpoint.forgotten,
            }
        }
    }
}
