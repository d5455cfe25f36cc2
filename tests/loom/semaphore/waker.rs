//! Models of wakers: the one that was left last is woken, and whatever a waker does, the semaphore
//! goes on.

use super::support;

use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use sluicegate::{Semaphore, TryAcquireError};
use support::*;

/// 12. Poll with one waker, then another, against a grant: the waker of the last pending poll is woken.
///
/// Fails if `rewake` does not replace the old waker by the new, and if it looks for the waiter in one
/// critical section and does so in another.
#[test]
fn poll_with_another_waker_against_grant() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let mut waiter = Waiter::waiting(&semaphore, 1);

        let release = drop_elsewhere(permit);
        waiter.move_to(Counter::new(|| ()));
        let polled = waiter.poll();
        release.join().unwrap();

        drop(waiter.outcome(polled).unwrap());
        assert_at_rest(&semaphore, 1);
    });
}

/// 12. There and back again.
///
/// Fails if the waiter forgets which waker it left last.
#[test]
fn poll_with_the_first_waker_again_against_grant() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let [here, there] = [(); 2].map(|()| Counter::new(|| ()));
        let mut waiter = Waiter::of_task(&semaphore, 1, here.clone()).must_wait();

        let release = drop_elsewhere(permit);
        waiter.move_to(there);
        let mut polled = waiter.poll();
        if polled.is_pending() {
            waiter.move_to(here);
            polled = waiter.poll();
        }
        release.join().unwrap();

        drop(waiter.outcome(polled).unwrap());
        assert_at_rest(&semaphore, 1);
    });
}

/// 13. A waker that panics when it is woken: the others of its batch and the next are served.
///
/// Fails if a panic leaves `wake_all`, or if it goes on before the next batch.
#[test]
fn panic_in_wake() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([3]);
        let panicking = Counter::new(|| panic_quietly());
        let first = Waiter::of_task(&semaphore, 1, panicking).must_wait();
        let [second, third, leaving] = [(); 3].map(|()| Waiter::waiting(&semaphore, 1));

        let leave = drop_elsewhere(leaving);
        assert!(panics_on_purpose(|| drop(permit)), "a panic was swallowed");
        leave.join().unwrap();

        drop([first, second, third].map(Waiter::granted));
        assert_at_rest(&semaphore, 3);
    });
}

/// 13. A waker that panics when it is cloned for the wait list: there is no waiter then, and nothing
///     waits for it.
///
/// Fails if `join` clones the waker when it has set the flag.
#[test]
fn panic_in_clone() {
    exhaustive(|| {
        let semaphore = Arc::new(Semaphore::new(1));
        let trap = Trap::new(Call::Clone, || panic_quietly());
        let waker = trap.waker();
        trap.arm();
        let mut waiter = Waiter::new(&semaphore, 2);

        let acquire = elsewhere(&semaphore, |semaphore| semaphore.try_acquire_owned().map(drop));
        assert!(panics_on_purpose(|| assert!(waiter.poll_with(&waker).is_pending())));

        assert_eq!(acquire.join().unwrap(), Ok(()));
        assert_at_rest(&semaphore, 1);
    });
}

/// 13. A waker that panics when it is cloned to replace another: the waiter keeps its position, and the
///     next poll leaves the waker.
///
/// Fails if the waiter takes the waker for left before it has its clone.
#[test]
fn panic_in_clone_of_another_waker() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let mut waiter = Waiter::waiting(&semaphore, 1);
        let trap = Trap::new(Call::Clone, || panic_quietly());
        let waker = trap.waker();
        trap.arm();

        let release = drop_elsewhere(permit);
        let (panicked, polled) = poll_through(&mut waiter, &waker);
        release.join().unwrap();

        assert!(panicked || polled.is_ready(), "a panic was swallowed");
        assert_trap_served(&semaphore, waiter, &trap, polled);
    });
}

/// 13. A waker that panics when it is dropped by a waiter that leaves: the next is served.
///
/// Fails if `leave` drops the waker before it has served those behind.
#[test]
fn panic_in_drop_of_one_that_leaves() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let trap = Trap::new(Call::Drop, || panic_quietly());
        let waker = trap.waker();
        let mut leaving = Waiter::new(&semaphore, 2);
        assert!(leaving.poll_with(&waker).is_pending());
        let next = Waiter::waiting(&semaphore, 1);
        trap.arm();

        let release = drop_elsewhere(permit);
        assert!(panics_on_purpose(|| drop(leaving)), "a panic was swallowed");
        release.join().unwrap();

        drop(next.granted());
        assert_at_rest(&semaphore, 1);
    });
}

