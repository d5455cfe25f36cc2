//! The keyed batcher's promises, each by name, with the clock paused.

#![cfg(feature = "tokio")]

mod hostile;
mod many;
mod panics;
#[cfg(feature = "sink")]
mod sink;
mod weights;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate::Retry;
use sluicegate::batcher::{
    BatchError, Batcher, Builder, Keyed, KeyedBatch, KeyedBatcher, SealedBy, TrySendError,
};
use tokio::time::Instant;

type Key = &'static str;

/// One call of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    at: u64,
    key: Key,
    items: Vec<u32>,
    sealed_by: SealedBy,
}

/// What came to the dead letter.
type Buried = (Key, Vec<u32>);

#[derive(Clone)]
struct Log {
    began: Instant,
    calls: Arc<Mutex<Vec<Call>>>,
    buried: Arc<Mutex<Vec<Buried>>>,
}

type BoxFuture = std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

impl Log {
    fn new() -> Self {
        Self { began: Instant::now(), calls: Arc::default(), buried: Arc::default() }
    }

    fn builder(&self) -> Builder<u32, Keyed<Key>> {
        self.keyed(1_000)
    }

    fn keyed(&self, max_keys: usize) -> Builder<u32, Keyed<Key>> {
        let buried = self.buried.clone();
        Batcher::keyed(max_keys).window(millis(50)).dead_letter(
            move |key: &Key, items, _: BatchError| buried.lock().unwrap().push((*key, items)),
        )
    }

    /// A handler that notes what it is given and takes `ms` over it; it fails what comes under
    /// "bad".
    fn handler(&self, ms: u64) -> impl Fn(KeyedBatch<Key, u32>) -> BoxFuture + Send + Sync + use<> {
        let log = self.clone();
        move |batch| {
            let call = Call {
                at: log.began.elapsed().as_millis() as u64,
                key: batch.key(),
                items: batch.as_slice().to_vec(),
                sealed_by: batch.sealed_by(),
            };
            log.calls.lock().unwrap().push(call);
            Box::pin(async move {
                if ms > 0 {
                    tokio::time::sleep(millis(ms)).await;
                }
                if *batch.key() == "bad" { Err("as told".to_owned()) } else { Ok(()) }
            })
        }
    }

    fn batches(&self) -> Vec<(u64, Key, Vec<u32>)> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|call| (call.at, call.key, call.items.clone())).collect()
    }

    fn reasons(&self) -> Vec<SealedBy> {
        self.calls.lock().unwrap().iter().map(|call| call.sealed_by).collect()
    }
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn paused(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    runtime.block_on(async { tokio::time::timeout(day, test).await }).expect("it hangs");
}

async fn pass(ms: u64) {
    tokio::task::yield_now().await;
    for _ in 0..ms {
        tokio::time::advance(millis(1)).await;
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
}

#[test]
fn each_key_has_a_batch_and_a_window_of_its_own() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().build(log.handler(0)).unwrap();
        batcher.try_send("a", 1).unwrap();
        pass(20).await;
        batcher.try_send("b", 2).unwrap();
        batcher.try_send("a", 3).unwrap();
        assert_eq!(batcher.keys(), 2);
        pass(31).await;
        assert_eq!(log.batches(), [(50, "a", vec![1, 3])]);
        assert_eq!(batcher.keys(), 1);
        pass(30).await;
        assert_eq!(log.batches()[1], (70, "b", vec![2]));
        assert_eq!(batcher.keys(), 0, "an emptied key is gone");
    });
}

#[test]
fn a_full_map_hands_over_its_least_recently_used_key() {
    paused(async {
        let log = Log::new();
        let batcher = log.keyed(2).build(log.handler(0)).unwrap();
        for (key, item) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            batcher.try_send(key, item).unwrap();
            assert!(batcher.keys() <= 2);
        }
        pass(1).await;
        assert_eq!(log.batches(), [(0, "b", vec![2])]);
        assert_eq!(log.reasons(), [SealedBy::Evicted]);
        let ended = batcher.shutdown(None).await;
        assert_eq!(ended.delivered, 4);
        assert_eq!(batcher.stats().peak_keys, 2);
    });
}

