//! A map that is dropped reports what was in it to its observer: once, all of it, in the order of
//! eviction, whatever else goes wrong at that moment. What was handed over before is not in it.
//!
//! Seen to fail with: no `drop` of one's own, for each form; the first shard alone; no keys of
//! leaked checkouts, or with the ids of what was leaked; destructors whose panic is let through;
//! the other order; an observer that does not pass from the owned form to the shared one.

use std::collections::HashSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluicegate::map::{Entry, Event, Items, Resize};
use sluicegate::{
    BoundedArrayMap, FullKey, FullMap, Pushed, ShardedBoundedArrayMap, SharedBoundedArrayMap,
};

type Rows = Vec<(u8, Vec<u32>)>;

/// What an observer was seen.
#[derive(Debug, Default, Clone, PartialEq)]
struct Heard {
    displaced: Vec<u32>,
    evicted: Vec<u32>,
    expired: Vec<u32>,
    rejected: Vec<u32>,
    dropped: Rows,
}

type Log = Arc<Mutex<Heard>>;

fn hear<Id>(log: &Log, event: &Event<'_, u8, u32, Id>) {
    let mut heard = log.lock().unwrap();
    match event {
        Event::Displaced { value, .. } => heard.displaced.push(**value),
        Event::Evicted { items, .. } => heard.evicted.extend(items.iter()),
        Event::Expired(expired) => heard.expired.push(expired.value),
        Event::Rejected { value, .. } => heard.rejected.push(**value),
        Event::Dropped { key, items } => {
            heard.dropped.push((**key, items.iter().copied().collect()));
        }
        _ => unreachable!("there are no other events"),
    }
}

