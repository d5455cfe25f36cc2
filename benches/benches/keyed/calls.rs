//! Callers who each wait for the answer to their item before they come with the next.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::mem::swap;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use batch_aint_one::{BatchingPolicy, Limits, Processor};
use parking_lot::Mutex;
use sluicegate::Batch;
use sluicegate::batcher::{Batcher, Call, Caller as CallHandle};
use sluicegate_benches::{Cost, Scale};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

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
pub(crate) struct Ours(CallHandle<u64, u64>);

impl Caller for Ours {
    const NAME: &'static str = "ours";

    fn start(policy: Policy) -> Self {
        let builder = Batcher::builder().max_items(CALLERS as usize);
        let builder = match policy {
            Policy::AsTheyCome => builder.eager_when_idle(),
            Policy::Full => builder.window(Duration::from_secs(1)),
        };
        let batcher = builder.build_caller(|mut batch: Batch<Call<u64, u64>>| async move {
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

/// Nothing but the turns that tasks take: each leaves its waker and sleeps, and another wakes them
/// together. No item is sent and no answer given, so this is what the runtime takes.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Mutex<Sleeping>>);

#[derive(Default)]
pub(crate) struct Sleeping {
    callers: Vec<Waker>,
    waker: Option<Waker>,
}

impl Caller for Turns {
    const NAME: &'static str = "turns alone";

    fn start(policy: Policy) -> Self {
        let turns = Self(Arc::default());
        let sleeping = turns.0.clone();
        let mut awake = Vec::new();
        tokio::spawn(poll_fn(move |cx| {
            loop {
                let mut all = sleeping.lock();
                let enough = match policy {
                    Policy::AsTheyCome => 1,
                    Policy::Full => CALLERS as usize,
                };
                if all.callers.len() < enough {
                    all.waker = Some(cx.waker().clone());
                    return Poll::<()>::Pending;
                }
                swap(&mut awake, &mut all.callers);
                drop(all);
                awake.drain(..).for_each(Waker::wake);
            }
        }));
        turns
    }

    async fn call(&self, item: u64) -> u64 {
        let mut sleeps = false;
        poll_fn(|cx| {
            if sleeps {
                return Poll::Ready(item + 1);
            }
            sleeps = true;
            let mut all = self.0.lock();
            all.callers.push(cx.waker().clone());
            let first_or_last = [1, CALLERS as usize].contains(&all.callers.len());
            let waker = if first_or_last { all.waker.take() } else { None };
            drop(all);
            if let Some(waker) = waker {
                waker.wake();
            }
            Poll::Pending
        })
        .await
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
pub(crate) fn call<C: Caller>(policy: Policy, on: &Runtime, scale: Scale) -> Cost {
    let each = scale.of(2_000);
    on.block_on(async {
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
