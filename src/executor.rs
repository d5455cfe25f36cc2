//! Many fallible things at once, never more than so many, and every outcome in order.

mod builder;
#[cfg_attr(not(feature = "tokio"), path = "executor/no_clock.rs")]
mod clock;
mod keyed;
mod order;
mod outlet;
mod places;
mod run;
mod source;
mod summary;
#[cfg(feature = "tokio")]
mod timeline;
mod wakes;

use core::future::{Future, poll_fn};

use futures_core::Stream;

pub use builder::BatchExecutorBuilder;
pub use keyed::KeyedExecutor;
pub use summary::{BatchEnd, BatchSummary};

use crate::error::ConfigError;
use crate::settled::Settled;
use clock::TimeLimits;
use order::{Order, SideBySide};
use outlet::{Collected, Sunk};
use run::Run;
use source::{FromIterator, FromStream, Source};

/// Runs many fallible things at once, never more than so many, and keeps every outcome:
/// `Promise.allSettled` with a bound.
///
/// It replaces loops that await one thing after another, unbounded `join_all`s, and buffered
/// streams that stall when nobody polls them.
///
/// | | inputs | outcomes | memory |
/// | --- | --- | --- | --- |
/// | [`all_settled`](Self::all_settled) | iterator | a `Vec` in input order | one outcome an input |
/// | [`for_each`](Self::for_each) | iterator, endless if need be | to a sink, as they settle | bounded by the limit |
/// | [`for_each_stream`](Self::for_each_stream) | stream, endless if need be | to a sink, as they settle | bounded by the limit |
/// | [`by_key(…)`](Self::by_key)`.` any of these | the same | the same | the same |
///
/// # What holds
///
/// - Each pulled input has exactly one outcome, and outcome `i` is that of input `i`.
/// - An input is pulled only when there is room: what has been pulled and has not settled, together
///   with outcomes that wait for the sink, is never more than the limit.
/// - A failure or a panic of one item changes no other item's outcome.
/// - The work goes on while the sink is busy.
/// - Dropping a run at any time drops every future and every input in hand once.
///
/// # When not to use it
///
/// All items run in the caller's task: they overlap in waiting, not in computing. Work that keeps
/// a core busy wants tasks or threads of its own. A single call wants no executor, and a bound
/// shared by unrelated callers is a semaphore.
///
/// There is no method that returns a stream of outcomes, on purpose: a stream is not polled while
/// its consumer is busy, and then everything in it stalls, with whatever locks and permits it
/// holds. The sink is polled beside the work instead.
///
/// # Fairness
///
/// Inputs start in input order, also those of one key. Woken items are polled in the order in which
/// they were woken. A run gives way to the other tasks of its thread after a bounded number of
/// polls, also if its items are always ready, and new items take turns with woken ones.
///
/// # Example
///
/// ```
/// use sluicegate::{BatchExecutor, Settled};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sluicegate::ConfigError> {
/// let prices = ["3", "free", "14"];
/// let executor = BatchExecutor::new(2)?;
/// let outcomes = executor.all_settled(prices, async |price: &str| price.parse::<u32>()).await;
///
/// assert!(matches!(outcomes[0], Settled::Fulfilled(3)));
/// assert_eq!(outcomes[1].to_string(), "rejected: invalid digit found in string");
/// assert!(matches!(outcomes[2], Settled::Fulfilled(14)));
/// # Ok(())
/// # }
/// ```
///
/// # How it is built
///
/// A run is one future. Its items sit in places that are made when first needed and used again,
/// so that an item costs no allocation beside what its future takes itself. Each place has a waker
/// of its own, which puts the place's number on a list; a poll of the run takes the whole list
/// under one lock and polls what is on it, and nothing else. Any runtime will do; only the two
/// time limits need tokio's.
#[derive(Debug, Clone)]
pub struct BatchExecutor {
    limit: usize,
    limits: TimeLimits,
}

impl BatchExecutor {
    /// An executor that has at most `limit` items in hand, and no time limits.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if `limit` is zero.
    ///
    /// ```
    /// let error = sluicegate::BatchExecutor::new(0).unwrap_err();
    /// assert_eq!(error.to_string(), "`limit` is 0, but must be at least 1");
    /// ```
    pub fn new(limit: usize) -> Result<Self, ConfigError> {
        Self::builder().limit(limit).build()
    }

    /// All options.
    pub fn builder() -> BatchExecutorBuilder {
        BatchExecutorBuilder::default()
    }

