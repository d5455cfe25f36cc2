//! Many fallible things at once, never more than so many, and every outcome in order.

mod all_settled;
mod attempts;
mod budget;
mod builder;
#[cfg_attr(not(any(feature = "tokio", loom)), path = "executor/no_clock.rs")]
mod clock;
#[cfg(loom)]
#[doc(hidden)]
pub mod model;
mod observe;
mod options;
mod order;
mod outlet;
mod pages;
mod places;
mod run;
mod source;
mod spawned;
mod stop;
mod summary;
mod throttling;
mod trials;
mod wakes;
mod weight;

use core::future::{Future, poll_fn};

use futures_core::Stream;

pub use all_settled::AllSettled;
pub use attempts::{Attempts, DeadLetter, DeadLetters, NoDeadLetters, Once, Retrying, ToSink};
pub use builder::BatchExecutorBuilder;
pub use observe::{BatchEvent, ItemReport};
pub use order::{ByKey, Keys, SideBySide};
pub use pages::{Page, Paged, PagesSummary};
pub use source::{Inputs, OfIterator, OfStream};
pub use spawned::{BatchHandle, BatchStream, Finished, Joined};
pub use stop::{Stop, StopToken};
pub use summary::{BatchEnd, BatchSummary};
pub use weight::{Alike, ByWeight, Weigher};

use crate::error::ConfigError;
use crate::settled::Settled;
use observe::tell;
use options::Options;
use outlet::{Collected, Outlet, Slots, Sunk};
use run::Run;
use source::Own;

/// Runs many fallible things at once, never more than so many, and keeps every outcome:
/// `Promise.allSettled` with a bound.
///
/// It replaces loops that await one thing after another, unbounded `join_all`s, and buffered
/// streams that stall when nobody polls them.
///
/// | | inputs | outcomes | memory |
/// | --- | --- | --- | --- |
/// | [`all_settled`](Self::all_settled) | iterator | a list in input order | one outcome an input |
/// | [`settle_into`](Self::settle_into) | iterator | to slots of the caller's, as they settle | one outcome an input |
/// | [`for_each`](Self::for_each) | iterator, endless if need be | to a sink, as they settle | bounded by the limit |
/// | [`for_each_stream`](Self::for_each_stream) | stream, endless if need be | to a sink, as they settle | bounded by the limit |
/// | [`spawn`](Self::spawn), [`spawn_on`](Self::spawn_on) | iterator or stream | joined, or a stream of them | one outcome an input; with a stream, bounded by the limit |
/// | [`by_key(…)`](Self::by_key)`.` any of these | the same | the same | the same |
/// | [`by_weight(…)`](Self::by_weight)`.` any of these | the same | the same | the same |
///
/// # What holds
///
/// - Each pulled input has exactly one outcome, and outcome `i` is that of input `i`.
/// - An input is pulled only when there is room: what has been pulled and has not settled, together
///   with outcomes that wait for the sink, is never more than the limit.
/// - A failure or a panic of one item changes no other item's outcome.
/// - The work goes on while the sink is busy.
/// - What runs is never more than the limit, nor, over all executors that share one, than the
///   [budget](BatchExecutorBuilder::budget).
/// - Nothing is pulled after a [stop](BatchExecutorBuilder::stop), the deadline or the end.
/// - Dropping a run at any time drops every future and every input in hand once, and gives back
///   every permit.
///
/// # When not to use it
///
/// In the task, which is everything but [`spawn`](Self::spawn), items overlap in waiting, not in
/// computing; and also spawned, items of one worker do. Work that keeps a core busy for long wants
/// threads of its own. A single call wants no executor, and a bound shared by unrelated callers is
/// a semaphore.
///
/// No method that runs in the task returns a stream of outcomes, on purpose: a stream is not polled
/// while its consumer is busy, and then everything in it stalls, with whatever locks and permits it
/// holds. The sink is polled beside the work instead. Streams come from the spawned flavour, whose
/// work is polled by workers of its own.
///
/// # Fairness
///
/// Inputs start in input order, also those of one key. All items that were woken since the last time
/// are polled once, up to 64 neighbours at a time in the order of their places, before any of them
/// is polled again. A run gives way to the other tasks of its thread after a bounded number of polls,
/// also if its items are always ready, and new items take turns with woken ones.
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
/// so that an item costs no allocation beside what its future takes itself; what is ready when it
/// is first polled does not even take a place. Each place has a waker of its own, which sets a bit
/// in a word of 64; a poll of the run takes the words that were woken, and polls nothing else.
/// Spawned, there is such a run on each worker, and they meet in two places alone: where they take
/// inputs, several at a time if items are short, and where they bring outcomes. Any runtime will
/// do; only [`spawn`](Self::spawn) and the two time limits need tokio's.
#[derive(Debug, Clone)]
pub struct BatchExecutor<K = SideBySide, W = Alike, A = Once> {
    options: Options,
    keys: K,
    weigher: W,
    attempts: A,
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
}

