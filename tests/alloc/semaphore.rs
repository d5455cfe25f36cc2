//! What the semaphore allocates: nothing to acquire, and nothing to wait once there were as many
//! waiters before.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use allocation_counter::{AllocationInfo, measure};
use sluicegate::{AcquireOwned, Semaphore};

fn count(run: impl FnOnce()) -> u64 {
    let AllocationInfo { count_total, .. } = measure(run);
    count_total
}

/// Everybody queues, half of them give up, the others are served at once and go.
fn rush(semaphore: &Arc<Semaphore>, waiters: &mut Vec<AcquireOwned>) {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..200 {
        let mut acquire = semaphore.clone().acquire_owned();
        assert!(Pin::new(&mut acquire).poll(&mut cx).is_pending());
        waiters.push(acquire);
    }
    waiters.truncate(100);
    semaphore.add_permits(100);
    for mut acquire in waiters.drain(..) {
        match Pin::new(&mut acquire).poll(&mut cx) {
            Poll::Ready(permit) => permit.unwrap().forget(),
            Poll::Pending => panic!("there is a permit for each waiter"),
        }
    }
}

#[test]
fn acquiring_allocates_nothing() {
    let semaphore = Semaphore::new(2);
    let allocated = count(|| {
        for _ in 0..1000 {
            let permit = semaphore.try_acquire().unwrap();
            let polled = pin!(semaphore.acquire()).poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_ready());
            drop(permit);
        }
    });
    assert_eq!(allocated, 0);
}

#[test]
fn waiting_allocates_nothing_in_the_steady_state() {
    let semaphore = Arc::new(Semaphore::new(0));
    let mut waiters = Vec::with_capacity(200);
    let first = count(|| rush(&semaphore, &mut waiters));
    assert!(first > 0, "the first rush makes the seats, or nothing is counted");
    assert_eq!(count(|| (0..10).for_each(|_| rush(&semaphore, &mut waiters))), 0);
}

#[test]
fn closing_allocates_nothing() {
    let semaphore = Arc::new(Semaphore::new(0));
    let mut waiters = Vec::with_capacity(200);
    rush(&semaphore, &mut waiters);
    waiters.extend((0..100).map(|_| semaphore.clone().enqueue_owned(1)));
    assert_eq!(count(|| semaphore.close()), 0);
    assert_eq!(semaphore.waiters(), 0);
}
