//! The time limits of a run: tokio's clock and one timer, however many items run.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::time::Duration;

#[cfg(not(loom))]
use tokio::time;

#[cfg(loom)]
use super::model as time;
use crate::timeline::{Started, Timeline};
use time::{Instant, Sleep};

/// Time limits, as the builder takes them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TimeLimits {
    pub(super) item: Option<Duration>,
    pub(super) batch: Option<Duration>,
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
    timer: Option<Pin<Box<Sleep>>>,
}

enum Deadline {
    None,
    /// Runs from the first poll.
    In(Duration),
    At(Instant),
}

impl Clock {
    pub(super) fn new(limits: TimeLimits, attempt: Option<Duration>) -> Self {
        let attempts = attempt.map(Timeline::new);
        let timeline = limits.item.map(Timeline::new);
        let deadline = limits.batch.map_or(Deadline::None, Deadline::In);
        Self { attempts, timeline, deadline, timer: None }
    }

    /// What the clock says.
    pub(super) fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }

    /// The run is being polled.
    pub(super) fn wind(&mut self) {
        if let Deadline::In(limit) = self.deadline {
            self.deadline = Deadline::At(Instant::now() + limit);
        }
    }

    /// An item has been polled for the first time, and is pending.
    #[inline]
    pub(super) fn item_started(
        &mut self,
        place: usize,
        index: usize,
        places: usize,
        runs: impl Fn(usize, usize) -> bool,
    ) {
        if let Some(timeline) = &mut self.timeline {
            let now = Instant::now().into_std();
            timeline.start(place, index, now, places, |item| runs(item.place, item.index));
        }
    }

    /// As [`item_started`](Self::item_started), of an attempt with this serial number.
    #[inline]
    pub(super) fn attempt_started(
        &mut self,
        place: usize,
        serial: usize,
        places: usize,
        runs: impl Fn(usize, usize) -> bool,
    ) {
        if let Some(attempts) = &mut self.attempts {
            let now = Instant::now().into_std();
            attempts.start(place, serial, now, places, |item| runs(item.place, item.index));
        }
    }

    /// Whether the batch's time is up at `when`.
    pub(super) fn is_past_the_deadline(&self, when: std::time::Instant) -> bool {
        matches!(self.deadline, Deadline::At(deadline) if when >= deadline.into_std())
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
            let batch = match self.deadline {
                Deadline::At(batch) => Some(batch),
                _ => None,
            };
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
                self.deadline = Deadline::None;
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
