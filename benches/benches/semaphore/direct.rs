//! Without a runtime: the price of the operations themselves.

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::{Pin, pin};
use std::sync::Barrier;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Instant;

use sluicegate_benches::{Cost, SLICES, Scale, timed, timed_in_slices};

use crate::contenders::{AddPermits, Contender};

/// More than anybody asks for at once.
const PLENTY: usize = 10;

/// Nothing else shares the semaphore's cache lines, whoever's it is and however large.
#[repr(align(128))]
struct Alone<S>(S);

pub(crate) fn try_acquire<S: Contender>(scale: Scale) -> Cost {
    let ops = scale.of(400_000);
    let semaphore = Box::new(Alone(S::new(PLENTY)));
    timed_in_slices(ops, |ops| {
        for _ in 0..ops {
            let permit = semaphore.0.try_acquire();
            assert!(permit.is_some());
            drop(permit);
        }
    })
}

pub(crate) fn acquire<S: Contender>(scale: Scale) -> Cost {
    let ops = scale.of(400_000);
    let semaphore = Box::new(Alone(S::new(PLENTY)));
    timed_in_slices(ops, |ops| at_once(acquire_often(&semaphore.0, ops)))
}

/// The same in a task, whose budget for co-operation some of them draw on.
pub(crate) fn acquire_in_task<S: Contender>(scale: Scale) -> Cost {
    let ops = scale.of(400_000).div_ceil(SLICES);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let task = tokio::spawn(async move {
            let semaphore = Box::new(Alone(S::new(PLENTY)));
            let mut slices = Vec::new();
            for _ in 0..SLICES {
                let start = Instant::now();
                acquire_often(&semaphore.0, ops).await;
                slices.push(Cost::of(ops, start.elapsed()));
            }
            Cost::median(slices)
        });
        task.await.unwrap()
    })
}

async fn acquire_often<S: Contender>(semaphore: &S, times: u64) {
    for _ in 0..times {
        drop(semaphore.acquire().await);
    }
}

pub(crate) fn two_threads<S: Contender>(scale: Scale) -> Cost {
    let each = scale.of(400_000);
    let semaphore = Box::new(Alone(S::new(PLENTY)));
    let barrier = Barrier::new(2);
    let work = || {
        barrier.wait();
        let start = Instant::now();
        at_once(acquire_often(&semaphore.0, each));
        (start, Instant::now())
    };
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(work);
        (work(), other.join().unwrap())
    });
    Cost::of(2 * each, one.1.max(other.1) - one.0.min(other.0))
}

/// Somebody holds the only permit, somebody queues for it, is handed it, and holds it.
pub(crate) fn hand_over<S: Contender>(scale: Scale) -> Cost {
    let ops = scale.of(100_000);
    let semaphore = Box::new(Alone(S::new(1)));
    let cx = &mut Context::from_waker(Waker::noop());
    let mut held = Some(at_once(semaphore.0.acquire()));
    timed_in_slices(ops, |ops| {
        for _ in 0..ops {
            let mut next = pin!(semaphore.0.acquire());
            assert!(next.as_mut().poll(cx).is_pending());
            held = None;
            held = Some(ready(next.as_mut().poll(cx)));
        }
    })
}

/// So many in line, as many permits released at once; everybody takes theirs and is gone.
///
/// The release alone would say little: some do all the work in it, others leave it to those who
/// wait.
pub(crate) fn mass_release<S: AddPermits>(waiters: usize, scale: Scale) -> Cost {
    let semaphore = Box::new(Alone(S::new(0)));
    let semaphore = &semaphore.0;
    let mut line = Line::new(waiters);
    let mut permits = Vec::with_capacity(waiters);
    let cx = &mut Context::from_waker(Waker::noop());
    Cost::median(
        timings(waiters, scale)
            .map(|_| {
                line.join(|| semaphore.acquire());
                let cost = timed(waiters as u64, || {
                    semaphore.add_permits(waiters);
                    for place in &mut line.places {
                        permits.push(ready(place.as_mut().as_pin_mut().unwrap().poll(cx)));
                        place.set(None);
                    }
                });
                permits.drain(..).for_each(S::forget);
                cost
            })
            .skip(1),
    )
}

/// So many in line, who all give up, in no order.
pub(crate) fn cancel<S: Contender>(waiters: usize, scale: Scale) -> Cost {
    let semaphore = Box::new(Alone(S::new(1)));
    let semaphore = &semaphore.0;
    let held = at_once(semaphore.acquire());
    let mut line = Line::new(waiters);
    let order = scattered(waiters);
    let cost = Cost::median(
        timings(waiters, scale)
            .map(|_| {
                line.join(|| semaphore.acquire());
                timed(waiters as u64, || {
                    for &place in &order {
                        line.places[place].set(None);
                    }
                })
            })
            .skip(1),
    );
    drop(held);
    assert!(semaphore.try_acquire().is_some());
    cost
}

/// One for each line to be made, and one more: the first finds nothing to use again, in memory
/// never touched before, and is to be skipped.
fn timings(waiters: usize, scale: Scale) -> RangeInclusive<u64> {
    0..=scale.of(200_000).div_ceil(waiters as u64)
}

/// Futures in boxes, as a runtime has them; the boxes are made before anything is measured.
struct Line<F> {
    places: Vec<Pin<Box<Option<F>>>>,
}

impl<F: Future> Line<F> {
    fn new(waiters: usize) -> Self {
        Self { places: (0..waiters).map(|_| Box::pin(None)).collect() }
    }

    /// A new one in every place, polled once and in that order.
    fn join(&mut self, acquire: impl Fn() -> F) {
        let cx = &mut Context::from_waker(Waker::noop());
        for place in &mut self.places {
            place.set(Some(acquire()));
            assert!(place.as_mut().as_pin_mut().unwrap().poll(cx).is_pending());
        }
    }
}

/// 0 to `count`, shuffled, always in the same way.
fn scattered(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for place in (1..count).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        order.swap(place, (state >> 33) as usize % (place + 1));
    }
    order
}

/// Polls what never has to wait.
fn at_once<F: Future>(future: F) -> F::Output {
    ready(pin!(future).poll(&mut Context::from_waker(Waker::noop())))
}

#[track_caller]
fn ready<T>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it should not have to wait"),
    }
}
