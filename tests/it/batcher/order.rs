//! Order, flushes and retries.

use super::*;
use sluicegate::Retry;
use std::collections::HashMap;

/// Fails each item as often as it is told, and takes the others out.
fn failing(
    log: &Log,
    failures: &[(u32, u32)],
    ms: u64,
) -> impl Fn(Batch<u32>) -> BoxFuture + use<> {
    let log = log.clone();
    let failures = Arc::new(Mutex::new(failures.iter().copied().collect::<HashMap<_, _>>()));
    move |mut batch| {
        log.note(&batch);
        let failures = failures.clone();
        Box::pin(async move {
            tokio::time::sleep(millis(ms)).await;
            let mut failures = failures.lock().unwrap();
            batch.retain(|item| match failures.get_mut(item) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    true
                }
                _ => false,
            });
            if batch.is_empty() { Ok(()) } else { Err(format!("{} left", batch.len())) }
        })
    }
}

#[test]
fn a_failed_batch_is_tried_again_before_the_next_begins_and_only_with_what_failed() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(3)
            .retry(Retry::exponential(3, millis(10), millis(100)).unwrap())
            .build(failing(&log, &[(1, 1), (2, 2)], 1))
            .unwrap();
        for item in 0..6 {
            batcher.send(item).await.unwrap();
        }
        pass(60).await;
        assert_eq!(
            log.batches(),
            [(0, vec![0, 1, 2]), (11, vec![1, 2]), (32, vec![2]), (33, vec![3, 4, 5])]
        );
        let attempts: Vec<_> = log.calls.lock().unwrap().iter().map(|call| call.attempt).collect();
        assert_eq!(attempts, [1, 2, 3, 1]);
        let stats = batcher.stats();
        assert_eq!((stats.delivered, stats.failed, stats.retries), (6, 0, 2));
        conserved(&batcher);
    });
}

#[test]
fn side_by_side_a_batch_waits_for_its_retry_without_its_place_but_keeps_its_room() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(1)
            .capacity(4)
            .concurrency(2)
            .retry(Retry::constant(2, millis(50)).unwrap())
            .build(failing(&log, &[(0, 1), (1, 1)], 10))
            .unwrap();
        for item in 0..4 {
            batcher.send(item).await.unwrap();
        }
        pass(15).await;
        assert_eq!(batcher.stats().pending, 4, "all of them are unfinished");
        assert!(batcher.try_send(9).is_err());
        pass(100).await;
        assert_eq!(
            log.batches(),
            [
                (0, vec![0]),
                (0, vec![1]),
                (10, vec![2]),
                (10, vec![3]),
                (60, vec![0]),
                (60, vec![1])
            ]
        );
        conserved(&batcher);
    });
}

/// It is due again at once, each time.
#[test]
fn a_batch_that_always_fails_does_not_keep_the_others_out() {
    paused(async {
        let log = Log::new();
        let handler = {
            let log = log.clone();
            move |batch: Batch<u32>| {
                log.note(&batch);
                async move { if batch.as_slice() == [0] { Err("poison") } else { Ok(()) } }
            }
        };
        let batcher = log
            .builder()
            .max_items(1)
            .capacity(9)
            .concurrency(2)
            .retry(Retry::constant(100, millis(0)).unwrap())
            .build(handler)
            .unwrap();
        for item in 0..9 {
            batcher.send(item).await.unwrap();
        }
        let _ = batcher.flush().await;
        let handed: Vec<_> = log.batches().into_iter().map(|(_, items)| items[0]).collect();
        assert_eq!(handed[..17], [0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8]);
        assert_eq!((handed.len(), batcher.stats().failed), (108, 1));
    });
}

#[test]
fn a_flush_sees_what_the_same_thread_sent_before_it_and_nothing_later() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(100).build(log.handler(10)).unwrap();
        batcher.try_send(1).unwrap();
        batcher.try_send(2).unwrap();
        let mut flush = Box::pin(batcher.flush());
        assert!(futures_util::poll!(&mut flush).is_pending());
        batcher.try_send(3).unwrap();
        let report = flush.await;
        assert_eq!((report.delivered, report.failed), (2, 0));
        assert!(report.all_delivered());
        assert_eq!(log.ms(), 10);
        assert_eq!(log.batches(), [(0, vec![1, 2])]);
        assert_eq!(batcher.stats().pending, 1, "the third waits for its own window");
        assert_eq!(log.calls.lock().unwrap()[0].sealed_by, SealedBy::Flush);

        let _ = batcher.flush().await;
        let nothing = batcher.flush().await;
        assert_eq!(nothing.delivered, 0, "there was nothing to wait for");
    });
}

#[test]
fn a_flush_waits_for_retries_too_and_reports_what_failed_for_good() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(3)
            .retry(Retry::constant(2, millis(100)).unwrap())
            .build(failing(&log, &[(0, 1), (1, 9)], 5))
            .unwrap();
        for item in 0..4 {
            batcher.send(item).await.unwrap();
        }
        pass(20).await;
        let report = batcher.flush().await;
        assert_eq!((report.delivered, report.failed), (2, 1), "one was delivered before");
        assert_eq!(log.ms(), 115);
        assert_eq!(
            log.buried(),
            [(vec![1], "the batch failed in attempt 2, no attempts left: 1 left".to_owned())]
        );
        conserved(&batcher);
    });
}

