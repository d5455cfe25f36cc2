//! What the shared forms add: observers, the sweeper, checkouts while others push, and shards.

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use sluicegate::map::{Entry, Event, Resize};
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
fn an_observer_sees_what_the_caller_gets() {
    let start = Instant::now();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heard);
    let map: SharedBoundedArrayMap<&str, u32, u32> = BoundedArrayMap::builder()
        .max_keys(1)
        .max_items_per_key(1)
        .time_to_live(TTL)
        .indexed()
        .build_shared()
        .unwrap()
        .with_observer(move |event| {
            seen.lock().unwrap().push(match event {
                Event::Displaced { key, value, id } => format!("displaced {key} {value} {id:?}"),
                Event::Evicted { key, items } => format!("evicted {key} {items:?}"),
                Event::Expired(gone) => format!("expired {} {}", gone.key, gone.value),
                Event::Rejected { reason, key, value, .. } => {
                    format!("rejected {key} {value}: {reason:?}")
                }
                _ => unreachable!("there is no other event"),
            });
        });
    assert!(map.push_entry(Entry::new("a", 10).id(1).at(start)).is_stored());
    assert!(map.push_entry(Entry::new("a", 20).id(2).at(start)).is_stored());
    assert!(map.push_entry(Entry::new("b", 30).id(3).at(start)).is_stored());
    assert!(!map.push_entry(Entry::new("b", 31).id(3).at(start)).is_stored());
    assert_eq!(map.expire(start + TTL, 10).len(), 1);
    assert!(map.push_entry(Entry::new("c", 40).at(start)).is_stored());
    assert_eq!(map.take("c").len(), 1);
    let expected =
        ["displaced a 10 Some(1)", "evicted a [20]", "rejected b 31: Duplicate", "expired b 30"];
    assert_eq!(*heard.lock().unwrap(), expected);
}

#[test]
fn an_observer_that_panics_costs_no_value_and_hears_the_next_event() {
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let map = SharedBoundedArrayMap::new(1, 1).unwrap().with_observer(move |_| {
        called.fetch_add(1, Ordering::Relaxed);
        // Unlike `panic!`, this prints nothing.
        panic::resume_unwind(Box::new("an observer"));
    });
    assert_eq!(map.push("a", 1), Pushed::Stored);
    assert_eq!(map.push("a", 2), Pushed::Displaced { value: 1, id: None });
    assert_eq!(map.push("a", 3), Pushed::Displaced { value: 2, id: None });
    assert_eq!((calls.load(Ordering::Relaxed), map.observer_panics()), (2, 2));
}

