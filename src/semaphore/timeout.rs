//! The forms with a timeout or a deadline, on tokio's clock.

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Timeout, timeout, timeout_at};

use super::{Acquire, AcquireTimeoutError, Semaphore, SemaphorePermit};

impl Semaphore {
    /// Waits with the timer that `limit` adds. A permit that is free needs none.
    async fn acquire_within<'a>(
        &'a self,
        limit: impl FnOnce(Acquire<&'a Self>) -> Timeout<Acquire<&'a Self>>,
    ) -> Result<SemaphorePermit<'a>, AcquireTimeoutError> {
        let mut acquire = self.acquire();
        match poll_fn(|cx| Poll::Ready(Pin::new(&mut acquire).poll(cx))).await {
            Poll::Ready(acquired) => Ok(acquired?),
            Poll::Pending => match limit(acquire).await {
                Ok(acquired) => Ok(acquired?),
                Err(_) => Err(AcquireTimeoutError::Elapsed),
            },
        }
    }

    /// [`acquire`](Self::acquire), but for `duration` at the most; zero looks once.
    ///
    /// A permit that is granted in time is never lost, even if the task is polled only later.
    ///
    /// # Errors
    ///
    /// [`AcquireTimeoutError::Elapsed`] if it is still waiting then: it leaves the wait list.
    /// [`AcquireTimeoutError::Closed`] if the semaphore is closed first.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with timers enabled, if it has to wait.
    ///
    /// # Cancel safety
    ///
    /// That of [`acquire`](Self::acquire).
    ///
    /// ```
    /// use std::time::Duration;
    /// use sluicegate::{AcquireTimeoutError, Semaphore};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let semaphore = Semaphore::new(0);
    /// let refused = semaphore.acquire_timeout(Duration::from_millis(1)).await;
    /// assert_eq!(refused.unwrap_err(), AcquireTimeoutError::Elapsed);
    /// assert_eq!(semaphore.waiters(), 0);
    /// # }
    /// ```
    pub async fn acquire_timeout(
        &self,
        duration: Duration,
    ) -> Result<SemaphorePermit<'_>, AcquireTimeoutError> {
        self.acquire_within(|acquire| timeout(duration, acquire)).await
    }

    /// [`acquire_timeout`](Self::acquire_timeout) with the instant at which it gives up.
    ///
    /// # Errors, panics, cancel safety
    ///
    /// Those of [`acquire_timeout`](Self::acquire_timeout).
    pub async fn acquire_deadline(
        &self,
        deadline: Instant,
    ) -> Result<SemaphorePermit<'_>, AcquireTimeoutError> {
        self.acquire_within(|acquire| timeout_at(deadline, acquire)).await
    }
}
