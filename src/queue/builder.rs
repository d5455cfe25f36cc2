//! The limits of a queue, checked when it is built.

use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};

use super::OverflowQueue;
use super::core::Core;
use super::lane::{Entry, Lane, Limits, MAX_WEIGHT};
use super::policy::WhenFull;
use crate::ConfigError;

/// Says what an item weighs.
pub(super) type Weigh<T> = dyn Fn(&T) -> u64 + Send + Sync;

/// Sets the limits of an [`OverflowQueue`] and builds it.
///
/// Made by [`OverflowQueue::builder`]. What is not set:
///
/// | | default | may be |
/// | --- | --- | --- |
/// | `capacity` | must be set | 1 to 4,294,967,295 items, if memory has addresses for them |
/// | `when_full` | [`WhenFull::Wait`] | a share from 1 to 100 percent |
/// | `max_weight` | items are not weighed | 1 to 9,223,372,036,854,775,807 (2⁶³ − 1) |
/// | `protected` | no such lane | as `capacity` |
/// | `protected_max_weight` | as `max_weight` | as `max_weight`, if there is that and the lane |
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

    /// The most ordinary items at once: from 1 to 4,294,967,295. Must be chosen.
    pub fn capacity(mut self, capacity: usize) -> Self {
        self.capacity = capacity;
        self
    }

    /// What is done with an ordinary item for which there is no room.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// The most weight of all ordinary items together, from 1 to 2⁶³ − 1, as `weigh` tells them. It
    /// is asked once about each item, protected ones too, when that is pushed and outside the
    /// queue's lock; an item may have 0.
    ///
    /// An item that weighs more than the whole lane may hold is refused before anything is
    /// displaced.
    pub fn max_weight(
        mut self,
        max_weight: u64,
        weigh: impl Fn(&T) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.max_weight = Some(max_weight);
        self.weigh = Some(Box::new(weigh));
        self
    }

    /// Adds a lane for items that are never displaced, with room for so many: from 1 to
    /// 4,294,967,295. Ordinary items take none of it, nor it any of theirs. A push to it waits
    /// while it is full; a `try_push` hands the item back.
    pub fn protected(mut self, capacity: usize) -> Self {
        self.protected = Some(capacity);
        self
    }

    /// The most weight of all protected items together, if that is to be another number than for
    /// the ordinary ones: from 1 to 2⁶³ − 1.
    pub fn protected_max_weight(mut self, max_weight: u64) -> Self {
        self.protected_max_weight = Some(max_weight);
        self
    }

    /// Builds the queue. The memory for its items is reserved now, for up to 65,536 items a lane;
    /// a larger queue grows when they come.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] if a limit is missing or is not what it may be, or if that memory is not to
    /// be had.
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
        // In these queues the ordinary items are those that arrived last.
        let plain = self.weigh.is_none()
            && self.protected.is_none()
            && self.when_full != WhenFull::DropNewest;
        let lane = |field, items, weight| {
            let expected = "no more than there is memory for";
            let lane = Lane::new(Limits { items, weight }, plain);
            lane.map_err(|_| ConfigError::new(field, items, expected))
        };
        let ordinary = lane("capacity", self.capacity, max_weight)?;
        let weight = self.protected_max_weight.unwrap_or(max_weight);
        let protected = self.protected.map(|items| lane("protected", items, weight)).transpose()?;
        Ok(OverflowQueue::over(Core::new(ordinary, protected, self.when_full), self.weigh))
    }
}

// Nothing of the caller's runs before it is built.
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
