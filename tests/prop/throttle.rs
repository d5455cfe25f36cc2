//! The throttle beside models that are obviously right: all windows are checked, not samples of
//! them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use governor::clock::{Clock, FakeRelativeClock};
use governor::{Quota, RateLimiter};
use proptest::prelude::*;
use sluicegate::throttle::{
    KeyedError, KeyedThrottle, Rate, ReserveError, Throttle, TryAcquireError, Waiter,
};

const NANO: Duration = Duration::from_nanos(1);

fn nanos(n: u64) -> Duration {
    Duration::from_nanos(n)
}

/// Never more than `limit` in a half-open window, whichever: it is enough to look at those that
/// begin with a start.
fn assert_all_windows(starts: &[u64], limit: usize, window: u64) {
    for &from in starts {
        let inside = starts.iter().filter(|at| (from..from + window).contains(at)).count();
        assert!(inside <= limit, "{inside} of {limit} in the window from {from}: {starts:?}");
    }
}

/// The same for many: of those in order, one and the `limit`-th after it are in no window together.
fn assert_all_windows_of_many(starts: &[u64], limit: usize, window: u64) {
    let mut starts = starts.to_vec();
    starts.sort_unstable();
    for (first, beyond) in starts.iter().zip(starts.get(limit..).unwrap_or_default()) {
        assert!(*beyond >= first + window, "more than {limit} from {first}: {starts:?}");
    }
}

/// When `n` may start together, by all that ever started: a window that ends with them has room.
fn earliest(starts: &[u64], limit: usize, window: u64, n: usize, now: u64) -> u64 {
    let mut latest_first = starts.to_vec();
    latest_first.sort_by(|a, b| b.cmp(a));
    latest_first.get(limit - n).map_or(now, |at| now.max(at + window))
}

#[derive(Debug, Clone)]
enum Op {
    Pass(u64),
    Reserve(u32),
    Try(u32),
    Join(u32),
    Poll(usize),
    Drop(usize),
}

fn op(limit: u32) -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0_u64..12).prop_map(Op::Pass),
        1 => Just(Op::Pass(PATIENCE)),
        2 => (1..=limit).prop_map(Op::Reserve),
        3 => (1..=limit).prop_map(Op::Try),
        3 => (1..=limit).prop_map(Op::Join),
        8 => (0_usize..4).prop_map(Op::Poll),
        1 => (0_usize..4).prop_map(Op::Drop),
    ]
}

/// How long the head may keep the others waiting. The windows are as short as to begin and
/// end in it many times, and the other way round.
const PATIENCE: u64 = 100_000_000;

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Queued {
    waiter: Waiter<Arc<Throttle>>,
    n: u32,
    woken: Arc<Woken>,
    /// When it polled last, or joined.
    seen: u64,
    /// When it was told to poll again.
    told: Option<u64>,
}

/// How a run counts: a sliding window in a model of all that ever started, a GCRA in that of
/// governor's.
struct Model {
    throttle: Arc<Throttle>,
    base: Instant,
    now: u64,
    limit: usize,
    window: u64,
    starts: Vec<u64>,
    /// In the order of joining.
    waiters: Vec<Queued>,
}

impl Model {
    fn new(limit: u32, window: u64) -> Self {
        let throttle = Arc::new(Throttle::new(limit, nanos(window)).unwrap());
        let (limit, base) = (limit as usize, Instant::now());
        Self { throttle, base, now: 0, limit, window, starts: Vec::new(), waiters: Vec::new() }
    }

    fn at(&self) -> Instant {
        self.base + nanos(self.now)
    }

