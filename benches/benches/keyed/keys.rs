//! Items by key, until all are handled.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use sluicegate::{Batch, Batcher, KeyedBatch, KeyedBatcher};
use sluicegate_benches::{Cost, Scale};
use tokio::runtime::{Builder, Runtime};

/// The same for everybody.
pub(crate) static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap());

/// Where no two threads get into each other's way, and none goes to sleep and is woken.
pub(crate) static ONE_THREAD: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());

const PRODUCERS: usize = 4;
const KEYS: usize = 10_000;
const WINDOW: Duration = Duration::from_millis(50);

/// The keys that each producer sends to, about Zipf: the k-th as often as 1/k.
static ZIPF: LazyLock<Vec<Arc<[u64]>>> = LazyLock::new(|| {
    let mut sum = 0.0;
    let up_to: Vec<f64> = (1..=KEYS)
        .map(|key| {
            sum += 1.0 / key as f64;
            sum
        })
        .collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let share = (state >> 11) as f64 / (1_u64 << 53) as f64;
        // Spread, so that keys that are asked for often are not neighbours.
        (up_to.partition_point(|bound| *bound < share * sum) as u64).wrapping_mul(0x9e37_79b1)
    };
    (0..PRODUCERS).map(|_| (0..250_000).map(|_| next()).collect()).collect()
});

/// Something that takes items by key.
pub(crate) trait Taker: Clone + Send + Sync + 'static {
    fn start(capacity: usize) -> Self;
    fn send(&self, key: u64, item: u64) -> impl Future<Output = ()> + Send;
    fn finish(self) -> impl Future<Output = u64> + Send;
}

#[derive(Clone)]
pub(crate) struct Keyed(KeyedBatcher<u64, u64>);

impl Taker for Keyed {
    fn start(capacity: usize) -> Self {
        let batcher = Batcher::keyed(KEYS)
            .max_items(500)
            .window(WINDOW)
            .capacity(capacity)
            .dead_letter(|_, _, _| unreachable!("nothing fails here"))
            .build(|batch: KeyedBatch<u64, u64>| async move {
                drop(batch);
                Ok::<(), Infallible>(())
            });
        Self(batcher.unwrap())
    }

    #[inline]
    async fn send(&self, key: u64, item: u64) {
        self.0.send(key, item).await.unwrap()
    }

    async fn finish(self) -> u64 {
        self.0.shutdown(None).await.delivered
    }
}

#[derive(Clone)]
pub(crate) struct Unkeyed(Batcher<u64>);

impl Taker for Unkeyed {
    fn start(capacity: usize) -> Self {
        let batcher = Batcher::builder()
            .max_items(500)
            .window(WINDOW)
            .capacity(capacity)
            .dead_letter(|_, _| unreachable!("nothing fails here"))
            .build(|batch: Batch<u64>| async move {
                drop(batch);
                Ok::<(), Infallible>(())
            });
        Self(batcher.unwrap())
    }

    #[inline]
    async fn send(&self, key: u64, item: u64) {
        self.0.send(std::hint::black_box(key) ^ item).await.unwrap()
    }

    async fn finish(self) -> u64 {
        self.0.shutdown(None).await.delivered
    }
}

/// Four producers send their share of a million; the time until all of it is handled.
pub(crate) fn produce<T: Taker>(capacity: usize, scale: Scale) -> Cost {
    let each = scale.of(250_000) as usize;
    let keys: Vec<_> = ZIPF.iter().map(Arc::clone).collect();
    RUNTIME.block_on(async {
        let start = Instant::now();
        let taker = T::start(capacity);
        let producers: Vec<_> = keys
            .into_iter()
            .map(|keys| {
                let taker = taker.clone();
                tokio::spawn(async move {
                    for (item, key) in (0..).zip(&keys[..each]) {
                        taker.send(*key, item).await;
                    }
                })
            })
            .collect();
        for producer in producers {
            producer.await.unwrap();
        }
        let total = (PRODUCERS * each) as u64;
        assert_eq!(taker.finish().await, total);
        Cost::of(total, start.elapsed())
    })
}

/// One, and how often the driver wakes within a second, when each of 100,000 keys has had its item and
/// another 100,000 wait for windows that are far off.
pub(crate) fn wakeups(scale: Scale) -> Cost {
    let idle = Duration::from_millis(scale.of(1000).max(100));
    RUNTIME.block_on(async {
        let batcher = Batcher::keyed(100_000)
            .max_items(10)
            .window(Duration::from_secs(3600))
            .capacity(100_000)
            .dead_letter(|_: &u64, _: Vec<u64>, _| unreachable!("nothing fails here"))
            .build(|_: KeyedBatch<u64, u64>| async { Ok::<(), Infallible>(()) })
            .unwrap();
        for key in 0..100_000 {
            batcher.send(key, key).await.unwrap();
        }
        assert!(batcher.flush().await.all_delivered());
        for key in 0..100_000 {
            batcher.send(key, key).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        let before = batcher.stats().wakeups;
        tokio::time::sleep(idle).await;
        let woken = batcher.stats().wakeups - before;
        assert_eq!(batcher.keys(), 100_000);
        let a_second = woken.div_ceil(idle.as_secs().max(1));
        Cost::of(1, Duration::from_nanos(1 + a_second))
    })
}
