//! Every interleaving of the threads of a `SingleFlight`.
//!
//! Each model was seen to fail with the guard that it names taken out.

use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use loom::future::{AtomicWaker, block_on};
use loom::thread;
use sluicegate::SingleFlight;

use crate::explore::exhaustive;

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn flights() -> Arc<SingleFlight<u8, u8>> {
    Arc::new(SingleFlight::new(1).unwrap())
}

/// A run that another thread ends.
#[derive(Default)]
struct Door {
    open: loom::sync::atomic::AtomicBool,
    waker: AtomicWaker,
}

impl Door {
    fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn run(self: &Arc<Self>) -> impl Future<Output = u8> + Send + use<> {
        let door = Arc::clone(self);
        poll_fn(move |cx| {
            door.waker.register_by_ref(cx.waker());
            if door.open.load(Ordering::Acquire) { Poll::Ready(7) } else { Poll::Pending }
        })
    }
}

/// Guard: a run that is woken wakes all its callers. Taken out (it wakes the one that began it), the other
/// waits for ever.
#[test]
fn a_caller_that_leaves_as_the_run_is_woken() {
    exhaustive(|| {
        let (flights, door) = (flights(), Arc::new(Door::default()));
        let mut stays = Box::pin(flights.run(1, || ready(0)));
        let leaving = {
            let (flights, door) = (Arc::clone(&flights), Arc::clone(&door));
            thread::spawn(move || {
                let mut leaves = Box::pin(flights.run(1, || door.run()));
                drop(poll(leaves.as_mut()));
                drop(leaves);
            })
        };
        let opening = {
            let door = Arc::clone(&door);
            thread::spawn(move || door.open())
        };
        let value = block_on(stays.as_mut()).unwrap();
        leaving.join().unwrap();
        opening.join().unwrap();
        // Shared with the one that left, or begun as it was gone.
        assert!(value == 7 || value == 0);
        let stats = flights.stats();
        assert_eq!(stats.started, stats.completed + stats.cancelled);
        assert_eq!((stats.running, stats.callers), (0, 0));
    });
}

/// Guard: the wake of a run that is being polled is kept for when its future is back. Taken out, nobody
/// polls it again.
#[test]
fn a_wake_that_comes_as_the_run_is_polled() {
    exhaustive(|| {
        let (flights, door) = (flights(), Arc::new(Door::default()));
        let opening = {
            let door = Arc::clone(&door);
            thread::spawn(move || door.open())
        };
        assert_eq!(block_on(flights.run(1, || door.run())).unwrap(), 7);
        opening.join().unwrap();
    });
}

/// Guard: as a run is suspended that was woken as it was polled, all its callers are woken, not only the
/// one that polled it. Taken out, the other waits for ever for one that is not polled again.
#[test]
fn a_caller_that_comes_as_the_run_is_polled_by_one_that_is_then_kept() {
    exhaustive(|| {
        let (flights, door) = (flights(), Arc::new(Door::default()));
        let mut kept = Box::pin(flights.run(1, || door.run()));
        let opening = {
            let door = Arc::clone(&door);
            thread::spawn(move || door.open())
        };
        let other = {
            let flights = Arc::clone(&flights);
            thread::spawn(move || block_on(flights.run(1, || ready(0))).unwrap())
        };
        let first = poll(kept.as_mut());
        let other = other.join().unwrap();
        opening.join().unwrap();
        let last = if first.is_ready() { first } else { poll(kept.as_mut()) };
        let Poll::Ready(value) = last else { panic!("it is done") };
        // One run for both, or the other's had ended before.
        assert!([(7, 7), (0, 0), (7, 0)].contains(&(value.unwrap(), other)));
    });
}

/// Guard: a run is looked up and joined in one critical section. Taken out, the run ends in between, and
/// the call joins nothing.
#[test]
fn a_new_caller_as_the_run_ends() {
    exhaustive(|| {
        let flights = flights();
        let calls = [1, 2].map(|value| {
            let flights = Arc::clone(&flights);
            thread::spawn(move || block_on(flights.run(1, || ready(value))).unwrap())
        });
        let values = calls.map(|call| call.join().unwrap());
        assert!(values == [1, 2] || values == [1, 1] || values == [2, 2], "{values:?}");
        let stats = flights.stats();
        assert_eq!((stats.started, stats.completed), (2 - stats.shared, 2 - stats.shared));
    });
}

/// Guard: a panic is an outcome, for which all callers are woken. Taken out (they are woken for values
/// alone), the other waits for ever.
#[test]
fn a_panic_of_the_run_reaches_a_waiter() {
    exhaustive(|| {
        let (flights, door) = (flights(), Arc::new(Door::default()));
        let panics = {
            let door = Arc::clone(&door);
            move || async move {
                let value = door.run().await;
                std::panic::resume_unwind(Box::new(value))
            }
        };
        let mut first = Box::pin(flights.run(1, panics));
        let mut second = pin!(flights.run(1, || ready(0)));
        assert!(poll(first.as_mut()).is_pending());
        assert!(poll(second.as_mut()).is_pending());
        let opening = {
            let door = Arc::clone(&door);
            thread::spawn(move || door.open())
        };
        assert!(block_on(second).is_err());
        opening.join().unwrap();
        assert!(matches!(poll(first.as_mut()), Poll::Ready(Err(_))));
    });
}

/// Guard: the place of a run that ends goes to the first key that waits, whose callers are woken. Taken
/// out, it waits for ever.
#[test]
fn a_key_that_waits_for_a_place_as_the_run_ends() {
    exhaustive(|| {
        let flights = flights();
        let calls = [1, 2].map(|key| {
            let flights = Arc::clone(&flights);
            thread::spawn(move || block_on(flights.run(key, || ready(key))).unwrap())
        });
        assert_eq!(calls.map(|call| call.join().unwrap()), [1, 2]);
        assert_eq!((flights.stats().running, flights.stats().queued), (0, 0));
    });
}

/// Guard: the run's state says whether it was woken. Taken out (its waker counts wakes by the slot, which
/// the late waker of a run that is gone shares), the next run in the slot is woken and not polled.
#[test]
fn a_late_waker_costs_the_next_run_no_wake() {
    exhaustive(|| {
        let (flights, door, next) =
            (flights(), Arc::new(Door::default()), Arc::new(Door::default()));
        let mut gone = Box::pin(flights.run(1, || door.run()));
        assert!(poll(gone.as_mut()).is_pending());
        let opening = {
            let (door, next) = (Arc::clone(&door), Arc::clone(&next));
            thread::spawn(move || {
                door.open();
                next.open();
            })
        };
        drop(gone);
        assert_eq!(block_on(flights.run(1, || next.run())).unwrap(), 7);
        opening.join().unwrap();
    });
}
