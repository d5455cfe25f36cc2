//! The semaphore's promises, one by one; the orders of events are in `prop_semaphore` and
//! `loom_semaphore`.

mod coop;
mod stress;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use cooked_waker::{IntoWaker, WakeRef};
use sluicegate::{
    AcquireOwned, AcquireTimeoutError, OwnedSemaphorePermit, PollSemaphore, Semaphore,
    TryAcquireError,
};

fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

fn poll_quietly<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll(future, Waker::noop())
}

/// A waker that calls this when it is woken.
struct OnWake<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn on_wake(call: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(OnWake(call)))
}

fn message(panic: Box<dyn std::any::Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Waiters, enqueued in this order.
fn enqueue_all(semaphore: &Arc<Semaphore>, needs: &[u32]) -> Vec<AcquireOwned> {
    needs.iter().map(|&need| semaphore.clone().enqueue_owned(need)).collect()
}

#[test]
fn is_small() {
    assert!(size_of::<Semaphore>() <= 64, "{}", size_of::<Semaphore>());
}

#[test]
fn a_small_request_never_passes_a_large_one() {
    let semaphore = Arc::new(Semaphore::new(2));
    let mut waiters = enqueue_all(&semaphore, &[3, 1]);
    assert!(poll_quietly(&mut waiters[1]).is_pending());
    assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::NoPermits);
    semaphore.add_permits(1);
    assert!(poll_quietly(&mut waiters[1]).is_pending());
    let first = poll_quietly(&mut waiters[0]);
    assert!(matches!(&first, Poll::Ready(Ok(permit)) if permit.num_permits() == 3));
    drop(first);
    assert!(poll_quietly(&mut waiters[1]).is_ready());
}

#[test]
fn cancelling_a_large_head_serves_all_that_it_held_up() {
    let semaphore = Arc::new(Semaphore::new(2));
    let mut waiters = enqueue_all(&semaphore, &[3, 1, 1]);
    drop(waiters.remove(0));
    assert_eq!(semaphore.granted_unclaimed(), 2);
    assert!(waiters.iter_mut().all(|acquire| poll_quietly(acquire).is_ready()));
}

#[test]
fn a_grant_that_is_not_fetched_is_counted_and_passed_on() {
    let semaphore = Arc::new(Semaphore::new(0));
    let mut waiters = enqueue_all(&semaphore, &[1, 1]);
    semaphore.add_permits(1);
    assert_eq!((semaphore.granted_unclaimed(), semaphore.waiters()), (1, 1));
    drop(waiters.remove(0));
    assert_eq!((semaphore.granted_unclaimed(), semaphore.waiters()), (1, 0));
    assert!(poll_quietly(&mut waiters[0]).is_ready());
    assert_eq!(semaphore.granted_unclaimed(), 0);
}

#[test]
fn no_permits_are_had_at_once_even_behind_waiters() {
    let semaphore = Arc::new(Semaphore::new(0));
    let _waiting = enqueue_all(&semaphore, &[1]);
    assert!(poll_quietly(&mut semaphore.acquire_many(0)).is_ready());
    assert!(semaphore.try_acquire_many(0).is_ok());
    semaphore.close();
    assert_eq!(semaphore.try_acquire_many(0).unwrap_err(), TryAcquireError::Closed);
}

#[test]
fn a_panicking_waker_keeps_no_other_from_being_woken() {
    let semaphore = Arc::new(Semaphore::new(0));
    let woken = Arc::new(AtomicUsize::new(0));
    // More than one group of wake-ups, with panics in each.
    let mut waiters = enqueue_all(&semaphore, &[1; 100]);
    for (acquire, number) in waiters.iter_mut().zip(0..) {
        let woken = woken.clone();
        let waker = on_wake(move || {
            woken.fetch_add(1, Ordering::Relaxed);
            assert!(number % 10 != 3, "waker {number}");
        });
        assert!(poll(acquire, &waker).is_pending());
    }
    let panic = catch_unwind(AssertUnwindSafe(|| semaphore.add_permits(100))).unwrap_err();
    assert_eq!(message(panic), "waker 3", "the first panic goes on");
    assert_eq!(woken.load(Ordering::Relaxed), 100);
    let permits: Vec<_> = waiters.iter_mut().map(poll_quietly).collect();
    assert!(permits.iter().all(Poll::is_ready));
    drop(permits);
    assert_eq!(semaphore.available_permits(), 100);
}

