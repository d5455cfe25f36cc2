//! Pages and phases: nothing lost, nothing early, and no barrier where there is to be none.

#![cfg(feature = "tokio")]

use crate::outcome::Outcome;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use proptest::collection::vec;
use proptest::prelude::*;
use sluicegate::executor::Page;
use sluicegate::phases::PhasesReport;
use sluicegate::{
    BatchEnd, BatchEvent, BatchExecutor, ItemError, Retry, Scope, Settled, SettledKind, Stop,
    StopToken,
};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);

fn paused<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(MS * 3_600_000, future).await.expect("it hangs") })
}

/// The clock runs on when all wait for each other.
async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(MS * 3_600_000, future).await.expect("it hangs")
}

/// Ten pages of 100, 10 ms to fetch and 10 ms to work on each.
#[tokio::test(start_paused = true)]
async fn a_page_is_fetched_while_the_one_before_runs() {
    let start = Instant::now();
    let fetch = async |page: Option<u32>| {
        sleep(MS * 10).await;
        let page = page.unwrap_or(0);
        Ok::<_, ()>(Page { items: 0..100, next: (page < 9).then_some(page + 1) })
    };
    let work = async |_| {
        sleep(MS * 10).await;
        Ok::<_, ()>(())
    };
    let all = in_time(BatchExecutor::new(100).unwrap().pages(fetch, work)).await;
    assert_eq!((all.outcomes.len(), all.summary.pages), (1000, 10));
    assert_eq!(start.elapsed(), MS * 110, "one after the other it would be 200 ms");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_panics_is_a_source_that_panics() {
    let fetch = async |page: Option<u32>| match page {
        None => Ok::<_, ()>(Page { items: vec![1, 2, 3], next: Some(1) }),
        Some(_) => std::panic::resume_unwind(Box::new("no")),
    };
    let executor = BatchExecutor::new(2).unwrap();
    let all = in_time(executor.pages(fetch, async |n| Ok::<_, ()>(n))).await;
    assert_eq!(all.outcomes.len(), 3);
    assert!(matches!(all.summary.batch.end(), BatchEnd::SourcePanicked(_)));
}

/// Counts itself out, and panics then if it is to.
struct Touchy<'a>(&'a Cell<usize>, bool);

impl Drop for Touchy<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
        if self.1 {
            std::panic::resume_unwind(Box::new("as it is dropped"));
        }
    }
}

