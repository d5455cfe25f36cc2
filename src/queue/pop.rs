//! A reader on its way to an item, shared by the futures and the stream.
//!
//! ```text
//!             items beyond those kept for the line, or closed
//!   Outside ──────────────────────────────────────────────────▶ answered
//!      │                                                           ▲
//!      └──▶ in line ───▶ called ───────────────────────────────────┘
//!              ▲           │
//!              └───────────┘ the items were displaced or drained
//! ```

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::core::Core;
use super::line::Ticket;
use super::outcome::{Closed, Popped};
use super::overflow::OverflowQueue;
use crate::settled::quietly;

#[derive(Debug, Default)]
pub(super) struct PopPlace {
    ticket: Option<Ticket>,
}

impl PopPlace {
    /// Calls `take`, under the lock, when there is an item to take or more; it is told how many it
    /// may.
    #[inline]
    pub(super) fn poll<T, R>(
        &mut self,
        queue: &OverflowQueue<T>,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Core<T>, usize) -> R,
    ) -> Poll<Result<R, Closed>> {
        if self.ticket.is_none() {
            let mut core = queue.core.lock();
            let free = core.free_items(None, &mut None);
            if free > 0 {
                let taken = take(&mut core, free);
                queue.tell(core);
                return Poll::Ready(Ok(taken));
            }
        }
        self.poll_in_line(queue, cx, take)
    }

    #[cold]
    fn poll_in_line<T, R>(
        &mut self,
        queue: &OverflowQueue<T>,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Core<T>, usize) -> R,
    ) -> Poll<Result<R, Closed>> {
        let mut fresh = None;
        loop {
            let mut unused = None;
            let mut core = queue.core.lock();
            let free = core.free_items(self.ticket, &mut unused);
            if free > 0 || core.is_closed() {
                self.ticket = None;
                let answer = match free {
                    0 => Err(Closed { dropped_before: core.read_gap() }),
                    _ => Ok(take(&mut core, free)),
                };
                queue.tell(core);
                quietly(|| drop((fresh, unused)));
                return Poll::Ready(answer);
            }
            let line = core.readers();
            match self.ticket {
                Some(ticket) if line.would_wake(ticket, cx.waker()) => {}
                _ => match (self.ticket, fresh.take()) {
                    (_, None) => {
                        // A stranger's code: not under the lock.
                        drop(core);
                        fresh = Some(cx.waker().clone());
                        continue;
                    }
                    (None, Some(waker)) => self.ticket = Some(line.join(0, waker)),
                    (Some(ticket), Some(waker)) => unused = line.leave_waker(ticket, waker),
                },
            }
            drop(core);
            quietly(|| drop((fresh, unused)));
            return Poll::Pending;
        }
    }

    /// Gives up the place in line, and passes on what was kept for it.
    #[inline]
    pub(super) fn leave<T>(&mut self, queue: &OverflowQueue<T>) {
        if let Some(ticket) = self.ticket.take() {
            queue.leave_readers(ticket);
        }
    }
}

/// Waits in line for an item; made by [`OverflowQueue::pop`].
///
/// The place in line is taken when it is first polled.
///
/// # Cancel safety
///
/// Dropping it loses no item: it has none before it completes. An item that was kept for it goes
/// to the next in line.
#[must_use = "futures do nothing unless polled: `.await` it to get the item"]
pub struct Pop<'a, T> {
    queue: &'a OverflowQueue<T>,
    place: PopPlace,
}

impl<'a, T> Pop<'a, T> {
    #[inline]
    pub(super) fn new(queue: &'a OverflowQueue<T>) -> Self {
        Self { queue, place: PopPlace::default() }
    }
}

impl<T> Future for Pop<'_, T> {
    type Output = Result<Popped<T>, Closed>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.place.poll(this.queue, cx, |core, _| core.pop_front()).map(flatten)
    }
}

/// There always is an item where `take` is called.
#[inline]
pub(super) fn flatten<T>(taken: Result<Option<Popped<T>>, Closed>) -> Result<Popped<T>, Closed> {
    taken.and_then(|popped| popped.ok_or(Closed { dropped_before: 0 }))
}

impl<T> Drop for Pop<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.place.leave(self.queue);
    }
}

impl<T> fmt::Debug for Pop<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pop").field("in_line", &self.place.ticket.is_some()).finish_non_exhaustive()
    }
}

/// Waits in line for items; made by [`OverflowQueue::pop_many`].
///
/// The place in line is taken when it is first polled.
///
/// # Cancel safety
///
/// That of [`Pop`].
#[must_use = "futures do nothing unless polled: `.await` it to get the items"]
pub struct PopMany<'a, T> {
    queue: &'a OverflowQueue<T>,
    max: usize,
    place: PopPlace,
}

impl<'a, T> PopMany<'a, T> {
    pub(super) fn new(queue: &'a OverflowQueue<T>, max: usize) -> Self {
        Self { queue, max, place: PopPlace::default() }
    }
}

impl<T> Future for PopMany<'_, T> {
    type Output = Result<Vec<Popped<T>>, Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut items = Vec::new();
        match poll_many(&mut this.place, this.queue, cx, this.max, &mut items) {
            Poll::Ready(answer) => Poll::Ready(answer.map(|_| items)),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[inline]
fn poll_many<T>(
    place: &mut PopPlace,
    queue: &OverflowQueue<T>,
    cx: &mut Context<'_>,
    max: usize,
    into: &mut Vec<Popped<T>>,
) -> Poll<Result<usize, Closed>> {
    if max == 0 {
        return Poll::Ready(Ok(0));
    }
    place.poll(queue, cx, |core, free| {
        let count = max.min(free);
        core.pop_many(count, into);
        count
    })
}

impl<T> Drop for PopMany<'_, T> {
    fn drop(&mut self) {
        self.place.leave(self.queue);
    }
}

impl<T> fmt::Debug for PopMany<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PopMany")
            .field("max", &self.max)
            .field("in_line", &self.place.ticket.is_some())
            .finish_non_exhaustive()
    }
}

/// Waits in line for items that go into a vector of the caller's; made by
/// [`OverflowQueue::pop_many_into`].
///
/// The place in line is taken when it is first polled.
///
/// # Cancel safety
///
/// That of [`Pop`].
#[must_use = "futures do nothing unless polled: `.await` it to get the items"]
pub struct PopManyInto<'a, T> {
    queue: &'a OverflowQueue<T>,
    into: &'a mut Vec<Popped<T>>,
    max: usize,
    place: PopPlace,
}

impl<'a, T> PopManyInto<'a, T> {
    pub(super) fn new(
        queue: &'a OverflowQueue<T>,
        into: &'a mut Vec<Popped<T>>,
        max: usize,
    ) -> Self {
        Self { queue, into, max, place: PopPlace::default() }
    }
}

impl<T> Future for PopManyInto<'_, T> {
    type Output = Result<usize, Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        poll_many(&mut this.place, this.queue, cx, this.max, this.into)
    }
}

impl<T> Drop for PopManyInto<'_, T> {
    fn drop(&mut self) {
        self.place.leave(self.queue);
    }
}

impl<T> fmt::Debug for PopManyInto<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PopManyInto")
            .field("max", &self.max)
            .field("in_line", &self.place.ticket.is_some())
            .finish_non_exhaustive()
    }
}
