//! What the shared forms add: listeners, the sweeper, checkouts while others push, and shards.
#![cfg(not(loom))]

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use sluicegate::map::Event;
use sluicegate::{BoundedArrayMap, Pushed, RejectReason, SharedBoundedArrayMap};

const TTL: Duration = Duration::from_secs(60);

/// Fails if it hangs.
fn within_limit(act: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    thread::spawn(move || {
        act();
        done.send(()).unwrap();
    });
    let limit = Duration::from_secs(20);
    finished.recv_timeout(limit).expect("it deadlocked, or the thread has said why it failed");
}

#[test]
fn a_listener_is_told_what_the_caller_is_handed() {
    let start = Instant::now();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&heard);
    let map: SharedBoundedArrayMap<&str, u32, u32> = BoundedArrayMap::builder()
        .max_keys(1)
        .max_items_per_key(1)
        .time_to_live(TTL)
        .indexed()
        .build_shared()
        .unwrap()
        .with_listener(move |event| {
            told.lock().unwrap().push(match event {
                Event::Displaced { key, value, id } => format!("displaced {key} {value} {id:?}"),
                Event::Evicted { key, items } => format!("evicted {key} {items:?}"),
                Event::Expired(gone) => format!("expired {} {}", gone.key, gone.value),
                Event::Rejected { reason, key, value, .. } => {
                    format!("rejected {key} {value}: {reason:?}")
                }
                _ => unreachable!("there is no other event"),
            });
        });
    assert!(map.push_unique_at(start, "a", 1, 10).is_stored());
    assert!(map.push_unique_at(start, "a", 2, 20).is_stored());
    assert!(map.push_unique_at(start, "b", 3, 30).is_stored());
    assert!(!map.push_unique_at(start, "b", 3, 31).is_stored());
    assert_eq!(map.expire(start + TTL, 10).len(), 1);
    assert!(map.push_at(start, "c", 40).is_stored());
    assert_eq!(map.take("c").len(), 1);
    let expected =
        ["displaced a 10 Some(1)", "evicted a [20]", "rejected b 31: Duplicate", "expired b 30"];
    assert_eq!(*heard.lock().unwrap(), expected);
}

#[test]
fn a_listener_that_panics_costs_no_value_and_hears_the_next_event() {
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let map = SharedBoundedArrayMap::new(1, 1).unwrap().with_listener(move |_| {
        called.fetch_add(1, Ordering::Relaxed);
        // Unlike `panic!`, this prints nothing.
        panic::resume_unwind(Box::new("a listener"));
    });
    assert_eq!(map.push("a", 1), Pushed::Stored);
    assert_eq!(map.push("a", 2), Pushed::Displaced { value: 1, id: None });
    assert_eq!(map.push("a", 3), Pushed::Displaced { value: 2, id: None });
    assert_eq!((calls.load(Ordering::Relaxed), map.listener_panics()), (2, 2));
}

#[test]
fn a_listener_may_call_the_map() {
    within_limit(|| {
        let this: Arc<OnceLock<Weak<SharedBoundedArrayMap<u32, u32>>>> = Arc::default();
        let listener = Arc::clone(&this);
        let map = SharedBoundedArrayMap::new(2, 1).unwrap().with_listener(move |event| {
            let map = listener.get().and_then(Weak::upgrade).unwrap();
            if let Event::Displaced { key: 1, value, .. } = event {
                assert!(map.push(2, *value).is_stored());
            }
        });
        let map = Arc::new(map);
        this.set(Arc::downgrade(&map)).unwrap();
        assert!(map.push(1, 10).is_stored());
        assert!(map.push(1, 11).is_stored());
        assert_eq!(map.take(&2).collect::<Vec<_>>(), [10]);
    });
}

#[test]
fn what_is_pushed_during_a_checkout_comes_after_what_is_put_back() {
    let map = BoundedArrayMap::builder().max_keys(1).max_items_per_key(4).indexed::<u32>();
    let map = map.build_shared().unwrap();
    for id in 1..=3 {
        assert!(map.push_unique("a", id, id).is_stored());
    }
    let mut guard = map.checkout("a").unwrap();
    assert!(map.checkout("a").is_none(), "one at a time");
    assert_eq!(map.take("a").len(), 0, "and nobody passes it");
    assert_eq!(map.cancel(&2), None);
    let duplicate = map.push_unique("a", 2, 20);
    assert!(matches!(duplicate, Pushed::Rejected { reason: RejectReason::Duplicate, .. }));
    let elsewhere = map.push("b", 0);
    assert!(matches!(elsewhere, Pushed::Rejected { reason: RejectReason::MapFull, .. }));

    assert_eq!(map.push_unique("a", 4, 4), Pushed::Stored);
    assert_eq!(map.push_unique("a", 5, 5), Pushed::Displaced { value: 4, id: Some(4) });
    assert_eq!(guard.acknowledge(), Some(1));
    assert!(!map.contains_id(&1), "gone with its item");
    drop(guard);
    assert_eq!(map.take("a").collect::<Vec<_>>(), [2, 3, 5]);
    let stats = map.stats();
    assert_eq!((stats.taken, stats.displaced, stats.rejected, stats.items), (4, 1, 2, 0));
}

