//! How a `Retry` is kept to: the time limit of an attempt, the budget, the choice of errors.

use std::future::pending;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sluicegate::batcher::{Batch, BatchError, Batcher, HandlerError};
use sluicegate::retry::GaveUp;
use sluicegate::{Retry, RetryBudget};
use tokio::time::sleep;

use super::{Log, conserved, millis, pass, paused};

fn limited(attempts: u32, wait: u64, limit: u64) -> Retry {
    Retry::constant(attempts, millis(wait))
        .unwrap()
        .into_builder()
        .attempt_timeout(millis(limit))
        .build()
        .unwrap()
}

#[test]
fn an_attempt_that_takes_too_long_is_dropped_and_tried_again() {
    paused(async {
        let log = Log::new();
        let noted = log.clone();
        let batcher = log
            .builder()
            .max_items(3)
            .retry(limited(3, 5, 20))
            .build(move |mut batch: Batch<u32>| {
                noted.note(&batch);
                async move {
                    match batch.attempt() {
                        1 => Err("busy".to_owned()),
                        // What it takes out is delivered, though it never ends.
                        _ => {
                            batch.drain(..1);
                            pending().await
                        }
                    }
                }
            })
            .unwrap();
        batcher.send_many(&mut [1, 2, 3].into()).await.unwrap();
        let report = batcher.flush().await;
        assert_eq!(
            log.batches(),
            [(0, vec![1, 2, 3]), (5, vec![1, 2, 3]), (30, vec![2, 3])],
            "20 ms for an attempt, 5 ms in between"
        );
        assert_eq!(log.ms(), 50);
        let why =
            "the batch timed out after 20ms in attempt 3, no attempts left; before that: busy";
        assert_eq!(log.buried(), [(vec![3], why.to_owned())]);
        assert_eq!((report.delivered, report.failed), (2, 1));
        conserved(&batcher);
    });
}

#[test]
fn a_handler_that_is_ready_when_its_time_is_up_has_not_timed_out() {
    paused(async {
        let log = Log::new();
        let batcher =
            log.builder().max_items(1).retry(limited(1, 0, 20)).build(log.handler(20)).unwrap();
        batcher.send(1).await.unwrap();
        let report = batcher.flush().await;
        assert!(report.all_delivered(), "{:?}", log.buried());
        assert_eq!(log.ms(), 20);
    });
}

/// One handler holds up the driver for longer than another may take, which would be ready had it
/// been asked.
#[test]
fn what_is_ready_by_the_end_of_its_time_counts() {
    paused(async {
        let log = Log::new();
        let done = Arc::new(AtomicU32::new(0));
        let seen = done.clone();
        let batcher = log
            .builder()
            .max_items(1)
            .concurrency(2)
            .retry(limited(1, 0, 20))
            .build(move |batch: Batch<u32>| {
                let done = seen.clone();
                let mut advance = Box::pin(tokio::time::advance(millis(30)));
                std::future::poll_fn(move |cx| {
                    if *batch.first().unwrap() == 2 {
                        let _ = advance.as_mut().poll(cx);
                        done.store(1, Ordering::Relaxed);
                    }
                    match done.load(Ordering::Relaxed) {
                        0 => std::task::Poll::Pending,
                        _ => std::task::Poll::Ready(Ok::<(), String>(())),
                    }
                })
            })
            .unwrap();
        batcher.send_many(&mut [1, 2].into()).await.unwrap();
        let report = batcher.flush().await;
        assert_eq!((log.ms(), report.delivered), (30, 2), "{:?}", log.buried());
    });
}

#[test]
fn a_guard_that_was_given_away_keeps_its_items_until_it_is_back() {
    paused(async {
        let log = Log::new();
        let away: Arc<Mutex<Option<Batch<u32>>>> = Arc::default();
        let (noted, taken) = (log.clone(), away.clone());
        let batcher = log
            .builder()
            .max_items(2)
            .retry(limited(2, 5, 20))
            .build(move |batch: Batch<u32>| {
                noted.note(&batch);
                if batch.attempt() == 1 {
                    *taken.lock().unwrap() = Some(batch);
                }
                async move {
                    sleep(millis(30)).await;
                    Ok::<(), String>(())
                }
            })
            .unwrap();
        batcher.send_many(&mut [1, 2].into()).await.unwrap();
        pass(100).await;
        assert_eq!(log.batches().len(), 1, "its handler was dropped, but the guard is out");
        assert_eq!(batcher.stats().pending, 2);
        let mut guard = away.lock().unwrap().take().unwrap();
        guard.drain(..1);
        drop(guard);
        pass(6).await;
        assert_eq!(log.batches()[1..], [(105, vec![2])]);
        // The guard of the second was dropped at once: 20 ms are not enough, and no attempt is left.
        pass(30).await;
        assert_eq!(log.buried().len(), 1);
        conserved(&batcher);
    });
}

