//! The time limits of a run, on one timer however many items run.

use core::task::Context;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::deadlines::{self, Deadlines};
use crate::base::sync::Mutex;
use crate::base::timer::{Timer, now};

/// Time limits, as the builder takes them. Without the feature `tokio` there are none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TimeLimits {
    pub(super) item: Option<Duration>,
    pub(super) batch: Option<Duration>,
}

/// The end of a batch that has a timeout. All runs of the batch share it; the first poll of any of
/// them fixes it.
#[derive(Clone)]
pub(super) struct BatchDeadline(Option<Arc<Shared>>);

struct Shared {
    timeout: Duration,
    at: Mutex<Option<Instant>>,
}

impl BatchDeadline {
    pub(super) fn new(limits: TimeLimits) -> Self {
        Self(limits.batch.map(|timeout| Arc::new(Shared { timeout, at: Mutex::new(None) })))
    }

    /// Fixes the deadline, if no other run of the batch has.
    fn begin(&self) -> Option<Instant> {
        let shared = self.0.as_ref()?;
        let now = now();
        Some(*shared.at.lock().get_or_insert(now + shared.timeout))
    }

    /// Reads the clock only if there is a deadline.
    pub(super) fn has_passed(&self) -> bool {
        let at = self.0.as_ref().and_then(|shared| *shared.at.lock());
        at.is_some_and(|at| at <= now())
    }
}

/// What has run out of time.
pub(super) enum Overdue {
    /// The attempt in this slot.
    Attempt(usize),
    /// The item in this slot.
    Item(usize),
    /// The `alarm` of the run.
    Alarm,
    Batch,
}

/// Slots whose time is limited, all by the same timeout.
struct Timed {
    timeout: Duration,
    deadlines: Deadlines,
}

impl Timed {
    fn new(timeout: Duration) -> Self {
        Self { timeout, deadlines: Deadlines::new() }
    }

    fn start(
        &mut self,
        slot: usize,
        stamp: usize,
        slots: usize,
        is_live: impl Fn(usize, usize) -> bool,
    ) {
        let deadline = deadlines::Deadline { at: now() + self.timeout, slot, stamp };
        self.deadlines.push(deadline, slots, |known| is_live(known.slot, known.stamp));
    }

    fn next_due(&mut self, is_live: impl Fn(usize, usize) -> bool) -> Option<Instant> {
        self.deadlines.peek(|known| is_live(known.slot, known.stamp)).map(|first| first.at)
    }

    fn take_due(
        &mut self,
        now: Instant,
        is_live: impl Fn(usize, usize) -> bool,
    ) -> Option<deadlines::Deadline> {
        self.deadlines.pop_due(now, |known| is_live(known.slot, known.stamp))
    }
}

/// Neither reads the clock nor needs a runtime unless there is a limit to keep.
pub(super) struct Limits {
    attempts: Option<Timed>,
    items: Option<Timed>,
    deadline: BatchDeadline,
    /// The batch's deadline: known from the first poll, until it was reported.
    batch_due: Option<Instant>,
    has_begun: bool,
    has_limits: bool,
    timer: Timer,
}

impl Limits {
    pub(super) fn new(
        limits: TimeLimits,
        deadline: BatchDeadline,
        attempt: Option<Duration>,
    ) -> Self {
        Self {
            attempts: attempt.map(Timed::new),
            items: limits.item.map(Timed::new),
            deadline,
            batch_due: None,
            has_begun: false,
            has_limits: attempt.or(limits.item).or(limits.batch).is_some(),
            timer: Timer::new(),
        }
    }

    /// The run is being polled: the batch's timeout counts from the first time.
    pub(super) fn begin(&mut self) {
        if !core::mem::replace(&mut self.has_begun, true) {
            self.batch_due = self.deadline.begin();
        }
    }

    /// Whether any limit is set.
    #[inline]
    pub(super) fn has_limits(&self) -> bool {
        self.has_limits
    }

    /// Whether a limit may have passed, or the `alarm` is due. Called between two items; reads the
    /// clock only if there is something to wait for.
    #[inline]
    pub(super) fn may_be_due(&self, alarm: Option<Instant>) -> bool {
        (self.has_limits || alarm.is_some()) && self.is_due(alarm)
    }

    fn is_due(&self, alarm: Option<Instant>) -> bool {
        let noted = |timed: &Option<Timed>| timed.as_ref()?.deadlines.first_noted();
        let due = [noted(&self.items), noted(&self.attempts), self.batch_due, alarm];
        due.into_iter().flatten().min().is_some_and(|due| due <= now())
    }

    /// Whether the batch's deadline has passed. Reads the clock only if there is one.
    #[inline]
    pub(super) fn is_batch_due(&self) -> bool {
        self.batch_due.is_some_and(|due| due <= now())
    }

    /// Whether the batch's deadline will have passed by `when`.
    pub(super) fn is_past_the_deadline(&self, when: Instant) -> bool {
        self.batch_due.is_some_and(|due| when >= due)
    }

    /// The item with this index was polled for the first time, and is pending.
    #[inline]
    pub(super) fn item_started(
        &mut self,
        slot: usize,
        index: usize,
        slots: usize,
        runs: impl Fn(usize, usize) -> bool,
    ) {
        if let Some(items) = &mut self.items {
            items.start(slot, index, slots, runs);
        }
    }

    /// The same of an attempt with this serial number.
    #[inline]
    pub(super) fn attempt_started(
        &mut self,
        slot: usize,
        serial: usize,
        slots: usize,
        tries: impl Fn(usize, usize) -> bool,
    ) {
        if let Some(attempts) = &mut self.attempts {
            attempts.start(slot, serial, slots, tries);
        }
    }

    /// What is overdue, the earliest first. If nothing is, the timer wakes the run when that
    /// changes.
    pub(super) fn poll_overdue(
        &mut self,
        cx: &mut Context<'_>,
        alarm: Option<Instant>,
        runs: impl Fn(usize, usize) -> bool,
        tries: impl Fn(usize, usize) -> bool,
    ) -> Option<Overdue> {
        loop {
            let item = self.items.as_mut().and_then(|items| items.next_due(&runs));
            let attempt = self.attempts.as_mut().and_then(|attempts| attempts.next_due(&tries));
            let due = [attempt, item, alarm, self.batch_due].into_iter().flatten().min()?;
            let now = now();
            if due > now {
                if self.timer.poll(Some(due), cx).is_pending() {
                    return None;
                }
                continue;
            }
            if item == Some(due) {
                let item = self.items.as_mut()?.take_due(now, &runs);
                return item.map(|item| Overdue::Item(item.slot));
            }
            if attempt == Some(due) {
                let attempt = self.attempts.as_mut()?.take_due(now, &tries);
                return attempt.map(|attempt| Overdue::Attempt(attempt.slot));
            }
            if alarm == Some(due) {
                return Some(Overdue::Alarm);
            }
            self.batch_due = None;
            return Some(Overdue::Batch);
        }
    }
}