#[test]
fn a_panicking_waker_keeps_no_waiter_from_being_refused() {
    let semaphore = Arc::new(Semaphore::new(0));
    let mut waiters = enqueue_all(&semaphore, &[1; 50]);
    assert!(poll(&mut waiters[7], &on_wake(|| panic!("seven"))).is_pending());
    let panic = catch_unwind(AssertUnwindSafe(|| semaphore.close())).unwrap_err();
    assert_eq!(message(panic), "seven");
    assert!(waiters.iter_mut().all(|acquire| matches!(poll_quietly(acquire), Poll::Ready(Err(_)))));
}

/// A waker whose `clone` panics, or whose `drop` does, cannot be made of an `Arc<impl Wake>`: so
/// this is a future that was polled with such a panic on the way.
#[test]
fn a_panic_while_the_waker_is_replaced_loses_no_waiter() {
    struct PanicsWhenDropped(Arc<Semaphore>);
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            assert_eq!(self.0.waiters(), 2, "dropped outside the lock");
            panic!("dropped");
        }
    }
    let semaphore = Arc::new(Semaphore::new(0));
    let mut waiters = enqueue_all(&semaphore, &[1, 1]);
    let bomb = PanicsWhenDropped(semaphore.clone());
    let waker = on_wake(move || {
        let _ = &bomb;
    });
    assert!(poll(&mut waiters[0], &waker).is_pending());
    drop(waker);
    let panic = catch_unwind(AssertUnwindSafe(|| poll_quietly(&mut waiters[0]))).unwrap_err();
    assert_eq!(message(panic), "dropped");
    semaphore.add_permits(2);
    assert!(waiters.iter_mut().all(|acquire| poll_quietly(acquire).is_ready()));
}

