//! The fair semaphore: see [`Semaphore`].

mod blocking;
mod core;
mod error;
mod permit;
mod poll;
mod stats;
#[cfg(feature = "tokio")]
mod timeout;
mod waiter;
mod waiters;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use self::core::Core;
pub use error::{AcquireError, AcquireTimeoutError, TryAcquireError};
pub use permit::{OwnedSemaphorePermit, Permits, SemaphorePermit};
pub use poll::PollSemaphore;
pub use stats::{SemaphoreStats, WaitTimes};
pub use waiter::{Acquire, AcquireOwned};
use waiters::Request;

/// A counting semaphore for asynchronous code: strictly first come, first served, for one permit
/// or for many.
///
/// It bounds concurrency: connections, look-ups, bytes in flight. It has the methods of
/// `tokio::sync::Semaphore`, by name and by meaning, so that a program changes from one to the other
/// in its `use` line; it runs on any runtime, or on none.
///
/// # Fairness
///
/// Waiters are served in the order of joining the wait list. A later, smaller request never passes an
/// earlier, larger one, and [`try_acquire`](Self::try_acquire) never passes a waiter.
///
/// There is one exception. Under tokio every future here takes part in cooperative scheduling: a task
/// that has spent its budget yields, and takes no permit before it is polled again. If permits are
/// free and there are no waiters, it yields without joining the wait list, so that a later task may get
/// them first. If it would have to wait, it joins before it yields.
///
/// # When to use something else
///
/// To guard a value, use a mutex. Where the order does not matter, a semaphore that lets new requests
/// pass the waiters is a little faster.
///
/// # Example
///
/// ```
/// use sluicegate::Semaphore;
///
/// # futures_util::FutureExt::now_or_never(async {
/// let look_ups = Semaphore::new(10);
///
/// let permit = look_ups.acquire().await?;
/// assert_eq!(look_ups.available_permits(), 9);
///
/// drop(permit);
/// assert_eq!(look_ups.available_permits(), 10);
/// # Ok::<(), sluicegate::AcquireError>(())
/// # }).unwrap().unwrap();
/// ```
///
/// # How it is built
///
/// One atomic word holds the free permits and a flag that is set exactly while there are waiters.
/// Without the flag, acquiring and releasing are one read-modify-write each. With it, a lock guards
/// the wait list, whose slots are reused, so that waiting allocates nothing in the steady state.
/// Permits stay in the word until the first waiter can be served whole; wakers are called, and
/// dropped, after the lock is released.
pub struct Semaphore {
    core: Core,
}

impl Semaphore {
    /// The most permits that a semaphore can have: 2^61 − 1 where pointers have 64 bits.
    pub const MAX_PERMITS: usize = self::core::MAX_PERMITS;

    /// Makes a semaphore with this many permits.
    ///
    /// # Panics
    ///
    /// If `permits` is more than [`Self::MAX_PERMITS`].
    #[track_caller]
    pub fn new(permits: usize) -> Self {
        assert_limit(permits);
        Self { core: Core::new(permits) }
    }

    /// Makes a semaphore with this many permits, for a `static`.
    ///
    /// # Panics
    ///
    /// If `permits` is more than [`Self::MAX_PERMITS`]; in a `static`, that is an error of
    /// compilation.
    ///
    /// ```
    /// static LOOK_UPS: sluicegate::Semaphore = sluicegate::Semaphore::const_new(10);
    /// assert_eq!(LOOK_UPS.available_permits(), 10);
    /// ```
    #[cfg(not(loom))]
    pub const fn const_new(permits: usize) -> Self {
        assert!(
            permits <= Self::MAX_PERMITS,
            "a semaphore may not have more than MAX_PERMITS permits"
        );
        Self { core: Core::new(permits) }
    }

    /// Makes a semaphore whose [`stats`](Self::stats) include wait times. It reads the clock twice per
    /// waiter.
    ///
    /// # Panics
    ///
    /// If `permits` is more than [`Self::MAX_PERMITS`].
    #[track_caller]
    pub fn with_wait_times(permits: usize) -> Self {
        assert_limit(permits);
        Self { core: Core::with_wait_times(permits) }
    }

    /// The number of free permits: 0 while there are waiters, since those are reserved for them.
    ///
    /// After a [`close`](Self::close) it still returns the free permits, which cannot be taken any more.
    pub fn available_permits(&self) -> usize {
        self.core.available()
    }

    /// The number of permits, those in use included: available, plus held, minus what a
    /// [smaller limit](Self::set_limit) still has to take back.
    ///
    /// It grows with [`add_permits`](Self::add_permits) and falls with every permit forgotten.
    pub fn limit(&self) -> usize {
        self.core.limit()
    }

