//! The queue, one promise at a time.

#[cfg(feature = "tokio")]
mod coop;

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
fn drops_the_oldest_and_reports_the_gap() {
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
fn drops_the_newest_and_reports_the_gap_at_the_end() {
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
    // It is reported once.
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
fn a_waiting_push_is_not_passed() {
    let queue = full(1, WhenFull::Wait);
    let mut first = queue.push(10);
    let mut second = queue.push(20);
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    assert_eq!(queue.try_pop().unwrap().item, 0);
    // There is room, but it is reserved for the first.
    assert!(matches!(queue.try_push(30), Pushed::Rejected(_)));
    assert!(poll(&mut second).is_pending());
    drop(first);
    assert!(matches!(queue.try_push(30), Pushed::Rejected(_)));
    assert!(poll(&mut second).is_ready());
    assert_eq!(items(&queue), [(20, 0)]);
}

#[test]
fn a_waiting_reader_is_not_passed() {
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
fn a_large_item_at_the_front_of_the_wait_list_is_not_passed() {
    let builder = OverflowQueue::builder().capacity(10).max_weight(10, |weight: &u64| *weight);
    let queue = builder.build().unwrap();
    assert!(queue.try_push(8).is_stored());
    let mut large = queue.push(9);
    let mut small = queue.push(1);
    assert!(poll(&mut large).is_pending() && poll(&mut small).is_pending());
    assert!(matches!(queue.try_push(1), Pushed::Rejected(_)));
    let _ = queue.try_pop().unwrap();
    assert!(poll(&mut large).is_ready() && poll(&mut small).is_ready());
    assert_eq!(queue.weight(), 10);
}

#[test]
fn cancelling_a_large_push_at_the_front_admits_all_that_fit() {
    let builder = OverflowQueue::builder().capacity(10).max_weight(10, |weight: &u64| *weight);
    let queue = builder.build().unwrap();
    assert!(queue.try_push(8).is_stored());
    let mut large = queue.push(9);
    let mut small = [queue.push(1), queue.push(1)];
    assert!(poll(&mut large).is_pending() && small.iter_mut().all(|push| poll(push).is_pending()));
    assert_eq!(large.into_item(), Some(9));
    assert!(small.iter_mut().all(|push| poll(push).is_ready()));
}

#[test]
fn too_heavy_is_rejected_before_any_item_is_displaced() {
    let builder = OverflowQueue::builder().capacity(10).when_full(WhenFull::DropOldest);
    let queue = builder.max_weight(10, |weight: &u64| *weight).build().unwrap();
    (1..=4).for_each(|weight| assert!(queue.try_push(weight).is_stored()));
    for weight in [11, u64::MAX] {
        let rejected = queue.try_push(weight).into_displaced().unwrap_err();
        assert_eq!((rejected.reason, rejected.item), (RejectReason::TooHeavy, weight));
    }
    assert_eq!((queue.len(), queue.weight()), (4, 10));
    // As many as its weight requires.
    assert!(queue.try_push(5).into_displaced().unwrap().eq([1, 2, 3]));
    assert_eq!(queue.weight(), 9);
    assert!(queue.try_push(10).into_displaced().unwrap().eq([4, 5]));
}

#[test]
fn a_protected_item_is_never_displaced_and_stays_in_order() {
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
fn a_full_protected_lane_delays_no_ordinary_push() {
    let queue = OverflowQueue::builder().capacity(2).protected(1).build().unwrap();
    assert!(queue.try_push_protected(1).is_stored());
    let mut waits = queue.push_protected(2);
    assert!(poll(&mut waits).is_pending());
    assert!(queue.try_push(3).is_stored());
    let rejected = OverflowQueue::new(1).unwrap().try_push_protected(1).into_displaced();
    assert_eq!(rejected.unwrap_err().reason, RejectReason::NoProtectedLane);
}

#[test]
fn closing_wakes_each_waiter_once_and_keeps_resident_items() {
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
fn a_reader_whose_item_was_drained_stays_first() {
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
fn pop_many_of_none_does_not_wait() {
    let queue = queue(1, WhenFull::Wait);
    assert_eq!(queue.pop_many(0).now_or_never().unwrap().unwrap().len(), 0);
    assert_eq!(queue.stats().pop_waits, 0);
}

#[test]
fn streams_until_the_close_and_reports_the_last_gap() {
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
fn a_sink_keeps_one_item_while_the_queue_is_full() {
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

/// A sink with a waiting push is dropped: its room goes to the next waiter.
#[cfg(feature = "sink")]
#[test]
fn a_dropped_sink_leaves_the_wait_list_and_its_room() {
    use futures_util::SinkExt;

    for granted in [false, true] {
        let queue = full(1, WhenFull::Wait);
        let mut sink = queue.sink(|lost| panic!("{lost:?}"));
        assert!(sink.feed(1).now_or_never().unwrap().is_ok());
        assert!(sink.flush().now_or_never().is_none());
        let wakes = Arc::new(Wakes::default());
        let mut next = queue.push(2);
        assert!(next.poll_unpin(&mut Context::from_waker(&wakes.clone().into())).is_pending());
        if granted {
            assert_eq!(queue.try_pop().unwrap().item, 0);
        }
        assert_eq!((wakes.count(), queue.stats().waiting_pushers), (0, 2));
        drop(sink);
        assert_eq!((wakes.count(), queue.stats().waiting_pushers), (usize::from(granted), 1));
        if !granted {
            assert_eq!(queue.try_pop().unwrap().item, 0);
        }
        assert!(poll(&mut next).is_ready());
        assert_eq!(items(&queue), [(2, 0)]);
        assert_eq!(queue.stats().cancellations, 1);
    }
}

/// The same with its item taken out.
#[cfg(feature = "sink")]
#[test]
fn a_sink_that_hands_its_item_back_leaves_its_room() {
    use futures_util::SinkExt;

    let queue = Arc::new(full(1, WhenFull::Wait));
    let mut sink = queue.clone().sink_owned(|lost| panic!("{lost:?}"));
    assert!(sink.feed(1).now_or_never().unwrap().is_ok());
    assert!(sink.flush().now_or_never().is_none());
    assert_eq!(queue.try_pop().unwrap().item, 0);
    assert!(matches!(queue.try_push(9), Pushed::Rejected(_)), "the room is reserved");
    assert_eq!(sink.into_item(), Some(1));
    assert!(queue.try_push(9).is_stored());
}

/// Each form of a waiting reader is dropped, granted or not: its item goes to the next.
#[test]
fn a_dropped_reader_of_any_form_passes_its_item_on() {
    type Form = fn(&OverflowQueue<u64>) -> futures_util::future::LocalBoxFuture<'_, ()>;
    let forms: [Form; 4] = [
        |queue| queue.pop().map(drop).boxed_local(),
        |queue| queue.pop_many(3).map(drop).boxed_local(),
        |queue| {
            let into = async {
                let mut into = Vec::new();
                let _ = queue.pop_many_into(&mut into, 3).await;
            };
            into.boxed_local()
        },
        |queue| async { queue.items().next().await.map_or((), |_| ()) }.boxed_local(),
    ];
    for form in forms {
        for granted in [false, true] {
            let queue = queue(4, WhenFull::Wait);
            let mut first = form(&queue);
            let mut next = queue.pop();
            let wakes = Arc::new(Wakes::default());
            assert!(poll(&mut first).is_pending());
            assert!(next.poll_unpin(&mut Context::from_waker(&wakes.clone().into())).is_pending());
            if granted {
                assert!(queue.try_push(1).is_stored());
            }
            assert_eq!((wakes.count(), queue.stats().waiting_readers), (0, 2));
            drop(first);
            assert_eq!((wakes.count(), queue.stats().waiting_readers), (usize::from(granted), 1));
            if !granted {
                assert!(queue.try_push(1).is_stored());
            }
            assert!(matches!(poll(&mut next), Poll::Ready(Ok(popped)) if popped.item == 1));
            assert_eq!(queue.stats().cancellations, 1);
        }
    }
}

/// Numbers around one and two groups of wake-ups, and several.
const CROWDS: [usize; 9] = [1, 31, 32, 33, 34, 63, 65, 100, 200];

/// Polls each with a waker of its own.
fn wait_all<F: Future + Unpin>(waiting: &mut [F]) -> Vec<Arc<Wakes>> {
    let polled = waiting.iter_mut().map(|one| {
        let wakes = Arc::new(Wakes::default());
        assert!(one.poll_unpin(&mut Context::from_waker(&wakes.clone().into())).is_pending());
        wakes
    });
    polled.collect()
}

#[track_caller]
fn assert_woken(wakes: &[Arc<Wakes>], first: usize) {
    let counts: Vec<_> = wakes.iter().map(|wakes| wakes.count()).collect();
    let expected: Vec<_> = (0..wakes.len()).map(|at| usize::from(at < first)).collect();
    assert_eq!(counts, expected);
}

#[test]
fn a_close_wakes_a_crowd_of_readers_once_each() {
    for crowd in CROWDS {
        let queue = queue(1, WhenFull::Wait);
        let mut pops: Vec<_> = (0..crowd).map(|_| queue.pop()).collect();
        let wakes = wait_all(&mut pops);
        queue.close();
        assert_woken(&wakes, crowd);
        assert_eq!(queue.stats().waiting_readers, 0);
    }
}

#[test]
fn a_close_wakes_a_crowd_of_pushers_of_both_lanes_once_each() {
    for crowd in CROWDS {
        let queue = OverflowQueue::builder().capacity(1).protected(1).build().unwrap();
        assert!(queue.try_push(0).is_stored() && queue.try_push_protected(0).is_stored());
        let push = |item| if item % 2 == 0 { queue.push(item) } else { queue.push_protected(item) };
        let mut pushes: Vec<_> = (0..crowd as u64).map(push).collect();
        let wakes = wait_all(&mut pushes);
        queue.close();
        assert_woken(&wakes, crowd);
        assert!(pushes.into_iter().map(|mut push| poll(&mut push)).all(|polled| polled.is_ready()));
    }
}

/// Room for many items wakes as many pushers.
#[test]
fn room_for_many_wakes_a_crowd_of_pushers() {
    for crowd in CROWDS {
        for drains in [false, true] {
            let queue = full(crowd, WhenFull::Wait);
            let mut pushes: Vec<_> = (0..crowd as u64 + 5).map(|item| queue.push(item)).collect();
            let wakes = wait_all(&mut pushes);
            if drains {
                assert_eq!(queue.drain().items.len(), crowd);
            } else {
                let popped = queue.pop_many(usize::MAX).now_or_never().unwrap();
                assert_eq!(popped.unwrap().len(), crowd);
            }
            assert_woken(&wakes, crowd);
            pushes.truncate(crowd);
            assert!(pushes.iter_mut().all(|push| poll(push).is_ready()));
        }
    }
}

/// A large push at the front of the wait list is cancelled, and room for many small ones is free.
#[test]
fn a_cancelled_front_wakes_a_crowd_of_pushers() {
    for crowd in CROWDS {
        let builder =
            OverflowQueue::builder().capacity(1000).max_weight(300, |weight: &u64| *weight);
        let queue = builder.build().unwrap();
        assert!(queue.try_push(100).is_stored());
        let mut large = queue.push(300);
        assert!(poll(&mut large).is_pending());
        let mut small: Vec<_> = (0..crowd).map(|_| queue.push(1)).collect();
        let wakes = wait_all(&mut small);
        drop(large);
        assert_woken(&wakes, crowd);
    }
}

/// Polled in one task, awaited in another while it completes: the last waker is woken.
#[test]
fn the_waker_of_the_last_poll_is_woken() {
    let wakes: [Arc<Wakes>; 2] = Default::default();
    let by_both = |poll: &mut dyn FnMut(&mut Context<'_>) -> bool| {
        for wakes in &wakes {
            assert!(poll(&mut Context::from_waker(&wakes.clone().into())), "pending");
        }
    };
    let counts = || wakes.each_ref().map(|wakes| wakes.count());

    let queue = queue(1, WhenFull::Wait);
    let mut pop = queue.pop();
    by_both(&mut |cx| pop.poll_unpin(cx).is_pending());
    assert!(queue.try_push(1).is_stored());
    assert_eq!(counts(), [0, 1]);
    assert!(poll(&mut pop).is_ready());

    let mut many = Box::pin(queue.pop_many(2));
    by_both(&mut |cx| many.poll_unpin(cx).is_pending());
    assert!(queue.try_push(1).is_stored());
    assert_eq!(counts(), [0, 2]);
    assert!(poll(&mut many).is_ready());

    let mut into = Vec::new();
    let mut many_into = queue.pop_many_into(&mut into, 2);
    by_both(&mut |cx| many_into.poll_unpin(cx).is_pending());
    queue.close();
    assert_eq!(counts(), [0, 3]);
    assert!(poll(&mut many_into).is_ready());

    let queue = full(1, WhenFull::Wait);
    let mut push = queue.push(2);
    by_both(&mut |cx| push.poll_unpin(cx).is_pending());
    let _ = queue.try_pop();
    assert_eq!(counts(), [0, 4]);
    assert!(poll(&mut push).is_ready());
}

#[test]
fn refuses_limits_out_of_bounds() {
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
        (one().max_weight(0, |_| 1).build(), "max_weight"),
        (one().max_weight(u64::MAX, |_| 1).build(), "max_weight"),
        (one().protected(1).protected_max_weight(1).build(), "protected_max_weight"),
        (one().max_weight(1, |_| 1).protected_max_weight(1).build(), "protected_max_weight"),
        (
            one().max_weight(1, |_| 1).protected(1).protected_max_weight(0).build(),
            "protected_max_weight",
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
    let queue = builder.max_weight(most, |weight: &u64| *weight).build().unwrap();
    assert!(queue.try_push(most).is_stored());
    assert!(queue.try_push(most).into_displaced().unwrap().eq([most]));
    assert!(queue.try_push(0).is_stored());
    assert!(queue.try_push(1).into_displaced().unwrap().eq([most]));
    assert_eq!(queue.weight(), 1);
}

#[test]
#[cfg(target_pointer_width = "64")]
fn a_capacity_that_no_memory_holds_is_refused() {
    type Large = [u8; 1 << 40];
    let error = OverflowQueue::<Large>::new(1 << 16).unwrap_err();
    assert_eq!(error.field(), "capacity");
}