/// 13. A waker that panics when another replaces it: the other is left all the same.
///
/// Fails if `rewake` drops the old waker before the new one is in the list.
#[test]
fn panic_in_drop_of_the_waker_before() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let trap = Trap::new(Call::Drop, || panic_quietly());
        let waker = trap.waker();
        let mut waiter = Waiter::new(&semaphore, 1);
        assert!(waiter.poll_with(&waker).is_pending());
        trap.arm();

        let release = elsewhere(&semaphore, |_| panics_on_purpose(|| drop(permit)));
        let mut polled = None;
        let panicked = panics_on_purpose(|| polled = Some(waiter.poll()));
        let polled = polled.unwrap_or_else(|| waiter.poll());
        let panicked_elsewhere = release.join().unwrap();

        assert!(panicked != panicked_elsewhere, "a panic was swallowed");
        drop(waiter.outcome(polled).unwrap());
        assert_at_rest(&semaphore, 1);
    });
}

/// 13. A waker that panics when it is dropped for not being needed: the permit is had by the next
///     poll, and once.
///
/// Fails if the waiter notes the permits that `join` took after it has dropped the waker.
#[test]
fn panic_in_drop_of_a_waker_not_needed() {
    for waiting in [true, false] {
        exhaustive(move || {
            let (semaphore, [permit]) = held([1]);
            let trap = Trap::new(Call::Drop, || panic_quietly());
            let waker = trap.waker();
            let mut waiter = Waiter::new(&semaphore, 1);
            if waiting {
                waiter = waiter.must_wait();
            }
            trap.arm();

            let release = elsewhere(&semaphore, |_| panics_on_purpose(|| drop(permit)));
            let (panicked, polled) = poll_through(&mut waiter, &waker);
            release.join().unwrap();

            assert!(!panicked || polled.is_ready(), "had its permit, and lost it");
            assert_trap_served(&semaphore, waiter, &trap, polled);
        });
    }
}

/// 13. A waker that panics when it is dropped by a close, or by the waiter that finds it closed:
///     the others are refused, and the waiter leaves once.
///
/// Fails if a panic leaves `wake_all`.
#[test]
fn panic_in_drop_by_close() {
    exhaustive(|| {
        let (semaphore, []) = held([]);
        let trap = Trap::new(Call::Drop, || panic_quietly());
        let waker = trap.waker();
        let mut waiter = Waiter::new(&semaphore, 1);
        assert!(waiter.poll_with(&waker).is_pending());
        let others = [(); 2].map(|()| Waiter::waiting(&semaphore, 1));
        trap.arm();

        let close = elsewhere(&semaphore, |semaphore| panics_on_purpose(|| semaphore.close()));
        let mut panicked = panics_on_purpose(|| drop(waiter.poll_with(&waker)));
        panicked |= panics_on_purpose(|| drop(waiter));
        let panicked_elsewhere = close.join().unwrap();

        assert!(panicked != panicked_elsewhere, "a panic was swallowed");
        others.into_iter().for_each(Waiter::refused);
        assert_at_rest(&semaphore, 0);
    });
}

/// 14. A waker that acquires: by the fast path, and as a waiter.
///
/// Fails, locked up, if wakers are woken under the lock.
#[test]
fn acquire_in_wake() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let entered = semaphore.clone();
        let acquiring = Counter::new(move || {
            assert_eq!(entered.try_acquire().err(), Some(TryAcquireError::NoPermits));
            drop(Waiter::waiting(&entered, 1));
        });
        let first = Waiter::of_task(&semaphore, 1, acquiring).must_wait();
        let leaving = Waiter::waiting(&semaphore, 1);

        let release = drop_elsewhere(permit);
        drop(leaving);
        release.join().unwrap();

        drop(first.granted());
        assert_at_rest(&semaphore, 1);
    });
}

/// 14. A waker that releases.
///
/// Fails, locked up, if wakers are woken under the lock.
#[test]
fn release_in_wake() {
    exhaustive(|| {
        let (semaphore, [one, two]) = held([1, 1]);
        let first = Waiter::of_task(&semaphore, 1, drops_when_woken(two)).must_wait();
        let next = Waiter::waiting(&semaphore, 1);
        let leaving = Waiter::waiting(&semaphore, 1);

        let release = drop_elsewhere(one);
        drop(leaving);
        release.join().unwrap();

        drop((first.granted(), next.granted()));
        assert_at_rest(&semaphore, 2);
    });
}

