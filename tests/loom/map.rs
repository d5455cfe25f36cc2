//! The shared form under every interleaving.
//!
//! Its guard is that each call looks up and acts under one hold of the lock, and drops what left
//! after it. Each model's comment says which of these was taken out to see it fail.

use std::time::{Duration, Instant};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use sluicegate::map::{Entry, Event};
use sluicegate::{BoundedArrayMap, Pushed, RejectReason, SharedBoundedArrayMap};

const TTL: Duration = Duration::from_secs(60);

fn balanced<K, V, Id>(map: &SharedBoundedArrayMap<K, V, Id>) {
    let stats = map.stats();
    let left = stats.taken
        + stats.displaced
        + stats.evicted
        + stats.rejected
        + stats.expired
        + stats.removed;
    assert_eq!(stats.pushed, stats.items as u64 + left);
}

/// What a push pushed out, and what it refused.
fn pushed_out(pushed: Pushed<u32, u32, u32>) -> Vec<u32> {
    match pushed {
        Pushed::Stored => Vec::new(),
        Pushed::Several(_) => unreachable!("the map has no totals"),
        Pushed::Displaced { value, .. } | Pushed::Rejected { value, .. } => vec![value],
        Pushed::Evicted { items, .. } => items.collect(),
    }
}

/// Two producers, over both caps, and a drainer: every item is handed to exactly one of them or
/// is still there at the end, and the items under a key are in the order of one producer's pushes.
///
/// Fails if a push looks its key up under one hold of the lock and acts under another: a key comes
/// in twice, or an item is put under a key that has left.
#[test]
fn two_producers_and_a_drainer_lose_nothing_and_get_nothing_twice() {
    loom::model(|| {
        let map = BoundedArrayMap::builder().max_keys(1).max_items_per_key(2).indexed();
        let map = Arc::new(map.build_shared().unwrap());
        let producers = [[(1, 10), (1, 11)], [(1, 20), (2, 21)]].map(|pushes| {
            let map = Arc::clone(&map);
            thread::spawn(move || {
                let pushes = pushes.into_iter();
                pushes.flat_map(|(key, value)| pushed_out(map.push(key, value))).collect::<Vec<_>>()
            })
        });
        let drained: Vec<u32> = map.take(&1).collect();

        let mut seen = drained.clone();
        for producer in producers {
            seen.extend(producer.join().unwrap());
        }
        for (_, items) in map.clear() {
            assert!(items.len() <= 2);
            seen.extend(items);
        }
        seen.sort_unstable();
        assert_eq!(seen, [10, 11, 20, 21]);
        assert!(drained != [11, 10], "the items of one producer stay in order");
        balanced(&map);
    });
}

/// Two deliveries of one item, and a removal by id: it is never in twice, and is removed if and
/// only if it comes back.
///
/// Fails if `push_unique` looks the id up under one hold of the lock and acts under another.
#[test]
fn a_redelivery_is_in_at_most_once() {
    loom::model(|| {
        let map = BoundedArrayMap::builder().max_keys(2).max_items_per_key(4).indexed();
        let map = Arc::new(map.build_shared().unwrap());
        let deliveries = [1_u32, 2].map(|key| {
            let map = Arc::clone(&map);
            thread::spawn(move || match map.push_entry(Entry::new(key, key).id(7_u32)) {
                Pushed::Stored => true,
                Pushed::Rejected { reason: RejectReason::Duplicate, .. } => false,
                other => panic!("there is room: {other:?}"),
            })
        });
        let removed = map.remove_by_id(&7).is_some();

        let stored = deliveries.map(|delivery| delivery.join().unwrap());
        let stored = stored.into_iter().filter(|stored| *stored).count();
        assert_eq!(stored, map.total_items() + usize::from(removed));
        assert!(map.total_items() <= 1);
        assert_eq!(map.contains_id(&7), map.total_items() == 1);
        balanced(&map);
    });
}

