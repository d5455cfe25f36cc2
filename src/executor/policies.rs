//! What an executor is told of its items: their keys, their weights, and whether they are tried
//! again.

use core::time::Duration;

use super::BatchExecutor;
use super::attempts::{Attempts, DeadLetter, NoRetry};
#[cfg(any(feature = "tokio", loom))]
use super::attempts::{FnSink, NoDeadLetter, Retrying};
use super::order::{ByKey, Keys, Order, Unordered};
use crate::retry::{Failure, GaveUp, RetryState};

/// What an executor is told of its items: key, weight and attempts. Implemented for every
/// [`Policies`]; a function over any executor is generic over it.
pub trait Policy<I, E>: Clone {
    /// Which items may run side by side.
    type Keys: Keys<I, Order = Self::Order> + Clone;
    /// Keeps the order during a run.
    type Order: Order<I>;
    /// Whether items weigh anything but 1.
    const WEIGHS: bool;
    /// Whether inputs may be kept for another attempt.
    const RETRIES: bool;

    /// Which items may run side by side.
    fn keys(&self) -> &Self::Keys;

    /// How many permits an item takes. Runs the caller's code.
    fn weigh(&mut self, input: &I) -> u32;

    /// A copy of an input for its further attempts, or for the dead letters. Runs the caller's
    /// code.
    fn keep(&self, input: &I) -> Option<I>;

    /// How long an attempt may take.
    fn attempt_timeout(&self) -> Option<Duration>;

    /// An attempt succeeded.
    fn succeeded(&self);

    /// How long to wait after an attempt that failed. Runs the caller's code.
    fn next_wait(
        &self,
        state: &mut RetryState<E>,
        failure: &Failure<E>,
    ) -> Result<Duration, GaveUp>;

    /// Nothing more is tried. Runs the caller's code.
    fn dead_letter(&self, letter: DeadLetter<'_, I, E>);
}

/// The [`Policy`] of an executor: the keys, the weights and the attempts of its items. By default
/// all run side by side, weigh 1 and are tried once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policies<K = Unordered, W = UnitWeight, A = NoRetry> {
    keys: K,
    weigher: W,
    attempts: A,
}

impl<I, E, K, W, A> Policy<I, E> for Policies<K, W, A>
where
    K: Keys<I> + Clone,
    W: Weigher<I> + Clone,
    A: Attempts<I, E> + Clone,
{
    type Keys = K;
    type Order = K::Order;
    const WEIGHS: bool = W::WEIGHS;
    const RETRIES: bool = A::RETRIES;

    fn keys(&self) -> &K {
        &self.keys
    }

    #[inline]
    fn weigh(&mut self, input: &I) -> u32 {
        self.weigher.weigh(input)
    }

    #[inline]
    fn keep(&self, input: &I) -> Option<I> {
        self.attempts.keep(input)
    }

    fn attempt_timeout(&self) -> Option<Duration> {
        self.attempts.attempt_timeout()
    }

    #[inline]
    fn succeeded(&self) {
        self.attempts.succeeded();
    }

    fn next_wait(
        &self,
        state: &mut RetryState<E>,
        failure: &Failure<E>,
    ) -> Result<Duration, GaveUp> {
        self.attempts.next_wait(state, failure)
    }

    fn dead_letter(&self, letter: DeadLetter<'_, I, E>) {
        self.attempts.dead_letter(letter);
    }
}

/// How much an item weighs.
pub trait Weigher<I> {
    /// Whether items weigh anything but 1.
    const WEIGHS: bool;

    /// Runs the caller's code.
    fn weigh(&mut self, item: &I) -> u32;
}

/// Every item takes one permit.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnitWeight;

impl<I> Weigher<I> for UnitWeight {
    const WEIGHS: bool = false;

    fn weigh(&mut self, _: &I) -> u32 {
        1
    }
}

/// An item takes as many permits as a function of it says.
#[derive(Clone)]
pub struct ByWeight<F>(pub(super) F);

impl<I, F: FnMut(&I) -> u32> Weigher<I> for ByWeight<F> {
    const WEIGHS: bool = true;

    fn weigh(&mut self, item: &I) -> u32 {
        (self.0)(item)
    }
}

impl<F> core::fmt::Debug for ByWeight<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ByWeight(..)")
    }
}

impl<K, W, A> BatchExecutor<Policies<K, W, A>> {
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
    pub fn by_key<I, Key, F>(self, key: F) -> BatchExecutor<Policies<ByKey<F>, W, A>>
    where
        F: Fn(&I) -> Key + Clone,
    {
        let Policies { weigher, attempts, .. } = self.policy;
        let policy = Policies { keys: ByKey(key), weigher, attempts };
        BatchExecutor { options: self.options, policy }
    }

