//! The view of an executor in which items of one key keep their order.

use core::fmt;
use core::future::Future;
use core::hash::Hash;

use futures_core::Stream;

use super::order::Lanes;
use super::source::{FromIterator, FromStream};
use super::{BatchExecutor, BatchSummary};
use crate::settled::Settled;

/// A [`BatchExecutor`] that runs items of one key one at a time and in input order, and items of
/// different keys side by side; made by [`BatchExecutor::by_key`].
///
/// It is what consumers of a partitioned log need. It has the executor's methods, and everything
/// said there holds here too. A method consumes the view; clone it to use it again.
///
/// It is not for dividing a limit fairly among keys: inputs are pulled as they come, and one key's
/// items may fill all the room.
///
/// # Fairness
///
/// First in, first to start, within a key. Among keys, an item starts when it is pulled or when
/// the one ahead of it in its key has settled, whichever is later.
///
/// # How it is built
///
/// Items in hand that share a key form a list through their places; settling one makes the next
/// due. A key is kept while an item of its is in hand, so there are never more keys than the limit.
#[derive(Clone)]
pub struct KeyedExecutor<KeyFn> {
    executor: BatchExecutor,
    key: KeyFn,
}

impl<KeyFn> fmt::Debug for KeyedExecutor<KeyFn> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedExecutor").field("executor", &self.executor).finish_non_exhaustive()
    }
}

impl<KeyFn> KeyedExecutor<KeyFn> {
    pub(super) fn new(executor: BatchExecutor, key: KeyFn) -> Self {
        Self { executor, key }
    }

    /// As [`BatchExecutor::all_settled`], with items of one key in order.
    ///
    /// # Returns
    ///
    /// One outcome for each pulled input, in input order.
    ///
    /// # Panics
    ///
    /// If the iterator panics, after everything pulled before has run to its outcome.
    ///
    /// # Cancel safety
    ///
    /// As [`BatchExecutor::all_settled`]; inputs that wait for their key are dropped unstarted.
    ///
    /// # Complexity
    ///
    /// O(1) an item, with one look-up of its key.
    pub async fn all_settled<I, K, F, Fut, T, E>(self, inputs: I, f: F) -> Vec<Settled<T, E>>
    where
        I: IntoIterator,
        KeyFn: FnMut(&I::Item) -> K,
        K: Hash + Eq,
        F: FnMut(I::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.executor.collect_all(inputs, f, Lanes::new(self.key)).await
    }

    /// As [`BatchExecutor::for_each`], with items of one key in order.
    ///
    /// # Returns
    ///
    /// When the source has ended and the sink is done with the last outcome.
    ///
    /// # Panics
    ///
    /// If the sink or its future panics.
    ///
    /// # Cancel safety
    ///
    /// As [`BatchExecutor::for_each`]; inputs that wait for their key are dropped unstarted.
    ///
    /// # Complexity
    ///
    /// O(1) an item, with one look-up of its key; memory bounded by the limit.
    pub async fn for_each<I, K, F, Fut, T, E, S, SFut>(
        self,
        inputs: I,
        f: F,
        sink: S,
    ) -> BatchSummary
    where
        I: IntoIterator,
        KeyFn: FnMut(&I::Item) -> K,
        K: Hash + Eq,
        F: FnMut(I::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        S: FnMut(usize, Settled<T, E>) -> SFut,
        SFut: Future<Output = ()>,
    {
        let source = FromIterator(inputs.into_iter());
        self.executor.sink_all(source, f, Lanes::new(self.key), sink).await
    }

    /// As [`BatchExecutor::for_each_stream`], with items of one key in order.
    ///
    /// # Returns
    ///
    /// When the stream has ended and the sink is done with the last outcome.
    ///
    /// # Panics
    ///
    /// If the sink or its future panics.
    ///
    /// # Cancel safety
    ///
    /// As [`BatchExecutor::for_each_stream`]; inputs that wait for their key are dropped
    /// unstarted.
    ///
    /// # Complexity
    ///
    /// O(1) an item, with one look-up of its key; memory bounded by the limit.
    pub async fn for_each_stream<St, K, F, Fut, T, E, S, SFut>(
        self,
        inputs: St,
        f: F,
        sink: S,
    ) -> BatchSummary
    where
        St: Stream,
        KeyFn: FnMut(&St::Item) -> K,
        K: Hash + Eq,
        F: FnMut(St::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        S: FnMut(usize, Settled<T, E>) -> SFut,
        SFut: Future<Output = ()>,
    {
        let source = FromStream(Box::pin(inputs));
        self.executor.sink_all(source, f, Lanes::new(self.key), sink).await
    }
}
