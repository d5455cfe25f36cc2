//! Threads that do everything at once to one map of either shared form, until each has had its
//! share of turns: every item is handed to one of them or is there at the end, and nobody hangs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sluicegate::map::{Entry, MapStats};
use sluicegate::{BoundedArrayMap, FullMap, Pushed};

const THREADS: u32 = 4;
const TURNS: u32 = 5_000;
const TTL: Duration = Duration::from_secs(60);

/// Fails if it hangs.
fn within_limit(act: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    thread::spawn(move || {
        act();
        done.send(()).unwrap();
    });
    let limit = Duration::from_secs(60);
    finished.recv_timeout(limit).expect("it hangs, or the thread has said why it failed");
}

/// Numbers that look random, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % end
    }
}

fn check(seen: &[AtomicUsize], stats: MapStats) {
    assert!(seen.iter().all(|seen| seen.load(Ordering::Relaxed) == 1), "each ended once");
    let left = stats.taken + stats.displaced + stats.evicted + stats.rejected + stats.expired;
    assert_eq!(stats.pushed, left + stats.removed);
    assert_eq!((stats.keys, stats.items), (0, 0));
}

macro_rules! stress {
    ($map:expr, $all:ident => $clear:expr) => {
        within_limit(move || {
            let map = $map;
            let start = Instant::now();
            let seen: Vec<AtomicUsize> =
                (0..THREADS * TURNS).map(|_| AtomicUsize::new(0)).collect();
            let see = |values: &mut dyn Iterator<Item = u32>| {
                for value in values {
                    seen[value as usize].fetch_add(1, Ordering::Relaxed);
                }
            };
            thread::scope(|scope| {
                for place in 0..THREADS {
                    let (map, see) = (&map, &see);
                    scope.spawn(move || {
                        let mut random = Random(u64::from(place) + 1);
                        for turn in 0..TURNS {
                            let value = place * TURNS + turn;
                            match map.push_entry(Entry::new(random.below(20), value).at(start)) {
                                Pushed::Stored => {}
                                Pushed::Several(_) => unreachable!("the map has no totals"),
                                Pushed::Displaced { value, .. }
                                | Pushed::Rejected { value, .. } => see(&mut [value].into_iter()),
                                Pushed::Evicted { mut items, .. } => see(&mut items),
                            }
                            let key = random.below(20);
                            match random.below(12) {
                                0 => see(&mut map.take(&key)),
                                1 => see(&mut map.remove_if(&key, |value| value % 2 == 0)),
                                2 if turn % 8 == 0 => {
                                    map.retain(
                                        |_, value| value % 3 > 0,
                                        |_, mut items| {
                                            see(&mut items);
                                        },
                                    );
                                }
                                3..6 => {
                                    if let Some(mut guard) = map.checkout(&key) {
                                        thread::yield_now();
                                        see(&mut guard.acknowledge().into_iter());
                                    }
                                }
                                6 => {
                                    let gone = map.expire(start + TTL, 2);
                                    see(&mut gone.into_iter().map(|gone| gone.value));
                                }
                                _ => {
                                    map.promote(&key);
                                }
                            }
                            assert!(map.len() <= 8);
                        }
                    });
                }
            });
            let $all = &map;
            see(&mut $clear);
            check(&seen, map.stats());
        });
    };
}

fn builder(full_map: FullMap) -> sluicegate::map::Builder<u32, u32> {
    let builder = BoundedArrayMap::builder().max_keys(8).max_items_per_key(4);
    builder.full_map(full_map).time_to_live(TTL)
}

#[test]
fn a_shared_map_loses_nothing_among_threads() {
    let builder = builder(FullMap::EvictLeastRecentlyUsed);
    let map = builder.indexed::<u8>().build_shared().unwrap();
    stress!(map, all => all.clear().flat_map(|(_, items)| items));
}

#[test]
fn a_sharded_map_loses_nothing_among_threads() {
    for (shards, full_map) in [
        (1, FullMap::EvictLeastRecentlyUsed),
        (3, FullMap::EvictLeastRecentlyUsed),
        (16, FullMap::EvictLeastRecentlyUsed),
        (3, FullMap::RejectNewKey),
    ] {
        let map = builder(full_map).build_sharded(shards).unwrap();
        stress!(map, all => all.clear().into_iter().flatten().flat_map(|(_, items)| items));
    }
}
