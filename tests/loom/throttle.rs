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

/// Every interleaving, whatever the environment says.
fn exhaustive(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = None;
    builder.max_permutations = None;
    builder.max_duration = None;
    builder.check(model);
}

/// Counts how often it was woken: with `std`'s atomics, as it only observes.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Somebody in line.
struct Queued {
    place: Waiter<Arc<Throttle>>,
    woken: Arc<Woken>,
}

impl Queued {
    fn in_line(throttle: &Arc<Throttle>) -> Self {
        let place = throttle.clone().enqueue_owned(1).unwrap();
        Self { place, woken: Arc::default() }
    }

    /// Starts, or is told when to look again.
    fn look(&mut self, now: Instant) -> Result<(), Instant> {
        let waker = Waker::from(self.woken.clone());
        self.place.poll_at(now, &mut Context::from_waker(&waker))
    }

    fn was_woken(&self) -> bool {
        self.woken.0.load(Ordering::SeqCst) > 0
    }
}

/// Guard: the schedule is changed by a compare-exchange, the places under one lock. Taken out (the
/// new schedule stored; the lock let go between looking for a place and taking it), two reserve the
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

/// Guard: the flag in the word, and the look at the line under the lock. Taken out (either), what
/// comes later passes who is in line.
#[test]
fn nobody_passes_who_is_in_line() {
    each_rate(|throttle| {
        let mut waiter = Queued::in_line(&throttle);
        let other = {
            let throttle = throttle.clone();
            thread::spawn(move || throttle.try_acquire_at(1, start()).is_ok())
        };
        assert!(waiter.look(start()).is_ok(), "it was first in line");
        assert!(!other.join().unwrap());
    });
}

/// Guard: whoever has the lock sets the flag before it reads the word. Taken out (the word only
/// read), somebody who does without the lock starts in between, and both have.
#[test]
fn a_start_without_the_lock_against_one_with_it() {
    each_rate(|throttle| {
        let other = {
            let throttle = throttle.clone();
            thread::spawn(move || throttle.try_acquire_at(1, start()).is_ok())
        };
        let started = Queued::in_line(&throttle).look(start()).is_ok();
        assert!(started != other.join().unwrap(), "one of two");
    });
}

/// Guard: a place in line is taken, and the flag set, in one step under the lock. Taken out (the
/// flag cleared by whoever leaves, and not kept for who is there still), the last one passes the
/// line.
#[test]
fn one_leaves_while_another_joins() {
    each_rate(|throttle| {
        let first = Queued::in_line(&throttle);
        let leave = thread::spawn(move || drop(first));
        let mut second = Queued::in_line(&throttle);
        leave.join().unwrap();
        assert_eq!(throttle.waiters(), 1);
        assert!(throttle.try_acquire_at(1, start()).is_err());
        assert!(second.look(start()).is_ok());
        assert_eq!(throttle.waiters(), 0);
    });
}

/// Guard: whoever is first in line and leaves it calls the next. Taken out, the next is not woken
/// though it is its turn now.
#[test]
fn a_cancelled_wait_against_its_successor() {
    each_rate(|throttle| {
        throttle.reserve(1, start()).unwrap();
        let mut first = Queued::in_line(&throttle);
        let mut second = Queued::in_line(&throttle);
        let turn = first.look(start()).unwrap_err();

        let leave = thread::spawn(move || drop(first));
        let told = second.look(start()).unwrap_err();
        leave.join().unwrap();

        assert_eq!(turn, start() + SECOND);
        assert!(told == turn || second.was_woken(), "the turn of the first is its own now");
        assert!(second.look(turn).is_ok());
    });
}

/// Guard: only the first in line starts. Taken out (whoever looks and may), the second one does.
#[test]
fn two_look_at_once_and_one_may() {
    each_rate(|throttle| {
        let mut first = Queued::in_line(&throttle);
        let mut second = Queued::in_line(&throttle);
        let look = thread::spawn(move || second.look(start()).is_err().then_some(second));
        assert!(first.look(start()).is_ok());
        let mut second = look.join().unwrap().expect("it passed the first");
        assert_eq!(second.look(start()), Err(start() + SECOND));
    });
}

/// Two at once, whose places are behind a lock each.
fn two_shares(model: impl Fn(Arc<Throttle>) + Send + Sync + Copy + 'static) {
    let rate = Rate::sliding(2, SECOND).unwrap();
    exhaustive(move || model(Arc::new(Throttle::with_rate(rate))));
}

/// Guard: with no place free now, the first to be free is looked for with all shares locked. Taken
/// out (the locks let go between looking for a place and taking it), two reserve the same slot.
#[test]
fn shares_have_distinct_slots() {
    two_shares(|throttle| {
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

/// Guard: what takes places of several shares has all of them locked. Taken out (the locks let go
/// between looking for the places and taking them), three start.
#[test]
fn all_shares_at_once_against_one() {
    two_shares(|throttle| {
        let other = {
            let throttle = throttle.clone();
            thread::spawn(move || throttle.try_acquire_at(1, start()).is_ok())
        };
        let both = throttle.try_acquire_at(2, start()).is_ok();
        assert!(both != other.join().unwrap(), "two or one, not three and not none");
    });
}

/// Guard: every share is closed while somebody is in line. Taken out (the first alone), what comes
/// later passes who is in line.
#[test]
fn nobody_passes_the_line_through_another_share() {
    two_shares(|throttle| {
        let mut both = throttle.clone().enqueue_owned(2).unwrap();
        let other = {
            let throttle = throttle.clone();
            thread::spawn(move || throttle.try_acquire_at(1, start()).is_ok())
        };
        let mut cx = Context::from_waker(Waker::noop());
        assert!(both.poll_at(start(), &mut cx).is_ok(), "it was first in line");
        assert!(!other.join().unwrap());
    });
}

/// Guard: that no place is free before an instant is noted with all shares locked. Taken out (noted
/// when they are unlocked), an older note outlives the newer one, and somebody is told an instant at
/// which there is no place.
#[test]
fn what_is_told_of_the_next_place_is_so() {
    two_shares(|throttle| {
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

/// Guard: a key that is in use is not forgotten. Taken out, a key is forgotten that is about to
/// start something, and starts more than it may. (That this is looked at before whether the key is
/// at rest cannot be seen here: handles are counted by the standard `Arc`, not loom's.)
#[test]
fn forgetting_a_key_against_its_use() {
    each_keyed(1, |throttles| {
        throttles.throttle(&1, start()).unwrap();
        let user = {
            let throttles = throttles.clone();
            thread::spawn(move || throttles.try_acquire_at(&1, 1, start()).is_ok())
        };
        let _ = throttles.throttle(&2, start());
        let started = throttles.try_acquire_at(&1, 1, start()).is_ok();
        assert!(!(user.join().unwrap() && started), "one a second, forgotten or not");
    });
}

/// Guard: a key that comes new is looked for again before it is added. Taken out, each of two gets
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
