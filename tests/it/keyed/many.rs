//! Many items in one go, each under its key.

use super::*;
use sluicegate::batcher::SendManyError;
use std::collections::VecDeque;

fn items(keys: &[Key]) -> VecDeque<(Key, u32)> {
    keys.iter().copied().zip(0..).collect()
}

fn of<'a>(key: Key, batches: &'a [(u64, Key, Vec<u32>)]) -> impl Iterator<Item = u32> + 'a {
    batches.iter().filter(move |(_, of, _)| *of == key).flat_map(|(_, _, items)| items.clone())
}

#[test]
fn many_are_accepted_in_order_with_backpressure() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(3).capacity(5).build(log.handler(10)).unwrap();
        let mut all = items(&["a", "b", "c"].repeat(200));
        batcher.send_many(&mut all).await.unwrap();
        assert!(all.is_empty());
        let _ = batcher.flush().await;
        let batches = log.batches();
        for (key, first) in [("a", 0), ("b", 1), ("c", 2)] {
            let got: Vec<_> = of(key, &batches).collect();
            assert_eq!(got, (0..200).map(|nth| first + 3 * nth).collect::<Vec<_>>());
        }
        assert!(batcher.stats().peak_pending <= 5);
        assert_eq!(batcher.stats().delivered, 600);
    });
}

#[test]
fn more_than_one_run_goes_without_waiting() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(500).capacity(2_000).build(log.handler(0)).unwrap();
        let mut all = items(&["a", "b"].repeat(500));
        let sent = batcher.send_many(&mut all);
        assert!(matches!(futures_util::FutureExt::now_or_never(sent), Some(Ok(()))));
        assert_eq!((batcher.stats().accepted, batcher.keys()), (1_000, 0), "both are full");
    });
}

#[test]
fn what_was_not_accepted_is_left() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(2)
            .capacity(10)
            .capacity_per_key(2)
            .build(log.handler(1_000))
            .unwrap();
        let mut all = items(&["a", "b", "a", "a", "b", "c"]);
        {
            let mut sending = Box::pin(batcher.send_many(&mut all));
            assert!(futures_util::poll!(&mut sending).is_pending());
            assert_eq!(batcher.stats().waiting_senders, 1, "in the line of its key");
        }
        assert_eq!(batcher.stats().waiting_senders, 0);
        assert_eq!(all, [("a", 3), ("b", 4), ("c", 5)], "in order, with the one that waited");
        assert_eq!(batcher.stats().accepted, 3);

        let refused = tokio::join!(batcher.send_many(&mut all), async {
            pass(1).await;
            drop(batcher.shutdown(Some(Duration::ZERO)).await);
        });
        assert_eq!(refused.0, Err(SendManyError::Closed));
        assert_eq!(all, [("a", 3), ("b", 4), ("c", 5)]);
    });
}

#[test]
fn others_have_their_turn_in_between() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(1).capacity(1).build(log.handler(10)).unwrap();
        let mut all = items(&["a"; 3]);
        let many = batcher.send_many(&mut all);
        let one = async {
            pass(1).await;
            batcher.send("b", 100).await
        };
        let (many, one) = tokio::join!(many, one);
        many.unwrap();
        one.unwrap();
        let _ = batcher.flush().await;
        let keys: Vec<_> = log.batches().iter().map(|(_, key, _)| *key).collect();
        assert_eq!(keys, ["a", "a", "b", "a"]);
    });
}

#[test]
fn each_of_many_is_weighed_once_and_one_too_heavy_is_left() {
    paused(async {
        let log = Log::new();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let told = asked.clone();
        let batcher = log
            .builder()
            .max_weight(5, move |item: &u32| {
                told.lock().unwrap().push(*item);
                u64::from(*item)
            })
            .capacity_weight(5)
            .build(log.handler(10))
            .unwrap();
        let mut all: VecDeque<_> = [("a", 3), ("b", 4), ("a", 1), ("a", 6), ("b", 1)].into();
        assert_eq!(batcher.send_many(&mut all).await, Err(SendManyError::TooHeavy));
        assert_eq!(all, [("a", 6), ("b", 1)]);
        assert_eq!(*asked.lock().unwrap(), [3, 4, 1, 6]);
        assert!(batcher.flush().await.all_delivered());
        assert_eq!(batcher.stats().delivered, 3);
    });
}
