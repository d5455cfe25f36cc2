//! What runs without the lock may call the map: destructors of keys, values and ids, weighers,
//! sinks, predicates and observers. Were one of them run under the lock, the map would wait for
//! itself: each test has a limit.
//!
//! Seen to fail with, each run under the lock: the key that `take` has no use for, dropped (both
//! forms); a weigher; the key and the id that a checkout has no use for, dropped; an observer.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::time::{Duration, Instant};

use sluicegate::map::{Entry, Resize};
use sluicegate::{BoundedArrayMap, ShardedBoundedArrayMap, SharedBoundedArrayMap};

/// Calls the map, wherever it is called from.
type Call = Arc<dyn Fn() + Send + Sync>;

/// A key, a value or an id whose destructor calls the map.
struct Caller(u8, Call);

impl Drop for Caller {
    fn drop(&mut self) {
        (self.1)();
    }
}

impl Clone for Caller {
    fn clone(&self) -> Self {
        Self(self.0, Arc::clone(&self.1))
    }
}

impl Hash for Caller {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for Caller {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Caller {}

fn within_limit(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    if ended.recv_timeout(Duration::from_secs(20)) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("user code waits for a lock under which it was called");
    }
    thread.join().unwrap();
}

const TTL: Duration = Duration::from_secs(60);

/// What calls the map, and how often it did.
fn caller<M: Send + Sync + 'static>(
    look: impl Fn(&M) + Send + Sync + 'static,
) -> (Arc<OnceLock<Weak<M>>>, Arc<AtomicUsize>, Call) {
    let (map, calls) = (Arc::new(OnceLock::<Weak<M>>::new()), Arc::new(AtomicUsize::new(0)));
    let (this, count) = (Arc::clone(&map), Arc::clone(&calls));
    let call = move || {
        if let Some(map) = this.get().and_then(Weak::upgrade) {
            look(&map);
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    (map, calls, Arc::new(call))
}

type Shared = SharedBoundedArrayMap<Caller, Caller, Caller>;

#[test]
fn user_code_of_the_shared_form_may_call_it() {
    within_limit(|| {
        let (this, calls, call) = caller(|map: &Shared| {
            let _stats = map.stats();
        });
        let (weigher, observer) = (Arc::clone(&call), Arc::clone(&call));
        let builder = BoundedArrayMap::builder().max_keys(2).max_items_per_key(2);
        let builder = builder.time_to_live(TTL).indexed::<Caller>();
        let builder = builder.max_weight(100, move |_: &Caller, _: &Caller| {
            weigher();
            1
        });
        let map = Arc::new(builder.build_shared().unwrap().with_observer(move |_| observer()));
        this.set(Arc::downgrade(&map)).unwrap();
        let of = |name| Caller(name, Arc::clone(&call));
        let heard = |before: &mut usize| {
            let now = calls.load(Ordering::Relaxed);
            assert!(std::mem::replace(before, now) < now, "user code ran");
        };
        let (mut before, start) = (0, Instant::now());
        let fill = |from: u8, before: &mut usize| {
            // The third displaces, the sixth evicts, the seventh has a resident id.
            for (key, id) in [(1, 0), (1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 5)] {
                let (key, id) = (of(key + from), of(id + from));
                drop(map.push_entry(Entry::new(key, of(0)).id(id).at(start)));
                heard(before);
            }
            drop(map.push(of(3 + from), of(0)));
            heard(before);
        };
        fill(0, &mut before);
        drop(map.take(&of(3)));
        heard(&mut before);
        fill(10, &mut before);
        drop(map.remove_by_id(&of(15)));
        heard(&mut before);
        drop(map.remove_if(&of(13), |_| {
            call();
            true
        }));
        heard(&mut before);
        fill(20, &mut before);
        map.retain(
            |_, _| {
                call();
                false
            },
            |_, _| call(),
        );
        heard(&mut before);
        fill(30, &mut before);
        let mut checkout = map.checkout(&of(33)).unwrap();
        while checkout.acknowledge().is_some() {
            heard(&mut before);
        }
        drop(checkout);
        heard(&mut before);
        fill(40, &mut before);
        drop(map.resize(Resize::new().max_keys(1).max_items_per_key(1)));
        heard(&mut before);
        drop(map.resize(Resize::new().max_keys(2).max_items_per_key(2)));
        fill(50, &mut before);
        drop(map.expire(Instant::now() + TTL, 100));
        heard(&mut before);
        fill(60, &mut before);
        drop(map.clear());
        heard(&mut before);
        fill(70, &mut before);
        drop(map);
        // Nobody can call a map that is dropped; that it does not wait for itself is enough.
    });
}

type Sharded = ShardedBoundedArrayMap<Caller, Caller>;

#[test]
fn user_code_of_the_sharded_form_may_call_it() {
    for observed in [false, true] {
        within_limit(move || {
            let (this, calls, call) = caller(|map: &Sharded| {
                let _stats = map.stats();
            });
            let builder = BoundedArrayMap::builder().max_keys(2).max_items_per_key(2);
            let builder = if observed { builder.time_to_live(TTL) } else { builder };
            let mut map: Sharded = builder.build_sharded(2).unwrap();
            if observed {
                let observer = Arc::clone(&call);
                map = map.with_observer(move |_| observer());
            }
            let map = Arc::new(map);
            this.set(Arc::downgrade(&map)).unwrap();
            let of = |name| Caller(name, Arc::clone(&call));
            let (mut before, start) = (0, Instant::now());
            let mut heard = || {
                let now = calls.load(Ordering::Relaxed);
                assert!(std::mem::replace(&mut before, now) < now, "user code ran");
            };
            // All but the first of a key drop the key that they came with.
            let fill = || {
                for key in [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4] {
                    drop(map.push_entry(Entry::new(of(key), of(0)).at(start)));
                }
            };
            fill();
            heard();
            drop(map.take(&of(4)));
            heard();
            fill();
            drop(map.remove_if(&of(4), |_| {
                call();
                true
            }));
            heard();
            fill();
            map.retain(
                |_, _| {
                    call();
                    false
                },
                |_, _| call(),
            );
            heard();
            fill();
            let mut checkout = map.checkout(&of(4)).unwrap();
            while checkout.acknowledge().is_some() {}
            heard();
            drop(checkout);
            heard();
            fill();
            if observed {
                drop(map.expire(start + TTL, 100));
                heard();
                fill();
            }
            drop(map.clear());
            heard();
            fill();
            drop(map);
        });
    }
}
