//! Items that make their batch fail.

use super::*;
use sluicegate::batcher::HandlerError;
use sluicegate::{Retry, RetryBudget};

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

/// A batch of 500 that always fails with `error`: how often the handler was called, and what was
/// buried.
async fn all_fail(builder: Builder<u32>, log: &Log, error: &'static str) -> usize {
    let noted = log.clone();
    let batcher = builder
        .build(move |batch: Batch<u32>| {
            noted.note(&batch);
            async move { Err::<(), _>(error) }
        })
        .unwrap();
    batcher.send_many(&mut (0..500).collect()).await.unwrap();
    let report = batcher.flush().await;
    assert_eq!((report.delivered, report.failed), (0, 500));
    conserved(&batcher);
    let buried: Vec<_> = log.buried().into_iter().flat_map(|(items, _)| items).collect();
    assert_eq!(buried, (0..500).collect::<Vec<_>>(), "each once, in order");
    log.batches().len()
}

#[test]
fn an_outage_costs_few_calls() {
    paused(async {
        let log = Log::new();
        let calls = all_fail(log.builder().isolate_poison(10_000), &log, "down").await;
        assert_eq!(calls, 1 + 18 + 6);
        // What was cut off is tried, and not cut.
        let sizes: Vec<_> = log.batches().iter().map(|(_, items)| items.len()).collect();
        assert_eq!(sizes[..11], [500, 250, 125, 63, 32, 16, 8, 4, 2, 1, 1]);
        assert_eq!(sizes[19..], [8, 16, 31, 62, 125, 250]);
    });
}

#[test]
fn a_search_is_charged_to_the_budget_whatever_it_fails_with() {
    paused(async {
        let log = Log::new();
        let budget = RetryBudget::new(10, 0.001).unwrap();
        let retry = Retry::constant(3, millis(1)).unwrap().budget(&budget);
        let builder = log.builder().retry(retry.when(|_: &HandlerError| false));
        let calls = all_fail(builder.isolate_poison(10_000), &log, "rejected").await;
        // Of ten tokens six must be left to cut: after four probes that is over, and the parts that
        // were cut off are tried.
        assert_eq!(calls, 1 + 5 + 5);
        assert_eq!(budget.tokens(), 0);
        // With a spent budget nothing is cut at all.
        let log = Log::new();
        let retry = Retry::none().budget(&budget).when(|_: &HandlerError| false);
        let builder = log.builder().retry(retry);
        assert_eq!(all_fail(builder.isolate_poison(10_000), &log, "rejected").await, 1);
        assert!(log.buried()[0].1.contains("no retry budget left"));
    });
}

#[test]
fn only_an_error_that_is_worth_it_is_cut_for() {
    let rejected = |error: &HandlerError| error.to_string() == "rejected";
    paused(async move {
        for (error, calls) in [("rejected", 1 + 18 + 6), ("login expired", 1)] {
            let log = Log::new();
            let builder = log.builder().isolate_poison_when(10_000, rejected);
            assert_eq!(all_fail(builder, &log, error).await, calls, "{error}");
        }
        // It is asked also of what the policy calls transient, once that has failed for good.
        let log = Log::new();
        let retry = Retry::constant(2, millis(1)).unwrap().when(|_: &HandlerError| true);
        let builder = log.builder().retry(retry).isolate_poison_when(10_000, rejected);
        assert_eq!(all_fail(builder, &log, "rejected").await, 2 + 18 + 6);
        // One that panics says no.
        let log = Log::new();
        let builder = log.builder().isolate_poison_when(10_000, |_| panic!("as planned"));
        assert_eq!(all_fail(builder, &log, "rejected").await, 1);
    });
}

#[test]
fn without_a_choice_of_its_own_what_the_policy_calls_transient_is_not_cut_for() {
    let transient = |error: &HandlerError| error.to_string() == "down";
    paused(async move {
        for (error, calls) in [("rejected", 1 + 18 + 6), ("down", 3)] {
            let log = Log::new();
            let retry = Retry::constant(3, millis(1)).unwrap().when(transient);
            let builder = log.builder().retry(retry).isolate_poison(10_000);
            assert_eq!(all_fail(builder, &log, error).await, calls, "{error}");
        }
    });
}

#[test]
fn a_transient_error_during_the_search_is_tried_again_as_long_as_the_batch_has_attempts() {
    paused(async {
        let log = Log::new();
        let noted = log.clone();
        let retry = Retry::constant(3, millis(10)).unwrap();
        let retry = retry.when(|error: &HandlerError| error.to_string() == "deadlock");
        let batcher = log
            .builder()
            .max_items(4)
            .retry(retry)
            .isolate_poison(100)
            .build(move |batch: Batch<u32>| {
                noted.note(&batch);
                let poison = batch.iter().any(|item| *item == 3);
                let deadlock = [2, 3].contains(&batch.attempt());
                async move {
                    match (poison, deadlock) {
                        (_, true) => Err("deadlock"),
                        (true, false) => Err("rejected"),
                        (false, false) => Ok(()),
                    }
                }
            })
            .unwrap();
        batcher.send_many(&mut [0, 1, 2, 3].into()).await.unwrap();
        let report = batcher.flush().await;
        assert_eq!((report.delivered, report.failed), (3, 1));
        let expected = [
            (0, vec![0, 1, 2, 3]),
            (0, vec![0, 1]),
            (10, vec![0, 1]),
            (20, vec![0, 1]),
            (20, vec![2, 3]),
            (20, vec![2]),
            (20, vec![3]),
        ];
        assert_eq!(log.batches(), expected);
    });
}

#[test]
fn a_delivered_part_lets_the_search_go_on() {
    paused(async {
        let log = Log::new();
        // Twelve in a row are too many for one search to go through, and one more is found later.
        const POISON: &[u32] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 400];
        let builder = log.builder().isolate_poison(10_000);
        let (delivered, failed) = sent(builder, &log, POISON, 500).await;
        let buried: Vec<_> = log.buried().into_iter().map(|(items, _)| items.len()).collect();
        assert_eq!(buried, [1, 1, 1, 1, 1, 1, 2, 8, 1], "those given up together, and the last");
        assert_eq!((delivered, failed), (483, 17));
    });
}
