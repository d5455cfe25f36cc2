//! An answer for each item: the promises of `call`, each by name, with the clock paused.

#![cfg(feature = "tokio")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate::batcher::{Batch, Batcher, Call, CallError, KeyedBatch, SendError};
use sluicegate::retry::GaveUp;
use sluicegate::{Retry, RetryBudget};

type Squares = Batch<Call<u32, u32>>;

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

#[test]
fn each_caller_gets_its_own_answer() {
    paused(async {
        let sizes: Arc<Mutex<Vec<usize>>> = Arc::default();
        let seen = sizes.clone();
        let batcher = Batcher::builder()
            .max_items(64)
            .build_caller(move |mut batch: Squares| {
                seen.lock().unwrap().push(batch.len());
                batch.reply_with(|n| n * n);
                async { Ok::<(), String>(()) }
            })
            .unwrap();
        let calls: Vec<_> = (0..200)
            .map(|n| {
                let batcher = batcher.clone();
                tokio::spawn(async move { assert_eq!(batcher.call(n).await.unwrap(), n * n) })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!(*sizes.lock().unwrap(), [64, 64, 64, 8]);
        assert_eq!(batcher.stats().delivered, 200);
    });
}

#[test]
fn an_item_that_got_no_answer_gives_its_caller_an_error_and_the_item() {
    paused(async {
        let batcher = Batcher::builder()
            .build_caller(|mut batch: Squares| {
                batch.reply(1, 10);
                async { Ok::<(), String>(()) }
            })
            .unwrap();
        let (first, second) = tokio::join!(batcher.call(1), batcher.call(2));
        assert!(matches!(first, Err(CallError::Unanswered(1))));
        assert_eq!(second.unwrap(), 10);
    });
}

#[test]
fn what_is_tried_again_keeps_its_callers_waiting_and_what_fails_tells_them_why() {
    paused(async {
        let batcher = Batcher::builder()
            .retry(Retry::constant(2, millis(10)).unwrap())
            .build_caller(|mut batch: Squares| {
                // One of the items is answered in each attempt; a batch of one never is.
                let answered = batch.len() > 1;
                if answered {
                    batch.reply(0, batch.attempt());
                }
                async { Err::<(), _>("down".to_owned()) }
            })
            .unwrap();
        let (first, second, third) =
            tokio::join!(batcher.call(1), batcher.call(2), batcher.call(3));
        assert_eq!((first.unwrap(), second.unwrap()), (1, 2));
        let Err(CallError::Failed { item, error }) = third else { panic!("{third:?}") };
        assert_eq!(item, 3);
        assert_eq!(error.to_string(), "the batch failed in attempt 2, no attempts left: down");
        let stats = batcher.stats();
        assert_eq!((stats.delivered, stats.failed, stats.pending), (2, 1, 0));
    });
}

#[test]
fn a_handler_that_panics_costs_its_callers_nothing_but_the_answer() {
    paused(async {
        let batcher = Batcher::builder()
            .build_caller(|batch: Squares| async move {
                assert!(*batch.first().unwrap().item() != 13, "bad luck");
                let mut batch = batch;
                batch.reply_with(|n| *n);
                Ok::<(), String>(())
            })
            .unwrap();
        assert!(matches!(batcher.call(13).await, Err(CallError::Failed { item: 13, .. })));
        assert_eq!(batcher.call(12).await.unwrap(), 12);
    });
}

#[test]
fn a_caller_that_left_costs_nothing() {
    paused(async {
        let dropped = Arc::new(AtomicUsize::new(0));
        struct Answer(Arc<AtomicUsize>);
        impl Drop for Answer {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let counter = dropped.clone();
        let batcher = Batcher::builder()
            .window(millis(10))
            .build_caller(move |mut batch: Batch<Call<u32, Answer>>| {
                batch.reply_with(|_| Answer(counter.clone()));
                async { Ok::<(), String>(()) }
            })
            .unwrap();
        for _ in 0..3 {
            let left = tokio::time::timeout(millis(5), batcher.call(1)).await;
            assert!(left.is_err());
            let stayed = batcher.call(2).await;
            assert!(stayed.is_ok());
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 6, "each answer once");
        assert_eq!(batcher.stats().delivered, 6, "the item of one that left is handled");
    });
}

#[test]
fn duplicates_share_one_load_and_each_gets_the_answer() {
    paused(async {
        let loads = Arc::new(AtomicUsize::new(0));
        let counter = loads.clone();
        let batcher = Batcher::builder()
            .retry(Retry::constant(2, millis(1)).unwrap())
            .build_caller(move |mut batch: Batch<Call<u32, String>>| {
                batch.dedup_by_key(|n| n % 10);
                counter.fetch_add(batch.len(), Ordering::Relaxed);
                let attempt = batch.attempt();
                if attempt == 2 {
                    batch.reply_with(|n| format!("load of {n}"));
                }
                async move { if attempt == 1 { Err("not yet") } else { Ok(()) } }
            })
            .unwrap();
        let calls = [3, 14, 13, 3, 4].map(|n| batcher.call(n));
        let answers = futures_util::future::join_all(calls).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, ["load of 3", "load of 14", "load of 3", "load of 3", "load of 14"]);
        assert_eq!(loads.load(Ordering::Relaxed), 4, "two in each attempt");
        let stats = batcher.stats();
        assert_eq!((stats.accepted, stats.delivered, stats.failed), (5, 5, 0));
    });
}

#[test]
fn duplicates_that_fail_each_get_their_item_back() {
    paused(async {
        let batcher = Batcher::builder()
            .build_caller(|mut batch: Squares| {
                batch.dedup_by_key(|_| ());
                async { Err::<(), _>("down") }
            })
            .unwrap();
        let answers = futures_util::future::join_all([1, 2, 3].map(|n| batcher.call(n))).await;
        let items: Vec<_> = answers.into_iter().map(|a| a.unwrap_err().into_item()).collect();
        assert_eq!(items, [1, 2, 3]);
        assert_eq!(batcher.stats().failed, 3);
    });
}

#[test]
fn a_shutdown_tells_callers_and_refuses_those_who_come_later() {
    paused(async {
        let batcher = Batcher::builder()
            .build_caller(|batch: Squares| async move {
                tokio::time::sleep(millis(1000)).await;
                drop(batch);
                Ok::<(), String>(())
            })
            .unwrap();
        let waits = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.call(1).await }
        });
        tokio::time::sleep(millis(60)).await;
        drop(batcher.shutdown(Some(millis(5))).await);
        assert!(matches!(waits.await.unwrap(), Err(CallError::Unanswered(1))));
        let refused = batcher.call(2).await;
        assert!(matches!(refused, Err(CallError::Refused(SendError::Closed(2)))));
    });
}

