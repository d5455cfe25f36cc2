//! A budget shared with others, an idle handler, and many items at once.

use super::*;
use sluicegate::batcher::SendManyError;
use sluicegate::{Retry, Semaphore};
use std::collections::VecDeque;

#[test]
fn two_batchers_on_one_semaphore_keep_within_it_together() {
    paused(async {
        let log = Log::new();
        let semaphore = Arc::new(Semaphore::new(2));
        let batchers = [0, 1].map(|_| {
            log.builder()
                .max_items(1)
                .capacity(10)
                .semaphore(semaphore.clone())
                .build(log.handler(10))
                .unwrap()
        });
        for item in 0..3 {
            for batcher in &batchers {
                batcher.send(item).await.unwrap();
                pass(0).await;
            }
        }
        pass(100).await;
        let begun: Vec<_> = log.batches().into_iter().map(|(at, _)| at).collect();
        assert_eq!(begun, [0, 0, 10, 10, 20, 20]);
        assert_eq!(semaphore.available_permits(), 2);
    });
}

#[test]
fn a_batch_that_waits_for_a_permit_fills_and_one_that_waits_for_its_retry_holds_none() {
    paused(async {
        let log = Log::new();
        let semaphore = Arc::new(Semaphore::new(1));
        let batcher = log
            .builder()
            .max_items(4)
            .window(millis(5))
            .semaphore(semaphore.clone())
            .retry(Retry::constant(2, millis(50)).unwrap())
            .build({
                let log = log.clone();
                move |batch: Batch<u32>| {
                    log.note(&batch);
                    async move { if batch.attempt() == 1 { Err("once") } else { Ok(()) } }
                }
            })
            .unwrap();
        let held = semaphore.clone().try_acquire_owned().unwrap();
        batcher.send(0).await.unwrap();
        pass(10).await;
        batcher.send(1).await.unwrap();
        pass(10).await;
        assert_eq!(semaphore.waiters(), 1);
        drop(held);
        pass(1).await;
        assert_eq!(semaphore.available_permits(), 1, "it waits for its retry");
        let held = semaphore.clone().try_acquire_owned().unwrap();
        pass(60).await;
        drop(held);
        pass(1).await;
        assert_eq!(log.batches(), [(20, vec![0, 1]), (81, vec![0, 1])]);
        assert_eq!(batcher.stats().delivered, 2);
    });
}

#[test]
fn a_closed_semaphore_ends_the_batcher_and_nothing_is_lost() {
    paused(async {
        let log = Log::new();
        let semaphore = Arc::new(Semaphore::new(1));
        let held = semaphore.clone().try_acquire_owned().unwrap();
        let batcher =
            log.builder().max_items(2).semaphore(semaphore.clone()).build(log.handler(0)).unwrap();
        for item in 0..3 {
            batcher.send(item).await.unwrap();
        }
        pass(1).await;
        semaphore.close();
        pass(1).await;
        assert!(batcher.is_closed());
        let why = "the batcher stopped before the items were handed over".to_owned();
        assert_eq!(log.buried(), [(vec![0, 1, 2], why)]);
        assert!(!batcher.shutdown(None).await.all_delivered());
        conserved(&batcher);
        drop(held);
    });
}

#[test]
fn an_idle_handler_is_given_a_lone_item_at_once_and_a_busy_one_lets_them_gather() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(10)
            .window(millis(50))
            .eager_when_idle()
            .concurrency(2)
            .build(log.handler(20))
            .unwrap();
        batcher.send(0).await.unwrap();
        pass(1).await;
        for item in 1..4 {
            batcher.send(item).await.unwrap();
            pass(1).await;
        }
        pass(100).await;
        assert_eq!(log.batches(), [(0, vec![0]), (20, vec![1, 2, 3])]);
        assert_eq!(batcher.stats().batches.idle, 2);
    });
}

#[test]
fn many_items_are_sent_in_order_and_those_that_are_refused_are_left() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(3)
            .capacity(5)
            .window(millis(0))
            .build(log.handler(10))
            .unwrap();
        let mut items: VecDeque<_> = (0..9).collect();
        {
            let mut sending = Box::pin(batcher.send_many(&mut items));
            assert!(futures_util::poll!(&mut sending).is_pending());
        }
        assert_eq!(items, [5, 6, 7, 8], "it was cancelled, and waits for nothing");
        assert_eq!(batcher.stats().waiting_senders, 0);
        batcher.send_many(&mut items).await.unwrap();
        assert!(items.is_empty());
        items.extend([9, 10, 11, 12]);
        let mut sending = Box::pin(batcher.send_many(&mut items));
        assert!(futures_util::poll!(&mut sending).is_pending());
        let shutdown = batcher.shutdown(None);
        let (sent, ended) = futures_util::join!(sending, shutdown);
        assert_eq!(sent, Err(SendManyError::Closed));
        let delivered: Vec<_> = log.batches().into_iter().flat_map(|(_, items)| items).collect();
        let all: Vec<_> = delivered.into_iter().chain(items).collect();
        assert_eq!(all, (0..13).collect::<Vec<_>>());
        assert!(ended.all_delivered());
    });
}

#[test]
fn ages_are_told_against_the_window() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(2).window(millis(20)).build(log.handler(30)).unwrap();
        batcher.send(0).await.unwrap();
        pass(25).await;
        batcher.send(1).await.unwrap();
        pass(40).await;
        let stats = batcher.stats();
        assert_eq!(log.batches(), [(20, vec![0]), (50, vec![1])]);
        assert_eq!((stats.handed_over, stats.window), (2, millis(20)));
        assert_eq!((stats.oldest_handed_over, stats.longest_overrun), (millis(25), millis(5)));
        assert_eq!(stats.mean_age(), Duration::from_micros(22_500));
    });
}

#[test]
fn a_thousand_flushes_side_by_side_each_report_what_was_pending() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(10)
            .capacity(1_000)
            .concurrency(3)
            .build(log.handler(1))
            .unwrap();
        let flushes: Vec<_> = (0..1_000)
            .map(|item| {
                batcher.try_send(item).unwrap();
                let mut flush = Box::pin(batcher.flush());
                let waker = std::task::Waker::noop();
                let polled = flush.as_mut().poll(&mut std::task::Context::from_waker(waker));
                assert!(polled.is_pending());
                flush
            })
            .collect();
        for (before, flush) in flushes.into_iter().enumerate() {
            if before % 3 == 0 {
                continue;
            }
            assert_eq!(flush.await.delivered, before as u64 + 1);
        }
        conserved(&batcher);
    });
}
