use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use super::Semaphore;
use super::error::AcquireError;
use super::permit::{OwnedSemaphorePermit, SemaphorePermit};
use super::place::{COMPLETED, Place};

/// Waits in line for permits; made by [`Semaphore::acquire`] and [`Semaphore::acquire_many`].
///
/// The place in line is taken when it is first polled, with one exception: see
/// [fairness](Semaphore#fairness).
///
/// # Cancel safety
///
/// Dropping it gives up its place, and no other; permits that were granted to it and not yet
/// fetched go to the next in line.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled: `.await` it to get the permit"]
pub struct Acquire<'a> {
    semaphore: &'a Semaphore,
    place: Place,
}

impl<'a> Acquire<'a> {
    #[inline]
    pub(super) fn new(semaphore: &'a Semaphore, permits: u32) -> Self {
        Self { semaphore, place: Place::new(permits) }
    }

    pub(super) fn enqueue(mut self) -> Self {
        self.place.enqueue(&self.semaphore.state);
        self
    }
}

impl<'a> Future for Acquire<'a> {
    type Output = Result<SemaphorePermit<'a>, AcquireError>;

    // The fast path is a tenth slower as a call.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let permits = this.place.need() as usize;
        this.place
            .poll(&this.semaphore.state, cx)
            .map_ok(|()| SemaphorePermit::new(this.semaphore, permits))
    }
}

impl Drop for Acquire<'_> {
    #[inline]
    fn drop(&mut self) {
        self.place.leave(&self.semaphore.state);
    }
}

/// [`Acquire`] for a semaphore in an [`Arc`]; made by [`Semaphore::acquire_owned`] and
/// [`Semaphore::acquire_many_owned`].
///
/// The place in line is taken when it is first polled, with one exception: see
/// [fairness](Semaphore#fairness).
///
/// # Cancel safety
///
/// That of [`Acquire`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled: `.await` it to get the permit"]
pub struct AcquireOwned {
    /// Moves into the permit.
    semaphore: Option<Arc<Semaphore>>,
    place: Place,
}

impl AcquireOwned {
    pub(super) fn new(semaphore: Arc<Semaphore>, permits: u32) -> Self {
        Self { semaphore: Some(semaphore), place: Place::new(permits) }
    }

    pub(super) fn enqueue(mut self) -> Self {
        if let Some(semaphore) = &self.semaphore {
            self.place.enqueue(&semaphore.state);
        }
        self
    }
}

impl Future for AcquireOwned {
    type Output = Result<OwnedSemaphorePermit, AcquireError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let semaphore = this.semaphore.as_ref().expect(COMPLETED);
        this.place.poll(&semaphore.state, cx).map_ok(|()| {
            let semaphore = this.semaphore.take().expect(COMPLETED);
            OwnedSemaphorePermit::new(semaphore, this.place.need() as usize)
        })
    }
}

impl Drop for AcquireOwned {
    fn drop(&mut self) {
        if let Some(semaphore) = &self.semaphore {
            self.place.leave(&semaphore.state);
        }
    }
}
