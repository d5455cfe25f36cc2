//! The blocking forms, for threads outside a runtime.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use std::sync::Arc;
use std::task::Wake;
#[cfg(not(loom))]
use std::time::{Duration, Instant};

#[cfg(not(loom))]
use super::AcquireTimeoutError;
use super::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use crate::base::sync::thread;

/// Wakes a thread. A wake-up before the thread parks is kept for it.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Parks the thread until the future is ready, or until `park` says that time is up.
#[track_caller]
fn block_on<F: Future>(future: F, mut park: impl FnMut() -> bool) -> Option<F::Output> {
    refuse_inside_a_runtime();
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
        if !park() {
            return None;
        }
    }
}

#[track_caller]
fn block_for_good<F: Future>(future: F) -> F::Output {
    let park = || {
        thread::park();
        true
    };
    block_on(future, park).expect("time is never up")
}

/// Panics where tokio's own blocking calls do, and with their message: whether a thread may block
/// is known to tokio alone, so this takes a free lock of its own for a moment.
#[track_caller]
fn refuse_inside_a_runtime() {
    #[cfg(all(feature = "tokio", not(loom)))]
    drop(tokio::sync::Mutex::const_new(()).blocking_lock());
}

impl Semaphore {
    /// [`acquire`](Self::acquire) for a thread, which blocks while it waits.
    ///
    /// # Errors
    ///
    /// [`AcquireError`] if the semaphore is closed, or is closed while this waits.
    ///
    /// # Panics
    ///
    /// With the `tokio` feature: inside a tokio runtime, where a thread must not block.
    ///
    /// ```
    /// let semaphore = sluicegate::Semaphore::new(1);
    /// std::thread::scope(|scope| {
    ///     for _ in 0..3 {
    ///         scope.spawn(|| semaphore.blocking_acquire().is_ok());
    ///     }
    /// });
    /// assert_eq!(semaphore.available_permits(), 1);
    /// ```
    #[track_caller]
    pub fn blocking_acquire(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        block_for_good(self.acquire())
    }

    /// [`acquire_many`](Self::acquire_many) for a thread, which blocks while it waits.
    ///
    /// # Errors, panics
    ///
    /// Those of [`blocking_acquire`](Self::blocking_acquire).
    #[track_caller]
    pub fn blocking_acquire_many(&self, n: u32) -> Result<SemaphorePermit<'_>, AcquireError> {
        block_for_good(self.acquire_many(n))
    }

    /// [`acquire_owned`](Self::acquire_owned) for a thread, which blocks while it waits.
    ///
    /// # Errors, panics
    ///
    /// Those of [`blocking_acquire`](Self::blocking_acquire).
    #[track_caller]
    pub fn blocking_acquire_owned(self: Arc<Self>) -> Result<OwnedSemaphorePermit, AcquireError> {
        block_for_good(self.acquire_owned())
    }

    /// [`acquire_many_owned`](Self::acquire_many_owned) for a thread, which blocks while it waits.
    ///
    /// # Errors, panics
    ///
    /// Those of [`blocking_acquire`](Self::blocking_acquire).
    #[track_caller]
    pub fn blocking_acquire_many_owned(
        self: Arc<Self>,
        n: u32,
    ) -> Result<OwnedSemaphorePermit, AcquireError> {
        block_for_good(self.acquire_many_owned(n))
    }
}

#[cfg(not(loom))]
impl Semaphore {
    /// [`blocking_acquire`](Self::blocking_acquire), but for `timeout` at the most; zero looks
    /// once.
    ///
    /// # Errors
    ///
    /// [`AcquireTimeoutError::Elapsed`] if it is still waiting then: it leaves the wait list.
    /// [`AcquireTimeoutError::Closed`] if the semaphore is closed first.
    ///
    /// # Panics
    ///
    /// As [`blocking_acquire`](Self::blocking_acquire).
    ///
    /// ```
    /// use std::time::Duration;
    /// use sluicegate::{AcquireTimeoutError, Semaphore};
    ///
    /// let semaphore = Semaphore::new(0);
    /// let refused = semaphore.blocking_acquire_timeout(Duration::from_millis(1));
    /// assert_eq!(refused.unwrap_err(), AcquireTimeoutError::Elapsed);
    /// ```
    #[track_caller]
    pub fn blocking_acquire_timeout(
        &self,
        timeout: Duration,
    ) -> Result<SemaphorePermit<'_>, AcquireTimeoutError> {
        self.blocking_acquire_many_timeout(1, timeout)
    }

    /// [`blocking_acquire_timeout`](Self::blocking_acquire_timeout) for `n` permits.
    ///
    /// # Errors, panics
    ///
    /// Those of [`blocking_acquire_timeout`](Self::blocking_acquire_timeout).
    #[track_caller]
    pub fn blocking_acquire_many_timeout(
        &self,
        n: u32,
        timeout: Duration,
    ) -> Result<SemaphorePermit<'_>, AcquireTimeoutError> {
        // A deadline beyond the range of an `Instant` is never reached.
        let deadline = Instant::now().checked_add(timeout);
        let park = || {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            left.map_or_else(thread::park, thread::park_timeout);
            left != Some(Duration::ZERO)
        };
        match block_on(self.acquire_many(n), park) {
            Some(result) => Ok(result?),
            None => Err(AcquireTimeoutError::Elapsed),
        }
    }
}
