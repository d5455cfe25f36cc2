//! What cannot be delivered is handed to somebody, with the reason.

use super::*;
use sluicegate::Retry;
use std::error::Error;
use std::panic::panic_any;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

#[test]
fn a_handler_that_panics_fails_its_batch_and_nothing_else() {
    paused(async {
        let log = Log::new();
        let calls = Arc::new(AtomicU32::new(0));
        let handler = {
            let log = log.clone();
            move |mut batch: Batch<u32>| {
                log.note(&batch);
                let call = calls.fetch_add(1, Ordering::Relaxed);
                assert_ne!(call, 0, "in the call");
                async move {
                    tokio::task::yield_now().await;
                    batch.drain(..1);
                    assert_ne!(call, 1, "in the future");
                    if call == 2 {
                        panic_any(7);
                    }
                    Ok::<(), String>(())
                }
            }
        };
        let batcher = log.builder().max_items(2).build(handler).unwrap();
        for item in 0..8 {
            batcher.send(item).await.unwrap();
        }
        pass(1).await;
        let text =
            |text: &str| format!("the handler failed in attempt 1, no attempts left: it {text}");
        let buried = log.buried();
        assert_eq!(buried.len(), 3);
        assert_eq!(buried[0].0, [0, 1]);
        assert!(buried[0].1.contains("in the call"), "{}", buried[0].1);
        assert_eq!(buried[1].0, [3], "2 was taken out before");
        assert!(buried[1].1.contains("in the future"), "{}", buried[1].1);
        assert_eq!(buried[2], (vec![5], text("panicked, with a payload that is not text")));
        let stats = batcher.stats();
        assert_eq!((stats.delivered, stats.failed), (4, 4));
        conserved(&batcher);
    });
}

/// Panics when it is dropped, if told so.
struct Touchy(bool);

impl Drop for Touchy {
    fn drop(&mut self) {
        assert!(!self.0, "a destructor");
    }
}

#[test]
fn destructors_and_dead_letters_that_panic_do_not_stop_it() {
    paused(async {
        let batcher = Batcher::builder()
            .max_items(2)
            .dead_letter(|_items: Vec<Touchy>, _| panic!("a dead letter"))
            .build(|batch: Batch<Touchy>| async move {
                if batch.iter().all(|item| !item.0) { Err("nothing touchy in it") } else { Ok(()) }
            })
            .unwrap();
        for touchy in [true, false, false, false, false, true] {
            batcher.send(Touchy(touchy)).await.unwrap();
        }
        let report = batcher.flush().await;
        assert_eq!((report.delivered, report.failed), (4, 2));
        batcher.send(Touchy(true)).await.unwrap();
        assert_eq!(batcher.shutdown(None).await.delivered, 5);
    });
}

#[test]
fn a_policy_that_panics_ends_the_retries() {
    paused(async {
        let log = Log::new();
        let retry = Retry::with_backoff(5, || {
            [1, 2].into_iter().map(|ms| if ms == 2 { panic!("a backoff") } else { millis(ms) })
        });
        let batcher = log
            .builder()
            .max_items(1)
            .retry(retry.unwrap())
            .build(|_| async { Err("always") })
            .unwrap();
        batcher.send(1).await.unwrap();
        let report = batcher.flush().await;
        assert_eq!(report.failed, 1);
        assert_eq!(
            log.buried(),
            [(vec![1], "the batch failed in attempt 2, no waits left: always".to_owned())]
        );
    });
}

#[test]
fn a_policy_whose_panic_panics_when_it_is_dropped_loses_nothing() {
    paused(async {
        let log = Log::new();
        let backoff = || std::iter::from_fn(|| -> Option<Duration> { panic_any(Touchy(true)) });
        let batcher = log
            .builder()
            .max_items(1)
            .retry(Retry::with_backoff(5, backoff).unwrap())
            .build(|_| async { Err("always") })
            .unwrap();
        batcher.send(1).await.unwrap();
        batcher.send(2).await.unwrap();
        assert_eq!(batcher.flush().await.failed, 2);
        let buried: Vec<_> = log.buried().into_iter().map(|(items, _)| items).collect();
        assert_eq!(buried, [[1], [2]]);
        conserved(&batcher);
    });
}

