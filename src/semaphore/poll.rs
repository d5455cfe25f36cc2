use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use futures_core::Stream;

use super::place::Place;
use super::{OwnedSemaphorePermit, Semaphore};

/// A [`Semaphore`] in the form that poll functions need: in `poll_ready` of a `Service`, say.
///
/// It has the methods of `tokio_util::sync::PollSemaphore`, and boxes nothing. Several polls wait
/// in one place, which is kept between them and given up when this is dropped.
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
    place: Place,
}

impl PollSemaphore {
    /// Wraps a semaphore.
    pub fn new(semaphore: Arc<Semaphore>) -> Self {
        Self { semaphore, place: Place::new(1) }
    }

    /// Polls for one permit; `None` if the semaphore is closed.
    ///
    /// If it is pending, the task of the last call is woken when there is more to see.
    pub fn poll_acquire(&mut self, cx: &mut Context<'_>) -> Poll<Option<OwnedSemaphorePermit>> {
        self.poll_acquire_many(cx, 1)
    }

    /// Polls for `permits` permits at once; `None` if the semaphore is closed.
    ///
    /// If the number is another than that of the last call, and that was pending, the place in
    /// line is given up for one at the end.
    pub fn poll_acquire_many(
        &mut self,
        cx: &mut Context<'_>,
        permits: u32,
    ) -> Poll<Option<OwnedSemaphorePermit>> {
        if !self.place.is_under_way() || self.place.need() != permits {
            self.place.leave(&self.semaphore.state);
            self.place = Place::new(permits);
        }
        self.place.poll(&self.semaphore.state, cx).map(|result| {
            result
                .ok()
                .map(|()| OwnedSemaphorePermit::new(self.semaphore.clone(), permits as usize))
        })
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

    /// The semaphore. A place in line is given up.
    #[must_use]
    pub fn into_inner(self) -> Arc<Semaphore> {
        self.semaphore.clone()
    }
}

impl Drop for PollSemaphore {
    fn drop(&mut self) {
        self.place.leave(&self.semaphore.state);
    }
}

impl Stream for PollSemaphore {
    type Item = OwnedSemaphorePermit;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_acquire(cx)
    }
}

/// A clone stands nowhere in line yet.
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