impl<K, W, A> BatchExecutor<K, W, A> {
    /// How many items of a batch may be in hand at once.
    pub fn limit(&self) -> usize {
        self.options.limit
    }

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
    /// fact beside the outcomes: [`BatchEnd::SourcePanicked`]. (`Promise.allSettled` closes what
    /// throws and rejects at once, and the outcomes are lost.) Nor does an iterator that fails have
    /// to give up what settled: let it end, and keep its error.
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
    /// [`Settled::Panicked`]. A panic in dropping a future that has
    /// already settled, or the iterator or `f` of a run that is done, changes nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels every item that runs, by dropping its future once, and loses
    /// the outcomes so far. What must survive goes to slots of the caller's
    /// ([`settle_into`](Self::settle_into)) or to a sink ([`for_each`](Self::for_each)).
    ///
    /// # Complexity
    ///
    /// O(1) an item; memory for one outcome an input, and for as many futures as ran at once.
    pub fn all_settled<I, F, Fut, T, E>(
        &self,
        inputs: I,
        f: F,
    ) -> impl Future<Output = AllSettled<T, E>> + use<I, F, Fut, T, E, K, W, A>
    where
        I: IntoIterator,
        F: FnMut(I::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        K: Keys<I::Item> + Clone,
        W: Weigher<I::Item> + Clone,
        A: Attempts<I::Item, E> + Clone,
    {
        let executor = self.clone();
        async move {
            let inputs = OfIterator(inputs.into_iter());
            let outlet = Collected::with_room_for(inputs.at_least());
            let (outlet, summary, reports) = executor.run(inputs, f, outlet).await;
            AllSettled { outcomes: outlet.into_outcomes(), summary, reports }
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
    /// `slots` with all that has settled.
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
    ) -> impl Future<Output = BatchSummary> + use<'a, I, F, Fut, T, E, K, W, A>
    where
        I: IntoIterator,
        F: FnMut(I::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        K: Keys<I::Item> + Clone,
        W: Weigher<I::Item> + Clone,
        A: Attempts<I::Item, E> + Clone,
    {
        let executor = self.clone();
        async move {
            let inputs = OfIterator(inputs.into_iter());
            // As much as promised, if that is a number to believe.
            let _ = slots.try_reserve(inputs.at_least());
            executor.run(inputs, f, Slots::new(slots)).await.1
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
    ) -> impl Future<Output = BatchSummary> + use<I, F, Fut, T, E, S, SFut, K, W, A>
    where
        I: IntoIterator,
        F: FnMut(I::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        S: FnMut(usize, Settled<T, E>) -> SFut,
        SFut: Future<Output = ()>,
        K: Keys<I::Item> + Clone,
        W: Weigher<I::Item> + Clone,
        A: Attempts<I::Item, E> + Clone,
    {
        let executor = self.clone();
        async move {
            let inputs = OfIterator(inputs.into_iter());
            executor.run(inputs, f, Sunk::new(sink)).await.1
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
    ) -> impl Future<Output = BatchSummary> + use<St, F, Fut, T, E, S, SFut, K, W, A>
    where
        St: Stream,
        F: FnMut(St::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        S: FnMut(usize, Settled<T, E>) -> SFut,
        SFut: Future<Output = ()>,
        K: Keys<St::Item> + Clone,
        W: Weigher<St::Item> + Clone,
        A: Attempts<St::Item, E> + Clone,
    {
        let executor = self.clone();
        async move { executor.run(OfStream(Box::pin(inputs)), f, Sunk::new(sink)).await.1 }
    }

    /// The same executor with items of one key one at a time and in input order, and items of
    /// different keys side by side: what consumers of a partitioned log need.
    ///
    /// An item that waits for its key has been pulled, so it counts towards the limit: a hot key
    /// can fill all the room with items that wait. If `key`, or hashing or comparing a key, panics,
    /// that item's outcome is the panic and the others go on. A key is kept while an item of its is
    /// in hand, so there are never more keys than the limit.
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
    pub fn by_key<I, Key, F>(self, key: F) -> BatchExecutor<ByKey<F>, W, A>
    where
        F: Fn(&I) -> Key + Clone,
    {
        BatchExecutor {
            options: self.options,
            keys: ByKey(key),
            weigher: self.weigher,
            attempts: self.attempts,
        }
    }

    /// The same executor with items that take as many permits of the
    /// [budget](BatchExecutorBuilder::budget) as `weight` says or, if there is none, of as many as
    /// the limit, for each batch anew.
    ///
    /// A weight of 0 counts as 1, and one that is more than all the permits as all of them, so that
    /// a heavy item runs alone. Strictly first come, first served: a light item does not pass a
    /// heavy one that waits. If `weight` panics, that item's outcome is the panic.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// let files = [("a", 700_u32), ("b", 200), ("c", 100)];
    /// let outcomes = sluicegate::BatchExecutor::new(1_000)?
    ///     .by_weight(|file: &(&str, u32)| file.1)
    ///     .all_settled(files, async |(name, kilobytes)| Ok::<_, ()>((name, kilobytes)))
    ///     .await;
    /// assert_eq!(outcomes.len(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn by_weight<I, F>(self, weight: F) -> BatchExecutor<K, ByWeight<F>, A>
    where
        F: FnMut(&I) -> u32,
    {
        BatchExecutor {
            options: self.options,
            keys: self.keys,
            weigher: ByWeight(weight),
            attempts: self.attempts,
        }
    }

    /// The same executor with items that are tried again when they fail, as `retry` says.
    ///
    /// An item that waits for its retry gives its permit back meanwhile; see
    /// [`backlog`](BatchExecutorBuilder::backlog) for how many may wait. Retries that are due go
    /// before new inputs. A retry that would begin after the
    /// [`deadline`](BatchExecutorBuilder::deadline) is not waited for: the item settles at once, as
    /// its last attempt did. A panic is never retried. A drain lets what waits for its retry come to
    /// its outcome; an abort cancels it.
    ///
    /// # Each attempt gets a clone of the input
    ///
    /// A reference will not do: the future of an attempt would borrow from the input beside which
    /// it is kept, which the types of futures cannot say without a box for each, and tasks of their
    /// own do not allow. Inputs that are dear to clone go in an [`Arc`](std::sync::Arc). The
    /// original stays here, untouched by whatever an attempt does to its clone.
    ///
    /// # Outcomes
    ///
    /// The last attempt's: [`Rejected`](crate::Settled::Rejected) with its error, or
    /// [`TimedOut`](crate::Settled::TimedOut) if its `attempt_timeout` passed. Earlier errors are
    /// dropped, but for the last of them in `TimedOut` and `Cancelled`. If the choice of errors or
    /// the iterator of waits panics, there is no other attempt.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// use std::cell::Cell;
    /// use sluicegate::{BatchExecutor, Retry};
    ///
    /// let calls = Cell::new(0);
    /// let executor = BatchExecutor::builder().limit(10).backlog(100).build()?.retry(Retry::jobs());
    /// let outcomes = executor
    ///     .all_settled(["a", "b"], async |name| {
    ///         calls.set(calls.get() + 1);
    ///         if calls.get() <= 2 { Err("busy") } else { Ok(name) }
    ///     })
    ///     .await;
    /// assert!(outcomes.summary().is_complete());
    /// assert_eq!(calls.get(), 4);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(any(feature = "tokio", loom))]
    pub fn retry<E>(
        self,
        retry: impl Into<crate::RetryWhen<E>>,
    ) -> BatchExecutor<K, W, Retrying<E>> {
        BatchExecutor {
            options: self.options,
            keys: self.keys,
            weigher: self.weigher,
            attempts: Retrying { retry: retry.into(), dead_letters: NoDeadLetters },
        }
    }

    /// Runs `f` on every input on tokio's workers: the spawned flavour of
    /// [`all_settled`](Self::all_settled) and [`for_each`](Self::for_each), for work that keeps
    /// cores busy.
    ///
    /// It begins at once. As many tasks as the runtime has workers, or as the limit if that is
    /// less, each pull from the input, in chunks if items are short, and each run a share of the
    /// limit side by side. With [`by_key`](Self::by_key) a key belongs to one of them. So items of
    /// one task overlap in waiting, and those of different tasks in computing too.
    ///
    /// Everything that holds of the other methods holds here, but for one: inputs are pulled in
    /// input order, and start in that order only within a task, or if the limit is 1.
    ///
    /// # Panics
    ///
    /// If it is called outside of a tokio runtime.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// use sluicegate::{BatchExecutor, Settled};
    ///
    /// let squares = BatchExecutor::new(64)?.spawn(0..1_000, async |n: u64| Ok::<_, ()>(n * n));
    /// let joined = squares.join().await;
    /// assert_eq!(Settled::all_fulfilled(joined.outcomes).unwrap()[999], 998_001);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(all(feature = "tokio", not(loom)))]
    pub fn spawn<I, F, Fut, T, E>(
        &self,
        inputs: I,
        f: F,
    ) -> BatchHandle<OfIterator<I::IntoIter>, T, E>
    where
        I: IntoIterator,
        I::IntoIter: Send + 'static,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
        K: Keys<I::Item> + Clone + Send + Sync + 'static,
        K::Order: Send,
        W: Weigher<I::Item> + Clone + Send + 'static,
        A: Attempts<I::Item, E> + Clone + Send + 'static,
    {
        self.spawn_on(tokio_workers(), inputs, f, spawn_on_tokio)
    }

    /// As [`spawn`](Self::spawn), with the inputs from a stream.
    ///
    /// # Panics
    ///
    /// If it is called outside of a tokio runtime.
    #[cfg(all(feature = "tokio", not(loom)))]
    pub fn spawn_stream<St, F, Fut, T, E>(
        &self,
        inputs: St,
        f: F,
    ) -> BatchHandle<OfStream<St>, T, E>
    where
        St: Stream + Send + 'static,
        St::Item: Send + 'static,
        F: Fn(St::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
        K: Keys<St::Item> + Clone + Send + Sync + 'static,
        K::Order: Send,
        W: Weigher<St::Item> + Clone + Send + 'static,
        A: Attempts<St::Item, E> + Clone + Send + 'static,
    {
        let inputs = OfStream(Box::pin(inputs));
        spawned::divide(self.clone(), tokio_workers(), inputs, f, spawn_on_tokio)
    }

    /// As [`spawn`](Self::spawn), on whatever runtime or threads: `spawn` is called with the
    /// future of each worker, of which there are so many, but not more than the limit.
    ///
    /// A worker that is dropped before it is done accounts for what it had in hand: the outcome of
    /// each is [`Cancelled`](crate::Settled::Cancelled).
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// let executor = sluicegate::BatchExecutor::new(64)?;
    /// let spawn = |work| drop(tokio::spawn(work));
    /// let batch = executor.spawn_on(2, 0..100, async |n: u64| Ok::<_, ()>(n + 1), spawn);
    /// assert!(batch.join().await.outcomes.summary().is_complete());
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn_on<I, F, Fut, T, E>(
        &self,
        workers: usize,
        inputs: I,
        f: F,
        spawn: impl FnMut(core::pin::Pin<Box<dyn Future<Output = ()> + Send>>),
    ) -> BatchHandle<OfIterator<I::IntoIter>, T, E>
    where
        I: IntoIterator,
        I::IntoIter: Send + 'static,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
        K: Keys<I::Item> + Clone + Send + Sync + 'static,
        K::Order: Send,
        W: Weigher<I::Item> + Clone + Send + 'static,
        A: Attempts<I::Item, E> + Clone + Send + 'static,
    {
        spawned::divide(self.clone(), workers, OfIterator(inputs.into_iter()), f, spawn)
    }

    /// Runs a batch to its end.
    async fn run<N, F, Fut, T, E, O>(
        self,
        inputs: N,
        f: F,
        outlet: O,
    ) -> (O, BatchSummary, Vec<ItemReport>)
    where
        N: Inputs,
        F: FnMut(N::Input) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        K: Keys<N::Input>,
        W: Weigher<N::Input>,
        A: Attempts<N::Input, E>,
        O: Outlet<N::Input, T, E>,
    {
        let Self { options, keys, weigher, attempts } = self;
        let batch = options.batch(W::WEIGHS);
        let mut run = Run::new(batch, Own::new(inputs), f, keys.order(), weigher, attempts, outlet);
        poll_fn(|cx| run.poll(cx)).await;
        let (outlet, summary, reports) = run.into_parts();
        tell(options.observer.as_ref(), BatchEvent::Ended { summary: &summary });
        (outlet, summary, reports)
    }
}

#[cfg(any(feature = "tokio", loom))]
impl<K, W, E> BatchExecutor<K, W, Retrying<E>> {
    /// The same executor, with a function that gets each item that failed for good: the
    /// [input](DeadLetter::input) itself, of which the attempts had clones, and why.
    ///
    /// It is called once for each outcome that is rejected, panicked or timed out, where the run is
    /// polled, before the outcome goes where outcomes go. What was cancelled has not failed, and
    /// neither has what panicked before its first attempt, in the key or the weight. A panic of the
    /// function is caught and changes nothing.
    ///
    /// For a batch without retries, say [`Retry::none`](crate::Retry::none) first.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// use std::cell::RefCell;
    /// use sluicegate::{BatchExecutor, Retry, executor::DeadLetter};
    ///
    /// let dead = RefCell::new(Vec::new());
    /// let executor = BatchExecutor::new(3)?
    ///     .retry(Retry::jobs())
    ///     .dead_letters(|letter: DeadLetter<'_, String, &str>| {
    ///         dead.borrow_mut().push((letter.input, letter.attempts));
    ///     });
    /// let names = ["ann", "bob"].map(String::from);
    /// let outcomes = executor
    ///     .all_settled(names, async |name| if name == "bob" { Err("gone") } else { Ok(()) })
    ///     .await;
    /// assert_eq!(outcomes[1].to_string(), "rejected: gone");
    /// assert_eq!(dead.take(), [("bob".to_string(), 3)]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn dead_letters<I, F>(self, sink: F) -> BatchExecutor<K, W, Retrying<E, ToSink<F>>>
    where
        F: Fn(DeadLetter<'_, I, E>) + Clone,
    {
        BatchExecutor {
            options: self.options,
            keys: self.keys,
            weigher: self.weigher,
            attempts: Retrying { retry: self.attempts.retry, dead_letters: ToSink(sink) },
        }
    }
}

#[cfg(all(feature = "tokio", not(loom)))]
fn tokio_workers() -> usize {
    tokio::runtime::Handle::current().metrics().num_workers()
}

#[cfg(all(feature = "tokio", not(loom)))]
fn spawn_on_tokio(work: core::pin::Pin<Box<dyn Future<Output = ()> + Send>>) {
    // Nobody joins it: the batch's handle does, through what it shares with its workers.
    drop(tokio::spawn(work));
}
