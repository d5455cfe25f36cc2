//! Those who wait: many at once, in one task and then in another, and gone before their time.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::future::join_all;
use sluicegate::Semaphore;
use sluicegate::batcher::{Call, Driver, Keyed, KeyedBatch, KeyedBatcher};

use super::*;

/// More than are woken out of one critical section.
const MANY: u32 = 100;

#[test]
fn a_batch_that_makes_room_for_very_many_starts_the_next_without_the_window() {
    paused(async {
        let log = Log::new();
        let builder = log.builder().max_items(100).capacity(100).window(millis(3_600_000));
        let batcher = builder.build(log.handler(10)).unwrap();
        let sends: Vec<_> = (0..3 * MANY)
            .map(|item| {
                let batcher = batcher.clone();
                tokio::spawn(async move { batcher.send(item).await.unwrap() })
            })
            .collect();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(batcher.stats().waiting_senders, 200);
        join_all(sends).await;
        pass(1).await;
        let full = |at, first| (at, (first..first + MANY).collect::<Vec<_>>());
        let expected = [full(0, 0), full(10, 100), full(20, 200)];
        assert_eq!(log.batches(), expected, "in order, and each full");
    });
}

#[test]
fn one_heavy_item_makes_room_for_very_many_light_ones() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(1_000)
            .max_weight(100, |item| u64::from(*item))
            .capacity_weight(100)
            .window(millis(3_600_000))
            .build(log.handler(10))
            .unwrap();
        batcher.try_send(MANY).unwrap();
        let began = Instant::now();
        let sends = (0..MANY).map(|_| batcher.send(1));
        assert!(join_all(sends).await.iter().all(Result::is_ok));
        assert_eq!(began.elapsed(), millis(10));
        pass(1).await;
        assert_eq!(log.batches()[1], (10, vec![1; 100]));
    });
}

#[test]
fn very_many_are_sent_away_at_once() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(1).capacity(1).build(log.handler(1_000)).unwrap();
        batcher.try_send(0).unwrap();
        let sends: Vec<_> = (0..MANY)
            .map(|item| {
                let batcher = batcher.clone();
                tokio::spawn(async move { batcher.send(item).await.unwrap_err().into_inner() })
            })
            .collect();
        pass(1).await;
        let mut shutdown = pin!(batcher.shutdown(None));
        assert!(futures_util::poll!(shutdown.as_mut()).is_pending());
        let back: Vec<_> = join_all(sends).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(back, (0..MANY).collect::<Vec<_>>());
        assert_eq!(log.ms(), 1, "before the batch is finished");
    });
}

#[test]
fn very_many_under_a_few_keys_go_on_at_once() {
    paused(async {
        // All of one key, and then of three, whose batches end together.
        for keys in [1_u32, 3] {
            let began: Arc<Mutex<Vec<(u64, usize)>>> = Arc::default();
            let noted = began.clone();
            let start = Instant::now();
            let each = MANY.div_ceil(keys);
            let batcher = Batcher::keyed(1_000)
                .max_items(each as usize)
                .capacity(10_000)
                .capacity_per_key(each as usize)
                .concurrency(3)
                .window(millis(3_600_000))
                .dead_letter(|_: &u32, _: Vec<u32>, _| {})
                .build(move |batch: KeyedBatch<u32, u32>| {
                    let at = start.elapsed().as_millis() as u64;
                    noted.lock().unwrap().push((at, batch.len()));
                    async move {
                        tokio::time::sleep(millis(10)).await;
                        drop(batch);
                        Ok::<(), String>(())
                    }
                })
                .unwrap();
            let sends: Vec<_> = (0..2 * keys * each)
                .map(|item| {
                    let batcher = batcher.clone();
                    tokio::spawn(async move { batcher.send(item % keys, item).await.unwrap() })
                })
                .collect();
            join_all(sends).await;
            pass(1).await;
            let first = (0, each as usize);
            let next = (10, each as usize);
            let expected = [vec![first; keys as usize], vec![next; keys as usize]].concat();
            assert_eq!(*began.lock().unwrap(), expected);
        }
    });
}