fn panicked_with(end: &BatchEnd) -> Option<&str> {
    match end {
        BatchEnd::SourcePanicked(panic) => panic.message(),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn pages_tell_an_observer_as_other_batches_do() {
    let fetch = async |page: Option<usize>| {
        let page = page.unwrap_or(0);
        Ok::<_, Infallible>(Page { items: vec![page; 3], next: (page < 2).then_some(page + 1) })
    };
    let work = async |n: usize| {
        sleep(MS * 10).await;
        if n == 1 { Err("no") } else { Ok(n) }
    };
    let log = Arc::new(Mutex::new(Vec::new()));
    let reports = log.clone();
    let executor = BatchExecutor::builder().limit(3).observer(move |event| {
        if let BatchEvent::Settled { report, .. } = event {
            log.lock().unwrap().push(report);
        }
    });
    let all = in_time(executor.build().unwrap().pages(fetch, work)).await;
    let mut reports = reports.lock().unwrap().clone();
    reports.sort_unstable_by_key(|report| report.index);
    assert!(reports.iter().all(|report| report.running == MS * 10));
    let reports: Vec<_> = reports.iter().map(|report| (report.index, report.kind)).collect();
    let outcomes = all.outcomes.iter().enumerate();
    let kinds: Vec<_> = outcomes.map(|(index, outcome)| (index, outcome.kind())).collect();
    assert_eq!(reports, kinds);
    assert_eq!(kinds[3], (3, SettledKind::Rejected));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_fails_is_told_beside_what_settled() {
    let fetch = async |page: Option<u32>| match page {
        None => Ok(Page { items: 0..4, next: Some(1) }),
        Some(_) => Err("connection lost"),
    };
    let all = in_time(BatchExecutor::new(2).unwrap().pages(fetch, async |n| Ok::<_, ()>(n))).await;
    assert_eq!(all.outcomes.len(), 4);
    assert_eq!((all.summary.pages, all.summary.fetch_error), (1, Some("connection lost")));
    assert!(all.summary.batch.is_complete() && !all.summary.is_complete());
    let told = "4 fulfilled; exhausted; 1 pages; the next could not be fetched: connection lost";
    assert_eq!(all.summary.to_string(), told);
}

#[tokio::test(start_paused = true)]
async fn pages_that_stay_empty_for_ever_hold_up_nobody_and_can_be_stopped() {
    let (fetched, turns) = (Cell::new(0), Cell::new(0));
    let token = StopToken::new();
    let fetch = |_: Option<()>| {
        fetched.set(fetched.get() + 1);
        assert!(fetched.get() < 10_000, "nothing else has its turn");
        ready(Ok::<_, Infallible>(Page { items: None::<u32>, next: Some(()) }))
    };
    let executor = BatchExecutor::builder().limit(1).stop(token.clone()).build().unwrap();
    let others = async {
        while turns.get() < 100 {
            turns.set(turns.get() + 1);
            yield_now().await;
        }
        token.stop(Stop::Drain);
    };
    let (all, ()) = tokio::join!(in_time(executor.pages(fetch, async |n| Ok::<_, ()>(n))), others);
    assert!(all.outcomes.is_empty());
    assert!(matches!(all.summary.batch.end(), BatchEnd::Stopped));
    assert_eq!(turns.get(), 100);
    assert!((100..110).contains(&fetched.get()), "{}", fetched.get());
}

#[tokio::test(start_paused = true)]
async fn pages_that_are_always_ready_hold_up_nobody() {
    let (done, turns) = (Cell::new(0), Cell::new(0));
    let fetch = async |page: Option<u32>| {
        let page = page.unwrap_or(0);
        Ok::<_, Infallible>(Page { items: 0..10, next: (page < 999).then_some(page + 1) })
    };
    let work = async |_| {
        done.set(done.get() + 1);
        Ok::<_, ()>(())
    };
    let executor = BatchExecutor::new(4).unwrap();
    let others = async {
        while done.get() < 10_000 {
            turns.set(turns.get() + 1);
            yield_now().await;
        }
    };
    let (all, ()) = tokio::join!(in_time(executor.pages(fetch, work)), others);
    assert_eq!(all.outcomes.len(), 10_000);
    assert!(turns.get() > 300, "{} turns beside 1,000 pages", turns.get());
}

/// The second page is under way when the batch is stopped, and comes while its items drain. Were it
/// empty, there would be room for a third.
#[tokio::test(start_paused = true)]
async fn a_drain_begins_no_fetch_and_hands_back_what_comes() {
    for second in [0, 2] {
        let fetched = Cell::new(0);
        let token = StopToken::new();
        let fetch = |page: Option<usize>| {
            fetched.set(fetched.get() + 1);
            async move {
                let page = page.unwrap_or(0);
                sleep(MS * 10).await;
                let items = vec![page; [2, second, 2][page]];
                Ok::<_, Infallible>(Page { items, next: Some(page + 1) })
            }
        };
        let executor = BatchExecutor::builder().limit(2).stop(token.clone()).build().unwrap();
        let work = async |n: usize| {
            sleep(MS * 50).await;
            Ok::<_, ()>(n)
        };
        let (all, ()) = tokio::join!(in_time(executor.pages(fetch, work)), async {
            sleep(MS * 15).await;
            token.stop(Stop::Drain);
        });
        let done: Vec<_> = all.outcomes.into_iter().filter_map(Result::ok).collect();
        assert_eq!((done, all.summary.not_pulled), (vec![0, 0], vec![1; second]));
        assert_eq!((fetched.get(), all.summary.pages), (2, 2));
    }
}

/// The stop comes when a page has settled and the next fetch is due, between two polls.
///
/// Seen to fail when the fetcher does not ask whether the run is to stop.
#[test]
fn no_fetch_begins_after_a_stop() {
    for how in [Stop::Drain, Stop::Abort] {
        let (token, fetches) = (StopToken::new(), Cell::new(0));
        let executor = BatchExecutor::builder().limit(2).stop(token.clone()).build().unwrap();
        let fetch = |_| {
            fetches.set(fetches.get() + 1);
            ready(Ok::<_, Infallible>(Page { items: [1], next: Some(()) }))
        };
        let run = executor.pages(fetch, |n| ready(Ok::<_, Infallible>(n)));
        let mut run = std::pin::pin!(run);
        assert!(run.as_mut().now_or_never().is_none());
        assert_eq!(fetches.get(), 1);
        token.stop(how);
        let all = run.as_mut().now_or_never().unwrap();
        assert_eq!((fetches.get(), all.outcomes.len()), (1, 1), "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_never_ends_and_panics_when_dropped_costs_no_outcome() {
    let dropped = Cell::new(0);
    let fetch = |page: Option<u32>| {
        let touchy = page.map(|_| Touchy(&dropped, true));
        async move {
            if touchy.is_some() {
                pending::<()>().await;
            }
            Ok::<_, Infallible>(Page { items: 0..3, next: Some(1) })
        }
    };
    let executor = BatchExecutor::builder().limit(2).timeout(MS * 20).build().unwrap();
    let all = in_time(executor.pages(fetch, async |n| Ok::<_, ()>(n))).await;
    assert_eq!((all.outcomes.len(), dropped.get()), (3, 1));
    assert!(matches!(all.summary.batch.end(), BatchEnd::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn what_panics_between_pages_loses_nothing_before_it() {
    let page = |items: u32, next| Ok::<_, Infallible>(Page { items: items_until(items), next });
    fn items_until(bad: u32) -> impl Iterator<Item = u32> {
        (0..9).inspect(move |n| assert!(*n != bad, "no {bad}"))
    }
    let executor = BatchExecutor::new(2).unwrap();
    // The items of the second page do, after four of them.
    let fetch = |at: Option<u32>| ready(page(at.unwrap_or(100), Some(4)));
    let all = in_time(executor.pages(fetch, async |n| Ok::<_, ()>(n))).await;
    let done: Vec<_> = all.outcomes.into_iter().filter_map(Result::ok).collect();
    assert_eq!(done, (0..9).chain(0..4).collect::<Vec<_>>());
    assert_eq!(panicked_with(all.summary.batch.end()), Some("no 4"));

    // The function itself does, before it returns a future.
    let fetch = |at: Option<u32>| {
        assert!(at.is_none(), "no further");
        ready(page(100, Some(0)))
    };
    let all = in_time(executor.pages(fetch, async |n| Ok::<_, ()>(n))).await;
    assert_eq!((all.outcomes.len(), all.summary.pages), (9, 1));
    assert_eq!(panicked_with(all.summary.batch.end()), Some("no further"));
}

#[tokio::test(start_paused = true)]
async fn pages_that_are_dropped_drop_the_fetch_and_each_item_once() {
    let (fetches, items) = (Cell::new(0), Cell::new(0));
    let fetch = |at: Option<usize>| {
        let touchy = Touchy(&fetches, false);
        let page: Vec<_> = (0..5).map(|_| Touchy(&items, false)).collect();
        async move {
            let _touchy = touchy;
            sleep(MS * 10).await;
            Ok::<_, Infallible>(Page { items: page, next: Some(at.map_or(1, |at| at + 1)) })
        }
    };
    let executor = BatchExecutor::new(2).unwrap();
    let run = executor.pages(fetch, async |item: Touchy<'_>| {
        sleep(MS * 100).await;
        drop(item);
        Ok::<_, ()>(())
    });
    assert!(tokio::time::timeout(MS * 15, run).await.is_err());
    assert_eq!((fetches.get(), items.get()), (2, 10), "one page here, one under way");
}

fn told<V, E: std::fmt::Display>(report: &PhasesReport<V, E>) -> Vec<String> {
    let told = |outcome: &Result<V, _>| match outcome {
        Ok(_) => "through".to_owned(),
        Err(error) => format!("{error}"),
    };
    report.outcomes.iter().map(told).collect()
}

fn figures<V, E>(report: &PhasesReport<V, E>) -> Vec<(&'static str, usize, usize)> {
    report.phases.iter().map(|phase| (phase.phase, phase.entered, phase.succeeded)).collect()
}

#[tokio::test(start_paused = true)]
async fn phases_try_again_and_what_fails_for_good_does_not_enter_the_next() {
    let (creates, enqueues) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let retry = Retry::constant(3, MS * 10)
        .unwrap()
        .into_builder()
        .attempt_timeout(MS * 50)
        .build()
        .unwrap();
    let report = BatchExecutor::builder()
        .limit(2)
        .backlog(4)
        .build()
        .unwrap()
        .retry(retry)
        .phases("steps", 0..5_u32)
        .phase("create", async |n| {
            creates.borrow_mut().push(n);
            let attempt = creates.borrow().iter().filter(|of| **of == n).count();
            match n {
                1 => Err("always"),
                2 if attempt < 3 => Err("twice"),
                3 => pending().await,
                4 => std::panic::resume_unwind(Box::new("bad luck")),
                n => Ok(n),
            }
        })
        .await
        .phase("enqueue", async |n| {
            assert_eq!(creates.borrow().len(), 11, "the barrier holds for retries, too");
            enqueues.borrow_mut().push(n);
            Ok(n)
        })
        .await
        .report();
    let expected = [
        "through",
        "create: rejected: always",
        "through",
        "create: last attempt timed out",
        "create: panicked: bad luck",
    ];
    assert_eq!(told(&report), expected);
    assert_eq!(figures(&report), [("create", 5, 2), ("enqueue", 2, 2)], "items, not attempts");
    assert_eq!(enqueues.take(), [0, 2]);
}

/// An attempt goes through the phases from the first on: the last attempt's phase is told.
#[tokio::test(start_paused = true)]
async fn a_flow_that_is_tried_again_begins_with_its_first_phase() {
    let attempts = RefCell::new([0; 5]);
    let passed = RefCell::new(Vec::new());
    let retry = Retry::constant(2, MS * 10)
        .unwrap()
        .into_builder()
        .attempt_timeout(MS * 50)
        .build()
        .unwrap();
    let report = BatchExecutor::new(3)
        .unwrap()
        .retry(retry)
        .phases("steps", 0..5_usize)
        .flow(["create", "index", "enqueue"], async |n, cursor| {
            attempts.borrow_mut()[n] += 1;
            let first = attempts.borrow()[n] == 1;
            assert_eq!(cursor.phase(), "create", "also in a further attempt");
            if n == 1 && !first {
                return Err("create");
            }
            cursor.next();
            match n {
                1 => return Err("index"),
                2 => pending::<()>().await,
                3 => std::panic::resume_unwind(Box::new("bad luck")),
                4 if first => return Err("index"),
                _ => {}
            }
            cursor.next();
            passed.borrow_mut().push(n);
            Ok(n)
        })
        .await
        .report();
    let expected = [
        "through",
        "create: rejected: create",
        "index: last attempt timed out",
        "index: panicked: bad luck",
        "through",
    ];
    assert_eq!(told(&report), expected);
    assert_eq!(figures(&report), [("create", 5, 4), ("index", 4, 2), ("enqueue", 2, 2)]);
    assert_eq!(passed.take(), [0, 4], "no barrier, and nobody twice");
    assert_eq!(attempts.take(), [1, 2, 2, 1, 2]);
}

/// A cursor that outlives its attempt says nothing of the next one.
#[tokio::test(start_paused = true)]
async fn a_passage_of_an_earlier_attempt_moves_nobody_on() {
    let kept = RefCell::new(Vec::new());
    let report = BatchExecutor::new(1)
        .unwrap()
        .retry(Retry::constant(2, MS).unwrap())
        .phases("steps", [()])
        .flow(["create", "index"], async |(), cursor| {
            for earlier in kept.borrow_mut().drain(..) {
                let earlier: sluicegate::phases::PhaseCursor = earlier;
                earlier.next();
                assert_eq!(earlier.phase(), "create");
            }
            assert_eq!(cursor.phase(), "create");
            kept.borrow_mut().push(cursor);
            Err::<(), _>("no")
        })
        .await
        .report();
    assert_eq!(told(&report), ["create: rejected: no"]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_a_phase_tells_what_ran_from_what_did_not_start() {
    let executor = BatchExecutor::builder().limit(2).timeout(MS * 20).build().unwrap();
    let report = executor
        .phases("steps", 0..3)
        .flow(["create", "index"], async |_, cursor| {
            cursor.next();
            pending::<Result<(), ()>>().await
        })
        .await
        .phase("enqueue", async |()| -> Result<(), ()> { unreachable!("nothing came through") })
        .await
        .report();
    let ends: Vec<_> = report.failed().map(|(_, failed)| (failed.phase, &failed.error)).collect();
    let late = |end: &(&str, &ItemError<()>)| {
        matches!(end, ("index", ItemError::TimedOut { scope: Scope::Batch, .. }))
    };
    assert!(late(&ends[0]) && late(&ends[1]), "{ends:?}");
    assert!(matches!(ends[2], ("create", ItemError::Cancelled { started: false, .. })));
    assert_eq!(figures(&report), [("create", 3, 2), ("index", 2, 0), ("enqueue", 0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn no_items_pass_through_phases_too() {
    let report = BatchExecutor::new(1)
        .unwrap()
        .phases("none", [(); 0])
        .map("check", Ok::<_, ()>)
        .phase("create", async |()| Ok(()))
        .await
        .flow(["index"], async |(), _| Ok(()))
        .await
        .report();
    assert_eq!(figures(&report), [("check", 0, 0), ("create", 0, 0), ("index", 0, 0)]);
    assert_eq!((report.outcomes.len(), report.throughput()), (0, 0.0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn pages_conserve_items_and_are_two_at_most(
        sizes in vec((0..12_usize, 0..30_u32), 1..9),
        fails in proptest::option::of((0..9_usize, 1..5_u32)),
        limit in 1..8_usize,
        work in 0..20_u32,
        stop_after in proptest::option::of(1..40_usize),
    ) {
        paused(async {
            // The fetch of one page fails so often before it passes, with three attempts.
            let left = Cell::new(fails.map_or(0, |(_, times)| times));
            let here = RefCell::new(vec![0_usize; sizes.len()]);
            let (asked, most) = (Cell::new(0), Cell::new(0));
            let count = || {
                let settling = here.borrow().iter().filter(|left| **left > 0).count();
                most.set(most.get().max(settling + asked.get()));
            };
            let retry = Retry::constant(3, MS * 7).unwrap();
            let fetch = |page: Option<usize>| {
                let page = page.unwrap_or(0);
                asked.set(1);
                count();
                let (retry, left, sizes, here, asked) = (&retry, &left, &sizes, &here, &asked);
                async move {
                    let once = || async {
                        sleep(MS * sizes[page].1).await;
                        if fails.is_some_and(|(at, _)| at == page) && left.get() > 0 {
                            left.set(left.get() - 1);
                            return Err("down");
                        }
                        Ok(())
                    };
                    let _ = retry.run(once).await.map_err(|error| error.attempts)?;
                    asked.set(0);
                    here.borrow_mut()[page] = sizes[page].0;
                    let items: Vec<_> = (0..sizes[page].0).map(|n| (page, n)).collect();
                    Ok::<_, u32>(Page { items, next: (page + 1 < sizes.len()).then_some(page + 1) })
                }
            };
            let mut builder = BatchExecutor::builder().limit(limit);
            if let Some(failures) = stop_after {
                builder = builder.stop_when(failures, sluicegate::Stop::Drain);
            }
            let settled = RefCell::new(Vec::new());
            let summary = builder
                .build()
                .unwrap()
                .pages_for_each(
                    fetch,
                    async |(page, n): (usize, usize)| {
                        sleep(MS * work).await;
                        if n % 2 == 0 { Ok((page, n)) } else { Err((page, n)) }
                    },
                    |_, outcome: Settled<_, (usize, usize)>| {
                        let item = match outcome {
                            Ok(item) | Err(ItemError::Rejected(item)) => item,
                            other => panic!("{other:?}"),
                        };
                        settled.borrow_mut().push(item);
                        here.borrow_mut()[item.0] -= 1;
                        count();
                        std::future::ready(())
                    },
                )
                .await;
            assert!(most.get() <= 2, "{} pages in memory", most.get());
            let mut got = settled.take();
            let pulled = got.len();
            assert_eq!(summary.batch.pulled(), pulled);
            got.extend(summary.not_pulled);
            got.sort_unstable();
            let down = fails.filter(|(at, times)| *at < sizes.len() && *times >= 3);
            let stopped = matches!(summary.batch.end(), BatchEnd::TooManyFailures);
            let fetched = if stopped {
                summary.pages
            } else {
                assert_eq!(summary.fetch_error.is_some(), down.is_some());
                down.map_or(sizes.len(), |(at, _)| at)
            };
            assert_eq!(summary.pages, fetched);
            let all = sizes[..fetched].iter().enumerate();
            let all: Vec<_> = all.flat_map(|(page, (size, _))| (0..*size).map(move |n| (page, n))).collect();
            assert_eq!(got, all);
            if !stopped {
                assert_eq!(pulled, all.len());
            }
        });
    }

    #[test]
    fn phases_conserve_items_and_keep_failures_out(
        // The phase in which each fails, if it does, and how.
        items in vec((0..5_u32, any::<bool>()), 0..30),
        limit in 1..6_usize,
        flows in any::<bool>(),
    ) {
        paused(async {
            let entered = RefCell::new([0; 4]);
            let running = Cell::new(0_usize);
            let enter = |phase: u32, (fails, panics): (u32, bool)| {
                entered.borrow_mut()[phase as usize] += 1;
                if fails == phase && panics {
                    std::panic::resume_unwind(Box::new("planned"));
                }
                if fails == phase { Err(phase) } else { Ok(()) }
            };
            let step = async |phase: u32, item: (u32, bool)| {
                running.set(running.get() + 1);
                assert!(running.get() <= limit);
                sleep(MS * (item.0 + 1)).await;
                running.set(running.get() - 1);
                enter(phase, item).map(|()| item)
            };
            let checked = BatchExecutor::new(limit)
                .unwrap()
                .phases("test", items.clone())
                .map("check", |item| enter(0, item).map(|()| item));
            let report = if flows {
                checked
                    .flow(["create", "index", "enqueue"], async |item, cursor| {
                        let item = step(1, item).await?;
                        cursor.next();
                        let item = step(2, item).await?;
                        cursor.next();
                        step(3, item).await
                    })
                    .await
            } else {
                checked
                    .phase("create", async |item| {
                        assert_eq!(entered.borrow()[2], 0, "before the barrier");
                        step(1, item).await
                    })
                    .await
                    .phase("index", async |item| step(2, item).await)
                    .await
                    .phase("enqueue", async |item| step(3, item).await)
                    .await
            };
            let report = report.report();
            let names = ["check", "create", "index", "enqueue"];
            assert_eq!(report.outcomes.len(), items.len());
            for (item, outcome) in items.iter().zip(&report.outcomes) {
                match outcome {
                    Ok(value) => assert!(value == item && item.0 == 4),
                    Err(error) => assert_eq!(error.phase, names[item.0 as usize]),
                }
            }
            for (phase, report) in report.phases.iter().enumerate() {
                let here = items.iter().filter(|item| item.0 as usize >= phase).count();
                let through = items.iter().filter(|item| item.0 as usize > phase).count();
                assert_eq!((report.phase, report.entered, report.succeeded), (names[phase], here, through));
                assert_eq!(entered.borrow()[phase], here);
            }
        });
    }
}
