use core::mem;
use std::sync::Arc;

use super::Semaphore;

/// Writes what the borrowing and the owning permit share; they differ in how they hold the
/// semaphore.
macro_rules! permit {
    ($(#[$doc:meta])* $name:ident $(<$life:lifetime>)?, $holder:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[must_use = "dropping a permit gives it back at once"]
        #[clippy::has_significant_drop]
        pub struct $name $(<$life>)? {
            semaphore: $holder,
            permits: usize,
        }

        impl $(<$life>)? $name $(<$life>)? {
            #[inline]
            pub(super) fn new(semaphore: $holder, permits: usize) -> Self {
                Self { semaphore, permits }
            }

            /// Takes the permits out of circulation: they do not go back, and the semaphore's
            /// limit is that much lower.
            pub fn forget(mut self) {
                self.semaphore.state.forget_held(mem::take(&mut self.permits));
            }

            /// Takes the permits of `other` into this one.
            ///
            /// # Panics
            ///
            /// If the two come from different semaphores. `other` is given back then, and this one
            /// is as it was.
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
            #[must_use = "dropping a permit gives it back at once"]
            pub fn split(&mut self, n: usize) -> Option<Self> {
                self.permits = self.permits.checked_sub(n)?;
                Some(Self::new(Clone::clone(&self.semaphore), n))
            }

            /// How many permits it holds.
            pub fn num_permits(&self) -> usize {
                self.permits
            }
        }

        impl $(<$life>)? Drop for $name $(<$life>)? {
            #[inline]
            fn drop(&mut self) {
                if self.permits != 0 {
                    self.semaphore.state.release(self.permits);
                }
            }
        }
    };
}

permit! {
    /// Permits of a [`Semaphore`], given back when this is dropped.
    ///
    /// # Panics
    ///
    /// Dropping it panics if the semaphore would then have more than
    /// [`Semaphore::MAX_PERMITS`] permits; none is added then.
    SemaphorePermit<'a>, &'a Semaphore
}

permit! {
    /// Permits of a [`Semaphore`] in an [`Arc`], given back when this is dropped.
    ///
    /// # Panics
    ///
    /// As [`SemaphorePermit`].
    OwnedSemaphorePermit, Arc<Semaphore>
}

impl<'a> SemaphorePermit<'a> {
    /// The semaphore that it belongs to.
    pub fn semaphore(&self) -> &'a Semaphore {
        self.semaphore
    }
}

impl OwnedSemaphorePermit {
    /// The semaphore that it belongs to.
    pub fn semaphore(&self) -> &Arc<Semaphore> {
        &self.semaphore
    }
}
