//! A batch on several workers, each with a run of its own, which share the input and the outcomes.

mod chunk_size;
mod handle;
mod shared;
mod spawn;
mod stream;
mod worker;

pub use handle::{BatchHandle, BatchResult};
pub use stream::{BatchStream, StreamEnd};

use core::future::Future;
use core::pin::Pin;
use std::sync::Arc;

use super::BatchExecutor;
use super::attempts::DeadLetter;
use super::order::{Keys, Order};
use super::policies::Policy;
use super::source::Inputs;
use super::stop::StopToken;
use crate::base::sync::HashBuilder;
use crate::settled::SettledKind;
use shared::{BatchShared, Router, Unclaimed};

/// What a worker does, to be spawned.
pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Divides a batch among workers, and hands each to `spawn`.
pub(super) fn divide<N, F, Fut, T, E, P>(
    executor: BatchExecutor<P>,
    workers: usize,
    inputs: N,
    f: F,
    mut spawn: impl FnMut(Work),
) -> BatchHandle<N, T, E>
where
    N: Inputs + Send + 'static,
    N::Input: Send + 'static,
    F: Fn(N::Input) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
    P: Policy<N::Input, E> + Send + 'static,
    P::Keys: Send + Sync + 'static,
    P::Order: Send,
{
    let BatchExecutor { options, policy } = executor;
    let workers = workers.min(options.limit).max(1);
    let stop = StopToken::new();
    let keyed = !P::Order::ALL_UNORDERED;
    // Workers with keys need no shares of the limit, which what is in hand keeps. With a backlog
    // that is more than may run: then permits keep it, unless they are a semaphore's, which may have
    // more of them.
    let more_in_hand = options.backlog > 0;
    let shares = !keyed || more_in_hand && options.semaphore.is_some();
    let mut batch = options.batch(P::WEIGHS || keyed && more_in_hand);
    batch.stops.push(stop.clone());
    let router: Option<Router<N::Input>> = keyed.then(|| {
        let (keys, hasher) = (policy.keys().clone(), HashBuilder::default());
        Arc::new(move |input: &N::Input| keys.route(&hasher, input)) as Router<N::Input>
    });
    let unclaimed = P::RETRIES.then(|| {
        let policy = policy.clone();
        let dead_letter = move |index, input| {
            let kind = SettledKind::Cancelled;
            policy.dead_letter(DeadLetter { index, input, kind, attempts: 0, error: None });
        };
        Box::new(dead_letter) as Unclaimed<N::Input>
    });
    let shared = BatchShared::new(
        options.limit + options.backlog,
        workers,
        inputs,
        router,
        unclaimed,
        options.observer.clone(),
    );
    let f = Arc::new(f);
    for worker in 0..workers {
        let mut batch = batch.clone();
        if shares {
            // To each a share of its own, so that none has to wait for another's room.
            batch.reduce_to_share(worker, workers);
        }
        let work = worker::work(&shared, worker, batch, Arc::clone(&f), policy.clone());
        spawn(Box::pin(work));
    }
    BatchHandle::new(shared, stop)
}