#[test]
fn a_hot_key_starves_nobody() {
    paused(async {
        let log = Log::new();
        let batcher = log.keyed(10).max_items(1).capacity(100).build(log.handler(1)).unwrap();
        for item in 0..20 {
            batcher.try_send("hot", item).unwrap();
        }
        batcher.try_send("a", 100).unwrap();
        batcher.try_send("b", 101).unwrap();
        pass(30).await;
        let keys: Vec<_> = log.batches().iter().map(|batch| batch.1).collect();
        assert_eq!(keys[..5], ["hot", "a", "b", "hot", "hot"]);
        assert_eq!(keys.len(), 22);
    });
}

#[test]
fn in_order_a_key_has_one_batch_at_a_time() {
    paused(async {
        let log = Log::new();
        let batcher =
            log.builder().max_items(1).concurrency(4).in_order().build(log.handler(10)).unwrap();
        for (key, item) in [("a", 1), ("a", 2), ("b", 3), ("a", 4)] {
            batcher.try_send(key, item).unwrap();
        }
        pass(40).await;
        let begun = [(0, "a", vec![1]), (0, "b", vec![3]), (10, "a", vec![2]), (20, "a", vec![4])];
        assert_eq!(log.batches(), begun);
    });
}

#[test]
fn who_sends_to_a_full_key_waits_alone() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(2)
            .capacity_per_key(2)
            .capacity(10)
            .build(log.handler(5))
            .unwrap();
        batcher.try_send("a", 1).unwrap();
        batcher.try_send("a", 2).unwrap();
        assert!(matches!(batcher.try_send("a", 3), Err(TrySendError::Full(("a", 3)))));
        let waits = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.send("a", 3).await }
        });
        pass(1).await;
        assert_eq!(batcher.stats().waiting_senders, 1);
        batcher.try_send("b", 4).unwrap();
        let slot = batcher.reserve("b").await.unwrap();
        assert!(batcher.try_send("b", 5).is_err(), "the slot takes up room");
        slot.send(6).unwrap();
        pass(10).await;
        waits.await.unwrap().unwrap();
        assert_eq!(batcher.shutdown(None).await.delivered, 5);
    });
}

#[test]
fn a_flush_of_one_key_leaves_the_others_open() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().build(log.handler(0)).unwrap();
        batcher.try_send("a", 1).unwrap();
        batcher.try_send("b", 2).unwrap();
        let report = batcher.flush_key(&"a").await;
        assert_eq!((report.delivered, report.all_delivered()), (1, true));
        assert_eq!(log.batches(), [(0, "a", vec![1])]);
        assert_eq!(batcher.keys(), 1);
        assert_eq!(batcher.flush_key(&"nobody").await.delivered, 0);
        assert_eq!(batcher.flush().await.delivered, 1);
    });
}

#[test]
fn a_key_that_waits_for_its_retry_holds_up_no_other() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(1)
            .in_order()
            .retry(Retry::constant(2, millis(10)).unwrap())
            .build(log.handler(0))
            .unwrap();
        for (key, item) in [("bad", 1), ("bad", 2), ("a", 3)] {
            batcher.try_send(key, item).unwrap();
        }
        let report = batcher.flush().await;
        assert_eq!((report.delivered, report.failed), (1, 2));
        let begun: Vec<_> = log.batches().iter().map(|batch| (batch.0, batch.2[0])).collect();
        assert_eq!(begun, [(0, 1), (0, 3), (10, 1), (10, 2), (20, 2)]);
        assert_eq!(*log.buried.lock().unwrap(), [("bad", vec![1]), ("bad", vec![2])]);
    });
}

#[test]
fn a_shutdown_hands_back_what_was_not_sent_by_key() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().build(log.handler(100)).unwrap();
        batcher.try_send("a", 1).unwrap();
        let _ = batcher.flush_key(&"a").await;
        for (key, item) in [("a", 2), ("b", 3), ("b", 4)] {
            batcher.try_send(key, item).unwrap();
        }
        let ended = batcher.shutdown(Some(millis(10))).await;
        assert_eq!(ended.delivered, 1);
        assert_eq!(ended.indeterminate, [(Arc::new("a"), vec![2])]);
        assert_eq!(ended.unsent, [(Arc::new("b"), vec![3, 4])]);
        assert!(matches!(batcher.try_send("a", 5), Err(TrySendError::Closed(("a", 5)))));
    });
}

