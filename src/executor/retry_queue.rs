//! What is known of items that may be tried more than once, and which of them wait for that.
//!
//! ```text
//!              pending                 failed, worth another
//!   attempt ◀─────────▶ attempt ────────────────────────────▶ resting
//!      ▲                                                         │ due
//!      │                     a slot among those that run        ▼
//!      └────────────────────────────────────────────────────── ready
//! ```
//!
//! Time is an argument. What leaves while it rests leaves a note behind among those that are to come
//! due, which is told by its serial number; notes are cleared out when they may be half of all.

use core::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

use crate::base::panic::quietly;
use crate::retry::Course;

/// An item that may be tried again.
pub(super) struct RetryItem<I, E> {
    /// For the next attempt, or the dead letters.
    pub(super) input: I,
    pub(super) course: Course,
    /// That have begun.
    pub(super) attempts: u32,
    pub(super) last_error: Option<E>,
    /// Whether the item's own time limit counts already.
    pub(super) timed: bool,
    /// Of its latest attempt or rest, different from all others of the run.
    serial: usize,
}

impl<I, E> RetryItem<I, E> {
    /// Nobody needs it any more.
    pub(super) fn end(self) {
        let Self { input, course, last_error, .. } = self;
        quietly(|| drop(input));
        quietly(|| drop(course));
        quietly(|| drop(last_error));
    }
}

/// By slot, for those that have one. Nothing for a run that does not retry.
pub(super) struct RetryQueue<I, E> {
    retries: Vec<Option<RetryItem<I, E>>>,
    /// Left behind by an item that panicked on the fast path, for `settle`.
    /// With how many attempts it had.
    pub(super) fresh: Option<(I, u32)>,
    resting: BinaryHeap<Reverse<(Instant, usize, usize)>>,
    ready: VecDeque<usize>,
    next_serial: usize,
}

impl<I, E> RetryQueue<I, E> {
    pub(super) fn new() -> Self {
        let (retries, resting, ready) = (Vec::new(), BinaryHeap::new(), VecDeque::new());
        Self { retries, fresh: None, resting, ready, next_serial: 0 }
    }

    /// Notes the input of an item that is about to start in this slot.
    #[inline]
    pub(super) fn open(&mut self, slot: usize, input: Option<I>) {
        let serial = self.serial();
        if self.retries.len() <= slot {
            self.retries.resize_with(slot + 1, || None);
        }
        self.retries[slot] = input.map(|input| RetryItem {
            input,
            course: Course::new(),
            attempts: 1,
            last_error: None,
            timed: false,
            serial,
        });
    }

    /// What was left behind is of the item in this slot.
    #[inline]
    pub(super) fn open_fresh(&mut self, slot: usize) {
        let Some((input, attempts)) = self.fresh.take() else { return self.open(slot, None) };
        self.open(slot, Some(input));
        if let Some(retry_item) = self.get(slot) {
            retry_item.attempts = attempts;
        }
    }

    fn serial(&mut self) -> usize {
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        serial
    }

    #[inline]
    pub(super) fn get(&mut self, slot: usize) -> Option<&mut RetryItem<I, E>> {
        self.retries.get_mut(slot)?.as_mut()
    }

    /// The item is gone.
    #[inline]
    pub(super) fn take(&mut self, slot: usize) -> Option<RetryItem<I, E>> {
        self.retries.get_mut(slot)?.take()
    }

    /// Told apart from earlier attempts at the same slot.
    pub(super) fn serial_at(&self, slot: usize) -> Option<usize> {
        Some(self.retries.get(slot)?.as_ref()?.serial)
    }

    /// The next attempt begins.
    pub(super) fn begin(&mut self, slot: usize) -> Option<&mut RetryItem<I, E>> {
        let serial = self.serial();
        let retry_item = self.retries.get_mut(slot)?.as_mut()?;
        retry_item.serial = serial;
        Some(retry_item)
    }

    /// The item in this slot is to be tried again at once, or when it is due.
    pub(super) fn rest(&mut self, slot: usize, due: Option<Instant>) {
        let Some(due) = due else { return self.ready.push_back(slot) };
        let serial = self.serial();
        let Some(retry_item) = self.get(slot) else { return };
        retry_item.serial = serial;
        if self.resting.len() >= 2 * self.retries.len() {
            let retries = &self.retries;
            self.resting.retain(|Reverse((_, serial, slot))| {
                retries[*slot].as_ref().is_some_and(|retry_item| retry_item.serial == *serial)
            });
        }
        self.resting.push(Reverse((due, serial, slot)));
    }

    /// When the first of the notes is due, whether what it is of still rests or not.
    #[inline]
    pub(super) fn first_due(&self) -> Option<Instant> {
        self.resting.peek().map(|Reverse((due, ..))| *due)
    }

    /// When the first of those that rest is due.
    #[inline]
    pub(super) fn next_due(&mut self) -> Option<Instant> {
        while let Some(Reverse((due, serial, slot))) = self.resting.peek() {
            if self.serial_at(*slot) == Some(*serial) {
                return Some(*due);
            }
            self.resting.pop();
        }
        None
    }

    /// Moves on those that are due.
    pub(super) fn wake_due(&mut self, now: Instant) {
        while self.next_due().is_some_and(|due| due <= now) {
            if let Some(Reverse((_, _, slot))) = self.resting.pop() {
                self.ready.push_back(slot);
            }
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

    /// The item in this slot ends while it rests or is ready.
    pub(super) fn forget(&mut self, slot: usize) {
        self.ready.retain(|ready| *ready != slot);
    }

    pub(super) fn forget_all(&mut self) {
        self.ready.clear();
        self.resting.clear();
    }
}

/// The copies of inputs that a run still has when it is dropped.
impl<I, E> Drop for RetryQueue<I, E> {
    fn drop(&mut self) {
        let fresh = self.fresh.take();
        quietly(|| drop(fresh));
        for retry_item in self.retries.drain(..).flatten() {
            retry_item.end();
        }
    }
}
