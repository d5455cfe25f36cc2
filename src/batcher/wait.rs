//! The futures behind `flush` and `shutdown`: a ticket each, given up on drop.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::barrier;
use super::report::{FlushReport, ShutdownReport};
use super::shared::Shared;

#[must_use = "futures do nothing unless they are awaited"]
pub(crate) struct FlushWait<'a, T> {
    shared: &'a Shared<T>,
    ticket: barrier::Ticket,
}

impl<'a, T> FlushWait<'a, T> {
    pub(crate) fn new(shared: &'a Shared<T>) -> Self {
        Self { shared, ticket: shared.flush() }
    }
}

impl<T> Future for FlushWait<'_, T> {
    type Output = FlushReport;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FlushReport> {
        match self.shared.poll_flush(self.ticket, cx.waker()) {
            Some(report) => Poll::Ready(report),
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for FlushWait<'_, T> {
    fn drop(&mut self) {
        self.shared.forget_flush(self.ticket);
    }
}

#[must_use = "futures do nothing unless they are awaited"]
pub(crate) struct StopWait<'a, T> {
    shared: &'a Shared<T>,
    ticket: u64,
}

impl<'a, T> StopWait<'a, T> {
    pub(crate) fn new(shared: &'a Shared<T>) -> Self {
        Self { shared, ticket: shared.await_stop() }
    }
}

impl<T> Future for StopWait<'_, T> {
    type Output = ShutdownReport<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ShutdownReport<T>> {
        if self.shared.poll_stopped(self.ticket, cx.waker()) {
            return Poll::Ready(self.shared.shutdown_report());
        }
        Poll::Pending
    }
}

impl<T> Drop for StopWait<'_, T> {
    fn drop(&mut self) {
        self.shared.forget_stop(self.ticket);
    }
}