    /// Sets the [limit](Self::limit).
    ///
    /// A larger limit serves waiters at once. A smaller one takes free permits, then those that are
    /// returned until it is reached, and no permits are given before. Held permits stay valid.
    ///
    /// # Panics
    ///
    /// If `limit` is more than [`Self::MAX_PERMITS`].
    ///
    /// ```
    /// let semaphore = sluicegate::Semaphore::new(3);
    /// let held = semaphore.try_acquire_many(2)?;
    ///
    /// semaphore.set_limit(1);
    /// assert_eq!(semaphore.available_permits(), 0);
    ///
    /// drop(held);
    /// assert_eq!(semaphore.available_permits(), 1);
    /// # Ok::<(), sluicegate::TryAcquireError>(())
    /// ```
    #[track_caller]
    pub fn set_limit(&self, limit: usize) {
        assert_limit(limit);
        self.core.set_limit(limit);
    }

    /// The number of waiters.
    pub fn waiters(&self) -> usize {
        self.core.waiting()
    }

    /// The number of waiters that were granted their permits and have not been polled since.
    ///
    /// Futures that had their permits without waiting are not counted, polled or not.
    ///
    /// A number that stays above zero points to a task that has stalled: its permits are idle until it
    /// is polled or dropped.
    pub fn granted_unclaimed(&self) -> usize {
        self.core.unclaimed()
    }

    /// Figures about the waiters so far. O(1).
    ///
    /// ```
    /// let semaphore = sluicegate::Semaphore::new(0);
    /// drop(semaphore.enqueue(1));
    ///
    /// let stats = semaphore.stats();
    /// assert_eq!((stats.waits, stats.cancellations, stats.peak_waiters), (1, 1, 1));
    /// ```
    pub fn stats(&self) -> SemaphoreStats {
        self.core.stats()
    }

    /// Adds `n` new permits, and serves waiters with them.
    ///
    /// # Panics
    ///
    /// If more than [`Self::MAX_PERMITS`] would be free, or more than [`usize::MAX`] in circulation;
    /// none is added then. As with tokio's, those that are held do not count as free before they come
    /// back.
    #[track_caller]
    pub fn add_permits(&self, n: usize) {
        self.core.add(n);
    }

    /// Takes up to `n` free permits out of circulation, and returns how many.
    ///
    /// None is free while there are waiters.
    pub fn forget_permits(&self, n: usize) -> usize {
        self.core.forget_free(n)
    }

    /// Waits for one permit.
    ///
    /// The future joins the wait list when it is first polled. One exception: a task without cooperative
    /// budget does not join while permits are free and there are no waiters; see
    /// [fairness](Self#fairness).
    ///
    /// # Errors
    ///
    /// [`AcquireError`] if the semaphore is closed, or is closed while this waits.
    ///
    /// # Panics
    ///
    /// When polled for the first time with 2^32 − 1 other waiters, or polled again after it completed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future removes it from the wait list, and loses no permit: one that was granted
    /// and not yet fetched goes to the next waiter.
    ///
    /// # Complexity
    ///
    /// O(1); one atomic operation if a permit is free and there are no waiters.
    #[inline]
    pub fn acquire(&self) -> Acquire<&Self> {
        self.acquire_many(1)
    }

    /// Waits for `n` permits, all at once.
    ///
    /// None is set aside while it waits. `n` may be more than the limit: it then waits until
    /// [`add_permits`](Self::add_permits) or [`set_limit`](Self::set_limit) makes them enough, and so do
    /// the waiters behind it. With `n` = 0 it does not wait.
    ///
    /// # Errors, panics, cancel safety, complexity
    ///
    /// Those of [`acquire`](Self::acquire).
    #[inline]
    pub fn acquire_many(&self, n: u32) -> Acquire<&Self> {
        Acquire::new(self, Request { permits: n, clamped: false })
    }