fn observer<Id>(log: &Log) -> impl Fn(Event<'_, u8, u32, Id>) + Send + Sync + 'static {
    let log = Arc::clone(log);
    move |event| hear(&log, &event)
}

/// One of the three forms.
enum Map {
    Owned(BoundedArrayMap<u8, u32>),
    Shared(SharedBoundedArrayMap<u8, u32>),
    Sharded(ShardedBoundedArrayMap<u8, u32>),
}

macro_rules! each {
    ($map:expr, $of:ident => $call:expr) => {
        match $map {
            Map::Owned($of) => $call,
            Map::Shared($of) => $call,
            Map::Sharded($of) => $call,
        }
    };
}

fn forms(max_keys: usize, max_per_key: usize) -> [Map; 3] {
    let builder = BoundedArrayMap::builder().max_keys(max_keys).max_items_per_key(max_per_key);
    [
        Map::Owned(builder.clone().build().unwrap()),
        Map::Shared(builder.clone().build_shared().unwrap()),
        Map::Sharded(builder.build_sharded(1).unwrap()),
    ]
}

impl Map {
    fn heard_by(self, observer: impl Fn(Event<'_, u8, u32>) + Send + Sync + 'static) -> Self {
        match self {
            Self::Owned(map) => Self::Owned(map.with_observer(observer)),
            Self::Shared(map) => Self::Shared(map.with_observer(observer)),
            Self::Sharded(map) => Self::Sharded(map.with_observer(observer)),
        }
    }

    fn push(&mut self, key: u8, value: u32) -> Pushed<u8, u32> {
        each!(self, map => map.push(key, value))
    }
}

#[test]
fn all_that_is_resident_is_told_in_the_order_of_eviction() {
    for map in forms(9, 9) {
        let log = Log::default();
        let mut map = map.heard_by(observer(&log));
        for (key, value) in [(1, 10), (2, 20), (1, 11), (3, 30), (2, 21)] {
            assert!(map.push(key, value).is_stored());
        }
        drop(map);
        let rows = vec![(1, vec![10, 11]), (3, vec![30]), (2, vec![20, 21])];
        assert_eq!(*log.lock().unwrap(), Heard { dropped: rows, ..Heard::default() });
    }
}

#[test]
fn all_shards_are_told() {
    let log = Log::default();
    let builder = BoundedArrayMap::builder().max_keys(64).max_items_per_key(1);
    let map = builder.build_sharded(8).unwrap().with_observer(observer(&log));
    for key in 0..64 {
        assert!(map.push(key, u32::from(key)).is_stored());
    }
    drop(map);
    let mut rows = std::mem::take(&mut log.lock().unwrap().dropped);
    rows.sort();
    assert_eq!(rows, (0..64).map(|key| (key, vec![u32::from(key)])).collect::<Rows>());
}

#[test]
fn a_map_that_a_panic_drops_tells_too() {
    for map in forms(9, 9) {
        let log = Log::default();
        let mut map = map.heard_by(observer(&log));
        assert!(map.push(1, 10).is_stored());
        let unwound = panic::catch_unwind(AssertUnwindSafe(move || {
            let _map = map;
            panic::resume_unwind(Box::new("while the map is held"));
        }));
        assert!(unwound.is_err());
        assert_eq!(log.lock().unwrap().dropped, [(1, vec![10])]);
    }
}

#[test]
fn an_observer_that_panics_sees_the_rest_also_while_another_panic_unwinds() {
    for unwinding in [false, true] {
        for map in forms(9, 9) {
            let log = Log::default();
            let sink = Arc::clone(&log);
            let mut map = map.heard_by(move |event| {
                hear(&sink, &event);
                panic::resume_unwind(Box::new("an observer"));
            });
            for key in 0..3 {
                assert!(map.push(key, 7).is_stored());
            }
            let dropped = panic::catch_unwind(AssertUnwindSafe(move || {
                let _map = map;
                if unwinding {
                    panic::resume_unwind(Box::new("while the map is held"));
                }
            }));
            assert_eq!(dropped.is_err(), unwinding, "the observer's panic ends in the map");
            assert_eq!(log.lock().unwrap().dropped.len(), 3);
        }
    }
}

/// A value whose destructor panics, and says that it ran.
#[derive(Debug)]
struct Touchy(Arc<Mutex<usize>>);

impl Drop for Touchy {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
        panic::resume_unwind(Box::new("a destructor"));
    }
}

#[test]
fn destructors_that_panic_keep_nothing_from_the_observer() {
    let builder = BoundedArrayMap::builder().max_keys(9).max_items_per_key(9);
    let (drops, seen) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let observer = || {
        let seen = Arc::clone(&seen);
        move |event: Event<'_, u8, Touchy>| {
            if let Event::Dropped { items, .. } = event {
                *seen.lock().unwrap() += items.iter().count();
            }
        }
    };
    let mut owned = builder.clone().build().unwrap().with_observer(observer());
    let shared = builder.clone().build_shared().unwrap().with_observer(observer());
    let sharded = builder.build_sharded(2).unwrap().with_observer(observer());
    for value in 0..6 {
        assert!(owned.push(value % 3, Touchy(Arc::clone(&drops))).is_stored());
        assert!(shared.push(value % 3, Touchy(Arc::clone(&drops))).is_stored());
        assert!(sharded.push(value % 3, Touchy(Arc::clone(&drops))).is_stored());
    }
    drop((owned, shared, sharded));
    assert_eq!((*drops.lock().unwrap(), *seen.lock().unwrap()), (18, 18));
}

#[test]
fn what_was_handed_over_is_not_told() {
    let log = Log::default();
    let filled = || {
        let mut map = BoundedArrayMap::new(9, 9).unwrap().with_observer(observer(&log));
        for value in 0..4 {
            assert!(map.push(value as u8 % 2, value).is_stored());
        }
        map
    };
    let count = |rows: &mut dyn Iterator<Item = (u8, Items<u32>)>| -> usize {
        rows.map(|(_, items)| items.len()).sum()
    };

    let mut owned = filled();
    assert_eq!(count(&mut owned.clear()), 4);
    drop(owned);
    assert_eq!(count(&mut filled().into_iter()), 4);
    // Also if it is then lost: it was the caller's.
    drop(filled().into_iter());
    let shared = SharedBoundedArrayMap::from(filled());
    assert_eq!(count(&mut shared.clear()), 4);
    drop(shared);
    let inner = SharedBoundedArrayMap::from(filled()).into_inner();
    assert_eq!(inner.total_items(), 4);
    drop(inner);
    let builder = BoundedArrayMap::builder().max_keys(9).max_items_per_key(9);
    let sharded = builder.build_sharded(3).unwrap().with_observer(observer(&log));
    assert!(sharded.push(1, 1).is_stored());
    assert_eq!(count(&mut sharded.clear().into_iter().flatten()), 1);
    drop(sharded);
    assert_eq!(*log.lock().unwrap(), Heard::default());

    // From the owned form to the shared one it is the same observer.
    drop(SharedBoundedArrayMap::from(filled()));
    assert_eq!(log.lock().unwrap().dropped, [(0, vec![0, 2]), (1, vec![1, 3])]);
}

