//! Items that make their batch fail.

use super::*;
use sluicegate::Retry;

/// Fails whenever one of `poison` is in the batch, and takes out nothing then.
fn fussy(log: &Log, poison: &'static [u32]) -> impl Fn(Batch<u32>) -> BoxFuture + use<> {
    let log = log.clone();
    move |batch| {
        log.note(&batch);
        let fails = batch.iter().any(|item| poison.contains(item));
        Box::pin(async move {
            drop(batch);
            if fails { Err("poison".to_owned()) } else { Ok(()) }
        })
    }
}

async fn sent(builder: Builder<u32>, log: &Log, poison: &'static [u32], items: u32) -> (u64, u64) {
    let batcher = builder.build(fussy(log, poison)).unwrap();
    for item in 0..items {
        batcher.send(item).await.unwrap();
    }
    let report = batcher.flush().await;
    conserved(&batcher);
    (report.delivered, report.failed)
}

#[test]
fn the_item_that_makes_a_batch_fail_is_found_and_the_others_are_delivered_in_order() {
    paused(async {
        let log = Log::new();
        let builder = log.builder().max_items(8).isolate_poison(100);
        assert_eq!(sent(builder, &log, &[5], 16).await, (15, 1));
        let tried: Vec<_> = log.batches().into_iter().map(|(_, items)| items).collect();
        let expected: [&[u32]; 8] = [
            &[0, 1, 2, 3, 4, 5, 6, 7],
            &[0, 1, 2, 3],
            &[4, 5, 6, 7],
            &[4, 5],
            &[4],
            &[5],
            &[6, 7],
            &[8, 9, 10, 11, 12, 13, 14, 15],
        ];
        assert_eq!(tried, expected, "the next batch only then");
        let why = "the batch failed in attempt 6, no attempts left: poison";
        assert_eq!(log.buried(), [(vec![5], why.to_owned())]);
    });
}

#[test]
fn one_item_among_500_takes_18_calls() {
    paused(async {
        let log = Log::new();
        let builder = log.builder().isolate_poison(18);
        assert_eq!(sent(builder, &log, &[0], 500).await, (499, 1));
        assert_eq!(log.batches().len(), 19);
    });
}

#[test]
fn when_the_probes_are_used_up_what_is_still_together_fails_together() {
    paused(async {
        let log = Log::new();
        let builder = log.builder().max_items(8).isolate_poison(4);
        assert_eq!(sent(builder, &log, &[0, 7], 8).await, (2, 6));
        let buried: Vec<_> = log.buried().into_iter().map(|(items, _)| items).collect();
        assert_eq!(buried, [vec![0, 1], vec![4, 5, 6, 7]]);
    });
}

#[test]
fn all_attempts_come_before_the_first_cut() {
    paused(async {
        let log = Log::new();
        let retry = Retry::constant(3, millis(10)).unwrap();
        let builder = log.builder().max_items(2).retry(retry).isolate_poison(2);
        assert_eq!(sent(builder, &log, &[1], 2).await, (1, 1));
        assert_eq!(
            log.batches(),
            [(0, vec![0, 1]), (10, vec![0, 1]), (20, vec![0, 1]), (20, vec![0]), (20, vec![1])]
        );
    });
}

#[test]
fn a_shutdown_hands_back_the_parts_that_were_not_tried_by_themselves() {
    paused(async {
        let log = Log::new();
        let handler = {
            let log = log.clone();
            move |batch: Batch<u32>| {
                log.note(&batch);
                async move {
                    tokio::time::sleep(millis(10)).await;
                    drop(batch);
                    Err::<(), _>("always")
                }
            }
        };
        let batcher = log.builder().max_items(4).isolate_poison(9).build(handler).unwrap();
        for item in 0..6 {
            batcher.send(item).await.unwrap();
        }
        let ended = batcher.shutdown(Some(millis(15))).await;
        assert_eq!(log.batches(), [(0, vec![0, 1, 2, 3]), (10, vec![0, 1])]);
        assert_eq!((ended.indeterminate, ended.unsent), (vec![0, 1, 2, 3], vec![4, 5]));
        conserved(&batcher);
    });
}
