//! A reader on its way to an item, shared by the futures and the stream.
//!
//! ```text
//!             items beyond those kept for waiters, or closed
//!   Outside ──────────────────────────────────────────────────▶ answered
//!      │                                                           ▲
//!      └──▶ waiting ───▶ called ───────────────────────────────────┘
//!              ▲           │
//!              └───────────┘ the items were displaced or drained
//! ```
//!
//! A task whose coop budget is spent takes nothing. It joins the wait list if it would have to wait
//! anyway, and stays outside if not; once called, it stays called.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use super::OverflowQueue;
use super::core::Core;
use super::outcome::{Closed, Popped};
use super::waiters::Asked;
use crate::base::coop;
use crate::base::panic::quietly;
use crate::base::wait_list::WaiterId;

#[derive(Debug, Default)]
pub(super) struct PendingPop {
    id: Option<WaiterId>,
}

impl PendingPop {
    /// Takes one item.
    #[inline(always)]
    pub(super) fn poll<T>(
        &mut self,
        queue: &OverflowQueue<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Popped<T>, Closed>> {
        let Poll::Ready(unit) = coop::poll_proceed(cx) else {
            self.join_if_it_must_wait(queue, cx.waker());
            return Poll::Pending;
        };
        if self.id.is_none() {
            if let Some(popped) = queue.pop_fast() {
                unit.made_progress();
                return Poll::Ready(Ok(popped));
            }
        }
        // Its destructor, too, is code for the slow path.
        self.poll_slow(queue, cx, unit)
    }

    #[cold]
    fn poll_slow<T>(
        &mut self,
        queue: &OverflowQueue<T>,
        cx: &mut Context<'_>,
        unit: coop::Unit,
    ) -> Poll<Result<Popped<T>, Closed>> {
        let polled = self.poll_slow_path(queue, cx, |core, _| core.pop_front());
        if polled.is_ready() {
            unit.made_progress();
        }
        polled
    }

    /// For a task without budget, which has been woken to poll again.
    #[cold]
    fn join_if_it_must_wait<T>(&mut self, queue: &OverflowQueue<T>, waker: &Waker) {
        if self.id.is_none() {
            self.id = queue.join(waker, 0, Core::wait_list_of_pop);
        }
    }

    /// Takes up to `max` items, and says how many those were.
    pub(super) fn poll_many<T>(
        &mut self,
        queue: &OverflowQueue<T>,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Popped<T>>,
    ) -> Poll<Result<usize, Closed>> {
        if max == 0 {
            return coop::poll_spend(cx).map(|()| Ok(0));
        }
        let Poll::Ready(unit) = coop::poll_proceed(cx) else {
            self.join_if_it_must_wait(queue, cx.waker());
            return Poll::Pending;
        };
        let polled = self.poll_slow_path(queue, cx, |core, free| {
            let count = max.min(free);
            core.pop_many(count, into);
            Some(count)
        });
        if polled.is_ready() {
            unit.made_progress();
        }
        polled
    }

    /// Calls `take`, under the lock, when there are items to take; it is told how many.
    fn poll_slow_path<T, R>(
        &mut self,
        queue: &OverflowQueue<T>,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut Core<T>, usize) -> Option<R>,
    ) -> Poll<Result<R, Closed>> {
        let mut fresh = None;
        loop {
            let mut unused = None;
            let asked = queue.locked(|core| {
                let free = core.free_items(self.id, &mut unused);
                if free > 0 {
                    if let Some(taken) = take(core, free) {
                        self.id = None;
                        return Asked::Answered(Ok(taken));
                    }
                }
                if core.is_closed() {
                    self.id = None;
                    return Asked::Answered(Err(Closed { dropped_before: core.read_gap() }));
                }
                core.readers().wait(&mut self.id, 0, cx.waker(), &mut fresh, &mut unused)
            });
            match asked {
                Asked::Answered(answer) => {
                    quietly(|| drop((fresh, unused)));
                    return Poll::Ready(answer);
                }
                Asked::Waits => {
                    quietly(|| drop((fresh, unused)));
                    return Poll::Pending;
                }
                // User code, which may panic: not under the lock.
                Asked::WantsWaker => fresh = Some(cx.waker().clone()),
            }
        }
    }

    /// Gives up the place in the wait list, and passes on what was kept for it.
    #[inline]
    pub(super) fn leave<T>(&mut self, queue: &OverflowQueue<T>) {
        if let Some(id) = self.id.take() {
            queue.leave_readers(id);
        }
    }
}

/// Waits for an item; made by [`OverflowQueue::pop`].
///
/// It joins the wait list when it is first polled, with one exception: see
/// [fairness](OverflowQueue#fairness).
///
/// # Cancel safety
///
/// Dropping it loses no item: it has none before it completes. An item that was kept for it goes
/// to the next waiter.
#[must_use = "futures do nothing unless polled: `.await` it to get the item"]
pub struct Pop<'a, T> {
    queue: &'a OverflowQueue<T>,
    pending: PendingPop,
}

impl<'a, T> Pop<'a, T> {
    #[inline]
    pub(super) fn new(queue: &'a OverflowQueue<T>) -> Self {
        Self { queue, pending: PendingPop::default() }
    }
}

impl<T> Future for Pop<'_, T> {
    type Output = Result<Popped<T>, Closed>;

    // The fast path is slower as a call.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.pending.poll(this.queue, cx)
    }
}

impl<T> Drop for Pop<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.pending.leave(self.queue);
    }
}

impl<T> fmt::Debug for Pop<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pop").field("waiting", &self.pending.id.is_some()).finish_non_exhaustive()
    }
}

/// Waits for items that go into a vector of the caller's; made by
/// [`OverflowQueue::pop_many_into`].
///
/// It joins the wait list when it is first polled, with one exception: see
/// [fairness](OverflowQueue#fairness).
///
/// # Cancel safety
///
/// That of [`Pop`].
#[must_use = "futures do nothing unless polled: `.await` it to get the items"]
pub struct PopManyInto<'a, T> {
    queue: &'a OverflowQueue<T>,
    into: &'a mut Vec<Popped<T>>,
    max: usize,
    pending: PendingPop,
}

impl<'a, T> PopManyInto<'a, T> {
    pub(super) fn new(
        queue: &'a OverflowQueue<T>,
        into: &'a mut Vec<Popped<T>>,
        max: usize,
    ) -> Self {
        Self { queue, into, max, pending: PendingPop::default() }
    }
}

impl<T> Future for PopManyInto<'_, T> {
    type Output = Result<usize, Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.pending.poll_many(this.queue, cx, this.max, this.into)
    }
}

impl<T> Drop for PopManyInto<'_, T> {
    fn drop(&mut self) {
        self.pending.leave(self.queue);
    }
}

impl<T> fmt::Debug for PopManyInto<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PopManyInto")
            .field("max", &self.max)
            .field("waiting", &self.pending.id.is_some())
            .finish_non_exhaustive()
    }
}