/// A waker whose clones live elsewhere may leave its address to the waker of another task.
#[test]
fn a_waker_is_not_taken_for_another_at_its_old_address() {
    #[derive(Debug, Clone, Default)]
    struct Boxed(Arc<AtomicUsize>);
    impl WakeRef for Boxed {
        fn wake_by_ref(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    impl cooked_waker::Wake for Boxed {}

    // The allocator gives the memory to another thread now and then: then it is tried again, without
    // that memory.
    let mut others = Vec::new();
    for _ in 0..1000 {
        let semaphore = Arc::new(Semaphore::new(0));
        let mut acquire = semaphore.clone().acquire_owned();
        let (first, second) = (Boxed::default(), Boxed::default());
        let waker = Box::new(first.clone()).into_waker();
        let address = waker.data();
        assert!(poll(&mut acquire, &waker).is_pending());
        drop(waker);
        let waker = Box::new(second.clone()).into_waker();
        if waker.data() != address {
            others.push(waker);
            continue;
        }
        assert!(poll(&mut acquire, &waker).is_pending());
        semaphore.add_permits(1);
        let woken = [first, second].map(|waker| waker.0.load(Ordering::Relaxed));
        assert_eq!(woken, [0, 1], "the waker of the last poll");
        return;
    }
    panic!("the allocator never gives an address again");
}

#[test]
fn two_wakers_that_panic_in_one_step_do_not_end_the_process() {
    struct Bomb(&'static str);
    impl Bomb {
        fn waker(fuse: &'static str) -> Waker {
            Waker::from(Arc::new(Self(fuse)))
        }
    }
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {
            assert!(self.0 != "wake", "woken");
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(self.0 != "drop", "dropped");
        }
    }
    let semaphore = Arc::new(Semaphore::new(1));
    let mut waiters = enqueue_all(&semaphore, &[2, 1]);
    assert!(poll(&mut waiters[0], &Bomb::waker("drop")).is_pending());
    assert!(poll(&mut waiters[1], &Bomb::waker("wake")).is_pending());
    let head = waiters.remove(0);
    let panic = catch_unwind(AssertUnwindSafe(|| drop(head))).unwrap_err();
    assert_eq!(message(panic), "woken");
    assert!(poll_quietly(&mut waiters[0]).is_ready());
}

#[test]
fn a_hundred_thousand_wakers_may_close_it_again() {
    let semaphore = Arc::new(Semaphore::new(0));
    let mut waiters = enqueue_all(&semaphore, &vec![1; 100_000]);
    let closes = {
        let semaphore = semaphore.clone();
        on_wake(move || semaphore.close())
    };
    assert!(waiters.iter_mut().all(|acquire| poll(acquire, &closes).is_pending()));
    semaphore.close();
    assert_eq!(semaphore.waiters(), 0);
}

#[test]
fn wakers_may_call_back_into_the_semaphore() {
    let semaphore = Arc::new(Semaphore::new(0));
    let mut waiters = enqueue_all(&semaphore, &[1, 1, 1, 1]);
    let last = Arc::new(std::sync::Mutex::new(waiters.pop()));
    let calls = {
        let semaphore = semaphore.clone();
        move || {
            assert!(semaphore.try_acquire().is_err());
            drop(last.lock().unwrap().take());
            semaphore.add_permits(1);
            semaphore.close();
            assert!(semaphore.is_closed());
        }
    };
    assert!(poll(&mut waiters[0], &on_wake(calls)).is_pending());
    semaphore.add_permits(1);
    assert!(waiters.iter_mut().all(|acquire| matches!(poll_quietly(acquire), Poll::Ready(Err(_)))));
    assert_eq!((semaphore.waiters(), semaphore.granted_unclaimed()), (0, 0));
    assert_eq!(semaphore.available_permits(), 2);
}

#[test]
fn granted_then_closed_then_polled_is_an_error_and_the_permits_go_back() {
    let semaphore = Arc::new(Semaphore::new(0));
    let mut waiters = enqueue_all(&semaphore, &[2]);
    semaphore.add_permits(2);
    semaphore.close();
    assert!(matches!(poll_quietly(&mut waiters[0]), Poll::Ready(Err(_))));
    assert_eq!(semaphore.available_permits(), 2);
}

#[test]
fn a_forgotten_permit_does_not_reopen_a_closed_semaphore() {
    let semaphore = Semaphore::new(2);
    let held = semaphore.try_acquire().unwrap();
    semaphore.close();
    held.forget();
    assert_eq!(semaphore.forget_permits(1), 1);
    assert!(semaphore.is_closed());
    assert_eq!(semaphore.limit(), 0);
}

#[test]
fn too_many_permits_are_refused_and_none_is_added() {
    let full = Semaphore::new(Semaphore::MAX_PERMITS);
    let panic = catch_unwind(AssertUnwindSafe(|| full.add_permits(1))).unwrap_err();
    assert!(message(panic).starts_with("number of added permits (1) would overflow MAX_PERMITS"));
    assert_eq!(full.available_permits(), Semaphore::MAX_PERMITS);

    let held = full.try_acquire().unwrap();
    full.add_permits(1);
    let panic = catch_unwind(AssertUnwindSafe(|| drop(held))).unwrap_err();
    assert!(message(panic).starts_with("number of added permits (1) would overflow MAX_PERMITS"));
    assert_eq!(full.available_permits(), Semaphore::MAX_PERMITS);

    for make in [|| Semaphore::new(Semaphore::MAX_PERMITS + 1), || Semaphore::const_new(usize::MAX)]
    {
        let panic = catch_unwind(make).unwrap_err();
        assert!(
            message(panic).starts_with("a semaphore may not have more than MAX_PERMITS permits")
        );
    }
    let panic = catch_unwind(AssertUnwindSafe(|| full.set_limit(usize::MAX))).unwrap_err();
    assert!(message(panic).starts_with("a semaphore may not have more than MAX_PERMITS permits"));
}

#[test]
fn permits_of_two_semaphores_cannot_be_merged() {
    let (one, other) = (Semaphore::new(1), Semaphore::new(1));
    let mut permit = one.try_acquire().unwrap();
    let stranger = other.try_acquire().unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| permit.merge(stranger))).unwrap_err();
    assert_eq!(message(panic), "merging permits from different semaphore instances");
    assert_eq!(other.available_permits(), 1, "the other was given back");
    assert_eq!(permit.num_permits(), 1);
}

#[test]
fn permits_split_and_merge() {
    let semaphore = Semaphore::new(5);
    let mut permit = semaphore.try_acquire_many(5).unwrap();
    assert!(permit.split(6).is_none());
    assert!(permit.split(usize::MAX).is_none());
    let two = permit.split(2).unwrap();
    assert_eq!((permit.num_permits(), two.num_permits()), (3, 2));
    permit.merge(two);
    assert!(std::ptr::eq(permit.semaphore(), &semaphore));
    drop(permit);
    assert_eq!(semaphore.available_permits(), 5);
}

