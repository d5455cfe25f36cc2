//! The readers of a queue: futures and the stream, over one state machine.
//!
//! ```text
//!             unreserved items, or closed
//!   outside ──────────────────────────────▶ done
//!      │                                     ▲
//!      └──▶ waiting ───▶ granted ────────────┘
//!              ▲           │
//!              └───────────┘ the items were displaced or drained
//! ```
//!
//! A poll without coop budget takes no item. It joins the wait list if it has to wait anyway, and
//! stays outside if not; a granted reader keeps its grant.

use core::fmt;
use core::future::Future;
use core::ops::Deref;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use futures_core::Stream;

use super::OverflowQueue;
use super::core::{Core, WaitersOf};
use super::outcome::{Closed, Popped};
use super::waiters::Attempt;
use crate::base::coop;
use crate::base::wait_list::WaiterId;

/// A reader; leaves the wait list when it is dropped.
pub(super) struct PendingPop<Q: Deref<Target = OverflowQueue<T>>, T> {
    queue: Q,
    id: Option<WaiterId>,
}

impl<Q: Deref<Target = OverflowQueue<T>>, T> PendingPop<Q, T> {
    #[inline]
    pub(super) fn new(queue: Q) -> Self {
        Self { queue, id: None }
    }

    /// Takes one item.
    #[inline(always)]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Popped<T>, Closed>> {
        let Poll::Ready(unit) = coop::poll_proceed(cx) else {
            self.join_without_budget(cx.waker());
            return Poll::Pending;
        };
        if self.id.is_none() {
            if let Some(popped) = self.queue.lock().pop_fast() {
                unit.made_progress();
                return Poll::Ready(Ok(popped));
            }
        }
        // It drops the unit, too: that is code for the slow path.
        self.poll_one(cx.waker(), unit)
    }

    #[cold]
    fn poll_one(&mut self, waker: &Waker, unit: coop::Unit) -> Poll<Result<Popped<T>, Closed>> {
        self.poll_slow_path(waker, unit, |core, _| core.pop_front())
    }

    /// Takes up to `max` items, and returns how many.
    fn poll_many(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Popped<T>>,
    ) -> Poll<Result<usize, Closed>> {
        if max == 0 {
            return coop::poll_spend(cx).map(|()| Ok(0));
        }
        let Poll::Ready(unit) = coop::poll_proceed(cx) else {
            self.join_without_budget(cx.waker());
            return Poll::Pending;
        };
        self.poll_slow_path(cx.waker(), unit, |core, available| {
            let count = max.min(available);
            core.pop_many(count, into);
            Some(count)
        })
    }

    /// Calls `take` under the lock when there are items, with their number.
    fn poll_slow_path<R>(
        &mut self,
        waker: &Waker,
        unit: coop::Unit,
        mut take: impl FnMut(&mut Core<T>, usize) -> Option<R>,
    ) -> Poll<Result<R, Closed>> {
        let id = &mut self.id;
        let polled = self.queue.poll_slow_path(waker, |core, wakers| {
            let available = core.available(*id, &mut wakers.unused);
            if available > 0 {
                if let Some(taken) = take(core, available) {
                    *id = None;
                    return Attempt::Done(Ok(taken));
                }
            }
            if core.is_closed() {
                *id = None;
                return Attempt::Done(Err(Closed { dropped_before: core.read_gap() }));
            }
            core.waiters(WaitersOf::Readers).wait(id, 0, wakers)
        });
        if polled.is_ready() {
            unit.made_progress();
        }
        polled
    }

    /// The task has been woken to poll again.
    #[cold]
    fn join_without_budget(&mut self, waker: &Waker) {
        let id = &mut self.id;
        if id.is_none() {
            let _: Poll<()> = self.queue.poll_slow_path(waker, |core, wakers| {
                if !core.must_pop_wait() {
                    return Attempt::Waiting;
                }
                core.waiters(WaitersOf::Readers).wait(id, 0, wakers)
            });
        }
    }
}