    /// Takes a permit if one is free and there are no waiters.
    ///
    /// # Errors
    ///
    /// [`TryAcquireError::NoPermits`] if none is free or there are waiters,
    /// [`TryAcquireError::Closed`] if the semaphore is closed.
    #[inline]
    pub fn try_acquire(&self) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.try_acquire_many(1)
    }

    /// Takes `n` permits if they are free and there are no waiters; `n` = 0 needs no free permits.
    ///
    /// # Errors
    ///
    /// Those of [`try_acquire`](Self::try_acquire).
    #[inline]
    pub fn try_acquire_many(&self, n: u32) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.core.try_take(n as usize)?;
        Ok(SemaphorePermit::new(self, n as usize))
    }

    /// [`acquire`](Self::acquire) with a permit that can outlive the borrow.
    ///
    /// # Errors, panics, cancel safety, complexity
    ///
    /// Those of [`acquire`](Self::acquire).
    ///
    /// ```
    /// use std::sync::Arc;
    /// use sluicegate::{OwnedSemaphorePermit, Semaphore};
    ///
    /// struct Job {
    ///     permit: OwnedSemaphorePermit,
    /// }
    ///
    /// async fn start(semaphore: &Arc<Semaphore>) -> Option<Job> {
    ///     let permit = semaphore.clone().acquire_owned().await.ok()?;
    ///     Some(Job { permit })
    /// }
    /// # let semaphore = Arc::new(Semaphore::new(1));
    /// # let job = futures_util::FutureExt::now_or_never(start(&semaphore)).unwrap();
    /// # assert_eq!(job.unwrap().permit.num_permits(), 1);
    /// ```
    pub fn acquire_owned(self: Arc<Self>) -> AcquireOwned {
        self.acquire_many_owned(1)
    }

    /// [`acquire_many`](Self::acquire_many) with a permit that can outlive the borrow.
    ///
    /// # Errors, panics, cancel safety, complexity
    ///
    /// Those of [`acquire`](Self::acquire).
    pub fn acquire_many_owned(self: Arc<Self>, n: u32) -> AcquireOwned {
        Acquire::new(self, Request { permits: n, clamped: false })
    }

    /// [`acquire_many_owned`](Self::acquire_many_owned) for `n` permits, or for as many as the limit is
    /// when they are granted, if that is less; with a limit of zero, for the first permit.
    ///
    /// A limit that shrinks does not strand it, and one that grows does not serve it too little.
    pub(crate) fn acquire_clamped_owned(self: Arc<Self>, n: u32) -> AcquireOwned {
        Acquire::new(self, Request { permits: n, clamped: true })
    }

    /// [`try_acquire`](Self::try_acquire) with a permit that can outlive the borrow.
    ///
    /// # Errors
    ///
    /// Those of [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_owned(self: Arc<Self>) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.try_acquire_many_owned(1)
    }

    /// [`try_acquire_many`](Self::try_acquire_many) with a permit that can outlive the borrow.
    ///
    /// # Errors
    ///
    /// Those of [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_many_owned(
        self: Arc<Self>,
        n: u32,
    ) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.core.try_take(n as usize)?;
        Ok(OwnedSemaphorePermit::new(self, n as usize))
    }

    /// Joins the wait list for `n` permits now, rather than when the future is first polled.
    ///
    /// For callers that decide the order before the waiting begins: to enqueue several futures in a
    /// given order and spawn their tasks later, say. Permits that are free are taken now.
    ///
    /// # Errors, panics, cancel safety, complexity
    ///
    /// Those of [`acquire`](Self::acquire).
    ///
    /// ```
    /// let semaphore = sluicegate::Semaphore::new(0);
    /// let first = semaphore.enqueue(1);
    /// assert_eq!(semaphore.waiters(), 1);
    /// # drop(first);
    /// ```
    pub fn enqueue(&self, n: u32) -> Acquire<&Self> {
        self.acquire_many(n).enqueue()
    }

    /// [`enqueue`](Self::enqueue) with a permit that can outlive the borrow.
    ///
    /// # Errors, panics, cancel safety, complexity
    ///
    /// Those of [`acquire`](Self::acquire).
    pub fn enqueue_owned(self: Arc<Self>, n: u32) -> AcquireOwned {
        self.acquire_many_owned(n).enqueue()
    }

    /// Runs a future with one permit, which is returned when the future ends or is dropped.
    ///
    /// The future is not polled before the permit is acquired. A timer made with it may run from
    /// earlier, though: `async { sleep(second).await }` makes the timer later than `sleep(second)`.
    ///
    /// # Errors
    ///
    /// [`AcquireError`] if the semaphore is closed before the permit is acquired; the future is
    /// dropped without being polled.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `future`, and leaves the wait list or returns the permit.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, AcquireError> {
        let _permit = self.acquire().await?;
        Ok(future.await)
    }

    /// Closes the semaphore: all waiters fail, once each, and no permits are given any more. Permits
    /// that are held can still be returned.
    ///
    /// ```
    /// use sluicegate::{Semaphore, TryAcquireError};
    ///
    /// let semaphore = Semaphore::new(1);
    /// semaphore.close();
    /// assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::Closed);
    /// ```
    pub fn close(&self) {
        self.core.close();
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
    }

    /// Panics unless the inner structures agree with each other. To be called while no other thread
    /// uses the semaphore.
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub fn validate(&self) {
        self.core.validate();
    }
}

// A panic in a caller's waker leaves it whole.
impl UnwindSafe for Semaphore {}
impl RefUnwindSafe for Semaphore {}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("available_permits", &self.available_permits())
            .field("limit", &self.limit())
            .field("waiters", &self.waiters())
            .field("closed", &self.is_closed())
            .finish()
    }
}

#[track_caller]
fn assert_limit(permits: usize) {
    assert!(
        permits <= Semaphore::MAX_PERMITS,
        "a semaphore may not have more than MAX_PERMITS permits ({})",
        Semaphore::MAX_PERMITS
    );
}