#[test]
fn dropping_the_last_handle_drains_without_waiting_for_the_window() {
    paused(async {
        let log = Log::new();
        let (batcher, driver) =
            log.builder().max_items(10).build_with_driver(log.handler(5)).unwrap();
        let driver = tokio::spawn(driver);
        let other = batcher.clone();
        batcher.send(1).await.unwrap();
        drop(batcher);
        pass(1).await;
        other.send(2).await.unwrap();
        drop(other);
        driver.await.unwrap();
        assert_eq!(log.batches(), [(1, vec![1, 2])]);
        assert_eq!(log.ms(), 6);
        assert!(log.buried().is_empty());
    });
}

#[test]
fn a_shutdown_gives_up_at_its_deadline_and_hands_everything_back() {
    paused(async {
        let log = Log::new();
        let handler = {
            let log = log.clone();
            move |mut batch: Batch<u32>| {
                log.note(&batch);
                async move {
                    batch.drain(..1);
                    tokio::time::sleep(millis(1000)).await;
                    Ok::<(), String>(())
                }
            }
        };
        let batcher = log.builder().max_items(3).build(handler).unwrap();
        for item in 0..8 {
            batcher.send(item).await.unwrap();
        }
        pass(1).await;
        let mut flush = Box::pin(batcher.flush());
        assert!(futures_util::poll!(&mut flush).is_pending());
        let ended = batcher.shutdown(Some(millis(20))).await;
        let again = batcher.shutdown(None).await;
        assert_eq!(log.ms(), 21);
        assert_eq!(ended.delivered, 1, "it was taken out");
        assert_eq!(ended.indeterminate, [1, 2]);
        assert_eq!(ended.unsent, [3, 4, 5, 6, 7]);
        assert_eq!(ended.still_held, 0);
        assert!(!ended.all_delivered());
        assert_eq!((again.delivered, again.unsent.len(), again.indeterminate.len()), (1, 0, 0));
        assert!(!again.all_delivered(), "though the first has the items");
        let report = flush.await;
        assert_eq!((report.delivered, report.unsent, report.indeterminate), (1, 5, 2));
        assert!(!report.all_delivered());
        assert!(log.buried().is_empty());
        conserved(&batcher);
    });
}

#[test]
fn a_shutdown_waits_for_retries_and_gives_up_those_that_come_too_late() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(1)
            .capacity(4)
            .concurrency(2)
            .retry(Retry::constant(9, millis(30)).unwrap())
            .build(|batch: Batch<u32>| async move {
                if batch.as_slice() == [0] && batch.attempt() < 3 { Err("not yet") } else { Ok(()) }
            })
            .unwrap();
        batcher.send(0).await.unwrap();
        let ended = batcher.shutdown(Some(millis(40))).await;
        assert_eq!(log.ms(), 40);
        assert_eq!((ended.delivered, ended.failed), (0, 0));
        assert_eq!(ended.indeterminate, [0], "the handler had it twice");
    });
}

#[test]
fn a_shutdown_nobody_waits_for_leaves_its_items_to_the_next_or_to_the_dead_letter() {
    paused(async {
        for again in [true, false] {
            let log = Log::new();
            let batcher = log
                .builder()
                .max_items(1)
                .build(|batch: Batch<u32>| async move {
                    std::future::pending::<()>().await;
                    drop(batch);
                    Ok::<(), String>(())
                })
                .unwrap();
            batcher.send(0).await.unwrap();
            batcher.send(1).await.unwrap();
            let given_up =
                tokio::time::timeout(millis(5), batcher.shutdown(Some(millis(10)))).await;
            assert!(given_up.is_err());
            pass(10).await;
            if again {
                let ended = batcher.shutdown(None).await;
                assert_eq!((ended.indeterminate, ended.unsent), (vec![0], vec![1]));
            }
            drop(batcher);
            pass(1).await;
            let buried: Vec<_> = log.buried().into_iter().map(|(items, _)| items).collect();
            let left = if again { vec![] } else { vec![vec![0], vec![1]] };
            assert_eq!(buried, left);
        }
    });
}

#[test]
fn when_the_runtime_dies_first_the_dead_letter_gets_everything() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let (log, batcher) = runtime.block_on(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(2)
            .build(|mut batch: Batch<u32>| async move {
                batch.drain(..1);
                std::future::pending::<()>().await;
                drop(batch);
                Ok::<(), String>(())
            })
            .unwrap();
        for item in 0..5 {
            batcher.send(item).await.unwrap();
        }
        pass(1).await;
        (log, batcher)
    });
    drop(runtime);
    let buried: Vec<_> = log.buried().into_iter().map(|(items, _)| items).collect();
    assert_eq!(buried, [vec![1], vec![2, 3, 4]]);
    let stats = batcher.stats();
    assert_eq!((stats.delivered, stats.indeterminate, stats.unsent), (1, 1, 3));
    conserved(&batcher);
    assert!(batcher.try_send(9).unwrap_err().to_string().contains("closed"));
}

