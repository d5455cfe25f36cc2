//! `Throttle` and `KeyedThrottle`: what they refuse, what they promise, and how they wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use sluicegate::throttle::{KeyedError, Rate, ReserveError, TooMany, TryAcquireError};
use sluicegate::{KeyedThrottle, Throttle};

const SECOND: Duration = Duration::from_secs(1);

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn until(refused: Result<(), TryAcquireError>) -> Instant {
    match refused {
        Err(TryAcquireError::NotYet { until, .. }) => until,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bad_rates_are_refused() {
    for (refused, field) in [
        (Rate::sliding(0, SECOND), "limit"),
        (Rate::sliding(Rate::MAX_SLIDING + 1, SECOND), "limit"),
        (Rate::sliding(1, Duration::ZERO), "window"),
        (Rate::sliding(1, Duration::MAX), "window"),
        (Rate::gcra(0, SECOND, 1), "limit"),
        (Rate::gcra(1, SECOND, 0), "burst"),
        (Rate::gcra(1, Duration::ZERO, 1), "window"),
        (Rate::gcra(101, Duration::from_nanos(10), 1), "window"),
        (Rate::gcra(1, Duration::MAX, 1), "window"),
        (Rate::gcra(1, SECOND, u32::MAX), "burst"),
    ] {
        assert_eq!(refused.unwrap_err().field(), field);
    }
    let keyed = |max_keys| KeyedThrottle::new(max_keys, |_: &u8| Rate::sliding(1, SECOND).unwrap());
    assert_eq!(keyed(0).unwrap_err().field(), "max_keys");
    assert_eq!(keyed(usize::MAX).unwrap_err().field(), "max_keys");
}

#[test]
fn a_window_is_half_open() {
    let (throttle, now) = (Throttle::new(2, SECOND).unwrap(), Instant::now());
    assert!(throttle.try_acquire_at(1, now).is_ok());
    assert!(throttle.try_acquire_at(1, now + millis(400)).is_ok());
    let before = now + SECOND - Duration::from_nanos(1);
    assert_eq!(until(throttle.try_acquire_at(1, before)), now + SECOND);
    assert!(throttle.try_acquire_at(1, now + SECOND).is_ok());
    assert_eq!(until(throttle.try_acquire_at(1, now + SECOND)), now + millis(1_400));
}

/// What bull let through: eleven in a second, at ten a second.
#[test]
fn eleven_are_not_ten() {
    let (throttle, now) = (Throttle::new(10, SECOND).unwrap(), Instant::now());
    let started = (0..2_000)
        .filter(|&at| throttle.try_acquire_at(1, now + millis(at)).is_ok())
        .collect::<Vec<_>>();
    let expected: Vec<_> = (0..10).chain(1_000..1_010).collect();
    assert_eq!(started, expected);
}

#[test]
fn what_can_never_start_is_refused() {
    let now = Instant::now();
    for throttle in [Throttle::new(3, SECOND).unwrap(), Throttle::gcra(9, SECOND, 3).unwrap()] {
        let refused = throttle.reserve(4, now).unwrap_err();
        assert!(matches!(refused, ReserveError::TooMany(TooMany { n: 4, most: 3, .. })));
        assert_eq!(refused.to_string(), "4 cannot start together: the rate allows at most 3");
        let refused = throttle.try_acquire_at(4, now).unwrap_err();
        assert!(matches!(refused, TryAcquireError::TooMany(_)));
        assert_eq!(refused.wait(now), None);
        assert!(throttle.enqueue(4).is_err());
        assert_eq!(throttle.reserve(3, now), Ok(now), "nothing was counted");
        assert_eq!(throttle.reserve(0, now), Ok(now), "none at all start at once");
        assert!(throttle.try_acquire_at(0, now).is_ok());
    }
}

#[test]
fn reserving_has_an_end() {
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    for throttle in [Throttle::new(1, 4 * year).unwrap(), Throttle::gcra(1, 4 * year, 1).unwrap()] {
        let now = Instant::now();
        let whens: Vec<_> = (0..4).map(|_| throttle.reserve(1, now)).collect();
        let expected = [Ok(now), Ok(now + 4 * year), Ok(now + 8 * year), Err(ReserveError::TooFar)];
        assert_eq!(whens, expected);
        assert_eq!(throttle.reserve(1, now), Err(ReserveError::TooFar), "and stays so");
        assert_eq!(throttle.reserve(1, now + 2 * year), Ok(now + 12 * year));
    }
}

#[test]
fn an_instant_before_it_was_made_will_do() {
    for throttle in [Throttle::new(1, SECOND).unwrap(), Throttle::gcra(1, SECOND, 1).unwrap()] {
        let Some(early) = Instant::now().checked_sub(10 * SECOND) else { return };
        assert_eq!(throttle.reserve(1, early), Ok(early));
        assert_eq!(throttle.reserve(1, early), Ok(early + SECOND));
    }
}

/// 700,000,000 per second were 500,000,000, and 300 were 250; above 10^9 there was none.
#[test]
fn high_rates_are_exact() {
    for (limit, nanos) in
        [(700_000_000, 1_000_000_000), (300_000_000, 1_000_000_000), (3, 2), (100, 10)]
    {
        let throttle = Throttle::gcra(limit, Duration::from_nanos(nanos), 1_000).unwrap();
        let (now, thousands) = (Instant::now(), 2_000_u64);
        let last = (0..=thousands).map(|_| throttle.reserve(1_000, now).unwrap()).last().unwrap();
        let exact = (1_000 * thousands * nanos).div_ceil(limit.into());
        let taken = (last - now).as_nanos() as u64;
        assert!(taken == exact || taken == exact + 1, "{taken} ns for {exact}");
    }
}

#[test]
fn a_high_rate_has_the_ends_of_all_others() {
    let throttle = Throttle::gcra(9_999, Duration::from_micros(1), u32::MAX).unwrap();
    let (now, year) = (Instant::now(), Duration::from_secs(365 * 24 * 60 * 60));
    let mut at = now;
    assert_eq!(throttle.reserve(u32::MAX, now - 2 * year), Ok(now - 2 * year));
    for _ in 0..100 {
        assert!(throttle.try_acquire_at(u32::MAX, at).is_ok());
        let until = until(throttle.try_acquire_at(u32::MAX, at));
        assert!((until - at).as_secs_f64() - 0.429_539 < 0.000_01);
        at += year / 7;
    }
    assert_eq!(throttle.reserve(1, at + 200 * year), Ok(at + 200 * year));
}

#[test]
fn a_burst_comes_after_a_pause() {
    let (throttle, now) = (Throttle::gcra(10, SECOND, 3).unwrap(), Instant::now());
    let at = |ms| throttle.try_acquire_at(1, now + millis(ms)).is_ok();
    assert_eq!([0, 0, 0, 0, 99, 100, 100].map(at), [true, true, true, false, false, true, false]);
    assert_eq!([10_000; 4].map(at), [true, true, true, false]);
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn waker() -> (Arc<Woken>, Waker) {
    let woken = Arc::new(Woken::default());
    (woken.clone(), woken.into())
}

#[test]
fn a_waiter_is_not_passed() {
    for throttle in [Throttle::new(2, SECOND).unwrap(), Throttle::gcra(2, SECOND, 2).unwrap()] {
        let (now, cx) = (Instant::now(), &mut Context::from_waker(Waker::noop()));
        assert!(throttle.try_acquire_at(1, now).is_ok());
        let mut two = throttle.enqueue(2).unwrap();
        let turn = two.poll_at(now, cx).unwrap_err();
        // One could start, but for the two that wait.
        assert!(until(throttle.try_acquire_at(1, now)) >= turn);
        let refused = throttle.reserve(1, now).unwrap_err();
        assert!(matches!(refused, ReserveError::WaitersAhead { waiters: 1, .. }));
        drop(two);
        assert_eq!(throttle.waiters(), 0);
        assert!(throttle.try_acquire_at(1, now).is_ok());
    }
}

#[test]
fn a_waiter_that_starts_or_leaves_wakes_the_next() {
    let (throttle, now) = (Throttle::new(1, SECOND).unwrap(), Instant::now());
    let (woken, waker) = waker();
    let mut noop = Context::from_waker(Waker::noop());
    let mut first = throttle.enqueue(1).unwrap();
    let leaving = throttle.enqueue(1).unwrap();
    let mut last = throttle.enqueue(1).unwrap();
    assert!(last.poll_at(now, &mut Context::from_waker(&waker)).is_err());
    assert!(first.poll_at(now, &mut noop).is_ok());
    assert_eq!(woken.0.load(Ordering::Relaxed), 0, "there is one before it");
    drop(leaving);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(last.poll_at(now, &mut noop), Err(now + SECOND));
    assert!(last.poll_at(now + SECOND, &mut noop).is_ok());
}

#[test]
fn a_waiter_that_is_not_polled_is_passed_and_first_again() {
    let (throttle, now) = (Throttle::new(1, SECOND).unwrap(), Instant::now());
    let mut cx = Context::from_waker(Waker::noop());
    throttle.reserve(1, now).unwrap();
    let mut abandoned = throttle.enqueue(1).unwrap();
    let mut second = throttle.enqueue(1).unwrap();
    assert!(abandoned.poll_at(now, &mut cx).is_err());

    let mut at = now;
    while let Err(again) = second.poll_at(at, &mut cx) {
        assert!(again > at);
        at = again;
    }
    assert_eq!(at, now + SECOND + millis(100), "the turn of the first, and some patience");
    assert_eq!(throttle.waiters(), 1);
    // It is not passed when it comes back.
    let mut third = throttle.enqueue(1).unwrap();
    assert_eq!(abandoned.poll_at(at, &mut cx), Err(at + SECOND));
    assert!(third.poll_at(at + SECOND, &mut cx).is_err());
    assert!(abandoned.poll_at(at + SECOND, &mut cx).is_ok());
    assert_eq!(third.poll_at(at + SECOND, &mut cx), Err(at + 2 * SECOND));
}

#[test]
fn a_waiter_that_becomes_the_head_because_another_was_passed_is_woken() {
    let (throttle, now) = (Throttle::new(2, SECOND).unwrap(), Instant::now());
    let (woken, waker) = waker();
    throttle.reserve(1, now).unwrap();
    let _abandoned = throttle.enqueue(1).unwrap();
    let mut two = throttle.enqueue(2).unwrap();
    let mut last = throttle.enqueue(1).unwrap();
    let mut noop = Context::from_waker(Waker::noop());
    let again = two.poll_at(now, &mut Context::from_waker(&waker)).unwrap_err();
    assert!(two.poll_at(again, &mut Context::from_waker(&waker)).is_err(), "it is there");
    assert!(last.poll_at(now + millis(100), &mut noop).is_err());
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "it is first now, but not yet due");
    assert_eq!(two.poll_at(now + millis(100), &mut noop), Err(now + SECOND));
    assert!(two.poll_at(now + SECOND, &mut noop).is_ok());
}

#[test]
fn tiers_are_those_of_the_key() {
    let minute = Duration::from_secs(60);
    let tiers = [100, 500, 2_000].map(|limit| Rate::sliding(limit, minute).unwrap());
    let tenants = KeyedThrottle::new(3, move |tenant: &(usize, u64)| tiers[tenant.0]).unwrap();
    let now = Instant::now();
    for (tier, limit) in [(0, 100), (1, 500), (2, 2_000)] {
        let started = (0..3_000).filter(|_| tenants.try_acquire_at(&(tier, 7), 1, now).is_ok());
        assert_eq!(started.count(), limit);
    }
    let Err(KeyedError::Busy(busy)) = tenants.reserve(&(0, 8), 1, now) else {
        panic!("there are three tenants")
    };
    assert_eq!((busy.max_keys, busy.until), (3, Some(now + minute)));
    assert_eq!(busy.to_string(), "all 3 keys are in use, and none can be evicted now");
    assert_eq!(tenants.reserve(&(0, 8), 1, now + minute), Ok(now + minute));
    assert_eq!(tenants.len(), 3);
}

#[test]
fn a_key_in_use_is_not_evicted() {
    let rate = Rate::sliding(1, SECOND).unwrap();
    let (keys, now) = (KeyedThrottle::new(2, move |_: &char| rate).unwrap(), Instant::now());
    let waiter = keys.enqueue(&'a', 1, now).unwrap();
    keys.try_acquire_at(&'b', 1, now).unwrap();
    assert!(keys.throttle(&'c', now).is_err(), "one waits, one counts");
    let later = now + SECOND;
    assert!(keys.throttle(&'c', later).is_ok(), "the older one is in use still");
    assert!(keys.throttle(&'a', later).unwrap().waiters() == 1);
    drop(waiter);
    assert!(keys.throttle(&'d', later).is_ok());
    assert_eq!(keys.len(), 2);
}

/// A window whose slots are split among several shards is one window nevertheless.
#[test]
fn a_wide_window_is_one_window() {
    for limit in [127_u64, 255, 256, 511, 513, 999] {
        let (throttle, now) = (Throttle::new(limit as u32, SECOND).unwrap(), Instant::now());
        let half = limit / 2;
        for n in 0..half {
            assert_eq!(throttle.reserve(1, now + millis(n)), Ok(now + millis(n)));
        }
        let at = now + millis(half);
        throttle.try_acquire_at((limit - half) as u32, at).unwrap();
        assert_eq!(throttle.reserve(2, at), Ok(now + SECOND + millis(1)), "of {limit}");
        for n in 2..half {
            let free = now + SECOND + millis(n);
            assert_eq!(until(throttle.try_acquire_at(1, free - millis(1))), free);
            let before = free - Duration::from_nanos(1);
            assert_eq!(until(throttle.try_acquire_at(1, before)), free, "and asked again");
            assert!(throttle.try_acquire_at(1, free).is_ok());
        }
        let rest = now + 2 * SECOND + millis(half);
        assert_eq!(throttle.reserve(limit as u32, rest), Ok(rest));
    }
}

/// Threads that start by the clock, one at a time and several, and now and then all at once.
#[test]
fn threads_keep_to_every_window() {
    const LIMIT: usize = 600;
    let window = Duration::from_micros(300);
    let throttle = Throttle::new(LIMIT as u32, window).unwrap();
    let work = |thread: u32| {
        let (throttle, mut starts) = (&throttle, Vec::new());
        move || {
            for turn in 0..20_000_u32 {
                let now = Instant::now();
                let n = if turn % 64 == 0 { turn % 600 } else { 1 };
                if turn % 3 == thread {
                    let when = throttle.reserve(n, now).unwrap();
                    assert!(when >= now);
                    starts.extend(std::iter::repeat_n(when, n as usize));
                } else if throttle.try_acquire_at(n, now).is_ok() {
                    starts.extend(std::iter::repeat_n(now, n as usize));
                }
            }
            starts
        }
    };
    let mut starts: Vec<Instant> = std::thread::scope(|scope| {
        let threads = [0, 1, 2].map(|thread| scope.spawn(work(thread)));
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    starts.sort();
    assert!(starts.len() > 2 * LIMIT, "the windows are full");
    for (first, beyond) in starts.iter().zip(&starts[LIMIT..]) {
        assert!(*beyond >= *first + window);
    }
}

/// An instant far ahead holds up what comes after, but no window has more than its limit.
#[test]
fn instants_out_of_order_exceed_no_window() {
    for limit in [3_usize, 300] {
        let (throttle, base) = (Throttle::new(limit as u32, SECOND).unwrap(), Instant::now());
        let mut random = 7_u64;
        let mut starts: Vec<_> = (0..5_000)
            .filter_map(|turn| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let now = base + millis(turn / 10 + (random >> 33) % 3_000);
                match turn % 2 {
                    0 => throttle.reserve(1, now).ok(),
                    _ => throttle.try_acquire_at(1, now).is_ok().then_some(now),
                }
            })
            .collect();
        starts.sort();
        assert!(starts.len() > limit);
        for (first, beyond) in starts.iter().zip(&starts[limit..]) {
            assert!(*beyond >= *first + SECOND);
        }
    }
}

/// Eviction loses the starts of a key: an earlier instant would have them all over again.
#[test]
fn an_evicted_key_does_not_start_again_in_the_past() {
    let rate = Rate::sliding(1, SECOND).unwrap();
    let (keys, now) = (KeyedThrottle::new(1, move |_: &char| rate).unwrap(), Instant::now());
    keys.try_acquire_at(&'a', 1, now).unwrap();
    keys.try_acquire_at(&'b', 1, now + SECOND).unwrap();
    assert!(keys.throttle(&'a', now + 2 * SECOND).is_ok());
    // Of either it is not known any more what it started until it was evicted.
    for (key, early, until) in [('a', millis(999), SECOND), ('b', millis(1_999), 2 * SECOND)] {
        let refused = keys.try_acquire_at(&key, 1, now + early).unwrap_err();
        let KeyedError::Busy(busy) = refused else { panic!("{refused:?}") };
        assert_eq!(busy.until, Some(now + until));
    }
    assert!(keys.try_acquire_at(&'a', 1, now + SECOND).is_ok());
}

/// Wakers that panic, and go on panicking.
mod panicking {
    use std::mem::ManuallyDrop;
    use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};

    use cooked_waker::{IntoWaker, WakeRef};
    use sluicegate::throttle::Waiter;

    use super::*;

    /// Panics as it is dropped.
    struct Payload;

    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("a payload");
        }
    }

    #[derive(Clone)]
    enum Bad {
        WhenWoken,
        WhenDropped,
    }

    impl WakeRef for Bad {
        fn wake_by_ref(&self) {
            if matches!(self, Self::WhenWoken) {
                panic_any(Payload);
            }
        }
    }

    impl cooked_waker::Wake for Bad {}

    impl Drop for Bad {
        fn drop(&mut self) {
            if matches!(self, Self::WhenDropped) {
                panic_any(Payload);
            }
        }
    }

    fn poll(waiter: &mut Waiter<&Throttle>, now: Instant, waker: Bad) -> Result<(), Instant> {
        let waker = ManuallyDrop::new(Box::new(waker).into_waker());
        waiter.poll_at(now, &mut Context::from_waker(&waker))
    }

    fn panics(call: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(call)).map_err(std::mem::forget).is_err()
    }

    #[test]
    fn two_wakers_that_panic_as_they_are_dropped_cost_no_turn() {
        let (throttle, now) = (Throttle::new(1, SECOND).unwrap(), Instant::now());
        throttle.reserve(1, now).unwrap();
        let mut waiter = throttle.enqueue(1).unwrap();
        assert_eq!(poll(&mut waiter, now, Bad::WhenDropped), Err(now + SECOND));
        assert_eq!(poll(&mut waiter, now, Bad::WhenDropped), Err(now + SECOND));
        assert!(poll(&mut waiter, now + SECOND, Bad::WhenDropped).is_ok());
        assert_eq!(throttle.reserve(1, now + SECOND), Ok(now + 2 * SECOND));
    }

    #[test]
    fn a_waiter_that_leaves_ends_with_one_panic_when_its_waker_and_the_next_have_one() {
        let (throttle, now) = (Throttle::new(1, SECOND).unwrap(), Instant::now());
        throttle.reserve(1, now).unwrap();
        let mut first = throttle.enqueue(1).unwrap();
        let mut second = throttle.enqueue(1).unwrap();
        assert!(poll(&mut first, now, Bad::WhenDropped).is_err());
        assert!(poll(&mut second, now, Bad::WhenWoken).is_err());
        assert!(panics(|| drop(first)));
        assert_eq!(throttle.waiters(), 1);
        assert!(poll(&mut second, now + SECOND, Bad::WhenWoken).is_ok());
    }
}

