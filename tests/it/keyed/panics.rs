//! Keys and items whose own code panics: nothing but what was being sent is lost by it.

use super::*;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use futures_util::FutureExt;

/// What of the keys of a test panics now.
#[derive(Default)]
struct Mood {
    eq: AtomicBool,
    hash: AtomicBool,
    clone: AtomicBool,
    drop: AtomicBool,
}

fn is(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}

struct Touchy {
    name: u8,
    mood: Arc<Mood>,
}

impl PartialEq for Touchy {
    fn eq(&self, other: &Self) -> bool {
        assert!(!is(&self.mood.eq) && !is(&other.mood.eq), "an `Eq` that panics");
        self.name == other.name
    }
}

impl Eq for Touchy {}

impl Hash for Touchy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert!(!is(&self.mood.hash), "a `Hash` that panics");
        self.name.hash(state);
    }
}

impl Clone for Touchy {
    fn clone(&self) -> Self {
        assert!(!is(&self.mood.clone), "a `Clone` that panics");
        Self { name: self.name, mood: self.mood.clone() }
    }
}

impl Drop for Touchy {
    fn drop(&mut self) {
        assert!(!is(&self.mood.drop) || std::thread::panicking(), "a `Drop` that panics");
    }
}

/// An item that is counted as it goes, and looks at its batcher then, which hangs under its lock.
struct Item {
    gone: Arc<AtomicU64>,
    batcher: Arc<Mutex<Option<KeyedBatcher<Touchy, Item>>>>,
}

impl Drop for Item {
    fn drop(&mut self) {
        if let Some(batcher) = self.batcher.lock().unwrap().as_ref() {
            batcher.stats();
        }
        self.gone.fetch_add(1, Ordering::Relaxed);
    }
}

/// A batcher that takes two items in all, and what the test has in hand of it.
struct Rig {
    batcher: KeyedBatcher<Touchy, Item>,
    seen: Arc<Mutex<Option<KeyedBatcher<Touchy, Item>>>>,
    mood: Arc<Mood>,
    made: u64,
    gone: Arc<AtomicU64>,
}

impl Rig {
    fn new(set: impl Fn(Builder<Item, Keyed<Touchy>>) -> Builder<Item, Keyed<Touchy>>) -> Self {
        let builder = Batcher::keyed(1_000).max_items(2).capacity(2).window(millis(3_600_000));
        let batcher = set(builder.dead_letter(|_: &Touchy, _, _| panic!("nothing fails here")))
            .build(|_: KeyedBatch<Touchy, Item>| async { Ok::<(), String>(()) })
            .unwrap();
        let seen = Arc::new(Mutex::new(Some(batcher.clone())));
        Self { batcher, seen, mood: Arc::default(), made: 0, gone: Arc::default() }
    }

    fn key(&self, name: u8) -> Touchy {
        Touchy { name, mood: self.mood.clone() }
    }

    fn item(&mut self) -> Item {
        self.made += 1;
        Item { gone: self.gone.clone(), batcher: self.seen.clone() }
    }

    fn try_send(&mut self, name: u8) -> bool {
        let (key, item) = (self.key(name), self.item());
        self.batcher.try_send(key, item).is_ok()
    }

    /// All goes on as if nothing had been: as much fits as ever, and all of it is delivered.
    async fn works_on(mut self) {
        let report = self.batcher.flush().await;
        assert!(report.all_delivered());
        for name in [1, 2] {
            assert!(self.try_send(name), "a place is lost");
        }
        assert!(!self.try_send(3), "a place is made up");
        let stats = self.batcher.stats();
        assert_eq!((stats.pending, stats.waiting_senders, stats.keys), (2, 0, 2));
        self.seen.lock().unwrap().take();
        assert!(self.batcher.shutdown(None).await.all_delivered());
        drop(self.batcher);
        assert_eq!(self.gone.load(Ordering::Relaxed), self.made, "an item is kept or doubled");
    }
}

/// Runs a test that hangs if it fails.
pub(super) fn in_time<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let ran = catch_unwind(AssertUnwindSafe(|| paused(test())));
        done.send(ran.is_ok()).unwrap();
    });
    assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok(true), "it panicked or hangs");
}

fn breaks(flag: &AtomicBool, what: impl FnOnce()) {
    flag.store(true, Ordering::Relaxed);
    let ended = catch_unwind(AssertUnwindSafe(what));
    flag.store(false, Ordering::Relaxed);
    assert!(ended.is_err(), "it was to panic");
}

