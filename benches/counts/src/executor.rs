//! Items of a batch, and retries.

use std::future::ready as now;
use std::hint::black_box;
use std::sync::Arc;

use sluicegate::{BatchExecutor, Retry, Semaphore};

use crate::{RUNTIME, ready, row};

const LIMIT: usize = 64;

pub(crate) fn rows() {
    let executor = BatchExecutor::new(LIMIT).expect("a good limit");
    row("executor: a ready item, in the task", 10_000, |n| {
        let run = executor.all_settled(0..n, |n| now(Ok::<_, u64>(black_box(n))));
        assert_eq!(RUNTIME.block_on(run).len() as u64, n);
    });
    row("executor: an item that yields, in the task", 2_000, |n| {
        let run = executor.all_settled(0..n, async |n| {
            tokio::task::yield_now().await;
            Ok::<_, u64>(black_box(n))
        });
        assert_eq!(RUNTIME.block_on(run).len() as u64, n);
    });
    // A spawned run takes its inputs in chunks whose size depends on the clock: the least of several
    // counts is the steady one.
    for _ in 0..5 {
        spawned(&executor);
    }
    let semaphore = Arc::new(Semaphore::new(LIMIT));
    let sharing = BatchExecutor::builder().semaphore(semaphore).build().expect("a good limit");
    row("executor: a ready item on a semaphore, in the task", 10_000, |n| {
        let run = sharing.all_settled(0..n, |n| now(Ok::<_, u64>(black_box(n))));
        assert_eq!(RUNTIME.block_on(run).len() as u64, n);
    });
    let semaphore = Arc::new(Semaphore::new(10));
    let waiting = BatchExecutor::builder().semaphore(semaphore).build().expect("a good limit");
    row("executor: an item that waits for a semaphore, in the task", 2_000, |n| {
        let run = waiting.all_settled(0..n, async |n| {
            tokio::task::yield_now().await;
            Ok::<_, u64>(black_box(n))
        });
        assert_eq!(RUNTIME.block_on(run).len() as u64, n);
    });
    let retrying = executor.clone().retry(Retry::jobs());
    row("executor: a ready item with a retry, in the task", 10_000, |n| {
        let run = retrying.all_settled(0..n, |n| now(Ok::<_, u64>(black_box(n))));
        assert_eq!(RUNTIME.block_on(run).len() as u64, n);
    });
    let retry = Retry::jobs();
    row("retry: run of what succeeds", 10_000, |n| {
        for item in 0..n {
            assert!(ready(retry.run(|| now(Ok::<_, u64>(black_box(item))))).is_ok());
        }
    });
}

fn spawned(executor: &BatchExecutor) {
    row("executor: a ready item, spawned", 20_000, |n| {
        let outcomes = RUNTIME.block_on(async {
            executor.spawn(0..n, |n| now(Ok::<_, u64>(black_box(n)))).join().await.outcomes
        });
        assert_eq!(outcomes.len() as u64, n);
    });
    row("executor: an item that yields, spawned", 10_000, |n| {
        let outcomes = RUNTIME.block_on(async {
            let item = async |n: u64| {
                tokio::task::yield_now().await;
                Ok::<_, u64>(black_box(n))
            };
            executor.spawn(0..n, move |n| Box::pin(item(n))).join().await.outcomes
        });
        assert_eq!(outcomes.len() as u64, n);
    });
}
