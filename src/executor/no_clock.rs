//! The time limits of a run where there is no clock to keep them by: none.

use core::task::Context;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TimeLimits;

/// None.
#[derive(Clone)]
pub(super) struct Deadline;

impl Deadline {
    pub(super) fn new(_: TimeLimits) -> Self {
        Self
    }

    pub(super) fn has_passed(&self) -> bool {
        false
    }
}

#[allow(dead_code)]
pub(super) enum Overdue {
    Attempt(usize),
    Item(usize),
    Alarm,
    Batch,
}

pub(super) struct Clock;

impl Clock {
    pub(super) fn new(_: TimeLimits, _: Deadline, _: Option<core::time::Duration>) -> Self {
        Self
    }

    pub(super) fn now(&self) -> std::time::Instant {
        std::time::Instant::now()
    }

    pub(super) fn begin(&mut self) {}

    #[inline]
    pub(super) fn may_be_due(&self, _: Option<std::time::Instant>) -> bool {
        false
    }

    #[inline]
    pub(super) fn is_batch_due(&self) -> bool {
        false
    }

    pub(super) fn item_started(
        &mut self,
        _: usize,
        _: usize,
        _: usize,
        _: impl Fn(usize, usize) -> bool,
    ) {
    }

    pub(super) fn attempt_started(
        &mut self,
        _: usize,
        _: usize,
        _: usize,
        _: impl Fn(usize, usize) -> bool,
    ) {
    }

    pub(super) fn is_past_the_deadline(&self, _: std::time::Instant) -> bool {
        false
    }

    pub(super) fn poll_overdue(
        &mut self,
        _: &mut Context<'_>,
        _: Option<std::time::Instant>,
        _: impl Fn(usize, usize) -> bool,
        _: impl Fn(usize, usize) -> bool,
    ) -> Option<Overdue> {
        None
    }
}
