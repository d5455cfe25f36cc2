//! What went in and by which way it left.

/// Counts of everything a map was handed, by the way it left. Reading them costs nothing.
///
/// Each item is counted in exactly one place, so that at any moment
///
/// ```text
/// pushed = items + taken + displaced + evicted + rejected + expired + removed
/// ```
///
/// When the map is dropped, its observer gets these `items` as
/// [`Event::Dropped`](super::Event::Dropped).
///
/// Counts are of items unless they say otherwise, and start at zero when the map is built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct MapStats {
    /// Pushes of any kind, those refused included.
    pub pushed: u64,
    /// Resident now, those in a checkout included: at most `max_keys` x `max_items_per_key`.
    pub items: usize,
    /// Keys resident now, at most `max_keys`.
    pub keys: usize,
    /// What the resident items weigh together; 0 if they are not weighed.
    pub weight: u64,
    /// Handed over by `take` and `clear`, or acknowledged by a checkout.
    pub taken: u64,
    /// Pushed out by the cap of their own key, or by its shrinking.
    pub displaced: u64,
    /// Pushed out with their key, to make room for another, or by a shrinking of the map.
    pub evicted: u64,
    /// Handed back by the push itself.
    pub rejected: u64,
    /// Handed over by `expire`.
    pub expired: u64,
    /// Handed over by `remove_by_id`, `remove_if` and `retain`.
    pub removed: u64,
    /// Keys that were evicted; their items are counted in [`evicted`](Self::evicted).
    pub evicted_keys: u64,
    /// Those of [`rejected`](Self::rejected) whose id was resident.
    pub duplicates: u64,
    /// The most keys that were ever resident at once.
    pub peak_keys: usize,
    /// The most items that were ever resident at once.
    pub peak_items: usize,
}

/// The counts of a core that most pushes do not write to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) taken: u64,
    pub(super) evicted: u64,
    pub(super) rejected: u64,
    pub(super) expired: u64,
    pub(super) removed: u64,
    pub(super) evicted_keys: u64,
    pub(super) duplicates: u64,
    pub(super) peak_keys: usize,
    /// Taken before the number of items falls: the peak is this or the number of items.
    pub(super) peak_items: usize,
}

impl Counts {
    /// The statistics as far as they are counted here.
    pub(super) fn stats(self) -> MapStats {
        let Self { taken, evicted, rejected, expired, removed, .. } = self;
        let Self { evicted_keys, duplicates, peak_keys, peak_items, .. } = self;
        MapStats {
            taken,
            evicted,
            rejected,
            expired,
            removed,
            evicted_keys,
            duplicates,
            peak_keys,
            peak_items,
            ..MapStats::default()
        }
    }
}

impl MapStats {
    /// The sum over two shards.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            pushed: self.pushed + other.pushed,
            items: self.items + other.items,
            keys: self.keys + other.keys,
            weight: self.weight + other.weight,
            taken: self.taken + other.taken,
            displaced: self.displaced + other.displaced,
            evicted: self.evicted + other.evicted,
            rejected: self.rejected + other.rejected,
            expired: self.expired + other.expired,
            removed: self.removed + other.removed,
            evicted_keys: self.evicted_keys + other.evicted_keys,
            duplicates: self.duplicates + other.duplicates,
            // Peaks are not of one moment: together they can be more than there is memory for.
            peak_keys: self.peak_keys.saturating_add(other.peak_keys),
            peak_items: self.peak_items.saturating_add(other.peak_items),
        }
    }
}