/// tokio's `merge_many_permits`.
#[test]
#[cfg(target_pointer_width = "64")]
fn permits_merge_and_split_beyond_u32() {
    let most = u32::MAX;
    let all = 3 * most as usize;
    let semaphore = Arc::new(Semaphore::new(all));
    let mut permit = semaphore.try_acquire_many(most).unwrap();
    permit.merge(semaphore.try_acquire_many(most).unwrap());
    assert_eq!((permit.num_permits(), semaphore.available_permits()), (all / 3 * 2, all / 3));
    assert!(permit.split(all / 3 * 2 + 1).is_none());
    let rest = permit.split(all / 3 + 1).unwrap();
    assert_eq!((permit.num_permits(), rest.num_permits()), (all / 3 - 1, all / 3 + 1));
    drop(rest);
    permit.forget();
    assert_eq!(
        (semaphore.available_permits(), semaphore.limit()),
        (all / 3 * 2 + 1, all / 3 * 2 + 1)
    );

    let mut owned = semaphore.clone().try_acquire_many_owned(most).unwrap();
    owned.merge(semaphore.clone().try_acquire_many_owned(most).unwrap());
    let rest = owned.split(most as usize + 5).unwrap();
    assert_eq!((owned.num_permits(), rest.num_permits()), (most as usize - 5, most as usize + 5));
    drop((owned, rest));
    assert_eq!(semaphore.available_permits(), semaphore.limit());
}

/// More than looks for room before it is added.
#[test]
#[cfg(target_pointer_width = "64")]
fn a_permit_of_very_many_is_given_back_at_once() {
    let many = (1 << 49) / u32::MAX as usize;
    let all = many * u32::MAX as usize;
    let of_all = |semaphore: &Arc<Semaphore>| {
        let part = || semaphore.clone().try_acquire_many_owned(u32::MAX).unwrap();
        let mut permit = part();
        (1..many).for_each(|_| permit.merge(part()));
        permit
    };
    let semaphore = Arc::new(Semaphore::new(all));
    let permit = of_all(&semaphore);
    assert_eq!((permit.num_permits(), semaphore.available_permits()), (all, 0));
    drop(permit);
    assert_eq!(semaphore.available_permits(), all);

    let permit = of_all(&semaphore);
    let mut waiters = enqueue_all(&semaphore, &[7]);
    drop(permit);
    assert!(poll_quietly(&mut waiters[0]).is_ready(), "the waiter is served");
    assert_eq!(semaphore.available_permits(), all);

    let full = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
    let permit = of_all(&full);
    full.add_permits(all - 1);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(permit))).is_err());
    assert_eq!(full.available_permits(), Semaphore::MAX_PERMITS - 1, "all or none");
    assert_eq!(full.limit(), Semaphore::MAX_PERMITS - 1);
}

/// What an overflowing drop loses is gone, and not counted any more.
#[test]
fn the_limit_is_right_after_an_overflow() {
    const MOST: usize = Semaphore::MAX_PERMITS;
    for held in [1, 7, MOST as u32 / 2] {
        let full = Semaphore::new(MOST);
        let permit = full.try_acquire_many(held).unwrap();
        full.add_permits(held as usize);
        assert_eq!(full.limit(), MOST + held as usize, "held ones count");
        assert!(catch_unwind(AssertUnwindSafe(|| drop(permit))).is_err());
        assert_eq!((full.limit(), full.available_permits()), (MOST, MOST));
        assert!(catch_unwind(AssertUnwindSafe(|| full.add_permits(1))).is_err());
        assert_eq!((full.limit(), full.available_permits()), (MOST, MOST));
        full.set_limit(3);
        assert_eq!((full.limit(), full.available_permits()), (3, 3));
    }
}

#[test]
fn a_smaller_limit_takes_effect_as_permits_come_back() {
    let semaphore = Arc::new(Semaphore::new(4));
    let mut held = semaphore.clone().try_acquire_many_owned(3).unwrap();
    semaphore.set_limit(1);
    assert_eq!((semaphore.limit(), semaphore.available_permits()), (1, 0));
    let mut waiters = enqueue_all(&semaphore, &[1]);
    drop(held.split(2));
    assert!(poll_quietly(&mut waiters[0]).is_pending(), "both pay the debt");
    drop(held);
    assert!(poll_quietly(&mut waiters[0]).is_ready());
    assert_eq!(semaphore.available_permits(), 1);
}

