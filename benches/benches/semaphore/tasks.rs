//! On a runtime: tasks that compete for permits on two workers.

use std::future::Future;
use std::hint::black_box;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use sluicegate_benches::{Cost, Scale};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

use crate::contenders::Contender;

/// The same for everybody.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).build().unwrap());

/// What a task does while it holds its permit.
#[derive(Clone, Copy)]
pub(crate) enum Hold {
    Not,
    Yield,
    /// Three microseconds of work, and a yield.
    Work,
}

/// So many tasks for so many permits; each acquires as often as the others.
pub(crate) fn compete<S: Contender>(tasks: u64, permits: usize, hold: Hold, scale: Scale) -> Cost {
    let semaphore = S::new(permits);
    match hold {
        Hold::Not => run(semaphore, tasks, scale.of(100_000), || std::future::ready(())),
        Hold::Yield => run(semaphore, tasks, scale.of(40_000), yield_now),
        Hold::Work => {
            let turns = *WORK;
            run(semaphore, tasks, scale.of(10_000), move || {
                work(turns);
                yield_now()
            })
        }
    }
}

fn run<S, F>(
    semaphore: S,
    tasks: u64,
    ops: u64,
    hold: impl Fn() -> F + Copy + Send + 'static,
) -> Cost
where
    S: Contender,
    F: Future<Output = ()> + Send,
{
    let each = ops.div_ceil(tasks);
    let semaphore = Arc::new(semaphore);
    RUNTIME.block_on(async {
        let start = Instant::now();
        let tasks: Vec<_> = (0..tasks)
            .map(|_| {
                let semaphore = Arc::clone(&semaphore);
                tokio::spawn(async move {
                    for _ in 0..each {
                        let permit = semaphore.acquire().await;
                        hold().await;
                        drop(permit);
                    }
                })
            })
            .collect();
        let count = tasks.len() as u64;
        for task in tasks {
            task.await.unwrap();
        }
        Cost::of(each * count, start.elapsed())
    })
}

/// How many turns of `work` take three microseconds here.
///
/// An amount of work, not a time to pass: a task that loses its core meanwhile has not done it.
static WORK: LazyLock<u64> = LazyLock::new(|| {
    const TURNS: u64 = 100_000;
    let quickest = (0..50).map(|_| {
        let start = Instant::now();
        work(TURNS);
        start.elapsed()
    });
    let quickest = quickest.min().unwrap().max(Duration::from_nanos(1));
    (3_000 * TURNS / quickest.as_nanos() as u64).max(1)
});

fn work(turns: u64) {
    let mut value = black_box(1_u64);
    for _ in 0..turns {
        value = value.rotate_left(5) ^ value.wrapping_mul(6_364_136_223_846_793_005);
    }
    black_box(value);
}
