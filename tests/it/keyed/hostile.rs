//! Users who do what they may, at the worst moment.

use super::panics::in_time;
use super::*;
use sluicegate::batcher::{Closed, KeyedSlot, SendError};
use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};

use futures_util::future::join_all;

#[test]
fn limits_that_may_not_be_are_refused_and_the_largest_cost_nothing() {
    paused(async {
        let log = Log::new();
        let refused = |set: &dyn Fn(Builder<u32, Keyed<Key>>) -> Builder<u32, Keyed<Key>>| {
            set(log.builder()).build(log.handler(0)).unwrap_err().to_string()
        };
        for (field, said) in [
            ("max_keys", refused(&|_| log.keyed(0))),
            ("max_keys", refused(&|_| log.keyed(usize::MAX))),
            ("max_items", refused(&|builder| builder.max_items(0))),
            ("max_items", refused(&|builder| builder.max_items(usize::MAX))),
            ("capacity", refused(&|builder| builder.capacity(499))),
            ("capacity", refused(&|builder| builder.capacity(usize::MAX))),
            ("capacity_per_key", refused(&|builder| builder.capacity_per_key(499))),
            ("capacity_per_key", refused(&|builder| builder.capacity_per_key(usize::MAX))),
            ("concurrency", refused(&|builder| builder.concurrency(0))),
            ("window", refused(&|builder| builder.window(Duration::MAX))),
        ] {
            assert!(said.contains(&format!("`{field}`")) || said.starts_with(field), "{said}");
        }
        let most = sluicegate::Semaphore::MAX_PERMITS;
        let batcher = log
            .keyed(i32::MAX as usize)
            .max_items(most)
            .capacity(most)
            .capacity_per_key(most)
            .concurrency(usize::MAX)
            .build(log.handler(0))
            .unwrap();
        assert_eq!((batcher.capacity(), batcher.capacity_per_key()), (most, Some(most)));
        batcher.send("a", 1).await.unwrap();
        assert_eq!(batcher.shutdown(Some(Duration::MAX)).await.delivered, 1);
    });
}

#[test]
fn with_room_for_one_everything_goes_one_by_one() {
    paused(async {
        let log = Log::new();
        let builder = log.keyed(1).max_items(1).capacity(1).capacity_per_key(1);
        let batcher = builder.in_order().build(log.handler(1)).unwrap();
        let sends = (0..100).map(|item| batcher.send(["a", "b", "c"][item as usize % 3], item));
        assert!(join_all(sends).await.into_iter().all(|sent| sent.is_ok()));
        let ended = batcher.shutdown(None).await;
        assert_eq!(ended.delivered, 100);
        let items: Vec<_> = log.batches().into_iter().flat_map(|(_, _, items)| items).collect();
        for key in 0..3 {
            assert!(items.iter().filter(|item| **item % 3 == key).is_sorted());
        }
    });
}

type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), SendError<(Key, u32)>>> + 'a>>;
type Slot<'a> = KeyedSlot<'a, Key, u32>;
type Reserving<'a> = Pin<Box<dyn Future<Output = Result<Slot<'a>, Closed>> + 'a>>;

/// Sends and reservations in every line and every stage of it are polled and dropped in all sorts of
/// orders. No room is lost or made up, and nobody is forgotten.
#[test]
fn whoever_leaves_wherever_it_stands_loses_no_room() {
    for seed in 0..60_u64 {
        paused(async {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut random = |below: usize| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 33) as usize % below
            };
            let log = Log::new();
            let mut builder = log.keyed(2).max_items(2).capacity(4);
            if seed % 3 > 0 {
                builder = builder.capacity_per_key(2);
            }
            if seed % 2 > 0 {
                builder = builder.max_weight(3, |item| u64::from(item % 4)).capacity_weight(5);
            }
            let batcher = builder.build(log.handler(1)).unwrap();
            let mut sends: Vec<Sending<'_>> = Vec::new();
            let mut reservations: Vec<Reserving<'_>> = Vec::new();
            let mut slots: Vec<Slot<'_>> = Vec::new();
            let mut cx = Context::from_waker(Waker::noop());
            for item in 0..300 {
                let key = ["a", "b", "c"][random(3)];
                match random(8) {
                    0 | 1 => sends.push(Box::pin(batcher.send(key, item))),
                    2 => reservations.push(Box::pin(batcher.reserve(key))),
                    3 if !sends.is_empty() => drop(sends.swap_remove(random(sends.len()))),
                    4 if !reservations.is_empty() => {
                        drop(reservations.swap_remove(random(reservations.len())));
                    }
                    5 if !slots.is_empty() => {
                        slots.swap_remove(random(slots.len())).send(item).unwrap();
                    }
                    6 if !slots.is_empty() => drop(slots.swap_remove(random(slots.len()))),
                    _ => pass(random(3) as u64).await,
                }
                // Some of those who could go on are not polled for a while.
                sends.retain_mut(|send| random(2) == 0 || send.as_mut().poll(&mut cx).is_pending());
                reservations.retain_mut(|reserve| {
                    if random(2) == 0 {
                        return true;
                    }
                    let std::task::Poll::Ready(slot) = reserve.as_mut().poll(&mut cx) else {
                        return true;
                    };
                    slots.push(slot.unwrap());
                    false
                });
                let stats = batcher.stats();
                assert!(stats.pending + slots.len() as u64 <= 4);
                assert!(stats.pending_weight <= 5);
            }
            drop((sends, reservations, slots));
            assert!(batcher.flush().await.all_delivered());
            assert_eq!((batcher.stats().waiting_senders, batcher.keys()), (0, 0));
            for (key, item) in [("a", 0), ("a", 4), ("b", 8), ("b", 12)] {
                batcher.try_send(key, item).unwrap();
            }
            assert!(batcher.try_send("c", 16).is_err());
            assert!(batcher.shutdown(None).await.all_delivered());
        });
    }
}