#[test]
fn a_larger_limit_forgives_the_debt_and_serves_the_line() {
    let semaphore = Arc::new(Semaphore::new(3));
    let held = semaphore.clone().try_acquire_many_owned(3).unwrap();
    let mut waiters = enqueue_all(&semaphore, &[1]);
    semaphore.set_limit(1);
    semaphore.set_limit(3);
    assert!(poll_quietly(&mut waiters[0]).is_pending());
    semaphore.set_limit(4);
    assert!(poll_quietly(&mut waiters[0]).is_ready());
    drop(held);
    assert_eq!((semaphore.limit(), semaphore.available_permits()), (4, 4));
}

#[test]
fn waits_are_counted_and_timed() {
    let semaphore = Arc::new(Semaphore::with_wait_times(1));
    let held = semaphore.try_acquire().unwrap();
    assert_eq!(semaphore.stats().waits, 0, "nothing is counted without waiting");
    let begun = std::time::Instant::now();
    let mut waiters = enqueue_all(&semaphore, &[1, 1]);
    drop(waiters.pop());
    drop(held);
    let at_most = begun.elapsed();
    assert!(poll_quietly(&mut waiters[0]).is_ready());
    let stats = semaphore.stats();
    assert_eq!((stats.waits, stats.cancellations, stats.peak_waiters), (2, 1, 2));
    let times = stats.wait_times.unwrap();
    assert!(times.longest > Duration::ZERO && times.longest <= at_most, "{times:?}");
    assert_eq!(times.total, times.longest, "one was granted");
    assert_eq!(Semaphore::new(1).stats().wait_times, None);
}

/// A slot of the wait list is reused: the time of the waiter in it now is counted from when it joined.
#[test]
fn a_wait_is_timed_from_when_it_began() {
    let semaphore = Arc::new(Semaphore::with_wait_times(0));
    let pause = Duration::from_millis(20);
    for end in ["cancelled", "granted"] {
        let earlier = enqueue_all(&semaphore, &[1]);
        // Time passes for the waiter.
        std::thread::sleep(pause);
        match end {
            "granted" => semaphore.add_permits(1),
            _ => drop(earlier),
        }
    }
    assert_eq!(semaphore.forget_permits(1), 1);
    let before = semaphore.stats().wait_times.unwrap();
    let begun = std::time::Instant::now();
    let mut later = enqueue_all(&semaphore, &[1]);
    semaphore.add_permits(1);
    let at_most = begun.elapsed();
    assert!(poll_quietly(&mut later[0]).is_ready());
    let waited = semaphore.stats().wait_times.unwrap().total - before.total;
    assert!(waited <= at_most, "{waited:?}, and began {at_most:?} ago");
}

/// Numbers around one and two groups of wake-ups, and several.
const CROWDS: [usize; 9] = [1, 31, 32, 33, 34, 63, 65, 100, 200];

/// Each of a crowd with a waker of its own, and how often that was woken.
fn crowd(semaphore: &Arc<Semaphore>, size: usize) -> (Vec<AcquireOwned>, Vec<Arc<AtomicUsize>>) {
    let mut waiters = enqueue_all(semaphore, &vec![1; size]);
    let polled = waiters.iter_mut().map(|acquire| {
        let woken = Arc::new(AtomicUsize::new(0));
        let counts = woken.clone();
        let waker = on_wake(move || {
            counts.fetch_add(1, Ordering::Relaxed);
        });
        assert!(poll(acquire, &waker).is_pending());
        woken
    });
    let woken = polled.collect();
    (waiters, woken)
}

#[track_caller]
fn assert_woken(woken: &[Arc<AtomicUsize>], first: usize) {
    let counts: Vec<_> = woken.iter().map(|woken| woken.load(Ordering::Relaxed)).collect();
    let expected: Vec<_> = (0..woken.len()).map(|at| usize::from(at < first)).collect();
    assert_eq!(counts, expected);
}

