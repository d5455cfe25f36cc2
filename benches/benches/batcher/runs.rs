//! What is measured: items sent by so many producers until all are handled, and what a trickle of
//! them sees.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use sluicegate::batcher::BatcherStats;
use sluicegate::{Batch, Batcher};
use sluicegate_benches::{Cost, Scale};
use tokio::runtime::{Builder, Runtime};

use crate::contenders::{Contender, Limits, Ours};

/// The same for everybody.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap());

pub(crate) const WINDOW: Duration = Duration::from_millis(50);

/// tokio's timers ring at the first whole millisecond after their time.
pub(crate) const GRANULARITY: Duration = Duration::from_millis(2);

const CAPACITY: usize = 2_000;

/// Each producer sends its share of a million; the time until all of them are handled.
pub(crate) fn produce<C: Contender>(producers: u64, max_items: usize, scale: Scale) -> Cost {
    // Batches of one cost more each.
    let items = scale.of(if max_items == 1 { 300_000 } else { 1_000_000 });
    let each = items.div_ceil(producers);
    let limits = Limits { max_items, window: WINDOW, capacity: CAPACITY };
    RUNTIME.block_on(async {
        let start = Instant::now();
        let (contender, rest) = C::start(limits);
        send_all(&contender, producers, each).await;
        drop(contender);
        assert_eq!(rest.await, each * producers, "{}", C::NAME);
        Cost::of(each * producers, start.elapsed())
    })
}

async fn send_all<C: Contender>(contender: &C, producers: u64, each: u64) {
    let producers: Vec<_> = (0..producers)
        .map(|_| {
            let contender = contender.clone();
            tokio::spawn(async move {
                for item in 0..each {
                    contender.send(item).await;
                }
            })
        })
        .collect();
    for producer in producers {
        producer.await.unwrap();
    }
}

/// The 99th percentile of the age of the oldest item of each batch, seen by the handler.
pub(crate) fn age(scale: Scale) -> Cost {
    let ages: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let seen = ages.clone();
    RUNTIME.block_on(async {
        let batcher = Batcher::builder()
            .max_items(500)
            .window(WINDOW)
            .dead_letter(|_, _| unreachable!("nothing fails here"))
            .build(move |batch: Batch<Instant>| {
                seen.lock().unwrap().extend(batch.first().map(Instant::elapsed));
                async { Ok::<(), std::convert::Infallible>(()) }
            })
            .unwrap();
        trickle(scale, || batcher.try_send(Instant::now()).unwrap()).await;
        assert!(batcher.shutdown(None).await.all_delivered());
    });
    let mut ages = ages.lock().unwrap();
    // The last was closed by the shutdown.
    ages.pop();
    ages.sort_unstable();
    Cost::of(1, ages[ages.len() * 99 / 100])
}

/// 100 items a second for two seconds.
async fn trickle(scale: Scale, mut send: impl FnMut()) {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..scale.of(200).max(20) {
        ticks.tick().await;
        send();
    }
}

/// How often the driver was woken, by batch.
pub(crate) fn wakeups(slowly: bool, scale: Scale) -> Cost {
    let stats: BatcherStats = RUNTIME.block_on(async {
        let limits = Limits { max_items: 500, window: WINDOW, capacity: CAPACITY };
        let (ours, rest) = Ours::start(limits);
        if slowly {
            trickle(scale, || ours.0.try_send(0).unwrap()).await;
        } else {
            send_all(&ours, 1, scale.of(1_000_000)).await;
        }
        rest.await;
        ours.0.stats()
    });
    Cost::of(stats.batches.total(), Duration::from_nanos(stats.wakeups))
}
