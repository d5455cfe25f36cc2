//! Batches that run in the task that polls them.

use core::future::{Future, poll_fn};

use futures_core::Stream;

use super::BatchExecutor;
use super::all_settled::AllSettled;
use super::observe::{BatchEvent, tell};
use super::outcome_sink::{CallerSink, CallerSlots, Collected, OutcomeSink};
use super::policies::Policy;
use super::run::{InTask, Run};
use super::source::{Inputs, IterInputs, Own, StreamInputs};
use super::summary::BatchSummary;
use crate::settled::Settled;

impl<P> BatchExecutor<P> {
    /// Runs `f` on every input and gives all outcomes in input order.
    ///
    /// The future borrows nothing from the executor; what `inputs` and `f` borrow it may, and
    /// nothing need be `Send` or `'static`. Nothing happens before it is polled.
    ///
    /// # Returns
    ///
    /// One outcome for each pulled input: as many as there are inputs, unless the batch was
    /// stopped, which [`AllSettled::end`] tells. Inputs that were not pulled then are still in the
    /// iterator, untouched, for those who lend it ([`Iterator::by_ref`]).
    ///
    /// If the iterator panics, everything pulled before runs to its outcome, and the panic is a
    /// fact beside the outcomes: [`BatchEnd::SourcePanicked`](super::BatchEnd::SourcePanicked).
    /// (`Promise.allSettled` closes what throws and rejects at once, and the outcomes are lost.)
    /// Nor does an iterator that fails have to give up what settled: let it end, and keep its
    /// error.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// let rows = ["1", "2", "three", "4"].iter().map(|row| row.parse::<u32>());
    ///
    /// let mut broken = None;
    /// let readable = rows.map_while(|row| row.map_err(|error| broken = Some(error)).ok());
    /// let executor = sluicegate::BatchExecutor::new(2)?;
    /// let outcomes = executor.all_settled(readable, async |n| Ok::<_, ()>(n * n)).await;
    ///
    /// assert_eq!(outcomes.len(), 2);
    /// assert_eq!(broken.unwrap().to_string(), "invalid digit found in string");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Never: panics of `f` and of its futures are outcomes,
    /// [`ItemError::Panicked`](crate::ItemError::Panicked). A panic in dropping a future that has already settled, or whatever
    /// else a run has when it is done or dropped, goes no further.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels every item that runs, by dropping its future once, and loses
    /// the outcomes so far. What must survive goes to slots of the caller's
    /// ([`settle_into`](Self::settle_into)) or to a sink ([`for_each`](Self::for_each)). The inputs of
    /// what it cancels go to the [dead letters](Self::dead_letter).
    ///
    /// # Complexity
    ///
    /// O(1) an item; memory for one outcome an input, and for as many futures as ran at once.
    pub fn all_settled<I, F, Fut, T, E>(
        &self,
        inputs: I,
        f: F,
    ) -> impl Future<Output = AllSettled<T, E>> + use<I, F, Fut, T, E, P>
    where
        I: IntoIterator,
        F: FnMut(I::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        P: Policy<I::Item, E>,
    {
        let executor = self.clone();
        async move {
            let inputs = IterInputs(inputs.into_iter());
            let sink = Collected::with_room_for(inputs.at_least());
            let (sink, summary) = executor.run(inputs, f, sink).await;
            AllSettled { outcomes: sink.into_outcomes(), summary }
        }
    }

    /// As [`all_settled`](Self::all_settled), with each outcome put into a slot of the caller's as
    /// soon as it is there, so that what has settled survives when the run is dropped.
    ///
    /// Input `i` has the slot `i` behind those that there were before. A slot of an input that has
    /// not settled is `None`, and the vector may end before it.
    ///
    /// # Returns
    ///
    /// The counts, and why the run ended.
    ///
    /// # Panics
    ///
    /// Never, as [`all_settled`](Self::all_settled).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels every item that runs, by dropping its future once, and leaves
    /// `slots` with all that has settled. The inputs of what it cancels go to the
    /// [dead letters](Self::dead_letter).
    ///
    /// # Complexity
    ///
    /// O(1) an item.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// use std::time::Duration;
    /// use tokio::time::{sleep, timeout};
    ///
    /// let mut slots = Vec::new();
    /// let executor = sluicegate::BatchExecutor::new(3)?;
    /// let run = executor.settle_into(&mut slots, [1, 10_000, 2], async |ms| {
    ///     sleep(Duration::from_millis(ms)).await;
    ///     Ok::<_, ()>(ms)
    /// });
    /// assert!(timeout(Duration::from_millis(200), run).await.is_err());
    ///
    /// assert!(slots[0].is_some() && slots[1].is_none() && slots[2].is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn settle_into<'a, I, F, Fut, T, E>(
        &self,
        slots: &'a mut Vec<Option<Settled<T, E>>>,
        inputs: I,
        f: F,
    ) -> impl Future<Output = BatchSummary> + use<'a, I, F, Fut, T, E, P>
    where
        I: IntoIterator,
        F: FnMut(I::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        P: Policy<I::Item, E>,
    {
        let executor = self.clone();
        async move {
            let inputs = IterInputs(inputs.into_iter());
            // As much as promised, if that is a number to believe.
            let _ = slots.try_reserve(inputs.at_least());
            executor.run(inputs, f, CallerSlots::new(slots)).await.1
        }
    }

    /// Runs `f` on every input of an iterator, which may be endless, and hands each outcome to
    /// `sink` with the index of its input, as they settle.
    ///
    /// The sink is called with one outcome at a time. Its future is polled beside the work: while
    /// it is busy, what runs goes on, and new inputs start until outcomes that wait for it have
    /// taken all the room.
    ///
    /// # Returns
    ///
    /// When the source has ended and the sink is done with the last outcome: the counts, and why
    /// the run ended. If the iterator panics, what had been pulled runs to its outcome and through
    /// the sink, and the panic is in the summary.
    ///
    /// # Panics
    ///
    /// If the sink or its future panics: the panic goes on from here, as from any code of the
    /// caller's, and the run is dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels every item that runs, and the sink with the outcome it is busy
    /// with. What the sink was done with is done; at most `limit` outcomes were waiting for it. The
    /// inputs of what it cancels go to the [dead letters](Self::dead_letter).
    ///
    /// # Complexity
    ///
    /// O(1) an item; memory bounded by the limit, however long the input.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// use std::future::ready;
    ///
    /// let mut even = Vec::new();
    /// let summary = sluicegate::BatchExecutor::new(4)?
    ///     .for_each(
    ///         0..10,
    ///         async |n| if n % 2 == 0 { Ok(n) } else { Err("odd") },
    ///         |_index, outcome| {
    ///             even.extend(outcome.ok());
    ///             ready(())
    ///         },
    ///     )
    ///     .await;
    ///
    /// assert_eq!(even, [0, 2, 4, 6, 8]);
    /// assert_eq!(summary.to_string(), "5 fulfilled, 5 rejected; exhausted");
    /// # Ok(())
    /// # }
    /// ```
    pub fn for_each<I, F, Fut, T, E, S, SFut>(
        &self,
        inputs: I,
        f: F,
        sink: S,
    ) -> impl Future<Output = BatchSummary> + use<I, F, Fut, T, E, S, SFut, P>
    where
        I: IntoIterator,
        F: FnMut(I::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        S: FnMut(usize, Settled<T, E>) -> SFut,
        SFut: Future<Output = ()>,
        P: Policy<I::Item, E>,
    {
        let executor = self.clone();
        async move {
            let inputs = IterInputs(inputs.into_iter());
            executor.run(inputs, f, CallerSink::new(sink)).await.1
        }
    }

    /// As [`for_each`](Self::for_each), with the inputs from a stream.
    ///
    /// The stream is polled only when there is room for its next item, and not again after its
    /// end.
    ///
    /// # Returns
    ///
    /// As [`for_each`](Self::for_each). A stream that panics is reported as an iterator is.
    ///
    /// # Panics
    ///
    /// If the sink or its future panics.
    ///
    /// # Cancel safety
    ///
    /// As [`for_each`](Self::for_each). No input is lost between the stream and `f`: in the poll
    /// that pulls it, it starts or begins to wait for its key.
    ///
    /// # Complexity
    ///
    /// O(1) an item; memory bounded by the limit, however long the input.
    pub fn for_each_stream<St, F, Fut, T, E, S, SFut>(
        &self,
        inputs: St,
        f: F,
        sink: S,
    ) -> impl Future<Output = BatchSummary> + use<St, F, Fut, T, E, S, SFut, P>
    where
        St: Stream,
        F: FnMut(St::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        S: FnMut(usize, Settled<T, E>) -> SFut,
        SFut: Future<Output = ()>,
        P: Policy<St::Item, E>,
    {
        let executor = self.clone();
        async move { executor.run(StreamInputs(Box::pin(inputs)), f, CallerSink::new(sink)).await.1 }
    }

    /// Runs a batch to its end.
    pub(super) async fn run<N, F, Fut, T, E, O>(self, inputs: N, f: F, sink: O) -> (O, BatchSummary)
    where
        N: Inputs,
        F: FnMut(N::Input) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        P: Policy<N::Input, E>,
        O: OutcomeSink<N::Input, T, E>,
    {
        let Self { options, policy } = self;
        let batch = options.batch(P::WEIGHS);
        let run = Run::new(batch, Own::new(inputs), f, policy, sink);
        let mut run = InTask::new(run);
        poll_fn(|cx| run.poll(cx)).await;
        let (sink, summary) = run.into_done().into_parts();
        tell(options.observer.as_ref(), BatchEvent::Ended { summary: &summary });
        (sink, summary)
    }
}
