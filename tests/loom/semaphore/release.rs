//! Models of permits that are returned: no waiter misses them, no request passes a waiter.

use super::support;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use sluicegate::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use support::*;

/// 1. Release against enqueue: a waiter that comes while the last permit is returned is served.
///
/// Fails if `join` sets the flag without looking at the permits in the same step, and if a release
/// does not look at the flag it added to.
#[test]
fn release_against_enqueue() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let mut waiter = Waiter::new(&semaphore, 1);

        let release = drop_elsewhere(permit);
        let polled = waiter.poll();
        release.join().unwrap();

        drop(waiter.outcome(polled).unwrap());
        assert_at_rest(&semaphore, 1);
    });
}

/// 1, with `add_permits`.
///
/// Fails if `add_permits` does not look at the flag it added to.
#[test]
fn add_permits_against_enqueue() {
    exhaustive(|| {
        let (semaphore, []) = held([]);
        let mut waiter = Waiter::new(&semaphore, 1);

        let add = elsewhere(&semaphore, |semaphore| semaphore.add_permits(1));
        let polled = waiter.poll();
        add.join().unwrap();

        drop(waiter.outcome(polled).unwrap());
        assert_at_rest(&semaphore, 1);
    });
}

/// 1, with a waiter that is enqueued before there is a waker to leave.
///
/// Fails if a first poll keeps the waker that `enqueue` left.
#[test]
fn release_against_the_first_poll_of_an_enqueued_waiter() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);

        let release = drop_elsewhere(permit);
        let mut waiter = Waiter::enqueued(&semaphore, 1);
        let polled = waiter.poll();
        release.join().unwrap();

        drop(waiter.outcome(polled).unwrap());
        assert_at_rest(&semaphore, 1);
    });
}

/// 8. Clearing `SLOW` against a fast acquire: the permit that is returned belongs to the waiter,
///    at every moment.
///
/// Fails if `grant` clears the flag before it takes out what it granted.
#[test]
fn no_request_passes_the_last_waiter_as_it_is_served() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let waiter = Waiter::waiting(&semaphore, 1);

        let release = drop_elsewhere(permit);
        let passed = semaphore.try_acquire().err();
        release.join().unwrap();

        assert_eq!(passed, Some(TryAcquireError::NoPermits));
        drop(waiter.granted());
        assert_at_rest(&semaphore, 1);
    });
}

/// 8, with a waiter that stays in the list.
///
/// Fails if `grant` clears the flag when it has served some waiters, rather than all.
#[test]
fn no_request_passes_the_next_waiter() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let first = Waiter::waiting(&semaphore, 1);
        let next = Waiter::waiting(&semaphore, 1);

        let release = drop_elsewhere((permit, first));
        let passed = semaphore.try_acquire().err();
        release.join().unwrap();

        assert_eq!(passed, Some(TryAcquireError::NoPermits));
        drop(next.granted());
        assert_at_rest(&semaphore, 1);
    });
}

/// 8. Clearing `SLOW` against a fast release and a fast acquire: a request that is not in the wait
///    list has a permit only after all that are.
///
/// Fails if `grant` writes the word it has computed, rather than changing it by the difference.
#[test]
fn clearing_the_flag_against_release_and_acquire() {
    exhaustive(|| {
        let (semaphore, [first, second]) = held([1, 1]);
        let mut waiter = Waiter::new(&semaphore, 1);

        let release = drop_elsewhere(first);
        let polled = waiter.poll();
        drop(second);
        let passing = semaphore.clone().try_acquire_owned();
        if passing.is_ok() && polled.is_pending() {
            assert_eq!(semaphore.granted_unclaimed(), 1, "passed a waiter");
        }
        release.join().unwrap();

        drop((waiter.outcome(polled).unwrap(), passing));
        assert_at_rest(&semaphore, 2);
    });
}

