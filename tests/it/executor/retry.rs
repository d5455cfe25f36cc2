//! Items that are tried again, by example.

#![cfg(feature = "tokio")]

use crate::outcome::{Outcome, text};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use sluicegate::executor::DeadLetter;
use sluicegate::{
    BatchEnd, BatchExecutor, ItemError, Retry, Scope, Semaphore, Settled, SettledKind, Stop,
    StopToken, Throttle,
};
use tokio::time::{Instant, sleep, timeout};

const MS: Duration = Duration::from_millis(1);

fn constant(attempts: u32, wait: u32) -> Retry {
    Retry::constant(attempts, MS * wait).unwrap()
}

#[tokio::test(start_paused = true)]
async fn limit_one_without_a_backlog_is_strictly_in_order() {
    let calls = RefCell::new(Vec::new());
    let executor = BatchExecutor::new(1).unwrap().retry(constant(3, 10));
    let outcomes = executor
        .all_settled(0..3, async |n| {
            calls.borrow_mut().push(n);
            let attempts = calls.borrow().iter().filter(|call| **call == n).count();
            if attempts < 3 { Err("busy") } else { Ok(n) }
        })
        .await;
    assert!(outcomes.summary().is_complete());
    assert_eq!(calls.take(), [0, 0, 0, 1, 1, 1, 2, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_permit_goes_back_while_an_item_waits() {
    let semaphore = Arc::new(Semaphore::new(1));
    let seen = RefCell::new(Vec::new());
    let executor =
        BatchExecutor::builder().semaphore(semaphore.clone()).backlog(9).build().unwrap();
    let outcomes = executor
        .retry(constant(2, 100))
        .all_settled(0..4, async |n| {
            seen.borrow_mut().push((n, semaphore.available_permits()));
            sleep(MS).await;
            let again = seen.borrow().iter().filter(|(call, _)| *call == n).count() == 2;
            if again { Ok(n) } else { Err(n) }
        })
        .await;
    assert!(outcomes.summary().is_complete());
    let order: Vec<_> = seen.borrow().iter().map(|(n, _)| *n).collect();
    assert_eq!(order, [0, 1, 2, 3, 0, 1, 2, 3]);
    assert!(seen.borrow().iter().all(|(_, free)| *free == 0));
    assert_eq!(semaphore.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn retries_go_before_new_inputs() {
    let calls = RefCell::new(Vec::new());
    let executor = BatchExecutor::builder().limit(1).backlog(1).build().unwrap();
    let outcomes = executor
        .retry(constant(2, 15))
        .all_settled(0..5, async |n| {
            calls.borrow_mut().push(n);
            sleep(MS * 10).await;
            if calls.borrow().iter().filter(|call| **call == n).count() == 1 && n == 0 {
                return Err(());
            }
            Ok(())
        })
        .await;
    assert!(outcomes.summary().is_complete());
    assert_eq!(calls.take(), [0, 1, 2, 0, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_past_the_deadline_is_not_waited_for() {
    let executor = BatchExecutor::builder().limit(2).timeout(MS * 50).build().unwrap();
    let start = Instant::now();
    let outcomes =
        executor.retry(constant(9, 30)).all_settled([0], async |_| Err::<(), _>("busy")).await;
    assert_eq!(text(&outcomes[0]), "rejected: busy");
    assert_eq!(start.elapsed(), MS * 30, "one retry at 30 ms, none that would begin at 60");
    assert!(matches!(outcomes.end(), BatchEnd::Exhausted));
}

#[tokio::test(start_paused = true)]
async fn every_limit_tells_its_scope_and_the_last_error() {
    // An attempt that hangs, after one that failed.
    let hang = |after: u32| {
        let calls = Cell::new(0);
        move |_: ()| {
            calls.set(calls.get() + 1);
            let fails = calls.get() <= after;
            async move {
                if fails {
                    return Err::<(), _>("busy");
                }
                std::future::pending().await
            }
        }
    };
    let retry = constant(2, 10).into_builder().attempt_timeout(MS * 20).build().unwrap();
    let run = BatchExecutor::new(1).unwrap().retry(retry).all_settled([()], hang(1));
    let outcomes = timeout(MS * 1_000, run).await.expect("it hangs");
    let scoped = |outcome: &Settled<(), &'static str>, wanted: Scope| match outcome {
        Err(ItemError::TimedOut { scope, last_error, .. })
        | Err(ItemError::Cancelled { scope, last_error, .. }) => {
            assert_eq!((*scope, *last_error), (wanted, Some("busy")));
        }
        other => panic!("{other:?}"),
    };
    scoped(&outcomes[0], Scope::Attempt);
    assert_eq!(text(&outcomes[0]), "last attempt timed out, and before that: busy");

    // Both while an attempt runs, and while the item waits for the next.
    for after in [1, 9] {
        let executor = BatchExecutor::builder().limit(1).item_timeout(MS * 35).build().unwrap();
        let run = executor.retry(constant(9, 10)).all_settled([()], hang(after));
        let start = Instant::now();
        scoped(&run.await[0], Scope::Item);
        assert_eq!(start.elapsed(), MS * 35);

        let executor = BatchExecutor::builder().limit(1).timeout(MS * 35).build().unwrap();
        let outcomes = executor.retry(constant(9, 10)).all_settled([()], hang(1)).await;
        assert!(outcomes[0].is_timed_out());
        scoped(&outcomes[0], Scope::Batch);
        assert_eq!(text(&outcomes[0]), "batch timed out, and before that: busy");

        let token = StopToken::new();
        let stopped = BatchExecutor::builder().limit(1).stop(token.clone()).build().unwrap();
        let run = stopped.retry(constant(9, 10)).all_settled([()], hang(after));
        let (outcomes, ()) = tokio::join!(run, async {
            sleep(MS * 15).await;
            token.stop(Stop::Abort);
        });
        assert!(outcomes[0].is_cancelled());
        scoped(&outcomes[0], Scope::Batch);
    }
}

/// Panics as it is dropped: alone as well as in the payload of a panic.
struct Touchy;

impl Drop for Touchy {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::resume_unwind(Box::new("as it is dropped"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn policies_that_panic_as_they_are_dropped_cost_no_outcome() {
    let run = async |retry: sluicegate::RetryWhen<&'static str>| {
        let executor = BatchExecutor::new(2).unwrap().retry(retry);
        let outcomes = executor
            .all_settled(0..6, async |n| {
                sleep(MS * (n % 3)).await;
                if n % 2 == 0 { Ok(n) } else { Err("busy") }
            })
            .await;
        let kinds: Vec<_> = outcomes.iter().map(|outcome| outcome.is_rejected()).collect();
        assert_eq!(kinds, [false, true, false, true, false, true]);
    };
    // Of a backoff, which outlives the last attempt.
    let backoff = || {
        let touchy = Touchy;
        std::iter::repeat(MS).inspect(move |_| assert!(size_of_val(&touchy) == 0))
    };
    run(Retry::with_backoff(2, backoff).unwrap().into()).await;
    // What the panic of a backoff, and of a choice, carries.
    let backoff = || std::iter::from_fn(|| std::panic::resume_unwind(Box::new(Touchy)));
    run(Retry::with_backoff(2, backoff).unwrap().into()).await;
    run(constant(2, 1).when(|_| std::panic::resume_unwind(Box::new(Touchy)))).await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_at_once_for_ever_keeps_to_its_deadline_and_holds_up_nobody() {
    let (attempts, turns) = (Cell::new(0_u32), Cell::new(0_u32));
    let executor = BatchExecutor::builder().limit(1).timeout(MS * 20).build().unwrap();
    let executor = executor.retry(Retry::constant(u32::MAX, Duration::ZERO).unwrap());
    let run = executor.all_settled([()], async |()| {
        attempts.set(attempts.get() + 1);
        if attempts.get() % 1_000 == 0 {
            tokio::time::advance(MS).await;
        }
        Err::<(), _>("down")
    });
    let others = async {
        while attempts.get() < 20_000 {
            turns.set(turns.get() + 1);
            tokio::task::yield_now().await;
        }
    };
    let (outcomes, ()) = tokio::join!(run, others);
    assert_eq!(outcomes[0].as_ref().unwrap_err().last_error(), Some(&"down"));
    assert!(matches!(outcomes.end(), BatchEnd::TimedOut));
    assert_eq!(attempts.get(), 20_000);
    assert!(turns.get() > 50, "{} turns", turns.get());
}

/// The first attempt fails at 10 ms, the second begins at 20 ms and hangs.
#[tokio::test(start_paused = true)]
async fn dead_letters_of_what_ran_out_of_time_count_the_attempts_that_began() {
    for (item, deadline, attempts, shown) in [
        (Some(15), None, 1, "timed out, and before that: busy"),
        (Some(25), None, 2, "timed out, and before that: busy"),
        (None, Some(25), 2, "batch timed out, and before that: busy"),
    ] {
        let calls = Cell::new(0);
        let letters = RefCell::new(Vec::new());
        let mut builder = BatchExecutor::builder().limit(2);
        if let Some(ms) = item {
            builder = builder.item_timeout(MS * ms);
        }
        if let Some(ms) = deadline {
            builder = builder.timeout(MS * ms);
        }
        let outcomes = builder
            .build()
            .unwrap()
            .retry(constant(9, 10))
            .dead_letter(|letter: DeadLetter<'_, &str, &str>| {
                let DeadLetter { input, kind, attempts, error, .. } = letter;
                letters.borrow_mut().push((input, kind, attempts, error.copied()));
            })
            .all_settled(["input"], async |_| {
                calls.set(calls.get() + 1);
                sleep(MS * 10).await;
                if calls.get() > 1 {
                    std::future::pending::<()>().await;
                }
                Err::<(), _>("busy")
            })
            .await;
        assert_eq!(text(&outcomes[0]), shown);
        let letter = ("input", SettledKind::TimedOut, attempts, Some("busy"));
        assert_eq!(letters.take(), [letter], "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn items_of_a_key_wait_for_the_retries_before_them() {
    let calls = RefCell::new(Vec::new());
    let executor = BatchExecutor::builder().limit(2).backlog(4).build().unwrap();
    let outcomes = executor
        .by_key(|n: &u32| n % 2)
        .retry(constant(2, 10))
        .all_settled([0, 2, 4, 6, 1, 3], async |n| {
            calls.borrow_mut().push(n);
            let first = calls.borrow().iter().filter(|call| **call == n).count() == 1;
            if first { Err(n) } else { Ok(n) }
        })
        .await;
    assert!(outcomes.summary().is_complete());
    let even: Vec<_> = calls.take().into_iter().filter(|n| n % 2 == 0).collect();
    assert_eq!(even, [0, 0, 2, 2, 4, 4, 6, 6]);
}

#[tokio::test(start_paused = true)]
async fn the_spawned_flavour_retries_too() {
    let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = calls.clone();
    let executor = BatchExecutor::builder().limit(4).backlog(100).build().unwrap();
    let batch = executor.retry(constant(3, 10)).spawn(0..100_u32, move |n| {
        let mut calls = calls.lock().unwrap();
        calls.push(n);
        let attempts = calls.iter().filter(|call| **call == n).count();
        std::future::ready(if attempts == 3 || n % 3 == 0 { Ok(n) } else { Err(n) })
    });
    let joined = batch.join().await;
    assert!(joined.outcomes.summary().is_complete());
    assert_eq!(seen.lock().unwrap().len(), 34 + 66 * 3);
}

/// Nothing but the limit is kept of an item that is tried once, and whose letters nobody wants.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_the_only_one_has_its_limit_too() {
    let start = Instant::now();
    let run = BatchExecutor::new(1)
        .unwrap()
        .retry(Retry::none().into_builder().attempt_timeout(MS * 20).build().unwrap())
        .all_settled([()], async |()| std::future::pending::<Result<(), ()>>().await);
    let outcomes = timeout(MS * 1_000, run).await.expect("it hangs");
    assert!(matches!(outcomes[0], Err(ItemError::TimedOut { scope: Scope::Attempt, .. })));
    assert_eq!(start.elapsed(), MS * 20);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_counts_the_attempts_that_were_made() {
    let letters = RefCell::new(Vec::new());
    let outcomes = BatchExecutor::builder()
        .limit(2)
        .item_timeout(MS * 15)
        .build()
        .unwrap()
        .retry(constant(9, 10))
        .dead_letter(|letter: DeadLetter<'_, bool, &str>| {
            letters.borrow_mut().push((
                letter.index,
                letter.kind,
                letter.attempts,
                letter.error.copied(),
            ));
        })
        .all_settled([true, false], async |slow| {
            // One of them is in its second attempt when its time is over, the other waits for it.
            sleep(MS * if slow { 2 } else { 8 }).await;
            Err::<(), _>("busy")
        })
        .await;
    assert_eq!(outcomes.summary().counts().timed_out, 2);
    let busy = |index, attempts| (index, SettledKind::TimedOut, attempts, Some("busy"));
    assert_eq!(letters.take(), [busy(0, 2), busy(1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn spawned_by_key_a_larger_semaphore_does_not_lift_the_limit() {
    let running = Arc::new(());
    let most = Arc::new(std::sync::Mutex::new(0));
    let (guard, seen) = (running.clone(), most.clone());
    let executor = BatchExecutor::builder()
        .limit(2)
        .backlog(10)
        .semaphore(Arc::new(Semaphore::new(8)))
        .build()
        .unwrap();
    let batch = executor.by_key(|n: &u32| *n).retry(constant(2, 10)).spawn_on(
        2,
        0..12,
        move |_| {
            let guard = guard.clone();
            let mut most = seen.lock().unwrap();
            *most = Arc::strong_count(&guard).max(*most);
            drop(most);
            async move {
                sleep(MS * 5).await;
                drop(guard);
                Ok::<_, ()>(())
            }
        },
        |work| drop(tokio::spawn(work)),
    );
    assert!(batch.join().await.outcomes.summary().is_complete());
    // One here, and one with the closure.
    assert!(*most.lock().unwrap() - 2 <= 2);
}

#[tokio::test(start_paused = true)]
async fn an_item_that_leaves_the_line_takes_its_demand_along() {
    let semaphore = Arc::new(Semaphore::new(4));
    let executor = BatchExecutor::builder()
        .limit(1)
        .backlog(2)
        .semaphore(semaphore.clone())
        .item_timeout(MS * 30)
        .build()
        .unwrap()
        .retry(constant(2, 10))
        .by_weight(|item: &(u32, u32)| item.0);
    let start = Instant::now();
    let begun = RefCell::new(Vec::new());
    let run = executor.all_settled([(4, 0), (1, 5), (1, 0)], async |(weight, millis)| {
        begun.borrow_mut().push((weight, start.elapsed()));
        sleep(MS * millis).await;
        if millis == 0 && begun.borrow().len() < 4 { Err("busy") } else { Ok(()) }
    });
    let elsewhere = async {
        // While the heavy one waits for its retry, and for long.
        sleep(MS * 6).await;
        let held = semaphore.acquire_many(2).await.unwrap();
        sleep(MS * 1_000).await;
        drop(held);
    };
    let (outcomes, ()) = tokio::join!(run, elsewhere);
    assert!(outcomes[0].is_timed_out());
    assert!(outcomes[2].is_ok(), "{:?}", outcomes[2]);
    // The light one has waited behind the heavy one from 15 ms on.
    assert_eq!(begun.take(), [(4, Duration::ZERO), (1, Duration::ZERO), (1, MS * 5), (1, MS * 30)]);
}

/// What does not begin any more waits for nothing.
#[tokio::test(start_paused = true)]
async fn an_abort_waits_neither_for_a_permit_nor_for_the_throttle() {
    for throttled in [false, true] {
        let (semaphore, token) = (Arc::new(Semaphore::new(1)), StopToken::new());
        let throttle = Arc::new(Throttle::new(1, MS * 1_000).unwrap());
        let builder = BatchExecutor::builder().limit(1).stop(token.clone());
        let builder = match throttled {
            true => builder.throttle(throttle.clone()),
            false => builder.semaphore(semaphore.clone()),
        };
        let start = Instant::now();
        let run = builder
            .build()
            .unwrap()
            .retry(constant(2, 10))
            .all_settled([()], async |()| Err::<(), _>("busy"));
        let stopper = async {
            sleep(MS).await;
            let held = semaphore.acquire().await.unwrap();
            sleep(MS * 29).await;
            token.stop(Stop::Abort);
            sleep(MS * 5_000).await;
            drop(held);
        };
        let timed = async { (run.await, start.elapsed()) };
        let ((outcomes, took), ()) = tokio::join!(timed, stopper);
        assert!(matches!(
            outcomes[0],
            Err(ItemError::Cancelled { started: true, last_error: Some("busy"), .. })
        ));
        assert_eq!(took, MS * 30);
        assert_eq!(throttle.waiters(), 0);
    }
}

/// Copies of two inputs, for retries that do not come because the run is dropped. The inputs
/// themselves are with the attempts and panic there.
///
/// Seen to abort when `RetryQueue` drops them as a list does.
#[tokio::test(start_paused = true)]
async fn copies_of_inputs_that_panic_when_dropped_end_nothing_but_their_run() {
    thread_local!(static DROPPED: Cell<usize> = const { Cell::new(0) });
    #[derive(Clone)]
    struct Brittle;
    impl Drop for Brittle {
        fn drop(&mut self) {
            DROPPED.set(DROPPED.get() + 1);
            std::panic::resume_unwind(Box::new("in drop"));
        }
    }
    let executor = BatchExecutor::new(2).unwrap().retry(Retry::jobs());
    let run = executor.all_settled([Brittle, Brittle], async |_brittle| {
        sleep(MS).await;
        Ok::<_, ()>(())
    });
    let mut run = Box::pin(run);
    assert!(futures_util::poll!(run.as_mut()).is_pending());
    drop(run);
    assert_eq!(DROPPED.take(), 4);
}

/// Both the waits and the last error panic as they are dropped, one after the other.
///
/// Seen to abort when `RetryState::discard` drops both in one step.
#[tokio::test(start_paused = true)]
async fn waits_and_errors_that_panic_when_dropped_end_nothing_but_their_run() {
    struct Brittle;
    impl Drop for Brittle {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("in drop"));
        }
    }
    let waits = || {
        let brittle = Brittle;
        std::iter::repeat(MS).inspect(move |_| assert!(size_of_val(&brittle) == 0))
    };
    let executor = BatchExecutor::new(1).unwrap().retry(Retry::with_backoff(2, waits).unwrap());
    let calls = Cell::new(0);
    let outcomes = executor
        .all_settled([()], async |()| {
            calls.set(calls.get() + 1);
            if calls.get() < 2 { Err(Brittle) } else { Ok(()) }
        })
        .await;
    assert!(outcomes.summary().is_complete());
}
