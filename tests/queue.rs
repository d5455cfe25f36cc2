//! The queue, one promise at a time.
#![cfg(not(loom))]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::{FutureExt, StreamExt};
use sluicegate::OverflowQueue;
use sluicegate::queue::{Closed, Pushed, RejectReason, TryPopError, WhenFull};

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn queue(capacity: usize, when_full: WhenFull) -> OverflowQueue<u64> {
    OverflowQueue::builder().capacity(capacity).when_full(when_full).build().unwrap()
}

/// Full of 0, 1, 2, …
fn full(capacity: usize, when_full: WhenFull) -> OverflowQueue<u64> {
    let queue = queue(capacity, when_full);
    (0..capacity as u64).for_each(|item| assert!(queue.try_push(item).is_stored()));
    queue
}

fn items(queue: &OverflowQueue<u64>) -> Vec<(u64, u64)> {
    let drained = queue.drain();
    drained.items.into_iter().map(|popped| (popped.item, popped.dropped_before)).collect()
}

fn closed(error: TryPopError) -> u64 {
    error.closed().expect("the queue is closed").dropped_before
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn drops_the_oldest_and_says_where_the_gap_is() {
    let queue = full(3, WhenFull::DropOldest);
    for item in [3, 4] {
        match queue.try_push(item) {
            Pushed::Displaced(older) => assert!(older.eq([item - 3])),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(items(&queue), [(2, 2), (3, 0), (4, 0)]);
}

#[test]
fn drops_a_share_of_the_oldest_rounded_up() {
    let queue = full(7, WhenFull::DropOldestShare { percent: 20 });
    let displaced = queue.try_push(7).into_displaced().unwrap();
    assert_eq!(displaced.len(), 2);
    assert!(displaced.eq([0, 1]));
    assert_eq!(items(&queue)[0], (2, 2));
    for (percent, gone) in [(1, 1), (100, 7)] {
        let queue = full(7, WhenFull::DropOldestShare { percent });
        assert_eq!(queue.try_push(7).into_displaced().unwrap().len(), gone);
    }
}

#[test]
fn drops_the_newest_and_tells_at_the_end() {
    let queue = full(2, WhenFull::DropNewest);
    assert!(matches!(queue.try_push(2), Pushed::DroppedNewest(2)));
    assert_eq!(queue.try_pop().unwrap().item, 0);
    assert!(queue.try_push(3).is_stored());
    assert!(matches!(queue.try_push(4), Pushed::DroppedNewest(4)));
    queue.close();
    let read: Vec<_> = (0..2).map(|_| queue.try_pop().unwrap()).collect();
    let read: Vec<_> = read.iter().map(|popped| (popped.item, popped.dropped_before)).collect();
    assert_eq!(read, [(1, 0), (3, 1)]);
    assert_eq!(closed(queue.try_pop().unwrap_err()), 1);
    // It is told once.
    assert_eq!(closed(queue.try_pop().unwrap_err()), 0);
    assert_eq!(queue.stats().displaced(), 2);
}

#[test]
fn rejects_and_leaves_no_gap() {
    let queue = full(1, WhenFull::Reject);
    let rejected = queue.push(7).now_or_never().unwrap().into_displaced().unwrap_err();
    assert_eq!((rejected.reason, rejected.into_inner()), (RejectReason::Full, 7));
    assert_eq!(items(&queue), [(0, 0)]);
    assert!(queue.try_push(8).is_stored());
    assert_eq!(items(&queue), [(8, 0)]);
}

#[test]
fn one_at_a_time_through_a_queue_of_one() {
    let queue = queue(1, WhenFull::Wait);
    for item in 0..10 {
        let mut next = queue.push(item + 100);
        assert!(queue.push(item).now_or_never().unwrap().is_stored());
        assert!(poll(&mut next).is_pending());
        assert_eq!(queue.pop().now_or_never().unwrap().unwrap().item, item);
        assert!(poll(&mut next).is_ready());
        assert_eq!(queue.try_pop().unwrap().item, item + 100);
    }
}

#[test]
fn nobody_passes_a_push_in_line() {
    let queue = full(1, WhenFull::Wait);
    let mut first = queue.push(10);
    let mut second = queue.push(20);
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    assert_eq!(queue.try_pop().unwrap().item, 0);
    // There is a place, but it is kept for the first.
    assert!(matches!(queue.try_push(30), Pushed::Rejected(_)));
    assert!(poll(&mut second).is_pending());
    drop(first);
    assert!(matches!(queue.try_push(30), Pushed::Rejected(_)));
    assert!(poll(&mut second).is_ready());
    assert_eq!(items(&queue), [(20, 0)]);
}

#[test]
fn nobody_passes_a_reader_in_line() {
    let queue = queue(4, WhenFull::Wait);
    let mut first = queue.pop();
    let mut second = queue.pop();
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    assert!(queue.try_push(1).is_stored());
    assert_eq!(queue.try_pop(), Err(TryPopError::Empty));
    assert!(poll(&mut second).is_pending());
    drop(first);
    assert_eq!(queue.try_pop(), Err(TryPopError::Empty));
    assert!(matches!(poll(&mut second), Poll::Ready(Ok(popped)) if popped.item == 1));
}

#[test]
fn a_large_item_at_the_head_of_the_line_is_not_passed() {
    let builder = OverflowQueue::builder().capacity(10).max_bytes(10, |bytes: &u64| *bytes);
    let queue = builder.build().unwrap();
    assert!(queue.try_push(8).is_stored());
    let mut large = queue.push(9);
    let mut small = queue.push(1);
    assert!(poll(&mut large).is_pending() && poll(&mut small).is_pending());
    assert!(matches!(queue.try_push(1), Pushed::Rejected(_)));
    let _ = queue.try_pop().unwrap();
    assert!(poll(&mut large).is_ready() && poll(&mut small).is_ready());
    assert_eq!(queue.bytes(), 10);
}

#[test]
fn cancelling_a_large_head_lets_all_in_who_fit() {
    let builder = OverflowQueue::builder().capacity(10).max_bytes(10, |bytes: &u64| *bytes);
    let queue = builder.build().unwrap();
    assert!(queue.try_push(8).is_stored());
    let mut large = queue.push(9);
    let mut small = [queue.push(1), queue.push(1)];
    assert!(poll(&mut large).is_pending() && small.iter_mut().all(|push| poll(push).is_pending()));
    assert_eq!(large.into_item(), Some(9));
    assert!(small.iter_mut().all(|push| poll(push).is_ready()));
}

#[test]
fn too_large_is_refused_before_anything_is_displaced() {
    let builder = OverflowQueue::builder().capacity(10).when_full(WhenFull::DropOldest);
    let queue = builder.max_bytes(10, |bytes: &u64| *bytes).build().unwrap();
    (1..=4).for_each(|bytes| assert!(queue.try_push(bytes).is_stored()));
    for bytes in [11, u64::MAX] {
        let rejected = queue.try_push(bytes).into_displaced().unwrap_err();
        assert_eq!((rejected.reason, rejected.item), (RejectReason::TooLarge, bytes));
    }
    assert_eq!((queue.len(), queue.bytes()), (4, 10));
    // As many go as are in the way of the bytes.
    assert!(queue.try_push(5).into_displaced().unwrap().eq([1, 2, 3]));
    assert_eq!(queue.bytes(), 9);
    assert!(queue.try_push(10).into_displaced().unwrap().eq([4, 5]));
}

#[test]
fn a_protected_item_is_never_displaced_and_keeps_its_place() {
    let builder = OverflowQueue::builder().capacity(2).when_full(WhenFull::DropOldest);
    let queue = builder.protected(1).build().unwrap();
    assert!(queue.try_push(1).is_stored());
    assert!(queue.try_push_protected(2).is_stored());
    let displaced: Vec<u64> =
        (3..6).flat_map(|item| queue.try_push(item).into_displaced().unwrap()).collect();
    assert_eq!(displaced, [1, 3]);
    let rejected = queue.try_push_protected(6).into_displaced().unwrap_err();
    assert_eq!((rejected.reason, rejected.item), (RejectReason::Full, 6));
    let mut waits = queue.push_protected(7);
    assert!(poll(&mut waits).is_pending());
    assert_eq!(items(&queue), [(2, 1), (4, 1), (5, 0)]);
    assert!(poll(&mut waits).is_ready());
    assert_eq!(items(&queue), [(7, 0)]);
}

#[test]
fn a_full_protected_lane_holds_up_no_ordinary_push() {
    let queue = OverflowQueue::builder().capacity(2).protected(1).build().unwrap();
    assert!(queue.try_push_protected(1).is_stored());
    let mut waits = queue.push_protected(2);
    assert!(poll(&mut waits).is_pending());
    assert!(queue.try_push(3).is_stored());
    let rejected = OverflowQueue::new(1).unwrap().try_push_protected(1).into_displaced();
    assert_eq!(rejected.unwrap_err().reason, RejectReason::NoProtectedLane);
}

#[test]
fn closing_tells_everybody_once_and_leaves_what_is_there() {
    let queue = full(2, WhenFull::Wait);
    let wakes: [Arc<Wakes>; 2] = Default::default();
    let mut push = queue.push(9);
    assert!(push.poll_unpin(&mut Context::from_waker(&wakes[0].clone().into())).is_pending());
    queue.close();
    queue.close();
    assert_eq!(wakes[0].count(), 1);
    match poll(&mut push) {
        Poll::Ready(Pushed::Rejected(rejected)) => assert_eq!(rejected.item, 9),
        other => panic!("{other:?}"),
    }
    assert!(matches!(queue.try_push(9), Pushed::Rejected(_)));
    let many = queue.pop_many(10).now_or_never().unwrap().unwrap();
    assert!(many.into_iter().map(|popped| popped.item).eq([0, 1]));
    assert!(matches!(queue.pop().now_or_never(), Some(Err(Closed { dropped_before: 0, .. }))));

    let queue = self::queue(2, WhenFull::Wait);
    let mut pop = queue.pop();
    assert!(pop.poll_unpin(&mut Context::from_waker(&wakes[1].clone().into())).is_pending());
    queue.close();
    assert_eq!(wakes[1].count(), 1);
    assert!(matches!(poll(&mut pop), Poll::Ready(Err(_))));
}

#[test]
fn a_reader_called_for_an_item_that_went_waits_on_at_its_place() {
    let queue = queue(4, WhenFull::DropOldest);
    let wakes = Arc::new(Wakes::default());
    let mut first = queue.pop();
    let mut second = queue.pop();
    assert!(first.poll_unpin(&mut Context::from_waker(&wakes.clone().into())).is_pending());
    assert!(poll(&mut second).is_pending());
    assert!(queue.try_push(1).is_stored());
    assert_eq!((wakes.count(), queue.drain().items.len()), (1, 1));
    assert!(first.poll_unpin(&mut Context::from_waker(&wakes.clone().into())).is_pending());
    assert!(queue.try_push(2).is_stored());
    assert_eq!(wakes.count(), 2);
    assert!(poll(&mut second).is_pending());
    assert!(poll(&mut first).is_ready());
}

#[test]
fn pops_none_of_many_without_waiting() {
    let queue = queue(1, WhenFull::Wait);
    assert_eq!(queue.pop_many(0).now_or_never().unwrap().unwrap().len(), 0);
    assert_eq!(queue.stats().pop_waits, 0);
}

#[test]
fn streams_until_it_is_closed_and_says_what_went_last() {
    let queue = Arc::new(full(2, WhenFull::DropNewest));
    let _ = queue.try_push(2);
    let mut items = queue.clone().items_owned();
    assert_eq!(items.next().now_or_never().unwrap().unwrap().item, 0);
    assert_eq!(items.next().now_or_never().unwrap().unwrap().item, 1);
    assert!(items.next().now_or_never().is_none());
    assert_eq!(items.dropped_at_end(), None);
    queue.close();
    assert!(items.next().now_or_never().unwrap().is_none());
    assert!(items.next().now_or_never().unwrap().is_none());
    assert_eq!(items.dropped_at_end(), Some(1));
}

#[cfg(feature = "sink")]
#[test]
fn a_sink_keeps_one_item_while_there_is_no_room() {
    use futures_util::SinkExt;

    let queue = full(1, WhenFull::Wait);
    let mut sink = queue.sink(|lost| panic!("{lost:?}"));
    assert!(sink.feed(1).now_or_never().unwrap().is_ok());
    assert!(sink.flush().now_or_never().is_none());
    assert_eq!(queue.try_pop().unwrap().item, 0);
    assert!(sink.flush().now_or_never().unwrap().is_ok());
    assert!(sink.feed(2).now_or_never().unwrap().is_ok());
    queue.close();
    assert_eq!(sink.close().now_or_never().unwrap().unwrap_err().item, 2);
    assert_eq!(sink.into_item(), None);
}

#[test]
fn refuses_what_cannot_be() {
    let builder = OverflowQueue::<u64>::builder;
    let one = || builder().capacity(1);
    let share = |percent| WhenFull::DropOldestShare { percent };
    for (built, field) in [
        (builder().build(), "capacity"),
        (builder().capacity(usize::MAX).build(), "capacity"),
        (one().when_full(share(0)).build(), "when_full"),
        (one().when_full(share(101)).build(), "when_full"),
        (one().protected(0).build(), "protected"),
        (one().protected(usize::MAX).build(), "protected"),
        (one().max_bytes(0, |_| 1).build(), "max_bytes"),
        (one().max_bytes(u64::MAX, |_| 1).build(), "max_bytes"),
        (one().protected(1).protected_max_bytes(1).build(), "protected_max_bytes"),
        (one().max_bytes(1, |_| 1).protected_max_bytes(1).build(), "protected_max_bytes"),
        (
            one().max_bytes(1, |_| 1).protected(1).protected_max_bytes(0).build(),
            "protected_max_bytes",
        ),
    ] {
        assert_eq!(built.unwrap_err().field(), field);
    }
}

#[test]
fn the_largest_queue_costs_nothing_until_it_is_filled() {
    let queue = OverflowQueue::new(u32::MAX as usize).unwrap();
    (0..100_000).for_each(|item| assert!(queue.try_push(item).is_stored()));
    assert_eq!(queue.stats().peak_len, 100_000);
}

#[test]
fn heavy_items_do_not_overflow_the_sum() {
    let most = u64::MAX / 2;
    let builder = OverflowQueue::builder().capacity(3).when_full(WhenFull::DropOldest);
    let queue = builder.max_bytes(most, |bytes: &u64| *bytes).build().unwrap();
    assert!(queue.try_push(most).is_stored());
    assert!(queue.try_push(most).into_displaced().unwrap().eq([most]));
    assert!(queue.try_push(0).is_stored());
    assert!(queue.try_push(1).into_displaced().unwrap().eq([most]));
    assert_eq!(queue.bytes(), 1);
}

#[test]
#[cfg(target_pointer_width = "64")]
fn a_capacity_that_no_memory_holds_is_refused() {
    type Large = [u8; 1 << 40];
    let error = OverflowQueue::<Large>::new(1 << 16).unwrap_err();
    assert_eq!(error.field(), "capacity");
}
