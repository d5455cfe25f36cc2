//! A batch that runs on its own, and what it comes to.

use core::fmt;
use core::future::poll_fn;
use std::sync::Arc;

use super::shared::{BatchOutput, BatchShared, Outcomes};
use super::stream::BatchStream;
use crate::executor::all_settled::AllSettled;
use crate::executor::source::Inputs;
use crate::executor::stop::{Stop, StopToken};

/// A batch that runs on tasks of its own; made by [`BatchExecutor::spawn`](crate::BatchExecutor).
///
/// [`join`](Self::join) waits for all outcomes. [`into_stream`](Self::into_stream) and
/// [`into_ordered_stream`](Self::into_ordered_stream) give them one by one. While there is only
/// the handle the batch runs and its outcomes are kept, one an input.
///
/// Dropping the handle aborts the batch: every future is dropped once, on the worker that runs it,
/// every permit goes back, an observer is told how everything ended, and what was pulled and is not
/// done goes to the [dead letters](crate::BatchExecutor::dead_letter).
#[must_use = "dropping the handle aborts the batch"]
pub struct BatchHandle<N: Inputs, T, E> {
    /// `None` when it has turned into something else.
    shared: Option<Arc<BatchShared<N, T, E>>>,
    stop: StopToken,
}

/// What a spawned batch came to.
#[non_exhaustive]
#[must_use = "outcomes that nobody looks at hide failures"]
pub struct BatchResult<N: Inputs, T, E> {
    /// One outcome for each input that was pulled, in input order, and why the batch ended.
    pub outcomes: AllSettled<T, E>,
    /// The input with what was not pulled, untouched; `None` if it panicked.
    pub rest: Option<N::Rest>,
    /// Inputs that were pulled and not started when the batch was aborted, each with its index:
    /// their outcome is [`Cancelled`](crate::ItemError::Cancelled).
    pub not_started: Vec<(usize, N::Input)>,
}

impl<N: Inputs, T, E> BatchHandle<N, T, E> {
    pub(super) fn new(shared: Arc<BatchShared<N, T, E>>, stop: StopToken) -> Self {
        Self { shared: Some(shared), stop }
    }

    /// Stops the batch; [`join`](Self::join) then gives the outcomes of all that was pulled, and
    /// the rest of the input.
    pub fn stop(&self, how: Stop) {
        self.stop.stop(how);
    }

    /// Stops the batch from elsewhere.
    pub fn stop_token(&self) -> StopToken {
        self.stop.clone()
    }

    /// Waits for all outcomes.
    ///
    /// # Returns
    ///
    /// When every worker is done, with one outcome for each input that was pulled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts the batch, as dropping the handle does.
    ///
    /// # Complexity
    ///
    /// O(1) an item.
    pub async fn join(self) -> BatchResult<N, T, E> {
        let end = poll_fn(|cx| match &self.shared {
            Some(shared) => shared.poll_output(cx),
            None => core::task::Poll::Pending,
        });
        let BatchOutput { outcomes, inputs, not_started, summary } = end.await;
        let outcomes = match outcomes {
            Outcomes::All(all) => all.outcomes,
            _ => Vec::new(),
        };
        BatchResult {
            outcomes: AllSettled { outcomes, summary },
            rest: inputs.map(|inputs| inputs.into_rest()),
            not_started,
        }
    }

    /// The outcomes as they settle, each with the index of its input.
    ///
    /// From now on what was pulled and not taken from the stream is never more than the limit: the
    /// batch waits for a slow consumer, and running items go on meanwhile, on its workers.
    pub fn into_stream(self) -> BatchStream<N, T, E> {
        self.stream(false)
    }

    /// The outcomes in input order, each with the index of its input.
    ///
    /// As [`into_stream`](Self::into_stream); outcomes that wait for one before them count.
    pub fn into_ordered_stream(self) -> BatchStream<N, T, E> {
        self.stream(true)
    }

    fn stream(mut self, in_order: bool) -> BatchStream<N, T, E> {
        let shared = self.shared.take();
        if let Some(shared) = &shared {
            shared.stream(in_order);
        }
        BatchStream::new(shared, self.stop.clone())
    }
}

impl<N: Inputs, T, E> Drop for BatchHandle<N, T, E> {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            self.stop.stop(Stop::Abort);
            shared.discard();
        }
    }
}

impl<N: Inputs, T, E> fmt::Debug for BatchHandle<N, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchHandle").field("stop", &self.stop).finish_non_exhaustive()
    }
}

impl<N: Inputs, T: fmt::Debug, E: fmt::Debug> fmt::Debug for BatchResult<N, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchResult")
            .field("outcomes", &self.outcomes)
            .field("not_started", &self.not_started.len())
            .finish_non_exhaustive()
    }
}
