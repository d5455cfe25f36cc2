//! What the queue allocates: nothing per item, whatever its outcome, and nothing per wait once as
//! many waiters waited before.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use sluicegate::OverflowQueue;
use sluicegate::queue::{Pop, Push, Pushed, WhenFull};

fn count(run: impl FnOnce()) -> u64 {
    measure(run).count_total
}

fn queue(when_full: WhenFull) -> OverflowQueue<u64> {
    OverflowQueue::builder().capacity(100).when_full(when_full).build().unwrap()
}

fn polled<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn pushing_and_popping_allocates_nothing() {
    for when_full in [WhenFull::Wait, WhenFull::Reject, WhenFull::DropNewest, WhenFull::DropOldest]
    {
        let queue = queue(when_full);
        let allocated = count(|| {
            for round in 0..1_000 {
                for item in 0..150 {
                    match queue.try_push(item) {
                        Pushed::Displaced(older) => assert_eq!(older.len(), 1),
                        other => drop(other),
                    }
                }
                assert_eq!(queue.len(), 100);
                for _ in 0..100 {
                    assert!(polled(&mut queue.pop()).is_ready(), "round {round}");
                }
            }
        });
        assert_eq!(allocated, 0, "{when_full:?}");
    }
}

#[test]
fn protected_and_weighed_items_allocate_nothing() {
    let builder = OverflowQueue::builder().capacity(100).when_full(WhenFull::DropOldest);
    let queue = builder.protected(100).max_weight(1_000, |_: &u64| 7).build().unwrap();
    let allocated = count(|| {
        for _ in 0..1_000 {
            for item in 0..120 {
                let _ = queue.try_push(item);
                let _ = queue.try_push_protected(item);
            }
            while queue.try_pop().is_ok() {}
        }
    });
    assert_eq!(allocated, 0);
}

#[test]
fn displacing_a_share_allocates_once_for_all_of_it() {
    let queue = queue(WhenFull::DropOldestShare { percent: 20 });
    let allocated = count(|| {
        for item in 0..100 + 20 * 50 {
            if let Pushed::Displaced(older) = queue.try_push(item) {
                assert_eq!(older.len(), 20);
            }
        }
    });
    assert_eq!(allocated, 50);
}

#[test]
fn popping_many_into_a_vector_with_room_allocates_nothing() {
    let queue = queue(WhenFull::Wait);
    let mut into = Vec::with_capacity(100);
    let allocated = count(|| {
        for _ in 0..100 {
            (0..100).for_each(|item| assert!(queue.try_push(item).is_stored()));
            assert_eq!(polled(&mut queue.pop_many_into(&mut into, 100)), Poll::Ready(Ok(100)));
            into.clear();
        }
    });
    assert_eq!(allocated, 0);
}

#[test]
fn waiting_allocates_nothing_in_the_steady_state() {
    let queue = queue(WhenFull::Wait);
    (0..100).for_each(|item| assert!(queue.try_push(item).is_stored()));
    let mut pushes: Vec<Push<'_, u64>> = Vec::with_capacity(50);
    let mut pops: Vec<Pop<'_, u64>> = Vec::with_capacity(50);
    let mut rush = || {
        for item in 0..50 {
            let mut push = queue.push(item);
            assert!(polled(&mut push).is_pending());
            pushes.push(push);
        }
        pushes.truncate(25);
        (0..100).for_each(|_| assert!(queue.try_pop().is_ok()));
        for mut push in pushes.drain(..) {
            assert!(polled(&mut push).is_ready());
        }
        (0..25).for_each(|_| assert!(queue.try_pop().is_ok()));
        for _ in 0..50 {
            let mut pop = queue.pop();
            assert!(polled(&mut pop).is_pending());
            pops.push(pop);
        }
        pops.truncate(25);
        (0..100).for_each(|item| assert!(queue.try_push(item).is_stored()));
        for mut pop in pops.drain(..) {
            assert!(polled(&mut pop).is_ready());
        }
        (0..25).for_each(|item| assert!(queue.try_push(item).is_stored()));
    };
    assert!(count(&mut rush) > 0, "the first rush makes the slots, or nothing is counted");
    assert_eq!(count(|| (0..10).for_each(|_| rush())), 0);
}
