//! What the models of the semaphore share.
//!
//! Wake-ups are counted with `std`'s atomics: they only observe, so that they must not add
//! interleavings of their own. A waiter that was told to wait is asked again after all threads
//! have been joined; it must have been woken by then, so that a lost wake-up is a failed
//! assertion and no model ever blocks.

// Each test file uses its part.
#![allow(dead_code)]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use loom::model::Builder;
use loom::thread::{self, JoinHandle};
use sluicegate::{AcquireError, AcquireOwned, OwnedSemaphorePermit, Semaphore};

pub type Acquired = Result<OwnedSemaphorePermit, AcquireError>;

/// Every interleaving, whatever the environment says.
pub fn exhaustive(model: impl Fn() + Send + Sync + 'static) {
    explore(None, model);
}

/// Every interleaving with at most `preemptions` switches away from a thread that could go on.
pub fn bounded(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    explore(Some(preemptions), model);
}

fn explore(preemption_bound: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemption_bound;
    builder.max_permutations = None;
    builder.max_duration = None;
    builder.check(model);
}

/// A semaphore whose permits are all held, in one permit each of these numbers.
pub fn held<const N: usize>(permits: [u32; N]) -> (Arc<Semaphore>, [OwnedSemaphorePermit; N]) {
    let all = permits.iter().map(|&permits| permits as usize).sum();
    let semaphore = Arc::new(Semaphore::new(all));
    let held = permits.map(|permits| take(&semaphore, permits));
    (semaphore, held)
}

pub fn take(semaphore: &Arc<Semaphore>, permits: u32) -> OwnedSemaphorePermit {
    semaphore.clone().try_acquire_many_owned(permits).expect("free when the model begins")
}

/// Drops it in a thread of its own.
pub fn drop_elsewhere<T: Send + 'static>(value: T) -> JoinHandle<()> {
    thread::spawn(move || drop(value))
}

/// Does it to the semaphore in a thread of its own.
pub fn elsewhere<T: 'static>(
    semaphore: &Arc<Semaphore>,
    act: impl FnOnce(Arc<Semaphore>) -> T + 'static,
) -> JoinHandle<T> {
    let semaphore = semaphore.clone();
    thread::spawn(move || act(semaphore))
}

/// Nobody waits, nothing is granted or owed, and all `permits` are there to be taken.
#[track_caller]
pub fn assert_at_rest(semaphore: &Semaphore, permits: usize) {
    assert_eq!(semaphore.waiters(), 0, "waiters");
    assert_eq!(semaphore.granted_unclaimed(), 0, "granted, unclaimed");
    assert_eq!(semaphore.limit(), permits, "limit");
    assert_eq!(semaphore.available_permits(), permits, "available permits");
}

/// Says that this was a panic on purpose; see [`panic_quietly`].
struct OnPurpose;

/// Panics without a message on standard error, which a model would print thousands of times.
pub fn panic_quietly() -> ! {
    resume_unwind(Box::new(OnPurpose))
}

/// Whether it panicked on purpose; any other panic goes on.
pub fn panics_on_purpose(act: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(()) => false,
        Err(payload) if payload.is::<OnPurpose>() => true,
        Err(payload) => resume_unwind(payload),
    }
}

/// A waker that counts, and does one thing more when it is woken.
pub struct Counter {
    wakes: AtomicUsize,
    then: Box<dyn Fn() + Send + Sync>,
}

impl Counter {
    pub fn new(then: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { wakes: AtomicUsize::new(0), then: Box::new(then) })
    }

    pub fn wakes(&self) -> usize {
        self.wakes.load(Ordering::Relaxed)
    }
}

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        (self.then)();
    }
}

/// A future, and the task that polls it.
pub struct Waiter {
    future: Pin<Box<AcquireOwned>>,
    task: Arc<Counter>,
}

impl Waiter {
    /// Not polled yet, not in line.
    pub fn new(semaphore: &Arc<Semaphore>, permits: u32) -> Self {
        Self::of_task(semaphore, permits, Counter::new(|| ()))
    }

    pub fn of_task(semaphore: &Arc<Semaphore>, permits: u32, task: Arc<Counter>) -> Self {
        let future = Box::pin(semaphore.clone().acquire_many_owned(permits));
        Self { future, task }
    }

    /// Polled once, and in line.
    pub fn in_line(semaphore: &Arc<Semaphore>, permits: u32) -> Self {
        Self::new(semaphore, permits).must_wait()
    }

    /// Not polled yet, but in line.
    pub fn enqueued(semaphore: &Arc<Semaphore>, permits: u32) -> Self {
        let future = Box::pin(semaphore.clone().enqueue_owned(permits));
        Self { future, task: Counter::new(|| ()) }
    }

    #[track_caller]
    pub fn must_wait(mut self) -> Self {
        assert!(self.poll().is_pending(), "must wait");
        self
    }

    pub fn poll(&mut self) -> Poll<Acquired> {
        let waker = Waker::from(self.task.clone());
        self.poll_with(&waker)
    }

    pub fn poll_with(&mut self, waker: &Waker) -> Poll<Acquired> {
        self.future.as_mut().poll(&mut Context::from_waker(waker))
    }

    /// From now on it is polled by another task.
    pub fn move_to(&mut self, task: Arc<Counter>) {
        self.task = task;
    }

    pub fn wakes(&self) -> usize {
        self.task.wakes()
    }

    /// What became of it; it was `polled` while the others ran, and they are done.
    #[track_caller]
    pub fn outcome(mut self, polled: Poll<Acquired>) -> Acquired {
        match polled {
            Poll::Ready(acquired) => acquired,
            Poll::Pending => {
                assert_eq!(self.wakes(), 1, "wake-ups of one who was told to wait");
                let Poll::Ready(acquired) = self.poll() else { panic!("woken in vain") };
                acquired
            }
        }
    }

    /// It was in line and is granted now; woken once to be told so.
    #[track_caller]
    pub fn granted(self) -> OwnedSemaphorePermit {
        self.outcome(Poll::Pending).expect("granted")
    }

    /// It was in line when the semaphore was closed; woken once to be told so.
    #[track_caller]
    pub fn refused(self) {
        self.outcome(Poll::Pending).expect_err("closed");
    }
}
