//! How good the schedules are: what a batch takes beside what it must take.

use std::time::Duration;

use futures_buffered::BufferedStreamExt;
use futures_util::{StreamExt, stream};
use sluicegate::BatchExecutor;
use sluicegate_benches::{Cost, Scale, Table, Workload};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};

const STEP: Duration = Duration::from_millis(50);

pub(crate) fn add_rows(table: &mut Table) {
    table.add(
        Workload::new(
            "20,000 items, 1 % of them 100 times as slow, limit 16, on a clock that jumps",
        )
        .at_most(1.05, "best possible schedule")
        .ours(|scale| {
            on_a_jumping_clock(async {
                let executor = BatchExecutor::new(16).unwrap();
                let all = executor.all_settled(uneven(scale), waits).await;
                all.len() as u64
            })
        })
        .rival("best possible schedule", |scale| {
            let total: Duration = uneven(scale).sum();
            Cost::of(uneven(scale).count() as u64, total / 16)
        })
        .beside("futures-buffered", |scale| {
            on_a_jumping_clock(async {
                let all = stream::iter(uneven(scale).map(waits)).buffered_ordered(16);
                all.count().await as u64
            })
        })
        .beside("buffered", |scale| {
            on_a_jumping_clock(async {
                stream::iter(uneven(scale).map(waits)).buffered(16).count().await as u64
            })
        })
        .beside("buffer_unordered", |scale| {
            on_a_jumping_clock(async {
                stream::iter(uneven(scale).map(waits)).buffer_unordered(16).count().await as u64
            })
        }),
    );
    for (steps, limit) in [(10_u32, 10), (50, 50), (100, 100), (100, 10)] {
        let least = STEP * steps.div_ceil(limit);
        table.add(
            Workload::new(format!("{steps} steps of 50 ms, limit {limit}, the batch"))
                .at_most(1.05, format!("{} ms", least.as_millis()))
                .ours(move |_| {
                    in_time(async move {
                        let executor = BatchExecutor::new(limit as usize).unwrap();
                        assert_eq!(
                            executor.all_settled(0..steps, |_| waits(STEP)).await.len() as u32,
                            steps
                        );
                    })
                })
                .rival("best possible schedule", move |_| Cost::of(1, least))
                .beside("buffered", move |_| {
                    in_time(async move {
                        let steps = stream::iter((0..steps).map(|_| waits(STEP)));
                        steps.buffered(limit as usize).collect::<Vec<_>>().await;
                    })
                }),
        );
    }
}

async fn waits(time: Duration) -> Result<(), ()> {
    sleep(time).await;
    Ok(())
}

/// Ten milliseconds or, one in a hundred and at no regular places, a second.
fn uneven(scale: Scale) -> impl Iterator<Item = Duration> + Clone {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..scale.of(20_000)).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let slow = (state >> 33).is_multiple_of(100);
        Duration::from_millis(if slow { 1_000 } else { 10 })
    })
}

fn clock(paused: bool) -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(paused).build().unwrap()
}

/// Measured on the runtime's clock, which jumps to the next timer when nothing is left to do: the
/// quality of the schedule, and nothing of the machine's.
fn on_a_jumping_clock(run: impl Future<Output = u64>) -> Cost {
    clock(true).block_on(async {
        let start = Instant::now();
        let items = run.await;
        Cost::of(items, start.elapsed())
    })
}

fn in_time(run: impl Future<Output = ()>) -> Cost {
    clock(false).block_on(async {
        let start = std::time::Instant::now();
        run.await;
        Cost::of(1, start.elapsed())
    })
}
