//! The semaphores, each behind the thinnest possible layer: what `acquire` returns is what the
//! crate's own `acquire` returns, with nothing wrapped around it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One permit at a time, waited for.
pub(crate) trait Contender: Send + Sync + 'static {
    const NAME: &'static str;
    /// What `acquire` gives: a permit, or a `Result` of one that is never an error here.
    type Acquired<'a>: Send
    where
        Self: 'a;

    fn new(permits: usize) -> Self;
    fn acquire(&self) -> impl Future<Output = Self::Acquired<'_>> + Send;
    fn try_acquire(&self) -> Option<impl Sized>;
}

/// Those who can release many permits at once, as the mass release needs it.
pub(crate) trait AddPermits: Contender {
    fn add_permits(&self, permits: usize);
    /// The permit does not go back.
    fn forget(acquired: Self::Acquired<'_>);
}

macro_rules! contender {
    (
        $contender:ident($semaphore:ty) $name:literal,
        acquired: $acquired:ty,
        new: $new:expr,
        acquire: $acquire:expr,
        try_acquire: $try_acquire:expr,
        $(add_permits: $add:expr, forget: $forget:expr,)?
    ) => {
        pub(crate) struct $contender($semaphore);

        impl Contender for $contender {
            const NAME: &'static str = $name;
            type Acquired<'a> = $acquired;

            #[inline]
            fn new(permits: usize) -> Self {
                let new: fn(usize) -> $semaphore = $new;
                Self(new(permits))
            }

            #[inline]
            fn acquire(&self) -> impl Future<Output = Self::Acquired<'_>> + Send {
                by_ref(&self.0, $acquire)
            }

            #[inline]
            fn try_acquire(&self) -> Option<impl Sized> {
                by_ref(&self.0, $try_acquire)
            }
        }

        $(impl AddPermits for $contender {
            fn add_permits(&self, permits: usize) {
                let add: fn(&$semaphore, usize) = $add;
                add(&self.0, permits);
            }

            fn forget(acquired: Self::Acquired<'_>) {
                let forget: fn(Self::Acquired<'_>) = $forget;
                forget(acquired);
            }
        })?
    };
}

/// Lets a closure see what it borrows, so that its argument's type is inferred.
#[inline(always)]
fn by_ref<'a, S, T>(semaphore: &'a S, call: impl FnOnce(&'a S) -> T) -> T {
    call(semaphore)
}

contender! {
    Ours(sluicegate::Semaphore) "ours",
    acquired: Result<sluicegate::SemaphorePermit<'a>, sluicegate::AcquireError>,
    new: sluicegate::Semaphore::new,
    acquire: |semaphore| semaphore.acquire(),
    try_acquire: |semaphore| semaphore.try_acquire().ok(),
    add_permits: |semaphore, permits| semaphore.add_permits(permits),
    forget: |permit| permit.unwrap().forget(),
}

contender! {
    Tokio(tokio::sync::Semaphore) "tokio",
    acquired: Result<tokio::sync::SemaphorePermit<'a>, tokio::sync::AcquireError>,
    new: tokio::sync::Semaphore::new,
    acquire: |semaphore| semaphore.acquire(),
    try_acquire: |semaphore| semaphore.try_acquire().ok(),
    add_permits: |semaphore, permits| semaphore.add_permits(permits),
    forget: |permit| permit.unwrap().forget(),
}

contender! {
    AsyncLock(async_lock::Semaphore) "async-lock",
    acquired: async_lock::SemaphoreGuard<'a>,
    new: async_lock::Semaphore::new,
    acquire: |semaphore| semaphore.acquire(),
    try_acquire: |semaphore| semaphore.try_acquire(),
    add_permits: |semaphore, permits| semaphore.add_permits(permits),
    forget: |permit| permit.forget(),
}

contender! {
    FuturesIntrusive(futures_intrusive::sync::Semaphore) "futures-intrusive",
    acquired: futures_intrusive::sync::SemaphoreReleaser<'a>,
    new: |permits| futures_intrusive::sync::Semaphore::new(true, permits),
    acquire: |semaphore| semaphore.acquire(1),
    try_acquire: |semaphore| semaphore.try_acquire(1),
    add_permits: |semaphore, permits| semaphore.release(permits),
    forget: |mut permit| { permit.disarm(); },
}

contender! {
    Asyncband(asyncband::semaphore::Semaphore) "asyncband",
    acquired: asyncband::semaphore::SemaphorePermit<'a>,
    new: asyncband::semaphore::Semaphore::new,
    acquire: |semaphore| semaphore.acquire(1),
    try_acquire: |semaphore| semaphore.try_acquire(1),
    add_permits: |semaphore, permits| semaphore.release(permits),
    forget: |permit| permit.forget(),
}

contender! {
    Maitake(maitake_sync::Semaphore) "maitake-sync",
    acquired: Result<maitake_sync::semaphore::Permit<'a>, maitake_sync::Closed>,
    new: maitake_sync::Semaphore::new,
    acquire: |semaphore| semaphore.acquire(1),
    try_acquire: |semaphore| semaphore.try_acquire(1).ok(),
    add_permits: |semaphore, permits| semaphore.add_permits(permits),
    forget: |permit| permit.unwrap().forget(),
}

// First come, first served among equals. It takes one permit at a time, and knows no release of
// many.
contender! {
    Priority(Arc<priority_semaphore::PrioritySemaphore>) "priority-semaphore",
    acquired: Result<priority_semaphore::Permit, priority_semaphore::AcquireError>,
    new: |permits| Arc::new(priority_semaphore::PrioritySemaphore::new(permits)),
    acquire: |semaphore| semaphore.acquire(0),
    try_acquire: |semaphore| semaphore.try_acquire(0).ok(),
}

/// The least that any semaphore does: a load and a compare-exchange to take, an addition to give
/// back. It cannot wait, so it has no place where somebody would have to.
pub(crate) struct Floor(AtomicUsize);

pub(crate) struct FloorPermit<'a>(&'a AtomicUsize);

impl Contender for Floor {
    const NAME: &'static str = "two atomics";
    type Acquired<'a> = Option<FloorPermit<'a>>;

    fn new(permits: usize) -> Self {
        Self(AtomicUsize::new(permits))
    }

    #[inline]
    fn acquire(&self) -> impl Future<Output = Self::Acquired<'_>> + Send {
        std::future::poll_fn(|_| std::task::Poll::Ready(self.take()))
    }

    #[inline]
    fn try_acquire(&self) -> Option<impl Sized> {
        self.take()
    }
}

impl Floor {
    #[inline]
    fn take(&self) -> Option<FloorPermit<'_>> {
        let mut permits = self.0.load(Ordering::Relaxed);
        while permits > 0 {
            match self.0.compare_exchange_weak(
                permits,
                permits - 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(FloorPermit(&self.0)),
                Err(actual) => permits = actual,
            }
        }
        None
    }
}

impl Drop for FloorPermit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}