#[test]
fn a_leaked_checkout_is_not_told_and_what_came_since_is_with_its_own_ids() {
    let builder = BoundedArrayMap::builder().max_keys(9).max_items_per_key(9).indexed::<u32>();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let map = builder.build_shared().unwrap().with_observer(move |event| {
        if let Event::Dropped { key, items } = event {
            let pairs = items.clone().with_ids().map(|(value, id): (u32, _)| (value, id.unwrap()));
            sink.lock().unwrap().push((*key, pairs.collect::<Vec<_>>()));
        }
    });
    for (key, value) in [("a", 1), ("a", 2), ("b", 3), ("c", 4)] {
        assert!(map.push_entry(Entry::new(key, value).id(10 * value)).is_stored());
    }
    std::mem::forget(map.checkout("a").unwrap());
    std::mem::forget(map.checkout("c").unwrap());
    assert!(map.push_entry(Entry::new("a", 5).id(50)).is_stored());
    drop(map);
    assert_eq!(*seen.lock().unwrap(), [("b", vec![(3, 30)]), ("a", vec![(5, 50)])]);
}

#[test]
fn the_last_handle_reports_on_its_thread_without_a_lock() {
    let (seen, map) = (Arc::new(Mutex::new(None)), SharedBoundedArrayMap::new(9, 9).unwrap());
    let sink = Arc::clone(&seen);
    let map = Arc::new_cyclic(|this: &std::sync::Weak<SharedBoundedArrayMap<u8, u32>>| {
        let this = this.clone();
        map.with_observer(move |_| {
            assert!(this.upgrade().is_none(), "nobody can use it any more");
            *sink.lock().unwrap() = Some(std::thread::current().id());
        })
    });
    assert!(map.push(1, 1).is_stored());
    let dropper = std::thread::spawn(move || drop(map));
    let id = dropper.thread().id();
    dropper.join().unwrap();
    assert_eq!(*seen.lock().unwrap(), Some(id));
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Push { key: u8 },
    Take { key: u8 },
    RemoveIf { key: u8 },
    CheckOut { key: u8, acknowledged: usize, leak: bool },
    Expire { limit: usize },
    Resize { max_keys: usize, max_per_key: usize },
    Clear,
}

fn operation() -> impl Strategy<Value = Operation> {
    let key = || 0..6_u8;
    prop_oneof![
        20 => key().prop_map(|key| Operation::Push { key }),
        1 => key().prop_map(|key| Operation::Take { key }),
        1 => key().prop_map(|key| Operation::RemoveIf { key }),
        2 => (key(), 0..3_usize, prop::bool::weighted(0.2)).prop_map(|(key, acknowledged, leak)| {
            Operation::CheckOut { key, acknowledged, leak }
        }),
        1 => (0..4_usize).prop_map(|limit| Operation::Expire { limit }),
        1 => (1..5_usize, 1..4_usize)
            .prop_map(|(max_keys, max_per_key)| Operation::Resize { max_keys, max_per_key }),
        1 => Just(Operation::Clear),
    ]
}