/// A sweep and a drainer of the same key: each item goes to exactly one of them.
///
/// Fails if `expire` finds what is due under one hold of the lock and takes it out under another.
#[test]
fn a_sweep_and_a_take_share_no_item() {
    loom::model(|| {
        let start = Instant::now();
        let map = BoundedArrayMap::builder().max_keys(2).max_items_per_key(4).time_to_live(TTL);
        let map = Arc::new(map.build_shared().unwrap());
        for value in [1_u32, 2] {
            assert!(map.push_entry(Entry::new(0_u32, value).at(start)).is_stored());
        }
        let sweeper = {
            let map = Arc::clone(&map);
            thread::spawn(move || {
                let mut swept = Vec::new();
                for _ in 0..2 {
                    swept.extend(map.expire(start + TTL, 1).into_iter().map(|item| item.value));
                }
                swept
            })
        };
        let pusher = {
            let map = Arc::clone(&map);
            thread::spawn(move || {
                assert!(map.push_entry(Entry::new(0, 3).at(start + TTL)).is_stored())
            })
        };
        let mut seen: Vec<u32> = map.take(&0).collect();
        seen.extend(sweeper.join().unwrap());
        pusher.join().unwrap();
        seen.extend(map.take(&0));
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3]);
        assert!(map.is_empty());
        balanced(&map);
    });
}

/// A value whose destructor pushes into the map that displaced it.
struct Reviver {
    number: u32,
    map: Arc<SharedBoundedArrayMap<u32, Reviver>>,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Reviver {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if self.number > 0 {
            let (map, dropped) = (Arc::clone(&self.map), Arc::clone(&self.dropped));
            drop(self.map.push(1, Self { number: self.number - 1, map, dropped }));
        }
    }
}

/// Two producers displace each other's items, whose destructors call the map.
///
/// Fails, as a deadlock, if a push drops what it displaced before it releases the lock.
#[test]
fn a_destructor_may_call_the_map() {
    loom::model(|| {
        let map = Arc::new(SharedBoundedArrayMap::new(2, 1).unwrap());
        let dropped = Arc::new(AtomicUsize::new(0));
        let producers = [1, 1].map(|number| {
            let reviver = Reviver { number, map: Arc::clone(&map), dropped: Arc::clone(&dropped) };
            let map = Arc::clone(&map);
            thread::spawn(move || drop(map.push(0, reviver)))
        });
        for producer in producers {
            producer.join().unwrap();
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 1, "one was displaced");
        assert_eq!(map.take(&1).count(), 1, "and has left its successor");
        balanced(&map);

        // The values hold the map that holds them.
        for (_, items) in map.clear() {
            drop(items);
        }
        drop(map.clear());
    });
}

/// Two producers push over the caps of a map whose observer pushes what was displaced under another
/// key: nothing is lost and nobody waits for himself.
///
/// Fails, as a deadlock, if a push reports to the observer before it releases the lock.
#[test]
fn an_observer_may_push() {
    loom::model(|| {
        type Map = SharedBoundedArrayMap<u32, u32>;
        // Of the standard library, as only that one knows weak references.
        let map = std::sync::Arc::new_cyclic(|this: &std::sync::Weak<Map>| {
            let this = this.clone();
            SharedBoundedArrayMap::new(2, 1).unwrap().with_observer(move |event| {
                if let Event::Displaced { key: 0, value, .. } = event {
                    let map = this.upgrade().expect("a push is under way");
                    assert!(map.push(1, *value).is_stored());
                }
            })
        });
        assert!(map.push(0, 1).is_stored());
        let producers = [2, 3].map(|value| {
            let map = std::sync::Arc::clone(&map);
            thread::spawn(move || match map.push(0, value) {
                Pushed::Displaced { value, .. } => value,
                other => panic!("the key was full: {other:?}"),
            })
        });
        let mut seen: Vec<u32> = producers.map(|producer| producer.join().unwrap()).into();
        seen.extend(map.take(&0));
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3]);
        assert_eq!((map.take(&1).count(), map.observer_panics()), (1, 0));
        balanced(&map);
    });
}