impl<Q: Deref<Target = OverflowQueue<T>>, T> Drop for PendingPop<Q, T> {
    /// Its grant goes to the next waiter.
    #[inline]
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.queue.cancel(WaitersOf::Readers, id);
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
/// Dropping it loses no item: it holds none before it completes. An item that was reserved for it
/// goes to the next waiter.
#[must_use = "futures do nothing unless polled: `.await` it to get the item"]
pub struct Pop<'a, T> {
    pub(super) pending: PendingPop<&'a OverflowQueue<T>, T>,
}

impl<T> Future for Pop<'_, T> {
    type Output = Result<Popped<T>, Closed>;

    // The fast path is slower as a call.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().pending.poll(cx)
    }
}

impl<T> fmt::Debug for Pop<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pop").field("waiting", &self.pending.id.is_some()).finish_non_exhaustive()
    }
}

/// Waits for items, which go into the caller's vector; made by [`OverflowQueue::pop_many_into`].
///
/// It joins the wait list when it is first polled, with one exception: see
/// [fairness](OverflowQueue#fairness).
///
/// # Cancel safety
///
/// That of [`Pop`].
#[must_use = "futures do nothing unless polled: `.await` it to get the items"]
pub struct PopManyInto<'a, T> {
    pub(super) pending: PendingPop<&'a OverflowQueue<T>, T>,
    pub(super) into: &'a mut Vec<Popped<T>>,
    pub(super) max: usize,
}

impl<T> Future for PopManyInto<'_, T> {
    type Output = Result<usize, Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.pending.poll_many(cx, this.max, this.into)
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

/// The items of a queue as a stream, until the queue is closed and empty; made by
/// [`OverflowQueue::items`] and [`OverflowQueue::items_owned`].
///
/// It holds no item: each poll pops one. A queue may have several streams, and other readers beside
/// them; each item goes to one reader, first come, first served. A waiting stream stays in the wait
/// list between polls and leaves it when it is dropped.
///
/// ```
/// use std::sync::Arc;
/// use futures_util::StreamExt;
/// use sluicegate::OverflowQueue;
///
/// # futures_util::FutureExt::now_or_never(async {
/// let queue = Arc::new(OverflowQueue::new(10)?);
/// for n in 1..=3 {
///     assert!(queue.push(n).await.is_stored());
/// }
/// queue.close();
///
/// let items = queue.items_owned();
/// assert_eq!(items.map(|popped| popped.item).collect::<Vec<_>>().await, [1, 2, 3]);
/// # Ok::<(), sluicegate::ConfigError>(())
/// # }).unwrap().unwrap();
/// ```
#[must_use = "streams do nothing unless polled"]
pub struct Items<Q: Deref<Target = OverflowQueue<T>>, T> {
    pending: PendingPop<Q, T>,
    dropped_at_end: Option<u64>,
}

impl<Q: Deref<Target = OverflowQueue<T>>, T> Items<Q, T> {
    pub(super) fn new(queue: Q) -> Self {
        Self { pending: PendingPop::new(queue), dropped_at_end: None }
    }

    /// How many items were lost between the last one and the end, as in
    /// [`Closed::dropped_before`]; `None` before the stream has ended.
    #[must_use]
    pub fn dropped_at_end(&self) -> Option<u64> {
        self.dropped_at_end
    }

    /// The queue.
    pub fn queue(&self) -> &OverflowQueue<T> {
        &self.pending.queue
    }
}

impl<Q: Deref<Target = OverflowQueue<T>>, T> Unpin for Items<Q, T> {}

impl<Q: Deref<Target = OverflowQueue<T>>, T> Stream for Items<Q, T> {
    type Item = Popped<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Popped<T>>> {
        let this = self.get_mut();
        if this.dropped_at_end.is_some() {
            return coop::poll_spend(cx).map(|()| None);
        }
        this.pending.poll(cx).map(|taken| match taken {
            Ok(popped) => Some(popped),
            Err(closed) => {
                this.dropped_at_end = Some(closed.dropped_before);
                None
            }
        })
    }
}

impl<Q: Deref<Target = OverflowQueue<T>>, T> fmt::Debug for Items<Q, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items")
            .field("dropped_at_end", &self.dropped_at_end)
            .finish_non_exhaustive()
    }
}
