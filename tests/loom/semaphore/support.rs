//! What the models of the semaphore share.
//!
//! Wake-ups are counted with `std`'s atomics: they only observe, so that they must not add
//! interleavings of their own. A waiter that was told to wait is asked again after all threads
//! have been joined; it must have been woken by then, so that a lost wake-up is a failed
//! assertion and no model ever blocks.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use cooked_waker::{IntoWaker, WakeRef};
use loom::thread::{self, JoinHandle};
use sluicegate::{AcquireError, AcquireOwned, OwnedSemaphorePermit, Semaphore};

pub(crate) use crate::explore::{bounded, exhaustive};

pub(crate) type Acquired = Result<OwnedSemaphorePermit, AcquireError>;

/// A semaphore whose permits are all held, in one permit each of these numbers.
pub(crate) fn held<const N: usize>(
    permits: [u32; N],
) -> (Arc<Semaphore>, [OwnedSemaphorePermit; N]) {
    let all = permits.iter().map(|&permits| permits as usize).sum();
    let semaphore = Arc::new(Semaphore::new(all));
    let held = permits.map(|permits| take(&semaphore, permits));
    (semaphore, held)
}

pub(crate) fn take(semaphore: &Arc<Semaphore>, permits: u32) -> OwnedSemaphorePermit {
    semaphore.clone().try_acquire_many_owned(permits).expect("free when the model begins")
}

/// Drops it in a thread of its own.
pub(crate) fn drop_elsewhere<T: Send + 'static>(value: T) -> JoinHandle<()> {
    thread::spawn(move || drop(value))
}

/// Does it to the semaphore in a thread of its own.
pub(crate) fn elsewhere<T: 'static>(
    semaphore: &Arc<Semaphore>,
    act: impl FnOnce(Arc<Semaphore>) -> T + 'static,
) -> JoinHandle<T> {
    let semaphore = semaphore.clone();
    thread::spawn(move || act(semaphore))
}

/// Nobody waits, nothing is granted or owed, and all `permits` are there to be taken.
#[track_caller]
pub(crate) fn assert_at_rest(semaphore: &Semaphore, permits: usize) {
    assert_eq!(semaphore.waiters(), 0, "waiters");
    assert_eq!(semaphore.granted_unclaimed(), 0, "granted, unclaimed");
    assert_eq!(semaphore.limit(), permits, "limit");
    assert_eq!(semaphore.available_permits(), permits, "available permits");
}

/// Says that this was a panic on purpose; see [`panic_quietly`].
struct OnPurpose;

/// Panics without a message on standard error, which a model would print thousands of times.
pub(crate) fn panic_quietly() -> ! {
    resume_unwind(Box::new(OnPurpose))
}

/// Whether it panicked on purpose; any other panic goes on.
pub(crate) fn panics_on_purpose(act: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(()) => false,
        Err(payload) if payload.is::<OnPurpose>() => true,
        Err(payload) => resume_unwind(payload),
    }
}

/// A task that counts its wake-ups, and does one thing more at each.
pub(crate) struct Counter {
    wakes: AtomicUsize,
    then: Box<dyn Fn() + Send + Sync>,
}

impl Counter {
    pub(crate) fn new(then: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { wakes: AtomicUsize::new(0), then: Box::new(then) })
    }

    pub(crate) fn wakes(&self) -> usize {
        self.wakes.load(Ordering::Relaxed)
    }
}

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        (self.then)();
    }
}

/// What the owner of a waker can have it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Clone,
    Wake,
    Drop,
}

/// A waker that does one thing, once: the first time it is cloned, woken or dropped, whichever it
/// waits for, from when it is [armed](Self::arm) on.
pub(crate) struct Trap(Arc<Trigger>);

struct Trigger {
    on: Call,
    act: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    armed: AtomicBool,
    wakes: AtomicUsize,
}

impl Trap {
    pub(crate) fn new(on: Call, act: impl FnOnce() + Send + 'static) -> Self {
        Self(Arc::new(Trigger {
            on,
            act: Mutex::new(Some(Box::new(act))),
            armed: AtomicBool::new(false),
            wakes: AtomicUsize::new(0),
        }))
    }

