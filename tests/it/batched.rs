//! Batches of a stream, with the clock paused.

#![cfg(feature = "tokio")]

use std::future::ready;
use std::sync::mpsc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use sluicegate::batcher::BatchedExt;
use tokio::time::{Instant, advance, sleep};

const fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_handed_out_when_it_is_full_or_its_window_over() {
    let waits = [0, 10, 10, 45, 10, 0, 0];
    let source = stream::iter(waits.into_iter().enumerate()).then(|(item, wait)| async move {
        sleep(millis(wait)).await;
        item
    });
    let began = Instant::now();
    let batches = source.batched(3, millis(50)).unwrap();
    let batches: Vec<_> = batches.map(|batch| (began.elapsed().as_millis(), batch)).collect().await;
    assert_eq!(batches, [(20, vec![0, 1, 2]), (75, vec![3, 4, 5]), (75, vec![6])]);
}

#[tokio::test(start_paused = true)]
async fn the_window_opens_with_the_first_item_and_is_not_extended() {
    let source = stream::iter(0..20).then(|item| sleep(millis(10)).map(move |()| item));
    let began = Instant::now();
    let batches = source.batched(100, millis(45)).unwrap();
    let batches: Vec<_> =
        batches.map(|batch| (began.elapsed().as_millis(), batch.len())).collect().await;
    assert_eq!(batches, [(55, 5), (105, 5), (155, 5), (200, 5)]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_always_ready_does_not_hold_up_the_deadline() {
    // Each item takes a tenth of a millisecond, and none of them waits for anything.
    let source = stream::repeat(()).then(|()| advance(Duration::from_micros(100)));
    let mut batches = source.batched(1_000_000, millis(5)).unwrap();
    for _ in 0..3 {
        let began = Instant::now();
        let batch = batches.next().await.unwrap();
        assert!(began.elapsed() <= Duration::from_micros(5_200), "{:?}", began.elapsed());
        assert!((45..=51).contains(&batch.len()), "{}", batch.len());
    }
}

#[tokio::test]
async fn a_source_that_is_always_ready_leaves_others_a_turn() {
    let mut batches = stream::repeat(7).batched(usize::MAX, Duration::from_secs(3_600)).unwrap();
    let other = async {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    };
    futures_util::select_biased! {
        _ = batches.next().fuse() => panic!("it is never full"),
        () = other.fuse() => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_of_zero_hands_out_what_is_there() {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let receiver = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|item| (item, receiver))
    });
    let mut batches = Box::pin(receiver).batched(3, millis(0)).unwrap();
    for item in 0..4 {
        sender.send(item).unwrap();
    }
    assert_eq!(batches.next().await, Some(vec![0, 1, 2]));
    assert_eq!(batches.next().await, Some(vec![3]));
    assert_eq!(batches.next().now_or_never(), None);
    drop(sender);
    assert_eq!(batches.next().await, None);
    assert_eq!(batches.next().await, None, "it is fused");
}

#[tokio::test(start_paused = true)]
async fn what_was_pulled_is_given_back_when_it_is_dropped() {
    let source = || stream::iter([1, 2]).chain(stream::pending());
    let (remainder, given_back) = mpsc::channel();
    let mut batches = source()
        .batched(5, millis(50))
        .unwrap()
        .remainder_to(move |items| remainder.send(items).unwrap());
    assert_eq!(batches.next().now_or_never(), None);
    drop(batches);
    assert_eq!(given_back.try_recv(), Ok(vec![1, 2]));

    let mut batches = source().batched(5, millis(50)).unwrap();
    assert_eq!(batches.next().now_or_never(), None);
    let (source, items) = batches.into_parts();
    assert!(source.is_some());
    assert_eq!(items, [1, 2]);

    let (remainder, given_back) = mpsc::channel::<Vec<u32>>();
    let empty = stream::pending().batched(5, millis(50)).unwrap();
    drop(empty.remainder_to(move |items| remainder.send(items).unwrap()));
    assert!(given_back.recv().is_err(), "nobody is told of nothing");
}

#[tokio::test(start_paused = true)]
async fn a_small_batch_allocates_no_full_size_vector() {
    let source = stream::iter(0..3).chain(stream::once(ready(3)));
    let mut batches = source.batched(1_000_000, millis(50)).unwrap();
    let mut batch = Vec::new();
    let allocated = allocation_counter::measure(|| {
        batch = batches.next().now_or_never().unwrap().unwrap();
    });
    assert_eq!(batch.len(), 4);
    assert!(allocated.bytes_total < 1_000, "{allocated:?}");
}

#[test]
fn bad_limits_are_refused_by_name() {
    let source = stream::empty::<u32>;
    let error = source().batched(0, millis(1)).unwrap_err();
    assert_eq!(error.to_string(), "`max_items` is 0, but must be at least 1");
    assert_eq!(source().batched(1, Duration::MAX).unwrap_err().field(), "window");
}
