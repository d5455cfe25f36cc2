//! Callers who each wait for the answer to their item before they come with the next.

use std::convert::Infallible;
use std::future::Future;
use std::time::{Duration, Instant};

use batch_aint_one::{BatchingPolicy, Limits, Processor};
use sluicegate::Batch;
use sluicegate::batcher::{Batcher, Call};
use sluicegate_benches::{Cost, Scale};
use tokio::sync::{mpsc, oneshot};

use crate::keys::RUNTIME;

const CALLERS: u64 = 64;

#[derive(Clone, Copy)]
pub(crate) enum Policy {
    /// Whoever is free takes what there is.
    AsTheyCome,
    /// A batch begins when all callers are in it.
    Full,
}

pub(crate) trait Caller: Clone + Send + Sync + 'static {
    const NAME: &'static str;

    fn start(policy: Policy) -> Self;
    fn call(&self, item: u64) -> impl Future<Output = u64> + Send;
}

#[derive(Clone)]
pub(crate) struct Ours(Batcher<Call<u64, u64>>);

impl Caller for Ours {
    const NAME: &'static str = "ours";

    fn start(policy: Policy) -> Self {
        let builder = Batcher::for_calls().max_items(CALLERS as usize);
        let builder = match policy {
            Policy::AsTheyCome => builder.eager_when_idle(),
            Policy::Full => builder.window(Duration::from_secs(1)),
        };
        let batcher = builder.build(|mut batch: Batch<Call<u64, u64>>| async move {
            batch.reply_with(|item| item + 1);
            Ok::<(), Infallible>(())
        });
        Self(batcher.unwrap())
    }

    async fn call(&self, item: u64) -> u64 {
        self.0.call(item).await.unwrap()
    }
}

/// What people write: a channel whose items carry a channel for the answer.
#[derive(Clone)]
pub(crate) struct OneShots(mpsc::Sender<(u64, oneshot::Sender<u64>)>);

impl Caller for OneShots {
    const NAME: &'static str = "mpsc with a oneshot an item";

    fn start(policy: Policy) -> Self {
        let (sender, mut receiver) = mpsc::channel::<(u64, oneshot::Sender<u64>)>(256);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(CALLERS as usize);
            loop {
                let room = CALLERS as usize - batch.len();
                if receiver.recv_many(&mut batch, room).await == 0 {
                    return;
                }
                if matches!(policy, Policy::AsTheyCome) || batch.len() == CALLERS as usize {
                    for (item, reply) in batch.drain(..) {
                        let _ = reply.send(item + 1);
                    }
                }
            }
        });
        Self(sender)
    }

    async fn call(&self, item: u64) -> u64 {
        let (reply, answer) = oneshot::channel();
        self.0.send((item, reply)).await.unwrap();
        answer.await.unwrap()
    }
}

#[derive(Clone)]
pub(crate) struct AddsOne;

impl Processor for AddsOne {
    type Key = ();
    type Input = u64;
    type Output = u64;
    type Error = String;
    type Resources = ();

    async fn acquire_resources(&self, (): ()) -> Result<(), String> {
        Ok(())
    }

    async fn process(
        &self,
        (): (),
        inputs: impl Iterator<Item = u64> + Send,
        (): (),
    ) -> Result<Vec<u64>, String> {
        Ok(inputs.map(|item| item + 1).collect())
    }
}

#[derive(Clone)]
pub(crate) struct BatchAintOne(batch_aint_one::Batcher<AddsOne>);

impl Caller for BatchAintOne {
    const NAME: &'static str = "batch-aint-one";

    fn start(policy: Policy) -> Self {
        let limits =
            Limits::builder().max_batch_size(CALLERS as usize).max_key_concurrency(1).build();
        let policy = match policy {
            Policy::AsTheyCome => BatchingPolicy::Immediate,
            Policy::Full => BatchingPolicy::Size,
        };
        let batcher = batch_aint_one::Batcher::builder().name("calls").processor(AddsOne);
        Self(batcher.limits(limits).batching_policy(policy).build())
    }

    async fn call(&self, item: u64) -> u64 {
        self.0.add((), item).await.unwrap()
    }
}

/// Each caller calls so often; the time of one call, of all of them side by side.
pub(crate) fn call<C: Caller>(policy: Policy, scale: Scale) -> Cost {
    let each = scale.of(2_000);
    RUNTIME.block_on(async {
        let caller = C::start(policy);
        let start = Instant::now();
        let callers: Vec<_> = (0..CALLERS)
            .map(|first| {
                let caller = caller.clone();
                tokio::spawn(async move {
                    for item in first..first + each {
                        assert_eq!(caller.call(item).await, item + 1);
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        Cost::of(CALLERS * each, start.elapsed())
    })
}
