//! The queue's part in tokio's cooperative scheduling: its futures, its stream and its sink yield
//! when the budget is spent, and move no item while they do.
#![cfg(feature = "tokio")]

use crate::coop;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use coop::{assert_yields, spend};
use futures_util::{FutureExt, StreamExt};
use sluicegate::OverflowQueue;
use sluicegate::queue::{Pushed, WhenFull};

fn queue(capacity: usize, when_full: WhenFull) -> Arc<OverflowQueue<u32>> {
    let builder = OverflowQueue::builder().capacity(capacity).when_full(when_full);
    Arc::new(builder.protected(capacity).build().unwrap())
}

fn plain(capacity: usize) -> Arc<OverflowQueue<u32>> {
    Arc::new(OverflowQueue::new(capacity).unwrap())
}

fn closed() -> Arc<OverflowQueue<u32>> {
    let queue = plain(1);
    queue.close();
    queue
}

async fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    let mut future = future;
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

#[test]
fn push_yields_whatever_it_is_answered() {
    assert_yields(async {
        let queue = plain(10);
        loop {
            assert!(queue.push(1).await.is_stored());
            let _ = queue.try_pop();
        }
    });
    for when_full in [WhenFull::Reject, WhenFull::DropNewest, WhenFull::DropOldest] {
        assert_yields(async move {
            let queue = queue(1, when_full);
            loop {
                let _ = queue.push(1).await;
            }
        });
    }
    assert_yields(async {
        let queue = closed();
        loop {
            assert!(!queue.push(1).await.is_stored());
        }
    });
}

#[test]
fn push_protected_yields() {
    assert_yields(async {
        let queue = queue(1, WhenFull::Wait);
        loop {
            assert!(queue.push_protected(1).await.is_stored());
            let _ = queue.try_pop();
        }
    });
    assert_yields(async {
        let queue = plain(1);
        loop {
            assert!(!queue.push_protected(1).await.is_stored());
        }
    });
}

#[test]
fn pop_yields() {
    for queue in [plain(1), queue(1, WhenFull::Wait)] {
        assert_yields(async move {
            loop {
                assert!(queue.try_push(1).is_stored());
                assert!(queue.pop().await.is_ok());
            }
        });
    }
    assert_yields(async {
        let queue = closed();
        loop {
            queue.pop().await.unwrap_err();
        }
    });
}

#[test]
fn pop_many_yields() {
    assert_yields(async {
        let queue = plain(2);
        loop {
            assert!(queue.try_push(1).is_stored());
            assert_eq!(queue.pop_many(2).await.unwrap().len(), 1);
        }
    });
    assert_yields(async {
        let queue = plain(2);
        loop {
            assert_eq!(queue.pop_many(0).await.unwrap().len(), 0);
        }
    });
    assert_yields(async {
        let queue = closed();
        loop {
            queue.pop_many(2).await.unwrap_err();
        }
    });
}

#[test]
fn pop_many_into_yields() {
    assert_yields(async {
        let queue = plain(2);
        let mut into = Vec::new();
        loop {
            assert!(queue.try_push(1).is_stored());
            assert_eq!(queue.pop_many_into(&mut into, 2).await, Ok(1));
            into.clear();
        }
    });
}

#[test]
fn the_stream_yields_open_or_ended() {
    assert_yields(async {
        let queue = plain(1);
        let mut items = queue.items();
        loop {
            assert!(queue.try_push(1).is_stored());
            assert!(items.next().await.is_some());
        }
    });
    assert_yields(async {
        let mut items = closed().items_owned();
        loop {
            assert!(items.next().await.is_none());
        }
    });
}

#[cfg(feature = "sink")]
#[test]
fn the_sink_yields() {
    use futures_util::{Sink, SinkExt};

    fn lost(_: Pushed<u32>) {}
    fn sink() -> impl Sink<u32> + Unpin + Send {
        queue(1, WhenFull::DropOldest).sink_owned(lost)
    }
    assert_yields(async {
        let mut sink = sink();
        loop {
            assert!(sink.send(1).await.is_ok());
        }
    });
    assert_yields(async {
        let mut sink = sink();
        loop {
            assert!(sink.feed(1).await.is_ok());
        }
    });
    assert_yields(async {
        let mut sink = sink();
        loop {
            assert!(sink.flush().await.is_ok());
        }
    });
    assert_yields(async {
        let mut sink = sink();
        loop {
            assert!(poll_fn(|cx| sink.poll_ready_unpin(cx)).await.is_ok());
        }
    });
}

