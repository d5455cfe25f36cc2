//! The outcomes of a spawned batch, one by one.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use futures_core::Stream;

use super::shared::{BatchOutput, BatchShared};
use crate::executor::source::Inputs;
use crate::executor::stop::{Stop, StopToken};
use crate::executor::summary::BatchSummary;
use crate::settled::Settled;

/// The outcomes of a spawned batch, each with the index of its input; made by
/// [`BatchHandle::into_stream`](super::BatchHandle::into_stream) and
/// [`into_ordered_stream`](super::BatchHandle::into_ordered_stream).
///
/// The work is not polled by the stream but by workers of its own: a consumer that is slow, or waits
/// for a lock that an item holds, stalls nothing but what would go beyond the limit.
///
/// It ends when every input that was pulled has settled and was taken. Dropping it aborts the
/// batch, as dropping the handle does.
#[must_use = "dropping the stream aborts the batch"]
pub struct BatchStream<N: Inputs, T, E> {
    /// `None` when it has turned into something else.
    shared: Option<Arc<BatchShared<N, T, E>>>,
    stop: StopToken,
}

/// What there is beside the outcomes, when a stream of them has ended.
#[non_exhaustive]
#[must_use = "it tells whether the input was exhausted, and holds what was not pulled"]
pub struct StreamEnd<N: Inputs> {
    /// The counts, and why the batch ended.
    pub summary: BatchSummary,
    /// The input with what was not pulled, untouched; `None` if it panicked.
    pub rest: Option<N::Rest>,
    /// Inputs that were pulled and not started when the batch was aborted, each with its index.
    pub not_started: Vec<(usize, N::Input)>,
}

impl<N: Inputs, T, E> BatchStream<N, T, E> {
    pub(super) fn new(shared: Option<Arc<BatchShared<N, T, E>>>, stop: StopToken) -> Self {
        Self { shared, stop }
    }

    /// Stops the batch; the stream goes on with the outcomes of all that was pulled.
    pub fn stop(&self, how: Stop) {
        self.stop.stop(how);
    }

    /// What there is beside the outcomes.
    ///
    /// # Errors
    ///
    /// The stream itself, if it has not ended.
    pub fn finish(mut self) -> Result<StreamEnd<N>, Self> {
        match self.shared.as_ref().and_then(|shared| shared.stream_output()) {
            Some(BatchOutput { inputs, not_started, summary, .. }) => {
                self.shared = None;
                let rest = inputs.map(|inputs| inputs.into_rest());
                Ok(StreamEnd { summary, rest, not_started })
            }
            None => Err(self),
        }
    }
}

/// # Cancel safety
///
/// An outcome leaves the batch in the poll that returns it; none is lost between polls.
impl<N: Inputs, T, E> Stream for BatchStream<N, T, E> {
    type Item = (usize, Settled<T, E>);

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &self.shared {
            Some(shared) => shared.poll_next(cx),
            None => Poll::Ready(None),
        }
    }
}

impl<N: Inputs, T, E> Drop for BatchStream<N, T, E> {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            self.stop.stop(Stop::Abort);
            shared.discard();
        }
    }
}

impl<N: Inputs, T, E> fmt::Debug for BatchStream<N, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchStream").field("stop", &self.stop).finish_non_exhaustive()
    }
}

impl<N: Inputs> fmt::Debug for StreamEnd<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamEnd")
            .field("summary", &self.summary)
            .field("not_started", &self.not_started.len())
            .finish_non_exhaustive()
    }
}