#[test]
fn each_of_many_attempts_side_by_side_has_its_own_limit_and_they_have_one_timer() {
    paused(async {
        let log = Log::new();
        let noted = log.clone();
        let batcher = log
            .builder()
            .max_items(1)
            .concurrency(50)
            .capacity(50)
            .retry(limited(2, 7, 20))
            .build(move |batch: Batch<u32>| {
                noted.note(&batch);
                // Every other one ends in time, at its second attempt.
                let ends = batch.attempt() == 2 && *batch.first().unwrap() % 2 == 0;
                async move {
                    if !ends {
                        pending::<()>().await;
                    }
                    drop(batch);
                    Ok::<(), String>(())
                }
            })
            .unwrap();
        for item in 0..50 {
            batcher.send(item).await.unwrap();
            sleep(millis(1)).await;
        }
        let _ = batcher.flush().await;
        let stats = batcher.stats();
        assert_eq!((stats.delivered, stats.failed), (25, 25));
        assert_eq!(log.ms(), 49 + 20 + 7 + 20, "the last, 49, begun at 49 ms");
        for call in log.calls.lock().unwrap().iter() {
            let begun = u64::from(call.items[0]) + 27 * u64::from(call.attempt - 1);
            assert_eq!(call.at, begun, "{call:?}");
        }
        conserved(&batcher);
    });
}

#[test]
fn a_batch_in_time_does_not_wake_the_driver_when_its_limit_would_have_passed() {
    paused(async {
        let log = Log::new();
        let batcher =
            log.builder().max_items(1).retry(limited(2, 5, 20)).build(log.handler(3)).unwrap();
        batcher.send(1).await.unwrap();
        assert!(batcher.flush().await.all_delivered());
        // A timer that is set is left alone, and rings once.
        pass(30).await;
        let wakeups = batcher.stats().wakeups;
        pass(1000).await;
        assert_eq!(batcher.stats().wakeups, wakeups, "an empty batcher sleeps");
    });
}

#[test]
fn a_limit_holds_while_a_permit_is_waited_for() {
    paused(async {
        let log = Log::new();
        let noted = log.clone();
        let semaphore = Arc::new(sluicegate::Semaphore::new(1));
        let batcher = log
            .builder()
            .max_items(1)
            .semaphore(semaphore.clone())
            .retry(limited(1, 0, 20))
            .build(move |batch: Batch<u32>| {
                noted.note(&batch);
                async move {
                    let _batch = batch;
                    pending::<Result<(), String>>().await
                }
            })
            .unwrap();
        batcher.send_many(&mut [1, 2].into()).await.unwrap();
        pass(19).await;
        assert_eq!(log.buried().len(), 0);
        pass(1).await;
        assert_eq!(log.buried().len(), 1, "the second batch waits for its permit meanwhile");
        pass(20).await;
        assert_eq!(log.batches(), [(0, vec![1]), (20, vec![2])]);
        assert_eq!(log.buried().len(), 2);
        assert_eq!(semaphore.available_permits(), 1);
        conserved(&batcher);
    });
}

#[test]
fn a_destructor_that_panics_in_a_handler_that_took_too_long_changes_nothing() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("as planned"));
        }
    }
    paused(async {
        let log = Log::new();
        let noted = log.clone();
        let batcher = log
            .builder()
            .max_items(1)
            .retry(limited(2, 5, 20))
            .build(move |batch: Batch<u32>| {
                noted.note(&batch);
                async move {
                    let _bad = (batch.attempt() == 1).then(|| Bad);
                    if batch.attempt() == 1 {
                        pending::<()>().await;
                    }
                    drop(batch);
                    Ok::<(), String>(())
                }
            })
            .unwrap();
        batcher.send(1).await.unwrap();
        assert!(batcher.flush().await.all_delivered());
        assert_eq!(log.ms(), 25);
    });
}