#[test]
fn very_many_callers_have_their_answers_at_once() {
    paused(async {
        let batcher = Batcher::builder()
            .max_items(MANY as usize)
            .window(millis(3_600_000))
            .build_caller(|mut batch: Batch<Call<u32, u32>>| async move {
                batch.reply_with(|n| n + 1);
                Ok::<(), String>(())
            })
            .unwrap();
        let calls: Vec<_> = (0..MANY)
            .map(|n| {
                let batcher = batcher.clone();
                tokio::spawn(async move { batcher.call(n).await.unwrap() })
            })
            .collect();
        let answers: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, (1..=MANY).collect::<Vec<_>>());
    });
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Polls a future with the waker of one task, and then of another: which is woken by `trigger`.
fn moved<F: Future>(future: F, trigger: impl FnOnce()) -> F::Output {
    let mut future = pin!(tokio::task::unconstrained(future));
    let [one, other] = [(); 2].map(|()| Arc::new(Woken::default()));
    for woken in [&one, &other] {
        let waker = Waker::from(woken.clone());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    trigger();
    assert_eq!(other.0.load(Ordering::Relaxed), 1, "the task that has it now is woken once");
    assert_eq!(Arc::strong_count(&one), 1, "the waker of the other is dropped");
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it was woken"),
    }
}

fn drive(driver: &mut std::pin::Pin<Box<Driver>>) {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..4 {
        let _ = driver.as_mut().poll(&mut cx);
    }
}

#[test]
fn whoever_moves_to_another_task_is_woken_there() {
    paused(async {
        let full = || {
            let builder = Batcher::builder().max_items(1).capacity(1).window(millis(0));
            let builder = builder.dead_letter(|_: Vec<u32>, _| {});
            let (batcher, driver) =
                builder.build_with_driver(|_: Batch<u32>| async { Ok::<(), String>(()) }).unwrap();
            batcher.try_send(0).unwrap();
            (batcher, Box::pin(driver))
        };
        let (batcher, mut driver) = full();
        moved(batcher.send(1), || drive(&mut driver)).unwrap();
        let (batcher, mut driver) = full();
        let mut items = VecDeque::from([1]);
        moved(batcher.send_many(&mut items), || drive(&mut driver)).unwrap();
        let (batcher, mut driver) = full();
        drop(moved(batcher.reserve(), || drive(&mut driver)).unwrap());
        let (batcher, mut driver) = full();
        assert_eq!(moved(batcher.flush(), || drive(&mut driver)).delivered, 1);
        let (batcher, mut driver) = full();
        assert_eq!(moved(batcher.shutdown(None), || drive(&mut driver)).delivered, 1);
        let (batcher, _driver) = full();
        assert!(moved(batcher.send(1), || batcher.shared_close()).is_err());
    });
}

trait Close {
    fn shared_close(&self);
}

