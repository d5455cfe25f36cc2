//! A retry that comes due while the batch is being stopped.

#![cfg(loom)]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use sluicegate::{BatchExecutor, Retry, Semaphore, Settled, Stop, StopToken};

/// Either the retry begins or the item is cancelled with its last error, never both and never
/// neither; and its permit is back either way.
fn stopped_while_a_retry_comes_due(how: Stop) {
    loom::model(move || {
        let token = StopToken::new();
        let budget = std::sync::Arc::new(Semaphore::new(1));
        // 1 when `stop` has returned.
        let stopped = Arc::new(AtomicUsize::new(0));
        let executor = BatchExecutor::builder()
            .limit(1)
            .budget(budget.clone())
            .stop(token.clone())
            .build()
            .unwrap()
            .retry(Retry::constant(2, Duration::ZERO).unwrap());
        let stopper = {
            let stopped = stopped.clone();
            loom::thread::spawn(move || {
                token.stop(how);
                stopped.store(1, Ordering::SeqCst);
            })
        };
        let attempts = std::cell::Cell::new(0);
        let late = std::cell::Cell::new(false);
        let outcomes = loom::future::block_on(executor.all_settled([7], |n| {
            attempts.set(attempts.get() + 1);
            late.set(stopped.load(Ordering::SeqCst) == 1);
            std::future::ready(if attempts.get() == 2 { Ok(n) } else { Err("busy") })
        }));
        stopper.join().unwrap();
        assert!(outcomes.len() <= 1 && attempts.get() <= 2);
        assert_eq!(budget.available_permits(), 1);
        match (outcomes.first(), attempts.get()) {
            (None, 0) | (Some(Settled::Fulfilled(7)), 2) => {}
            (Some(Settled::Cancelled { started: false, .. }), 0) => {}
            (Some(Settled::Cancelled { last_error: Some("busy"), .. }), 1) => {
                assert_eq!(how, Stop::Abort);
            }
            other => panic!("{other:?}"),
        }
        assert!(how == Stop::Drain || !late.get(), "an attempt began after an abort");
    });
}

#[test]
fn aborted_while_a_retry_comes_due() {
    stopped_while_a_retry_comes_due(Stop::Abort);
}

#[test]
fn drained_while_a_retry_comes_due() {
    stopped_while_a_retry_comes_due(Stop::Drain);
}

/// A retry that waits for a permit which another thread gives back.
#[test]
fn the_permit_of_an_item_that_waits_goes_to_another() {
    loom::model(|| {
        let budget = std::sync::Arc::new(Semaphore::new(1));
        let executor = BatchExecutor::builder()
            .limit(1)
            .budget(budget.clone())
            .build()
            .unwrap()
            .retry(Retry::constant(2, Duration::ZERO).unwrap());
        let other = {
            let budget = budget.clone();
            loom::thread::spawn(move || {
                drop(loom::future::block_on(budget.acquire()).unwrap());
            })
        };
        let attempts = std::cell::Cell::new(0);
        let outcomes = loom::future::block_on(executor.all_settled([()], |()| {
            attempts.set(attempts.get() + 1);
            assert_eq!(budget.available_permits(), 0);
            std::future::ready(if attempts.get() == 2 { Ok(()) } else { Err(()) })
        }));
        assert!(outcomes.summary().is_complete());
        other.join().unwrap();
        assert_eq!(budget.available_permits(), 1);
    });
}

/// Dropped at some point of its life while another stops it: the permit comes back.
#[test]
fn a_run_that_is_dropped_gives_back_everything() {
    loom::model(|| {
        let token = StopToken::new();
        let budget = std::sync::Arc::new(Semaphore::new(1));
        let executor = BatchExecutor::builder()
            .limit(1)
            .budget(budget.clone())
            .stop(token.clone())
            .build()
            .unwrap()
            .retry(Retry::constant(3, Duration::ZERO).unwrap());
        let stopper = loom::thread::spawn(move || token.stop(Stop::Abort));
        {
            let mut run = pin!(executor.all_settled([()], |()| {
                let mut polls = 0;
                std::future::poll_fn(move |cx| {
                    polls += 1;
                    if polls == 2 {
                        return Poll::Ready(Err::<(), _>(()));
                    }
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })
            }));
            let _ = run.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        stopper.join().unwrap();
        assert_eq!(budget.available_permits(), 1);
    });
}