    pub(crate) fn waker(&self) -> Waker {
        Box::new(TrapWaker(self.0.clone())).into_waker()
    }

    pub(crate) fn arm(&self) {
        self.0.armed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn disarm(&self) {
        self.0.armed.store(false, Ordering::Relaxed);
    }

    pub(crate) fn wakes(&self) -> usize {
        self.0.wakes.load(Ordering::Relaxed)
    }
}

struct TrapWaker(Arc<Trigger>);

impl TrapWaker {
    fn called(&self, call: Call) {
        if call == self.0.on && self.0.armed.load(Ordering::Relaxed) {
            let act = self.0.act.lock().unwrap().take();
            if let Some(act) = act {
                act();
            }
        }
    }
}

impl Clone for TrapWaker {
    fn clone(&self) -> Self {
        self.called(Call::Clone);
        Self(self.0.clone())
    }
}

impl WakeRef for TrapWaker {
    fn wake_by_ref(&self) {
        self.0.wakes.fetch_add(1, Ordering::Relaxed);
        self.called(Call::Wake);
    }
}

impl cooked_waker::Wake for TrapWaker {}

impl Drop for TrapWaker {
    fn drop(&mut self) {
        self.called(Call::Drop);
    }
}

/// A future, and the task that polls it.
pub(crate) struct Waiter {
    future: Pin<Box<AcquireOwned>>,
    task: Arc<Counter>,
}

impl Waiter {
    /// Not polled yet, not in the wait list.
    pub(crate) fn new(semaphore: &Arc<Semaphore>, permits: u32) -> Self {
        Self::of_task(semaphore, permits, Counter::new(|| ()))
    }

    pub(crate) fn of_task(semaphore: &Arc<Semaphore>, permits: u32, task: Arc<Counter>) -> Self {
        let future = Box::pin(semaphore.clone().acquire_many_owned(permits));
        Self { future, task }
    }

    /// Polled once, and in the wait list.
    pub(crate) fn waiting(semaphore: &Arc<Semaphore>, permits: u32) -> Self {
        Self::new(semaphore, permits).must_wait()
    }

    /// Not polled yet, but in the wait list.
    pub(crate) fn enqueued(semaphore: &Arc<Semaphore>, permits: u32) -> Self {
        let future = Box::pin(semaphore.clone().enqueue_owned(permits));
        Self { future, task: Counter::new(|| ()) }
    }

    #[track_caller]
    pub(crate) fn must_wait(mut self) -> Self {
        assert!(self.poll().is_pending(), "must wait");
        self
    }

    pub(crate) fn poll(&mut self) -> Poll<Acquired> {
        let waker = Waker::from(self.task.clone());
        self.poll_with(&waker)
    }

    pub(crate) fn poll_with(&mut self, waker: &Waker) -> Poll<Acquired> {
        self.future.as_mut().poll(&mut Context::from_waker(waker))
    }

    /// From now on it is polled by another task.
    pub(crate) fn move_to(&mut self, task: Arc<Counter>) {
        self.task = task;
    }

    pub(crate) fn wakes(&self) -> usize {
        self.task.wakes()
    }

    /// What became of it; it was `polled` while the others ran, and they are done.
    #[track_caller]
    pub(crate) fn outcome(mut self, polled: Poll<Acquired>) -> Acquired {
        match polled {
            Poll::Ready(acquired) => acquired,
            Poll::Pending => {
                assert_eq!(self.wakes(), 1, "wake-ups of a waiter that was pending");
                let Poll::Ready(acquired) = self.poll() else { panic!("woken in vain") };
                acquired
            }
        }
    }

    /// It was in the wait list and is granted now; woken once.
    #[track_caller]
    pub(crate) fn granted(self) -> OwnedSemaphorePermit {
        self.outcome(Poll::Pending).expect("granted")
    }

    /// It was in the wait list when the semaphore was closed; woken once.
    #[track_caller]
    pub(crate) fn refused(self) {
        self.outcome(Poll::Pending).expect_err("closed");
    }
}
