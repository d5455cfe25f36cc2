//! The options of a queue, checked when it is built.

use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};

use super::OverflowQueue;
use super::core::Core;
use super::lane::{Entry, Lane, Limits, MAX_WEIGHT};
use crate::ConfigError;
use crate::base::sync::Mutex;

/// What the ordinary lane does with an item that does not fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// A push waits; a `try_push` hands the item back.
    #[default]
    Wait,
    /// The item is handed back. It was never in the queue: readers see no gap.
    Reject,
    /// The item is handed back, and readers learn of the gap.
    DropNewest,
    /// The oldest item is displaced, and more of them if the weight of the new one requires it.
    DropOldest,
    /// A share of the oldest items is displaced at once, and more of them if the weight of the new one
    /// requires it.
    DropOldestShare {
        /// The share of the lane's items, rounded up: from 1 to 100.
        percent: u8,
    },
}

impl WhenFull {
    /// How many of `items` are displaced at once, if the oldest are.
    pub(super) fn share(self, items: usize) -> usize {
        match self {
            // In two steps, so that it does not overflow.
            Self::DropOldestShare { percent } => {
                let percent = usize::from(percent);
                items / 100 * percent + (items % 100 * percent).div_ceil(100)
            }
            _ => 1,
        }
    }
}

/// The weight of an item.
pub(super) type Weigh<T> = dyn Fn(&T) -> u64 + Send + Sync;

/// Sets the limits of an [`OverflowQueue`] and builds it.
///
/// Made by [`OverflowQueue::builder`]. Defaults and bounds:
///
/// | | default | bounds |
/// | --- | --- | --- |
/// | `capacity` | must be set | 1 to 4,294,967,295 items that fit into the address space |
/// | `when_full` | [`WhenFull::Wait`] | a share from 1 to 100 percent |
/// | `max_weight` | items are not weighed | 1 to 9,223,372,036,854,775,807 (2⁶³ − 1) |
/// | `protected` | no protected lane | those of `capacity` |
/// | `protected_max_weight` | `max_weight` | those of `max_weight`; needs it and `protected` |
///
/// ```
/// use sluicegate::OverflowQueue;
/// use sluicegate::queue::WhenFull;
///
/// let queue: OverflowQueue<String> = OverflowQueue::builder()
///     .capacity(10_000)
///     .when_full(WhenFull::DropOldestShare { percent: 20 })
///     .max_weight(64 << 20, |text: &String| text.len() as u64)
///     .protected(1_000)
///     .build()?;
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct Builder<T> {
    capacity: usize,
    when_full: WhenFull,
    max_weight: Option<u64>,
    weigh: Option<Box<Weigh<T>>>,
    protected: Option<usize>,
    protected_max_weight: Option<u64>,
}

impl<T> Builder<T> {
    pub(super) fn new() -> Self {
        Self {
            capacity: 0,
            when_full: WhenFull::default(),
            max_weight: None,
            weigh: None,
            protected: None,
            protected_max_weight: None,
        }
    }

    /// The most ordinary items at once: from 1 to 4,294,967,295. Must be set.
    pub fn capacity(mut self, capacity: usize) -> Self {
        self.capacity = capacity;
        self
    }

    /// What a full queue does with an ordinary item.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// The most weight of all ordinary items together: from 1 to 2⁶³ − 1. `weigh` is called once per
    /// push, protected ones too, outside the queue's lock; it may return 0.
    ///
    /// An item that weighs more than its whole lane may hold is rejected before any item is displaced.
    pub fn max_weight(
        mut self,
        max_weight: u64,
        weigh: impl Fn(&T) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.max_weight = Some(max_weight);
        self.weigh = Some(Box::new(weigh));
        self
    }

    /// Adds a lane for at most `capacity` items that are never displaced: from 1 to 4,294,967,295. The
    /// lanes share no room. While this one is full, `push_protected` waits and `try_push_protected`
    /// hands the item back.
    pub fn protected(mut self, capacity: usize) -> Self {
        self.protected = Some(capacity);
        self
    }

    /// The most weight of all protected items together, if it differs from that of the ordinary ones:
    /// from 1 to 2⁶³ − 1.
    pub fn protected_max_weight(mut self, max_weight: u64) -> Self {
        self.protected_max_weight = Some(max_weight);
        self
    }

    /// Builds the queue and reserves the memory for up to 65,536 items per lane; a larger queue grows
    /// with its items.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] if a limit is missing or out of bounds, or if the memory cannot be reserved.
    pub fn build(self) -> Result<OverflowQueue<T>, ConfigError> {
        check_items::<T>("capacity", self.capacity)?;
        let max_weight = self.max_weight.unwrap_or(MAX_WEIGHT);
        check_weight("max_weight", max_weight)?;
        if let WhenFull::DropOldestShare { percent } = self.when_full {
            if !(1..=100).contains(&percent) {
                let expected = "a share of 1 to 100 percent";
                return Err(ConfigError::new("when_full", self.when_full, expected));
            }
        }
        if let Some(protected) = self.protected {
            check_items::<T>("protected", protected)?;
        }
        if let Some(weight) = self.protected_max_weight {
            check_weight("protected_max_weight", weight)?;
            if self.max_weight.is_none() || self.protected.is_none() {
                let expected = "chosen together with `max_weight` and `protected`";
                return Err(ConfigError::new("protected_max_weight", weight, expected));
            }
        }
        // Else the ordinary items are those that arrived last, and weigh nothing.
        let with_marks = self.weigh.is_some()
            || self.protected.is_some()
            || self.when_full == WhenFull::DropNewest;
        let lane = |field, items, weight| {
            let expected = "no more than there is memory for";
            let lane = Lane::new(Limits { items, weight }, with_marks);
            lane.map_err(|_| ConfigError::new(field, items, expected))
        };
        let ordinary = lane("capacity", self.capacity, max_weight)?;
        let weight = self.protected_max_weight.unwrap_or(max_weight);
        let protected = lane("protected", self.protected.unwrap_or(0), weight)?;
        let core = Core::new(ordinary, protected, self.when_full);
        Ok(OverflowQueue { core: Mutex::new(core), weigh: self.weigh })
    }
}

// It runs no user code.
impl<T> UnwindSafe for Builder<T> {}
impl<T> RefUnwindSafe for Builder<T> {}

fn check_items<T>(field: &'static str, items: usize) -> Result<(), ConfigError> {
    ConfigError::at_least_one(field, items)?;
    let most = isize::MAX as usize / size_of::<Entry<T>>() / 2;
    if items > most.min(u32::MAX as usize) {
        let expected = "at most 4294967295, and so many items must fit into the address space";
        return Err(ConfigError::new(field, items, expected));
    }
    Ok(())
}

fn check_weight(field: &'static str, weight: u64) -> Result<(), ConfigError> {
    if weight == 0 || weight > MAX_WEIGHT {
        let expected = "at least 1 and at most 9223372036854775807";
        return Err(ConfigError::new(field, weight, expected));
    }
    Ok(())
}

impl<T> fmt::Debug for Builder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("capacity", &self.capacity)
            .field("when_full", &self.when_full)
            .field("max_weight", &self.max_weight)
            .field("protected", &self.protected)
            .field("protected_max_weight", &self.protected_max_weight)
            .finish_non_exhaustive()
    }
}
