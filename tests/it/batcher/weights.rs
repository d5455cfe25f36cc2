//! Limits by weight: an item weighs as much as its number says.

use super::*;
use sluicegate::batcher::{SendError, SendManyError, TrySendError};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

fn weighed(log: &Log, max_weight: u64) -> Builder<u32> {
    log.builder().max_items(100).max_weight(max_weight, |item| u64::from(*item))
}

#[test]
fn no_batch_weighs_more_than_it_may_and_none_is_empty() {
    paused(async {
        let log = Log::new();
        let batcher = weighed(&log, 10).build(log.handler(0)).unwrap();
        for item in [4, 5, 2, 8, 10, 1, 0, 9, 3] {
            batcher.send(item).await.unwrap();
        }
        pass(1).await;
        let closed: Vec<_> =
            log.calls.lock().unwrap().iter().map(|c| (c.items.clone(), c.sealed_by)).collect();
        let weight = |items: &[u32]| (items.to_vec(), SealedBy::Weight);
        assert_eq!(
            closed,
            [weight(&[4, 5]), weight(&[2, 8]), weight(&[10]), weight(&[1, 0, 9])],
            "a full one is closed at once, the others by the item that does not fit"
        );
        let stats = batcher.stats();
        assert_eq!((stats.heaviest_batch, stats.batches.weight), (10, 4));
        assert_eq!(stats.pending_weight, 3);
        conserved(&batcher);
    });
}

#[test]
fn an_item_heavier_than_a_batch_may_be_is_handed_back() {
    paused(async {
        let log = Log::new();
        let batcher = weighed(&log, 10).build(log.handler(0)).unwrap();
        assert_eq!(batcher.try_send(11), Err(TrySendError::TooHeavy(11)));
        assert_eq!(batcher.send(12).await, Err(SendError::TooHeavy(12)));
        let slot = batcher.reserve().await.unwrap();
        assert_eq!(slot.send(13), Err(SendError::TooHeavy(13)));
        let mut items = VecDeque::from([1, 2, 14, 3]);
        assert_eq!(batcher.send_many(&mut items).await, Err(SendManyError::TooHeavy));
        assert_eq!(items, [14, 3], "those before it were accepted");
        assert_eq!(batcher.flush().await.delivered, 2);
        assert_eq!(batcher.stats().accepted, 2);
    });
}

#[test]
fn capacity_in_weight_counts_until_the_whole_batch_is_finished() {
    paused(async {
        let log = Log::new();
        let batcher =
            weighed(&log, 10).capacity_weight(15).window(millis(0)).build(log.handler(10)).unwrap();
        assert_eq!(batcher.capacity_weight(), Some(15));
        batcher.send(10).await.unwrap();
        batcher.send(5).await.unwrap();
        pass(1).await;
        assert_eq!(batcher.try_send(1), Err(TrySendError::Full(1)));
        batcher.try_send(0).expect("it weighs nothing");
        let mut first = Box::pin(batcher.send(9));
        let mut second = Box::pin(batcher.send(1));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        pass(8).await;
        assert!(futures_util::poll!(&mut second).is_pending(), "the larger one is before it");
        pass(2).await;
        assert!(futures_util::poll!(&mut first).is_ready(), "ten came free");
        assert!(futures_util::poll!(&mut second).is_ready());
        assert_eq!(batcher.stats().pending_weight, 15);
        conserved(&batcher);
    });
}

#[test]
fn who_gives_up_the_head_of_the_line_lets_a_lighter_one_in() {
    paused(async {
        let log = Log::new();
        let batcher = weighed(&log, 10).capacity_weight(12).build(log.handler(10)).unwrap();
        batcher.send(10).await.unwrap();
        let mut heavy = Box::pin(batcher.send(9));
        let mut light = Box::pin(batcher.send(2));
        assert!(futures_util::poll!(&mut heavy).is_pending());
        assert!(futures_util::poll!(&mut light).is_pending());
        drop(heavy);
        assert!(futures_util::poll!(&mut light).is_ready());
    });
}

#[test]
fn a_slot_has_room_for_the_heaviest_item_and_gives_back_what_it_does_not_take_up() {
    paused(async {
        let log = Log::new();
        let batcher = weighed(&log, 10).capacity_weight(20).build(log.handler(10)).unwrap();
        let slot = batcher.reserve().await.unwrap();
        let _other = batcher.reserve().await.unwrap();
        assert_eq!(batcher.try_send(1), Err(TrySendError::Full(1)));
        slot.send(4).unwrap();
        assert_eq!(batcher.try_send(7), Err(TrySendError::Full(7)));
        batcher.try_send(6).unwrap();
    });
}

#[test]
fn a_weigher_that_panics_costs_its_sender_the_item_and_nobody_else_anything() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_weight(10, |item| if *item == 7 { panic!("a weigher") } else { 1 })
            .build(log.handler(0))
            .unwrap();
        let sender = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.send(7).await }
        });
        assert!(sender.await.unwrap_err().is_panic());
        batcher.send(1).await.unwrap();
        assert_eq!(batcher.flush().await.delivered, 1);
        conserved(&batcher);
    });
}

#[test]
fn a_slot_whose_item_cannot_be_weighed_gives_its_room_back() {
    paused(async {
        let log = Log::new();
        let weigh = |item: &u32| if *item == 7 { panic!("no weight") } else { 1 };
        let builder = log.builder().max_items(1).capacity(1).max_weight(10, weigh);
        let batcher = builder.build(log.handler(0)).unwrap();
        let slot = batcher.reserve().await.unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| slot.send(7))).is_err());
        batcher.try_send(1).unwrap();
    });
}

#[test]
fn each_item_of_many_is_weighed_once_however_long_it_waits() {
    paused(async {
        let log = Log::new();
        let asked = Arc::new(AtomicU64::new(0));
        let count = asked.clone();
        // Were the second answer taken for the first, room would be given back that was not taken.
        let weigh = move |_: &u32| 1 + count.fetch_add(1, Ordering::Relaxed);
        let builder = log.builder().max_items(1).max_weight(3, weigh).capacity_weight(3);
        let batcher = builder.build(log.handler(10)).unwrap();
        batcher.send_many(&mut VecDeque::from([1, 2, 3])).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    });
}
