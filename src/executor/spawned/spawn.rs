//! Batches that run on workers.

use core::future::Future;

#[cfg(all(feature = "tokio", not(loom)))]
use futures_core::Stream;

use super::{BatchHandle, divide};
use crate::executor::BatchExecutor;
use crate::executor::policies::Policy;
use crate::executor::source::IterInputs;
#[cfg(all(feature = "tokio", not(loom)))]
use crate::executor::source::StreamInputs;

impl<P> BatchExecutor<P> {
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
    /// use sluicegate::{BatchExecutor, all_fulfilled};
    ///
    /// let squares = BatchExecutor::new(64)?.spawn(0..1_000, async |n: u64| Ok::<_, ()>(n * n));
    /// let joined = squares.join().await;
    /// assert_eq!(all_fulfilled(joined.outcomes).unwrap()[999], 998_001);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(all(feature = "tokio", not(loom)))]
    pub fn spawn<I, F, Fut, T, E>(
        &self,
        inputs: I,
        f: F,
    ) -> BatchHandle<IterInputs<I::IntoIter>, T, E>
    where
        I: IntoIterator,
        I::IntoIter: Send + 'static,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
        P: Policy<I::Item, E> + Send + 'static,
        P::Keys: Send + Sync + 'static,
        P::Order: Send,
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
    ) -> BatchHandle<StreamInputs<St>, T, E>
    where
        St: Stream + Send + 'static,
        St::Item: Send + 'static,
        F: Fn(St::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
        P: Policy<St::Item, E> + Send + 'static,
        P::Keys: Send + Sync + 'static,
        P::Order: Send,
    {
        let inputs = StreamInputs(Box::pin(inputs));
        divide(self.clone(), tokio_workers(), inputs, f, spawn_on_tokio)
    }

    /// As [`spawn`](Self::spawn), on whatever runtime or threads: `spawn` is called with the
    /// future of each worker, of which there are so many, but not more than the limit.
    ///
    /// A worker that is dropped before it is done accounts for what it had in hand: the outcome of
    /// each is [`Cancelled`](crate::ItemError::Cancelled).
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
    ) -> BatchHandle<IterInputs<I::IntoIter>, T, E>
    where
        I: IntoIterator,
        I::IntoIter: Send + 'static,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
        P: Policy<I::Item, E> + Send + 'static,
        P::Keys: Send + Sync + 'static,
        P::Order: Send,
    {
        divide(self.clone(), workers, IterInputs(inputs.into_iter()), f, spawn)
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
