use core::mem;
use core::ops::Deref;
use std::sync::Arc;

use super::Semaphore;

/// Permits of a [`Semaphore`], returned to it when this is dropped.
///
/// `S` is how it holds the semaphore: see [`SemaphorePermit`] and [`OwnedSemaphorePermit`].
///
/// # Panics
///
/// Dropping it panics if the semaphore would then have more than [`Semaphore::MAX_PERMITS`] permits;
/// none is added then.
#[derive(Debug)]
#[must_use = "dropping a permit returns it at once"]
#[clippy::has_significant_drop]
pub struct Permits<S: Deref<Target = Semaphore>> {
    semaphore: S,
    permits: usize,
}

/// Permits of a borrowed [`Semaphore`].
pub type SemaphorePermit<'a> = Permits<&'a Semaphore>;

/// Permits of a [`Semaphore`] in an [`Arc`].
pub type OwnedSemaphorePermit = Permits<Arc<Semaphore>>;

impl<S: Deref<Target = Semaphore>> Permits<S> {
    #[inline]
    pub(super) fn new(semaphore: S, permits: usize) -> Self {
        Self { semaphore, permits }
    }

    /// Takes the permits out of circulation: they are not returned, and the semaphore's limit is that
    /// much lower.
    pub fn forget(mut self) {
        self.semaphore.core.forget_held(mem::take(&mut self.permits));
    }

    /// Takes the permits of `other` into this one.
    ///
    /// # Panics
    ///
    /// If the two come from different semaphores. `other` is returned then, and this one is as it was.
    #[track_caller]
    pub fn merge(&mut self, mut other: Self) {
        assert!(
            core::ptr::eq(&*self.semaphore, &*other.semaphore),
            "merging permits from different semaphore instances"
        );
        // No more than `usize::MAX` permits of one semaphore are ever in circulation.
        self.permits += mem::take(&mut other.permits);
    }

    /// Splits `n` permits off into a permit of their own; `None` if there are fewer.
    #[must_use = "dropping a permit returns it at once"]
    pub fn split(&mut self, n: usize) -> Option<Self>
    where
        S: Clone,
    {
        self.permits = self.permits.checked_sub(n)?;
        Some(Self::new(self.semaphore.clone(), n))
    }

    /// The number of permits it holds.
    pub fn num_permits(&self) -> usize {
        self.permits
    }
}

impl<'a> SemaphorePermit<'a> {
    /// The semaphore it belongs to.
    pub fn semaphore(&self) -> &'a Semaphore {
        self.semaphore
    }
}

impl OwnedSemaphorePermit {
    /// The semaphore it belongs to.
    pub fn semaphore(&self) -> &Arc<Semaphore> {
        &self.semaphore
    }
}

impl<S: Deref<Target = Semaphore>> Drop for Permits<S> {
    #[inline]
    fn drop(&mut self) {
        if self.permits != 0 {
            self.semaphore.core.release(self.permits);
        }
    }
}