#[test]
fn many_idle_keys_wake_nobody() {
    paused(async {
        let log = Log::new();
        let batcher = Batcher::keyed(10_000)
            .window(Duration::from_secs(3600))
            .dead_letter(|_: &u32, _: Vec<u32>, _| {})
            .build(|_: KeyedBatch<u32, u32>| async { Ok::<(), String>(()) })
            .unwrap();
        for key in 0..10_000 {
            batcher.try_send(key, key).unwrap();
        }
        pass(1).await;
        let before = batcher.stats().wakeups;
        pass(1000).await;
        assert_eq!(batcher.stats().wakeups, before, "keys whose windows are far off");
        assert_eq!(batcher.flush().await.delivered, 10_000);
        let before = batcher.stats().wakeups;
        pass(5000).await;
        assert_eq!(batcher.stats().wakeups, before, "keys that are gone");
        drop(log);
    });
}

#[test]
fn the_item_that_makes_a_batch_of_its_key_fail_is_found_if_its_error_says_so() {
    paused(async {
        let log = Log::new();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let called = calls.clone();
        let batcher = log
            .builder()
            .max_items(4)
            .isolate_poison_when(100, |error| error.to_string() == "rejected")
            .build(move |batch: KeyedBatch<Key, u32>| {
                called.lock().unwrap().push((*batch.key(), batch.as_slice().to_vec()));
                let rejected = batch.iter().any(|item| *item == 2);
                let down = *batch.key() == "down";
                async move {
                    match (rejected, down) {
                        (_, true) => Err("down"),
                        (true, false) => Err("rejected"),
                        (false, false) => Ok(()),
                    }
                }
            })
            .unwrap();
        for (key, item) in [("a", 1), ("down", 1), ("a", 2), ("down", 2), ("a", 3)] {
            batcher.try_send(key, item).unwrap();
        }
        let report = batcher.flush().await;
        assert_eq!((report.delivered, report.failed), (2, 3));
        let buried = log.buried.lock().unwrap().clone();
        assert!(buried.contains(&("down", vec![1, 2])) && buried.contains(&("a", vec![2])));
        assert_eq!(calls.lock().unwrap().len(), 1 + 5, "one for what is down");
    });
}

#[test]
fn what_a_shutdown_hands_back_is_in_the_order_in_which_it_was_accepted() {
    for seed in 0..40 {
        paused(async move {
            let mut random = numbers(seed);
            let batcher = Batcher::keyed(3)
                .max_items(3)
                .capacity(200)
                .concurrency(3)
                .window(millis(random(8)))
                .retry(Retry::constant(9, millis(30)).unwrap())
                .dead_letter(|_: &u64, _: Vec<u64>, _| panic!("it is handed back"))
                .build(|batch: KeyedBatch<u64, u64>| async move {
                    match *batch.first().unwrap() % 3 {
                        0 => Err("to be tried again"),
                        _ => std::future::pending().await,
                    }
                })
                .unwrap();
            for item in 0..60 {
                batcher.try_send(random(7), item).unwrap();
                match random(12) {
                    0 => pass(random(4)).await,
                    1 => {
                        let key = random(7);
                        let mut flush = Box::pin(batcher.flush_key(&key));
                        assert!(futures_util::poll!(&mut flush).is_pending() || random(1) == 0);
                    }
                    _ => {}
                }
            }
            let ended = batcher.shutdown(Some(millis(10))).await;
            let items = |handed: &[(Arc<u64>, Vec<u64>)]| {
                handed.iter().map(|(_, items)| items.len()).sum::<usize>()
            };
            assert_eq!(items(&ended.unsent) + items(&ended.indeterminate), 60);
            for handed in [ended.unsent, ended.indeterminate] {
                let firsts: Vec<_> = handed.iter().map(|(_, items)| items[0]).collect();
                assert!(firsts.is_sorted(), "seed {seed}: {handed:?}");
                for key in 0..7 {
                    let of_key = handed.iter().filter(|(of, _)| **of == key);
                    let items: Vec<_> = of_key.flat_map(|(_, items)| items).collect();
                    assert!(items.is_sorted(), "seed {seed}: {handed:?}");
                }
            }
        });
    }
}

/// Numbers below what is asked for, the same for each seed.
fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}