#[tokio::test]
async fn without_budget_no_item_moves() {
    let queue = queue(2, WhenFull::DropOldest);
    assert!(queue.try_push(1).is_stored() && queue.try_push(2).is_stored());
    let mut into = Vec::new();
    spend().await;
    {
        let mut pushes = [queue.push(3), queue.push_protected(4)];
        let mut pop = queue.pop();
        let mut many = pin!(queue.pop_many(5));
        let mut many_into = queue.pop_many_into(&mut into, 5);
        let mut items = queue.items();
        for push in &mut pushes {
            assert!(poll_once(Pin::new(push)).await.is_pending());
        }
        assert!(poll_once(Pin::new(&mut pop)).await.is_pending());
        assert!(poll_once(many.as_mut()).await.is_pending());
        assert!(poll_once(Pin::new(&mut many_into)).await.is_pending());
        assert!(poll_once(Pin::new(&mut items.next())).await.is_pending());
        let stats = queue.stats();
        assert_eq!((stats.pushed, stats.popped, stats.len), (2, 0, 2), "{stats:?}");
        assert_eq!((stats.push_waits, stats.pop_waits), (0, 0), "{stats:?}");
        assert_eq!(pushes.map(|push| push.into_item()), [Some(3), Some(4)]);
    }
    assert_eq!(into.len(), 0);
    // With the next budget items move again.
    assert_eq!(queue.pop().await.unwrap().item, 1);
}

#[tokio::test]
async fn without_budget_a_push_joins_the_wait_list_at_once() {
    let queue = queue(1, WhenFull::Wait);
    assert!(queue.try_push(1).is_stored() && queue.try_push_protected(2).is_stored());
    spend().await;
    let mut first = pin!(queue.push(3));
    let mut second = pin!(queue.push(4));
    let mut protected = pin!(queue.push_protected(5));
    assert!(poll_once(first.as_mut()).await.is_pending());
    assert!(poll_once(second.as_mut()).await.is_pending());
    assert!(poll_once(protected.as_mut()).await.is_pending());
    assert_eq!(queue.stats().waiting_pushers, 3);
    let _ = queue.try_pop();
    assert!(matches!(queue.try_push(9), Pushed::Rejected(_)), "the room is reserved for the first");
    // Granted, and still without budget: it keeps the room.
    assert!(poll_once(first.as_mut()).await.is_pending());
    assert!(matches!(queue.try_push(9), Pushed::Rejected(_)));
    assert!(first.await.is_stored());
    let _ = (queue.try_pop(), queue.try_pop());
    assert!(second.await.is_stored() && protected.await.is_stored());
    let left = queue.drain().items.into_iter().map(|popped| popped.item);
    assert_eq!(left.collect::<Vec<_>>(), [4, 5]);
}

#[tokio::test]
async fn without_budget_a_pop_joins_the_wait_list_at_once() {
    let queue = plain(4);
    spend().await;
    let mut into = Vec::new();
    let mut pop = pin!(queue.pop());
    let mut many = pin!(queue.pop_many(2));
    let mut many_into = pin!(queue.pop_many_into(&mut into, 2));
    let mut items = queue.items();
    assert!(poll_once(pop.as_mut()).await.is_pending());
    assert!(poll_once(many.as_mut()).await.is_pending());
    assert!(poll_once(many_into.as_mut()).await.is_pending());
    assert!(poll_once(pin!(items.next()).as_mut()).await.is_pending());
    assert_eq!(queue.stats().waiting_readers, 4);
    assert!(queue.try_push(1).is_stored());
    assert!(queue.try_pop().is_err(), "the item is reserved for the first");
    let mut later = pin!(queue.pop());
    assert!(poll_once(later.as_mut()).await.is_pending());
    // Granted, and still without budget: it keeps the item.
    assert!(poll_once(pop.as_mut()).await.is_pending());
    assert!(queue.try_pop().is_err());
    (2..=4).for_each(|item| assert!(queue.try_push(item).is_stored()));
    assert_eq!(pop.await.unwrap().item, 1);
    assert_eq!(many.await.unwrap().len(), 1);
    assert_eq!(many_into.await, Ok(1));
    assert_eq!(items.next().await.unwrap().item, 4);
    assert!(later.now_or_never().is_none());
}

/// A reader that was granted an item and polled without budget learns that the item is gone.
#[tokio::test]
async fn without_budget_a_revoked_grant_is_not_missed() {
    let queue = plain(1);
    let mut pop = pin!(queue.pop());
    assert!(poll_once(pop.as_mut()).await.is_pending());
    assert!(queue.try_push(1).is_stored());
    spend().await;
    assert!(poll_once(pop.as_mut()).await.is_pending());
    assert_eq!(queue.drain().items.len(), 1);
    let pushes = queue.clone();
    let push = tokio::spawn(async move {
        tokio::task::yield_now().await;
        pushes.try_push(2).is_stored()
    });
    assert_eq!(pop.await.unwrap().item, 2);
    assert!(push.await.unwrap());
}

/// A wait costs no budget: only a completed poll is charged.
#[tokio::test]
async fn waiting_is_not_charged() {
    let queue = plain(1);
    assert!(queue.try_push(0).is_stored());
    let mut pushes: Vec<_> = (0..1000).map(|item| queue.push(item)).collect();
    for push in &mut pushes {
        assert!(poll_once(Pin::new(push)).await.is_pending());
    }
    assert!(tokio::task::coop::has_budget_remaining());
    let other = plain(1);
    let mut pops: Vec<_> = (0..1000).map(|_| other.pop()).collect();
    for pop in &mut pops {
        assert!(poll_once(Pin::new(pop)).await.is_pending());
    }
    assert!(tokio::task::coop::has_budget_remaining());
}