/// Every way in which many can be served, or told, at once.
#[test]
fn a_crowd_is_woken_once_each_in_order() {
    type Way = fn(&Arc<Semaphore>, usize);
    let ways: [(&str, Way); 3] = [
        ("add", |semaphore, crowd| semaphore.add_permits(crowd)),
        ("limit", |semaphore, crowd| semaphore.set_limit(crowd)),
        ("close", |semaphore, _| semaphore.close()),
    ];
    for size in CROWDS {
        for (name, way) in ways {
            let semaphore = Arc::new(Semaphore::new(0));
            let (mut waiters, woken) = crowd(&semaphore, size);
            way(&semaphore, size);
            assert_woken(&woken, size);
            assert_eq!(semaphore.waiters(), 0, "{name}");
            assert!(waiters.iter_mut().all(|acquire| poll_quietly(acquire).is_ready()), "{name}");
        }
        // Too few for all.
        let semaphore = Arc::new(Semaphore::new(0));
        let (_line, woken) = crowd(&semaphore, size + 5);
        semaphore.add_permits(size);
        assert_woken(&woken, size);
        assert_eq!((semaphore.waiters(), semaphore.granted_unclaimed()), (5, size));
    }
}

/// One permit of many that is dropped, or a head that leaves.
#[test]
fn a_crowd_is_served_by_one_drop() {
    for size in CROWDS {
        let semaphore = Arc::new(Semaphore::new(size));
        let held = semaphore.clone().try_acquire_many_owned(size as u32).unwrap();
        let (_line, woken) = crowd(&semaphore, size + 1);
        drop(held);
        assert_woken(&woken, size);

        let semaphore = Arc::new(Semaphore::new(size));
        let large = enqueue_all(&semaphore, &[size as u32 + 1]);
        let (_line, woken) = crowd(&semaphore, size + 1);
        drop(large);
        assert_woken(&woken, size);
    }
}

/// Polled in one task, awaited in another while it completes: the last waker is woken.
#[test]
fn the_waker_of_the_last_poll_is_woken() {
    let woken: [Arc<AtomicUsize>; 2] = Default::default();
    let wakers = woken.clone().map(|woken| {
        on_wake(move || {
            woken.fetch_add(1, Ordering::Relaxed);
        })
    });
    let counts = || woken.each_ref().map(|woken| woken.load(Ordering::Relaxed));
    let semaphore = Arc::new(Semaphore::new(0));

    let mut acquire = semaphore.acquire();
    assert!(wakers.iter().all(|waker| poll(&mut acquire, waker).is_pending()));
    semaphore.add_permits(1);
    assert_eq!(counts(), [0, 1]);
    assert!(poll(&mut acquire, &wakers[0]).map_ok(|permit| permit.forget()).is_ready());

    let mut acquire = semaphore.clone().enqueue_owned(1);
    assert!(wakers.iter().all(|waker| poll(&mut acquire, waker).is_pending()));
    semaphore.add_permits(1);
    assert_eq!(counts(), [0, 2]);
    assert!(poll(&mut acquire, &wakers[0]).map_ok(|permit| permit.forget()).is_ready());

    let mut polls = PollSemaphore::new(semaphore.clone());
    for waker in &wakers {
        assert!(polls.poll_acquire(&mut Context::from_waker(waker)).is_pending());
    }
    semaphore.close();
    assert_eq!(counts(), [0, 3]);
}

#[test]
fn one_waiter_serves_many_polls() {
    let semaphore = Arc::new(Semaphore::new(1));
    let mut polls = PollSemaphore::new(semaphore.clone());
    let mut cx = Context::from_waker(Waker::noop());
    let ready = |polled: Poll<Option<OwnedSemaphorePermit>>| match polled {
        Poll::Ready(Some(permit)) => permit.num_permits(),
        other => panic!("{other:?}"),
    };
    assert_eq!(ready(polls.poll_acquire(&mut cx)), 1);
    let held = semaphore.try_acquire().unwrap();
    assert!(polls.poll_acquire(&mut cx).is_pending());
    assert!(polls.poll_acquire(&mut cx).is_pending());
    assert_eq!(semaphore.waiters(), 1);
    // Another number is another waiter.
    let mut behind = semaphore.clone().enqueue_owned(1);
    assert!(polls.poll_acquire_many(&mut cx, 2).is_pending());
    polls.add_permits(1);
    assert!(poll_quietly(&mut behind).is_ready());
    drop(held);
    assert_eq!(ready(polls.poll_acquire_many(&mut cx, 2)), 2);
    drop(polls.clone());
    polls.close();
    assert!(matches!(polls.poll_acquire(&mut cx), Poll::Ready(None)));
    drop(polls.into_inner());
    assert_eq!(semaphore.waiters(), 0);
}

