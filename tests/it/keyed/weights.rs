//! Limits by weight, under keys: an item weighs as much as its number says.

use super::*;
use sluicegate::batcher::SendError;

fn weighed(log: &Log, max_weight: u64) -> Builder<u32, Keyed<Key>> {
    log.builder().max_items(100).max_weight(max_weight, |item| u64::from(*item))
}

#[test]
fn no_batch_of_a_key_weighs_more_than_it_may() {
    paused(async {
        let log = Log::new();
        let batcher = weighed(&log, 10).build(log.handler(0)).unwrap();
        for (key, item) in [("a", 4), ("b", 9), ("a", 5), ("a", 2), ("b", 1), ("a", 8), ("c", 10)] {
            batcher.send(key, item).await.unwrap();
        }
        pass(1).await;
        let rounds =
            [(0, "a", vec![4, 5]), (0, "b", vec![9, 1]), (0, "c", vec![10]), (0, "a", vec![2, 8])];
        assert_eq!(log.batches(), rounds);
        assert_eq!(log.reasons(), [SealedBy::Weight; 4]);
        assert_eq!((batcher.stats().heaviest_batch, batcher.keys()), (10, 0));
    });
}

#[test]
fn an_item_heavier_than_a_batch_may_be_is_handed_back_with_its_key() {
    paused(async {
        let log = Log::new();
        let batcher = weighed(&log, 10)
            .capacity_weight(10)
            .capacity_per_key(100)
            .build(log.handler(0))
            .unwrap();
        assert_eq!(batcher.capacity_weight(), Some(10));
        assert_eq!(batcher.try_send("a", 11), Err(TrySendError::TooHeavy(("a", 11))));
        assert_eq!(batcher.send("a", 12).await, Err(SendError::TooHeavy(("a", 12))));
        let slot = batcher.reserve("a").await.unwrap();
        assert_eq!(slot.send(13), Err(SendError::TooHeavy(("a", 13))));
        batcher.try_send("b", 10).expect("all room is back");
        assert_eq!(batcher.shutdown(None).await.delivered, 1);
    });
}

#[test]
fn capacity_in_weight_is_shared_by_all_keys_and_comes_back_with_the_batch() {
    paused(async {
        let log = Log::new();
        let batcher =
            weighed(&log, 10).capacity_weight(15).window(millis(0)).build(log.handler(10)).unwrap();
        batcher.send("a", 10).await.unwrap();
        batcher.send("b", 5).await.unwrap();
        pass(1).await;
        assert_eq!(batcher.try_send("c", 1), Err(TrySendError::Full(("c", 1))));
        batcher.try_send("c", 0).expect("it weighs nothing");
        let mut first = Box::pin(batcher.send("a", 9));
        let mut second = Box::pin(batcher.send("c", 1));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!(batcher.stats().pending_weight, 15);
        pass(8).await;
        assert!(futures_util::poll!(&mut second).is_pending(), "the larger one is before it");
        pass(2).await;
        assert!(futures_util::poll!(&mut first).is_ready(), "ten came free");
        assert!(futures_util::poll!(&mut second).is_ready());
        assert_eq!(batcher.shutdown(None).await.delivered, 5);
    });
}

#[test]
fn who_gives_up_the_head_of_the_line_lets_a_lighter_one_in() {
    paused(async {
        let log = Log::new();
        let batcher = weighed(&log, 10)
            .capacity_weight(12)
            .capacity_per_key(100)
            .build(log.handler(10))
            .unwrap();
        batcher.send("a", 10).await.unwrap();
        let mut heavy = Box::pin(batcher.send("a", 9));
        let mut light = Box::pin(batcher.send("b", 2));
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
        let slot = batcher.reserve("a").await.unwrap();
        let other = batcher.reserve("b").await.unwrap();
        assert_eq!(batcher.try_send("c", 1), Err(TrySendError::Full(("c", 1))));
        slot.send(4).unwrap();
        assert_eq!(batcher.try_send("c", 7), Err(TrySendError::Full(("c", 7))));
        batcher.try_send("c", 6).unwrap();
        drop(other);
        batcher.try_send("c", 10).unwrap();
        assert_eq!(batcher.try_send("c", 1), Err(TrySendError::Full(("c", 1))));
    });
}