impl Close for Batcher<u32> {
    fn shared_close(&self) {
        let mut shutdown = pin!(self.shutdown(None));
        assert!(shutdown.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
}

/// Full under key 1, and if `capacity` is 1, in all.
fn full_by_key(capacity: usize) -> (KeyedBatcher<u8, u32>, std::pin::Pin<Box<Driver>>) {
    let builder = Batcher::keyed(1_000).max_items(1).capacity(capacity).capacity_per_key(1);
    let builder = builder.window(millis(0)).dead_letter(|_: &u8, _: Vec<u32>, _| {});
    let handler = |_: KeyedBatch<u8, u32>| async { Ok::<(), String>(()) };
    let (batcher, driver) = builder.build_with_driver(handler).unwrap();
    batcher.try_send(1, 0).unwrap();
    (batcher, Box::pin(driver))
}

#[test]
fn whoever_waits_for_a_key_and_moves_to_another_task_is_woken_there() {
    paused(async {
        // In the line of the key, and in that of all.
        for (capacity, key) in [(2, 1), (1, 2)] {
            let (batcher, mut driver) = full_by_key(capacity);
            moved(batcher.send(key, 1), || drive(&mut driver)).unwrap();
            let (batcher, mut driver) = full_by_key(capacity);
            let mut items = VecDeque::from([(key, 1)]);
            moved(batcher.send_many(&mut items), || drive(&mut driver)).unwrap();
            let (batcher, mut driver) = full_by_key(capacity);
            drop(moved(batcher.reserve(key), || drive(&mut driver)).unwrap());
        }
        let (batcher, mut driver) = full_by_key(1);
        assert_eq!(moved(batcher.flush_key(&1), || drive(&mut driver)).delivered, 1);
        let (batcher, mut driver) = full_by_key(1);
        assert_eq!(moved(batcher.flush(), || drive(&mut driver)).delivered, 1);
        let (batcher, mut driver) = full_by_key(1);
        assert_eq!(moved(batcher.shutdown(None), || drive(&mut driver)).delivered, 1);
    });
}

#[test]
fn a_caller_that_moves_to_another_task_is_woken_there() {
    paused(async {
        let handler = |mut batch: Batch<Call<u32, u32>>| async move {
            batch.reply_with(|n| n * n);
            Ok::<(), String>(())
        };
        let builder = Batcher::builder().window(millis(0));
        let (batcher, driver) = builder.build_caller_with_driver(handler).unwrap();
        let mut driver = Box::pin(driver);
        assert_eq!(moved(batcher.call(3), || drive(&mut driver)).unwrap(), 9);
        let handler = |mut batch: KeyedBatch<u8, Call<u32, u32>>| async move {
            batch.reply_with(|n| n * n);
            Ok::<(), String>(())
        };
        let builder = Batcher::keyed(1_000).window(millis(0));
        let (batcher, driver) = builder.build_caller_with_driver(handler).unwrap();
        let mut driver = Box::pin(driver);
        assert_eq!(moved(batcher.call(1, 3), || drive(&mut driver)).unwrap(), 9);
    });
}

#[cfg(feature = "sink")]
#[test]
fn a_sink_that_moves_to_another_task_is_woken_there() {
    use futures_util::SinkExt;
    paused(async {
        for (capacity, key) in [(2, 1), (1, 2)] {
            let (batcher, mut driver) = full_by_key(capacity);
            let mut sink = batcher.sink();
            if capacity == 1 {
                moved(sink.feed((key, 1)), || drive(&mut driver)).unwrap();
                continue;
            }
            // Held in the sink, in the line of its key.
            sink.feed((key, 1)).await.unwrap();
            moved(sink.feed((key, 2)), || drive(&mut driver)).unwrap();
        }
        let (batcher, mut driver) = full_by_key(1);
        let mut sink = batcher.sink();
        moved(SinkExt::<(u8, u32)>::flush(&mut sink), || drive(&mut driver)).unwrap();
    });
}

#[test]
fn a_driver_that_moves_to_another_task_is_woken_there() {
    paused(async {
        let log = Log::new();
        let builder = log.builder().max_items(1);
        let (batcher, driver) = builder.build_with_driver(log.handler(0)).unwrap();
        moved(driver, || drop(batcher));
        // One that has given way, and not gone to sleep, where it was.
        let builder = log.builder().eager_when_idle();
        let (batcher, driver) = builder.build_with_driver(log.handler(0)).unwrap();
        batcher.try_send(1).unwrap();
        moved(driver, || drop(batcher));
    });
}

/// A key that counts those of its kind that are there.
#[derive(Clone)]
struct Key(u8, #[expect(dead_code, reason = "it is counted")] Arc<()>);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Key {}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

struct Keys {
    alive: Arc<()>,
    batcher: KeyedBatcher<Key, u32>,
}

impl Keys {
    /// Two items of a key and three in all; a batch takes 10 ms, and one with a zero fails.
    fn new(set: impl FnOnce(Builder<u32, Keyed<Key>>) -> Builder<u32, Keyed<Key>>) -> Self {
        let builder = Batcher::keyed(1_000).max_items(2).capacity(3).window(millis(1));
        let builder = set(builder).dead_letter(|_: &Key, _: Vec<u32>, _| {});
        let batcher = builder
            .build(|batch: KeyedBatch<Key, u32>| async move {
                tokio::time::sleep(millis(10)).await;
                if batch.iter().any(|item| *item == 0) { Err("zero") } else { Ok(()) }
            })
            .unwrap();
        Self { alive: Arc::default(), batcher }
    }

    fn key(&self, key: u8) -> Key {
        Key(key, self.alive.clone())
    }

    /// Polls once, and drops it after a while.
    async fn leaves<F: Future>(&self, future: F, after: u64) {
        let mut future = Box::pin(future);
        assert!(futures_util::poll!(future.as_mut()).is_pending());
        pass(after).await;
        drop(future);
    }

    /// No key is left but those that the test holds.
    async fn none_is_left_but(&self, held: usize, after: &str) {
        let _ = self.batcher.flush().await;
        pass(50).await;
        assert_eq!(self.batcher.stats().pending, 0);
        let alive = Arc::strong_count(&self.alive);
        assert_eq!(alive, 1 + held, "{after}: a key is not forgotten");
    }
}

/// For each wait, both before and after room is granted to it or the flush is over.
#[test]
fn a_key_of_which_nothing_is_left_is_forgotten() {
    type Set = fn(Builder<u32, Keyed<Key>>) -> Builder<u32, Keyed<Key>>;
    let sets: [Set; 3] = [
        |builder| builder.capacity_per_key(2),
        |builder| builder.in_order().concurrency(2),
        |builder| {
            builder.capacity_per_key(2).retry(sluicegate::Retry::constant(2, millis(5)).unwrap())
        },
    ];
    paused(async move {
        for set in sets {
            for wait in [0, 30] {
                let keys = Keys::new(set);
                let batcher = &keys.batcher;
                let fill = || {
                    for (key, item) in [(1, 1), (1, 0), (2, 2)] {
                        batcher.try_send(keys.key(key), item).unwrap();
                    }
                };
                fill();
                keys.leaves(batcher.flush_key(&keys.key(2)), wait).await;
                let _ = batcher.flush_key(&keys.key(1)).await;
                keys.none_is_left_but(0, "a flush").await;
                for key in [1, 3] {
                    fill();
                    let key = keys.key(key);
                    keys.leaves(batcher.flush_key(&keys.key(1)), wait).await;
                    keys.none_is_left_but(1, "a flush that is dropped").await;
                    fill();
                    keys.leaves(batcher.send(key.clone(), 5), wait).await;
                    keys.none_is_left_but(1, "a send").await;
                    fill();
                    keys.leaves(batcher.reserve(key.clone()), wait).await;
                    keys.none_is_left_but(1, "a reservation").await;
                    fill();
                    let mut items = VecDeque::from([(key.clone(), 6)]);
                    keys.leaves(batcher.send_many(&mut items), wait).await;
                    items.clear();
                    keys.none_is_left_but(1, "many").await;
                    drop(batcher.reserve(key.clone()).await.unwrap());
                    batcher.reserve(key.clone()).await.unwrap().send(7).unwrap();
                    keys.none_is_left_but(1, "a slot").await;
                }
            }
        }
    });
}

#[test]
fn a_smaller_limit_on_a_shared_semaphore_keeps_no_batch_from_its_turn() {
    paused(async {
        let log = Log::new();
        let semaphore = Arc::new(Semaphore::new(8));
        let builders = [0, 1].map(|_| log.builder().max_items(1).capacity(10).window(millis(0)));
        let batchers = builders
            .map(|builder| builder.semaphore(semaphore.clone()).build(log.handler(10)).unwrap());
        let held = semaphore.clone().try_acquire_many_owned(8).unwrap();
        for (item, batcher) in (0..6).zip(batchers.iter().cycle()) {
            batcher.try_send(item).unwrap();
        }
        pass(1).await;
        assert_eq!(semaphore.waiters(), 2);
        for limit in [4, 1, 0, 2, 1] {
            semaphore.set_limit(limit);
            pass(1).await;
        }
        drop(held);
        for batcher in &batchers {
            assert!(batcher.flush().await.all_delivered());
        }
        let begun: Vec<_> = log.batches().into_iter().map(|(at, _)| at).collect();
        assert_eq!(begun, [6, 16, 26, 36, 46, 56], "one at a time");
        assert_eq!((semaphore.available_permits(), semaphore.limit()), (1, 1));
    });
}
