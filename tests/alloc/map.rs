//! How often the map asks for memory once it has warmed up.

use allocation_counter::measure;
use sluicegate::map::Entry;
use sluicegate::{BoundedArrayMap, Pushed};

const KEYS: u64 = 100;
const ITEMS: u64 = 50;

fn filled() -> BoundedArrayMap<u64, u64> {
    let mut map = BoundedArrayMap::new(KEYS as usize, ITEMS as usize).unwrap();
    for item in 0..ITEMS {
        for key in 0..KEYS {
            assert_eq!(map.push(key, item), Pushed::Stored);
        }
    }
    map
}

#[test]
fn displacing_allocates_nothing() {
    let mut map = filled();
    let used = measure(|| {
        for item in 0..10 * ITEMS {
            for key in 0..KEYS {
                let pushed = map.push(key, item);
                assert!(matches!(pushed, Pushed::Displaced { .. }));
            }
        }
    });
    assert_eq!(used.count_total, 0);
}

#[test]
fn one_item_a_key_allocates_nothing_however_the_keys_come_and_go() {
    let mut map = BoundedArrayMap::new(KEYS as usize, ITEMS as usize).unwrap();
    let mut push = |keys: core::ops::Range<u64>| {
        for key in keys {
            drop(map.push(key, key));
            if key % 3 == 0 {
                drop(map.take(&(key / 2)));
            }
        }
    };
    push(0..10_000);
    assert_eq!(measure(|| push(10_000..20_000)).count_total, 0);
}

#[test]
fn a_key_that_was_taken_and_fills_up_again_allocates_once() {
    let mut map = filled();
    let round = |map: &mut BoundedArrayMap<u64, u64>| {
        for key in 0..KEYS {
            assert_eq!(map.take(&key).len(), ITEMS as usize);
            for item in 0..ITEMS {
                assert_eq!(map.push(key, item), Pushed::Stored);
            }
        }
    };
    round(&mut map);
    let used = measure(|| round(&mut map));
    assert!(used.count_total <= KEYS, "{used:?}");
}

#[test]
fn an_evicted_key_takes_one_buffer_along_and_no_more() {
    let mut map = filled();
    let mut key = KEYS;
    let mut round = |map: &mut BoundedArrayMap<u64, u64>| {
        for _ in 0..KEYS {
            for item in 0..ITEMS {
                drop(map.push(key, item));
            }
            key += 1;
        }
    };
    round(&mut map);
    let used = measure(|| round(&mut map));
    // Keys that come and go leave marks in the table, for which it grows once: sooner or later, as
    // their hashes fall.
    assert!(used.count_total <= KEYS + 1, "{used:?}");
}

#[test]
fn items_that_expire_and_are_indexed_come_and_go_without_allocating() {
    let start = std::time::Instant::now();
    let mut map = BoundedArrayMap::builder()
        .max_keys(KEYS as usize)
        .max_items_per_key(ITEMS as usize)
        .time_to_live(std::time::Duration::from_secs(60))
        .indexed::<u64>()
        .build()
        .unwrap();
    for id in 0..KEYS * ITEMS {
        assert_eq!(map.push_entry(Entry::new(id % KEYS, id).id(id).at(start)), Pushed::Stored);
    }
    let mut round = |from: u64| {
        for id in from..from + 5 * KEYS * ITEMS {
            let pushed = map.push_entry(Entry::new(id % KEYS, id).id(id).at(start));
            assert!(matches!(pushed, Pushed::Displaced { .. }));
            assert!(map.remove_by_id(&id).is_some());
            assert!(map.push_entry(Entry::new(id % KEYS, id).id(id).at(start)).is_stored());
        }
    };
    // The table of ids first finds the size at which it has room to tidy up in place: it grows
    // once, as hashes fall in the one round or, seldom, in the other.
    round(KEYS * ITEMS);
    assert!(measure(|| round(6 * KEYS * ITEMS)).count_total <= 1);
}

/// What the documentation of the map says it takes.
#[test]
fn memory_is_what_the_documentation_says() {
    let keys: u64 = 1 << 14;
    let resident = |items: u64| {
        let mut map = BoundedArrayMap::new(keys as usize, 128).unwrap();
        let used = measure(|| {
            for item in 0..items {
                for key in 0..keys {
                    assert_eq!(map.push(key, item), Pushed::Stored);
                }
            }
        });
        used.bytes_current as f64 / keys as f64
    };
    let (one, many) = (resident(1), resident(128));
    assert!(one <= 96.0, "{one}");
    assert!(many / 128.0 <= 18.0, "{}", many / 128.0);
}