#[test]
fn all_who_wait_in_many_lines_are_sent_away_with_what_they_brought() {
    paused(async {
        let log = Log::new();
        let builder = log.keyed(4).max_items(1).capacity(6).capacity_per_key(2);
        let batcher = builder.build(log.handler(1_000)).unwrap();
        let keys = ["a", "b", "c", "d"];
        let sends = join_all((0..1_000).map(|item| batcher.send(keys[item as usize % 4], item)));
        let stop = async {
            pass(10).await;
            assert_eq!(batcher.stats().waiting_senders, 994);
            batcher.shutdown(Some(millis(1))).await
        };
        let (sent, ended) = tokio::join!(sends, stop);
        let back = sent.into_iter().filter_map(Result::err).map(SendError::into_inner).count();
        let kept = ended.unsent.iter().chain(&ended.indeterminate).map(|(_, items)| items.len());
        assert_eq!((back, kept.sum::<usize>(), batcher.stats().waiting_senders), (994, 6, 0));
    });
}

#[test]
fn a_runtime_that_goes_buries_what_is_pending_with_its_keys_and_sends_away_who_waits() {
    let buried: Arc<Mutex<Vec<Buried>>> = Arc::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let batcher = runtime.block_on(async {
        let buried = buried.clone();
        Batcher::keyed(1_000)
            .max_items(2)
            .capacity(3)
            .dead_letter(move |key: &Key, items, _: BatchError| {
                buried.lock().unwrap().push((*key, items));
            })
            .build(|batch: KeyedBatch<Key, u32>| async move {
                let _batch = batch;
                std::future::pending::<Result<(), String>>().await
            })
            .unwrap()
    });
    for (key, item) in [("a", 1), ("a", 2), ("b", 3)] {
        batcher.try_send(key, item).unwrap();
    }
    let waits = std::thread::spawn({
        let batcher = batcher.clone();
        move || futures_util::future::FutureExt::boxed(async move { batcher.send("c", 4).await })
    });
    let mut waits = waits.join().unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(waits.as_mut().poll(&mut cx).is_pending());
    runtime.block_on(tokio::task::yield_now());
    drop(runtime);
    let polled = waits.as_mut().poll(&mut cx);
    assert!(matches!(polled, std::task::Poll::Ready(Err(SendError::Closed(("c", 4))))));
    assert_eq!(*buried.lock().unwrap(), [("a", vec![1, 2]), ("b", vec![3])]);
    let stats = batcher.stats();
    assert_eq!((stats.indeterminate, stats.unsent, stats.pending), (2, 1, 0));
}

thread_local! {
    /// What keys, items and wakers look at when they go or are called: a lock that is held hangs.
    static SEEN: RefCell<Option<KeyedBatcher<Curious, Curious>>> = const { RefCell::new(None) };
}

static LOOKS: AtomicU64 = AtomicU64::new(0);

fn look() {
    let batcher = SEEN.try_with(|seen| seen.try_borrow().ok()?.clone()).ok().flatten();
    if let Some(batcher) = batcher {
        batcher.stats();
        drop(batcher.try_send(Curious::quiet(9), Curious::quiet(9)));
        LOOKS.fetch_add(1, Ordering::Relaxed);
    }
}

/// Looks at its batcher when it is cloned or dropped, and sends something more.
struct Curious {
    name: u8,
    quiet: bool,
}

impl Curious {
    fn new(name: u8) -> Self {
        Self { name, quiet: false }
    }

    fn quiet(name: u8) -> Self {
        Self { name, quiet: true }
    }
}

