//! Items that are tried again: by example, and against what their scripts say.

#![cfg(all(feature = "tokio", not(loom)))]

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sluicegate::executor::DeadLetter;
use sluicegate::{
    BatchEnd, BatchExecutor, Retry, Scope, Semaphore, Settled, SettledKind, Stop, StopToken,
    Throttle,
};
use tokio::time::{Instant, sleep};

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
    let budget = Arc::new(Semaphore::new(1));
    let seen = RefCell::new(Vec::new());
    let executor = BatchExecutor::builder().budget(budget.clone()).backlog(9).build().unwrap();
    let outcomes = executor
        .retry(constant(2, 100))
        .all_settled(0..4, async |n| {
            seen.borrow_mut().push((n, budget.available_permits()));
            sleep(MS).await;
            let again = seen.borrow().iter().filter(|(call, _)| *call == n).count() == 2;
            if again { Ok(n) } else { Err(n) }
        })
        .await;
    assert!(outcomes.summary().is_complete());
    let order: Vec<_> = seen.borrow().iter().map(|(n, _)| *n).collect();
    assert_eq!(order, [0, 1, 2, 3, 0, 1, 2, 3]);
    assert!(seen.borrow().iter().all(|(_, free)| *free == 0));
    assert_eq!(budget.available_permits(), 1);
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
    let executor = BatchExecutor::builder().limit(2).deadline(MS * 50).build().unwrap();
    let start = Instant::now();
    let outcomes =
        executor.retry(constant(9, 30)).all_settled([0], async |_| Err::<(), _>("busy")).await;
    assert_eq!(outcomes[0].to_string(), "rejected: busy");
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
    let retry = constant(2, 10).attempt_timeout(MS * 20).unwrap();
    let outcomes = BatchExecutor::new(1).unwrap().retry(retry).all_settled([()], hang(1)).await;
    let scoped = |outcome: &Settled<(), &'static str>, wanted: Scope| match outcome {
        Settled::TimedOut { scope, last_error, .. }
        | Settled::Cancelled { scope, last_error, .. } => {
            assert_eq!((*scope, *last_error), (wanted, Some("busy")));
        }
        other => panic!("{other}"),
    };
    scoped(&outcomes[0], Scope::Attempt);
    assert_eq!(outcomes[0].to_string(), "last attempt timed out, and before that: busy");

    // Both while an attempt runs, and while the item waits for the next.
    for after in [1, 9] {
        let executor = BatchExecutor::builder().limit(1).item_timeout(MS * 35).build().unwrap();
        let run = executor.retry(constant(9, 10)).all_settled([()], hang(after));
        let start = Instant::now();
        scoped(&run.await[0], Scope::Item);
        assert_eq!(start.elapsed(), MS * 35);

        let executor = BatchExecutor::builder().limit(1).deadline(MS * 35).build().unwrap();
        let outcomes = executor.retry(constant(9, 10)).all_settled([()], hang(1)).await;
        assert!(outcomes[0].is_timed_out());
        scoped(&outcomes[0], Scope::Batch);
        assert_eq!(outcomes[0].to_string(), "batch timed out, and before that: busy");

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
    let executor = BatchExecutor::builder().limit(1).deadline(MS * 20).build().unwrap();
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
    assert_eq!(outcomes[0].last_error(), Some(&"down"), "{}", outcomes[0]);
    assert!(matches!(outcomes.end(), BatchEnd::DeadlinePassed));
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
            builder = builder.deadline(MS * ms);
        }
        let outcomes = builder
            .build()
            .unwrap()
            .retry(constant(9, 10))
            .dead_letters(|letter: DeadLetter<'_, &str, &str>| {
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
        assert_eq!(outcomes[0].to_string(), shown);
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

/// What an attempt does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Fine(u32),
    Fail(u32),
    Fatal(u32),
    Panic,
    Hang,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..30_u32).prop_map(Step::Fine),
        6 => (0..30_u32).prop_map(Step::Fail),
        1 => (0..9_u32).prop_map(Step::Fatal),
        1 => Just(Step::Panic),
        1 => Just(Step::Hang),
    ]
}

