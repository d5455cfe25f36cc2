//! Models of polls without coop budget: they hold nothing, and order holds.

use super::support;

use std::sync::Arc;

use sluicegate::Semaphore;
use sluicegate::model::without_budget;
use support::*;

/// 1. A task without budget comes while a permit comes back: it has nothing, and is a waiter or
///    finds the permit free when it has budget again.
///
/// Fails if such a task takes what `join` finds free; and, asleep, if it is a waiter where there is a
/// permit.
#[test]
fn enqueue_without_budget_against_release() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let mut waiter = Waiter::new(&semaphore, 1);

        let release = drop_elsewhere(permit);
        assert!(without_budget(|| waiter.poll()).is_pending());
        release.join().unwrap();

        assert_eq!(semaphore.waiters(), 0);
        let granted = semaphore.granted_unclaimed();
        assert_eq!((semaphore.available_permits(), waiter.wakes()), (1 - granted, 1 + granted));
        let polled = waiter.poll();
        assert!(polled.is_ready());
        drop(polled);
        assert_at_rest(&semaphore, 1);
    });
}

/// 1. A task without budget, behind a waiter: it is in the list, and a later request does not
///    pass it.
///
/// Fails if such a task looks at the permits alone.
#[test]
fn enqueue_without_budget_behind_a_waiter() {
    exhaustive(|| {
        let semaphore = Arc::new(Semaphore::new(1));
        let first = Waiter::waiting(&semaphore, 2);
        let mut second = Waiter::new(&semaphore, 1);
        let third = Waiter::new(&semaphore, 1);

        let add = elsewhere(&semaphore, |semaphore| semaphore.add_permits(1));
        let both = without_budget(|| second.poll());
        assert!(both.is_pending());
        let third = third.must_wait();
        add.join().unwrap();

        assert_eq!(semaphore.waiters(), 2);
        drop(first.granted());
        assert_eq!(semaphore.granted_unclaimed(), 2);
        let polled = second.poll();
        assert!(polled.is_ready());
        drop((polled, third.granted()));
        assert_at_rest(&semaphore, 2);
    });
}

/// 2. A waiter without budget while it is granted: it keeps what it is granted.
///
/// Fails if a grant is claimed without budget.
#[test]
fn grant_of_a_waiter_without_budget() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let mut waiter = Waiter::waiting(&semaphore, 1);

        let release = drop_elsewhere(permit);
        assert!(without_budget(|| waiter.poll()).is_pending());
        release.join().unwrap();

        assert_eq!((semaphore.granted_unclaimed(), semaphore.available_permits()), (1, 0));
        let polled = waiter.poll();
        assert!(polled.is_ready());
        drop(polled);
        assert_at_rest(&semaphore, 1);
    });
}