/// The values that an operation has handed over and those that it has leaked.
fn apply(map: &mut Map, operation: Operation, value: u32, start: Instant) -> [Vec<u32>; 2] {
    let (mut out, mut leaked) = (Vec::new(), Vec::new());
    match operation {
        Operation::Push { key } => {
            match each!(map, map => map.push_entry(Entry::new(key, value).at(start))) {
                Pushed::Stored => {}
                Pushed::Displaced { value, .. } | Pushed::Rejected { value, .. } => out.push(value),
                Pushed::Evicted { items, .. } => out.extend(items),
                Pushed::Several(gone) => {
                    out.extend(gone.displaced.into_iter().map(|(value, _)| value));
                    out.extend(gone.evicted.into_iter().flat_map(|(_, items)| items));
                }
            };
        }
        Operation::Take { key } => out.extend(each!(map, map => map.take(&key))),
        Operation::RemoveIf { key } => {
            out.extend(each!(map, map => map.remove_if(&key, |value| value % 2 == 0)));
        }
        Operation::CheckOut { key, acknowledged, leak } => each!(map, map => {
            if let Some(mut guard) = map.checkout(&key) {
                out.extend((0..acknowledged).map_while(|_| guard.acknowledge()));
                if leak {
                    leaked.extend(guard.iter().copied());
                    std::mem::forget(guard);
                }
            }
        }),
        Operation::Expire { limit } => {
            let gone = each!(map, map => map.expire(start + TTL, limit));
            out.extend(gone.into_iter().map(|gone| gone.value));
        }
        Operation::Resize { max_keys, max_per_key } => {
            let shrunk = match map {
                Map::Owned(map) => map
                    .resize(Resize::new().max_keys(max_keys).max_items_per_key(max_per_key))
                    .unwrap(),
                Map::Shared(map) => map
                    .resize(Resize::new().max_keys(max_keys).max_items_per_key(max_per_key))
                    .unwrap(),
                Map::Sharded(_) => return [out, leaked],
            };
            let gone = shrunk.evicted.into_iter().chain(shrunk.displaced);
            out.extend(gone.flat_map(|(_, items)| items));
        }
        Operation::Clear => match map {
            Map::Owned(map) => out.extend(map.clear().flat_map(|(_, items)| items)),
            Map::Shared(map) => out.extend(map.clear().flat_map(|(_, items)| items)),
            Map::Sharded(map) => {
                out.extend(map.clear().into_iter().flatten().flat_map(|(_, items)| items));
            }
        },
    }
    [out, leaked]
}

const TTL: Duration = Duration::from_secs(60);

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Each item that was pushed was handed over, was leaked by the caller, or is seen as dropped:
    /// once, and the counts say the same.
    #[test]
    fn pushed_is_handed_over_plus_dropped(
        form in 0..3_usize,
        full_key in prop_oneof![3 => Just(FullKey::DisplaceOldest), 1 => Just(FullKey::RejectNew)],
        full_map in prop_oneof![
            3 => Just(FullMap::EvictLeastRecentlyUsed),
            1 => Just(FullMap::RejectNewKey),
        ],
        expires in any::<bool>(),
        operations in prop::collection::vec(operation(), 0..80),
    ) {
        let builder = BoundedArrayMap::builder().max_keys(4).max_items_per_key(3);
        let mut builder = builder.full_key(full_key).full_map(full_map);
        if expires {
            builder = builder.time_to_live(TTL);
        }
        let log = Log::default();
        let map = match form {
            0 => Map::Owned(builder.build().unwrap()),
            1 => Map::Shared(builder.build_shared().unwrap()),
            _ => Map::Sharded(builder.build_sharded(3).unwrap()),
        };
        let mut map = map.heard_by(observer(&log));
        let start = Instant::now();
        let (mut out, mut leaked) = (HashSet::new(), HashSet::new());
        for (value, operation) in (0..).zip(operations) {
            let [gone, lost] = apply(&mut map, operation, value, start);
            for value in gone {
                prop_assert!(out.insert(value), "handed over twice");
            }
            leaked.extend(lost);
        }
        let stats = each!(&map, map => map.stats());
        prop_assert_eq!(out.len() as u64 + stats.items as u64, stats.pushed);
        drop(map);

        let heard = log.lock().unwrap().clone();
        prop_assert_eq!(heard.displaced.len() as u64, stats.displaced);
        prop_assert_eq!(heard.evicted.len() as u64, stats.evicted);
        prop_assert_eq!(heard.expired.len() as u64, stats.expired);
        prop_assert_eq!(heard.rejected.len() as u64, stats.rejected);
        let mut dropped = HashSet::new();
        for value in heard.dropped.iter().flat_map(|(_, items)| items) {
            prop_assert!(dropped.insert(*value) && !out.contains(value) && !leaked.contains(value));
        }
        prop_assert_eq!(dropped.len() + leaked.len(), stats.items);
    }
}
