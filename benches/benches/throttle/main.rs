//! The throttle beside governor: one start at a time, at a rate that never holds it up.
//!
//! `reserve` is given the time, governor's `check` reads it: by its default clock, which counts the
//! processor's cycles, or by the system's. So there are rows with the time given, which is what the
//! target speaks of, and rows in which ours reads the system's clock, too. Beside them stands
//! governor with a clock that stands still: what its own work costs without any clock.
//!
//! governor is a GCRA; it has nothing to set beside a sliding window but that.
//!
//! The rows of the keyed one are of a table with 100,000 keys whose windows are an hour: whatever is
//! linear in the keys shows. governor's keyed one stands beside those that it can do: it has no bound.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock, FakeRelativeClock, MonotonicClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use sluicegate::throttle::Rate;
use sluicegate::{KeyedThrottle, Throttle};
use sluicegate_benches::{Cost, Options, Scale, Table, Workload, timed_in_slices};

const OPS: u64 = 1_000_000;

/// Nothing else shares its cache lines.
#[repr(align(128))]
struct Alone<T>(T);

trait Contender: Sync + 'static {
    /// The start of this number, which is not held up.
    fn start(&self, number: u64);
}

/// The time is given: a nanosecond later each time.
struct Given(Throttle, Instant);

impl Contender for Given {
    #[inline]
    fn start(&self, number: u64) {
        let now = black_box(self.1 + Duration::from_nanos(number));
        assert!(black_box(self.0.reserve(1, now)).is_ok());
    }
}

struct Clocked(Throttle);

impl Contender for Clocked {
    #[inline]
    fn start(&self, _: u64) {
        assert!(black_box(self.0.reserve(1, Instant::now())).is_ok());
    }
}

struct Governor<C: Clock>(
    RateLimiter<
        governor::state::NotKeyed,
        governor::state::InMemoryState,
        C,
        governor::middleware::NoOpMiddleware<C::Instant>,
    >,
);

impl<C: Clock + Sync + Send + 'static> Contender for Governor<C>
where
    C::Instant: Sync + Send,
{
    #[inline]
    fn start(&self, _: u64) {
        assert!(black_box(self.0.check()).is_ok());
    }
}

/// A thousand million a second, and as many at once.
const PLENTY: u32 = 1_000_000_000;
const SECOND: Duration = Duration::from_secs(1);

fn gcra() -> Throttle {
    Throttle::gcra(PLENTY, SECOND, PLENTY).expect("the limits are good")
}

/// 2,000 in a window so short that they are over when they come round again.
fn sliding() -> Throttle {
    Throttle::new(2_000, Duration::from_nanos(1)).expect("the limits are good")
}

fn quota() -> Quota {
    Quota::per_second(NonZeroU32::MIN.saturating_add(PLENTY - 1))
}

fn one_thread(contender: impl Contender, scale: Scale) -> Cost {
    let alone = Box::new(Alone(contender));
    let mut numbers = 0..;
    timed_in_slices(scale.of(OPS), |times| {
        for number in numbers.by_ref().take(times as usize) {
            alone.0.start(number);
        }
    })
}

fn two_threads(contender: impl Contender, scale: Scale) -> Cost {
    let alone = Box::new(Alone(contender));
    let each = scale.of(OPS / 2);
    let barrier = Barrier::new(2);
    let work = || {
        barrier.wait();
        let start = Instant::now();
        for number in 0..each {
            alone.0.start(number);
        }
        (start, Instant::now())
    };
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(work);
        (work(), other.join().expect("nothing panics"))
    });
    Cost::of(2 * each, one.1.max(other.1) - one.0.min(other.0))
}

const KEYS: u64 = 100_000;

/// Keys below `KEYS` have windows of an hour, and all but one of them are there. Others have windows of
/// a microsecond.
struct Full {
    keys: KeyedThrottle<u64>,
    now: Instant,
    number: u64,
}

