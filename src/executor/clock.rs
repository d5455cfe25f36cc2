//! The time limits of a run: tokio's clock and one timer, however many items run.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::timeline::{Started, Timeline};

/// Time limits, as the builder takes them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TimeLimits {
    pub(super) item: Option<Duration>,
    pub(super) batch: Option<Duration>,
}

/// What has run out of time.
pub(super) enum Overdue {
    Item(usize),
    Batch,
}

/// Neither reads the time nor needs a runtime unless there is a limit to keep.
pub(super) struct Clock {
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
    pub(super) fn new(limits: TimeLimits) -> Self {
        let timeline = limits.item.map(Timeline::new);
        let deadline = limits.batch.map_or(Deadline::None, Deadline::In);
        Self { timeline, deadline, timer: None }
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

    /// The next that has run out of time. If there is none, the timer wakes the run when there
    /// is.
    pub(super) fn poll_overdue(
        &mut self,
        cx: &mut Context<'_>,
        runs: impl Fn(usize, usize) -> bool,
    ) -> Option<Overdue> {
        let runs = |item: &Started| runs(item.place, item.index);
        loop {
            let item = self.timeline.as_mut().and_then(|timeline| timeline.next_due(runs));
            let item = item.map(Instant::from_std);
            let batch = match self.deadline {
                Deadline::At(batch) => Some(batch),
                _ => None,
            };
            let due = match (item, batch) {
                (Some(item), Some(batch)) => item.min(batch),
                (item, batch) => item.or(batch)?,
            };
            if due <= Instant::now() {
                if item != Some(due) {
                    self.deadline = Deadline::None;
                    return Some(Overdue::Batch);
                }
                return self.timeline.as_mut()?.take_due().map(|item| Overdue::Item(item.place));
            }
            // A timer set for an item that has settled since is left as it is: going off once too
            // early is cheaper than being set anew for each item.
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if timer.is_elapsed() || timer.deadline() > due {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx) == Poll::Pending {
                return None;
            }
        }
    }
}