/// 9. Two releases at once, which only together are enough for the waiter.
///
/// Fails if `grant` takes what is being returned for all there is.
#[test]
fn two_releases_serve_one() {
    exhaustive(|| {
        let (semaphore, [first, second]) = held([1, 1]);
        let waiter = Waiter::waiting(&semaphore, 2);

        let release = drop_elsewhere(first);
        drop(second);
        release.join().unwrap();

        drop(waiter.granted());
        assert_at_rest(&semaphore, 2);
    });
}

/// 9. Two releases at once, one of which has found no waiters before one came.
///
/// Fails if `grant` writes the word it has computed, rather than changing it by the difference.
#[test]
fn two_releases_against_enqueue() {
    exhaustive(|| {
        let (semaphore, [first, second]) = held([1, 1]);
        let mut waiter = Waiter::new(&semaphore, 2);

        let release = drop_elsewhere(first);
        let polled = waiter.poll();
        drop(second);
        release.join().unwrap();

        drop(waiter.outcome(polled).unwrap());
        assert_at_rest(&semaphore, 2);
    });
}

/// 15. The boundary between two batches of wake-ups: the third of three, for which the first
///     batch of two has no room, is served too, and not passed while the lock is free.
///
/// Fails if `grant` does not ask to be called again when the batch is full, and if it clears the
/// flag with a full batch.
#[test]
fn no_request_passes_between_two_batches() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([3]);
        let waiters = [(); 3].map(|()| Waiter::waiting(&semaphore, 1));

        let release = drop_elsewhere(permit);
        let passed = semaphore.try_acquire().err();
        release.join().unwrap();

        assert_eq!(passed, Some(TryAcquireError::NoPermits));
        drop(waiters.map(Waiter::granted));
        assert_at_rest(&semaphore, 3);
    });
}

/// 15. The waiter at the boundary leaves, and another comes.
///
/// Fails if `grant` does not ask to be called again when the batch is full.
#[test]
fn leave_and_enqueue_between_two_batches() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([3]);
        let served = [(); 2].map(|()| Waiter::waiting(&semaphore, 1));
        let leaving = Waiter::waiting(&semaphore, 1);
        let mut late = Waiter::new(&semaphore, 1);

        let release = drop_elsewhere(permit);
        drop(leaving);
        let polled = late.poll();
        release.join().unwrap();

        drop((served.map(Waiter::granted), late.outcome(polled).unwrap()));
        assert_at_rest(&semaphore, 3);
    });
}

/// 16. An overflow leaves the count as it was: nothing is added to the permits that a release is
///     about to take out again.
///
/// Fails if the release is not undone, and if `add_permits` takes the excess for room.
#[test]
fn overflowing_release_against_overflowing_add() {
    exhaustive(|| {
        let (semaphore, extra) = full_with_one_held();

        let add = elsewhere(&semaphore, |semaphore| overflows(|| semaphore.add_permits(1)));
        assert!(overflows(|| drop(extra)), "released beyond the most there can be");
        assert!(add.join().unwrap(), "added beyond the most there can be");

        assert_eq!(semaphore.available_permits(), Semaphore::MAX_PERMITS);
    });
}

/// 16. A release and an addition, and room for one of them.
///
/// Fails if `add_permits` looks for room in another step than it adds in.
#[test]
fn release_against_add_with_room_for_one() {
    exhaustive(|| {
        let semaphore = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let permit = take(&semaphore, 1);

        let add = elsewhere(&semaphore, |semaphore| overflows(|| semaphore.add_permits(1)));
        let refused = overflows(|| drop(permit));

        assert!(add.join().unwrap() != refused, "one has room, and one has not");
        assert_eq!(semaphore.available_permits(), Semaphore::MAX_PERMITS);
    });
}

