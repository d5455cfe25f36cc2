//! The time limits of a run where there is no clock to keep them by: none.

use core::task::Context;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TimeLimits;

#[allow(dead_code)]
pub(super) enum Overdue {
    Item(usize),
    Batch,
}

pub(super) struct Clock;

impl Clock {
    pub(super) fn new(_: TimeLimits) -> Self {
        Self
    }

    pub(super) fn now(&self) -> std::time::Instant {
        std::time::Instant::now()
    }

    pub(super) fn wind(&mut self) {}

    pub(super) fn item_started(
        &mut self,
        _: usize,
        _: usize,
        _: usize,
        _: impl Fn(usize, usize) -> bool,
    ) {
    }

    pub(super) fn poll_overdue(
        &mut self,
        _: &mut Context<'_>,
        _: impl Fn(usize, usize) -> bool,
    ) -> Option<Overdue> {
        None
    }
}