    /// The same executor with items that take as many permits of the
    /// [semaphore](super::BatchExecutorBuilder::semaphore) as `weight` says or, if there is none, of as many as
    /// the limit, for each batch anew.
    ///
    /// A weight of 0 counts as 1, and one that is more than all the permits as all of them, so that
    /// a heavy item runs alone. What counts is how many there are when it gets them: a
    /// [limit](crate::Semaphore::set_limit) that shrinks or grows while it waits changes what it waits
    /// for. Strictly first come, first served: a light item does not pass a
    /// heavy one that waits. If `weight` panics, that item's outcome is the panic. For batches inside
    /// of items see [`semaphore`](super::BatchExecutorBuilder::semaphore).
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
    pub fn by_weight<I, F>(self, weight: F) -> BatchExecutor<Policies<K, ByWeight<F>, A>>
    where
        F: FnMut(&I) -> u32,
    {
        let Policies { keys, attempts, .. } = self.policy;
        let policy = Policies { keys, weigher: ByWeight(weight), attempts };
        BatchExecutor { options: self.options, policy }
    }

    /// The same executor with items that are tried again when they fail, as `retry` says.
    ///
    /// An item that waits for its retry gives its permit back meanwhile; see
    /// [`backlog`](super::BatchExecutorBuilder::backlog) for how many may wait. Retries that are due go
    /// before new inputs. A retry that would begin after the
    /// [`timeout`](super::BatchExecutorBuilder::timeout) is not waited for: the item settles at once, as
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
    /// The last attempt's: [`Rejected`](crate::ItemError::Rejected) with its error, or
    /// [`TimedOut`](crate::ItemError::TimedOut) if its `attempt_timeout` passed. Earlier errors are
    /// dropped, except the last of them in `TimedOut` and `Cancelled`. If the choice of errors or
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
    ) -> BatchExecutor<Policies<K, W, Retrying<E>>> {
        let Policies { keys, weigher, .. } = self.policy;
        let policy = Policies {
            keys,
            weigher,
            attempts: Retrying { retry: retry.into(), dead_letter: NoDeadLetter },
        };
        BatchExecutor { options: self.options, policy }
    }
}

#[cfg(any(feature = "tokio", loom))]
impl<K, W, E> BatchExecutor<Policies<K, W, Retrying<E>>> {
    /// The same executor, with a function that gets each item that was not done: the
    /// [input](DeadLetter::input) itself, of which the attempts had clones, and why.
    ///
    /// It is called once for each outcome that is not fulfilled, where the run is polled, before
    /// the outcome goes where outcomes go. A panic of the function is caught and changes nothing.
    ///
    /// For a batch without retries, say [`Retry::none`](crate::Retry::none) first.
    ///
    /// # Every way out
    ///
    /// Each input that was pulled is done, or comes back once, however the batch ends: by a stop,
    /// the deadline, a closed semaphore, a panic of the sink, or because it is dropped. What was
    /// cancelled has the [kind](DeadLetter::kind) `Cancelled`, also in a run that is dropped and so
    /// has no outcomes; 0 attempts say that it had not started.
    ///
    /// | | it had started | it was pulled and had not started | it was not pulled |
    /// | --- | --- | --- | --- |
    /// | in the task | dead letter | dead letter | in the input, if that is lent |
    /// | [spawned](Self::spawn) | dead letter | `not_started`; a dead letter if nobody joins | `rest` |
    /// | [pages](Self::pages) | dead letter | `not_started`; a dead letter if dropped | `not_pulled`; a dead letter if dropped |
    /// | [phases](Self::phases) | dead letter | dead letter | dead letter |
    ///
    /// Without dead letters, inputs of items that had started are dropped, and so are the others
    /// where the table says dead letter.
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
    ///     .dead_letter(|letter: DeadLetter<'_, String, &str>| {
    ///         dead.borrow_mut().push((letter.input, letter.attempts));
    ///     });
    /// let names = ["ann", "bob"].map(String::from);
    /// let outcomes = executor
    ///     .all_settled(names, async |name| if name == "bob" { Err("gone") } else { Ok(()) })
    ///     .await;
    /// assert_eq!(outcomes[1].as_ref().unwrap_err().to_string(), "rejected: gone");
    /// assert_eq!(dead.take(), [("bob".to_string(), 3)]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn dead_letter<I, F>(self, sink: F) -> BatchExecutor<Policies<K, W, Retrying<E, FnSink<F>>>>
    where
        F: Fn(DeadLetter<'_, I, E>) + Clone,
    {
        let Policies { keys, weigher, attempts } = self.policy;
        let policy = Policies {
            keys,
            weigher,
            attempts: Retrying { retry: attempts.retry, dead_letter: FnSink(sink) },
        };
        BatchExecutor { options: self.options, policy }
    }
}