#[test]
fn calls_by_key_are_answered_by_key() {
    paused(async {
        let batcher = Batcher::keyed(1_000)
            .max_items(10)
            .build_caller(|mut batch: KeyedBatch<u32, Call<u32, u32>>| {
                let table = *batch.key();
                batch.reply_with(|n| 100 * table + n);
                async { Ok::<(), String>(()) }
            })
            .unwrap();
        let calls = (0..20).map(|n| batcher.call(n % 3, n));
        let answers = futures_util::future::join_all(calls).await;
        for (n, answer) in (0..).zip(answers) {
            assert_eq!(answer.unwrap(), 100 * (n % 3) + n);
        }
    });
}

#[test]
fn a_call_by_key_that_fails_gives_key_and_item_back() {
    paused(async {
        let batcher = Batcher::keyed(1_000)
            .max_weight(5, |call: &Call<u32, u32>| u64::from(*call.item()))
            .build_caller(|mut batch: KeyedBatch<String, Call<u32, u32>>| async move {
                match batch.key().as_str() {
                    "down" => return Err("down"),
                    "taken" => drop(batch.take().pop().map(|call| call.reply(0))),
                    _ => {}
                }
                Ok(())
            })
            .unwrap();
        let call = |key: &str, item| batcher.call(key.to_owned(), item);
        let pair = |key: &str, item| (key.to_owned(), item);
        let failed = call("down", 1).await.unwrap_err();
        assert!(matches!(failed, CallError::Failed { .. }));
        assert_eq!(failed.into_item(), pair("down", 1));
        let unanswered = call("silent", 2).await.unwrap_err();
        assert!(matches!(unanswered, CallError::Unanswered(_)));
        assert_eq!(unanswered.into_item(), pair("silent", 2));
        assert_eq!(call("taken", 3).await.unwrap(), 0);
        let heavy = call("any", 6).await.unwrap_err();
        assert!(matches!(heavy, CallError::Refused(SendError::TooHeavy(_))));
        assert_eq!(heavy.into_item(), pair("any", 6));
        drop(batcher.shutdown(None).await);
        let closed = call("any", 4).await.unwrap_err();
        assert!(matches!(closed, CallError::Refused(SendError::Closed(_))));
        assert_eq!(closed.into_item(), pair("any", 4));
    });
}

