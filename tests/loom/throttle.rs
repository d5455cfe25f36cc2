//! Every interleaving of the throttle's threads. What runs here is the core that ships; the time is
//! an argument.
//!
//! Each model was seen to fail with the guard that it names taken out.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use loom::thread;
use sluicegate::throttle::{KeyedThrottle, Rate, Throttle, Waiter};

use crate::explore::exhaustive;

const SECOND: Duration = Duration::from_secs(1);

/// The same in each run of a model.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// One a second, counted in either way.
fn rates() -> [Rate; 2] {
    [Rate::sliding(1, SECOND).unwrap(), Rate::gcra(1, SECOND, 1).unwrap()]
}

fn each_rate(model: impl Fn(Arc<Throttle>) + Send + Sync + Copy + 'static) {
    for rate in rates() {
        exhaustive(move || model(Arc::new(Throttle::with_rate(rate))));
    }
}

/// Counts how often it was woken: with `std`'s atomics, as it only observes.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A waiter in the wait list.
struct InList {
    waiter: Waiter<Arc<Throttle>>,
    woken: Arc<Woken>,
}

impl InList {
    fn join(throttle: &Arc<Throttle>) -> Self {
        let waiter = throttle.clone().enqueue_owned(1).unwrap();
        Self { waiter, woken: Arc::default() }
    }

    /// Starts, or returns when to poll again.
    fn poll(&mut self, now: Instant) -> Result<(), Instant> {
        let waker = Waker::from(self.woken.clone());
        self.waiter.poll_at(now, &mut Context::from_waker(&waker))
    }

    fn was_woken(&self) -> bool {
        self.woken.0.load(Ordering::SeqCst) > 0
    }
}

/// Guard: the schedule is changed by a compare-exchange, the slots under one lock. Taken out (the
/// new schedule stored; the lock released between looking for a slot and taking it), two reserve the
/// same slot.
#[test]
fn reservations_get_distinct_slots() {
    each_rate(|throttle| {
        let others = [(); 2].map(|()| {
            let throttle = throttle.clone();
            thread::spawn(move || throttle.reserve(1, start()).unwrap())
        });
        let own = throttle.reserve(1, start()).unwrap();
        let mut slots = others.map(|other| other.join().unwrap()).to_vec();
        slots.push(own);
        slots.sort();
        assert_eq!(slots, [start(), start() + SECOND, start() + 2 * SECOND]);
    });
}

/// Guard: the flag in the word, and the look at the wait list under the lock. Taken out (either), what
/// comes later passes a waiter.
#[test]
fn a_waiter_is_not_passed() {
    each_rate(|throttle| {
        let mut waiter = InList::join(&throttle);
        let other = {
            let throttle = throttle.clone();
            thread::spawn(move || throttle.try_acquire_at(1, start()).is_ok())
        };
        assert!(waiter.poll(start()).is_ok(), "it was the head");
        assert!(!other.join().unwrap());
    });
}

/// Guard: the slow path sets the flag before it reads the word. Taken out (the word only read), the
/// fast path starts in between, and both have.
#[test]
fn a_start_without_the_lock_against_one_with_it() {
    each_rate(|throttle| {
        let other = {
            let throttle = throttle.clone();
            thread::spawn(move || throttle.try_acquire_at(1, start()).is_ok())
        };
        let started = InList::join(&throttle).poll(start()).is_ok();
        assert!(started != other.join().unwrap(), "one of two");
    });
}

/// Guard: a waiter joins, and the flag is set, in one step under the lock. Taken out (the flag cleared
/// by the waiter that leaves, and not kept for those still there), the last one passes a waiter.
#[test]
fn one_leaves_while_another_joins() {
    each_rate(|throttle| {
        let first = InList::join(&throttle);
        let leave = thread::spawn(move || drop(first));
        let mut second = InList::join(&throttle);
        leave.join().unwrap();
        assert_eq!(throttle.waiters(), 1);
        assert!(throttle.try_acquire_at(1, start()).is_err());
        assert!(second.poll(start()).is_ok());
        assert_eq!(throttle.waiters(), 0);
    });
}

