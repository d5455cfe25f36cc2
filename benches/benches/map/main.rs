//! The bounded array map beside what is put together by hand from a cache of keys and a `VecDeque`
//! under each: 10,000 keys of 100 items, `u64` both, keys about Zipf.
//!
//! quick_cache and moka can only be shared, so that their arrays need a lock each; and they hand
//! back nothing of what they evict.

mod contenders;

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use contenders::{
    Lru, LruShared, Map, MokaShared, Ours, OursSharded, OursShared, QuickShared, Schnellru,
    SchnellruShared, Shared,
};
use sluicegate::BoundedArrayMap;
use sluicegate::map::Entry;
use sluicegate_benches::{Cost, Options, Scale, Table, Workload, timed, timed_in_slices};

const KEYS: usize = 10_000;
const ITEMS: usize = 100;
const OPS: u64 = 1_000_000;

/// Pseudo-random keys below `distinct`, the nth about n times as rare as the first.
fn zipf(distinct: u64, seed: u64) -> Vec<u64> {
    let mut state = seed;
    let ln = (distinct as f64).ln();
    let draw = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let unit = (state >> 11) as f64 / (1_u64 << 53) as f64;
        ((unit * ln).exp() as u64).min(distinct - 1)
    };
    (0..1 << 20).map(draw).collect()
}

const FIT: u64 = 20_000;
const OVERFLOW: u64 = 1_000_000;

fn push<M: Map>(distinct: u64, takes: bool, scale: Scale) -> Cost {
    let keys = zipf(distinct, 88_172_645_463_325_252);
    let mut map = M::new(KEYS, ITEMS);
    let mut at = 0;
    let mut run = |times| {
        for _ in 0..times {
            at += 1;
            map.push(keys[at % keys.len()], at as u64);
            if takes && at % 4 == 0 {
                map.take(keys[(at / 2) % keys.len()]);
            }
        }
    };
    run(scale.of(OPS));
    timed_in_slices(scale.of(OPS), run)
}

fn push_shared<M: Shared>(distinct: u64, threads: u64, takes: bool, scale: Scale) -> Cost {
    let map = M::new(KEYS, ITEMS);
    let ops = scale.of(OPS / threads) as usize;
    let keys: Vec<_> = (0..threads).map(|thread| zipf(distinct, 7 + thread * 1_000)).collect();
    let pass = |keys: &[u64]| {
        let start = Instant::now();
        for (at, key) in keys[..ops].iter().enumerate() {
            map.push(*key, at as u64);
            if takes && at % 4 == 0 {
                map.take(keys[at / 2]);
            }
        }
        (start, Instant::now())
    };
    let together = Barrier::new(threads as usize);
    let passes: Vec<_> = thread::scope(|scope| {
        let work = |keys| {
            let (pass, together) = (&pass, &together);
            move || {
                pass(keys);
                // The threads are there and the map is warm; now it counts.
                together.wait();
                pass(keys)
            }
        };
        let workers: Vec<_> = keys.iter().map(|keys| scope.spawn(work(keys))).collect();
        workers.into_iter().map(|worker| worker.join().expect("nobody panics")).collect()
    });
    let start = passes.iter().map(|pass| pass.0).min().expect("there is a thread");
    let end = passes.iter().map(|pass| pass.1).max().expect("there is a thread");
    Cost::of(ops as u64 * threads, end - start)
}

/// One push, a displacing one, at so many resident items.
fn push_at<M: Map>(resident: u64, scale: Scale) -> Cost {
    let keys = (scale.of(resident) as usize / ITEMS).max(1);
    let mut map = M::new(keys, ITEMS);
    for item in 0..ITEMS {
        for key in 0..keys {
            map.push(key as u64, item as u64);
        }
    }
    let mut key = 1_u64;
    timed_in_slices(scale.of(OPS), |times| {
        for at in 0..times {
            key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            map.push((key >> 33) % keys as u64, at);
        }
    })
}

/// One slice of a sweep with a limit of 1,000.
fn sweep(resident: u64, scale: Scale) -> Cost {
    let (resident, start) = (scale.of(resident), Instant::now());
    let ttl = Duration::from_secs(60);
    let keys = resident as usize / ITEMS + 1;
    let builder = BoundedArrayMap::builder().max_keys(keys).max_items_per_key(ITEMS);
    let mut map = builder.time_to_live(ttl).build().expect("the limits are good");
    for item in 0..resident {
        assert!(map.push_entry(Entry::new(item % keys as u64, item).at(start)).is_stored());
    }
    let slices = (resident / 2_000).clamp(1, 100);
    Cost::median((0..slices).map(|_| timed(1, || map.expire(start + ttl, 1_000))))
}

fn main() {
    let options = Options::from_args(11);
    let mut table = Table::new("BoundedArrayMap, 10,000 keys x 100 items; ns a push");
    for (name, distinct, takes) in [
        ("owned, keys mostly fit", FIT, false),
        ("owned, keys overflow", OVERFLOW, false),
        ("owned, four pushes and one take", FIT, true),
    ] {
        table.add(
            Workload::new(format!("{name}, 0.8 x lru"))
                .at_most(0.8, "lru")
                .ours(move |scale| push::<Ours>(distinct, takes, scale))
                .rival("lru", move |scale| push::<Lru>(distinct, takes, scale)),
        );
        table.add(
            Workload::new(format!("{name}, 1.0 x schnellru"))
                .at_most(1.0, "schnellru")
                .ours(move |scale| push::<Ours>(distinct, takes, scale))
                .rival("schnellru", move |scale| push::<Schnellru>(distinct, takes, scale)),
        );
    }
    for (name, distinct) in [("keys mostly fit", FIT), ("keys overflow", OVERFLOW)] {
        table.add(
            Workload::new(format!("shared, one thread, {name}"))
                .at_most(0.9, "lru")
                .ours(move |scale| push_shared::<OursShared>(distinct, 1, false, scale))
                .rival("lru", move |scale| push_shared::<LruShared>(distinct, 1, false, scale))
                .beside("schnellru", move |scale| {
                    push_shared::<SchnellruShared>(distinct, 1, false, scale)
                }),
        );
        table.add(
            Workload::new(format!("sharded, two threads, {name}"))
                .at_most(0.6, "the best")
                .ours(move |scale| push_shared::<OursSharded>(distinct, 2, false, scale))
                .rival("lru", move |scale| push_shared::<LruShared>(distinct, 2, false, scale))
                .rival("schnellru", move |scale| {
                    push_shared::<SchnellruShared>(distinct, 2, false, scale)
                })
                .rival("quick_cache", move |scale| {
                    push_shared::<QuickShared>(distinct, 2, false, scale)
                })
                .rival("moka", move |scale| push_shared::<MokaShared>(distinct, 2, false, scale))
                .beside("ours, one lock", move |scale| {
                    push_shared::<OursShared>(distinct, 2, false, scale)
                }),
        );
    }
    for resident in [10_000, 10_000_000] {
        table.add(
            Workload::new(format!("owned, one push at {resident} items"))
                .ours(move |scale| push_at::<Ours>(resident, scale))
                .beside("lru", move |scale| push_at::<Lru>(resident, scale)),
        );
    }
    for resident in [10_000, 1_000_000] {
        table.add(
            Workload::new(format!("one `expire` of 1,000 at {resident} items"))
                .ours(move |scale| sweep(resident, scale)),
        );
    }
    table.run(&options);
}