    fn ticks(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.base).as_nanos() as u64
    }

    fn earliest(&self, n: u32) -> u64 {
        earliest(&self.starts, self.limit, self.window, n as usize, self.now)
    }

    fn started(&mut self, n: u32, at: u64) {
        self.starts.extend(std::iter::repeat_n(at, n as usize));
    }

    /// Whether the waiters before this position were woken and did not poll: only then may they be
    /// passed.
    fn may_pass(&self, position: usize) -> bool {
        self.waiters[..position].iter().all(|waiter| waiter.seen + PATIENCE <= self.now)
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Pass(time) => self.now += time,
            Op::Reserve(n) => match self.throttle.reserve(n, self.at()) {
                Ok(when) => {
                    assert!(self.may_pass(self.waiters.len()));
                    let when = self.ticks(when);
                    assert_eq!(when, self.earliest(n), "told the earliest instant");
                    self.started(n, when);
                }
                Err(error) => {
                    let waiting = self.waiters.len();
                    assert!(waiting > 0);
                    assert!(
                        matches!(error, ReserveError::WaitersAhead { waiters, .. } if waiters == waiting)
                    );
                }
            },
            Op::Try(n) => match self.throttle.try_acquire_at(n, self.at()) {
                Ok(()) => {
                    assert!(self.may_pass(self.waiters.len()));
                    assert_eq!(self.earliest(n), self.now);
                    self.started(n, self.now);
                }
                Err(TryAcquireError::NotYet { until, .. }) => {
                    let until = self.ticks(until);
                    assert!(until > self.now);
                    assert!(!self.waiters.is_empty() || until == self.earliest(n));
                }
                Err(error) => panic!("{error}"),
            },
            Op::Join(n) => {
                let waiter = self.throttle.clone().enqueue_owned(n).unwrap();
                let woken = Arc::default();
                self.waiters.push(Queued { waiter, n, woken, seen: self.now, told: None });
            }
            Op::Poll(position) => {
                let (at, now) = (self.at(), self.now);
                let Some(waiter) = self.waiters.get_mut(position) else { return };
                waiter.woken.0.store(false, Ordering::Relaxed);
                let waker = Waker::from(waiter.woken.clone());
                let polled = waiter.waiter.poll_at(at, &mut Context::from_waker(&waker));
                waiter.seen = now;
                let n = waiter.n;
                match polled {
                    Ok(()) => {
                        assert_eq!(self.earliest(n), now, "not before it may");
                        assert!(self.may_pass(position), "{position} passed a waiter");
                        self.waiters.remove(position);
                        self.started(n, now);
                    }
                    Err(again) => {
                        let again = self.ticks(again);
                        assert!(again > now);
                        self.waiters[position].told = Some(again);
                        if position == 0 {
                            assert_eq!(again, self.earliest(n), "the first is told its turn");
                        }
                    }
                }
            }
            Op::Drop(position) => {
                if position < self.waiters.len() {
                    self.waiters.remove(position);
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        #[cfg(debug_assertions)]
        self.throttle.validate();
        assert_eq!(self.throttle.waiters(), self.waiters.len());
        // The head knows its turn, or has been woken to learn it.
        if let Some(Queued { n, woken, told: Some(told), .. }) = self.waiters.first() {
            assert!(woken.0.load(Ordering::Relaxed) || *told <= self.earliest(*n));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_sliding_window_and_its_waiters(
        (limit, window, ops) in (1_u32..6, prop_oneof![1_u64..20, Just(PATIENCE), Just(3 * PATIENCE)])
            .prop_flat_map(|(limit, window)| {
                (Just(limit), Just(window), prop::collection::vec(op(limit), 1..120))
            }),
    ) {
        let mut model = Model::new(limit, window);
        for op in &ops {
            model.apply(op);
        }
        // All that are left come in turn: the first one starts as soon as it may.
        while let Some(first) = model.waiters.first() {
            model.now = model.earliest(first.n);
            let left = model.waiters.len();
            model.apply(&Op::Poll(0));
            prop_assert_eq!(model.waiters.len(), left - 1);
        }
        assert_all_windows(&model.starts, model.limit, model.window);
    }

    /// So wide that its slots are split among several shards.
    #[test]
    fn a_wide_sliding_window_and_its_waiters(
        (limit, window, ops) in (256_u32..600, prop_oneof![1_u64..20, Just(3 * PATIENCE)])
            .prop_flat_map(|(limit, window)| {
                let op = prop_oneof![2 => op(3), 2 => op(limit / 3), 1 => op(limit)];
                (Just(limit), Just(window), prop::collection::vec(op, 1..60))
            }),
    ) {
        let mut model = Model::new(limit, window);
        for op in &ops {
            model.apply(op);
        }
        while let Some(first) = model.waiters.first() {
            model.now = model.earliest(first.n);
            let left = model.waiters.len();
            model.apply(&Op::Poll(0));
            prop_assert_eq!(model.waiters.len(), left - 1);
        }
        assert_all_windows_of_many(&model.starts, model.limit, model.window);
    }

    /// Waiters that are not polled any more cost those behind them a tenth of a second, however many
    /// they are, counted from when their turn has come and from the turns that the live ones would
    /// have without them.
    #[test]
    fn abandoned_waiters_cost_a_tenth_of_a_second_in_all(
        (rate, waiters) in (1_u32..6, prop_oneof![1_u64..20, Just(PATIENCE / 3), Just(9 * PATIENCE)])
            .prop_flat_map(|(limit, window)| {
                let rates = prop_oneof![
                    Just(Rate::sliding(limit, nanos(window)).unwrap()),
                    (1..=limit).prop_map(move |burst| {
                        Rate::gcra(limit, nanos(window * u64::from(limit)), burst).unwrap()
                    }),
                ];
                rates.prop_flat_map(|rate| {
                    let waiter = (1..=rate.burst(), 0..4);
                    (Just(rate), prop::collection::vec(waiter, 1..100))
                })
            }),
    ) {
        let throttle = Arc::new(Throttle::with_rate(rate));
        let base = Instant::now();
        throttle.reserve(rate.burst(), base).unwrap();
        // What the live ones start, if each abandoned one goes when its turn has come.
        let mut alone = vec![(rate.burst(), base)];
        let reserve = |alone: &[(u32, Instant)], n, now| {
            let throttle = Throttle::with_rate(rate);
            for (n, now) in alone {
                throttle.reserve(*n, *now).unwrap();
            }
            throttle.reserve(n, now).unwrap()
        };
        let (mut kept, mut live, mut turn) = (Vec::new(), Vec::new(), base);
        for (n, kind) in waiters {
            let mut waiter = throttle.clone().enqueue_owned(n).unwrap();
            turn = reserve(&alone, n, turn);
            if kind == 0 {
                // Not polled at all.
                kept.push(waiter);
                continue;
            }
            let woken = Arc::<Woken>::default();
            let waker = Waker::from(woken.clone());
            let told = waiter.poll_at(base, &mut Context::from_waker(&waker)).unwrap_err();
            if kind > 1 {
                alone.push((n, turn));
                live.push((waiter, woken, told, turn));
            } else {
                kept.push(waiter);
            }
        }
        let mut now = base;
        while !live.is_empty() {
            #[cfg(debug_assertions)]
            throttle.validate();
            // The last of those that poll at an instant polls first.
            let polls = |(_, woken, told, _): &(_, Arc<Woken>, Instant, _)| {
                if woken.0.load(Ordering::Relaxed) { now } else { now.max(*told) }
            };
            let (at, next) = live.iter().enumerate().rev().map(|(at, it)| (at, polls(it)))
                .min_by_key(|(_, next)| *next).unwrap();
            now = next;
            let (waiter, woken, told, turn): &mut (_, Arc<Woken>, _, Instant) = &mut live[at];
            woken.0.store(false, Ordering::Relaxed);
            match waiter.poll_at(now, &mut Context::from_waker(&Waker::from(woken.clone()))) {
                Ok(()) => {
                    let late = now.saturating_duration_since(*turn);
                    prop_assert!(late <= nanos(PATIENCE), "{:?}", late);
                    prop_assert_eq!(at, 0, "in order");
                    drop(live.remove(at));
                }
                Err(again) => {
                    prop_assert!(again > now);
                    *told = again;
                }
            }
        }
        prop_assert_eq!(throttle.waiters(), kept.len());
        drop(kept);
        prop_assert_eq!(throttle.waiters(), 0);
    }

    #[test]
    fn a_gcra_is_that_of_governor(
        limit in 1_u32..10,
        window in 1_u64..100_000,
        mode: bool,
        burst in 1_u32..8,
        ops in prop::collection::vec((0_u64..200_000, 1_u32..8, any::<bool>()), 1..80),
    ) {
        // As far as governor counts in whole nanoseconds, so do we.
        let window = match mode {
            false => window * u64::from(limit),
            true => window + 100_000 * u64::from(limit),
        };
        let clock = FakeRelativeClock::default();
        let interval = nanos(window.div_ceil(limit.into()));
        let quota = Quota::with_period(interval).unwrap();
        let oracle = RateLimiter::direct_with_clock(
            quota.allow_burst(NonZeroU32::new(burst).unwrap()),
            clock.clone(),
        );
        let throttle = Throttle::gcra(limit, nanos(window), burst).unwrap();
        let base = Instant::now();
        let (mut now, mut starts) = (Duration::ZERO, Vec::new());
        for (pass, n, reserve) in ops {
            clock.advance(nanos(pass));
            now += nanos(pass);
            let cells = NonZeroU32::new(n).unwrap();
            if n > burst {
                prop_assert!(oracle.check_n(cells).is_err());
                prop_assert!(throttle.reserve(n, base + now).is_err());
                prop_assert!(throttle.try_acquire_at(n, base + now).is_err());
                continue;
            }
            let expected = match oracle.check_n(cells).unwrap() {
                Ok(()) => Duration::ZERO,
                Err(not_until) => not_until.wait_time_from(clock.now()),
            };
            if reserve {
                let when = throttle.reserve(n, base + now).unwrap();
                prop_assert_eq!(when - (base + now), expected);
                if !expected.is_zero() {
                    // Its oracle does not reserve: it is asked just before, and then.
                    clock.advance(expected - NANO);
                    prop_assert!(oracle.check_n(cells).unwrap().is_err());
                    clock.advance(NANO);
                    prop_assert!(oracle.check_n(cells).unwrap().is_ok());
                    now += expected;
                }
            } else {
                match throttle.try_acquire_at(n, base + now) {
                    Ok(()) => prop_assert!(expected.is_zero()),
                    Err(TryAcquireError::NotYet { until, .. }) => {
                        prop_assert_eq!(until - (base + now), expected);
                        prop_assert!(!expected.is_zero());
                        continue;
                    }
                    Err(error) => prop_assert!(false, "{}", error),
                }
            }
            starts.extend(std::iter::repeat_n(now.as_nanos() as u64, n as usize));
        }
        // In any time from a start to another there are at most the burst and what was earned.
        let interval = interval.as_nanos() as u64;
        for (first, from) in starts.iter().enumerate() {
            for (last, to) in starts.iter().enumerate().skip(first) {
                let most = u64::from(burst) + (to - from) / interval;
                prop_assert!((last - first + 1) as u64 <= most);
            }
        }
    }

    #[test]
    fn keys_are_evicted_only_when_expired(
        max_keys in 1_usize..5,
        ops in prop::collection::vec((0_u64..30, 0_usize..8, 1_u32..3, any::<bool>()), 1..150),
    ) {
        // Tiers: a key's number says how much it may.
        let limit = |key: usize| 2 + key % 3;
        const WINDOW: u64 = 40;
        let throttles = KeyedThrottle::new(max_keys, move |key: &usize| {
            Rate::sliding(limit(*key) as u32, nanos(WINDOW)).unwrap()
        })
        .unwrap();
        let base = Instant::now();
        let mut now = 0;
        let mut starts = vec![Vec::new(); 8];
        // Least recently used first.
        let mut resident: Vec<usize> = Vec::new();
        for (pass, key, n, reserve) in ops {
            now += pass;
            let expired = |starts: &[Vec<u64>], key: usize| {
                starts[key].iter().all(|at| at + WINDOW <= now)
            };
            let room = if let Some(at) = resident.iter().position(|known| *known == key) {
                resident.remove(at);
                true
            } else if resident.len() < max_keys {
                true
            } else if let Some(at) = resident.iter().position(|known| expired(&starts, *known)) {
                resident.remove(at);
                true
            } else {
                false
            };
            let when = earliest(&starts[key], limit(key), WINDOW, n as usize, now);
            let at = base + nanos(now);
            let started = if reserve {
                match throttles.reserve(&key, n, at) {
                    Ok(told) => {
                        prop_assert_eq!(told, base + nanos(when));
                        Some(when)
                    }
                    Err(KeyedError::Busy(busy)) => {
                        prop_assert!(!room);
                        let first = resident.iter().map(|key| {
                            starts[*key].iter().map(|at| at + WINDOW).max().unwrap()
                        });
                        let first = base + nanos(first.min().unwrap());
                        // Exact when it was found out; the keys may have been used since.
                        prop_assert!(busy.until.is_some_and(|until| until > at && until <= first));
                        None
                    }
                    Err(error) => panic!("{error}"),
                }
            } else {
                match throttles.try_acquire_at(&key, n, at) {
                    Ok(()) => Some(now),
                    Err(KeyedError::Busy(_)) => {
                        prop_assert!(!room);
                        None
                    }
                    Err(KeyedError::Refused(_)) => {
                        prop_assert!(room && when > now);
                        None
                    }
                }
            };
            if room {
                resident.push(key);
            } else {
                prop_assert!(started.is_none());
            }
            if let Some(at) = started {
                prop_assert!(at >= when);
                starts[key].extend(std::iter::repeat_n(at, n as usize));
                assert_all_windows(&starts[key], limit(key), WINDOW);
            }
            prop_assert_eq!(throttles.len(), resident.len());
            #[cfg(debug_assertions)]
            throttles.validate();
        }
    }
}

/// A count of starts beside what was earned: at most the burst and that, rounded up.
fn most(limit: u64, window: u64, burst: u64, time: u64) -> u64 {
    let earned = (u128::from(time) * u128::from(limit)).div_ceil(u128::from(window));
    burst + earned as u64
}

/// Any rate up to 10^10 per second, low and high ones alike.
fn any_rate() -> impl Strategy<Value = (u32, u64)> {
    prop_oneof![
        (1_u32..100, 1_u64..1_000),
        (1_u32.., 1_u64..10_000_000_000),
        (1_u32..10_000_000, Just(1_000_000_000_u64)),
        (100_000_000_u32.., Just(1_000_000_000_u64)),
    ]
    .prop_filter("at most ten a nanosecond", |(limit, window)| u64::from(*limit) <= 10 * window)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// Over a long run the starts are as many as the rate says, to 0.1 %.
    #[test]
    fn a_gcra_keeps_any_rate((limit, window) in any_rate(), burst in 1_u32..1_000) {
        let throttle = Throttle::gcra(limit, nanos(window), burst).unwrap();
        let base = Instant::now();
        // So long that a nanosecond is nothing, and so many that one start is.
        let (limit, window) = (u128::from(limit), u128::from(window));
        let rounds = (100_000 * limit / window / u128::from(burst)).clamp(20, 10_000);
        let mut last = base;
        for _ in 0..=rounds {
            last = throttle.reserve(burst, base).unwrap();
        }
        let starts = rounds * u128::from(burst);
        let (exact, taken) = (starts * window / limit, (last - base).as_nanos());
        prop_assert!(taken >= exact, "{} ns, and not before {}", taken, exact);
        prop_assert!(taken <= exact + exact / 1_000 + 2, "{} ns for {}", taken, exact);
        // A waiter waits as long.
        let (mut cx, mut waiter) = (Context::from_waker(Waker::noop()), throttle.enqueue(burst).unwrap());
        let turn = waiter.poll_at(base, &mut cx).unwrap_err();
        let (exact, taken) = ((starts + u128::from(burst)) * window / limit, (turn - base).as_nanos());
        prop_assert!(taken >= exact && taken <= exact + exact / 1_000 + 2);
        prop_assert!(waiter.poll_at(turn - NANO, &mut cx).is_err());
        prop_assert!(waiter.poll_at(turn, &mut cx).is_ok());
    }

    /// Never more than the burst and what was earned, in any time from a start to another.
    #[test]
    fn a_gcra_of_any_rate_keeps_its_bound(
        (limit, window) in any_rate(),
        burst in 1_u32..20,
        ops in prop::collection::vec((0_u64..8, 1_u32..20, 0..3), 1..80),
    ) {
        let throttle = Arc::new(Throttle::gcra(limit, nanos(window), burst).unwrap());
        let base = Instant::now();
        let (limit, burst_u64) = (u64::from(limit), u64::from(burst));
        // Short beside the time that the burst takes to earn, and long.
        let unit = (window * burst_u64 / limit / 4).max(1);
        let (mut now, mut starts) = (0, Vec::new());
        for (pass, n, how) in ops {
            now += pass * unit;
            let (at, n) = (base + nanos(now), n.min(burst));
            let started = match how {
                0 => throttle.reserve(n, at).ok(),
                1 => match throttle.try_acquire_at(n, at) {
                    Ok(()) => Some(at),
                    Err(TryAcquireError::NotYet { until, .. }) => {
                        prop_assert!(until > at);
                        prop_assert!(throttle.try_acquire_at(n, until - NANO).is_err());
                        throttle.try_acquire_at(n, until).unwrap();
                        now = (until - base).as_nanos() as u64;
                        Some(until)
                    }
                    Err(error) => panic!("{error}"),
                },
                _ => {
                    let mut waiter = throttle.clone().enqueue_owned(n).unwrap();
                    waiter.poll_at(at, &mut Context::from_waker(Waker::noop())).is_ok().then_some(at)
                }
            };
            let started = started.map(|at| (at - base).as_nanos() as u64);
            starts.extend(started.into_iter().flat_map(|at| vec![at; n as usize]));
        }
        starts.sort_unstable();
        for (first, from) in starts.iter().enumerate() {
            for (last, to) in starts.iter().enumerate().skip(first) {
                let count = (last - first + 1) as u64;
                // Told instants are rounded up to a nanosecond.
                prop_assert!(count <= most(limit, window, burst_u64, to - from + 1));
            }
        }
    }
}

/// The keys of a throttle and their users: handles, waiters, and instants that were
/// overtaken.
mod keys_and_users {
    use std::hash::{Hash, Hasher};
    use std::sync::Mutex;

    use super::*;

    /// Its clone is the one that is kept, and tells when it is evicted.
    struct Key {
        id: usize,
        kept: bool,
        evicted: Arc<Mutex<Vec<usize>>>,
    }

    impl Clone for Key {
        fn clone(&self) -> Self {
            Self { id: self.id, kept: true, evicted: self.evicted.clone() }
        }
    }

    impl Drop for Key {
        fn drop(&mut self) {
            if self.kept {
                self.evicted.lock().unwrap().push(self.id);
            }
        }
    }

    impl PartialEq for Key {
        fn eq(&self, other: &Self) -> bool {
            self.id == other.id
        }
    }

    impl Eq for Key {}

    impl Hash for Key {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.id.hash(state);
        }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Pass(u64),
        Start {
            key: usize,
            n: u32,
            reserve: bool,
        },
        /// By an instant so long before.
        Overtaken {
            key: usize,
            by: u64,
        },
        Hold(usize),
        Join(usize, u32),
        Release(usize),
    }

    fn op(keys: usize) -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0_u64..40).prop_map(Op::Pass),
            8 => (0..keys, 1_u32..=2, any::<bool>())
                .prop_map(|(key, n, reserve)| Op::Start { key, n, reserve }),
            1 => (0..keys, 1_u64..60).prop_map(|(key, by)| Op::Overtaken { key, by }),
            1 => (0..keys).prop_map(Op::Hold),
            1 => (0..keys, 1_u32..=2).prop_map(|(key, n)| Op::Join(key, n)),
            2 => (0_usize..4).prop_map(Op::Release),
        ]
    }

    /// Tiers: windows and limits differ, and so do the ways of counting.
    fn limit(key: usize) -> (u64, u64) {
        (2 + key as u64 % 3, [5, 40, 100][key / 2 % 3])
    }

    fn rate(key: usize) -> Rate {
        let (limit, window) = limit(key);
        match key % 2 {
            0 => Rate::sliding(limit as u32, nanos(window)).unwrap(),
            _ => Rate::gcra(1, nanos(window), limit as u32).unwrap(),
        }
    }

    enum User {
        Handle(Arc<Throttle>),
        Waiting(Waiter<Arc<Throttle>>, u32),
    }

    struct Model {
        throttles: KeyedThrottle<Key>,
        evicted: Arc<Mutex<Vec<usize>>>,
        base: Instant,
        now: u64,
        /// Of each key all that it ever started, and when it expires.
        starts: Vec<Vec<u64>>,
        expires: Vec<u64>,
        resident: Vec<usize>,
        users: Vec<(usize, User)>,
        had_users: bool,
    }

    impl Model {
        fn new(keys: usize, max_keys: usize) -> Self {
            let throttles = KeyedThrottle::new(max_keys, |key: &Key| rate(key.id)).unwrap();
            Self {
                throttles,
                evicted: Arc::default(),
                base: Instant::now(),
                now: 0,
                starts: vec![Vec::new(); keys],
                expires: vec![0; keys],
                resident: Vec::new(),
                users: Vec::new(),
                had_users: false,
            }
        }

        fn key(&self, id: usize) -> Key {
            Key { id, kept: false, evicted: self.evicted.clone() }
        }

        fn at(&self, ticks: u64) -> Instant {
            self.base + nanos(ticks)
        }

        /// When the keys expire that are not in use.
        fn idle(&self) -> Vec<u64> {
            let used = |key| self.users.iter().any(|(user, _)| *user == key);
            let idle = self.resident.iter().filter(|key| !used(**key));
            idle.map(|key| self.expires[*key]).collect()
        }

        /// A key was looked up: whether it is there now, and what was evicted for it.
        fn looked_up(&mut self, key: usize, busy: Option<Option<Instant>>, now: u64) {
            let evicted = std::mem::take(&mut *self.evicted.lock().unwrap());
            let known = self.resident.contains(&key);
            let idle = self.idle();
            let full = self.resident.len() == self.throttles.max_keys();
            if let Some(until) = busy {
                assert!(until.is_none_or(|until| until > self.at(now)), "already past");
                assert!(evicted.is_empty() || evicted == [key], "not kept");
                if now == self.now {
                    assert!(!known && full && idle.iter().all(|expiry| *expiry > now));
                    let held = self.resident.iter().any(|key| self.expires[*key] <= now);
                    assert!(!held || until.is_none(), "it depends on the users");
                    let first = idle.into_iter().min();
                    let in_time =
                        until.is_none_or(|until| first.is_none_or(|first| until <= self.at(first)));
                    assert!(in_time && (until.is_some() || !self.users.is_empty()));
                }
                return;
            }
            match *evicted {
                [] => assert!(known || !full),
                [other] => {
                    assert!(!known && full && other != key);
                    let expiry = self.expires[other];
                    assert!(expiry <= now && idle.contains(&expiry), "expired and unused");
                    // Of keys that had users it is noticed later that they are not in use any more.
                    assert!(self.had_users || idle.iter().all(|other| *other >= expiry));
                    self.resident.retain(|key| *key != other);
                }
                _ => panic!("{evicted:?}"),
            }
            if !known {
                self.resident.push(key);
            }
            assert_eq!(self.throttles.len(), self.resident.len());
        }

        fn started(&mut self, key: usize, n: u32, at: u64) {
            self.starts[key].extend(std::iter::repeat_n(at, n as usize));
            let (limit, window) = limit(key);
            if key % 2 == 0 {
                self.expires[key] = self.expires[key].max(at + window);
                assert_all_windows_of_many(&self.starts[key], limit as usize, window);
            } else {
                // By the instant of the start it is the same as by that of the reservation.
                self.expires[key] = self.expires[key].max(at) + u64::from(n) * window;
                assert!(self.expires[key] <= at + limit * window, "more than the burst");
            }
        }

        fn start(&mut self, key: usize, n: u32, reserve: bool, now: u64) {
            let (at, name) = (self.at(now), self.key(key));
            let ticks = |at: Instant| (at - self.base).as_nanos() as u64;
            let (busy, started) = if reserve {
                match self.throttles.reserve(&name, n, at) {
                    Ok(when) => (None, Some(ticks(when))),
                    Err(KeyedError::Busy(busy)) => (Some(busy.until), None),
                    Err(KeyedError::Refused(_)) => (None, None),
                }
            } else {
                match self.throttles.try_acquire_at(&name, n, at) {
                    Ok(()) => (None, Some(now)),
                    Err(KeyedError::Busy(busy)) => (Some(busy.until), None),
                    Err(KeyedError::Refused(_)) => (None, None),
                }
            };
            drop(name);
            self.looked_up(key, busy, now);
            if let Some(at) = started {
                self.started(key, n, at);
            }
        }

        fn apply(&mut self, op: Op) {
            let (now, at) = (self.now, self.at(self.now));
            match op {
                Op::Pass(time) => self.now += time,
                Op::Start { key, n, reserve } => self.start(key, n, reserve, now),
                Op::Overtaken { key, by } => self.start(key, 1, false, now.saturating_sub(by)),
                Op::Hold(key) => {
                    self.had_users = true;
                    let found = self.throttles.throttle(&self.key(key), at);
                    self.looked_up(key, found.as_ref().err().map(|busy| busy.until), now);
                    self.users.extend(found.ok().map(|handle| (key, User::Handle(handle))));
                }
                Op::Join(key, n) => {
                    self.had_users = true;
                    let found = self.throttles.enqueue(&self.key(key), n, at);
                    let busy = match &found {
                        Err(KeyedError::Busy(busy)) => Some(busy.until),
                        _ => None,
                    };
                    self.looked_up(key, busy, now);
                    self.users.extend(found.ok().map(|waiter| (key, User::Waiting(waiter, n))));
                }
                Op::Release(user) if user < self.users.len() => {
                    let (key, user) = self.users.remove(user);
                    match user {
                        User::Handle(handle) => {
                            if handle.try_acquire_at(1, at).is_ok() {
                                self.started(key, 1, now);
                            }
                        }
                        User::Waiting(mut waiter, n) => {
                            let mut cx = Context::from_waker(Waker::noop());
                            if waiter.poll_at(at, &mut cx).is_ok() {
                                self.started(key, n, now);
                            }
                        }
                    }
                }
                Op::Release(_) => {}
            }
            #[cfg(debug_assertions)]
            self.throttles.validate();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn a_key_is_evicted_only_when_expired_and_unused(
            (keys, max_keys, ops) in (1_usize..12, 1_usize..8).prop_flat_map(|(keys, max_keys)| {
                (Just(keys), Just(max_keys), prop::collection::vec(op(keys), 1..200))
            }),
        ) {
            let mut model = Model::new(keys, max_keys);
            for op in ops {
                model.apply(op);
            }
            // No key stays in use: any key has room when all have expired.
            model.users.clear();
            model.now += 100_000;
            for key in 0..keys {
                model.start(key, 1, false, model.now);
                prop_assert!(model.resident.contains(&key));
                model.now += 1_000;
            }
        }
    }
}

