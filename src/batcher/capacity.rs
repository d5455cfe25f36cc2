//! The limits of a batcher, how much more may be accepted, and the waiters for it.

use std::task::Waker;
use std::time::Duration;

use super::wake::Wakes;
use crate::base::wait_list::{WaitList, WaiterId};

/// What one item takes up besides its place: its weight if that is limited, else zero.
pub(crate) type Weight = u32;

/// What the options of a batcher come to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_items: usize,
    /// `u64::MAX` if items are not weighed.
    pub(crate) max_weight: u64,
    pub(crate) window: Duration,
    pub(crate) eager_when_idle: bool,
    pub(crate) capacity: usize,
    pub(crate) capacity_weight: Option<u64>,
    pub(crate) concurrency: usize,
    /// How long an attempt may take.
    pub(crate) attempt_timeout: Option<Duration>,
    /// Whether a slot in the handler also takes a permit of a semaphore that is shared.
    pub(crate) shared: bool,
    /// Keys with an open batch; without meaning where there are none, as the next two.
    pub(crate) max_keys: usize,
    /// `usize::MAX` if it is not limited.
    pub(crate) capacity_per_key: usize,
    /// One batch of a key at a time.
    pub(crate) in_order: bool,
}

impl Limits {
    /// The room that an item of this weight takes up.
    #[inline]
    pub(crate) fn room_for(&self, weight: u64) -> Weight {
        // No item weighs more than a batch may, and that is at most the largest `Weight`.
        if self.capacity_weight.is_some() { weight as Weight } else { 0 }
    }
}

/// Room for items, by number and by weight. While a send waits there is no room for a new one, so
/// that none passes another.
pub(crate) struct Capacity {
    items: usize,
    weight: usize,
    waiters: WaitList<Weight>,
}

impl Capacity {
    pub(crate) fn new(items: usize, weight: usize) -> Self {
        Self { items, weight, waiters: WaitList::new() }
    }

    /// Whether there is room for one item and nobody waits.
    #[inline]
    pub(crate) fn fits(&self, weight: Weight) -> bool {
        self.items > 0 && weight as usize <= self.weight && self.waiters.is_empty()
    }

    /// Takes room for one item, if there is some and nobody waits.
    #[inline]
    pub(crate) fn take(&mut self, weight: Weight) -> bool {
        let fits = self.fits(weight);
        if fits {
            self.items -= 1;
            self.weight -= weight as usize;
        }
        fits
    }

    pub(crate) fn join(&mut self, weight: Weight, waker: Waker) -> WaiterId {
        self.waiters.push(weight, Some(waker))
    }

    /// The waker of a waiter; `None` once it was granted room.
    pub(crate) fn waker(&mut self, waiter: WaiterId) -> Option<&mut Waker> {
        self.waiters.get_mut(waiter)?.waker.as_mut()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Gives room back, and as much of it as can be to the waiters.
    pub(crate) fn give(&mut self, items: usize, weight: usize, wakes: &mut Wakes) {
        self.items += items;
        self.weight += weight;
        self.serve(wakes);
    }

    /// Serves the waiters from the first on, while there is room and `wakes` has.
    pub(crate) fn serve(&mut self, wakes: &mut Wakes) {
        while self.items > 0 && self.head_fits() {
            if wakes.senders_are_full() {
                return;
            }
            let Some(waiter) = self.waiters.pop_front() else { return };
            self.items -= 1;
            self.weight -= waiter.data as usize;
            waiter.waker.into_iter().for_each(|waker| wakes.sender(waker));
        }
    }

    #[inline]
    fn head_fits(&self) -> bool {
        self.waiters.head().is_some_and(|waiter| waiter.data as usize <= self.weight)
    }

    /// Sends all waiters away without room, while `wakes` has.
    pub(crate) fn dismiss(&mut self, wakes: &mut Wakes) {
        while !wakes.senders_are_full() {
            let Some(waiter) = self.waiters.pop_front() else { return };
            waiter.waker.into_iter().for_each(|waker| wakes.sender(waker));
        }
    }

    /// Takes a waiter out of the list, or gives back the room that it was granted.
    pub(crate) fn leave(&mut self, waiter: WaiterId, weight: Weight, wakes: &mut Wakes) {
        match self.waiters.remove(waiter) {
            Some(waiter) => {
                wakes.discard(waiter.waker);
                self.serve(wakes);
            }
            None => self.give(1, weight as usize, wakes),
        }
    }

    #[cfg(debug_assertions)]
    pub(crate) fn validate(&self) {
        self.waiters.validate();
    }
}