    /// How many items may be in hand at once.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Runs `f` on every input and gives all outcomes in input order.
    ///
    /// The future borrows nothing from the executor; what `inputs` and `f` borrow it may, and
    /// nothing need be `Send` or `'static`. Nothing happens before it is polled.
    ///
    /// # Returns
    ///
    /// One outcome for each pulled input: as many as there are inputs, unless a
    /// [`deadline`](BatchExecutorBuilder) stopped the run. Inputs that were not pulled then are
    /// still in the iterator, for those who lend it ([`Iterator::by_ref`]).
    ///
    /// # Panics
    ///
    /// If the iterator panics: everything pulled before runs to its outcome, then its panic goes
    /// on from here, and the outcomes are lost. [`for_each`](Self::for_each) keeps them, and
    /// reports the panic beside them. (`Promise.allSettled` closes what throws and rejects at
    /// once.) Panics of `f` and of its futures are outcomes:
    /// [`Settled::Panicked`](crate::Settled::Panicked). A panic in dropping a future that has
    /// already settled, or the iterator or `f` of a run that is done, changes nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels every item that runs, by dropping its future once, and loses
    /// the outcomes so far. What must survive goes to a sink: [`for_each`](Self::for_each).
    ///
    /// # Complexity
    ///
    /// O(1) an item; memory for one outcome an input, and for as many futures as ran at once.
    pub fn all_settled<I, F, Fut, T, E>(
        &self,
        inputs: I,
        f: F,
    ) -> impl Future<Output = Vec<Settled<T, E>>> + use<I, F, Fut, T, E>
    where
        I: IntoIterator,
        F: FnMut(I::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.clone().collect_all(inputs, f, SideBySide)
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
    /// with. What the sink was done with is done; at most `limit` outcomes were waiting for it.
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
    ///             even.extend(outcome.fulfilled());
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
    ) -> impl Future<Output = BatchSummary> + use<I, F, Fut, T, E, S, SFut>
    where
        I: IntoIterator,
        F: FnMut(I::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        S: FnMut(usize, Settled<T, E>) -> SFut,
        SFut: Future<Output = ()>,
    {
        let executor = self.clone();
        async move {
            let source = FromIterator(inputs.into_iter());
            executor.sink_all(source, f, SideBySide, sink).await
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
    ) -> impl Future<Output = BatchSummary> + use<St, F, Fut, T, E, S, SFut>
    where
        St: Stream,
        F: FnMut(St::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        S: FnMut(usize, Settled<T, E>) -> SFut,
        SFut: Future<Output = ()>,
    {
        self.clone().sink_all(FromStream(Box::pin(inputs)), f, SideBySide, sink)
    }

    /// The same executor with items of one key one at a time and in input order, and items of
    /// different keys side by side.
    ///
    /// An item that waits for its key has been pulled, so it counts towards the limit: a hot key
    /// can fill all the room with items that wait. If `key`, or hashing or comparing a key, panics,
    /// that item's outcome is the panic and the others go on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// let events = [("ann", "follow"), ("bob", "post"), ("ann", "unfollow")];
    /// let outcomes = sluicegate::BatchExecutor::new(8)?
    ///     .by_key(|event: &(&'static str, &str)| event.0)
    ///     .all_settled(events, async |(author, what)| Ok::<_, ()>(format!("{author}: {what}")))
    ///     .await;
    /// assert_eq!(outcomes.len(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn by_key<I: ?Sized, K, KeyFn>(&self, key: KeyFn) -> KeyedExecutor<KeyFn>
    where
        KeyFn: FnMut(&I) -> K,
    {
        KeyedExecutor::new(self.clone(), key)
    }

    async fn collect_all<I, F, Fut, T, E, R>(self, inputs: I, f: F, order: R) -> Vec<Settled<T, E>>
    where
        I: IntoIterator,
        F: FnMut(I::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        R: Order<I::Item>,
    {
        let inputs = inputs.into_iter();
        let outlet = Collected::with_room_for(inputs.size_hint().0);
        let mut run = Run::new(self.limit, self.limits, FromIterator(inputs), f, order, outlet);
        let summary = poll_fn(|cx| run.poll(cx)).await;
        let outcomes = run.into_outlet().into_outcomes();
        if let BatchEnd::SourcePanicked(panic) = summary.into_end() {
            panic.resume();
        }
        outcomes
    }

    async fn sink_all<Src, F, Fut, T, E, R, S, SFut>(
        self,
        source: Src,
        f: F,
        order: R,
        sink: S,
    ) -> BatchSummary
    where
        Src: Source,
        F: FnMut(Src::Input) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        R: Order<Src::Input>,
        S: FnMut(usize, Settled<T, E>) -> SFut,
        SFut: Future<Output = ()>,
    {
        let mut run = Run::new(self.limit, self.limits, source, f, order, Sunk::new(sink));
        let summary = poll_fn(|cx| run.poll(cx)).await;
        drop(run.into_outlet());
        summary
    }
}