#[cfg(feature = "tokio")]
mod waiting {
    use std::sync::Mutex;

    use tokio::time::{sleep, timeout};

    use super::*;

    /// A task that comes after a while, waits for so many, and may give up.
    #[derive(Debug, Clone)]
    struct Comes {
        after: u64,
        n: u32,
        gives_up: Option<u64>,
    }

    fn comes(burst: u32) -> impl Strategy<Value = Comes> {
        let gives_up = prop::option::weighted(0.3, 0_u64..60_000);
        (0_u64..40_000, 1..=burst, gives_up).prop_map(|(after, n, gives_up)| Comes {
            after,
            n,
            gives_up,
        })
    }

    fn micros(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    /// The starts in order: when, how many, and of which task.
    async fn run(throttle: Throttle, tasks: Vec<Comes>) -> Vec<(u64, u32, usize)> {
        let throttle = Arc::new(throttle);
        let base = tokio::time::Instant::now();
        let log = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = tasks
            .into_iter()
            .enumerate()
            .map(|(who, task)| {
                let (throttle, log) = (throttle.clone(), log.clone());
                tokio::spawn(async move {
                    sleep(micros(task.after)).await;
                    let acquire = throttle.acquire_many(task.n).unwrap();
                    let started = match task.gives_up {
                        Some(after) => timeout(micros(after), acquire).await.is_ok(),
                        None => {
                            acquire.await;
                            true
                        }
                    };
                    if started {
                        let now = base.elapsed().as_nanos() as u64;
                        log.lock().unwrap().push((now, task.n, who));
                    }
                })
            })
            .collect();
        for task in tasks {
            timeout(Duration::from_secs(3600), task).await.expect("no waiter is stranded").unwrap();
        }
        assert_eq!(throttle.waiters(), 0);
        Arc::into_inner(log).unwrap().into_inner().unwrap()
    }

    fn paused<T>(run: impl Future<Output = T>) -> T {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().unwrap().block_on(run)
    }

    proptest! {
        /// tokio's timers go off up to a millisecond late, which is half a window here: what did
        /// start keeps to the window nevertheless.
        #[test]
        fn what_did_start_keeps_to_every_window(
            (limit, window, tasks) in (1_u32..6, 300_u64..9_000).prop_flat_map(|(limit, window)| {
                (Just(limit), Just(window), prop::collection::vec(comes(limit), 1..40))
            }),
        ) {
            let throttle = Throttle::new(limit, micros(window)).unwrap();
            let log = paused(run(throttle, tasks.clone()));
            let starts: Vec<_> =
                log.iter().flat_map(|(at, n, _)| vec![*at; *n as usize]).collect();
            assert_all_windows(&starts, limit as usize, window * 1_000);

            // In order: the first to come, as timers tell it to the millisecond, and to stay, is first.
            let stayed: Vec<_> = log.iter().map(|(.., who)| *who).collect();
            for (position, who) in stayed.iter().enumerate() {
                for later in &stayed[position..] {
                    let (who, later) = (tasks[*who].after, tasks[*later].after);
                    prop_assert!(who.div_ceil(1_000) <= later.div_ceil(1_000));
                }
            }
            for (who, task) in tasks.iter().enumerate() {
                prop_assert!(task.gives_up.is_some() || stayed.contains(&who));
            }
        }

        #[test]
        fn what_did_start_keeps_to_the_gcra(
            (burst, window, tasks) in (1_u32..6, 300_u64..9_000).prop_flat_map(|(burst, window)| {
                (Just(burst), Just(window), prop::collection::vec(comes(burst), 1..40))
            }),
        ) {
            let throttle = Throttle::gcra(1, micros(window), burst).unwrap();
            let log = paused(run(throttle, tasks));
            let clock = FakeRelativeClock::default();
            let quota = Quota::with_period(micros(window)).unwrap();
            let oracle = RateLimiter::direct_with_clock(
                quota.allow_burst(NonZeroU32::new(burst).unwrap()),
                clock.clone(),
            );
            let mut now = 0;
            for (at, n, _) in log {
                clock.advance(nanos(at - now));
                now = at;
                prop_assert!(oracle.check_n(NonZeroU32::new(n).unwrap()).unwrap().is_ok());
            }
        }
    }
}
