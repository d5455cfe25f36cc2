//! Models of permits that come and go: the limit is available + held − owed, whatever changes it
//! at the same time.

use super::support;

use std::sync::Arc;

use sluicegate::Semaphore;
use support::*;

/// 10. `forget_permits` against a grant: a permit on its way to a waiter is not free.
///
/// Fails if `forget_permits` takes what is in the word while there are waiters.
#[test]
fn forget_permits_against_grant() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let mut waiter = Waiter::new(&semaphore, 1);

        let release = drop_elsewhere(permit);
        let polled = waiter.poll();
        let forgotten = semaphore.forget_permits(1);
        release.join().unwrap();

        assert_eq!(forgotten, 0, "the permit is had or waited for");
        drop(waiter.outcome(polled).unwrap());
        assert_at_rest(&semaphore, 1);
    });
}

type Change = (fn(&Semaphore), usize);

/// What changes two permits, of which one is free at least, and how many there are then.
const CHANGES: [Change; 4] = [
    (|semaphore| assert_eq!(semaphore.forget_permits(1), 1), 1),
    (|semaphore| semaphore.add_permits(1), 3),
    (|semaphore| semaphore.set_limit(1), 1),
    (|semaphore| semaphore.set_limit(3), 3),
];

/// 10. Permits are forgotten or added as one comes back: all are counted.
///
/// Fails if one of the changes reads the word and writes it in two steps.
#[test]
fn release_against_a_change_of_the_permits() {
    for (change, permits) in CHANGES {
        exhaustive(move || {
            let semaphore = Arc::new(Semaphore::new(2));
            let permit = take(&semaphore, 1);

            let release = drop_elsewhere(permit);
            change(&semaphore);
            release.join().unwrap();

            assert_at_rest(&semaphore, permits);
        });
    }
}

/// 10. A closed semaphore stays closed, whatever is done to its permits meanwhile.
///
/// Fails if one of the changes reads the word and writes it in two steps, and not under the lock.
#[test]
fn a_closed_semaphore_stays_closed() {
    for (change, permits) in CHANGES {
        exhaustive(move || {
            let semaphore = Arc::new(Semaphore::new(2));

            let close = elsewhere(&semaphore, |semaphore| semaphore.close());
            change(&semaphore);
            close.join().unwrap();

            assert!(semaphore.is_closed(), "closed");
            assert_at_rest(&semaphore, permits);
        });
    }
}

/// 11. Shrink with debt against release and acquire, then grow: no permit that is owed is given,
///     and growing serves a waiter.
///
/// Fails if `grant` pays no debt, if a shrink does not set the flag for what it owes, and if
/// growing does not serve the waiters.
#[test]
fn shrink_against_release_and_acquire() {
    exhaustive(|| {
        let (semaphore, [one, two]) = held([1, 1]);
        let mut waiter = Waiter::new(&semaphore, 1);

        let shrink = elsewhere(&semaphore, |semaphore| semaphore.set_limit(1));
        let release = drop_elsewhere(one);
        let polled = waiter.poll();
        shrink.join().unwrap();
        release.join().unwrap();

        assert_eq!((semaphore.limit(), semaphore.available_permits()), (1, 0));
        if polled.is_ready() || waiter.wakes() > 0 {
            // It had its permit before the shrink, so that one is owed.
            drop(two);
            assert_eq!(semaphore.available_permits(), 0, "owed");
            drop(waiter.outcome(polled).unwrap());
            assert_at_rest(&semaphore, 1);
        } else {
            semaphore.set_limit(2);
            drop((waiter.granted(), two));
            assert_at_rest(&semaphore, 2);
        }
    });
}

/// 11. Grow against the release that pays the debt: it is paid or forgiven, not both.
///
/// Fails if growing forgives what it also adds, and if it does not serve the waiters.
#[test]
fn grow_against_release() {
    exhaustive(|| {
        let (semaphore, [one, two]) = held([1, 1]);
        semaphore.set_limit(0);
        let waiter = Waiter::waiting(&semaphore, 1);

        let release = drop_elsewhere(one);
        semaphore.set_limit(2);
        release.join().unwrap();

        drop((waiter.granted(), two));
        assert_at_rest(&semaphore, 2);
    });
}

/// 11. Shrink against the cancel of a waiter.
///
/// Fails if a shrink leaves its flag to the wait list, rather than to the debt.
#[test]
fn shrink_against_cancel() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([2]);
        let leaving = Waiter::waiting(&semaphore, 1);

        let shrink = elsewhere(&semaphore, |semaphore| semaphore.set_limit(1));
        drop(leaving);
        shrink.join().unwrap();

        drop(permit);
        assert_at_rest(&semaphore, 1);
    });
}

/// 11. Shrink against permits that are forgotten: what is gone is not owed as well.
///
/// Fails if the limit changes without the lock.
#[test]
fn shrink_against_forgetting_a_held_permit() {
    exhaustive(|| {
        let (semaphore, [one, two]) = held([1, 1]);

        let shrink = elsewhere(&semaphore, |semaphore| semaphore.set_limit(0));
        one.forget();
        shrink.join().unwrap();

        drop(two);
        assert_at_rest(&semaphore, 0);
        semaphore.add_permits(1);
        assert_at_rest(&semaphore, 1);
    });
}

/// 11. Shrink against free permits that are forgotten.
///
/// Fails if the limit changes without the lock.
#[test]
fn shrink_against_forgetting_a_free_permit() {
    exhaustive(|| {
        let semaphore = Arc::new(Semaphore::new(1));

        let shrink = elsewhere(&semaphore, |semaphore| semaphore.set_limit(0));
        semaphore.forget_permits(1);
        shrink.join().unwrap();

        assert_at_rest(&semaphore, 0);
        semaphore.add_permits(1);
        assert_at_rest(&semaphore, 1);
    });
}

/// 11. Shrink against permits that are added and forgotten: each is counted in the limit from when
///     it can be taken on.
///
/// Fails if the limit changes without the lock.
#[test]
fn shrink_against_adding_and_forgetting() {
    exhaustive(|| {
        let (semaphore, []) = held([]);

        let add = elsewhere(&semaphore, |semaphore| semaphore.add_permits(1));
        let shrink = elsewhere(&semaphore, |semaphore| semaphore.set_limit(0));
        let forgotten = semaphore.forget_permits(1);
        add.join().unwrap();
        shrink.join().unwrap();

        let left = semaphore.limit();
        assert!(left + forgotten <= 1, "limit");
        assert_at_rest(&semaphore, left);
    });
}

/// 11. Two threads that set the limit: one of the two limits holds in the end.
///
/// Fails if the limit changes without the lock.
#[test]
fn shrink_against_grow() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([2]);

        let shrink = elsewhere(&semaphore, |semaphore| semaphore.set_limit(1));
        semaphore.set_limit(3);
        shrink.join().unwrap();

        let limit = semaphore.limit();
        assert!(matches!(limit, 1 | 3), "limit");
        drop(permit);
        assert_at_rest(&semaphore, limit);
    });
}