/// How a script ends under a policy of so many attempts, and after how many of them.
fn ending(script: &[Step], most: usize) -> (SettledKind, u32) {
    let mut attempts = 0;
    for step in script.iter().chain(std::iter::repeat(&Step::Fine(0))) {
        attempts += 1;
        let kind = match step {
            Step::Fine(_) => SettledKind::Fulfilled,
            Step::Fail(_) | Step::Fatal(_) => SettledKind::Rejected,
            Step::Panic => SettledKind::Panicked,
            Step::Hang => SettledKind::TimedOut,
        };
        let again = matches!(step, Step::Fail(_) | Step::Hang);
        if !again || attempts == most {
            return (kind, attempts as u32);
        }
    }
    unreachable!()
}

#[derive(Debug, Clone)]
struct Plan {
    scripts: Vec<Vec<Step>>,
    limit: usize,
    backlog: usize,
    most: u32,
    wait: u32,
    rate: Option<(u32, u32)>,
    keys: usize,
}

fn plan() -> impl Strategy<Value = Plan> {
    let rate = proptest::option::of((1..5_u32, 1..50_u32));
    (vec(vec(step(), 0..5), 0..20), 1..5_usize, 0..6_usize, 1..5_u32, 0..40_u32, rate, 1..9_usize)
        .prop_map(|(scripts, limit, backlog, most, wait, rate, keys)| Plan {
            scripts,
            limit,
            backlog,
            most,
            wait,
            rate,
            keys,
        })
}

