//! On two workers.

use std::sync::Arc;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use sluicegate::BatchExecutor;
use sluicegate_benches::{Cost, Scale, timed};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::work::{Kind, RUNTIME, TURNS, turn, with_work};

/// From within the runtime, as a server would.
fn measure<F>(items: u64, run: F) -> Cost
where
    F: Future<Output = usize> + Send + 'static,
{
    timed(items, || {
        let count = RUNTIME.block_on(async { tokio::spawn(run).await.unwrap() });
        assert_eq!(count as u64, items);
    })
}

pub(crate) fn ours(kind: Kind, limit: usize, scale: Scale) -> Cost {
    let (items, executor) = (kind.items(scale), BatchExecutor::new(limit).unwrap());
    with_work!(kind, |f| measure(items, async move {
        executor.spawn(0..items, f).join().await.outcomes.len()
    }))
}

pub(crate) fn spawn_all(kind: Kind, scale: Scale) -> Cost {
    let items = kind.items(scale);
    with_work!(kind, |f| measure(items, async move {
        let tasks: Vec<_> = (0..items).map(|n| tokio::spawn(f(n))).collect();
        let mut outcomes = Vec::with_capacity(tasks.len());
        for task in tasks {
            outcomes.push(task.await);
        }
        outcomes.len()
    }))
}

pub(crate) fn join_set(kind: Kind, limit: usize, scale: Scale) -> Cost {
    let items = kind.items(scale);
    with_work!(kind, |f| measure(items, async move {
        let permits = Arc::new(Semaphore::new(limit));
        let mut tasks = JoinSet::new();
        let mut outcomes = Vec::with_capacity(items as usize);
        for n in 0..items {
            let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
            tasks.spawn(async move {
                let outcome = f(n).await;
                drop(permit);
                outcome
            });
            while let Some(outcome) = tasks.try_join_next() {
                outcomes.push(outcome);
            }
        }
        while let Some(outcome) = tasks.join_next().await {
            outcomes.push(outcome);
        }
        outcomes.len()
    }))
}

pub(crate) fn buffered(kind: Kind, limit: usize, scale: Scale) -> Cost {
    let items = kind.items(scale);
    with_work!(kind, |f| measure(items, async move {
        let tasks = stream::iter((0..items).map(|n| tokio::spawn(f(n))));
        tasks.buffered(limit).collect::<Vec<_>>().await.len()
    }))
}

/// The floor: half of the items in each of two loops on threads of their own.
pub(crate) fn plain_loops(scale: Scale) -> Cost {
    let (items, turns) = (Kind::Cpu.items(scale), *TURNS);
    let barrier = Barrier::new(2);
    let half = || {
        barrier.wait();
        let start = Instant::now();
        for _ in 0..items / 2 {
            turn(turns);
        }
        (start, Instant::now())
    };
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(half);
        (half(), other.join().unwrap())
    });
    Cost::of(items, one.1.max(other.1) - one.0.min(other.0))
}
