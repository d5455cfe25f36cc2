//! The queue as a sink.

use core::fmt;
use core::ops::Deref;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use futures_sink::Sink;

use super::OverflowQueue;
use super::core::LaneName;
use super::outcome::{Pushed, Rejected};
use super::push::PendingPush;
use crate::base::coop;

/// The queue as a sink of ordinary items; made by [`OverflowQueue::sink`] and
/// [`OverflowQueue::sink_owned`].
///
/// It holds at most one item, that which waits for room. What a push had to let go is handed to the
/// function that the sink was made with; an item that is rejected comes back as the error, after
/// which the sink can be used on. Flushing waits until its item is in the queue. Closing does the
/// same; the queue stays open, as others may push to it.
///
/// Dropping it drops the item that waits, and gives up its place in the wait list;
/// [`into_item`](Self::into_item) gives it back.
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
pub struct PushSink<Q, T, F>
where
    Q: Deref<Target = OverflowQueue<T>>,
{
    queue: Q,
    pending: Option<PendingPush<T>>,
    lost: F,
}

impl<Q, T, F> PushSink<Q, T, F>
where
    Q: Deref<Target = OverflowQueue<T>>,
    F: FnMut(Pushed<T>),
{
    pub(super) fn new(queue: Q, lost: F) -> Self {
        Self { queue, pending: None, lost }
    }

    /// Gives up waiting, and hands the item back that is not in the queue yet.
    #[must_use = "it is the item, which is lost if it is dropped"]
    pub fn into_item(mut self) -> Option<T> {
        self.pending.as_mut().and_then(PendingPush::take_item)
    }

    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejected<T>>> {
        let Some(pending) = &mut self.pending else { return coop::poll_spend(cx).map(Ok) };
        let pushed = ready!(pending.poll(&self.queue, cx));
        self.pending = None;
        match pushed {
            Pushed::Stored => {}
            Pushed::Rejected(rejected) => return Poll::Ready(Err(rejected)),
            lost => (self.lost)(lost),
        }
        Poll::Ready(Ok(()))
    }
}

// Nothing in it is pinned.
impl<Q, T, F> Unpin for PushSink<Q, T, F> where Q: Deref<Target = OverflowQueue<T>> {}

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
    /// If the sink was not ready: an item waits still.
    fn start_send(self: Pin<&mut Self>, item: T) -> Result<(), Self::Error> {
        let this = self.get_mut();
        assert!(this.pending.is_none(), "`start_send` without `poll_ready` before it");
        this.pending = Some(PendingPush::new(item, LaneName::Ordinary));
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.get_mut().poll_push(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.get_mut().poll_push(cx)
    }
}

impl<Q, T, F> Drop for PushSink<Q, T, F>
where
    Q: Deref<Target = OverflowQueue<T>>,
{
    fn drop(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.leave(&self.queue);
        }
    }
}

impl<Q, T, F> fmt::Debug for PushSink<Q, T, F>
where
    Q: Deref<Target = OverflowQueue<T>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushSink")
            .field("holds_item", &self.pending.is_some())
            .finish_non_exhaustive()
    }
}
