//! Push and pop.

use std::hint::black_box;
use std::pin::pin;

use sluicegate::OverflowQueue;
use sluicegate::queue::WhenFull;

use crate::{in_task, poll, ready, row};

const CAPACITY: usize = 100;

fn queue(when_full: WhenFull) -> OverflowQueue<u64> {
    OverflowQueue::builder().capacity(CAPACITY).when_full(when_full).build().expect("good limits")
}

pub(crate) fn rows() {
    let waits = queue(WhenFull::Wait);
    row("queue: try_push, try_pop", 10_000, |n| {
        for item in 0..n {
            assert!(black_box(&waits).try_push(item).is_stored());
            assert!(black_box(&waits).try_pop().is_ok());
        }
    });
    row("queue: push, pop", 10_000, |n| {
        for item in 0..n {
            assert!(ready(black_box(&waits).push(item)).is_stored());
            let _popped = black_box(ready(black_box(&waits).pop()));
        }
    });
    row("queue: push, pop, in a task", 10_000, |n| {
        let queue = queue(WhenFull::Wait);
        in_task(async move {
            for item in 0..n {
                assert!(queue.push(item).await.is_stored());
                let _popped = black_box(queue.pop().await);
            }
        });
    });
    row("queue: 100 times try_push, pop_many", 100, |n| {
        for _ in 0..n {
            for item in 0..CAPACITY as u64 {
                assert!(waits.try_push(item).is_stored());
            }
            let _popped = black_box(ready(waits.pop_many(CAPACITY)));
        }
    });
    row("queue: 100 times try_push, pop_many_into", 100, |n| {
        let mut items = Vec::with_capacity(CAPACITY);
        for _ in 0..n {
            for item in 0..CAPACITY as u64 {
                assert!(waits.try_push(item).is_stored());
            }
            let _popped = black_box(ready(waits.pop_many_into(&mut items, CAPACITY)));
            items.clear();
        }
    });
    for (name, when_full) in [
        ("queue: try_push to a full one, drops the oldest", WhenFull::DropOldest),
        ("queue: try_push to a full one, drops the newest", WhenFull::DropNewest),
        ("queue: try_push to a full one, rejects", WhenFull::Reject),
    ] {
        let queue = queue(when_full);
        for item in 0..CAPACITY as u64 {
            assert!(queue.try_push(item).is_stored());
        }
        row(name, 10_000, |n| {
            for item in 0..n {
                let _pushed = black_box(queue.try_push(item));
            }
        });
    }
    row("queue: try_push to a pop that waits", 5_000, |n| {
        for item in 0..n {
            let mut pop = pin!(waits.pop());
            assert!(poll(pop.as_mut()).is_pending());
            assert!(waits.try_push(item).is_stored());
            let _popped = black_box(ready(pop));
        }
    });
    for item in 0..CAPACITY as u64 {
        assert!(waits.try_push(item).is_stored());
    }
    row("queue: try_pop for a push that waits", 5_000, |n| {
        for item in 0..n {
            let mut push = pin!(waits.push(item));
            assert!(poll(push.as_mut()).is_pending());
            assert!(waits.try_pop().is_ok());
            assert!(ready(push).is_stored());
        }
    });
}