/// An item whose destructor panics, if it says so.
struct Fragile(u32, bool);

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(!self.1 || std::thread::panicking(), "it broke");
    }
}

#[test]
fn an_item_that_panics_when_it_is_dropped_brings_nobody_anothers_answer() {
    paused(async {
        let sizes: Arc<Mutex<Vec<usize>>> = Arc::default();
        let seen = sizes.clone();
        let batcher = Batcher::builder()
            .retry(Retry::constant(2, millis(1)).unwrap())
            .build_caller(move |mut batch: Batch<Call<Fragile, u32>>| {
                seen.lock().unwrap().push(batch.len());
                let first = batch.attempt() == 1;
                let answered = if first { 3 } else { 1 };
                for index in 0..answered {
                    let number = batch.as_slice()[index].item().0;
                    batch.reply(index, number);
                }
                async move { if first { Err("again") } else { Ok(()) } }
            })
            .unwrap();
        let call = |number, breaks| batcher.call(Fragile(number, breaks));
        let answers = tokio::join!(call(0, true), call(1, false), call(2, false), call(3, false));
        let (a, b, c, d) = answers;
        let answers = [a, b, c, d].map(Result::ok);
        assert_eq!(answers, [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(*sizes.lock().unwrap(), [4, 1], "what has its answer is not tried again");
        assert_eq!(batcher.stats().delivered, 4);
    });
}

/// An answer that cannot be cloned, and says so with something that cannot be dropped.
#[derive(Debug, PartialEq)]
struct Single(u32);

impl Clone for Single {
    fn clone(&self) -> Self {
        std::panic::panic_any(Fragile(0, true))
    }
}

#[test]
fn calls_whose_shared_answer_cannot_be_cloned_are_tried_again() {
    paused(async {
        let batcher = Batcher::builder()
            .retry(Retry::constant(2, millis(1)).unwrap())
            .build_caller(|mut batch: Batch<Call<u32, Single>>| {
                let first = batch.attempt() == 1;
                if first {
                    batch.dedup_by_key(|_| ());
                }
                batch.reply_with(|number| Single(*number));
                async move { if first { Err("again") } else { Ok(()) } }
            })
            .unwrap();
        let (first, second) = tokio::join!(batcher.call(1), batcher.call(2));
        assert_eq!(first.unwrap(), Single(1));
        assert_eq!(second.unwrap(), Single(2));
    });
}

#[test]
fn a_call_put_into_another_batch_does_not_bring_those_that_share_its_answer() {
    paused(async {
        let kept: Mutex<Option<Call<u32, u32>>> = Mutex::default();
        let batcher = Batcher::builder()
            .max_items(3)
            .build_caller(move |mut batch: Squares| {
                if batch.id() == 0 {
                    batch.dedup_by_key(|_| ());
                    *kept.lock().unwrap() = batch.take().pop();
                } else if let Some(call) = kept.lock().unwrap().take() {
                    batch.as_mut_slice()[0] = call;
                }
                async move { if batch.id() == 0 { Ok(()) } else { Err("no") } }
            })
            .unwrap();
        let batch = async { tokio::join!(batcher.call(1), batcher.call(2), batcher.call(3)) };
        let later = async {
            tokio::time::sleep(millis(1)).await;
            batcher.call(4).await
        };
        let ((first, second, third), fourth) = tokio::join!(batch, later);
        assert!(matches!(first, Err(CallError::Failed { item: 1, .. })));
        assert!(matches!(second, Err(CallError::Unanswered(2))));
        assert!(matches!(third, Err(CallError::Unanswered(3))));
        assert!(matches!(fourth, Err(CallError::Unanswered(4))));
        let stats = batcher.stats();
        assert_eq!((stats.accepted, stats.delivered, stats.failed), (4, 3, 1));
    });
}

/// Seen to fail with the slots of one batcher looked up in the table of another.
#[test]
fn a_call_put_into_a_batch_of_another_batcher_is_answered_to_its_own_caller() {
    paused(async {
        let kept: Arc<Mutex<Vec<Call<u32, u32>>>> = Arc::default();
        let keeps = kept.clone();
        let one = Batcher::builder()
            .build_caller(move |mut batch: Squares| {
                keeps.lock().unwrap().extend(batch.take());
                async { Ok::<(), String>(()) }
            })
            .unwrap();
        let other = Batcher::builder()
            .build_caller(move |mut batch: Squares| {
                let mut kept = kept.lock().unwrap();
                batch.as_mut_slice()[..2].swap_with_slice(&mut kept[..]);
                // Its own two are dropped.
                kept.clear();
                batch.reply_with(|n| n * n);
                async { Ok::<(), String>(()) }
            })
            .unwrap();
        let first = async { tokio::join!(one.call(1), one.call(2)) };
        let second = async {
            tokio::time::sleep(millis(100)).await;
            tokio::join!(other.call(3), other.call(4), other.call(5))
        };
        let (first, (third, fourth, fifth)) = tokio::join!(first, second);
        assert_eq!((first.0.unwrap(), first.1.unwrap()), (1, 4));
        assert!(matches!(third, Err(CallError::Unanswered(3))));
        assert!(matches!(fourth, Err(CallError::Unanswered(4))));
        assert_eq!(fifth.unwrap(), 25);
    });
}

#[test]
fn callers_of_an_attempt_that_took_too_long_wait_for_the_next_and_then_learn_why() {
    paused(async {
        let retry = Retry::constant(2, millis(5))
            .unwrap()
            .into_builder()
            .attempt_timeout(millis(20))
            .build()
            .unwrap();
        let began = tokio::time::Instant::now();
        let batcher = Batcher::builder()
            .max_items(3)
            .retry(retry)
            .build_caller(|mut batch: Squares| async move {
                // One of the items is answered in each attempt, which never ends.
                let attempt = batch.attempt();
                batch.reply(0, attempt);
                std::future::pending::<Result<(), String>>().await
            })
            .unwrap();
        let (first, second, third) =
            tokio::join!(batcher.call(1), batcher.call(2), batcher.call(3));
        assert_eq!((first.unwrap(), second.unwrap()), (1, 2));
        let Err(CallError::Failed { item: 3, error }) = third else { panic!("{third:?}") };
        let why = "the batch timed out after 20ms in attempt 2, no attempts left";
        assert_eq!(error.to_string(), why);
        assert_eq!(began.elapsed(), millis(45));
        let stats = batcher.stats();
        assert_eq!((stats.delivered, stats.failed, stats.pending), (2, 1, 0));
    });
}

#[test]
fn callers_of_a_batch_that_the_budget_gives_up_learn_so() {
    paused(async {
        let budget = RetryBudget::new(1, 0.1).unwrap();
        let batcher = Batcher::keyed(1_000)
            .retry(Retry::constant(9, millis(5)).unwrap().budget(&budget))
            .build_caller(|_: KeyedBatch<u8, Call<u32, u32>>| async {
                Err::<(), _>("down".to_owned())
            })
            .unwrap();
        let Err(CallError::Failed { item: (1, 7), error }) = batcher.call(1, 7).await else {
            panic!()
        };
        assert_eq!(error.gave_up(), Some(GaveUp::BudgetSpent));
        assert_eq!(error.last_error().unwrap().to_string(), "down");
    });
}

/// Calls three, which are answered in order with `answers`, and tells what each got.
fn answered_with<I>(answers: impl Fn() -> I + Send + Sync + 'static) -> Vec<String>
where
    I: IntoIterator<Item = u32>,
{
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    paused(async move {
        let batcher = Batcher::builder()
            .build_caller(move |mut batch: Squares| {
                batch.reply_all(answers());
                async { Ok::<(), String>(()) }
            })
            .unwrap();
        let (first, second, third) =
            tokio::join!(batcher.call(1), batcher.call(2), batcher.call(3));
        for (item, got) in (1..).zip([first, second, third]) {
            let told = match got {
                Ok(answer) => answer.to_string(),
                Err(error) => {
                    let told = error.to_string();
                    assert!(matches!(error, CallError::CountMismatch { .. }), "{error:?}");
                    assert_eq!(error.into_item(), item, "its own item");
                    told
                }
            };
            tell.lock().unwrap().push(told);
        }
        assert_eq!((batcher.stats().accepted, batcher.stats().pending), (3, 0));
    });
    let told = told.lock().unwrap();
    told.clone()
}

#[test]
fn a_count_of_answers_that_does_not_match_fails_every_call_of_the_batch() {
    let why =
        |n| format!("the handler gave {n} answers for 3 calls: `reply_all` takes one for each");
    assert_eq!(answered_with(|| [10, 20, 30]), ["10", "20", "30"]);
    assert_eq!(answered_with(|| [10, 30]), vec![why("2"); 3]);
    assert_eq!(answered_with(|| []), vec![why("0"); 3]);
    assert_eq!(answered_with(|| vec![10, 20, 30, 40, 50]), vec![why("5"); 3]);
    assert_eq!(answered_with(|| (10..).filter(|n| n % 10 == 0)), vec![why("4"); 3], "endless");
    assert_eq!(answered_with(|| std::iter::repeat(7)), vec![why(&usize::MAX.to_string()); 3]);
}

#[test]
fn calls_that_share_an_answer_fail_together_when_the_count_does_not_match() {
    paused(async {
        let attempts = Arc::new(AtomicUsize::new(0));
        let counter = attempts.clone();
        let batcher = Batcher::keyed(1_000)
            .retry(Retry::constant(3, millis(1)).unwrap())
            .build_caller(move |mut batch: KeyedBatch<u8, Call<u32, u32>>| {
                counter.fetch_add(1, Ordering::Relaxed);
                batch.dedup_by_key(|n| n % 2);
                batch.reply(0, 70);
                batch.reply_all([1]);
                // Only these two may have an answer in spite of it.
                batch.reply(1, 80);
                async { Err::<(), _>("not tried again") }
            })
            .unwrap();
        let calls = futures_util::future::join_all([1, 2, 3, 4].map(|n| batcher.call(5, n))).await;
        let told = calls.into_iter().map(|got| got.map_err(|error| error.into_item()));
        let told: Vec<_> = told.collect();
        assert_eq!(told, [Err((5, 1)), Ok(80), Err((5, 3)), Ok(80)]);
        assert_eq!(attempts.load(Ordering::Relaxed), 1);
        assert_eq!(batcher.stats().accepted, batcher.stats().delivered);
    });
}

#[test]
fn answers_that_panic_as_they_are_made_reach_nobody() {
    paused(async {
        let batcher = Batcher::builder()
            .build_caller(|mut batch: Squares| {
                let answers = (1..).map(|n: u32| n.checked_sub(2).expect("as planned"));
                batch.reply_all([9].into_iter().chain(answers));
                async { Ok::<(), String>(()) }
            })
            .unwrap();
        let (first, second) = tokio::join!(batcher.call(1), batcher.call(2));
        assert!(matches!(first, Err(CallError::Failed { item: 1, .. })), "{first:?}");
        assert!(matches!(second, Err(CallError::Failed { item: 2, .. })), "{second:?}");
    });
}