/// Guard: a head that leaves wakes the next waiter. Taken out, the next is not woken though it is its
/// turn now.
#[test]
fn a_cancelled_wait_against_its_successor() {
    each_rate(|throttle| {
        throttle.reserve(1, start()).unwrap();
        let mut first = InList::join(&throttle);
        let mut second = InList::join(&throttle);
        let turn = first.poll(start()).unwrap_err();

        let leave = thread::spawn(move || drop(first));
        let told = second.poll(start()).unwrap_err();
        leave.join().unwrap();

        assert_eq!(turn, start() + SECOND);
        assert!(told == turn || second.was_woken(), "the turn of the first is its own now");
        assert!(second.poll(turn).is_ok());
    });
}

/// Guard: only the head starts. Taken out (any waiter that polls and may), the second one does.
#[test]
fn two_poll_at_once_and_one_may() {
    each_rate(|throttle| {
        let mut first = InList::join(&throttle);
        let mut second = InList::join(&throttle);
        let poll = thread::spawn(move || second.poll(start()).is_err().then_some(second));
        assert!(first.poll(start()).is_ok());
        let mut second = poll.join().unwrap().expect("it passed the first");
        assert_eq!(second.poll(start()), Err(start() + SECOND));
    });
}

/// Two at once, whose slots are in a shard each.
fn two_shards(model: impl Fn(Arc<Throttle>) + Send + Sync + Copy + 'static) {
    let rate = Rate::sliding(2, SECOND).unwrap();
    exhaustive(move || model(Arc::new(Throttle::with_rate(rate))));
}

/// Guard: with no slot free now, the first to be free is looked for with all shards locked. Taken
/// out (the locks released between looking for a slot and taking it), two reserve the same slot.
#[test]
fn shards_have_distinct_slots() {
    two_shards(|throttle| {
        throttle.reserve(2, start()).unwrap();
        throttle.reserve(1, start()).unwrap();
        let other = {
            let throttle = throttle.clone();
            thread::spawn(move || throttle.reserve(1, start()).unwrap())
        };
        let own = throttle.reserve(1, start()).unwrap();
        let mut slots = [own, other.join().unwrap()];
        slots.sort();
        assert_eq!(slots, [start() + SECOND, start() + 2 * SECOND]);
    });
}

/// Guard: what takes slots of several shards has all of them locked. Taken out (the locks released
/// between looking for the slots and taking them), three start.
#[test]
fn all_shards_at_once_against_one() {
    two_shards(|throttle| {
        let other = {
            let throttle = throttle.clone();
            thread::spawn(move || throttle.try_acquire_at(1, start()).is_ok())
        };
        let both = throttle.try_acquire_at(2, start()).is_ok();
        assert!(both != other.join().unwrap(), "two or one, not three and not none");
    });
}

/// Guard: the fast path of every shard is closed while waiters are present. Taken out (the first
/// alone), what comes later passes a waiter.
#[test]
fn a_waiter_is_not_passed_through_another_shard() {
    two_shards(|throttle| {
        let mut both = throttle.clone().enqueue_owned(2).unwrap();
        let other = {
            let throttle = throttle.clone();
            thread::spawn(move || throttle.try_acquire_at(1, start()).is_ok())
        };
        let mut cx = Context::from_waker(Waker::noop());
        assert!(both.poll_at(start(), &mut cx).is_ok(), "it was the head");
        assert!(!other.join().unwrap());
    });
}

