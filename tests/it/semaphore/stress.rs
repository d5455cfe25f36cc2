//! Threads that acquire, wait, give up, panic in their wakers, change the limit and at last close:
//! every permit is accounted for at the end.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use sluicegate::{OwnedSemaphorePermit, Semaphore};

const PERMITS: usize = 3;
const THREADS: usize = 6;

/// Wakes its thread, and then panics now and then.
struct Nervous {
    thread: Thread,
    calls: AtomicUsize,
    panics: usize,
}

impl Wake for Nervous {
    fn wake(self: Arc<Self>) {
        self.thread.unpark();
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        if self.panics != 0 && calls % self.panics == 0 {
            // A panic that the hook does not print.
            resume_unwind(Box::new("nervous"));
        }
    }
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// Waits until it has its permits, is told that there are none any more, or has waited often
/// enough.
fn wait(
    semaphore: &Arc<Semaphore>,
    need: u32,
    patience: u64,
    waker: &Waker,
) -> Option<Option<OwnedSemaphorePermit>> {
    let mut acquire = pin!(semaphore.clone().acquire_many_owned(need));
    for _ in 0..=patience {
        match acquire.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Ready(Ok(permit)) => return Some(Some(permit)),
            Poll::Ready(Err(_)) => return None,
            Poll::Pending => thread::park_timeout(Duration::from_millis(1)),
        }
    }
    Some(None)
}

fn worker(semaphore: &Arc<Semaphore>, in_use: &AtomicUsize, seed: usize) -> usize {
    let mut dice = Dice(seed as u64 + 1);
    let waker = Waker::from(Arc::new(Nervous {
        thread: thread::current(),
        calls: AtomicUsize::new(1),
        panics: if seed % 2 == 0 { 0 } else { 7 },
    }));
    let mut served = 0;
    loop {
        let need = dice.below(3) as u32 + 1;
        let patience = dice.below(4);
        // A panic of a waker reaches the call that woke it, and no other.
        let turn = catch_unwind(AssertUnwindSafe(|| {
            let Some(permit) = wait(semaphore, need, patience, &waker) else { return false };
            if let Some(mut permit) = permit {
                let now = in_use.fetch_add(need as usize, Ordering::SeqCst) + need as usize;
                assert!(now <= PERMITS, "{now} permits in use");
                in_use.fetch_sub(need as usize, Ordering::SeqCst);
                drop(permit.split(1));
            }
            true
        }));
        match turn {
            Ok(true) => served += 1,
            Ok(false) => return served,
            Err(panic) => assert_eq!(panic.downcast_ref(), Some(&"nervous")),
        }
    }
}

#[test]
fn every_permit_is_accounted_for() {
    let semaphore = Arc::new(Semaphore::new(PERMITS));
    let in_use = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let served = thread::scope(|scope| {
        let (semaphore, in_use, stop) = (&semaphore, &in_use, &stop);
        let workers: Vec<_> =
            (0..THREADS).map(|seed| scope.spawn(move || worker(semaphore, in_use, seed))).collect();
        let changer = scope.spawn(move || {
            let mut dice = Dice(99);
            while !stop.load(Ordering::Relaxed) {
                let limit = dice.below(PERMITS as u64 + 1) as usize;
                for limit in [limit, PERMITS] {
                    let _ = catch_unwind(AssertUnwindSafe(|| semaphore.set_limit(limit)));
                }
            }
        });
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            thread::park_timeout(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
        changer.join().unwrap();
        let _ = catch_unwind(AssertUnwindSafe(|| semaphore.close()));
        workers.into_iter().map(|worker| worker.join().unwrap()).sum::<usize>()
    });
    assert!(served > 1000, "{served}");
    assert_eq!(semaphore.limit(), PERMITS);
    assert_eq!(semaphore.available_permits(), PERMITS);
    assert_eq!((semaphore.waiters(), semaphore.granted_unclaimed()), (0, 0));
    let stats = semaphore.stats();
    assert!(stats.waits > 0 && stats.cancellations > 0 && stats.peak_waiters > 1);
}