impl Full {
    fn new() -> Self {
        let rates = [Duration::from_secs(3_600), Duration::from_micros(1)]
            .map(|window| Rate::sliding(100, window).expect("the limits are good"));
        let rate = move |key: &u64| rates[usize::from(*key >= KEYS)];
        let keys = KeyedThrottle::new(KEYS as usize, rate).expect("the limits are good");
        let mut full = Self { keys, now: Instant::now(), number: 0 };
        for key in 0..KEYS - 1 {
            assert!(full.start(key));
        }
        full
    }

    /// A microsecond later.
    fn start(&mut self, key: u64) -> bool {
        self.now += Duration::from_micros(1);
        self.number += 1;
        self.keys.try_acquire_at(black_box(&key), 1, self.now).is_ok()
    }

    fn known(&mut self) -> bool {
        self.start(self.number * 7_919 % (KEYS - 1))
    }

    /// The last new one is forgotten.
    fn new_key(&mut self) -> bool {
        self.start(KEYS + self.number)
    }

    fn refused(&mut self) -> bool {
        if self.keys.len() < KEYS as usize {
            assert!(self.start(KEYS - 1));
        }
        !self.start(KEYS + self.number)
    }
}

/// The table is filled once.
fn full(start: impl Fn(&mut Full) -> bool + 'static) -> impl FnMut(Scale) -> Cost + 'static {
    let mut full = None;
    move |scale| {
        let full = full.get_or_insert_with(Full::new);
        timed_in_slices(scale.of(OPS / 10), |times| {
            for _ in 0..times {
                assert!(start(full));
            }
        })
    }
}

fn governor_keyed(key: impl Fn(u64) -> u64 + 'static) -> impl FnMut(Scale) -> Cost + 'static {
    let (limiter, mut numbers) = (RateLimiter::keyed(quota()), 0..);
    for key in 0..KEYS - 1 {
        assert!(limiter.check_key(&key).is_ok());
    }
    move |scale| {
        timed_in_slices(scale.of(OPS / 10), |times| {
            for number in numbers.by_ref().take(times as usize) {
                assert!(limiter.check_key(black_box(&key(number))).is_ok());
            }
        })
    }
}

/// Ours twice, and governor with each of its clocks.
macro_rules! contest {
    ($table:ident, $run:ident, $threads:literal, $name:literal, $throttle:ident) => {
        $table.add(
            Workload::new(concat!("`reserve`, ", $name, ", time given, ", $threads))
                .at_most(1.0, "governor's `check`")
                .ours(|scale| $run(Given($throttle(), Instant::now()), scale))
                .rival("governor", |scale| {
                    $run(Governor::<DefaultClock>(DefaultDirectRateLimiter::direct(quota())), scale)
                })
                .beside("governor, no clock", |scale| {
                    let clock = FakeRelativeClock::default();
                    $run(Governor(RateLimiter::direct_with_clock(quota(), clock)), scale)
                }),
        );
        $table.add(
            Workload::new(concat!("`reserve`, ", $name, ", system's clock, ", $threads))
                .at_most(1.0, "governor's `check` by the same clock")
                .ours(|scale| $run(Clocked($throttle()), scale))
                .rival("governor", |scale| {
                    $run(Governor(RateLimiter::direct_with_clock(quota(), MonotonicClock)), scale)
                }),
        );
    };
}

fn main() {
    let options = Options::from_args(31);
    let mut table = Table::new("Throttle; ns a start");
    contest!(table, one_thread, "one thread", "GCRA", gcra);
    contest!(table, two_threads, "two threads", "GCRA", gcra);
    contest!(table, one_thread, "one thread", "sliding window", sliding);
    contest!(table, two_threads, "two threads", "sliding window", sliding);
    table.add(
        Workload::new("`try_acquire_at`, a known key of 100,000")
            .ours(full(Full::known))
            .beside("governor, keyed", governor_keyed(|number| number * 7_919 % (KEYS - 1))),
    );
    table.add(
        Workload::new("`try_acquire_at`, a new key beside 100,000 with long windows")
            .ours(full(Full::new_key)),
    );
    table.add(
        Workload::new("`try_acquire_at`, no room beside 100,000 keys").ours(full(Full::refused)),
    );
    table.run(&options);
}
