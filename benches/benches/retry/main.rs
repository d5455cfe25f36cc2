//! Retries and pages: what they cost when nothing fails, and how good the schedules are when much
//! does. The schedules are measured on a clock that jumps.

use std::cell::RefCell;
use std::future::{Future, ready};
use std::time::Duration;

use sluicegate::executor::Page;
use sluicegate::{BatchExecutor, Retry};
use sluicegate_benches::{Cost, Options, Scale, Table, Workload, timed};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);
const LIMIT: usize = 64;
const PAGES: u32 = 50;

fn runtime(paused: bool) -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(paused).build().unwrap()
}

fn on_a_jumping_clock(ops: u64, run: impl Future<Output = ()>) -> Cost {
    runtime(true).block_on(async {
        let start = Instant::now();
        run.await;
        Cost::of(ops, start.elapsed())
    })
}

fn main() {
    let options = Options::from_args(15);
    let mut table = Table::new("Retries and pages");
    let ready_items = |scale: Scale| scale.of(200_000);
    table.add(
        Workload::new(
            "200,000 ready futures, limit 64, in the task, with a Retry that never fires",
        )
        .at_most(1.1, "without a Retry")
        .ours(move |scale| {
            let (items, runtime) = (ready_items(scale), runtime(false));
            let executor = BatchExecutor::new(LIMIT).unwrap().retry(Retry::jobs());
            timed(items, || {
                let run = executor.all_settled(0..items, |n| ready(Ok::<_, u64>(n)));
                assert_eq!(runtime.block_on(run).len() as u64, items);
            })
        })
        .rival("without a Retry", move |scale| {
            let (items, runtime) = (ready_items(scale), runtime(false));
            let executor = BatchExecutor::new(LIMIT).unwrap();
            timed(items, || {
                let run = executor.all_settled(0..items, |n| ready(Ok::<_, u64>(n)));
                assert_eq!(runtime.block_on(run).len() as u64, items);
            })
        }),
    );

    let storm = |scale: Scale| scale.of(10_000);
    let backoff = || Retry::constant(3, MS * 10).unwrap();
    for (at_most, whom) in [(0.5, "permit held during backoff"), (1.1, "best possible schedule")] {
        let workload = Workload::new(format!(
            "10,000 items of 1 ms, each failing twice, backoff 10 ms, limit 64, beside the {whom}"
        ))
        .at_most(at_most, whom)
        .ours(move |scale| {
            let items = storm(scale);
            on_a_jumping_clock(items, async {
                let failures = RefCell::new(vec![0_u8; items as usize]);
                let executor = BatchExecutor::builder().limit(LIMIT).backlog(items as usize);
                let executor = executor.build().unwrap().retry(backoff());
                let all = executor.all_settled(0..items, async |n| attempt(&failures, n).await);
                assert!(all.await.summary().is_complete());
            })
        });
        table.add(if at_most < 1.0 {
            workload.rival(whom, move |scale| {
                let items = storm(scale);
                on_a_jumping_clock(items, async {
                    let failures = RefCell::new(vec![0_u8; items as usize]);
                    let (executor, retry) = (BatchExecutor::new(LIMIT).unwrap(), backoff());
                    let all = executor
                        .all_settled(0..items, async |n| retry.run(|| attempt(&failures, n)).await);
                    assert!(all.await.summary().is_complete());
                })
            })
        } else {
            workload.rival(whom, move |scale| {
                let items = storm(scale);
                Cost::of(items, MS * (3 * items).div_ceil(LIMIT as u64) as u32)
            })
        });
    }

    table.add(
        Workload::new("50 pages of 100, fetch 10 ms, work 10 ms a page")
            .at_most(1.1, "slower of the two sums")
            .ours(|_| {
                on_a_jumping_clock(u64::from(PAGES) * 100, async {
                    let fetch = async |page: Option<u32>| {
                        sleep(MS * 10).await;
                        let page = page.unwrap_or(0);
                        let next = (page + 1 < PAGES).then_some(page + 1);
                        Ok::<_, ()>(Page { items: 0..100, next })
                    };
                    let work = async |_| {
                        sleep(MS * 10).await;
                        Ok::<_, ()>(())
                    };
                    let all = BatchExecutor::new(100).unwrap().pages(fetch, work).await;
                    assert_eq!(all.outcomes.len() as u32, PAGES * 100);
                })
            })
            .rival("slower of the two sums", |_| Cost::of(u64::from(PAGES) * 100, MS * 10 * PAGES)),
    );
    table.run(&options);
}

/// Takes a millisecond, and succeeds the third time.
async fn attempt(failures: &RefCell<Vec<u8>>, n: u64) -> Result<u64, u64> {
    sleep(MS).await;
    let failures = &mut failures.borrow_mut()[n as usize];
    *failures += 1;
    if *failures < 3 { Err(n) } else { Ok(n) }
}
