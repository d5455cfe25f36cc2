//! Pages and phases: nothing lost, nothing early, and no barrier where there is to be none.

#![cfg(all(feature = "tokio", not(loom)))]

use std::cell::{Cell, RefCell};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sluicegate::executor::Page;
use sluicegate::{BatchEnd, BatchExecutor, Retry, Settled};
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);

fn paused<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(MS * 3_600_000, future).await.expect("it hangs") })
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
    let all = BatchExecutor::new(100).unwrap().pages(fetch, work).await;
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
    let all = executor.pages(fetch, async |n| Ok::<_, ()>(n)).await;
    assert_eq!(all.outcomes.len(), 3);
    assert!(matches!(all.summary.batch.end(), BatchEnd::SourcePanicked(_)));
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
                            Settled::Fulfilled(item) | Settled::Rejected(item) => item,
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
            let prepared = BatchExecutor::new(limit)
                .unwrap()
                .phases("test", items.clone())
                .prepare(|item| enter(0, item).map(|()| item));
            let report = if flows {
                prepared
                    .flow(["create", "index", "enqueue"], async |item, passage| {
                        let item = step(1, item).await?;
                        passage.next();
                        let item = step(2, item).await?;
                        passage.next();
                        step(3, item).await
                    })
                    .await
            } else {
                prepared
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
            let names = ["prepare", "create", "index", "enqueue"];
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