/// 14. A waker that drops another waiter, which may have been granted in the same batch: its permit
///     goes to the next.
///
/// Fails, locked up, if wakers are woken under the lock.
#[test]
fn cancel_of_another_in_wake() {
    exhaustive(|| {
        let (semaphore, [one, two]) = held([1, 1]);
        let mut first = Waiter::waiting(&semaphore, 1);
        let cancelled = Waiter::waiting(&semaphore, 1);
        first.move_to(drops_when_woken(cancelled));
        let first = first.must_wait();
        let third = Waiter::waiting(&semaphore, 1);

        let release = drop_elsewhere(one);
        drop(two);
        release.join().unwrap();

        drop((first.granted(), third.granted()));
        assert_at_rest(&semaphore, 2);
    });
}

/// 14. A waker that closes, woken by a grant or by a close.
///
/// Fails, locked up, if wakers are woken under the lock, by `grant` or by `close`.
#[test]
fn close_in_wake() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let entered = semaphore.clone();
        let closing = Counter::new(move || entered.close());
        let first = Waiter::of_task(&semaphore, 1, closing).must_wait();
        let others = [(); 2].map(|()| Waiter::waiting(&semaphore, 1));

        let close = elsewhere(&semaphore, |semaphore| semaphore.close());
        drop(permit);
        close.join().unwrap();

        first.refused();
        others.into_iter().for_each(Waiter::refused);
        assert_at_rest(&semaphore, 1);
    });
}

/// 14. A waker that releases when it is dropped.
///
/// Fails, locked up, if `leave` drops its waker under the lock.
#[test]
fn release_in_drop() {
    exhaustive(|| {
        let (semaphore, [one, two]) = held([1, 1]);
        let mut leaving = Waiter::new(&semaphore, 1);
        assert!(leaving.poll_with(&Waker::from(drops_when_woken(two))).is_pending());
        let next = Waiter::waiting(&semaphore, 2);

        let release = drop_elsewhere(one);
        drop(leaving);
        release.join().unwrap();

        drop(next.granted());
        assert_at_rest(&semaphore, 2);
    });
}

/// 14. A waker that releases when another replaces it.
///
/// Fails, locked up, if `rewake` drops the waker before under the lock.
#[test]
fn release_in_drop_of_the_waker_before() {
    exhaustive(|| {
        let (semaphore, [one, two]) = held([1, 1]);
        let mut waiter = Waiter::new(&semaphore, 2);
        assert!(waiter.poll_with(&Waker::from(drops_when_woken(two))).is_pending());

        let release = drop_elsewhere(one);
        let polled = waiter.poll();
        release.join().unwrap();

        drop(waiter.outcome(polled).unwrap());
        assert_at_rest(&semaphore, 2);
    });
}

/// 14. A waker that releases when it is cloned.
///
/// Fails, locked up, if `join` clones the waker under the lock.
#[test]
fn release_in_clone() {
    exhaustive(|| {
        let (semaphore, [one, two]) = held([1, 1]);
        let trap = Trap::new(Call::Clone, || drop(two));
        let waker = trap.waker();
        trap.arm();
        let mut waiter = Waiter::new(&semaphore, 2);

        let release = drop_elsewhere(one);
        let polled = waiter.poll_with(&waker);
        release.join().unwrap();

        assert_trap_served(&semaphore, waiter, &trap, polled);
    });
}

/// Polls, and once more if that panics on purpose.
fn poll_through(waiter: &mut Waiter, waker: &Waker) -> (bool, Poll<Acquired>) {
    let mut polled = None;
    let panicked = panics_on_purpose(|| polled = Some(waiter.poll_with(waker)));
    (panicked, polled.unwrap_or_else(|| waiter.poll_with(waker)))
}

/// The waiter has its permits, whatever the trap did that it was `polled` with last.
#[track_caller]
fn assert_trap_served(
    semaphore: &Semaphore,
    mut waiter: Waiter,
    trap: &Trap,
    polled: Poll<Acquired>,
) {
    trap.disarm();
    let acquired = match polled {
        Poll::Ready(acquired) => acquired,
        Poll::Pending => {
            assert_eq!(trap.wakes(), 1, "wake-ups of a waiter that was pending");
            let Poll::Ready(acquired) = waiter.poll() else { panic!("woken in vain") };
            acquired
        }
    };
    let permits = acquired.expect("granted").num_permits();
    drop(waiter);
    assert_at_rest(semaphore, permits);
}

/// Drops the value at the first wake-up, or with the task if there is none.
fn drops_when_woken<T: Send + 'static>(value: T) -> Arc<Counter> {
    let slot = Mutex::new(Some(value));
    Counter::new(move || {
        let value = slot.lock().unwrap().take();
        drop(value);
    })
}