#[test]
fn a_dropped_flush_leaves_the_items_alone() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(100).build(log.handler(10)).unwrap();
        batcher.try_send(1).unwrap();
        let waited = tokio::time::timeout(millis(3), batcher.flush()).await;
        assert!(waited.is_err());
        pass(20).await;
        assert_eq!(log.batches(), [(0, vec![1])]);
        assert_eq!(batcher.stats().delivered, 1);
    });
}

#[test]
fn each_senders_items_keep_their_order() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(7)
            .capacity(10)
            .window(millis(3))
            .concurrency(3)
            .build(log.handler(4))
            .unwrap();
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let batcher = batcher.clone();
                tokio::spawn(async move {
                    for n in 0..50 {
                        batcher.send(sender * 1000 + n).await.unwrap();
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await.unwrap();
        }
        assert!(batcher.shutdown(None).await.all_delivered());
        let seen: Vec<_> = log.batches().into_iter().flat_map(|(_, items)| items).collect();
        for sender in 0..4 {
            let theirs: Vec<_> = seen.iter().filter(|item| *item / 1000 == sender).collect();
            assert_eq!(theirs.len(), 50);
            assert!(theirs.is_sorted());
        }
    });
}

/// Reads `count` messages that are there already. Each takes of the task's budget.
async fn read(count: usize) {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    for n in 0..count {
        sender.send(n).unwrap();
    }
    for _ in 0..count {
        receiver.recv().await;
    }
}

/// Each batch but the first takes the whole budget of a poll, and another takes its place.
#[test]
fn a_batch_comes_to_its_end_beside_others_that_spend_the_tasks_budget() {
    paused(async {
        for concurrency in 2..5 {
            let log = Log::new();
            let ended: Arc<Mutex<Vec<u32>>> = Arc::default();
            let handler = {
                let ended = ended.clone();
                move |batch: Batch<u32>| {
                    let ended = ended.clone();
                    async move {
                        tokio::task::yield_now().await;
                        let first = batch.as_slice() == [0];
                        read(if first { 200 } else { 512 }).await;
                        ended.lock().unwrap().extend(batch.as_slice());
                        Ok::<(), String>(())
                    }
                }
            };
            let batcher = log
                .builder()
                .max_items(1)
                .capacity(100)
                .concurrency(concurrency)
                .build(handler)
                .unwrap();
            for item in 0..100 {
                batcher.send(item).await.unwrap();
            }
            assert!(batcher.flush().await.all_delivered());
            let place = ended.lock().unwrap().iter().position(|item| *item == 0).unwrap();
            assert!(place < concurrency, "{place} of {concurrency} side by side ended before it");
        }
    });
}

#[test]
fn a_long_batch_leaves_some_of_the_tasks_budget_to_a_short_one() {
    paused(async {
        for long_first in [true, false] {
            let log = Log::new();
            let ended: Arc<Mutex<Vec<bool>>> = Arc::default();
            let handler = {
                let ended = ended.clone();
                move |batch: Batch<u32>| {
                    let ended = ended.clone();
                    async move {
                        tokio::task::yield_now().await;
                        let long = (batch.as_slice() == [0]) == long_first;
                        read(if long { 100_000 } else { 200 }).await;
                        ended.lock().unwrap().push(long);
                        Ok::<(), String>(())
                    }
                }
            };
            let batcher = log.builder().max_items(1).concurrency(2).build(handler).unwrap();
            batcher.send(0).await.unwrap();
            batcher.send(1).await.unwrap();
            assert!(batcher.flush().await.all_delivered());
            assert_eq!(*ended.lock().unwrap(), [false, true], "long first: {long_first}");
        }
    });
}

/// Hands over `batches` batches of one item, which was all accepted before; how long it took.
async fn drained(batches: u32, shutdown: bool) -> Duration {
    let (batcher, driver) = Batcher::builder()
        .max_items(1)
        .capacity(batches as usize)
        .dead_letter(|_: Vec<u32>, _| {})
        .build_with_driver(|batch: Batch<u32>| async move {
            tokio::task::yield_now().await;
            drop(batch);
            Ok::<(), String>(())
        })
        .unwrap();
    for item in 0..batches {
        batcher.try_send(item).unwrap();
    }
    tokio::spawn(driver);
    let began = std::time::Instant::now();
    if shutdown {
        assert!(batcher.shutdown(None).await.all_delivered());
    } else {
        assert!(batcher.flush().await.all_delivered());
    }
    began.elapsed()
}

/// The clock is a real one, but it only compares the two, which do the same work.
#[tokio::test]
async fn a_shutdown_costs_no_more_for_each_batch_the_more_there_are() {
    let flush = drained(20_000, false).await;
    let shutdown = drained(20_000, true).await;
    assert!(shutdown < flush * 10, "a shutdown took {shutdown:?}, a flush {flush:?}");
}