#[test]
fn a_closed_semaphore_refuses_an_enqueued_waiter() {
    let semaphore = Arc::new(Semaphore::new(0));
    semaphore.close();
    let mut acquire = semaphore.clone().enqueue_owned(1);
    assert_eq!(semaphore.waiters(), 0);
    assert!(matches!(poll_quietly(&mut acquire), Poll::Ready(Err(_))));
    let ran = pin!(semaphore.run(async { unreachable!("it has no permit") }));
    assert!(matches!(ran.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_))));
}

#[test]
fn threads_wait_in_order() {
    let semaphore = Semaphore::new(0);
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| semaphore.blocking_acquire_many(2).unwrap().num_permits());
        semaphore.add_permits(2);
        assert_eq!(blocked.join().unwrap(), 2);
    });
    let soon = Duration::from_millis(5);
    assert!(semaphore.blocking_acquire_timeout(soon).is_ok());
    let refused = semaphore.blocking_acquire_many_timeout(3, soon).unwrap_err();
    assert_eq!(refused, AcquireTimeoutError::Elapsed);
    assert_eq!((semaphore.waiters(), semaphore.available_permits()), (0, 2));
    let long = semaphore.blocking_acquire_timeout(Duration::MAX);
    assert!(long.is_ok(), "an endless timeout is none");
    semaphore.close();
    let refused = semaphore.blocking_acquire_timeout(soon).unwrap_err();
    assert_eq!(refused, AcquireTimeoutError::Closed);
}

#[cfg(feature = "tokio")]
mod with_tokio {
    use super::*;

    #[test]
    fn blocking_inside_a_runtime_panics_as_tokios_does() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let caught = |call: &dyn Fn()| {
            runtime.block_on(async { message(catch_unwind(AssertUnwindSafe(call)).unwrap_err()) })
        };
        let ours = caught(&|| drop(Semaphore::new(1).blocking_acquire()));
        let theirs = caught(&|| drop(tokio::sync::Semaphore::new(1).blocking_acquire()));
        assert_eq!(ours, theirs);
        let may_block = runtime.spawn_blocking(|| {
            Semaphore::new(1).blocking_acquire().map(|permit| permit.num_permits())
        });
        assert_eq!(runtime.block_on(may_block).unwrap(), Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timed_wait_leaves_nothing_behind() {
        let semaphore = Semaphore::new(0);
        let minute = Duration::from_secs(60);
        let begun = tokio::time::Instant::now();
        let refused = semaphore.acquire_timeout(minute).await.unwrap_err();
        assert_eq!(refused, AcquireTimeoutError::Elapsed);
        assert_eq!(begun.elapsed(), minute);
        let refused = semaphore.acquire_deadline(begun).await.unwrap_err();
        assert_eq!(refused, AcquireTimeoutError::Elapsed);
        assert_eq!(semaphore.waiters(), 0);

        let (granted, ()) = tokio::join!(semaphore.acquire_timeout(minute), async {
            semaphore.add_permits(1);
            // The grant stands even if time has run out before the task is polled again.
            tokio::time::advance(minute * 2).await;
        });
        assert!(granted.is_ok());
        semaphore.close();
        let refused = semaphore.acquire_timeout(minute).await.unwrap_err();
        assert_eq!(refused, AcquireTimeoutError::Closed);
    }

    /// To yield, tokio clones the waker.
    #[tokio::test]
    async fn a_waker_that_panics_at_the_end_of_a_turn_loses_no_permit() {
        struct PanicsWhenCloned;
        impl Clone for PanicsWhenCloned {
            fn clone(&self) -> Self {
                panic!("cloned")
            }
        }
        impl WakeRef for PanicsWhenCloned {
            fn wake_by_ref(&self) {
                panic!("woken")
            }
        }
        impl cooked_waker::Wake for PanicsWhenCloned {}

        while tokio::task::coop::has_budget_remaining() {
            tokio::task::coop::consume_budget().await;
        }
        let semaphore = Semaphore::new(1);
        let mut acquire = semaphore.acquire();
        let waker = Box::new(PanicsWhenCloned).into_waker();
        assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut acquire, &waker))).is_err());
        drop(acquire);
        assert_eq!(semaphore.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_task_that_always_gets_its_permit_still_yields() {
        let semaphore = Semaphore::new(1);
        let other = tokio::spawn(async {});
        while !other.is_finished() {
            drop(semaphore.acquire().await);
        }
    }
}