#[cfg(feature = "tokio")]
mod waiting {
    use std::hash::{Hash, Hasher};

    use tokio::time::{self, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_after_the_other() {
        let (throttle, start) = (Throttle::new(2, SECOND).unwrap(), time::Instant::now());
        let mut starts = Vec::new();
        for _ in 0..5 {
            throttle.acquire().await;
            starts.push(start.elapsed().as_secs());
        }
        assert_eq!(starts, [0, 0, 1, 1, 2]);
        assert!(throttle.try_acquire().is_ok());
        assert!(throttle.try_acquire().is_err());
        assert!(throttle.acquire_many(3).is_err());
        throttle.acquire_many(2).unwrap().await;
        assert_eq!(start.elapsed(), 3 * SECOND);
        throttle.acquire_many(0).unwrap().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_wait_gives_its_slot_to_the_next() {
        let throttle = Arc::new(Throttle::new(1, SECOND).unwrap());
        let start = time::Instant::now();
        throttle.acquire().await;
        let leaves = timeout(millis(500), throttle.clone().acquire_owned());
        let (throttle, left) = (throttle.clone(), tokio::spawn(leaves));
        tokio::task::yield_now().await;
        throttle.acquire().await;
        assert_eq!(start.elapsed(), SECOND);
        assert!(left.await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_waiter_delays_no_other() {
        let (throttle, start) = (Throttle::new(1, SECOND).unwrap(), time::Instant::now());
        throttle.acquire().await;
        let mut abandoned = throttle.acquire();
        assert!(timeout(millis(1), &mut abandoned).await.is_err());
        throttle.acquire().await;
        assert!(start.elapsed() <= millis(1_102));
        abandoned.await;
        assert!(start.elapsed() <= millis(2_103));
    }

    /// By when a key is refused the instant until which it would be may be past: then it is not.
    #[test]
    fn busy_until_an_instant_that_is_past_is_not_busy() {
        let rate = Rate::sliding(1, millis(20)).unwrap();
        let keys = KeyedThrottle::new(1, move |key: &char| {
            if *key == 'b' {
                // Longer than the other one is busy.
                std::thread::sleep(millis(30));
            }
            rate
        })
        .unwrap();
        keys.try_acquire(&'a').unwrap();
        keys.try_acquire(&'b').unwrap();
    }

    /// A key that takes so long to be compared with.
    #[derive(Clone, Eq)]
    struct Slow(char, Duration);

    impl PartialEq for Slow {
        fn eq(&self, other: &Self) -> bool {
            std::thread::sleep(other.1);
            self.0 == other.0
        }
    }

    impl Hash for Slow {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    /// The same for a key whose earlier starts were evicted until that instant.
    #[test]
    fn evicted_until_an_instant_that_is_past_is_not_busy() {
        let rate = Rate::sliding(1, millis(20)).unwrap();
        let keys = KeyedThrottle::new(1, move |_: &Slow| rate).unwrap();
        let now = Instant::now();
        keys.try_acquire_at(&Slow('a', Duration::ZERO), 1, now).unwrap();
        for key in ['b', 'c'] {
            keys.throttle(&Slow(key, Duration::ZERO), now + millis(20)).unwrap();
        }
        keys.try_acquire(&Slow('c', millis(30))).unwrap();
    }

    /// Each with a key of its own, of which the windows are over at once.
    #[test]
    fn threads_are_not_refused_new_keys() {
        let nano = Duration::from_nanos(1);
        for rate in [Rate::sliding(1, nano).unwrap(), Rate::gcra(1, nano, 1).unwrap()] {
            let keys = KeyedThrottle::new(100, move |_: &u32| rate).unwrap();
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let keys = &keys;
                    scope.spawn(move || {
                        for turn in 0..20_000 {
                            keys.try_acquire(&(thread * 20_000 + turn)).unwrap();
                        }
                    });
                }
            });
            assert!(keys.len() <= 100);
        }
    }

    /// Polled in one task, awaited in another: the latter is woken, the former no more.
    #[tokio::test(start_paused = true)]
    async fn the_last_of_two_wakers_is_woken() {
        for rate in [Rate::sliding(1, SECOND).unwrap(), Rate::gcra(1, SECOND, 1).unwrap()] {
            let throttle = Arc::new(Throttle::with_rate(rate));
            throttle.acquire().await;
            let mut first = Box::pin(throttle.clone().acquire_owned());
            let mut second = Box::pin(throttle.clone().acquire_owned());
            let [(woken, waker), (elsewhere, other)] = [waker(), waker()];
            let cx = &mut Context::from_waker(&other);
            assert!(first.as_mut().poll(cx).is_pending());
            assert!(second.as_mut().poll(cx).is_pending());
            let cx = &mut Context::from_waker(&waker);
            assert!(second.as_mut().poll(cx).is_pending());
            // By the waiter that leaves, and by its timer.
            drop(first);
            assert_eq!(woken.0.load(Ordering::Relaxed), 1);
            assert!(second.as_mut().poll(cx).is_pending());
            time::sleep(SECOND).await;
            assert_eq!(woken.0.load(Ordering::Relaxed), 2);
            assert_eq!(elsewhere.0.load(Ordering::Relaxed), 0);
            let start = time::Instant::now();
            tokio::spawn(second).await.unwrap();
            assert!(start.elapsed() <= millis(1));
        }
    }

    /// tokio's timers go off at a whole millisecond: what comes late is made up for by the burst, and
    /// by nothing else.
    #[tokio::test(start_paused = true)]
    async fn a_burst_of_a_few_milliseconds_reaches_the_rate() {
        for (burst, least, most) in [(1, 900, 1_010), (8, 1_490, 1_508)] {
            let throttle = Throttle::gcra(1_500, SECOND, burst).unwrap();
            let (start, mut count) = (time::Instant::now(), 0);
            while start.elapsed() < SECOND {
                throttle.acquire().await;
                count += 1;
            }
            assert!((least..=most).contains(&count), "{count} with a burst of {burst}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn by_key() {
        let rate = Rate::gcra(1, SECOND, 1).unwrap();
        let keys = KeyedThrottle::new(1, move |_: &&str| rate).unwrap();
        let start = time::Instant::now();
        keys.acquire(&"a").unwrap().await;
        assert!(keys.acquire(&"b").is_err());
        assert!(keys.try_acquire(&"a").is_err());
        assert!(keys.acquire_many(&"a", 2).is_err());
        keys.acquire_many(&"a", 1).unwrap().await;
        assert_eq!(start.elapsed(), SECOND);
        time::advance(SECOND).await;
        keys.acquire(&"b").unwrap().await;
        assert_eq!(start.elapsed(), 2 * SECOND);
    }
}

/// Abandoned futures: each was polled once with the waker of a task that never
/// comes back, and is kept.
#[cfg(feature = "tokio")]
mod abandoned {
    use std::pin::{Pin, pin};

    use futures_util::{StreamExt, stream};
    use sluicegate::throttle::Acquire;
    use tokio::time::{self, sleep, timeout};

    use super::*;

    /// What the timers add: each goes off up to a millisecond late.
    const TIMERS: Duration = millis(3);
    const HOUR: Duration = Duration::from_secs(3_600);

    type Abandoned = Pin<Box<Acquire<Arc<Throttle>>>>;

    /// Polled once, and no more.
    fn abandon(throttle: &Arc<Throttle>, n: u32) -> Abandoned {
        let mut future = Box::pin(throttle.clone().acquire_many_owned(n).unwrap());
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        future
    }

    async fn acquire(throttle: &Throttle, n: u32) {
        throttle.acquire_many(n).unwrap().await;
    }

    fn both(limit: u32, window: Duration) -> [Arc<Throttle>; 2] {
        [Throttle::new(limit, window), Throttle::gcra(limit, window, limit)]
            .map(|throttle| Arc::new(throttle.unwrap()))
    }

    fn assert_within(elapsed: Duration, from: Duration, cost: Duration) {
        assert!(elapsed >= from && elapsed <= from + cost + TIMERS, "{elapsed:?} for {from:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_head_costs_those_behind_it_a_tenth_of_a_second() {
        for throttle in both(1, HOUR) {
            let start = time::Instant::now();
            throttle.acquire().await;
            let head = abandon(&throttle, 1);
            throttle.acquire().await;
            assert_within(start.elapsed(), HOUR, millis(100));
            // It has kept its position, and delays no waiter again.
            throttle.acquire().await;
            assert_within(start.elapsed(), 2 * HOUR, millis(200));
            let behind = tokio::spawn(throttle.clone().acquire_owned());
            tokio::task::yield_now().await;
            head.await;
            assert_within(start.elapsed(), 3 * HOUR, millis(300));
            behind.await.unwrap();
            assert_within(start.elapsed(), 4 * HOUR, millis(300));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn with_weights_too() {
        let minute = Duration::from_secs(60);
        for (head, next) in [(10, 10), (10, 1), (1, 10)] {
            let throttle = Throttle::new(10, minute).unwrap();
            let (throttle, start) = (Arc::new(throttle), time::Instant::now());
            acquire(&throttle, 10).await;
            let _head = abandon(&throttle, head);
            acquire(&throttle, next).await;
            assert_within(start.elapsed(), minute, millis(100));
        }
    }

    /// A large request that was abandoned before its turn does not keep back a small one that may
    /// start sooner.
    #[tokio::test(start_paused = true)]
    async fn a_small_request_does_not_wait_for_an_abandoned_large_one() {
        let throttle = Arc::new(Throttle::new(10, HOUR).unwrap());
        let start = time::Instant::now();
        acquire(&throttle, 1).await;
        sleep(HOUR / 2).await;
        acquire(&throttle, 9).await;
        let live = tokio::spawn(throttle.clone().acquire_owned());
        tokio::task::yield_now().await;
        let _large = abandon(&throttle, 10);
        throttle.acquire().await;
        live.await.unwrap();
        assert_within(start.elapsed(), HOUR + HOUR / 2, millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_abandoned_ones_cost_no_more_than_one() {
        for throttle in both(10, Duration::from_secs(1)) {
            let start = time::Instant::now();
            acquire(&throttle, 10).await;
            let due =
                if throttle.rate() == Rate::sliding(10, SECOND).unwrap() { 1_000 } else { 100 };
            let many: Vec<_> = (0..100).map(|_| abandon(&throttle, 1)).collect();
            throttle.acquire().await;
            assert_within(start.elapsed(), millis(due), millis(100));
            assert_eq!(throttle.waiters(), 100);
            drop(many);
            assert_eq!(throttle.waiters(), 0);
        }
    }

    /// Each second one is alive, and all of those start in order, at the full rate.
    #[tokio::test(start_paused = true)]
    async fn the_live_ones_between_them_come_in_order() {
        for throttle in both(10, SECOND) {
            acquire(&throttle, 10).await;
            let start = time::Instant::now();
            let (mut kept, mut live) = (Vec::new(), Vec::new());
            let (sender, mut started) = tokio::sync::mpsc::unbounded_channel();
            for number in 0..150 {
                kept.push(abandon(&throttle, 1));
                let (throttle, sender) = (throttle.clone(), sender.clone());
                live.push(tokio::spawn(async move {
                    throttle.acquire().await;
                    sender.send(number).unwrap();
                }));
                tokio::task::yield_now().await;
            }
            for number in 0..150 {
                assert_eq!(started.recv().await, Some(number));
            }
            assert_within(start.elapsed(), 15 * SECOND, millis(200));
        }
    }

    /// A stream that polls two at a time, and is not polled while its consumer works.
    #[tokio::test(start_paused = true)]
    async fn those_in_the_buffer_of_a_busy_consumer() {
        let throttle = Arc::new(Throttle::new(1, SECOND).unwrap());
        let start = time::Instant::now();
        let mut starts = pin!(stream::iter(0..3).map(|_| throttle.acquire()).buffered(2));
        starts.next().await;
        sleep(millis(10)).await;
        let polled_once = timeout(Duration::ZERO, starts.next()).await;
        assert!(polled_once.is_err(), "there are two waiters");
        for seconds in 1..=3 {
            throttle.acquire().await;
            assert_within(start.elapsed(), seconds * SECOND, millis(100 * u64::from(seconds)));
        }
        assert_eq!(starts.collect::<Vec<_>>().await.len(), 2);
    }

    /// A waiter that was abandoned and is dropped much later leaves nothing behind.
    #[tokio::test(start_paused = true)]
    async fn dropped_late() {
        for throttle in both(1, HOUR) {
            let start = time::Instant::now();
            throttle.acquire().await;
            let [first, second] = [1, 1].map(|n| abandon(&throttle, n));
            let next = tokio::spawn(throttle.clone().acquire_owned());
            sleep(HOUR / 2).await;
            drop(first);
            next.await.unwrap();
            assert_within(start.elapsed(), HOUR, millis(100));
            drop(second);
            assert_eq!(throttle.waiters(), 0);
            assert!(throttle.try_acquire().is_err());
            throttle.acquire().await;
            assert_within(start.elapsed(), 2 * HOUR, millis(100));
        }
    }

    /// A large head that gives up leaves an abandoned small one first, which could start at once.
    #[tokio::test(start_paused = true)]
    async fn behind_a_large_one_that_leaves() {
        let throttle = Arc::new(Throttle::new(10, HOUR).unwrap());
        acquire(&throttle, 5).await;
        let large = abandon(&throttle, 10);
        let _small = abandon(&throttle, 1);
        let live = tokio::spawn(throttle.clone().acquire_owned());
        sleep(SECOND).await;
        let start = time::Instant::now();
        drop(large);
        live.await.unwrap();
        assert_within(start.elapsed(), Duration::ZERO, millis(100));
    }

    /// Callers that do not wait are behind the waiters as well.
    #[tokio::test(start_paused = true)]
    async fn a_caller_that_does_not_wait_is_not_kept_out() {
        for throttle in both(1, SECOND) {
            throttle.acquire().await;
            let _abandoned = [1, 1].map(|n| abandon(&throttle, n));
            sleep(SECOND).await;
            assert!(throttle.try_acquire().is_err(), "it may come yet");
            let now = time::Instant::now().into_std();
            assert!(throttle.reserve(1, now).is_err());
            sleep(millis(101)).await;
            assert!(throttle.try_acquire().is_ok());
            let now = time::Instant::now().into_std();
            assert!(throttle.reserve(1, now).is_ok());
        }
    }

    /// Many waiters, all alive: checking on each other costs no waiter its turn.
    #[tokio::test(start_paused = true)]
    async fn three_thousand_live_ones_in_order() {
        let throttle = Arc::new(Throttle::new(100, millis(100)).unwrap());
        let (sender, mut started) = tokio::sync::mpsc::unbounded_channel();
        let start = time::Instant::now();
        for number in 0..3_000 {
            let (throttle, sender) = (throttle.clone(), sender.clone());
            tokio::spawn(async move {
                throttle.acquire().await;
                sender.send(number).unwrap();
            });
        }
        for number in 0..3_000 {
            assert_eq!(started.recv().await, Some(number));
        }
        assert_within(start.elapsed(), millis(2_900), millis(60));
        assert_eq!(throttle.waiters(), 0);
    }
}

/// A task that waits for what is always to be had yields nevertheless: it can be aborted, with one
/// worker.
#[cfg(feature = "tokio")]
mod coop {
    use std::task::Poll;

    use tokio::time::timeout;

    use super::*;

    /// Runs a task that never ends, on the one worker that there is, and aborts it.
    async fn can_be_aborted(endless: impl Future<Output = ()> + Send + 'static) {
        // Another task on the same worker.
        let (sender, other) = tokio::sync::oneshot::channel();
        let (guard, dropped) = tokio::sync::oneshot::channel::<()>();
        let endless = tokio::spawn(async move {
            let _guard = guard;
            endless.await;
        });
        tokio::spawn(async move { sender.send(()) });
        let limit = Duration::from_secs(5);
        timeout(limit, other).await.expect("others are polled").unwrap();
        endless.abort();
        assert!(timeout(limit, dropped).await.expect("aborted").is_err());
        assert!(timeout(limit, endless).await.expect("aborted").unwrap_err().is_cancelled());
    }

    /// A test that fails would never end: its runtime goes on without it.
    fn one_worker(test: impl Future<Output = ()> + Send + 'static) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .unwrap();
        // Not on the worker, nor is its timer driven by that alone.
        let (sender, receiver) = std::sync::mpsc::channel();
        let handle = runtime.handle().clone();
        std::thread::spawn(move || {
            handle.block_on(test);
            sender.send(())
        });
        let done = receiver.recv_timeout(Duration::from_secs(10));
        runtime.shutdown_background();
        assert!(done.is_ok(), "the worker was never let go");
    }

    fn plenty() -> [Rate; 2] {
        let nano = Duration::from_nanos(1);
        [Rate::sliding(1 << 16, nano).unwrap(), Rate::gcra(1, nano, 1 << 30).unwrap()]
    }

    fn throttles() -> [Arc<Throttle>; 2] {
        plenty().map(|rate| Arc::new(Throttle::with_rate(rate)))
    }

    fn keys() -> [Arc<KeyedThrottle<u8>>; 2] {
        plenty().map(|rate| Arc::new(KeyedThrottle::new(2, move |_: &u8| rate).unwrap()))
    }

    #[test]
    fn acquire() {
        for throttle in throttles() {
            one_worker(can_be_aborted(async move {
                loop {
                    throttle.acquire().await;
                }
            }));
        }
    }

    #[test]
    fn acquire_many() {
        for n in [0, 2] {
            for throttle in throttles() {
                one_worker(can_be_aborted(async move {
                    loop {
                        throttle.acquire_many(n).unwrap().await;
                    }
                }));
            }
        }
    }

    #[test]
    fn acquire_owned() {
        for throttle in throttles() {
            one_worker(can_be_aborted(async move {
                loop {
                    throttle.clone().acquire_owned().await;
                }
            }));
        }
    }

    #[test]
    fn acquire_many_owned() {
        for throttle in throttles() {
            one_worker(can_be_aborted(async move {
                loop {
                    throttle.clone().acquire_many_owned(2).unwrap().await;
                }
            }));
        }
    }

    #[test]
    fn keyed_acquire() {
        for keys in keys() {
            one_worker(can_be_aborted(async move {
                loop {
                    keys.acquire(&1).unwrap().await;
                }
            }));
        }
    }

    #[test]
    fn keyed_acquire_many() {
        for keys in keys() {
            one_worker(can_be_aborted(async move {
                loop {
                    keys.acquire_many(&1, 2).unwrap().await;
                }
            }));
        }
    }

    /// Spends the budget of its task.
    fn spend(cx: &mut Context<'_>) {
        while let Poll::Ready(unit) = tokio::task::coop::poll_proceed(cx) {
            unit.made_progress();
        }
    }

    /// A task without budget starts nothing, and delays no task with budget.
    #[tokio::test(start_paused = true)]
    async fn a_task_without_budget_holds_nothing() {
        for rate in [Rate::sliding(1, SECOND).unwrap(), Rate::gcra(1, SECOND, 1).unwrap()] {
            let throttle = Throttle::with_rate(rate);
            let mut acquire = std::pin::pin!(throttle.acquire());
            std::future::poll_fn(|cx| {
                spend(cx);
                assert!(acquire.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            assert_eq!(throttle.waiters(), 0, "it may start at once, and does not wait");
            assert!(throttle.try_acquire().is_ok());
            tokio::task::yield_now().await;

            // Now it would have to wait: it joins the wait list at once.
            std::future::poll_fn(|cx| {
                spend(cx);
                assert!(acquire.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            assert_eq!(throttle.waiters(), 1);
            assert!(throttle.try_acquire().is_err());
            tokio::task::yield_now().await;
            acquire.await;
        }
    }
}
