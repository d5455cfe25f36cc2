//! A batcher's handle as a `Sink`.

use core::fmt;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::error::Error;

use futures_sink::Sink;

use super::buffers::Buffers;
use super::capacity::Weight;
use super::error::{Closed, SendError, TrySendError};
use super::flush;
use super::handle::Batcher;
use super::report::FlushReport;
use super::send::{Wait, heaviest};
use super::shared::Shared;
use crate::base::coop;

/// A handle of a [`Batcher`] to forward a stream to.
///
/// It is ready when it has room for one item, reserved in line; flushing it is a
/// [`flush`](Batcher::flush) of the whole batcher, and closing it flushes. It closes the batcher no
/// more than dropping any other handle does. Where each item is sent by itself, the handle's own
/// methods say more and cost less.
///
/// Made by [`Batcher::sink`].
///
/// # Cancel safety
///
/// Dropping it gives up its place in the wait list, or the room that it had reserved. A flush that was begun
/// and left alone goes on with the next, which covers what was sent through this sink since.
///
/// ```
/// use futures_util::{SinkExt, StreamExt, stream};
/// use sluicegate::batcher::{Batch, Batcher};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let batcher = Batcher::builder()
///     .dead_letter(|rows: Vec<u32>, why| eprintln!("{} rows lost: {why}", rows.len()))
///     .build(|_: Batch<u32>| async { Ok::<(), std::io::Error>(()) })?;
///
/// stream::iter(0..1_000).map(Ok).forward(batcher.sink()).await?;
/// assert_eq!(batcher.stats().delivered, 1_000);
/// # Ok(())
/// # }
/// ```
#[must_use = "a sink does nothing unless something is sent into it"]
pub struct BatcherSink<T> {
    batcher: Batcher<T>,
    wait: Wait,
    /// The room that is reserved for the next item.
    room: Option<Weight>,
    flushing: Flushing,
}

impl<T> BatcherSink<T> {
    pub(crate) fn new(batcher: Batcher<T>) -> Self {
        let wait = Wait::new(heaviest(batcher.shared()));
        Self { batcher, wait, room: None, flushing: Flushing::default() }
    }

    /// The handle behind it.
    pub fn batcher(&self) -> &Batcher<T> {
        &self.batcher
    }

    fn return_capacity(&mut self) {
        if let Some(room) = self.room.take() {
            self.batcher.shared().return_capacity(room);
        }
    }
}

impl<T> Sink<T> for BatcherSink<T> {
    type Error = SinkError<T>;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SinkError<T>>> {
        let this = self.get_mut();
        if this.room.is_none() {
            let need = this.wait.need;
            let room = ready!(this.wait.poll(this.batcher.shared(), cx, |_| need));
            this.room = Some(room.map_err(|Closed| SinkError::Closed)?);
        }
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, item: T) -> Result<(), SinkError<T>> {
        let this = self.get_mut();
        let shared = this.batcher.shared();
        // Who did not wait until it was ready takes the room that there is.
        let sent = match this.room {
            Some(room) => {
                // Before the room is given up: weighing is the user's code, and may panic.
                let weight = shared.weigh(&item);
                this.room = None;
                shared.send_reserved(room, item, weight).map_err(|error| match error {
                    SendError::Closed(item) => TrySendError::Closed(item),
                    SendError::TooHeavy(item) => TrySendError::TooHeavy(item),
                })
            }
            None => this.batcher.try_send(item),
        };
        sent.map(|()| this.flushing.sent()).map_err(SinkError::Send)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SinkError<T>>> {
        let this = self.get_mut();
        this.flushing.poll(this.batcher.shared(), cx)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SinkError<T>>> {
        let this = &mut *self;
        this.wait.leave(this.batcher.shared());
        this.return_capacity();
        self.poll_flush(cx)
    }
}

// Nothing in it is pinned.
impl<T> Unpin for BatcherSink<T> {}

impl<T> Drop for BatcherSink<T> {
    fn drop(&mut self) {
        self.wait.leave(self.batcher.shared());
        self.return_capacity();
        self.flushing.forget(self.batcher.shared());
    }
}

impl<T> fmt::Debug for BatcherSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatcherSink")
            .field("batcher", &self.batcher)
            .field("ready", &self.room.is_some())
            .finish_non_exhaustive()
    }
}

/// The flushes of a sink, one after the other.
#[derive(Default)]
pub(super) struct Flushing {
    ticket: Option<flush::FlushId>,
    /// Whether an item was sent since that flush began, which it does not cover.
    sent_since: bool,
    /// What came of the flushes that did not cover everything.
    flushed: FlushReport,
}

impl Flushing {
    /// An item was accepted.
    pub(super) fn sent(&mut self) {
        self.sent_since = true;
    }

    pub(super) fn poll<T, L: Buffers<T>, I>(
        &mut self,
        shared: &Shared<T, L>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SinkError<I>>> {
        let unit = ready!(coop::poll_proceed(cx));
        loop {
            let ticket = *self.ticket.get_or_insert_with(|| {
                self.sent_since = false;
                shared.flush()
            });
            let Some(report) = shared.poll_flush(ticket, cx.waker()) else { return Poll::Pending };
            self.flushed.merge(&report);
            shared.forget_flush(ticket);
            self.ticket = None;
            // One that was begun and left alone, as a stream that is forwarded does whenever it has
            // nothing, covers less than was sent by now.
            if !self.sent_since {
                break;
            }
        }
        unit.made_progress();
        let report = mem::take(&mut self.flushed);
        Poll::Ready(if report.all_delivered() {
            Ok(())
        } else {
            Err(SinkError::Undelivered(report))
        })
    }

    pub(super) fn forget<T, L: Buffers<T>>(&mut self, shared: &Shared<T, L>) {
        if let Some(ticket) = self.ticket.take() {
            shared.forget_flush(ticket);
        }
    }
}

/// What a [`BatcherSink`], or a [`KeyedBatcherSink`](super::KeyedBatcherSink), could not do.
#[non_exhaustive]
pub enum SinkError<T> {
    /// The batcher takes no more items.
    Closed,
    /// The item was not accepted; here it is.
    Send(TrySendError<T>),
    /// A flush ended, but not every item was delivered.
    Undelivered(FlushReport),
}

impl<T> fmt::Debug for SinkError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("Closed"),
            Self::Send(error) => f.debug_tuple("Send").field(error).finish(),
            Self::Undelivered(report) => f.debug_tuple("Undelivered").field(report).finish(),
        }
    }
}

impl<T> fmt::Display for SinkError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => Closed.fmt(f),
            Self::Send(error) => error.fmt(f),
            Self::Undelivered(FlushReport { delivered, failed, unsent, indeterminate }) => write!(
                f,
                "of the items flushed {delivered} were delivered, {failed} failed, {unsent} were not \
                 sent, and of {indeterminate} it is not known"
            ),
        }
    }
}

impl<T> Error for SinkError<T> {}
