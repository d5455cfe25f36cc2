//! The futures behind `flush` and `shutdown`: a ticket each, given up on drop.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use super::buffers::{Buffers, SingleBuffer};
use super::flush;
use super::report::{FlushReport, ShutdownReport};
use super::shared::Shared;
use crate::base::coop;

#[must_use = "futures do nothing unless they are awaited"]
pub(crate) struct FlushWait<'a, T, L: Buffers<T> = SingleBuffer<T>> {
    shared: &'a Shared<T, L>,
    ticket: flush::FlushId,
}

impl<'a, T, L: Buffers<T>> FlushWait<'a, T, L> {
    pub(crate) fn new(shared: &'a Shared<T, L>) -> Self {
        Self { shared, ticket: shared.flush() }
    }
}

impl<T, L: Buffers<T>> Future for FlushWait<'_, T, L> {
    type Output = FlushReport;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FlushReport> {
        let unit = ready!(coop::poll_proceed(cx));
        match self.shared.poll_flush(self.ticket, cx.waker()) {
            Some(report) => {
                unit.made_progress();
                Poll::Ready(report)
            }
            None => Poll::Pending,
        }
    }
}

impl<T, L: Buffers<T>> Drop for FlushWait<'_, T, L> {
    fn drop(&mut self) {
        self.shared.forget_flush(self.ticket);
    }
}

#[must_use = "futures do nothing unless they are awaited"]
pub(crate) struct StopWait<'a, T, L: Buffers<T> = SingleBuffer<T>> {
    shared: &'a Shared<T, L>,
    ticket: u64,
}

impl<'a, T, L: Buffers<T>> StopWait<'a, T, L> {
    pub(crate) fn new(shared: &'a Shared<T, L>) -> Self {
        Self { shared, ticket: shared.await_stop() }
    }
}

impl<T, L: Buffers<T>> Future for StopWait<'_, T, L> {
    type Output = ShutdownReport<L::Unsent>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ShutdownReport<L::Unsent>> {
        let unit = ready!(coop::poll_proceed(cx));
        if self.shared.poll_stopped(self.ticket, cx.waker()) {
            unit.made_progress();
            return Poll::Ready(self.shared.shutdown_report());
        }
        Poll::Pending
    }
}

impl<T, L: Buffers<T>> Drop for StopWait<'_, T, L> {
    fn drop(&mut self) {
        self.shared.forget_stop(self.ticket);
    }
}