/// A checkout is dropped, one of its two items acknowledged, against pushes to its key and to
/// another: what is put back comes before what was pushed meanwhile, the caps hold, and
/// the key is not evicted.
///
/// Fails if a key that is checked out stays in the order of use, and so can be evicted, or if
/// what is put back goes behind what has come since.
#[test]
fn a_checkout_goes_back_before_what_was_pushed_meanwhile() {
    loom::model(|| {
        let map = Arc::new(SharedBoundedArrayMap::new(1, 2).unwrap());
        for value in [1_u32, 2] {
            assert!(map.push(0_u32, value).is_stored());
        }
        let mut guard = map.checkout(&0).unwrap();
        let pusher = {
            let map = Arc::clone(&map);
            thread::spawn(move || match map.push(0, 3) {
                Pushed::Stored => Vec::new(),
                // Before the acknowledgement the checked-out items fill the key.
                Pushed::Rejected { reason: RejectReason::KeyFull, value, .. } => vec![value],
                // After the checkout key 1 could be evicted; it came back and evicted the other.
                Pushed::Evicted { key: 1, .. } => Vec::new(),
                other => panic!("the rest of the checkout is not to go: {other:?}"),
            })
        };
        let newcomer = {
            let map = Arc::clone(&map);
            thread::spawn(move || match map.push(1, 4) {
                Pushed::Rejected { reason: RejectReason::MapFull, .. } => None,
                Pushed::Evicted { key: 0, items } => Some(items.collect::<Vec<_>>()),
                other => panic!("the map was full: {other:?}"),
            })
        };
        assert_eq!(guard.acknowledge(), Some(1));
        drop(guard);
        let refused = pusher.join().unwrap();
        let evicted = newcomer.join().unwrap();
        let kept: Vec<u32> = match evicted {
            Some(items) => items,
            None => map.take(&0).collect(),
        };
        // An item that was pushed after the eviction is under a key of its own.
        let late: Vec<u32> =
            map.clear().filter(|(key, _)| *key == 0).flat_map(|(_, i)| i).collect();
        let mut seen = kept;
        assert_eq!(seen.first(), Some(&2), "put back first");
        seen.extend(refused);
        seen.extend(late);
        assert_eq!(seen, [2, 3]);
        balanced(&map);
    });
}

/// Two producers of new keys and a drainer over two shards whose common limit is one key: there
/// are never more, an eviction means that it was used up, and every item ends once.
///
/// Fails if the limit is looked at and raised in two steps, or if a key that leaves is not counted
/// out.
#[test]
fn shards_keep_to_one_cap() {
    loom::model(|| {
        let map = BoundedArrayMap::builder().max_keys(1).max_items_per_key(1).build_sharded(2);
        let map = Arc::new(map.unwrap());
        let of_shard = |shard| -> Vec<u32> {
            (0..).filter(|key| map.shard_of(key) == shard).take(2).collect()
        };
        let (first, second) = (of_shard(0), of_shard(1));
        assert!(map.push(first[0], 0).is_stored());
        let producers = [first[1], second[0]].map(|key| {
            let map = Arc::clone(&map);
            thread::spawn(move || match map.push(key, key) {
                Pushed::Stored => 0,
                Pushed::Evicted { items, .. } => items.len(),
                other => panic!("all keys are new: {other:?}"),
            })
        });
        let drained = map.take(&first[0]).len();
        let evicted: usize = producers.map(|producer| producer.join().unwrap()).iter().sum();
        let stats = map.stats();
        assert_eq!((stats.keys, stats.items), (map.len(), map.len()));
        assert_eq!(3, stats.items + drained + evicted);
        // Each push stores its item, and there is room for one.
        assert_eq!(map.len(), 1);
    });
}

/// The one key that the map may hold goes back and forth between two shards, as three producers
/// evict each other.
///
/// Fails, as a deadlock, if of two locks a push takes that of its own shard first.
#[test]
fn shards_evict_for_each_other() {
    loom::model(|| {
        let map = BoundedArrayMap::builder().max_keys(1).max_items_per_key(1).build_sharded(2);
        let map = Arc::new(map.unwrap());
        let of_shard = |shard| -> Vec<u32> {
            (0..).filter(|key| map.shard_of(key) == shard).take(2).collect()
        };
        let (first, second) = (of_shard(0), of_shard(1));
        let evicted = |pushed| match pushed {
            Pushed::Stored => 0,
            Pushed::Evicted { items, .. } => items.len(),
            other => panic!("all keys are new: {other:?}"),
        };
        assert!(map.push(first[0], 0).is_stored());
        let producers = [second[0], second[1]].map(|key| {
            let map = Arc::clone(&map);
            thread::spawn(move || evicted(map.push(key, key)))
        });
        let mine = evicted(map.push(first[1], 0));
        let gone: usize = producers.map(|producer| producer.join().unwrap()).iter().sum();
        assert_eq!(gone + mine, 3, "each evicted a key");
        assert_eq!((map.len(), map.stats().items), (1, 1));
    });
}