fn per_key(builder: Builder<Item, Keyed<Touchy>>) -> Builder<Item, Keyed<Touchy>> {
    builder.capacity_per_key(2)
}

#[test]
fn a_key_that_cannot_be_compared_costs_no_room_in_try_send() {
    for set in [per_key, |builder| builder] {
        in_time(move || async move {
            let mut rig = Rig::new(set);
            assert!(rig.try_send(1));
            for _ in 0..3 {
                let (key, item, mood) = (rig.key(1), rig.item(), rig.mood.clone());
                breaks(&mood.eq, || drop(rig.batcher.try_send(key, item)));
            }
            rig.works_on().await;
        });
    }
}

#[test]
fn a_key_that_cannot_be_compared_costs_no_room_in_send() {
    for set in [per_key, |builder| builder] {
        in_time(move || async move {
            let mut rig = Rig::new(set);
            assert!(rig.try_send(1));
            for _ in 0..3 {
                let (key, item, mood) = (rig.key(1), rig.item(), rig.mood.clone());
                breaks(&mood.eq, || drop(rig.batcher.send(key, item).now_or_never()));
            }
            rig.works_on().await;
        });
    }
}

#[test]
fn a_key_that_cannot_be_compared_costs_no_room_when_its_sender_has_waited() {
    in_time(|| async {
        let mut rig = Rig::new(|builder| builder);
        assert!(rig.try_send(1) && rig.try_send(2));
        let (key, item, mood) = (rig.key(1), rig.item(), rig.mood.clone());
        let batcher = rig.batcher.clone();
        let mut waits = Box::pin(batcher.send(key, item));
        assert!(futures_util::poll!(&mut waits).is_pending());
        // So that there is a lane to compare it with when its turn comes.
        assert_eq!(rig.batcher.flush_key(&rig.key(2)).await.delivered, 1);
        breaks(&mood.eq, || drop((&mut waits).now_or_never()));
        drop(waits);
        rig.works_on().await;
    });
}

#[test]
fn a_key_that_cannot_be_compared_costs_no_room_in_a_slot() {
    for set in [per_key, |builder| builder] {
        in_time(move || async move {
            let mut rig = Rig::new(set);
            assert!(rig.try_send(1));
            let (key, item, mood) = (rig.key(1), rig.item(), rig.mood.clone());
            let batcher = rig.batcher.clone();
            let slot = batcher.reserve(key).await.unwrap();
            mood.eq.store(true, Ordering::Relaxed);
            let sent = catch_unwind(AssertUnwindSafe(|| slot.send(item).is_ok()));
            mood.eq.store(false, Ordering::Relaxed);
            // With room reserved under the key there is nothing to compare.
            assert_eq!(sent.is_ok(), rig.batcher.capacity_per_key().is_some());
            rig.works_on().await;
        });
    }
}

#[test]
fn a_key_that_cannot_be_compared_costs_no_room_while_it_waits_for_that_of_its_key() {
    in_time(|| async {
        let mut rig = Rig::new(per_key);
        assert!(rig.try_send(1));
        let slot = rig.batcher.clone();
        let slot = slot.reserve(rig.key(1)).await.unwrap();
        let (key, item, mood) = (rig.key(1), rig.item(), rig.mood.clone());
        breaks(&mood.eq, || drop(rig.batcher.send(key, item).now_or_never()));
        let (key, mood) = (rig.key(1), rig.mood.clone());
        breaks(&mood.eq, || drop(rig.batcher.reserve(key).now_or_never()));
        drop(slot);
        rig.works_on().await;
    });
}

#[test]
fn a_key_that_cannot_be_compared_flushes_nothing() {
    in_time(|| async {
        let mut rig = Rig::new(|builder| builder);
        assert!(rig.try_send(1));
        let (key, mood) = (rig.key(1), rig.mood.clone());
        breaks(&mood.eq, || assert!(rig.batcher.flush_key(&key).now_or_never().is_none()));
        assert_eq!((rig.batcher.keys(), rig.batcher.stats().pending), (1, 1));
        rig.works_on().await;
    });
}