/// Guard: that no slot is free before an instant is noted with all shards locked. Taken out (noted
/// when they are unlocked), an older note outlives the newer one, and a caller is told an instant at
/// which no slot is free.
#[test]
fn the_instant_of_the_next_free_slot_is_right() {
    two_shards(|throttle| {
        throttle.try_acquire_at(2, start()).unwrap();
        let other = {
            let throttle = throttle.clone();
            thread::spawn(move || throttle.reserve(2, start()).unwrap())
        };
        assert!(throttle.try_acquire_at(2, start()).is_err());
        assert_eq!(other.join().unwrap(), start() + SECOND);
        let told = throttle.try_acquire_at(1, start()).unwrap_err();
        assert_eq!(told.wait(start()), Some(2 * SECOND));
    });
}

fn each_keyed(
    max_keys: usize,
    model: impl Fn(Arc<KeyedThrottle<u32>>) + Send + Sync + Copy + 'static,
) {
    for rate in rates() {
        exhaustive(move || model(Arc::new(KeyedThrottle::new(max_keys, move |_| rate).unwrap())));
    }
}

/// Guard: a key that is in use is not evicted. Taken out, a key is evicted that is about to start
/// something, and starts more than it may. (That this is checked before when the key expires cannot be
/// seen here: handles are counted by the standard `Arc`, not loom's.)
#[test]
fn evicting_a_key_against_its_use() {
    each_keyed(1, |throttles| {
        throttles.throttle(&1, start()).unwrap();
        let user = {
            let throttles = throttles.clone();
            thread::spawn(move || throttles.try_acquire_at(&1, 1, start()).is_ok())
        };
        let _ = throttles.throttle(&2, start());
        let started = throttles.try_acquire_at(&1, 1, start()).is_ok();
        assert!(!(user.join().unwrap() && started), "one a second, evicted or not");
    });
}

/// Guard: a new key is looked up again before it is added. Taken out, each of two gets
/// a throttle of its own.
#[test]
fn two_bring_the_same_key() {
    each_keyed(2, |throttles| {
        let other = {
            let throttles = throttles.clone();
            thread::spawn(move || throttles.try_acquire_at(&1, 1, start()).is_ok())
        };
        let started = throttles.try_acquire_at(&1, 1, start()).is_ok();
        assert!(started != other.join().unwrap(), "one of two");
        assert_eq!(throttles.len(), 1);
    });
}

/// Guard: a waiter is passed only if it has not looked for 100 ms after its turn. Taken out (passed as
/// soon as its turn has come), the newcomer starts before it.
#[test]
fn a_head_that_comes_late_against_a_newcomer() {
    each_rate(|throttle| {
        throttle.reserve(1, start()).unwrap();
        let mut head = InList::join(&throttle);
        let turn = head.poll(start()).unwrap_err();
        let late = turn + Duration::from_millis(99);
        let newcomer = {
            let throttle = throttle.clone();
            thread::spawn(move || throttle.try_acquire_at(1, late).is_ok())
        };
        assert!(head.poll(late).is_ok(), "it came in time");
        assert!(!newcomer.join().unwrap());
    });
}

/// Guard: a waiter that was passed is in front again when it looks, and is not absent from then on, in
/// one step under the lock. Taken out (it is as absent as it was), it is passed while it looks.
#[test]
fn an_absent_head_comes_back_as_it_is_passed() {
    each_rate(|throttle| {
        throttle.reserve(1, start()).unwrap();
        let mut head = InList::join(&throttle);
        let turn = head.poll(start()).unwrap_err();
        let mut behind = InList::join(&throttle);
        let _ = behind.poll(start());
        let late = turn + Duration::from_millis(100);
        let passes = thread::spawn(move || behind.poll(late).is_err().then_some(behind));
        let came = head.poll(late);
        let behind = passes.join().unwrap();
        assert!(came.is_ok() == behind.is_some(), "one of two");
        let (next, mut first) = match behind {
            Some(behind) => (late + SECOND, behind),
            None => (came.unwrap_err(), head),
        };
        assert_eq!(next, late + SECOND);
        let mut newcomer = InList::join(&throttle);
        assert!(newcomer.poll(next).is_err(), "not before the other");
        assert!(first.poll(next).is_ok());
    });
}