#[test]
fn a_search_for_what_fails_keeps_to_the_limit_too() {
    paused(async {
        let log = Log::new();
        let noted = log.clone();
        let batcher = log
            .builder()
            .max_items(4)
            .isolate_poison(100)
            .retry(limited(1, 0, 10))
            .build(move |batch: Batch<u32>| {
                noted.note(&batch);
                async move {
                    if batch.iter().any(|item| *item == 3) {
                        pending::<()>().await;
                    }
                    drop(batch);
                    Ok::<(), String>(())
                }
            })
            .unwrap();
        batcher.send_many(&mut [1, 2, 3, 4].into()).await.unwrap();
        let report = batcher.flush().await;
        assert_eq!((report.delivered, report.failed), (3, 1));
        let expected = [
            (0, vec![1, 2, 3, 4]),
            (10, vec![1, 2]),
            (10, vec![3, 4]),
            (20, vec![3]),
            (30, vec![4]),
        ];
        assert_eq!(log.batches(), expected);
        let why = "the batch timed out after 10ms in attempt 4, no attempts left";
        assert_eq!(log.buried(), [(vec![3], why.to_owned())]);
    });
}

#[test]
fn a_spent_budget_lets_nothing_be_tried_again_nor_cut() {
    paused(async {
        let log = Log::new();
        let noted = log.clone();
        let budget = RetryBudget::new(4, 0.5).unwrap();
        let batcher = log
            .builder()
            .max_items(2)
            .isolate_poison(100)
            .retry(Retry::constant(9, millis(1)).unwrap().budget(&budget))
            .build(move |batch: Batch<u32>| {
                noted.note(&batch);
                let fails = *batch.first().unwrap() < 10;
                async move { if fails { Err("down".to_owned()) } else { Ok(()) } }
            })
            .unwrap();
        batcher.send_many(&mut [1, 2].into()).await.unwrap();
        let _ = batcher.flush().await;
        assert_eq!(log.batches().len(), 2, "three tokens of four are left, then two: half");
        let why = "the batch failed in attempt 2, no retry budget left: down";
        assert_eq!(log.buried(), [(vec![1, 2], why.to_owned())]);
        assert_eq!(budget.tokens(), 2);
        let calls = async |items: std::ops::Range<u32>| {
            let before = log.batches().len();
            batcher.send_many(&mut items.collect()).await.unwrap();
            let _ = batcher.flush().await;
            log.batches().len() - before
        };
        assert_eq!(calls(10..12).await, 1, "it succeeds, and gives back half a token");
        assert_eq!(calls(1..3).await, 1, "that is too little for a retry");
        assert_eq!(calls(10..18).await, 4, "three and a half are left");
        assert_eq!(calls(1..3).await, 2, "and that is enough for one");
        assert_eq!(budget.tokens(), 1);
        conserved(&batcher);
    });
}

#[test]
fn a_search_for_what_fails_is_charged_to_the_budget() {
    paused(async {
        let log = Log::new();
        let noted = log.clone();
        let budget = RetryBudget::new(6, 0.001).unwrap();
        let batcher = log
            .builder()
            .max_items(8)
            .isolate_poison(100)
            .retry(Retry::none().budget(&budget))
            .build(move |batch: Batch<u32>| {
                noted.note(&batch);
                async move { Err::<(), _>("down".to_owned()) }
            })
            .unwrap();
        batcher.send_many(&mut (0..8).collect()).await.unwrap();
        let report = batcher.flush().await;
        assert_eq!(report.failed, 8);
        // Of six tokens four must be left to go on: the batch, then its first half, and its first
        // quarter, which is the third that fails. What was cut off until then is still tried.
        let sizes: Vec<_> = log.batches().iter().map(|(_, items)| items.len()).collect();
        assert_eq!(sizes, [8, 4, 2, 2, 4]);
        let whys: Vec<_> = log.buried().into_iter().map(|(_, why)| why).collect();
        assert!(whys.iter().all(|why| why.contains("no retry budget left")), "{whys:?}");
        assert_eq!(budget.tokens(), 1);
    });
}