#[test]
fn a_key_that_cannot_be_hashed_or_cloned_costs_no_room() {
    in_time(|| async {
        let mut rig = Rig::new(per_key);
        let mood = rig.mood.clone();
        let (key, item) = (rig.key(1), rig.item());
        breaks(&mood.hash, || drop(rig.batcher.try_send(key, item)));
        let (key, item) = (rig.key(1), rig.item());
        breaks(&mood.hash, || drop(rig.batcher.send(key, item)));
        let key = rig.key(1);
        breaks(&mood.hash, || assert!(rig.batcher.flush_key(&key).now_or_never().is_none()));
        drop(key);
        // Room under a new key is held with a clone of it.
        let key = rig.key(1);
        breaks(&mood.clone, || drop(rig.batcher.reserve(key).now_or_never()));
        assert!(rig.try_send(1) && rig.try_send(2));
        let (key, item) = (rig.key(3), rig.item());
        breaks(&mood.clone, || drop(rig.batcher.send(key, item).now_or_never()));
        rig.works_on().await;
    });
}

#[test]
fn a_key_that_panics_as_it_is_dropped_costs_neither_item_nor_room() {
    in_time(|| async {
        let mut rig = Rig::new(|builder| builder);
        assert!(rig.try_send(1));
        // Its lane is there, so that the key is not needed.
        let (key, item, mood) = (rig.key(1), rig.item(), rig.mood.clone());
        breaks(&mood.drop, || drop(rig.batcher.try_send(key, item)));
        assert_eq!(rig.batcher.stats().accepted, 2);
        // Those of emptied lanes are dropped by the driver, which lives on.
        mood.drop.store(true, Ordering::Relaxed);
        let report = rig.batcher.flush().await;
        mood.drop.store(false, Ordering::Relaxed);
        assert_eq!(report.delivered, 2);
        rig.works_on().await;
    });
}

#[test]
fn a_weigher_that_panics_costs_no_room_in_a_slot() {
    in_time(|| async {
        let broken = Arc::new(AtomicBool::new(false));
        let told = broken.clone();
        let mut rig = Rig::new(|builder| {
            let told = told.clone();
            builder.capacity_weight(4).max_weight(2, move |_: &Item| {
                assert!(!is(&told), "a weigher that panics");
                1
            })
        });
        let batcher = rig.batcher.clone();
        let slot = batcher.reserve(rig.key(1)).await.unwrap();
        let item = rig.item();
        breaks(&broken, || drop(slot.send(item)));
        rig.works_on().await;
    });
}

#[test]
fn a_key_that_cannot_be_compared_leaves_the_rest_of_many_where_they_were() {
    in_time(|| async {
        let mut rig = Rig::new(|builder| builder.capacity(10));
        assert!(rig.try_send(7));
        // The driver sleeps until the window of that is over.
        pass(1).await;
        let (broken, mood) = (Arc::new(Mood::default()), rig.mood.clone());
        let mut items: VecDeque<_> = [1, 1, 7, 3].map(|name| (rig.key(name), rig.item())).into();
        items[2].0.mood = broken.clone();
        let batcher = rig.batcher.clone();
        breaks(&broken.eq, || assert!(batcher.send_many(&mut items).now_or_never().is_none()));
        assert_eq!(items.iter().map(|(key, _)| key.name).collect::<Vec<_>>(), [7, 3]);
        pass(1).await;
        assert_eq!(batcher.stats().delivered, 2, "the driver was told of what was accepted");
        breaks(&mood.hash, || assert!(batcher.send_many(&mut items).now_or_never().is_none()));
        assert_eq!(items.len(), 1, "7 has a mood of its own");
        batcher.send_many(&mut items).await.unwrap();
        assert_eq!(batcher.flush().await.delivered, 3, "two of them under 7");
        rig.seen.lock().unwrap().take();
        assert!(batcher.shutdown(None).await.all_delivered());
        drop((batcher, rig.batcher));
        assert_eq!(rig.gone.load(Ordering::Relaxed), rig.made);
    });
}

#[test]
fn a_weigher_that_panics_leaves_the_rest_of_many_where_they_were() {
    paused(async {
        let log = Log::new();
        let weigh = |item: &u32| if *item == 2 { panic!("no weight") } else { 1 };
        let batcher = log.builder().max_weight(10, weigh).build(log.handler(0)).unwrap();
        let mut items: VecDeque<_> = [("a", 1), ("a", 2), ("b", 3)].into();
        let sent = AssertUnwindSafe(|| batcher.send_many(&mut items).now_or_never());
        assert!(catch_unwind(sent).is_err());
        assert_eq!(items, [("a", 2), ("b", 3)]);
        assert_eq!(batcher.flush().await.delivered, 1);
    });
}
