//! The time limits of a run: tokio's clock and one timer, however many items run.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;
use std::time::Duration;

#[cfg(not(loom))]
use tokio::time;

#[cfg(loom)]
use super::model as time;
use crate::base::sync::Mutex;
use crate::timeline::{Started, Timeline};
use time::{Instant, Sleep};

/// Time limits, as the builder takes them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TimeLimits {
    pub(super) item: Option<Duration>,
    pub(super) batch: Option<Duration>,
}

/// When a batch has to end. All runs of the batch share it, and the first poll of any of them starts
/// it.
#[derive(Clone)]
pub(super) struct Deadline(Option<Arc<Countdown>>);

struct Countdown {
    limit: Duration,
    due: Mutex<Option<Instant>>,
}

impl Deadline {
    pub(super) fn new(limits: TimeLimits) -> Self {
        Self(limits.batch.map(|limit| Arc::new(Countdown { limit, due: Mutex::new(None) })))
    }

    /// Starts it if that has not been done. When it is due, if there is one.
    fn start(&self) -> Option<Instant> {
        let countdown = self.0.as_ref()?;
        let now = Instant::now();
        Some(*countdown.due.lock().get_or_insert(now + countdown.limit))
    }

    /// Reads the clock if there is a deadline, and only then.
    pub(super) fn has_passed(&self) -> bool {
        let due = self.0.as_ref().and_then(|countdown| *countdown.due.lock());
        due.is_some_and(|due| due <= Instant::now())
    }
}

/// What has run out of time.
pub(super) enum Overdue {
    Attempt(usize),
    Item(usize),
    /// Something that the run had set the alarm for.
    Alarm,
    Batch,
}

/// Neither reads the time nor needs a runtime unless there is a limit to keep.
pub(super) struct Clock {
    attempts: Option<Timeline>,
    timeline: Option<Timeline>,
    deadline: Deadline,
    /// When the batch is due: known from the first poll, until it has been told.
    batch_due: Option<Instant>,
    wound: bool,
    /// Whether there is any limit, so that the clock is looked at between items.
    has_limits: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    pub(super) fn new(limits: TimeLimits, deadline: Deadline, attempt: Option<Duration>) -> Self {
        let attempts = attempt.map(Timeline::new);
        let timeline = limits.item.map(Timeline::new);
        let has_limits = attempts.is_some() || timeline.is_some() || limits.batch.is_some();
        let (batch_due, wound, timer) = (None, false, None);
        Self { attempts, timeline, deadline, batch_due, wound, has_limits, timer }
    }

    /// What the clock says.
    pub(super) fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }

    /// The run is being polled.
    pub(super) fn begin(&mut self) {
        if !core::mem::replace(&mut self.wound, true) {
            self.batch_due = self.deadline.start();
        }
    }

    /// Whether something may have run out of time, or the `alarm` is due: to be asked between two
    /// items. Reads the clock only if there is something to wait for.
    #[inline]
    pub(super) fn may_be_due(&self, alarm: Option<std::time::Instant>) -> bool {
        (self.has_limits || alarm.is_some()) && self.is_due(alarm)
    }

    fn is_due(&self, alarm: Option<std::time::Instant>) -> bool {
        let item = self.timeline.as_ref().and_then(Timeline::first_due);
        let attempt = self.attempts.as_ref().and_then(Timeline::first_due);
        let batch = self.batch_due.map(Instant::into_std);
        let due = [item, attempt, batch, alarm].into_iter().flatten().min();
        due.is_some_and(|due| due <= self.now())
    }

    /// Whether the batch's time is up. Reads the clock if there is a deadline, and only then.
    #[inline]
    pub(super) fn is_batch_due(&self) -> bool {
        self.batch_due.is_some_and(|due| due <= Instant::now())
    }

    /// An item has been polled for the first time, and is pending.
    #[inline]
    pub(super) fn item_started(
        &mut self,
        slot: usize,
        index: usize,
        slots: usize,
        runs: impl Fn(usize, usize) -> bool,
    ) {
        if let Some(timeline) = &mut self.timeline {
            let now = Instant::now().into_std();
            timeline.start(slot, index, now, slots, |item| runs(item.place, item.index));
        }
    }

    /// As [`item_started`](Self::item_started), of an attempt with this serial number.
    #[inline]
    pub(super) fn attempt_started(
        &mut self,
        slot: usize,
        serial: usize,
        slots: usize,
        runs: impl Fn(usize, usize) -> bool,
    ) {
        if let Some(attempts) = &mut self.attempts {
            let now = Instant::now().into_std();
            attempts.start(slot, serial, now, slots, |item| runs(item.place, item.index));
        }
    }

    /// Whether the batch's time is up at `when`.
    pub(super) fn is_past_the_deadline(&self, when: std::time::Instant) -> bool {
        self.batch_due.is_some_and(|due| when >= due.into_std())
    }

    /// The next that has run out of time, or whose `alarm` it is time for. If there is none, the timer wakes the run when there
    /// is.
    pub(super) fn poll_overdue(
        &mut self,
        cx: &mut Context<'_>,
        alarm: Option<std::time::Instant>,
        runs: impl Fn(usize, usize) -> bool,
        tries: impl Fn(usize, usize) -> bool,
    ) -> Option<Overdue> {
        let runs = |item: &Started| runs(item.place, item.index);
        let tries = |item: &Started| tries(item.place, item.index);
        loop {
            let item = self.timeline.as_mut().and_then(|timeline| timeline.next_due(runs));
            let item = item.map(Instant::from_std);
            let batch = self.batch_due;
            let attempt = self.attempts.as_mut().and_then(|attempts| attempts.next_due(tries));
            let attempt = attempt.map(Instant::from_std);
            let alarm = alarm.map(Instant::from_std);
            let due = [attempt, item, alarm, batch].into_iter().flatten().min()?;
            if due <= Instant::now() {
                if item == Some(due) {
                    return self
                        .timeline
                        .as_mut()?
                        .take_due()
                        .map(|item| Overdue::Item(item.place));
                }
                if attempt == Some(due) {
                    let attempt = self.attempts.as_mut()?.take_due();
                    return attempt.map(|attempt| Overdue::Attempt(attempt.place));
                }
                if batch != Some(due) {
                    return Some(Overdue::Alarm);
                }
                self.batch_due = None;
                return Some(Overdue::Batch);
            }
            // A timer set for an item that has settled since is left as it is: going off once too
            // early is cheaper than being set anew for each item.
            let timer = self.timer.get_or_insert_with(|| Box::pin(time::sleep_until(due)));
            if timer.is_elapsed() || timer.deadline() > due {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx) == Poll::Pending {
                return None;
            }
        }
    }
}
