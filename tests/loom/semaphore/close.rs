//! Models of closing: all waiters are woken once, no permits are given after it, and no permit that
//! is held is lost.

use super::support;

use std::sync::Arc;
use std::task::Poll;

use sluicegate::{Semaphore, TryAcquireError};
use support::*;

/// 6. Close against fast acquire: what is free once the semaphore is closed stays so.
///
/// Fails if the fast path takes its permits in another step than the one that looks at the flags.
#[test]
fn close_against_fast_acquire() {
    exhaustive(|| {
        let semaphore = Arc::new(Semaphore::new(1));

        let close = elsewhere(&semaphore, |semaphore| {
            semaphore.close();
            semaphore.available_permits()
        });
        let acquired = semaphore.clone().try_acquire_owned();
        let free = close.join().unwrap();

        match &acquired {
            Ok(_) => assert_eq!(free, 0, "given after the close"),
            Err(error) => assert_eq!(*error, TryAcquireError::Closed),
        }
        drop(acquired);
        assert_closed_at_rest(&semaphore, 1);
    });
}

/// 6. Close against enqueue: a waiter that comes too late to be woken by the close finds it closed.
///
/// Fails if `join` does not look for the close under the lock.
#[test]
fn close_against_enqueue() {
    exhaustive(|| {
        let (semaphore, []) = held([]);
        let mut waiter = Waiter::new(&semaphore, 1);

        let close = elsewhere(&semaphore, |semaphore| semaphore.close());
        let polled = waiter.poll();
        close.join().unwrap();

        waiter.outcome(polled).unwrap_err();
        assert_closed_at_rest(&semaphore, 0);
    });
}

/// 6. Close against enqueue, while a permit is owed: the flag of the debt outlives the close.
///
/// Fails if `join` takes the flag for a wait list that the close will still empty.
#[test]
fn close_against_enqueue_with_a_debt() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        semaphore.set_limit(0);
        let mut waiter = Waiter::new(&semaphore, 1);

        let close = elsewhere(&semaphore, |semaphore| semaphore.close());
        let polled = waiter.poll();
        close.join().unwrap();

        waiter.outcome(polled).unwrap_err();
        drop(permit);
        assert_closed_at_rest(&semaphore, 0);
    });
}

/// 6. Close against grant, with more waiters than one batch of wake-ups holds: while the third has yet
///    to be woken, nothing is granted to it past the others.
///
/// Fails if `grant` does not look for the close, and if `close` stops after a batch.
#[test]
fn close_against_grant() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let [first, second, third] = [(); 3].map(|()| Waiter::waiting(&semaphore, 1));

        let close = elsewhere(&semaphore, |semaphore| semaphore.close());
        drop(permit);
        close.join().unwrap();

        first.refused();
        assert_eq!(semaphore.granted_unclaimed(), 0, "granted to another than the first");
        second.refused();
        third.refused();
        assert_closed_at_rest(&semaphore, 1);
    });
}

/// 6. Close against cancel: a waiter that was refused has no permit to pass on, and one that leaves is not
///    missed.
///
/// Fails if a waiter that was refused looks like one that was granted.
#[test]
fn close_against_cancel() {
    exhaustive(|| {
        let (semaphore, []) = held([]);
        let leaving = Waiter::waiting(&semaphore, 1);
        let staying = Waiter::waiting(&semaphore, 1);

        let close = elsewhere(&semaphore, |semaphore| semaphore.close());
        drop(leaving);
        close.join().unwrap();

        staying.refused();
        assert_closed_at_rest(&semaphore, 0);
    });
}

/// 6. Close against release: the permit is counted, and the semaphore closed.
///
/// Fails if `close` reads the word and writes it in two steps.
#[test]
fn close_against_release() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);

        let close = elsewhere(&semaphore, |semaphore| semaphore.close());
        drop(permit);
        close.join().unwrap();

        assert_closed_at_rest(&semaphore, 1);
    });
}

/// 6. Close against another close: all waiters are woken, and once.
///
/// Fails if `close` wakes waiters that it has yet to take out of the list.
#[test]
fn close_against_close() {
    exhaustive(|| {
        let (semaphore, []) = held([]);
        let waiters = [(); 3].map(|()| Waiter::waiting(&semaphore, 1));

        let close = elsewhere(&semaphore, |semaphore| semaphore.close());
        semaphore.close();
        close.join().unwrap();

        waiters.into_iter().for_each(Waiter::refused);
        assert_closed_at_rest(&semaphore, 0);
    });
}

/// 7. Grant, close, then poll: granted and not yet polled is too late, and the permit goes back.
///
/// Fails if a poll does not look for the close first, and if it keeps the permits then.
#[test]
fn poll_of_a_granted_future_against_close() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let mut waiter = Waiter::waiting(&semaphore, 1);
        drop(permit);

        let close = elsewhere(&semaphore, |semaphore| semaphore.close());
        let closed = semaphore.is_closed();
        let Poll::Ready(acquired) = waiter.poll() else { panic!("granted, or closed") };
        close.join().unwrap();

        assert!(!(closed && acquired.is_ok()), "given after the close");
        drop(acquired);
        assert_closed_at_rest(&semaphore, 1);
    });
}

/// 7. Grant, close, then drop: the permit goes to the next waiter, or stays free; the next is refused
///    either way.
///
/// Fails if `leave` keeps what it was granted.
#[test]
fn drop_of_a_granted_future_against_close() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let granted = Waiter::waiting(&semaphore, 1);
        let next = Waiter::waiting(&semaphore, 1);
        drop(permit);

        let close = elsewhere(&semaphore, |semaphore| semaphore.close());
        drop(granted);
        close.join().unwrap();

        next.refused();
        assert_closed_at_rest(&semaphore, 1);
    });
}

#[track_caller]
fn assert_closed_at_rest(semaphore: &Semaphore, permits: usize) {
    assert!(semaphore.is_closed(), "closed");
    assert_at_rest(semaphore, permits);
}
