//! The fair semaphore: see [`Semaphore`].

mod acquire;
mod blocking;
mod clamped;
mod error;
pub(crate) mod line;
mod permit;
mod place;
mod poll;
mod state;
mod stats;
#[cfg(feature = "tokio")]
mod timeout;

use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

pub use acquire::{Acquire, AcquireOwned};
pub(crate) use clamped::AcquireClamped;
pub use error::{AcquireError, AcquireTimeoutError, TryAcquireError};
pub use permit::{OwnedSemaphorePermit, SemaphorePermit};
pub use poll::PollSemaphore;
use state::State;
pub use stats::{SemaphoreStats, WaitTimes};

/// A counting semaphore for asynchronous code: strictly first come, first served, for one permit
/// or for many.
///
/// It bounds how many may do something at once: connections, look-ups, bytes in flight. It has the
/// methods of `tokio::sync::Semaphore`, by name and by meaning, so that a program changes from one
/// to the other in its `use` line; it runs on any runtime, or on none.
///
/// # Fairness
///
/// Permits go to those who wait in the order in which they came. A later, smaller request never
/// passes an earlier, larger one, and [`try_acquire`](Self::try_acquire) never passes anybody
/// who waits.
///
/// There is one exception. Under tokio every future here takes part in cooperative scheduling: a task
/// that has spent its budget yields, and takes no permit before it is polled again. If permits are
/// free and nobody waits, it yields without a place in line, so that a later task may get them first.
/// If it would have to wait, it takes its place before it yields.
///
/// # When to use something else
///
/// To guard a value, a mutex says more. To let the next in line wait no longer than it must even
/// though the order does not matter, a semaphore that lets newcomers pass is a little faster.
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
/// One atomic word holds the free permits and a flag that is set exactly while somebody waits.
/// Without the flag, acquiring and releasing are one read-modify-write each. With it, a lock guards
/// a line of waiters in a slab whose places are used again, so that waiting allocates nothing in
/// the steady state. Permits stay in the word until the head of the line can be served whole;
/// wakers are called, and dropped, when the lock is released.
pub struct Semaphore {
    state: State,
}

impl Semaphore {
    /// The most permits that a semaphore can have: 2^61 − 1 where pointers have 64 bits.
    pub const MAX_PERMITS: usize = state::MAX_PERMITS;

    /// Makes a semaphore with this many permits.
    ///
    /// # Panics
    ///
    /// If `permits` is more than [`Self::MAX_PERMITS`].
    #[track_caller]
    pub fn new(permits: usize) -> Self {
        assert_limit(permits);
        Self { state: State::new(permits) }
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
        Self { state: State::new(permits) }
    }

    /// Makes a semaphore whose [`stats`](Self::stats) also tell how long was waited, at the price
    /// of reading the clock twice for each that waits.
    ///
    /// # Panics
    ///
    /// If `permits` is more than [`Self::MAX_PERMITS`].
    #[track_caller]
    pub fn with_wait_times(permits: usize) -> Self {
        assert_limit(permits);
        Self { state: State::with_wait_times(permits) }
    }

    /// How many permits are free: 0 while somebody waits, since those are spoken for.
    ///
    /// After a [`close`](Self::close) it goes on to say how many are free, though nobody can take
    /// them.
    pub fn available_permits(&self) -> usize {
        self.state.available()
    }

    /// How many permits there are, taken ones included: available, plus held, minus what a
    /// [smaller limit](Self::set_limit) still has to take back.
    ///
    /// It grows with [`add_permits`](Self::add_permits) and falls with every permit forgotten.
    pub fn limit(&self) -> usize {
        self.state.limit()
    }

