//! Maps that a `resize` has left over their limits, because some of their keys were checked out.

use crate::pushed::each;
use sluicegate::map::{Items, Resize};
use sluicegate::{BoundedArrayMap, Pushed, RejectReason, SharedBoundedArrayMap};

fn with_items(max_keys: usize, keys: &[&'static str]) -> SharedBoundedArrayMap<&'static str, u32> {
    let map = SharedBoundedArrayMap::new(max_keys, 4).unwrap();
    for key in keys {
        for value in 0..4 {
            assert!(map.push(*key, value).is_stored());
        }
    }
    map
}

fn values(items: Items<u32>) -> Vec<u32> {
    items.collect()
}

fn is_refused(pushed: Pushed<&str, u32>, expected: RejectReason) -> bool {
    matches!(pushed, Pushed::Rejected { reason, key: "a" | "d", value: 9, .. } if reason == expected)
}

fn displaced(value: u32) -> Pushed<&'static str, u32> {
    Pushed::Displaced { value, id: None }
}

#[test]
fn a_push_hands_over_all_items_of_its_key_that_are_too_many() {
    let map = with_items(3, &["a"]);
    let out = map.checkout("a").unwrap();
    let limits = Resize::new().max_items_per_key(1);
    assert!(map.resize(limits).unwrap().is_empty());
    drop(out);
    assert_eq!(map.total_items(), 4);

    let rest = map.resize(limits).unwrap();
    let displaced_of: Vec<_> = rest.displaced.into_iter().map(|(_, items)| values(items)).collect();
    assert_eq!(displaced_of, [[0, 1, 2]]);
    assert_eq!(map.push("a", 9), displaced(3));
}

#[test]
fn the_same_while_another_key_is_checked_out() {
    let map = with_items(3, &["a", "b"]);
    let out = map.checkout("a").unwrap();
    assert_eq!(map.resize(Resize::new().max_items_per_key(1)).unwrap().displaced.len(), 1);
    drop(out);
    let _other = map.checkout("b").unwrap();
    let gone = each(map.push("a", 9));
    assert_eq!(gone, (0..4).map(displaced).collect::<Vec<_>>());
    assert_eq!((map.total_items(), map.stats().displaced), (2, 7));
}

#[test]
fn a_push_of_a_new_key_hands_over_all_keys_that_are_too_many() {
    let map = with_items(3, &["a", "b", "c"]);
    let out: Vec<_> = ["a", "b", "c"].iter().map(|key| map.checkout(*key).unwrap()).collect();
    let limits = Resize::new().max_keys(1);
    assert!(map.resize(limits).unwrap().is_empty());
    assert!(is_refused(map.push("d", 9), RejectReason::MapFull));
    drop(out);
    assert_eq!((map.len(), map.total_items()), (3, 12));

    let rest = map.resize(limits).unwrap();
    let evicted: Vec<_> = rest.evicted.iter().map(|(key, items)| (*key, items.len())).collect();
    assert_eq!(evicted, [("a", 4), ("b", 4)]);
    assert!(matches!(map.push("d", 9), Pushed::Evicted { key: "c", .. }));
}

#[test]
fn a_push_brings_the_map_back_under_its_limits() {
    let map = with_items(2, &["a", "b"]);
    let out = [map.checkout("a").unwrap(), map.checkout("b").unwrap()];
    assert!(map.resize(Resize::new().max_keys(1).max_items_per_key(2)).unwrap().is_empty());
    drop(out);
    assert_eq!(each(map.push("a", 9)), (0..3).map(displaced).collect::<Vec<_>>());
    let gone = each(map.push("d", 9));
    assert!(matches!(
        gone[..],
        [Pushed::Evicted { key: "b", .. }, Pushed::Evicted { key: "a", .. }]
    ));
    assert_eq!((map.len(), map.total_items()), (1, 1));
}

#[test]
fn resize_hands_over_what_came_to_a_checked_out_key_since() {
    let map = SharedBoundedArrayMap::new(3, 5).unwrap();
    assert!(map.push("a", 0).is_stored());
    let out = map.checkout("a").unwrap();
    for value in 1..5 {
        assert!(map.push("a", value).is_stored());
    }
    let shrunk = map.resize(Resize::new().max_keys(3).max_items_per_key(2)).unwrap();
    let displaced: Vec<_> = shrunk.displaced.into_iter().map(|(_, items)| values(items)).collect();
    assert_eq!(displaced, [[1, 2, 3]]);
    drop(out);
    assert_eq!(values(map.take("a")), [0, 4]);
}

#[test]
fn totals_that_shrink_below_what_is_checked_out_are_kept_to_again_later() {
    let builder = BoundedArrayMap::builder().max_keys(3).max_items_per_key(4);
    let map = builder.max_weight(40, |_: &&str, _: &u32| 5).max_items(12).build_shared().unwrap();
    for (key, value) in [("a", 0), ("a", 1), ("a", 2), ("b", 3), ("c", 4)] {
        assert_eq!(map.push(key, value), Pushed::Stored);
    }
    let out = map.checkout("a").unwrap();
    let gone = map.resize(Resize::new().max_weight(10)).unwrap().evicted;
    let gone: Vec<_> = gone.into_iter().map(|(key, items)| (key, values(items))).collect();
    assert_eq!(gone, [("b", vec![3]), ("c", vec![4])]);
    assert_eq!((map.stats().weight, map.limits().max_weight), (15, Some(10)));
    assert!(is_refused(map.push("d", 9), RejectReason::MapFull));
    drop(out);

    // The key itself makes room among its own items, and another key is evicted for another.
    assert_eq!(each(map.push("a", 9)), [displaced(0), displaced(1)]);
    assert_eq!(map.stats().weight, 10);
    assert!(map.resize(Resize::new().max_items(4)).unwrap().is_empty());
    assert!(matches!(map.push("d", 9), Pushed::Evicted { key: "a", .. }));
    assert_eq!((map.stats().weight, map.total_items()), (5, 1));
}
