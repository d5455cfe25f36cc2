//! The pipeline's equation: what was read is what left, by category.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The ways a line can end. Every line that is read ends in exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// Its row was written.
    Stored,
    /// At the end of the run it still waits for its parent.
    Waiting,
    /// A later arrival under the same parent pushed it out.
    Displaced,
    /// Its parent had been quiet for longest when the map of those waited for was full.
    Evicted,
    /// It waited for longer than the time to live.
    Expired,
    /// It was removed, itself or with its parent, while it waited.
    Cancelled,
    /// Its URI was stored or waiting already.
    Duplicate,
    /// A delete that removed something.
    Deleted,
    /// A delete that found nothing.
    DeleteUnknown,
    /// A kind of event that is not stored.
    Ignored,
    /// Not JSON, or short of what its kind needs.
    Malformed,
    /// It could not be written, after all retries.
    Failed,
    /// The run was interrupted, and the look-up of its author took longer than the grace.
    Abandoned,
    /// The source did not wait, and the queue in front of the workers was full.
    Dropped,
}

impl Category {
    /// All of them, in the order in which they are printed.
    pub const ALL: [Self; 14] = [
        Self::Stored,
        Self::Waiting,
        Self::Displaced,
        Self::Evicted,
        Self::Expired,
        Self::Cancelled,
        Self::Duplicate,
        Self::Deleted,
        Self::DeleteUnknown,
        Self::Ignored,
        Self::Malformed,
        Self::Failed,
        Self::Abandoned,
        Self::Dropped,
    ];

    /// Its name in the summary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Waiting => "waiting",
            Self::Displaced => "displaced",
            Self::Evicted => "evicted",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Duplicate => "duplicate",
            Self::Deleted => "deleted",
            Self::DeleteUnknown => "delete_unknown",
            Self::Ignored => "ignored",
            Self::Malformed => "malformed",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
            Self::Dropped => "dropped",
        }
    }
}

/// How many lines ended, by category. What is yet to be added to a count may be negative: a child
/// that is stored waits no longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts([i64; Category::ALL.len()]);

impl Counts {
    /// So many more ended this way.
    pub fn add(&mut self, category: Category, lines: i64) {
        self.0[category as usize] += lines;
    }

    /// So many ended this way.
    pub fn of(&self, category: Category) -> i64 {
        self.0[category as usize]
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let mut sum = *self;
        Category::ALL.into_iter().for_each(|category| sum.add(category, other.of(category)));
        sum
    }

    /// Lines that ended, in whatever way.
    pub fn sum(&self) -> i64 {
        self.0.iter().sum()
    }
}

/// How many of the first malformed lines are kept to be shown.
const SHOWN: usize = 5;

/// Counts every line once as it comes in and once as it leaves.
#[derive(Debug, Default)]
pub struct Tally {
    read: AtomicU64,
    left: [AtomicU64; Category::ALL.len()],
    malformed: Mutex<Vec<String>>,
    reason: Mutex<Option<String>>,
}

impl Tally {
    /// `lines` of them came in.
    pub fn read(&self, lines: u64) {
        self.read.fetch_add(lines, Ordering::Relaxed);
    }

    /// Lines that ended in earlier runs count for this one.
    pub fn go_on_from(&self, counts: &Counts) {
        self.read.fetch_add(counts.sum().try_into().unwrap_or(0), Ordering::Relaxed);
        self.count_all(counts);
    }

    /// All of these left.
    pub fn count_all(&self, counts: &Counts) {
        for category in Category::ALL {
            // Modulo 2^64, so that what is negative is subtracted.
            self.count(category, counts.of(category).cast_unsigned());
        }
    }

    /// `lines` of them left this way.
    pub fn count(&self, category: Category, lines: u64) {
        self.left[category as usize].fetch_add(lines, Ordering::Relaxed);
    }

    /// Why a line is malformed; the first few are remembered.
    pub fn malformed(&self, number: u64, why: &impl std::fmt::Display) {
        let mut shown = self.malformed.lock().unwrap();
        if shown.len() < SHOWN {
            shown.push(format!("line {number}: {why}"));
        }
    }

    /// Why something failed; the first reason is remembered.
    pub fn failure(&self, why: &impl std::fmt::Display) {
        self.reason.lock().unwrap().get_or_insert_with(|| why.to_string());
    }

    /// Lines that came in so far.
    pub fn lines_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Lines that left this way so far.
    pub fn of(&self, category: Category) -> u64 {
        self.left[category as usize].load(Ordering::Relaxed)
    }

    /// Lines that left so far, in whatever way.
    pub fn sum(&self) -> u64 {
        Category::ALL.into_iter().map(|category| self.of(category)).sum()
    }

    /// The first malformed lines, each with its number.
    pub fn first_malformed(&self) -> Vec<String> {
        self.malformed.lock().unwrap().clone()
    }

    /// Why the first line that failed did.
    pub fn first_failure(&self) -> Option<String> {
        self.reason.lock().unwrap().clone()
    }
}
