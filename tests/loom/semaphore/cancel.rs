//! Models of waiters that leave: no permit is lost with them, and the waiters behind them are served.

use super::support;

use support::*;

/// 2. Cancel while being granted: whichever comes first, the next waiter is served.
///
/// Fails if `leave` looks whether it was granted in one critical section and goes in another, and
/// if it keeps what it was granted.
#[test]
fn cancel_while_being_granted() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let leaving = Waiter::waiting(&semaphore, 1);
        let next = Waiter::waiting(&semaphore, 1);

        let release = drop_elsewhere(permit);
        drop(leaving);
        release.join().unwrap();

        drop(next.granted());
        assert_at_rest(&semaphore, 1);
    });
}

/// 3. Drop of a granted, never polled future against enqueue: what it was granted goes to the
///    waiter that has just come, or is free for it to take.
///
/// Fails if `leave` keeps what it was granted, and if it puts it back without serving the waiters.
#[test]
fn drop_of_a_granted_future_against_enqueue() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let granted = Waiter::waiting(&semaphore, 1);
        drop(permit);
        let mut waiter = Waiter::new(&semaphore, 1);

        let leave = drop_elsewhere(granted);
        let polled = waiter.poll();
        leave.join().unwrap();

        drop(waiter.outcome(polled).unwrap());
        assert_at_rest(&semaphore, 1);
    });
}

/// 4. Cancelling a large head wakes all waiters that can be served then, with what was there before and
///    with what comes back meanwhile.
///
/// Fails if `leave` does not serve those behind the head, and if it serves one of them.
#[test]
fn cancel_of_a_large_head_against_release() {
    exhaustive(|| {
        let (semaphore, [one, two]) = held([1, 2]);
        let head = Waiter::waiting(&semaphore, 4);
        let behind = [(); 3].map(|()| Waiter::waiting(&semaphore, 1));
        drop(two);

        let leave = drop_elsewhere(head);
        drop(one);
        leave.join().unwrap();

        drop(behind.map(Waiter::granted));
        assert_at_rest(&semaphore, 3);
    });
}

/// 4. The two at the front leave at once, and only without both is the third served.
///
/// Fails if `leave` does not serve those behind the head.
#[test]
fn cancel_of_the_two_in_front() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let first = Waiter::waiting(&semaphore, 2);
        let second = Waiter::waiting(&semaphore, 3);
        let third = Waiter::waiting(&semaphore, 1);
        drop(permit);

        let leave = drop_elsewhere(first);
        drop(second);
        leave.join().unwrap();

        drop(third.granted());
        assert_at_rest(&semaphore, 1);
    });
}

/// 5. `add_permits` against cancel of the head: too few for the head, enough for the next.
///
/// Fails if `add_permits` does not serve the waiters, and if `leave` does not serve those behind the
/// head.
#[test]
fn add_permits_against_cancel_of_the_head() {
    exhaustive(|| {
        let (semaphore, []) = held([]);
        let head = Waiter::waiting(&semaphore, 2);
        let next = Waiter::waiting(&semaphore, 1);

        let add = elsewhere(&semaphore, |semaphore| semaphore.add_permits(1));
        drop(head);
        add.join().unwrap();

        drop(next.granted());
        assert_at_rest(&semaphore, 1);
    });
}

/// 18. A timeout against its grant, as the cancel that it is: it looks once more and goes, and
///     may find itself granted before, between or after.
///
/// Fails if `leave` keeps what it was granted.
#[test]
fn timeout_against_grant() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let mut waiter = Waiter::waiting(&semaphore, 1);

        let release = drop_elsewhere(permit);
        let in_time = waiter.poll();
        drop(waiter);
        release.join().unwrap();

        drop(in_time);
        assert_at_rest(&semaphore, 1);
    });
}

/// 18. A blocked thread against its grant: a wake-up before it parks is not lost.
///
/// Fails, all threads asleep, if the waker of a blocked thread does not unpark it, and if `join`
/// sets the flag without looking at the permits in the same step.
#[test]
fn blocking_acquire_against_grant() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);

        let release = drop_elsewhere(permit);
        drop(semaphore.blocking_acquire().unwrap());
        release.join().unwrap();

        assert_at_rest(&semaphore, 1);
    });
}

/// 19. Two futures of one task, one abandoned: the task is woken once more for the one it wants,
///     even if the wake-up for the other came first.
///
/// Fails if `leave` keeps what it was granted, and if it passes it on without a wake-up.
#[test]
fn two_futures_of_one_task_one_abandoned() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let task = Counter::new(|| ());
        let abandoned = Waiter::of_task(&semaphore, 1, task.clone()).must_wait();
        let mut wanted = Waiter::of_task(&semaphore, 1, task.clone()).must_wait();

        let release = drop_elsewhere(permit);
        let wakes = task.wakes();
        let polled = wanted.poll();
        drop(abandoned);
        release.join().unwrap();

        assert!(polled.is_pending(), "passed the one before it");
        assert!(task.wakes() > wakes, "not woken");
        assert!(wanted.poll().is_ready(), "woken in vain");
        drop(wanted);
        assert_at_rest(&semaphore, 1);
    });
}
