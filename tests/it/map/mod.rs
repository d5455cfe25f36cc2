//! Named cases of the bounded array map: the faults of the hand-written maps that it replaces, and
//! the edges of its promises.

mod dropped;
mod lock;
mod over_limits;
mod panics;
mod shared;
mod stress;

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::pushed::each;
use sluicegate::map::Entry;
use sluicegate::{BoundedArrayMap, FullKey, FullMap, Pushed, RejectReason, SharedBoundedArrayMap};

const TTL: Duration = Duration::from_secs(24 * 60 * 60);

type Indexed = BoundedArrayMap<&'static str, u32, u32>;

fn indexed(max_keys: usize, max_items_per_key: usize) -> Indexed {
    BoundedArrayMap::builder()
        .max_keys(max_keys)
        .max_items_per_key(max_items_per_key)
        .time_to_live(TTL)
        .indexed()
        .build()
        .unwrap()
}

fn keys(map: &BoundedArrayMap<&'static str, u32, u32>) -> Vec<&'static str> {
    map.iter_lru().map(|(key, _)| *key).collect()
}

// An id index kept beside such a map forgot to forget what an eviction took along, so that a
// redelivery of a lost item was dropped as "already pending", for good.
#[test]
fn an_evicted_item_can_be_delivered_again() {
    let mut map = indexed(1, 10);
    assert_eq!(map.push_entry(Entry::new("a", 10).id(1)), Pushed::Stored);
    let Pushed::Evicted { key: "a", items } = map.push_entry(Entry::new("b", 20).id(2)) else {
        panic!("the map holds one key");
    };
    assert_eq!(items.with_ids().collect::<Vec<_>>(), [(10, Some(1))]);
    assert!(!map.contains_id(&1));
    assert!(map.push_entry(Entry::new("a", 11).id(1)).is_stored());
}

#[test]
fn an_id_leaves_by_every_way_that_its_item_leaves_by() {
    let start = Instant::now();
    type Leave = fn(&mut Indexed, Instant);
    let ways: [(&str, Leave); 6] = [
        ("displaced", |map, _| {
            assert_eq!(map.push("a", 0), Pushed::Stored);
            assert_eq!(map.push("a", 0), Pushed::Displaced { value: 10, id: Some(1) });
        }),
        ("evicted", |map, _| {
            assert_eq!(map.push("b", 0), Pushed::Stored);
            assert!(matches!(map.push("c", 0), Pushed::Evicted { key: "a", .. }));
        }),
        ("taken", |map, _| assert_eq!(map.take("a").collect::<Vec<_>>(), [10])),
        ("removed", |map, _| assert_eq!(map.remove_by_id(&1), Some(("a", 10)))),
        ("expired", |map, start| {
            let expired = map.expire(start + TTL, 10);
            assert_eq!((expired[0].key, expired[0].value, expired[0].id), ("a", 10, Some(1)));
        }),
        ("cleared", |map, _| {
            let (key, items) = map.clear().next().unwrap();
            assert_eq!((key, items.collect::<Vec<_>>()), ("a", vec![10]));
        }),
    ];
    for (way, leave) in ways {
        let mut map = indexed(2, 2);
        assert_eq!(map.push_entry(Entry::new("a", 10).id(1).at(start)), Pushed::Stored);
        assert!(map.contains_id(&1), "{way}");
        leave(&mut map, start);
        assert!(!map.contains_id(&1), "{way}");
        assert_eq!(map.remove_by_id(&1), None, "{way}");
        assert!(map.push_entry(Entry::new("a", 11).id(1)).is_stored(), "{way}");
    }
}

#[test]
fn a_duplicate_comes_back_whole_and_uses_no_key() {
    let mut map = indexed(2, 10);
    assert_eq!(map.push_entry(Entry::new("a", 10).id(1)), Pushed::Stored);
    assert_eq!(map.push_entry(Entry::new("b", 20).id(2)), Pushed::Stored);
    let reason = RejectReason::Duplicate;
    let rejected = Pushed::Rejected { reason, key: "a", value: 11, id: Some(1) };
    assert_eq!(map.push_entry(Entry::new("a", 11).id(1)), rejected);
    assert_eq!(keys(&map), ["a", "b"]);
    assert_eq!((map.stats().rejected, map.stats().duplicates), (1, 1));
}

// A sweep that looked into every array through the promoting getter made what was oldest the last
// to be evicted.
#[test]
fn a_sweep_promotes_nothing() {
    let start = Instant::now();
    let mut map = indexed(3, 10);
    for (seconds, key) in [(0, "a"), (1, "b"), (2, "c"), (3, "b"), (4, "a")] {
        let now = start + Duration::from_secs(seconds);
        assert_eq!(map.push_entry(Entry::new(key, seconds as u32).at(now)), Pushed::Stored);
    }
    assert_eq!(keys(&map), ["c", "b", "a"]);

    // Out goes the first item of "a", of which another is left.
    assert_eq!(map.expire(start + TTL, 10).len(), 1);
    assert_eq!(keys(&map), ["c", "b", "a"]);
    // And of "b" and "c"; nothing is left of "c".
    assert_eq!(map.expire(start + TTL + Duration::from_secs(2), 10).len(), 2);
    assert_eq!(keys(&map), ["b", "a"]);
}

#[test]
fn looking_and_removing_by_id_promote_nothing_but_get_does() {
    let mut map = indexed(3, 10);
    for (id, key) in [(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "b"), (6, "c")] {
        assert_eq!(map.push_entry(Entry::new(key, id).id(id)), Pushed::Stored);
    }
    assert_eq!(map.peek("a").unwrap().len(), 2);
    assert_eq!((map.peek("b").unwrap().oldest(), map.peek("b").unwrap().newest()), (&2, &5));
    assert!(map.contains("a") && map.contains_id(&1));
    assert_eq!(map.iter().count(), 3);
    assert_eq!(map.remove_by_id(&1), Some(("a", 1)));
    assert_eq!(keys(&map), ["a", "b", "c"]);
    assert_eq!(map.get("a").unwrap().iter().collect::<Vec<_>>(), [&4]);
    assert_eq!(keys(&map), ["b", "c", "a"]);
    assert!(map.get("d").is_none());
}

// Running totals that some ways out forgot to lower.
#[test]
fn totals_are_the_sum_of_what_is_there() {
    let start = Instant::now();
    let mut map = indexed(3, 2);
    for round in 0..20_u32 {
        let now = start + TTL * round / 4;
        for (place, key) in ["a", "b", "c", "d", "d", "d"].into_iter().enumerate() {
            let id = round * 10 + place as u32;
            assert!(map.push_entry(Entry::new(key, id).id(id).at(now)).is_stored());
        }
        map.remove_by_id(&(round * 10 + 1));
        drop(map.take("a"));
        drop(map.expire(now, 1));
        let sum: usize = map.iter().map(|(_, array)| array.len()).sum();
        assert_eq!(map.total_items(), sum);
        assert_eq!(map.len(), map.iter().count());
        assert_eq!((map.stats().items, map.stats().keys), (sum, map.len()));
    }
    let left = map.total_items();
    assert_eq!(map.clear().map(|(_, items)| items.len()).sum::<usize>(), left);
    assert_eq!((map.len(), map.total_items(), map.next_expiry()), (0, 0, None));
}

// Two callers took the inner array, mutable, and so went round the cap.
#[test]
fn no_way_in_passes_the_cap() {
    let mut map = indexed(2, 3);
    let mut displaced = Vec::new();
    let mut sink = |pushed| match pushed {
        Pushed::Displaced { value, .. } => displaced.push(value),
        other => panic!("the key is there and full: {other:?}"),
    };
    for value in 0..3 {
        assert_eq!(map.push("a", value), Pushed::Stored);
    }
    sink(map.push("a", 3));
    sink(map.push_entry(Entry::new("a", 4).at(Instant::now())));
    sink(map.push_entry(Entry::new("a", 5).id(5)));
    sink(map.push_entry(Entry::new("a", 6).id(6).at(Instant::now())));
    assert_eq!(map.extend([("a", 7), ("a", 8), ("a", 9), ("a", 10)], &mut sink), 4);
    // To look at alone: it can neither be pushed to nor swapped for another.
    let lent: sluicegate::map::Array<'_, u32> = map.get("a").unwrap();
    assert_eq!(lent.iter().collect::<Vec<_>>(), [&8, &9, &10]);
    // Put back, what was checked out is no more than it was.
    drop(map.checkout("a"));
    assert_eq!((displaced, map.peek("a").unwrap().len()), ((0..8).collect(), 3));
}

// A constructor took entries, and threw for those that did not fit, with half of them in.
#[test]
fn entries_beyond_the_limits_come_back_one_by_one() {
    let mut map = BoundedArrayMap::new(2, 1).unwrap();
    let mut gone = Vec::new();
    let entries = [("a", 1), ("b", 2), ("b", 3), ("c", 4)];
    assert_eq!(map.extend(entries, |pushed| gone.push(pushed)), 4);
    assert_eq!(gone[0], Pushed::Displaced { value: 2, id: None });
    assert!(matches!(gone[1], Pushed::Evicted { key: "a", .. }));
    assert_eq!((gone.len(), map.total_items()), (2, 2));
}

// What a full map does had never been tested.
#[test]
fn a_full_map_evicts_its_least_recently_used_key_with_all_its_items() {
    let mut map = BoundedArrayMap::new(2, 10).unwrap();
    for (key, value) in [("a", 1), ("a", 2), ("b", 3), ("a", 4)] {
        assert_eq!(map.push(key, value), Pushed::Stored);
    }
    let Pushed::Evicted { key: "b", mut items } = map.push("c", 5) else { panic!("b is older") };
    assert_eq!((items.next(), items.next()), (Some(3), None));
    let Pushed::Evicted { key: "a", items } = map.push("d", 6) else { panic!("a is older") };
    assert_eq!(items.collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(map.len(), 2);
    let stats = map.stats();
    assert_eq!((stats.evicted, stats.evicted_keys, stats.peak_keys), (4, 2, 2));
}

#[test]
fn a_full_map_may_refuse_new_keys_and_still_takes_items_under_old_ones() {
    let builder = BoundedArrayMap::builder().max_keys(1).max_items_per_key(2);
    let mut map = builder.full_map(FullMap::RejectNewKey).build().unwrap();
    assert_eq!(map.push("a", 1), Pushed::Stored);
    let reason = RejectReason::MapFull;
    assert_eq!(map.push("b", 2), Pushed::Rejected { reason, key: "b", value: 2, id: None });
    assert_eq!(map.push("a", 3), Pushed::Stored);
    assert_eq!(map.take("a").collect::<Vec<_>>(), [1, 3]);
    assert_eq!(map.push("b", 4), Pushed::Stored);
}

#[test]
fn a_full_key_displaces_its_oldest_item_or_refuses_the_new_one() {
    let builder = BoundedArrayMap::builder().max_keys(2).max_items_per_key(1);
    let mut displacing = builder.clone().full_key(FullKey::DisplaceOldest).build().unwrap();
    assert_eq!(displacing.push("a", 1), Pushed::Stored);
    assert_eq!(displacing.push("a", 2), Pushed::Displaced { value: 1, id: None });

    let mut refusing = builder.full_key(FullKey::RejectNew).build().unwrap();
    assert_eq!(refusing.push("a", 1), Pushed::Stored);
    assert_eq!(refusing.push("b", 2), Pushed::Stored);
    let reason = RejectReason::KeyFull;
    assert_eq!(refusing.push("a", 3), Pushed::Rejected { reason, key: "a", value: 3, id: None });
    assert_eq!(refusing.iter_lru().next().unwrap().0, &"a", "a refused push uses no key");
}

#[test]
fn limits_are_checked_when_the_map_is_built() {
    let builder = BoundedArrayMap::<u8, u8>::builder;
    let refused = |builder: sluicegate::map::Builder<u8, u8>| {
        let error = builder.build().unwrap_err();
        (error.field(), error.to_string())
    };
    assert_eq!(refused(builder().max_items_per_key(1)).0, "max_keys");
    assert_eq!(refused(builder().max_keys(1)).0, "max_items_per_key");
    assert_eq!(refused(builder().max_keys(usize::MAX).max_items_per_key(1)).0, "max_keys");
    assert_eq!(
        refused(builder().max_keys(2).max_items_per_key(u32::MAX as usize / 2 + 1)).1,
        "`max_items_per_key` is 2147483648, but must be at most 4294967294 / `max_keys`",
    );
    let good = || builder().max_keys(2).max_items_per_key(u32::MAX as usize / 2);
    assert_eq!(refused(good().time_to_live(Duration::ZERO)).0, "time_to_live");
    let map = good().time_to_live(TTL).build().unwrap();
    assert_eq!((map.limits().max_keys, map.limits().max_items_per_key), (2, u32::MAX as usize / 2));
    assert_eq!(map.limits().time_to_live, Some(TTL));
}

#[test]
fn the_longest_time_to_live_overflows_nothing() {
    let builder = BoundedArrayMap::builder().max_keys(2).max_items_per_key(2);
    let mut map = builder.time_to_live(Duration::MAX).build().unwrap();
    assert_eq!(map.push("a", 1), Pushed::Stored);
    assert_eq!(map.next_expiry(), None);
    assert!(map.expire(Instant::now() + TTL, 10).is_empty());
    assert_eq!(map.total_items(), 1);
}

#[test]
fn time_that_runs_backwards_does_not_upset_the_order_of_arrival() {
    let start = Instant::now();
    let mut map = indexed(3, 10);
    let later = start + Duration::from_secs(60);
    assert_eq!(map.push_entry(Entry::new("a", 1).at(later)), Pushed::Stored);
    assert_eq!(map.push_entry(Entry::new("b", 2).at(start)), Pushed::Stored);
    assert!(map.expire(start + TTL, 10).is_empty());
    assert_eq!(map.next_expiry(), Some(later + TTL));
    assert_eq!(map.take("a").collect::<Vec<_>>(), [1]);
    assert_eq!(map.next_expiry(), Some(later + TTL), "it has not arrived before the first");
    assert!(map.expire(start + TTL, 10).is_empty());
    let expired: Vec<_> = map.expire(later + TTL, 10).into_iter().map(|item| item.value).collect();
    assert_eq!(expired, [2]);
}

#[test]
fn a_limit_bounds_a_sweep_and_the_next_one_goes_on() {
    let start = Instant::now();
    let mut map = indexed(10, 10);
    for value in 0..5 {
        assert_eq!(map.push_entry(Entry::new("a", value).at(start)), Pushed::Stored);
    }
    let values = |map: &mut Indexed, limit| -> Vec<u32> {
        map.expire(start + TTL, limit).into_iter().map(|item| item.value).collect()
    };
    assert!(values(&mut map, 0).is_empty());
    assert_eq!(values(&mut map, 2), [0, 1]);
    assert_eq!(values(&mut map, usize::MAX), [2, 3, 4]);
    assert!(values(&mut map, usize::MAX).is_empty());
    assert!(map.is_empty());
}

#[test]
fn a_destructor_that_panics_in_what_came_back_does_not_reach_the_map() {
    thread_local!(static DROPPED: Cell<u32> = const { Cell::new(0) });
    struct Bomb(bool);
    impl Drop for Bomb {
        fn drop(&mut self) {
            DROPPED.set(DROPPED.get() + 1);
            if self.0 {
                panic::resume_unwind(Box::new("a destructor"));
            }
        }
    }

    let mut map = BoundedArrayMap::new(2, 3).unwrap();
    for live in [true, false, false] {
        assert!(map.push("a", Bomb(live)).is_stored());
    }
    assert!(map.push("b", Bomb(false)).is_stored());
    let displacing = AssertUnwindSafe(|| drop(map.push("a", Bomb(true))));
    assert!(panic::catch_unwind(displacing).is_err());
    assert_eq!((map.len(), map.total_items(), DROPPED.get()), (2, 4, 1));
    assert!(panic::catch_unwind(AssertUnwindSafe(|| drop(map.take("a")))).is_err());
    assert_eq!((map.len(), map.total_items(), DROPPED.get()), (1, 1, 4));
    drop(map);
    assert_eq!(DROPPED.get(), 5);
}

/// Key, id or value whose destructor calls the map that it came out of.
struct Caller {
    number: u32,
    map: Weak<Shared>,
    calls: Arc<AtomicUsize>,
}

type Shared = SharedBoundedArrayMap<Caller, Caller, Caller>;

thread_local!(static PANIC_IN_EQ: Cell<bool> = const { Cell::new(false) });

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(map) = self.map.upgrade() {
            // Would wait for ever, were it called under the lock.
            let _ = map.len();
            self.calls.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Clone for Caller {
    fn clone(&self) -> Self {
        Self { number: self.number, map: self.map.clone(), calls: Arc::clone(&self.calls) }
    }
}

impl Hash for Caller {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl PartialEq for Caller {
    fn eq(&self, other: &Self) -> bool {
        if PANIC_IN_EQ.get() {
            panic::resume_unwind(Box::new("Eq"));
        }
        self.number == other.number
    }
}

impl Eq for Caller {}

#[test]
fn the_shared_form_drops_nothing_under_its_lock() {
    let (done, finished) = mpsc::channel();
    thread::spawn(move || {
        let start = Instant::now();
        let builder = BoundedArrayMap::builder().max_keys(1).max_items_per_key(2).indexed();
        let shared: Arc<Shared> = Arc::new(builder.time_to_live(TTL).build_shared().unwrap());
        let calls = Arc::new(AtomicUsize::new(0));
        let new =
            |number| Caller { number, map: Arc::downgrade(&shared), calls: Arc::clone(&calls) };
        // Pushes an item under a key and forgets what comes back.
        let push = |key, id| {
            drop(shared.push_entry(Entry::new(new(key), new(0)).id(new(id)).at(start)));
            calls.swap(0, Ordering::Relaxed)
        };
        assert_eq!(push(1, 1), 0, "nothing is left over");
        assert_eq!(push(1, 2), 1, "the spare key");
        assert_eq!(push(1, 3), 3, "the spare key, the displaced value and its id");
        assert_eq!(push(1, 3), 3, "all that was refused");
        assert_eq!(push(2, 4), 5, "the evicted key, two values and two ids");

        assert_eq!(push(2, 5), 1, "the spare key");
        let id = new(5);
        drop(shared.remove_by_id(&id));
        assert_eq!(calls.swap(0, Ordering::Relaxed), 3, "a clone of the key, value and id");
        drop(shared.expire(start + TTL, 10));
        assert_eq!(calls.swap(0, Ordering::Relaxed), 3, "key, value and id");

        assert_eq!(push(3, 6), 0);
        let key = new(3);
        drop(shared.take(&key));
        assert_eq!(calls.swap(0, Ordering::Relaxed), 3, "key, value and id");
        assert_eq!(push(3, 6), 0);
        drop(shared.clear());
        assert_eq!(calls.swap(0, Ordering::Relaxed), 3, "key, value and id");

        assert_eq!(push(3, 6), 0);
        PANIC_IN_EQ.set(true);
        let refused = panic::catch_unwind(AssertUnwindSafe(|| push(3, 7)));
        PANIC_IN_EQ.set(false);
        assert!(refused.is_err());
        assert_eq!(calls.load(Ordering::Relaxed), 3, "the arguments of the call that panicked");
        assert_eq!((shared.stats().pushed, shared.total_items()), (9, 1));
        done.send(()).unwrap();
    });
    let limit = Duration::from_secs(20);
    finished.recv_timeout(limit).expect("it deadlocked, or the thread has said why it failed");
}

#[test]
fn both_forms_are_as_portable_as_what_is_in_them() {
    fn portable<T: Send + Sync + Unpin>() {}
    portable::<BoundedArrayMap<String, Vec<u8>, u64>>();
    portable::<SharedBoundedArrayMap<String, Vec<u8>, u64>>();
    portable::<SharedBoundedArrayMap<String, Cell<u8>>>();
    portable::<sluicegate::map::Builder<*const u8, *const u8>>();
    portable::<sluicegate::map::IntoIter<String, u8>>();
}

#[cfg(feature = "serde")]
#[test]
fn what_is_written_and_read_again_keeps_its_order() {
    use serde::de::DeserializeSeed;

    let mut map = BoundedArrayMap::new(3, 3).unwrap();
    for (key, value) in [("a", 1), ("b", 2), ("c", 3), ("a", 4)] {
        assert!(map.push(key.to_string(), value).is_stored());
    }
    let written = serde_json::to_string(&map).unwrap();
    assert_eq!(written, r#"[["b",[2]],["c",[3]],["a",[1,4]]]"#);

    // The one that reads has limits of its own, which hold.
    let mut smaller = BoundedArrayMap::<String, i32>::new(2, 1).unwrap();
    let mut gone = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(&written);
    smaller.restore_with(|pushed| gone.push(pushed)).deserialize(&mut reader).unwrap();
    assert_eq!(serde_json::to_string(&smaller).unwrap(), r#"[["c",[3]],["a",[4]]]"#);
    assert!(matches!(&gone[0], Pushed::Evicted { key, .. } if key == "b"));
    assert_eq!(gone[1], Pushed::Displaced { value: 1, id: None });

    let stats = serde_json::to_string(&smaller.stats()).unwrap();
    let read: sluicegate::map::MapStats = serde_json::from_str(&stats).unwrap();
    assert_eq!(read, smaller.stats());
}

#[test]
fn a_panic_in_what_the_user_gave_loses_nothing() {
    let builder = BoundedArrayMap::builder().max_keys(9).max_items_per_key(9);
    let weigh = |_: &&str, value: &u32| match value {
        99 => panic::resume_unwind(Box::new("a weigher")),
        value => u64::from(*value),
    };
    let mut map = builder.max_weight(10, weigh).build().unwrap();
    for (key, value) in [("a", 3), ("b", 3), ("c", 3)] {
        assert_eq!(map.push(key, value), Pushed::Stored);
    }
    let caught = |act: &mut dyn FnMut()| panic::catch_unwind(AssertUnwindSafe(act)).unwrap_err();

    caught(&mut || {
        drop(map.push("a", 99));
    });
    caught(&mut || {
        drop(map.remove_if("a", |_| panic::resume_unwind(Box::new("a predicate"))));
    });
    caught(&mut || {
        drop(map.retain(|key, _| match *key {
            "c" => panic::resume_unwind(Box::new("a predicate")),
            _ => false,
        }));
    });
    assert_eq!((map.total_items(), map.stats().weight, map.stats().pushed), (3, 9, 3));

    let mut seen = Vec::new();
    caught(&mut || {
        map.extend([("d", 10)], |pushed| {
            seen.extend(each(pushed));
            panic::resume_unwind(Box::new("a sink"));
        });
    });
    assert_eq!(seen.len(), 3, "all that left is in one outcome");
    assert_eq!((map.total_items(), map.stats().weight, map.stats().evicted), (1, 10, 3));
    let reason = RejectReason::TooHeavy;
    assert_eq!(map.push("e", 11), Pushed::Rejected { reason, key: "e", value: 11, id: None });
}

#[test]
fn a_shared_map_that_was_cleared_still_finds_its_keys() {
    let map = SharedBoundedArrayMap::new(2, 2).unwrap();
    assert_eq!(map.push("a", 1), Pushed::Stored);
    assert_eq!(map.clear().count(), 1);
    for item in 2..4 {
        assert_eq!(map.push("a", item), Pushed::Stored);
    }
    assert!(map.contains("a"));
    assert_eq!(map.take("a").collect::<Vec<_>>(), [2, 3]);
}
