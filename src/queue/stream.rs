//! The queue as a stream.

use core::fmt;
use core::ops::Deref;
use core::pin::Pin;
use core::task::{Context, Poll};

use futures_core::Stream;

use super::OverflowQueue;
use super::outcome::Popped;
use super::pop::PendingPop;
use crate::base::coop;

/// The items of a queue as a stream, until the queue is closed and empty; made by
/// [`OverflowQueue::items`] and [`OverflowQueue::items_owned`].
///
/// It holds no item: each poll pops one. There may be several, and other readers beside them; each
/// item goes to one of them, first come, first served. A place in the wait list is kept between polls and
/// given up when the stream is dropped.
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
pub struct Items<Q, T>
where
    Q: Deref<Target = OverflowQueue<T>>,
{
    queue: Q,
    pending: PendingPop,
    dropped_at_end: Option<u64>,
}

impl<Q, T> Items<Q, T>
where
    Q: Deref<Target = OverflowQueue<T>>,
{
    pub(super) fn new(queue: Q) -> Self {
        Self { queue, pending: PendingPop::default(), dropped_at_end: None }
    }

    /// When the stream has ended: how many items were lost between the last one and the end, as
    /// [`Closed::dropped_before`](super::Closed::dropped_before) tells.
    #[must_use]
    pub fn dropped_at_end(&self) -> Option<u64> {
        self.dropped_at_end
    }

    /// The queue.
    pub fn queue(&self) -> &OverflowQueue<T> {
        &self.queue
    }
}

impl<Q, T> Unpin for Items<Q, T> where Q: Deref<Target = OverflowQueue<T>> {}

impl<Q, T> Stream for Items<Q, T>
where
    Q: Deref<Target = OverflowQueue<T>>,
{
    type Item = Popped<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Popped<T>>> {
        let this = self.get_mut();
        if this.dropped_at_end.is_some() {
            return coop::poll_spend(cx).map(|()| None);
        }
        this.pending.poll(&this.queue, cx).map(|taken| match taken {
            Ok(popped) => Some(popped),
            Err(closed) => {
                this.dropped_at_end = Some(closed.dropped_before);
                None
            }
        })
    }
}

impl<Q, T> Drop for Items<Q, T>
where
    Q: Deref<Target = OverflowQueue<T>>,
{
    fn drop(&mut self) {
        self.pending.leave(&self.queue);
    }
}

impl<Q, T> fmt::Debug for Items<Q, T>
where
    Q: Deref<Target = OverflowQueue<T>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items")
            .field("dropped_at_end", &self.dropped_at_end)
            .finish_non_exhaustive()
    }
}
