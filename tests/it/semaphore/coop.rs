//! The semaphore's part in tokio's cooperative scheduling: its futures yield when the budget is
//! spent, and hold nothing while they do.
#![cfg(feature = "tokio")]

use crate::coop;

use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use coop::{assert_yields, spend};
use futures_util::{FutureExt, StreamExt};
use sluicegate::{PollSemaphore, Semaphore, TryAcquireError};
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3600);

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits))
}

/// Polls with the waker of the task, so that its budget counts.
async fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    let mut future = future;
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

#[test]
fn acquire_yields() {
    assert_yields(async {
        let semaphore = semaphore(1);
        loop {
            drop(semaphore.acquire().await);
        }
    });
}

#[test]
fn acquire_of_a_closed_semaphore_yields() {
    assert_yields(async {
        let semaphore = semaphore(1);
        semaphore.close();
        loop {
            semaphore.acquire().await.unwrap_err();
        }
    });
}

#[test]
fn acquire_many_of_no_permits_yields() {
    assert_yields(async {
        let semaphore = semaphore(0);
        loop {
            drop(semaphore.acquire_many(0).await);
        }
    });
}

#[test]
fn acquire_owned_yields() {
    assert_yields(async {
        let semaphore = semaphore(2);
        loop {
            drop(semaphore.clone().acquire_owned().await);
            drop(semaphore.clone().acquire_many_owned(2).await);
        }
    });
}

#[test]
fn enqueue_yields() {
    assert_yields(async {
        let semaphore = semaphore(1);
        loop {
            drop(semaphore.enqueue(1).await);
            drop(semaphore.clone().enqueue_owned(1).await);
        }
    });
}

#[test]
fn run_yields() {
    assert_yields(async {
        let semaphore = semaphore(1);
        loop {
            semaphore.run(ready(())).await.unwrap();
        }
    });
}

#[test]
fn run_on_a_closed_semaphore_yields() {
    assert_yields(async {
        let semaphore = semaphore(1);
        semaphore.close();
        loop {
            semaphore.run(ready(())).await.unwrap_err();
        }
    });
}

#[test]
fn the_timed_forms_yield() {
    assert_yields(async {
        let semaphore = semaphore(1);
        loop {
            drop(semaphore.acquire_timeout(HOUR).await.unwrap());
        }
    });
    assert_yields(async {
        let semaphore = semaphore(1);
        let deadline = Instant::now() + HOUR;
        loop {
            drop(semaphore.acquire_deadline(deadline).await.unwrap());
        }
    });
}

#[test]
fn the_poll_form_yields() {
    assert_yields(async {
        let mut polls = PollSemaphore::new(semaphore(1));
        loop {
            drop(poll_fn(|cx| polls.poll_acquire(cx)).await);
        }
    });
    assert_yields(async {
        let mut polls = PollSemaphore::new(semaphore(5));
        loop {
            drop(poll_fn(|cx| polls.poll_acquire_many(cx, 3)).await);
        }
    });
}

#[test]
fn the_stream_yields_open_or_closed() {
    for closed in [false, true] {
        assert_yields(async move {
            let mut permits = PollSemaphore::new(semaphore(1));
            if closed {
                permits.close();
            }
            loop {
                assert_eq!(permits.next().await.is_none(), closed);
            }
        });
    }
}

#[tokio::test]
async fn without_budget_nothing_is_held() {
    let semaphore = semaphore(3);
    spend().await;
    let mut acquire = pin!(semaphore.acquire_many(2));
    let mut owned = pin!(semaphore.clone().acquire_owned());
    let mut polls = PollSemaphore::new(semaphore.clone());
    assert!(poll_once(acquire.as_mut()).await.is_pending());
    assert!(poll_once(owned.as_mut()).await.is_pending());
    assert!(poll_fn(|cx| Poll::Ready(polls.poll_acquire(cx))).await.is_pending());
    assert_eq!((semaphore.available_permits(), semaphore.waiters()), (3, 0));
    assert_eq!(semaphore.stats().waits, 0);
    // It was woken, and takes its permits with the next budget.
    assert!(acquire.await.is_ok() && owned.await.is_ok());
    assert!(poll_fn(|cx| polls.poll_acquire(cx)).await.is_some());
}

/// tokio-rs/tokio#8365: where a task has to wait anyway, yielding costs it no position.
#[tokio::test]
async fn without_budget_it_joins_the_wait_list_at_once() {
    let semaphore = semaphore(1);
    let held = semaphore.try_acquire().unwrap();
    spend().await;
    let mut short = pin!(semaphore.acquire());
    assert!(poll_once(short.as_mut()).await.is_pending());
    assert_eq!(semaphore.waiters(), 1, "permits are short");
    let mut behind = pin!(semaphore.acquire_many(2));
    assert!(poll_once(behind.as_mut()).await.is_pending());
    assert_eq!(semaphore.waiters(), 2, "there is a waiter");
    // Another task comes later, with a budget of its own.
    let mut later = pin!(semaphore.acquire());
    let unconstrained = &mut Context::from_waker(Waker::noop());
    assert!(tokio::task::unconstrained(later.as_mut()).poll_unpin(unconstrained).is_pending());
    drop(held);
    assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::NoPermits);
    let held = short.await.unwrap();
    assert!(behind.as_mut().now_or_never().is_none() && later.as_mut().now_or_never().is_none());
    semaphore.add_permits(1);
    drop(held);
    assert_eq!(behind.await.unwrap().num_permits(), 2);
    assert!(later.await.is_ok());
}

#[tokio::test]
async fn a_debt_makes_permits_short() {
    let semaphore = semaphore(2);
    let held = semaphore.try_acquire_many(2).unwrap();
    semaphore.set_limit(1);
    spend().await;
    let mut acquire = pin!(semaphore.acquire());
    assert!(poll_once(acquire.as_mut()).await.is_pending());
    assert_eq!(semaphore.waiters(), 1);
    drop(held);
    assert!(acquire.await.is_ok());
}

#[tokio::test]
async fn a_waiter_without_budget_keeps_its_grant() {
    let semaphore = semaphore(0);
    let mut acquire = pin!(semaphore.acquire());
    assert!(poll_once(acquire.as_mut()).await.is_pending());
    semaphore.add_permits(1);
    spend().await;
    assert!(poll_once(acquire.as_mut()).await.is_pending());
    assert_eq!((semaphore.granted_unclaimed(), semaphore.available_permits()), (1, 0));
    assert!(acquire.await.is_ok());
    assert_eq!(semaphore.granted_unclaimed(), 0);
}

#[tokio::test]
async fn an_enqueued_acquire_keeps_its_permits() {
    let semaphore = semaphore(1);
    let mut acquire = pin!(semaphore.enqueue(1));
    spend().await;
    assert!(poll_once(acquire.as_mut()).await.is_pending());
    assert_eq!((semaphore.available_permits(), semaphore.waiters()), (0, 0));
    assert!(acquire.await.is_ok());
    assert_eq!(semaphore.available_permits(), 1);
}

/// A wait costs no budget: only what completes is charged.
#[tokio::test]
async fn waiting_is_not_charged() {
    let semaphore = semaphore(0);
    let mut acquires: Vec<_> = (0..1000).map(|_| Box::pin(semaphore.acquire())).collect();
    for acquire in &mut acquires {
        assert!(poll_once(acquire.as_mut()).await.is_pending());
    }
    assert!(tokio::task::coop::has_budget_remaining());
    assert_eq!(semaphore.waiters(), 1000);
}
