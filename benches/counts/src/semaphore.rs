//! Acquire and release.

use std::collections::VecDeque;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sluicegate::Semaphore;

use crate::{RUNTIME, in_task, poll, ready, row};

const PERMITS: usize = 10;

pub(crate) fn rows() {
    without_waiting();
    in_tasks();
    with_waiters();
}

fn without_waiting() {
    let semaphore = Semaphore::new(PERMITS);
    row("semaphore: try_acquire, release", 10_000, |n| {
        for _ in 0..n {
            assert!(black_box(&semaphore).try_acquire().is_ok());
        }
    });
    row("semaphore: try_acquire_many, release", 10_000, |n| {
        for _ in 0..n {
            assert!(black_box(&semaphore).try_acquire_many(5).is_ok());
        }
    });
    row("semaphore: acquire, release", 10_000, |n| {
        for _ in 0..n {
            assert!(ready(black_box(&semaphore).acquire()).is_ok());
        }
    });
    row("semaphore: acquire_many, release", 10_000, |n| {
        for _ in 0..n {
            assert!(ready(black_box(&semaphore).acquire_many(5)).is_ok());
        }
    });
    row("semaphore: blocking_acquire, release", 10_000, |n| {
        for _ in 0..n {
            assert!(black_box(&semaphore).blocking_acquire().is_ok());
        }
    });
    row("semaphore: run", 10_000, |n| {
        for _ in 0..n {
            assert!(ready(black_box(&semaphore).run(std::future::ready(()))).is_ok());
        }
    });
    let semaphore = Arc::new(Semaphore::new(PERMITS));
    row("semaphore: try_acquire_owned, release", 10_000, |n| {
        for _ in 0..n {
            assert!(Arc::clone(black_box(&semaphore)).try_acquire_owned().is_ok());
        }
    });
    row("semaphore: acquire_owned, release", 10_000, |n| {
        for _ in 0..n {
            assert!(ready(Arc::clone(black_box(&semaphore)).acquire_owned()).is_ok());
        }
    });
    row("semaphore: acquire_many_owned, release", 10_000, |n| {
        for _ in 0..n {
            assert!(ready(Arc::clone(black_box(&semaphore)).acquire_many_owned(5)).is_ok());
        }
    });
}

fn in_tasks() {
    row("semaphore: acquire, release, in a task", 10_000, |n| {
        let semaphore = Arc::new(Semaphore::new(PERMITS));
        in_task(async move {
            for _ in 0..n {
                assert!(semaphore.acquire().await.is_ok());
            }
        });
    });
    row("semaphore: acquire_timeout, release, in a task", 2_000, |n| {
        let semaphore = Arc::new(Semaphore::new(PERMITS));
        in_task(async move {
            for _ in 0..n {
                assert!(semaphore.acquire_timeout(Duration::from_secs(1)).await.is_ok());
            }
        });
    });
    row("semaphore: 64 tasks for 10 permits", 100, |n| {
        let semaphore = Arc::new(Semaphore::new(PERMITS));
        RUNTIME.block_on(async {
            let tasks: Vec<_> = (0..64)
                .map(|_| {
                    let semaphore = Arc::clone(&semaphore);
                    tokio::spawn(async move {
                        for _ in 0..n {
                            let permit = semaphore.acquire().await;
                            tokio::task::yield_now().await;
                            drop(permit);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("it does not panic");
            }
        });
    });
}

fn with_waiters() {
    let semaphore = Semaphore::new(1);
    row("semaphore: hand-over to the one waiter", 5_000, |n| {
        let mut held = semaphore.try_acquire().ok();
        for _ in 0..n {
            let mut waiter = pin!(semaphore.acquire());
            assert!(poll(waiter.as_mut()).is_pending());
            drop(held.take());
            held = ready(waiter).ok();
        }
    });
    let semaphore = Arc::new(Semaphore::new(1));
    row("semaphore: hand-over, owned, 64 waiters", 5_000, |n| {
        let wait = || {
            let mut waiter = Box::pin(Arc::clone(&semaphore).acquire_owned());
            assert!(poll(waiter.as_mut()).is_pending());
            waiter
        };
        let mut held = Arc::clone(&semaphore).try_acquire_owned().ok();
        let mut waiters: VecDeque<_> = (0..64).map(|_| wait()).collect();
        for _ in 0..n {
            drop(held.take());
            held = waiters.pop_front().and_then(|waiter| ready(waiter).ok());
            waiters.push_back(wait());
        }
    });
    let semaphore = Semaphore::new(64);
    row("semaphore: one release serves 64 waiters", 50, |n| {
        for _ in 0..n {
            let held = semaphore.try_acquire_many(64);
            let waiters: Vec<_> = (0..64)
                .map(|_| {
                    let mut waiter = Box::pin(semaphore.acquire());
                    assert!(poll(waiter.as_mut()).is_pending());
                    waiter
                })
                .collect();
            drop(held);
            assert!(waiters.into_iter().all(|waiter| ready(waiter).is_ok()));
        }
    });
    row("semaphore: a waiter that leaves", 5_000, |n| {
        let _held = semaphore.try_acquire_many(64);
        for _ in 0..n {
            let mut waiter = pin!(semaphore.acquire());
            assert!(poll(waiter.as_mut()).is_pending());
        }
    });
}
