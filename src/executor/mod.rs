//! Many fallible things at once, never more than so many, and every outcome in order.

mod all_settled;
mod attempts;
mod builder;
mod in_task;
mod limits;
mod observe;
mod options;
mod order;
mod outcome_sink;
mod owned;
mod pages;
mod permits;
mod policies;
mod ready_queue;
mod retry_queue;
mod run;
mod slots;
mod source;
mod spawned;
mod stop;
mod summary;
mod throttling;

pub use all_settled::AllSettled;
pub use attempts::{DeadLetter, NoRetry, Retrying};
pub use builder::BatchExecutorBuilder;
pub use observe::{BatchEvent, ItemReport};
pub use order::{ByKey, Unordered};
pub(crate) use owned::Owned;
pub use pages::{Page, Paged, PagesSummary};
pub use policies::{ByWeight, Policies, Policy, UnitWeight};
pub use source::{Inputs, IterInputs, StreamInputs};
pub use spawned::{BatchHandle, BatchResult, BatchStream, StreamEnd};
pub use stop::{Stop, StopToken};
pub use summary::{BatchEnd, BatchSummary};

use crate::ConfigError;
use options::Options;

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
///   [semaphore](BatchExecutorBuilder::semaphore).
/// - Nothing is pulled after a [stop](BatchExecutorBuilder::stop), the deadline or the end.
/// - Dropping a run at any time drops every future and every input in hand once, and gives back
///   every permit.
/// - With [dead letters](Self::dead_letter), each input that was pulled is done or comes back, also
///   from a batch that is aborted or dropped.
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
/// are polled once, up to 64 neighbours at a time in the order of their slots, before any of them
/// is polled again. New items alternate with woken ones: while n woken items are polled, at most n + 1
/// new ones start. A run gives way to the other tasks of its thread after a bounded number of polls,
/// also if its items are always ready, and takes part in tokio's coop budget.
///
/// # Time limits
///
/// A run with a time limit looks at the clock between items and between pulls, so that a limit is
/// late by no more than one of them, however long they block their thread; spawned, by one for each
/// worker. A run without limits does not read the clock.
///
/// # Example
///
/// ```
/// use sluicegate::BatchExecutor;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sluicegate::ConfigError> {
/// let prices = ["3", "free", "14"];
/// let executor = BatchExecutor::new(2)?;
/// let outcomes = executor.all_settled(prices, async |price: &str| price.parse::<u32>()).await;
///
/// assert!(matches!(outcomes[..], [Ok(3), Err(_), Ok(14)]));
/// let error = outcomes[1].as_ref().unwrap_err();
/// assert_eq!(error.to_string(), "rejected: invalid digit found in string");
/// # Ok(())
/// # }
/// ```
///
/// # How it is built
///
/// A run is one future. Its items sit in slots that are made when first needed and used again,
/// so that an item costs no allocation beside what its future takes itself; what is ready when it
/// is first polled does not even take a slot. Each slot has a waker of its own, which sets a bit
/// in a word of 64; a poll of the run takes the words that were woken, and polls nothing else.
/// Spawned, there is such a run on each worker, and they meet in two places alone: where they take
/// inputs, several at a time if items are short, and where they bring outcomes. Any runtime will
/// do; only [`spawn`](Self::spawn) and the two time limits need tokio's.
#[derive(Debug, Clone)]
pub struct BatchExecutor<P = Policies> {
    options: Options,
    policy: P,
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

impl<P> BatchExecutor<P> {
    /// How many items of a batch may be in hand at once.
    pub fn limit(&self) -> usize {
        self.options.limit
    }

    pub(crate) fn policy(&self) -> &P {
        &self.policy
    }
}