impl Clone for Curious {
    fn clone(&self) -> Self {
        look();
        Self::new(self.name)
    }
}

impl PartialEq for Curious {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Curious {}

impl Hash for Curious {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Drop for Curious {
    fn drop(&mut self) {
        if !self.quiet {
            look();
        }
    }
}

impl Wake for Curious {
    fn wake(self: Arc<Self>) {
        look();
    }
}

#[test]
fn keys_items_and_wakers_may_call_the_batcher_whenever_they_are_called() {
    in_time(|| async {
        let buried = Arc::new(AtomicU64::new(0));
        let count = buried.clone();
        let batcher = Batcher::keyed(2)
            .max_items(2)
            .capacity(6)
            .capacity_per_key(2)
            .max_weight(4, |_: &Curious| {
                SEEN.with_borrow(|seen| seen.as_ref().map(KeyedBatcher::stats));
                1
            })
            .dead_letter(move |_: &Curious, items: Vec<Curious>, _| {
                look();
                count.fetch_add(items.len() as u64, Ordering::Relaxed);
            })
            .build(|batch: KeyedBatch<Curious, Curious>| async move {
                look();
                tokio::time::sleep(millis(1)).await;
                if batch.key().name == 3 { Err("no") } else { Ok(()) }
            })
            .unwrap();
        SEEN.set(Some(batcher.clone()));
        let waker = Waker::from(Arc::new(Curious::new(0)));
        let mut cx = Context::from_waker(&waker);
        for round in 0..50_u8 {
            let name = round % 5;
            let (key, item) = (Curious::new(name), Curious::new(name));
            drop(batcher.try_send(key, item));
            let mut one = Box::pin(batcher.send(Curious::new(name), Curious::new(1)));
            let mut two = Box::pin(batcher.reserve(Curious::new(name)));
            let _ = one.as_mut().poll(&mut cx).is_ready();
            let _ = two.as_mut().poll(&mut cx).is_ready();
            let mut many: std::collections::VecDeque<_> =
                (0..4).map(|nth| (Curious::new(nth), Curious::new(nth))).collect();
            let _ = Box::pin(batcher.send_many(&mut many)).as_mut().poll(&mut cx).is_ready();
            pass(2).await;
            drop((one, two, many));
            let _ = batcher.flush_key(&Curious::new(name)).await;
        }
        let _ = batcher.flush().await;
        drop(batcher.shutdown(None).await);
        SEEN.set(None);
        let stats = batcher.stats();
        assert_eq!(stats.accepted, stats.delivered + stats.failed);
        assert_eq!(buried.load(Ordering::Relaxed), stats.failed);
        assert!(stats.failed > 0 && LOOKS.load(Ordering::Relaxed) > 500);
    });
}

#[test]
fn a_batch_that_outlives_its_batcher_goes_to_the_dead_letter_under_its_key() {
    paused(async {
        let log = Log::new();
        let kept: Arc<Mutex<Option<KeyedBatch<Key, u32>>>> = Arc::default();
        let keep = kept.clone();
        let batcher = log
            .builder()
            .max_items(2)
            .build(move |batch: KeyedBatch<Key, u32>| {
                *keep.lock().unwrap() = Some(batch);
                std::future::ready(Ok::<(), String>(()))
            })
            .unwrap();
        batcher.try_send("a", 1).unwrap();
        batcher.try_send("a", 2).unwrap();
        let ended = batcher.shutdown(Some(millis(10))).await;
        assert_eq!((ended.still_held, ended.indeterminate.len()), (2, 0));
        drop(batcher);
        let mut batch = kept.lock().unwrap().take().unwrap();
        assert_eq!((*batch.key(), batch.drain(..1).count()), ("a", 1));
        drop(batch);
        assert_eq!(*log.buried.lock().unwrap(), [("a", vec![2])]);
    });
}

#[test]
fn keys_that_are_all_full_are_served_in_rounds() {
    paused(async {
        let log = Log::new();
        let builder = log.builder().max_items(1).capacity(100).capacity_per_key(3);
        let batcher = builder.build(log.handler(1)).unwrap();
        let hot = join_all((0..50).map(|item| batcher.send("hot", item)));
        let others =
            join_all((0..10).map(|item| batcher.send(["a", "b"][item as usize % 2], item)));
        let (hot, others) = tokio::join!(hot, others);
        assert!(hot.into_iter().chain(others).all(|sent| sent.is_ok()));
        let _ = batcher.flush().await;
        let keys: Vec<_> = log.batches().iter().map(|(_, key, _)| *key).collect();
        let last = |key| keys.iter().rposition(|of| *of == key).unwrap();
        assert!(last("a") < 17 && last("b") < 17, "{keys:?}");
        assert_eq!(keys.len(), 60);
    });
}