async fn check(plan: Plan) {
    let Plan { scripts, limit, backlog, most, wait, rate, keys } = plan;
    let start = Instant::now();
    let starts = RefCell::new(Vec::new());
    let attempts = RefCell::new(vec![Vec::new(); scripts.len()]);
    let (pulled, settled) = (Cell::new(0_usize), Cell::new(0_usize));
    let running = Cell::new(0_usize);
    let dead = RefCell::new(Vec::new());
    let limits = Cell::new(true);

    let mut builder = BatchExecutor::builder().limit(limit).backlog(backlog);
    if let Some((n, window)) = rate {
        builder = builder.throttle(Arc::new(Throttle::new(n, MS * window).unwrap()));
    }
    let retry = constant(most, wait).attempt_timeout(MS * 100).unwrap();
    let executor = builder
        .build()
        .unwrap()
        .by_key(move |item: &(usize, String)| item.0 % keys)
        .retry(retry.when(|error: &(Step, usize)| matches!(error.0, Step::Fail(_))))
        .dead_letters(|letter: DeadLetter<'_, (usize, String), (Step, usize)>| {
            assert_eq!(letter.input, (letter.index, format!("input {}", letter.index)));
            dead.borrow_mut().push((letter.index, letter.kind, letter.attempts));
        });
    let inputs = (0..scripts.len()).map(|n| {
        pulled.set(pulled.get() + 1);
        limits.set(limits.get() && pulled.get() - settled.get() <= limit + backlog);
        (n, format!("input {n}"))
    });

    /// Runs, and stops when it is dropped.
    struct Running<'a>(&'a Cell<usize>);
    impl Drop for Running<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    let outcomes = RefCell::new(vec![None; scripts.len()]);
    let run = executor.for_each(
        inputs,
        |(n, name)| {
            starts.borrow_mut().push(start.elapsed());
            running.set(running.get() + 1);
            limits.set(limits.get() && running.get() <= limit);
            let guard = Running(&running);
            let step = {
                let mut attempts = attempts.borrow_mut();
                attempts[n].push(start.elapsed());
                scripts[n].get(attempts[n].len() - 1).copied().unwrap_or(Step::Fine(0))
            };
            drop(name);
            async move {
                let _guard = guard;
                match step {
                    Step::Fine(0) => Ok(n),
                    Step::Fine(ms) => {
                        sleep(MS * ms).await;
                        Ok(n)
                    }
                    Step::Fail(0) | Step::Fatal(0) => Err((step, n)),
                    Step::Fail(ms) | Step::Fatal(ms) => {
                        sleep(MS * ms).await;
                        Err((step, n))
                    }
                    Step::Panic => std::panic::resume_unwind(Box::new("planned")),
                    Step::Hang => std::future::pending().await,
                }
            }
        },
        |index, outcome| {
            settled.set(settled.get() + 1);
            let mine = match outcome.last_error() {
                Some((_, n)) => *n == index,
                None => true,
            };
            assert!(mine, "the error of another item");
            let before = outcomes.borrow_mut()[index].replace(outcome.kind());
            assert!(before.is_none(), "settled twice");
            std::future::ready(())
        },
    );
    let summary = tokio::time::timeout(Duration::from_secs(3600), run).await.expect("it hangs");

    assert!(limits.get(), "more than the limits allow");
    assert_eq!(running.get(), 0);
    assert_eq!(summary.pulled(), scripts.len());
    let mut letters = Vec::new();
    for (n, script) in scripts.iter().enumerate() {
        let (kind, tried) = ending(script, most as usize);
        assert_eq!(outcomes.borrow()[n], Some(kind), "item {n}");
        let attempts = &attempts.borrow()[n];
        assert_eq!(attempts.len(), tried as usize, "attempts of item {n}");
        for (step, pair) in script.iter().zip(attempts.windows(2)) {
            let took = match step {
                Step::Fine(ms) | Step::Fail(ms) | Step::Fatal(ms) => MS * *ms,
                _ => MS * 100,
            };
            assert!(pair[1] - pair[0] >= took + MS * wait, "too early");
        }
        if kind != SettledKind::Fulfilled {
            letters.push((n, kind, tried));
        }
    }
    let mut dead = dead.take();
    dead.sort_unstable_by_key(|letter| letter.0);
    assert_eq!(dead, letters);
    if let Some((n, window)) = rate {
        // The window that begins with each start: those are the fullest.
        for (first, begin) in starts.borrow().iter().enumerate() {
            let later =
                starts.borrow()[first..].iter().filter(|at| **at < *begin + MS * window).count();
            assert!(later <= n as usize, "{later} starts in a window of {n}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn attempts_waits_limits_and_dead_letters_are_as_the_scripts_say(plan in plan()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(check(plan));
    }

    /// Dropped or stopped at any time, everything is accounted for.
    #[test]
    fn stopped_at_any_time_each_input_has_one_outcome(
        plan in plan(),
        at in 0..300_u32,
        abort in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let token = StopToken::new();
            let budget = Arc::new(Semaphore::new(plan.limit));
            let held = Arc::new(());
            let executor = BatchExecutor::builder()
                .limit(plan.limit)
                .backlog(plan.backlog)
                .budget(budget.clone())
                .stop(token.clone())
                .build()
                .unwrap()
                .retry(constant(plan.most, plan.wait));
            let mut pulled = 0;
            let mut dead = plan.scripts.clone();
            let inputs = dead.drain(..).inspect(|_| pulled += 1).map(|script| (held.clone(), script));
            let run = executor.all_settled(inputs, async |(_held, script): (_, Vec<Step>)| {
                match script.first() {
                    Some(Step::Fail(ms)) => {
                        sleep(MS * *ms).await;
                        Err(())
                    }
                    Some(Step::Hang) => std::future::pending().await,
                    _ => Ok(()),
                }
            });
            let how = if abort { Stop::Abort } else { Stop::Drain };
            let stopper = async {
                sleep(MS * at).await;
                token.stop(how);
                sleep(MS * 1000).await;
                // A drain waits for what hangs.
                token.stop(Stop::Abort);
            };
            let (outcomes, ()) = tokio::join!(run, stopper);
            assert_eq!(outcomes.len(), pulled);
            assert_eq!(Arc::strong_count(&held), 1);
            assert_eq!(budget.available_permits(), plan.limit);
        });
    }
}
