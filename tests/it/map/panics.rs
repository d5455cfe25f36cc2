//! What the user gave may panic where nobody looks: as a key that is no longer needed is dropped,
//! say. It costs no value.

use std::cell::Cell;
use std::hash::Hash;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use sluicegate::map::Entry;
use sluicegate::{BoundedArrayMap, Pushed, SharedBoundedArrayMap};

thread_local! {
    static DROP_PANICS: Cell<bool> = const { Cell::new(false) };
    /// How many clones are left before one panics.
    static CLONES: Cell<u32> = const { Cell::new(u32::MAX) };
}

/// Is as touchy as the thread says.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Touchy(u32);

impl Drop for Touchy {
    fn drop(&mut self) {
        assert!(!DROP_PANICS.replace(false), "a destructor that panics");
    }
}

impl Clone for Touchy {
    fn clone(&self) -> Self {
        let left = CLONES.get();
        CLONES.set(left.wrapping_sub(1));
        assert!(left > 0, "a clone that panics");
        Self(self.0)
    }
}

/// Calls something in which a key or an id is dropped, which panics.
fn with_panic_in_drop<R>(act: impl FnOnce() -> R) -> R {
    DROP_PANICS.set(true);
    let result = act();
    assert!(!DROP_PANICS.get(), "nothing was dropped");
    result
}

#[test]
fn a_spare_key_that_panics_costs_no_displaced_value() {
    let mut map = BoundedArrayMap::new(2, 1).unwrap();
    let shared = SharedBoundedArrayMap::new(2, 1).unwrap();
    let sharded = BoundedArrayMap::builder().max_keys(2).max_items_per_key(1).build_sharded(2);
    let sharded = sharded.unwrap();
    assert!(map.push(Touchy(1), 1).is_stored());
    assert!(shared.push(Touchy(1), 1).is_stored());
    assert!(sharded.push(Touchy(1), 1).is_stored());

    let displaced = Pushed::Displaced { value: 1, id: None };
    assert_eq!(with_panic_in_drop(|| map.push(Touchy(1), 2)), displaced);
    assert_eq!(with_panic_in_drop(|| shared.push(Touchy(1), 2)), displaced);
    assert_eq!(with_panic_in_drop(|| sharded.push(Touchy(1), 2)), displaced);
    let displaced = Pushed::Displaced { value: 2, id: None };
    let entry = || Entry::new(Touchy(1), 3);
    assert_eq!(with_panic_in_drop(|| map.push_entry(entry())), displaced);
    assert_eq!(with_panic_in_drop(|| shared.push_entry(entry())), displaced);
    assert_eq!(with_panic_in_drop(|| sharded.push_entry(entry())), displaced);
}

#[test]
fn a_key_that_panics_costs_none_of_the_items_that_were_taken() {
    let mut map = BoundedArrayMap::new(2, 9).unwrap();
    let shared = SharedBoundedArrayMap::new(2, 9).unwrap();
    let sharded = BoundedArrayMap::builder().max_keys(2).max_items_per_key(9).build_sharded(2);
    let sharded = sharded.unwrap();
    for value in 0..5 {
        assert!(map.push(Touchy(1), value).is_stored());
        assert!(map.push(Touchy(2), value).is_stored());
        assert!(shared.push(Touchy(1), value).is_stored());
        assert!(sharded.push(Touchy(1), value).is_stored());
    }
    let (one, two) = (Touchy(1), Touchy(2));
    assert_eq!(with_panic_in_drop(|| map.take(&one)).len(), 5);
    assert_eq!(with_panic_in_drop(|| map.remove_if(&two, |_| true)).len(), 5);
    assert_eq!(with_panic_in_drop(|| shared.take(&one)).len(), 5);
    assert_eq!(with_panic_in_drop(|| sharded.take(&one)).len(), 5);
}

#[test]
fn an_id_that_panics_costs_no_value_and_leaves_the_rest_in_pairs() {
    let builder = BoundedArrayMap::builder().max_keys(2).max_items_per_key(9).indexed::<Touchy>();
    let map = builder.build_shared().unwrap();
    for value in 0..6 {
        assert!(map.push_entry(Entry::new("a", value).id(Touchy(value))).is_stored());
    }
    let five = Touchy(5);
    assert_eq!(with_panic_in_drop(|| map.remove_by_id(&five)), Some(("a", 5)));
    let mut checkout = map.checkout("a").unwrap();
    assert_eq!(with_panic_in_drop(|| checkout.acknowledge()), Some(0));
    drop(checkout);
    let mut items = map.take("a");
    assert_eq!(with_panic_in_drop(|| items.next()), Some(1));
    assert_eq!(with_panic_in_drop(|| items.next_back()), Some(4));
    let pairs: Vec<_> = items.with_ids().map(|(value, id)| (value, id.unwrap().0)).collect();
    assert_eq!(pairs, [(2, 2), (3, 3)]);
}

#[test]
fn an_observer_whose_panic_panics_again_as_it_is_dropped_costs_no_value() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a payload that panics");
        }
    }
    let map = SharedBoundedArrayMap::new(1, 1).unwrap();
    let map = map.with_observer(|_| panic::panic_any(Bomb));
    assert!(map.push("a", 1).is_stored());
    assert_eq!(map.push("a", 2), Pushed::Displaced { value: 1, id: None });
    assert_eq!(map.observer_panics(), 1);
}

#[test]
fn a_clone_that_panics_in_one_shard_costs_nothing_of_what_others_handed_over() {
    let time_to_live = Duration::from_secs(1);
    let builder = BoundedArrayMap::builder().max_keys(64).max_items_per_key(4);
    let map = builder.time_to_live(time_to_live).build_sharded(8).unwrap();
    let start = Instant::now();
    for key in 0..32 {
        for value in 0..2 {
            assert!(map.push_entry(Entry::new(Touchy(key), value).at(start)).is_stored());
        }
    }
    let due = start + time_to_live;
    // Of each two items one comes with a clone.
    CLONES.set(20);
    let some = map.expire(due, usize::MAX).len();
    assert!((1..64).contains(&some));

    // The panic that was held back comes if there is nothing to hand over with it.
    CLONES.set(0);
    assert!(panic::catch_unwind(AssertUnwindSafe(|| map.expire(due, usize::MAX))).is_err());
    CLONES.set(u32::MAX);
    assert_eq!(some + map.expire(due, usize::MAX).len(), 64);
    assert!(map.is_empty());
}

#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn a_sweeper_goes_on_after_a_clone_that_panics() {
    use std::sync::{Arc, Mutex};

    use sluicegate::map::Sweeper;

    let builder = BoundedArrayMap::builder().max_keys(9).max_items_per_key(9);
    let map = Arc::new(builder.time_to_live(Duration::from_nanos(1)).build_shared().unwrap());
    let start = tokio::time::Instant::now().into_std();
    for value in 0..3 {
        assert!(map.push_entry(Entry::new(Touchy(1), value).at(start)).is_stored());
    }
    CLONES.set(0);
    let swept = Arc::new(Mutex::new(Vec::new()));
    let report = Arc::clone(&swept);
    let period = Duration::from_secs(1);
    let sweeper = Sweeper::spawn(&map, period, 10, move |expired| {
        report.lock().unwrap().extend(expired.into_iter().map(|item| item.value));
    });
    tokio::time::sleep(period * 3 / 2).await;
    assert_eq!(map.total_items(), 3);
    tokio::time::sleep(period).await;
    assert_eq!(*swept.lock().unwrap(), [0, 1, 2]);
    sweeper.unwrap().stop().await;
}