#[test]
fn a_checked_out_key_leaves_when_all_its_items_are_acknowledged() {
    let start = Instant::now();
    let builder = BoundedArrayMap::builder().max_keys(2).max_items_per_key(4);
    let map = builder.time_to_live(TTL).build_shared().unwrap();
    for value in 1..=2 {
        assert!(map.push_at(start, "a", value).is_stored());
    }
    let mut guard = map.checkout("a").unwrap();
    assert!(map.push_at(start, "a", 3).is_stored());
    assert!(map.push_at(start + TTL, "b", 4).is_stored());
    let expired: Vec<_> = map.expire(start + TTL, 9).into_iter().map(|gone| gone.value).collect();
    assert_eq!(expired, [3], "what is checked out is not swept");
    assert_eq!(map.next_expiry(), Some(start + TTL * 2));
    assert_eq!(map.clear().map(|(key, _)| key).collect::<Vec<_>>(), ["b"]);
    assert_eq!((guard.acknowledge(), map.len()), (Some(1), 1));
    assert_eq!((guard.acknowledge(), guard.acknowledge()), (Some(2), None));
    assert!(guard.is_empty());
    drop(guard);
    assert!(map.is_empty() && map.stats().items == 0);
}

#[cfg(feature = "tokio")]
mod sweeper {
    use super::*;
    use sluicegate::map::Sweeper;
    use tokio::time::{Instant, sleep};

    type Map = SharedBoundedArrayMap<u32, u32>;

    fn map() -> Arc<Map> {
        let builder = BoundedArrayMap::builder().max_keys(100).max_items_per_key(10);
        Arc::new(builder.time_to_live(TTL).build_shared().unwrap())
    }

    fn push(map: &Map, value: u32) {
        assert!(map.push_at(Instant::now().into_std(), value, value).is_stored());
    }

    #[tokio::test(start_paused = true)]
    async fn it_reports_all_that_is_due_in_steps() {
        let (map, steps) = (map(), Arc::new(Mutex::new(Vec::new())));
        let report = Arc::clone(&steps);
        let period = Duration::from_secs(7);
        let sweeper = Sweeper::spawn(&map, period, 3, move |expired| {
            report.lock().unwrap().push(expired.len());
            // A panic costs nothing but what was handed to it.
            panic::resume_unwind(Box::new("a report"));
        });
        let sweeper = sweeper.unwrap();
        for value in 0..8 {
            push(&map, value);
        }
        sleep(TTL / 2).await;
        push(&map, 8);
        sleep(TTL / 2 + period).await;
        assert_eq!(*steps.lock().unwrap(), [3, 3, 2]);
        assert_eq!((map.total_items(), map.stats().expired), (1, 8));

        sweeper.stop().await;
        sleep(TTL * 2).await;
        assert_eq!(map.total_items(), 1, "nobody sweeps any longer");
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_map_and_with_its_handle() {
        let map = map();
        let reports = Arc::new(());
        let sweep = || {
            let report = Arc::clone(&reports);
            let period = Duration::from_secs(1);
            Sweeper::spawn(&map, period, 3, move |_| drop(Arc::clone(&report))).unwrap()
        };
        drop(sweep());
        sleep(Duration::from_secs(3)).await;
        assert_eq!(Arc::strong_count(&reports), 1);
        sweep().detach();
        sleep(Duration::from_secs(3)).await;
        assert_eq!(Arc::strong_count(&reports), 2, "it goes on without its handle");
        drop(map);
        sleep(Duration::from_secs(3)).await;
        assert_eq!(Arc::strong_count(&reports), 1);
    }

    #[tokio::test]
    async fn it_refuses_what_makes_no_sense() {
        let refused = |period, budget| {
            Sweeper::spawn(&map(), period, budget, drop).unwrap_err().field().to_string()
        };
        assert_eq!(refused(Duration::ZERO, 1), "period");
        assert_eq!(refused(TTL, 0), "budget");
    }
}

#[test]
fn shards_are_checked() {
    let builder = || BoundedArrayMap::<u8, u8>::builder().max_keys(2).max_items_per_key(1);
    for shards in [0, 65_537] {
        assert_eq!(builder().build_sharded(shards).unwrap_err().field(), "shards");
    }
    assert_eq!(builder().build_sharded(2).unwrap().shards(), 2);
}

#[test]
fn a_key_whose_shard_is_empty_takes_the_place_of_the_oldest_of_another() {
    let builder = BoundedArrayMap::builder().max_keys(2).max_items_per_key(1);
    let map = builder.build_sharded(2).unwrap();
    let of_shard =
        |shard| -> Vec<u32> { (0..).filter(|key| map.shard_of(key) == shard).take(2).collect() };
    let (first, second) = (of_shard(0), of_shard(1));
    for key in &first[..2] {
        assert_eq!(map.push(*key, *key), Pushed::Stored);
    }
    let Pushed::Evicted { key, items } = map.push(second[0], 0) else { panic!("it is full") };
    assert_eq!((key, items.collect::<Vec<_>>()), (first[0], vec![first[0]]));
    assert!(map.contains(&first[1]) && map.contains(&second[0]));
    assert_eq!((map.len(), map.stats().evicted), (2, 1));
}