/// A predicate is asked about the two items of a key, against a drainer of the key and a push to
/// it: each item ends once, in order, and the predicate runs without the lock.
///
/// Fails if a key whose items are lent out is not held: a drainer takes the key, or a push that
/// finds it empty, from under the predicate. Also, as a deadlock, if the predicate runs under the
/// lock.
#[test]
fn a_predicate_takes_nothing_from_a_drainer() {
    loom::model(|| {
        let map = BoundedArrayMap::builder().max_keys(1).max_items_per_key(3).indexed::<u32>();
        let map = Arc::new(map.build_shared().unwrap());
        for value in [1_u32, 2] {
            assert!(map.push_entry(Entry::new(0_u32, value).id(value)).is_stored());
        }
        let drainer = {
            let map = Arc::clone(&map);
            thread::spawn(move || map.take(&0).collect::<Vec<_>>())
        };
        let pusher = {
            let map = Arc::clone(&map);
            thread::spawn(move || assert!(map.push_entry(Entry::new(0, 3).id(3)).is_stored()))
        };
        let odd = map.remove_if(&0, |value| {
            // Not while the drainer has it, nor under the lock.
            assert!(map.contains_id(value));
            value % 2 == 1
        });
        let mut odd: Vec<u32> = odd.collect();
        let mut drained = drainer.join().unwrap();
        pusher.join().unwrap();
        drained.extend(map.take(&0));
        assert!(drained.is_sorted(), "what is put back stays in order");
        odd.append(&mut drained);
        odd.sort_unstable();
        assert_eq!(odd, [1, 2, 3]);
        assert!(map.is_empty() && (1..4).all(|id| !map.contains_id(&id)));
        balanced(&map);
    });
}

/// The one key that the map may hold is checked out of its shard, and done with, against pushes of
/// new keys of both shards: these are refused as long as the map is full, and stored afterwards.
///
/// Fails if a key that leaves at the end of a checkout is not counted out, if a shard evicts one
/// that is checked out, and, as a deadlock, if a push takes all locks from the highest number down.
#[test]
fn a_checkout_of_one_shard_keeps_its_capacity_from_the_others() {
    loom::model(|| {
        let map = BoundedArrayMap::builder().max_keys(1).max_items_per_key(1).build_sharded(2);
        let map = Arc::new(map.unwrap());
        let of_shard = |shard| -> Vec<u32> {
            (0..).filter(|key| map.shard_of(key) == shard).take(2).collect()
        };
        let (first, second) = (of_shard(0), of_shard(1));
        assert!(map.push(first[0], 1).is_stored());
        let mut guard = map.checkout(&first[0]).unwrap();
        let producers = [(first[1], 2), (second[0], 3)].map(|(key, value)| {
            let map = Arc::clone(&map);
            thread::spawn(move || match map.push(key, value) {
                Pushed::Stored => Vec::new(),
                Pushed::Rejected { reason: RejectReason::MapFull, value, .. } => vec![value],
                Pushed::Evicted { items, .. } => items.collect(),
                other => panic!("all keys are new: {other:?}"),
            })
        });
        assert_eq!(guard.acknowledge(), Some(1));
        drop(guard);
        let mut seen: Vec<u32> = producers.map(|producer| producer.join().unwrap()).concat();
        assert_eq!((map.len(), map.stats().keys), (map.total_items(), map.total_items()));
        assert!(map.len() <= 1);
        seen.extend(map.clear().into_iter().flatten().flat_map(|(_, items)| items));
        seen.sort_unstable();
        assert_eq!(seen, [2, 3]);
        assert!(matches!(map.push(second[1], 4), Pushed::Stored), "there is room again");
    });
}

/// Two sweeps of all shards and a drainer: each item goes to one of them, and each key that leaves
/// evicts once.
///
/// Fails if a sweep finds what is due under one hold of a shard's lock and takes it out under
/// another, or counts the keys before and after under two.
#[test]
fn sweeps_of_shards_share_no_item() {
    loom::model(|| {
        let start = Instant::now();
        let map = BoundedArrayMap::builder().max_keys(2).max_items_per_key(2).time_to_live(TTL);
        let map = Arc::new(map.build_sharded(2).unwrap());
        let of_shard = |shard| (0_u32..).find(|key| map.shard_of(key) == shard).unwrap();
        let keys = [of_shard(0), of_shard(1)];
        for (key, value) in keys.into_iter().zip([1_u32, 2]) {
            assert!(map.push_entry(Entry::new(key, value).at(start)).is_stored());
        }
        let sweepers = [1, 2].map(|limit| {
            let map = Arc::clone(&map);
            thread::spawn(move || {
                let swept = map.expire(start + TTL, limit).into_iter();
                swept.map(|item| item.value).collect::<Vec<_>>()
            })
        });
        let mut seen: Vec<u32> = map.take(&keys[0]).collect();
        seen.extend(sweepers.map(|sweeper| sweeper.join().unwrap()).concat());
        assert_eq!(map.len(), map.total_items());
        seen.extend(map.expire(start + TTL, 2).into_iter().map(|item| item.value));
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
        assert!(map.is_empty());
    });
}