#[test]
fn an_observer_may_call_the_map() {
    within_limit(|| {
        let this: Arc<OnceLock<Weak<SharedBoundedArrayMap<u32, u32>>>> = Arc::default();
        let observer = Arc::clone(&this);
        let map = SharedBoundedArrayMap::new(2, 1).unwrap().with_observer(move |event| {
            let map = observer.get().and_then(Weak::upgrade).unwrap();
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
        assert!(map.push_entry(Entry::new("a", id).id(id)).is_stored());
    }
    let mut guard = map.checkout("a").unwrap();
    assert!(map.checkout("a").is_none(), "one at a time");
    assert_eq!(map.take("a").len(), 0, "and nobody passes it");
    assert_eq!(map.remove_by_id(&2), None);
    let duplicate = map.push_entry(Entry::new("a", 20).id(2));
    assert!(matches!(duplicate, Pushed::Rejected { reason: RejectReason::Duplicate, .. }));
    let elsewhere = map.push("b", 0);
    assert!(matches!(elsewhere, Pushed::Rejected { reason: RejectReason::MapFull, .. }));

    assert_eq!(map.push_entry(Entry::new("a", 4).id(4)), Pushed::Stored);
    assert_eq!(
        map.push_entry(Entry::new("a", 5).id(5)),
        Pushed::Displaced { value: 4, id: Some(4) }
    );
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
        assert!(map.push_entry(Entry::new("a", value).at(start)).is_stored());
    }
    let mut guard = map.checkout("a").unwrap();
    assert!(map.push_entry(Entry::new("a", 3).at(start)).is_stored());
    assert!(map.push_entry(Entry::new("b", 4).at(start + TTL)).is_stored());
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

#[test]
fn while_a_predicate_runs_its_items_are_out_and_the_map_is_free() {
    within_limit(|| {
        let map = BoundedArrayMap::builder().max_keys(2).max_items_per_key(3).indexed::<u32>();
        let map = map.build_shared().unwrap();
        for value in 1..=3 {
            assert!(map.push_entry(Entry::new("a", value).id(value)).is_stored());
        }
        assert!(map.push("b", 0).is_stored());
        let gone = map.remove_if("a", |value| {
            if *value == 1 {
                // What its documentation says.
                assert_eq!((map.take("a").len(), map.remove_by_id(&2)), (0, None));
                assert!(map.checkout("a").is_none() && map.contains_id(&2));
                let full = map.push("a", 9);
                assert!(matches!(full, Pushed::Rejected { reason: RejectReason::KeyFull, .. }));
                assert_eq!(map.remove_if("a", |_| true).len(), 0);
                let other = map.push("c", 4);
                assert!(
                    matches!(other, Pushed::Evicted { key: "b", .. }),
                    "a stays in the order of use"
                );
            }
            *value != 2
        });
        assert_eq!(gone.with_ids().collect::<Vec<_>>(), [(1, Some(1)), (3, Some(3))]);
        assert_eq!(map.keys(), ["c", "a"]);
        assert_eq!(map.take("a").collect::<Vec<_>>(), [2]);
        assert_eq!((map.stats().removed, map.total_items()), (2, 1));
    });
}

#[test]
fn a_predicate_that_panics_loses_nothing_and_leaves_all_keys_free() {
    let builder = || BoundedArrayMap::builder().max_keys(5).max_items_per_key(3);
    let map = builder().build_shared().unwrap();
    let sharded = builder().build_sharded(3).unwrap();
    for (key, value) in [("a", 1), ("b", 2), ("b", 3), ("c", 4)] {
        assert!(map.push(key, value).is_stored());
        assert!(sharded.push(key, value).is_stored());
    }
    let touchy = |value: &i32| match value {
        // Unlike `panic!`, this prints nothing.
        3 => panic::resume_unwind(Box::new("a predicate")),
        _ => true,
    };
    let panics = |act: &dyn Fn()| {
        assert!(panic::catch_unwind(panic::AssertUnwindSafe(act)).is_err());
    };
    panics(&|| drop(map.remove_if("b", touchy)));
    panics(&|| drop(sharded.remove_if("b", touchy)));
    assert_eq!((map.total_items(), sharded.total_items()), (4, 4));

    let (kept, kept_sharded) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    panics(&|| {
        let sink = |key, items: sluicegate::map::Items<i32>| {
            kept.lock().unwrap().extend(items.map(|value| (key, value)));
        };
        map.retain(|_, value| !touchy(value), sink);
    });
    panics(&|| {
        let sink = |key, items: sluicegate::map::Items<i32>| {
            kept_sharded.lock().unwrap().extend(items.map(|value| (key, value)));
        };
        sharded.retain(|_, value| !touchy(value), sink);
    });
    // What was handed over has left, all else is there, and no key is checked out.
    for (mut seen, left) in [
        (kept.into_inner().unwrap(), ["a", "b", "c"].map(|key| (key, map.take(key)))),
        (kept_sharded.into_inner().unwrap(), ["a", "b", "c"].map(|key| (key, sharded.take(key)))),
    ] {
        seen.extend(left.into_iter().flat_map(|(key, items)| items.map(move |v| (key, v))));
        seen.sort_unstable();
        assert_eq!(seen, [("a", 1), ("b", 2), ("b", 3), ("c", 4)]);
    }
    assert!(map.is_empty() && sharded.is_empty());
}

#[test]
fn an_observer_of_a_sharded_map_may_call_it_and_may_panic() {
    within_limit(|| {
        type Map = sluicegate::ShardedBoundedArrayMap<u32, u32>;
        let this: Arc<OnceLock<Weak<Map>>> = Arc::default();
        let observer = Arc::clone(&this);
        let builder = BoundedArrayMap::builder().max_keys(2).max_items_per_key(1);
        let map = builder.build_sharded(2).unwrap().with_observer(move |event| {
            let map = observer.get().and_then(Weak::upgrade).unwrap();
            if let Event::Displaced { key: 1, value, .. } = event {
                assert!(map.push(2, *value).is_stored());
                panic::resume_unwind(Box::new("an observer"));
            }
        });
        let map = Arc::new(map);
        this.set(Arc::downgrade(&map)).unwrap();
        assert!(map.push(1, 10).is_stored());
        assert_eq!(map.push(1, 11), Pushed::Displaced { value: 10, id: None });
        assert_eq!(map.take(&2).collect::<Vec<_>>(), [10]);
        assert_eq!(map.observer_panics(), 1);
    });
}

#[test]
fn a_sharded_map_refuses_what_has_no_room_because_of_checkouts() {
    let builder = BoundedArrayMap::builder().max_keys(2).max_items_per_key(1);
    let map = builder.build_sharded(3).unwrap();
    let of_shard = |shard| (0_u32..).find(|key| map.shard_of(key) == shard).unwrap();
    let keys = [of_shard(0), of_shard(1), of_shard(2)];
    for key in &keys[..2] {
        assert_eq!(map.push(*key, *key), Pushed::Stored);
    }
    let out = [map.checkout(&keys[0]).unwrap(), map.checkout(&keys[1]).unwrap()];
    let refused = map.push(keys[2], 7);
    assert!(matches!(refused, Pushed::Rejected { reason: RejectReason::MapFull, value: 7, .. }));
    drop(out);
    assert!(matches!(map.push(keys[2], 7), Pushed::Evicted { .. }));
    assert_eq!(map.len(), 2);
}

#[test]
fn the_last_handle_gives_the_plain_map_back() {
    let builder = BoundedArrayMap::builder().max_keys(3).max_items_per_key(2).indexed::<u8>();
    let map = Arc::new(builder.max_weight(10, |_, _| 3).build_shared().unwrap());
    for (id, key) in [(1, "a"), (2, "b"), (3, "a")] {
        assert_eq!(map.push_entry(Entry::new(key, id).id(id)), Pushed::Stored);
    }
    let other = Arc::clone(&map);
    assert!(Arc::into_inner(map).is_none());
    let mut map = Arc::into_inner(other).unwrap().into_inner();
    assert_eq!((map.stats().weight, map.stats().pushed, map.limits().max_weight), (9, 3, Some(10)));
    assert_eq!(map.remove_by_id(&1), Some(("a", 1)));
    assert_eq!(map.push("c", 4), Pushed::Stored);
    assert!(matches!(map.push("c", 5), Pushed::Evicted { key: "b", .. }), "it weighs as before");
}

#[test]
fn totals_are_checked_when_they_are_changed() {
    let builder = || BoundedArrayMap::<u8, u8>::builder().max_keys(3).max_items_per_key(2);
    let map = builder().max_items(5).build_shared().unwrap();
    assert_eq!((map.limits().max_items, map.limits().max_weight), (Some(5), None));
    assert_eq!(map.resize(Resize::new().max_items(1)).unwrap_err().field(), "max_items");
    assert_eq!(
        map.resize(Resize::new().max_weight(1)).unwrap_err().to_string(),
        "`max_weight` is 1, but must be chosen when the map is built, with what weighs its items",
    );
    assert!(map.resize(Resize::new().max_items(usize::MAX)).unwrap().is_empty());
    assert_eq!(
        (map.limits().max_items, map.limits().max_keys, map.limits().max_items_per_key),
        (None, 3, 2)
    );
    let map = builder().max_weight(5, |_, _| 1).build_shared().unwrap();
    for weight in [0, u64::MAX] {
        assert_eq!(map.resize(Resize::new().max_weight(weight)).unwrap_err().field(), "max_weight");
    }
    assert_eq!(map.limits().max_weight, Some(5));
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
        assert!(map.push_entry(Entry::new(value, value).at(Instant::now().into_std())).is_stored());
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

    #[tokio::test(start_paused = true)]
    async fn it_sweeps_shards_and_whatever_else_can_expire() {
        use sluicegate::ShardedBoundedArrayMap;
        use sluicegate::map::{Expire, Expired};

        /// A `BoundedArrayMap` with more behind the same lock.
        struct Register(Mutex<(BoundedArrayMap<u32, u32>, u32)>);
        impl Expire for Register {
            type Overdue = Expired<u32, u32>;

            fn expire(&self, now: std::time::Instant, limit: usize) -> Vec<Self::Overdue> {
                let (map, calls) = &mut *self.0.lock().unwrap();
                *calls += 1;
                map.expire(now, limit)
            }
        }

        let builder = || BoundedArrayMap::builder().max_keys(100).max_items_per_key(10);
        let sharded: ShardedBoundedArrayMap<u32, u32> =
            builder().time_to_live(TTL).build_sharded(4).unwrap();
        let plain = builder().time_to_live(TTL).build().unwrap();
        let (sharded, register) = (Arc::new(sharded), Arc::new(Register(Mutex::new((plain, 0)))));
        let now = Instant::now().into_std();
        for value in 0..8 {
            assert!(sharded.push_entry(Entry::new(value, value).at(now)).is_stored());
            assert!(
                register
                    .0
                    .lock()
                    .unwrap()
                    .0
                    .push_entry(Entry::new(value, value).at(now))
                    .is_stored()
            );
        }
        let swept = [(); 2].map(|()| Arc::new(Mutex::new(Vec::new())));
        let [first, second] = swept.clone();
        let sweepers = [
            Sweeper::spawn(&sharded, TTL, 3, move |gone| first.lock().unwrap().push(gone.len())),
            Sweeper::spawn(&register, TTL, 3, move |gone| second.lock().unwrap().push(gone.len())),
        ];
        sleep(TTL * 3 / 2).await;
        assert_eq!(swept.map(|steps| steps.lock().unwrap().clone()), [[3, 3, 2], [3, 3, 2]]);
        assert!(sharded.is_empty());
        assert_eq!(register.0.lock().unwrap().1, 3);
        for sweeper in sweepers {
            sweeper.unwrap().stop().await;
        }
    }

    #[tokio::test]
    async fn it_refuses_what_makes_no_sense() {
        let refused = |period, limit| {
            Sweeper::spawn(&map(), period, limit, drop).unwrap_err().field().to_string()
        };
        assert_eq!(refused(Duration::ZERO, 1), "period");
        assert_eq!(refused(TTL, 0), "limit");
        let endless = Sweeper::spawn(&map(), Duration::MAX, usize::MAX, drop).unwrap();
        sleep(Duration::from_millis(1)).await;
        endless.stop().await;
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
