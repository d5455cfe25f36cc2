//! Batches of a stream: the open batch of the batcher, pulled instead of pushed into.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::time::Instant;

use futures_core::{FusedStream, Stream};

use super::open_batch::OpenBatch;
use crate::ConfigError;
use crate::base::coop;
use crate::base::panic::quietly;
use crate::base::timer::{Timer, now};

/// Gives every stream [`batched`](Self::batched).
pub trait BatchedExt: Stream {
    /// Gathers the items of the stream into batches of at most `max_items`, each handed out at the
    /// latest `window` after its first item.
    ///
    /// For a source that is a stream anyway and may wait: it is pulled only while a batch is wanted,
    /// so the consumer of the batches holds it back. Where several tasks send, or a batch that fails
    /// must be tried again, use a [`Batcher`](super::Batcher).
    ///
    /// # Errors
    ///
    /// `max_items` must be at least 1, `window` at most ten years.
    ///
    /// ```
    /// use core::time::Duration;
    /// use futures_util::{StreamExt, stream};
    /// use sluicegate::batcher::BatchedExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// let mut batches = stream::iter(0..7).batched(3, Duration::from_millis(50))?;
    /// assert_eq!(batches.next().await, Some(vec![0, 1, 2]));
    /// assert_eq!(batches.next().await, Some(vec![3, 4, 5]));
    /// assert_eq!(batches.next().await, Some(vec![6]));
    /// assert_eq!(batches.next().await, None);
    /// # Ok(())
    /// # }
    /// ```
    fn batched(self, max_items: usize, window: Duration) -> Result<Batched<Self>, ConfigError>
    where
        Self: Sized,
    {
        ConfigError::at_least_one("max_items", max_items)?;
        ConfigError::at_most_longest("window", window)?;
        Ok(Batched {
            source: Some(Box::pin(self)),
            open: OpenBatch::new(),
            max_items,
            window,
            timer: Timer::new(),
            remainder_to: None,
        })
    }
}

impl<S: Stream> BatchedExt for S {}

type Remainder<T> = Box<dyn FnOnce(Vec<T>) + Send>;

/// The batches of a stream; made by [`BatchedExt::batched`].
///
/// A batch is closed on time even when the source always has another item: the deadline is looked
/// at before each is pulled. With a window of zero a batch is whatever is there. A batch that stays
/// small allocates no more than it holds.
///
/// # Panics
///
/// When it must wait for the end of a window outside a tokio runtime with timers.
///
/// # Cancel safety
///
/// Dropping the future of its `next` loses nothing: what was pulled is in the batch that is handed
/// out next. When the stream itself is dropped, its remainder goes to what
/// [`remainder_to`](Self::remainder_to) names; [`into_parts`](Self::into_parts) hands it out.
///
/// # How it is built
///
/// The open batch and the timer of a [`Batcher`](super::Batcher), without its lock.
#[must_use = "streams do nothing unless they are polled"]
pub struct Batched<S: Stream> {
    /// Until it ends.
    source: Option<Pin<Box<S>>>,
    open: OpenBatch<S::Item>,
    max_items: usize,
    window: Duration,
    timer: Timer,
    remainder_to: Option<Remainder<S::Item>>,
}

impl<S: Stream> Batched<S> {
    /// Says who gets what was pulled from the source and is in no batch yet when the stream is
    /// dropped. Nobody is called if there is nothing. A panic in it is caught.
    ///
    /// ```
    /// use core::time::Duration;
    /// use futures_util::{FutureExt, StreamExt, stream};
    /// use sluicegate::batcher::BatchedExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// let (remainder, given_back) = std::sync::mpsc::channel();
    /// let source = stream::iter([1, 2]).chain(stream::pending());
    /// let mut batches = source
    ///     .batched(3, Duration::from_secs(60))?
    ///     .remainder_to(move |items| remainder.send(items).unwrap());
    ///
    /// assert_eq!(batches.next().now_or_never(), None, "there may be a third");
    /// drop(batches);
    /// assert_eq!(given_back.recv(), Ok(vec![1, 2]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn remainder_to(mut self, remainder: impl FnOnce(Vec<S::Item>) + Send + 'static) -> Self {
        self.remainder_to = Some(Box::new(remainder));
        self
    }

    /// The source, unless it has ended, and what was pulled from it and is in no batch yet.
    pub fn into_parts(mut self) -> (Option<Pin<Box<S>>>, Vec<S::Item>) {
        (self.source.take(), self.close().unwrap_or_default())
    }

    fn close(&mut self) -> Option<Vec<S::Item>> {
        // The next is likely to hold as many, but not sure to hold any.
        self.open.seal(0, |_| Vec::new()).map(|sealed| sealed.items)
    }

    /// When the batch is to be handed out at the latest.
    fn end(&self) -> Option<Instant> {
        self.open.opened_at().map(|at| at + self.window)
    }

    /// Looks at the clock itself: the timer does not ring while the task never rests.
    fn is_due(&self) -> bool {
        !self.window.is_zero() && self.end().is_some_and(|end| end <= now())
    }
}

impl<S: Stream> Stream for Batched<S> {
    type Item = Vec<S::Item>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Vec<S::Item>>> {
        let this = self.get_mut();
        loop {
            // For each item: a source that is always ready must not keep the thread to itself.
            let unit = ready!(coop::poll_proceed(cx));
            if this.is_due() {
                unit.made_progress();
                return Poll::Ready(this.close());
            }
            let Some(source) = &mut this.source else {
                unit.made_progress();
                return Poll::Ready(this.close());
            };
            match source.as_mut().poll_next(cx) {
                Poll::Ready(Some(item)) => {
                    unit.made_progress();
                    this.open.push(|| item, 0, now);
                    if this.open.len() == this.max_items {
                        return Poll::Ready(this.close());
                    }
                }
                Poll::Ready(None) => this.source = None,
                Poll::Pending if this.window.is_zero() && this.open.len() > 0 => {
                    unit.made_progress();
                    return Poll::Ready(this.close());
                }
                Poll::Pending => {
                    let end = this.end();
                    if this.timer.poll(end, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.source.as_ref().map_or((0, Some(0)), |source| source.size_hint());
        let open = self.open.len();
        let batches = least.saturating_add(open).div_ceil(self.max_items);
        (batches, most.and_then(|most| most.checked_add(open)))
    }
}

impl<S: Stream> FusedStream for Batched<S> {
    fn is_terminated(&self) -> bool {
        self.source.is_none() && self.open.len() == 0
    }
}

// The source is boxed, and the items are never pinned.
impl<S: Stream> Unpin for Batched<S> {}

impl<S: Stream> Drop for Batched<S> {
    fn drop(&mut self) {
        if let (Some(remainder), Some(items)) = (self.remainder_to.take(), self.close()) {
            quietly(|| remainder(items));
        }
    }
}

impl<S: Stream> fmt::Debug for Batched<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batched")
            .field("max_items", &self.max_items)
            .field("window", &self.window)
            .field("open", &self.open.len())
            .finish_non_exhaustive()
    }
}