/// 16. An acquire takes a permit, and so makes room or comes too late.
///
/// Fails if the release is not undone.
#[test]
fn overflowing_release_against_acquire() {
    exhaustive(|| {
        let (semaphore, extra) = full_with_one_held();

        let taking = elsewhere(&semaphore, |semaphore| semaphore.try_acquire_owned().unwrap());
        let refused = overflows(|| drop(extra));
        let taken = taking.join().unwrap();

        taken.forget();
        let lost = usize::from(refused);
        assert_eq!(semaphore.available_permits(), Semaphore::MAX_PERMITS - lost);
    });
}

/// 16. All permits are taken out of circulation at once, in one of two ways, and the excess with them
///     if it is there: then there is room for it, and nothing to undo.
///
/// Fails, the semaphore closed, if the release is undone whatever was taken since; and if an overflow
/// leaves the limit as it was.
#[test]
fn overflowing_release_against_shrink() {
    exhaustive(|| {
        let (semaphore, extra) = full_with_one_held();

        let shrink = elsewhere(&semaphore, |semaphore| semaphore.set_limit(0));
        overflows(|| drop(extra));
        shrink.join().unwrap();

        assert!(!semaphore.is_closed());
        assert_at_rest(&semaphore, 0);
        semaphore.set_limit(1);
        drop(take(&semaphore, 1));
        assert_at_rest(&semaphore, 1);
    });
}

/// 16. The same with permits that are forgotten.
///
/// Fails, the semaphore closed, if the release is undone whatever was taken since.
#[test]
fn overflowing_release_against_forgetting_all() {
    exhaustive(|| {
        let (semaphore, extra) = full_with_one_held();

        let forget = elsewhere(&semaphore, |semaphore| semaphore.forget_permits(usize::MAX));
        let lost = usize::from(overflows(|| drop(extra)));
        let forgotten = forget.join().unwrap();

        assert!(!semaphore.is_closed());
        assert_at_rest(&semaphore, Semaphore::MAX_PERMITS + 1 - forgotten - lost);
    });
}

/// 16. Two permits find no room, and a waiter comes while they are counted all the same: what a shrink
///     leaves is not kept from it.
///
/// Fails if `join` asks whether the word `has` the permits.
#[test]
fn overflowing_release_against_shrink_and_enqueue() {
    bounded(2, || {
        let semaphore = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let extra = take(&semaphore, 2);
        semaphore.add_permits(2);
        let mut waiter = Waiter::new(&semaphore, 1);

        let shrink = elsewhere(&semaphore, |semaphore| semaphore.set_limit(5));
        let release = elsewhere(&semaphore, |_| overflows(|| drop(extra)));
        let polled = waiter.poll();
        shrink.join().unwrap();
        release.join().unwrap();

        drop(waiter.outcome(polled).unwrap());
        assert_eq!(semaphore.waiters(), 0, "waiters");
    });
}

/// As many permits as there can be, and one that finds no room when it comes back.
fn full_with_one_held() -> (Arc<Semaphore>, OwnedSemaphorePermit) {
    let semaphore = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
    let extra = take(&semaphore, 1);
    semaphore.add_permits(1);
    (semaphore, extra)
}

/// Whether it panics as an overflow must; any other panic goes on.
fn overflows(act: impl FnOnce()) -> bool {
    let Err(payload) = catch_unwind(AssertUnwindSafe(act)) else { return false };
    let message = payload.downcast_ref::<String>();
    if !message.is_some_and(|message| message.contains("would overflow MAX_PERMITS")) {
        resume_unwind(payload);
    }
    true
}

/// 20. `split` and `merge`, dropped on different threads: each permit goes back once.
///
/// Fails if `split` leaves the permits where they were, and if `merge` leaves them in both.
#[test]
fn split_and_merge_dropped_on_different_threads() {
    exhaustive(|| {
        let (semaphore, [mut permit, other]) = held([2, 1]);
        let waiter = Waiter::waiting(&semaphore, 3);

        let part = drop_elsewhere(permit.split(1).unwrap());
        permit.merge(other);
        drop(permit);
        part.join().unwrap();

        drop(waiter.granted());
        assert_at_rest(&semaphore, 3);
    });
}