    /// Makes the [limit](Self::limit) this many permits.
    ///
    /// A larger one serves those who wait at once. A smaller one takes what is free, then what
    /// comes back until it is reached; nobody loses a permit that they hold, and nobody is given
    /// one before.
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
        self.state.set_limit(limit);
    }

    /// How many wait in line.
    pub fn waiters(&self) -> usize {
        self.state.waiting()
    }

    /// How many waited, were granted their permits, and have not been polled since.
    ///
    /// Futures that had their permits without waiting are not counted, polled or not.
    ///
    /// A number that stays above zero points to a task that has stalled: its permits lie idle
    /// until it is polled or dropped.
    pub fn granted_unclaimed(&self) -> usize {
        self.state.unclaimed()
    }

    /// Figures of the waiting so far. O(1).
    ///
    /// ```
    /// let semaphore = sluicegate::Semaphore::new(0);
    /// drop(semaphore.enqueue(1));
    ///
    /// let stats = semaphore.stats();
    /// assert_eq!((stats.waits, stats.cancellations, stats.peak_waiters), (1, 1, 1));
    /// ```
    pub fn stats(&self) -> SemaphoreStats {
        self.state.stats()
    }

    /// Adds `n` permits that nobody took before, and serves those who wait.
    ///
    /// # Panics
    ///
    /// If more than [`Self::MAX_PERMITS`] would be free, or more than [`usize::MAX`] in circulation;
    /// none is added then. As with tokio's, those that are held do not count as free before they come
    /// back.
    #[track_caller]
    pub fn add_permits(&self, n: usize) {
        self.state.add(n);
    }

    /// Takes up to `n` free permits out of circulation, and returns how many.
    ///
    /// While somebody waits none is free.
    pub fn forget_permits(&self, n: usize) -> usize {
        self.state.forget_free(n)
    }

    /// Waits in line for one permit.
    ///
    /// Its place in line is taken when it is first polled. One exception: a task without cooperative
    /// budget takes none while permits are free and nobody waits; see [fairness](Self#fairness).
    ///
    /// # Errors
    ///
    /// [`AcquireError`] if the semaphore is closed, or is closed while this waits.
    ///
    /// # Panics
    ///
    /// When polled for the first time with 2^32 − 1 others in line, or polled again after it
    /// completed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up its place in line, and loses no permit: one that was granted
    /// and not yet fetched goes to the next in line.
    ///
    /// # Complexity
    ///
    /// O(1); one atomic operation if there is a permit and nobody waits.
    #[inline]
    pub fn acquire(&self) -> Acquire<'_> {
        Acquire::new(self, 1)
    }

    /// Waits in line for `n` permits, to be had all at once.
    ///
    /// None is set aside while it waits. `n` may be more than there are: it then waits until
    /// [`add_permits`](Self::add_permits) or [`set_limit`](Self::set_limit) makes them enough, and
    /// so does everybody behind it. No permits at all are given without waiting.
    ///
    /// # Errors, panics, cancel safety, complexity
    ///
    /// Those of [`acquire`](Self::acquire).
    #[inline]
    pub fn acquire_many(&self, n: u32) -> Acquire<'_> {
        Acquire::new(self, n)
    }

    /// Takes a permit if one is free and nobody waits.
    ///
    /// # Errors
    ///
    /// [`TryAcquireError::NoPermits`] if none is free or somebody is waiting,
    /// [`TryAcquireError::Closed`] if the semaphore is closed.
    #[inline]
    pub fn try_acquire(&self) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.try_acquire_many(1)
    }

    /// Takes `n` permits if so many are free and nobody waits; no permits at all can always be
    /// taken.
    ///
    /// # Errors
    ///
    /// Those of [`try_acquire`](Self::try_acquire).
    #[inline]
    pub fn try_acquire_many(&self, n: u32) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.state.try_take(n as usize)?;
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
    ///     place: OwnedSemaphorePermit,
    /// }
    ///
    /// async fn start(semaphore: &Arc<Semaphore>) -> Option<Job> {
    ///     let place = semaphore.clone().acquire_owned().await.ok()?;
    ///     Some(Job { place })
    /// }
    /// # let semaphore = Arc::new(Semaphore::new(1));
    /// # let job = futures_util::FutureExt::now_or_never(start(&semaphore)).unwrap();
    /// # assert_eq!(job.unwrap().place.num_permits(), 1);
    /// ```
    pub fn acquire_owned(self: Arc<Self>) -> AcquireOwned {
        AcquireOwned::new(self, 1)
    }

    /// [`acquire_many`](Self::acquire_many) with a permit that can outlive the borrow.
    ///
    /// # Errors, panics, cancel safety, complexity
    ///
    /// Those of [`acquire`](Self::acquire).
    pub fn acquire_many_owned(self: Arc<Self>, n: u32) -> AcquireOwned {
        AcquireOwned::new(self, n)
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
        self.state.try_take(n as usize)?;
        Ok(OwnedSemaphorePermit::new(self, n as usize))
    }

    /// Takes a place in line for `n` permits now, rather than when the future is first polled.
    ///
    /// For who must decide the order before the waiting begins: to take places for several tasks
    /// in a given order and then spawn them, say. Permits that are free are taken now.
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
    pub fn enqueue(&self, n: u32) -> Acquire<'_> {
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

    /// Runs a future with one permit, which is given back when it ends, in whichever way.
    ///
    /// The future is not polled before there is a permit. A timer that was made with it may run from
    /// earlier, though: `async { sleep(second).await }` makes the timer later than `sleep(second)`.
    ///
    /// # Errors
    ///
    /// [`AcquireError`] if the semaphore is closed before the permit is had; the future is
    /// dropped without being polled.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `future`, and gives back the place or the permit.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, AcquireError> {
        let _permit = self.acquire().await?;
        Ok(future.await)
    }

    /// Closes the semaphore: everybody who waits is told so, once each, and nobody is given a
    /// permit any more. Permits that are held can still be given back.
    ///
    /// ```
    /// use sluicegate::{Semaphore, TryAcquireError};
    ///
    /// let semaphore = Semaphore::new(1);
    /// semaphore.close();
    /// assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::Closed);
    /// ```
    pub fn close(&self) {
        self.state.close();
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.state.is_closed()
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
