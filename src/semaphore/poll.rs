use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

use futures_core::Stream;

use super::{AcquireOwned, OwnedSemaphorePermit, Semaphore};

/// A [`Semaphore`] in the form that poll functions need: in `poll_ready` of a `Service`, say.
///
/// It has the methods of `tokio_util::sync::PollSemaphore`, and boxes nothing. It keeps its position in
/// the wait list between polls, and leaves the list when it is dropped.
///
/// As a [`Stream`] it gives one permit after another, until the semaphore is closed.
///
/// ```
/// use std::sync::Arc;
/// use std::task::{Context, Poll};
/// use sluicegate::{OwnedSemaphorePermit, PollSemaphore, Semaphore};
///
/// struct Limited {
///     semaphore: PollSemaphore,
///     permit: Option<OwnedSemaphorePermit>,
/// }
///
/// impl Limited {
///     fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
///         if self.permit.is_none() {
///             match self.semaphore.poll_acquire(cx) {
///                 Poll::Ready(permit) => self.permit = permit,
///                 Poll::Pending => return Poll::Pending,
///             }
///         }
///         Poll::Ready(())
///     }
/// }
/// # let semaphore = PollSemaphore::new(Arc::new(Semaphore::new(1)));
/// # let mut limited = Limited { semaphore, permit: None };
/// # let mut cx = Context::from_waker(std::task::Waker::noop());
/// # assert!(limited.poll_ready(&mut cx).is_ready());
/// # assert!(limited.permit.is_some());
/// ```
pub struct PollSemaphore {
    semaphore: Arc<Semaphore>,
    /// Pending since the last poll.
    acquire: Option<AcquireOwned>,
}

impl PollSemaphore {
    /// Wraps a semaphore.
    pub fn new(semaphore: Arc<Semaphore>) -> Self {
        Self { semaphore, acquire: None }
    }

    /// Polls for one permit; `None` if the semaphore is closed.
    ///
    /// If it is pending, the task of the last call is woken when there is more to see.
    pub fn poll_acquire(&mut self, cx: &mut Context<'_>) -> Poll<Option<OwnedSemaphorePermit>> {
        self.poll_acquire_many(cx, 1)
    }

    /// Polls for `permits` permits at once; `None` if the semaphore is closed.
    ///
    /// If the last call was pending and asked for another number, this leaves the wait list and joins
    /// it again at the end.
    pub fn poll_acquire_many(
        &mut self,
        cx: &mut Context<'_>,
        permits: u32,
    ) -> Poll<Option<OwnedSemaphorePermit>> {
        if self.acquire.as_ref().is_some_and(|acquire| acquire.permits() != permits) {
            self.acquire = None;
        }
        let semaphore = &self.semaphore;
        let acquire =
            self.acquire.get_or_insert_with(|| semaphore.clone().acquire_many_owned(permits));
        let acquired = ready!(Pin::new(acquire).poll(cx));
        self.acquire = None;
        Poll::Ready(acquired.ok())
    }

    /// [`Semaphore::available_permits`].
    pub fn available_permits(&self) -> usize {
        self.semaphore.available_permits()
    }

    /// [`Semaphore::add_permits`].
    ///
    /// # Panics
    ///
    /// As that.
    pub fn add_permits(&self, n: usize) {
        self.semaphore.add_permits(n);
    }

    /// [`Semaphore::close`].
    pub fn close(&self) {
        self.semaphore.close();
    }

    /// The semaphore, to share it.
    pub fn clone_inner(&self) -> Arc<Semaphore> {
        self.semaphore.clone()
    }

    /// The semaphore. Leaves the wait list.
    #[must_use]
    pub fn into_inner(self) -> Arc<Semaphore> {
        self.semaphore
    }
}

impl Stream for PollSemaphore {
    type Item = OwnedSemaphorePermit;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_acquire(cx)
    }
}

/// A clone is not in the wait list yet.
impl Clone for PollSemaphore {
    fn clone(&self) -> Self {
        Self::new(self.semaphore.clone())
    }
}

impl fmt::Debug for PollSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollSemaphore").field("semaphore", &self.semaphore).finish()
    }
}

impl AsRef<Semaphore> for PollSemaphore {
    fn as_ref(&self) -> &Semaphore {
        &self.semaphore
    }
}

impl From<Arc<Semaphore>> for PollSemaphore {
    fn from(semaphore: Arc<Semaphore>) -> Self {
        Self::new(semaphore)
    }
}

impl From<PollSemaphore> for Arc<Semaphore> {
    fn from(poll: PollSemaphore) -> Self {
        poll.into_inner()
    }
}
