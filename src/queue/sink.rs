//! The queue as a sink.

use core::fmt;
use core::ops::Deref;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use futures_sink::Sink;

use super::OverflowQueue;
use super::outcome::{Pushed, Rejected};
use super::push::PendingPush;
use crate::base::coop;

/// The queue as a sink of ordinary items; made by [`OverflowQueue::sink`] and
/// [`OverflowQueue::sink_owned`].
///
/// It holds at most one item, which waits for room. Items that a push displaced or dropped go to the
/// function that the sink was made with. A rejected item comes back as the error, after which the sink
/// still works. Flushing waits until the item is in the queue. So does closing, which leaves the queue
/// open for other pushers.
///
/// Dropping the sink drops its item and leaves the wait list; [`into_item`](Self::into_item) hands the
/// item back.
///
/// ```
/// use futures_util::{SinkExt, StreamExt, stream};
/// use sluicegate::OverflowQueue;
/// use sluicegate::queue::{Pushed, WhenFull};
///
/// # futures_util::FutureExt::now_or_never(async {
/// let queue = OverflowQueue::builder().capacity(2).when_full(WhenFull::DropOldest).build()?;
/// let mut gone = Vec::new();
/// let mut sink = queue.sink(|pushed| {
///     if let Pushed::Displaced(older) = pushed {
///         gone.extend(older);
///     }
/// });
/// sink.send_all(&mut stream::iter([1, 2, 3]).map(Ok)).await.unwrap();
/// drop(sink);
/// assert_eq!((gone, queue.len()), (vec![1], 2));
/// # Ok::<(), sluicegate::ConfigError>(())
/// # }).unwrap().unwrap();
/// ```
#[must_use = "sinks do nothing unless polled"]
pub struct PushSink<Q: Deref<Target = OverflowQueue<T>>, T, F> {
    pub(super) pending: PendingPush<Q, T>,
    pub(super) lost: F,
}

impl<Q, T, F> PushSink<Q, T, F>
where
    Q: Deref<Target = OverflowQueue<T>>,
    F: FnMut(Pushed<T>),
{
    /// Cancels the push in progress, and hands its item back.
    #[must_use = "it is the item, which is lost if it is dropped"]
    pub fn into_item(mut self) -> Option<T> {
        self.pending.take_item()
    }

    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejected<T>>> {
        if !self.pending.has_item() {
            return coop::poll_spend(cx).map(Ok);
        }
        match ready!(self.pending.poll(cx)) {
            Pushed::Stored => {}
            Pushed::Rejected(rejected) => return Poll::Ready(Err(rejected)),
            lost => (self.lost)(lost),
        }
        Poll::Ready(Ok(()))
    }
}

// Nothing in it is pinned.
impl<Q: Deref<Target = OverflowQueue<T>>, T, F> Unpin for PushSink<Q, T, F> {}

impl<Q, T, F> Sink<T> for PushSink<Q, T, F>
where
    Q: Deref<Target = OverflowQueue<T>>,
    F: FnMut(Pushed<T>),
{
    type Error = Rejected<T>;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.get_mut().poll_push(cx)
    }

    /// # Panics
    ///
    /// If the sink was not ready: it still holds an item.
    fn start_send(self: Pin<&mut Self>, item: T) -> Result<(), Self::Error> {
        let this = self.get_mut();
        assert!(!this.pending.has_item(), "`start_send` without `poll_ready` before it");
        this.pending.start(item);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.get_mut().poll_push(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.get_mut().poll_push(cx)
    }
}

impl<Q: Deref<Target = OverflowQueue<T>>, T, F> fmt::Debug for PushSink<Q, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushSink")
            .field("holds_item", &self.pending.has_item())
            .finish_non_exhaustive()
    }
}