#[test]
fn a_driver_that_is_never_polled_loses_nothing() {
    paused(async {
        let log = Log::new();
        let (batcher, driver) = log.builder().build_with_driver(log.handler(0)).unwrap();
        batcher.send(1).await.unwrap();
        drop(driver);
        let why = "the batcher stopped before the items were handed over";
        assert_eq!(log.buried(), [(vec![1], why.to_owned())]);
        assert!(batcher.is_closed());
        assert_eq!(batcher.flush().await.delivered, 0);
        let ended = batcher.shutdown(None).await;
        assert!(ended.unsent.is_empty() && !ended.all_delivered());
    });
}

#[test]
fn the_guard_may_go_to_another_thread_and_the_attempt_lasts_until_it_is_back() {
    paused(async {
        let log = Log::new();
        let (to_thread, from_handler) = mpsc::channel::<Batch<u32>>();
        let handler = {
            let log = log.clone();
            move |batch: Batch<u32>| {
                log.note(&batch);
                to_thread.send(batch).unwrap();
                async { Err::<(), _>("the thread is slow") }
            }
        };
        let batcher = log
            .builder()
            .max_items(2)
            .retry(Retry::constant(2, millis(0)).unwrap())
            .build(handler)
            .unwrap();
        for item in 0..4 {
            batcher.send(item).await.unwrap();
        }
        pass(1).await;
        let mut batch = from_handler.recv().unwrap();
        assert_eq!(batch.as_slice(), [0, 1]);
        assert_eq!(log.batches().len(), 1, "the handler is done, but not its batch");
        assert_eq!(batcher.stats().pending, 4);
        std::thread::spawn(move || {
            batch.drain(..1);
            drop(batch);
        })
        .join()
        .unwrap();
        pass(1).await;
        let batch = from_handler.recv().unwrap();
        assert_eq!((batch.as_slice(), batch.attempt()), (&[1][..], 2));

        // What is kept past the deadline is counted, and goes to the dead letter when it is dropped.
        let ended = batcher.shutdown(Some(millis(5))).await;
        assert_eq!((ended.delivered, ended.still_held), (1, 1));
        assert_eq!(ended.unsent, [2, 3]);
        conserved(&batcher);
        drop(batch);
        let why = "the batcher stopped while the items were with its handler";
        assert_eq!(log.buried(), [(vec![1], why.to_owned())]);
    });
}

#[tokio::test]
async fn a_handler_may_work_on_a_blocking_thread() {
    let log = Log::new();
    let batcher =
        log.builder()
            .max_items(3)
            .window(millis(1))
            .build(|batch: Batch<u32>| async move {
                tokio::task::spawn_blocking(move || drop(batch)).await
            })
            .unwrap();
    for item in 0..10 {
        batcher.send(item).await.unwrap();
    }
    let flushed = tokio::time::timeout(Duration::from_secs(60), batcher.flush()).await;
    assert!(flushed.expect("it hangs").all_delivered());
    assert_eq!(batcher.stats().delivered, 10);
}

/// Its message is part of the dead letter's reason; what is behind it is not.
#[derive(Debug)]
struct Outer(std::fmt::Error);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("outer")
    }
}

impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn the_reason_tells_each_error_of_its_chain_once() {
    paused(async {
        let told: Arc<Mutex<Vec<_>>> = Arc::default();
        let batcher = Batcher::builder()
            .dead_letter({
                let told = told.clone();
                move |_: Vec<u32>, why| {
                    let behind = why.source().map(ToString::to_string);
                    told.lock().unwrap().push((why.to_string(), behind));
                }
            })
            .build(|_| async { Err(Outer(std::fmt::Error)) })
            .unwrap();
        batcher.send(1).await.unwrap();
        assert_eq!(batcher.flush().await.failed, 1);
        let behind = std::fmt::Error.to_string();
        let own = "the batch failed in attempt 1, no attempts left: outer".to_owned();
        assert_eq!(*told.lock().unwrap(), [(own, Some(behind))]);
    });
}
