//! Push, get and take.

use std::hint::black_box;
use std::time::{Duration, Instant};

use sluicegate::map::{Builder, Entry};
use sluicegate::{BoundedArrayMap, Pushed};

use crate::row;

const KEYS: u64 = 1_000;
const PER_KEY: u64 = 4;

fn limits() -> Builder<u64, u64> {
    BoundedArrayMap::builder().max_keys(KEYS as usize).max_items_per_key(PER_KEY as usize)
}

/// The rows that the three forms have in common.
macro_rules! common {
    ($name:literal, $map:expr) => {{
        #[allow(unused_mut, reason = "only one of the forms is pushed to through `&mut`")]
        let mut map = $map;
        row(concat!($name, ": push of a new key, take"), 10_000, |n| {
            for key in 0..n {
                assert!(black_box(&mut map).push(key, key).is_stored());
                assert_eq!(black_box(&mut map).take(&key).len(), 1);
            }
        });
        row(concat!($name, ": 4 pushes to a key, take"), 1_000, |n| {
            for key in 0..n {
                for item in 0..PER_KEY {
                    assert!(map.push(key, item).is_stored());
                }
                assert_eq!(map.take(&key).len(), 4);
            }
        });
        for key in 0..KEYS * PER_KEY {
            assert!(map.push(key % KEYS, key).is_stored());
        }
        row(concat!($name, ": push to a full key, displaces"), 10_000, |n| {
            for key in 0..n {
                let pushed = black_box(&mut map).push(key % KEYS, key);
                assert!(matches!(pushed, Pushed::Displaced { .. }));
            }
        });
        row(concat!($name, ": contains"), 10_000, |n| {
            for key in 0..n {
                assert!(black_box(&map).contains(&(key % KEYS)));
            }
        });
        let mut keys = KEYS..;
        row(concat!($name, ": push to a full map, evicts"), 10_000, |n| {
            for key in keys.by_ref().take(n as usize) {
                let pushed = black_box(&mut map).push(key, key);
                assert!(matches!(pushed, Pushed::Evicted { .. }));
            }
        });
        for key in 0..KEYS {
            let _pushed = map.push(key, key);
        }
        row(concat!($name, ": checkout, acknowledge, push"), 5_000, |n| {
            for key in 0..n {
                let mut checkout = map.checkout(&(key % KEYS)).expect("it is there");
                assert!(checkout.acknowledge().is_some());
                drop(checkout);
                assert!(map.push(key % KEYS, key).is_stored());
            }
        });
    }};
}

pub(crate) fn rows() {
    common!("map", limits().build().expect("good limits"));
    common!("shared map", limits().build_shared().expect("good limits"));
    common!("sharded map", limits().build_sharded(4).expect("good limits"));

    let mut map = limits().build().expect("good limits");
    for key in 0..KEYS {
        assert!(map.push(key, key).is_stored());
    }
    row("map: get", 10_000, |n| {
        for key in 0..n {
            assert!(black_box(&mut map).get(&(key % KEYS)).is_some());
        }
    });
    let mut map = limits().indexed::<u64>().build().expect("good limits");
    row("map: push_unique, cancel", 10_000, |n| {
        for id in 0..n {
            assert!(map.push_entry(Entry::new(id % KEYS, id).id(id)).is_stored());
            assert!(map.remove_by_id(&id).is_some());
        }
    });
    let (start, ttl) = (Instant::now(), Duration::from_secs(1));
    let mut map = limits().time_to_live(ttl).build().expect("good limits");
    row("map: push_at, expire", 10_000, |n| {
        for key in 0..n {
            assert!(map.push_entry(Entry::new(key, key).at(start)).is_stored());
            assert_eq!(map.expire(start + ttl, 10).len(), 1);
        }
    });
    let mut map = limits().max_items(KEYS as usize).build().expect("good limits");
    let mut keys = 0..;
    row("map: push_with to a map with a total, evicts", 10_000, |n| {
        for key in keys.by_ref().take(n as usize) {
            drop(black_box(map.push(key, key)));
        }
    });
}
