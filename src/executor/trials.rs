//! What is known of items that may be tried more than once, and which of them wait for that.
//!
//! ```text
//!              pending                 failed, worth another
//!   attempt ◀─────────▶ attempt ────────────────────────────▶ resting
//!      ▲                                                         │ due
//!      │                     a place among those that run        ▼
//!      └────────────────────────────────────────────────────── ready
//! ```
//!
//! Time is an argument. What leaves while it rests leaves a note behind among those that are to come
//! due, which is told by its serial number; notes are cleared out when they may be half of all.

use core::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

use crate::base::panic::quietly;
use crate::retry::RetryState;

/// An item that may be tried again.
pub(super) struct Trial<I, E> {
    /// For the next attempt, or the dead letters.
    pub(super) input: I,
    pub(super) course: RetryState,
    /// That have begun.
    pub(super) attempts: u32,
    pub(super) last_error: Option<E>,
    /// Whether the item's own time limit counts already.
    pub(super) timed: bool,
    /// Of its latest attempt or rest, different from all others of the run.
    serial: usize,
}

impl<I, E> Trial<I, E> {
    /// Nobody needs it any more.
    pub(super) fn end(self) {
        let Self { input, course, last_error, .. } = self;
        quietly(|| drop(input));
        quietly(|| drop(course));
        quietly(|| drop(last_error));
    }
}

/// By place, for those that have one. Nothing for a run that does not retry.
pub(super) struct Trials<I, E> {
    trials: Vec<Option<Trial<I, E>>>,
    /// Left behind by an item that panicked on the short way, for whoever settles it.
    /// With how many attempts it had.
    pub(super) fresh: Option<(I, u32)>,
    resting: BinaryHeap<Reverse<(Instant, usize, usize)>>,
    ready: VecDeque<usize>,
    next_serial: usize,
}

impl<I, E> Trials<I, E> {
    pub(super) fn new() -> Self {
        let (trials, resting, ready) = (Vec::new(), BinaryHeap::new(), VecDeque::new());
        Self { trials, fresh: None, resting, ready, next_serial: 0 }
    }

    /// Notes the input of an item that is about to start at this place.
    #[inline]
    pub(super) fn open(&mut self, place: usize, input: Option<I>) {
        let serial = self.serial();
        if self.trials.len() <= place {
            self.trials.resize_with(place + 1, || None);
        }
        self.trials[place] = input.map(|input| Trial {
            input,
            course: RetryState::new(),
            attempts: 1,
            last_error: None,
            timed: false,
            serial,
        });
    }

    /// What was left behind is of the item at this place.
    #[inline]
    pub(super) fn open_fresh(&mut self, place: usize) {
        let Some((input, attempts)) = self.fresh.take() else { return self.open(place, None) };
        self.open(place, Some(input));
        if let Some(trial) = self.get(place) {
            trial.attempts = attempts;
        }
    }

    fn serial(&mut self) -> usize {
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        serial
    }

    #[inline]
    pub(super) fn get(&mut self, place: usize) -> Option<&mut Trial<I, E>> {
        self.trials.get_mut(place)?.as_mut()
    }

    /// The item is gone.
    #[inline]
    pub(super) fn take(&mut self, place: usize) -> Option<Trial<I, E>> {
        self.trials.get_mut(place)?.take()
    }

    /// Told apart from earlier attempts at the same place.
    pub(super) fn serial_at(&self, place: usize) -> Option<usize> {
        Some(self.trials.get(place)?.as_ref()?.serial)
    }

    /// The next attempt begins.
    pub(super) fn begin(&mut self, place: usize) -> Option<&mut Trial<I, E>> {
        let serial = self.serial();
        let trial = self.trials.get_mut(place)?.as_mut()?;
        trial.serial = serial;
        Some(trial)
    }

    /// The item at this place is to be tried again at once, or when it is due.
    pub(super) fn rest(&mut self, place: usize, due: Option<Instant>) {
        let Some(due) = due else { return self.ready.push_back(place) };
        let serial = self.serial();
        let Some(trial) = self.get(place) else { return };
        trial.serial = serial;
        if self.resting.len() >= 2 * self.trials.len() {
            let trials = &self.trials;
            self.resting.retain(|Reverse((_, serial, place))| {
                trials[*place].as_ref().is_some_and(|trial| trial.serial == *serial)
            });
        }
        self.resting.push(Reverse((due, serial, place)));
    }

    /// When the first of the notes is due, whether what it is of still rests or not.
    #[inline]
    pub(super) fn first_due(&self) -> Option<Instant> {
        self.resting.peek().map(|Reverse((due, ..))| *due)
    }

    /// When the first of those that rest is due.
    #[inline]
    pub(super) fn next_due(&mut self) -> Option<Instant> {
        while let Some(Reverse((due, serial, place))) = self.resting.peek() {
            if self.serial_at(*place) == Some(*serial) {
                return Some(*due);
            }
            self.resting.pop();
        }
        None
    }

    /// Moves on those that are due.
    pub(super) fn wake_due(&mut self, now: Instant) {
        while self.next_due().is_some_and(|due| due <= now) {
            if let Some(Reverse((_, _, place))) = self.resting.pop() {
                self.ready.push_back(place);
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

    /// The item at this place ends while it rests or is ready.
    pub(super) fn forget(&mut self, place: usize) {
        self.ready.retain(|ready| *ready != place);
    }

    pub(super) fn forget_all(&mut self) {
        self.ready.clear();
        self.resting.clear();
    }
}

/// The copies of inputs that a run still has when it is dropped.
impl<I, E> Drop for Trials<I, E> {
    fn drop(&mut self) {
        let fresh = self.fresh.take();
        quietly(|| drop(fresh));
        for trial in self.trials.drain(..).flatten() {
            trial.end();
        }
    }
}
