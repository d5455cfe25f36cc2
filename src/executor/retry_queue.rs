//! Items that may be tried again: the input of each for its next attempt, and those that wait.
//!
//! ```text
//!              pending                 failed, worth another
//!   attempt ◀─────────▶ attempt ────────────────────────────▶ backing off
//!      ▲                                                           │ due
//!      │                    a running item makes room              ▼
//!      └──────────────────────────────────────────────────────── ready
//! ```
//!
//! Time is an argument. An item that is cancelled while it backs off leaves its deadline behind, which
//! its serial number gives away.

use std::collections::VecDeque;
use std::time::Instant;

use crate::base::deadlines::{Deadline, Deadlines};
use crate::base::panic::quietly;
use crate::retry::RetryState;

/// An item that may be tried again.
pub(super) struct RetryItem<I, E> {
    /// For the next attempt, or the dead letters.
    pub(super) input: I,
    pub(super) state: RetryState<E>,
    /// How many have begun.
    pub(super) attempts: u32,
    /// Whether the item's own time limit counts already.
    pub(super) timed: bool,
    /// Of its latest attempt or backoff: unique in the run.
    serial: usize,
}

impl<I, E> RetryItem<I, E> {
    /// Drops it, one part after the other.
    pub(super) fn discard(self) {
        let Self { input, state, .. } = self;
        quietly(|| drop(input));
        state.discard();
    }
}

/// Empty in a run that does not retry.
pub(super) struct RetryQueue<I, E> {
    /// By slot.
    items: Vec<Option<RetryItem<I, E>>>,
    /// The input of an item that panicked on the fast path, for `settle`, and how many attempts it
    /// had.
    pub(super) fresh: Option<(I, u32)>,
    backing_off: Deadlines,
    ready: VecDeque<usize>,
    next_serial: usize,
}

impl<I, E> RetryQueue<I, E> {
    pub(super) fn new() -> Self {
        let (backing_off, ready) = (Deadlines::new(), VecDeque::new());
        Self { items: Vec::new(), fresh: None, backing_off, ready, next_serial: 0 }
    }

    /// Keeps the input of an item that is about to start in this slot.
    #[inline]
    pub(super) fn insert(&mut self, slot: usize, input: Option<I>) {
        let serial = self.serial();
        if self.items.len() <= slot {
            self.items.resize_with(slot + 1, || None);
        }
        self.items[slot] = input.map(|input| RetryItem {
            input,
            state: RetryState::new(),
            attempts: 1,
            timed: false,
            serial,
        });
    }

    /// Gives the item in this slot the `fresh` input.
    #[inline]
    pub(super) fn insert_fresh(&mut self, slot: usize) {
        let Some((input, attempts)) = self.fresh.take() else { return self.insert(slot, None) };
        self.insert(slot, Some(input));
        if let Some(item) = self.get(slot) {
            item.attempts = attempts;
        }
    }

    fn serial(&mut self) -> usize {
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        serial
    }

    #[inline]
    pub(super) fn get(&mut self, slot: usize) -> Option<&mut RetryItem<I, E>> {
        self.items.get_mut(slot)?.as_mut()
    }

    /// The item is gone.
    #[inline]
    pub(super) fn take(&mut self, slot: usize) -> Option<RetryItem<I, E>> {
        self.items.get_mut(slot)?.take()
    }

    /// Tells the attempt in this slot from earlier ones.
    pub(super) fn serial_at(&self, slot: usize) -> Option<usize> {
        Some(self.items.get(slot)?.as_ref()?.serial)
    }

    /// The next attempt begins.
    pub(super) fn begin(&mut self, slot: usize) -> Option<&mut RetryItem<I, E>> {
        let serial = self.serial();
        let item = self.items.get_mut(slot)?.as_mut()?;
        item.serial = serial;
        Some(item)
    }

    /// The item in this slot is tried again when it is due, or at once.
    pub(super) fn back_off(&mut self, slot: usize, due: Option<Instant>) {
        let Some(at) = due else { return self.ready.push_back(slot) };
        let stamp = self.serial();
        let Some(item) = self.get(slot) else { return };
        item.serial = stamp;
        let items = &self.items;
        self.backing_off
            .push(Deadline { at, slot, stamp }, items.len(), |known| is_live(items, known));
    }

    /// When the first deadline is due, whether its item still backs off or not.
    #[inline]
    pub(super) fn first_due(&self) -> Option<Instant> {
        self.backing_off.first_noted()
    }

    /// When the first of the items that back off is due.
    #[inline]
    pub(super) fn next_due(&mut self) -> Option<Instant> {
        let items = &self.items;
        self.backing_off.peek(|known| is_live(items, known)).map(|first| first.at)
    }

    /// Moves the items that are due to those that are ready.
    pub(super) fn take_due(&mut self, now: Instant) {
        let items = &self.items;
        while let Some(due) = self.backing_off.pop_due(now, |known| is_live(items, known)) {
            self.ready.push_back(due.slot);
        }
    }

    /// The first of those that are ready for another attempt.
    #[inline]
    pub(super) fn ready(&self) -> Option<usize> {
        self.ready.front().copied()
    }

    pub(super) fn take_ready(&mut self) {
        self.ready.pop_front();
    }

    /// The item in this slot ends while it backs off or is ready.
    pub(super) fn cancel(&mut self, slot: usize) {
        self.ready.retain(|ready| *ready != slot);
    }

    /// Panics unless each item that is ready is there, once.
    #[cfg(debug_assertions)]
    pub(super) fn validate(&self) {
        self.backing_off.validate(self.items.len());
        for (at, slot) in self.ready.iter().enumerate() {
            assert!(self.items[*slot].is_some(), "slot {slot} is ready and has no item");
            assert!(!self.ready.iter().skip(at + 1).any(|other| other == slot), "ready twice");
        }
    }

    pub(super) fn clear(&mut self) {
        self.ready.clear();
        self.backing_off.clear();
    }
}

/// Whether the item still backs off until this deadline.
fn is_live<I, E>(items: &[Option<RetryItem<I, E>>], deadline: &Deadline) -> bool {
    items[deadline.slot].as_ref().is_some_and(|item| item.serial == deadline.stamp)
}

/// The copies of inputs that a run still has when it is dropped.
impl<I, E> Drop for RetryQueue<I, E> {
    fn drop(&mut self) {
        let fresh = self.fresh.take();
        quietly(|| drop(fresh));
        for item in self.items.drain(..).flatten() {
            item.discard();
        }
    }
}