#[test]
fn a_choice_of_errors_is_asked_about_what_the_handler_returns() {
    paused(async {
        let log = Log::new();
        let noted = log.clone();
        let asked = Arc::new(AtomicU64::new(0));
        let asking = asked.clone();
        let reasons: Arc<Mutex<Vec<Option<GaveUp>>>> = Arc::default();
        let given = reasons.clone();
        let retry = limited(3, 1, 10).when(move |error: &HandlerError| {
            asking.fetch_add(1, Ordering::Relaxed);
            assert!(error.to_string() != "no idea", "a choice that panics");
            error.is::<std::io::Error>()
        });
        let batcher = Batcher::builder()
            .dead_letter(move |_: Vec<u32>, why: BatchError| {
                given.lock().unwrap().push(why.gave_up());
            })
            .max_items(1)
            .retry(retry)
            .build(move |batch: Batch<u32>| {
                noted.note(&batch);
                async move {
                    match *batch.first().unwrap() {
                        1 => Err::<(), HandlerError>(std::io::Error::other("transient").into()),
                        2 => Err("no such table".into()),
                        3 => Err("no idea".into()),
                        4 => panic!("as planned"),
                        _ => pending().await,
                    }
                }
            })
            .unwrap();
        for item in 1..=5 {
            batcher.send(item).await.unwrap();
            let _ = batcher.flush().await;
        }
        let attempts: Vec<_> = log.batches().into_iter().map(|(_, items)| items[0]).collect();
        assert_eq!(attempts, [1, 1, 1, 2, 3, 4, 4, 4, 5, 5, 5]);
        assert_eq!(
            asked.load(Ordering::Relaxed),
            5,
            "neither about a panic nor about a time limit"
        );
        let (spent, not) = (Some(GaveUp::AttemptsSpent), Some(GaveUp::NotRetryable));
        assert_eq!(*reasons.lock().unwrap(), [spent, not, not, spent, spent]);
    });
}

#[test]
fn a_backoff_that_panics_allows_no_other_attempt() {
    paused(async {
        let log = Log::new();
        for in_factory in [true, false] {
            let log = Log { buried: log.buried.clone(), ..Log::new() };
            let retry = Retry::with_backoff(5, move || {
                assert!(!in_factory, "no factory");
                std::iter::from_fn(|| panic!("no iterator"))
            });
            let batcher = log
                .builder()
                .max_items(1)
                .retry(retry.unwrap())
                .build(|_: Batch<u32>| async { Err::<(), _>("down".to_owned()) })
                .unwrap();
            batcher.send(1).await.unwrap();
            let _ = batcher.flush().await;
            conserved(&batcher);
        }
        let why = "the batch failed in attempt 1, no waits left: down";
        assert_eq!(log.buried(), [(vec![1], why.to_owned()), (vec![1], why.to_owned())]);
    });
}

#[test]
fn a_shutdown_ends_before_an_attempt_that_has_time_left() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(1)
            .retry(limited(2, 5, 20))
            .build(|batch: Batch<u32>| async move {
                let _batch = batch;
                pending::<Result<(), String>>().await
            })
            .unwrap();
        batcher.send(1).await.unwrap();
        pass(1).await;
        let report = batcher.shutdown(Some(millis(10))).await;
        assert_eq!(report.indeterminate, [1]);
        assert_eq!(log.ms(), 11);
        assert!(log.buried().is_empty());
    });
}

/// What its destructor sends is taken: no lock is held, and nothing is lost.
#[test]
fn a_handler_that_sends_as_it_is_dropped_for_its_time_is_heard() {
    struct Resend(Batcher<u32>, Option<u32>);
    impl Drop for Resend {
        fn drop(&mut self) {
            if let Some(item) = self.1 {
                self.0.try_send(item).unwrap();
            }
        }
    }
    paused(async {
        let log = Log::new();
        let (noted, own) = (log.clone(), Arc::new(Mutex::new(None::<Batcher<u32>>)));
        let handle = own.clone();
        let batcher = log
            .builder()
            .max_items(1)
            .retry(limited(1, 0, 20))
            .build(move |mut batch: Batch<u32>| {
                noted.note(&batch);
                let item = batch.take()[0];
                let batcher = handle.lock().unwrap().clone().unwrap();
                async move {
                    let mut resend = Resend(batcher, Some(item + 1));
                    if item > 2 {
                        resend.1 = None;
                    } else {
                        pending::<()>().await;
                    }
                    Ok::<(), String>(())
                }
            })
            .unwrap();
        *own.lock().unwrap() = Some(batcher.clone());
        batcher.send(1).await.unwrap();
        pass(50).await;
        assert_eq!(log.batches(), [(0, vec![1]), (20, vec![2]), (40, vec![3])]);
        assert_eq!(batcher.stats().delivered, 3, "each was taken out before its handler timed out");
        conserved(&batcher);
        own.lock().unwrap().take();
    });
}
