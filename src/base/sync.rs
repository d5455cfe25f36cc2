//! The one file that knows which locks, atomics and threads are in use: `parking_lot` and `std`
//! normally, `loom`'s doubles under `--cfg loom`, so that what the models check is what ships.

#[cfg(not(loom))]
mod real {
    pub(crate) use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    pub(crate) type HashBuilder = hashbrown::DefaultHashBuilder;
    pub(crate) use parking_lot::{Mutex, MutexGuard};
    pub(crate) use std::{thread, thread_local};

    /// Locks a mutex that is held for a few dozen instructions at a time.
    ///
    /// Before it goes to sleep it looks a few times, at lengthening intervals: two threads that
    /// take turns at every single lock pay for a cache line each time, while one that steps back
    /// for a moment lets the other get through much.
    #[inline]
    pub(crate) fn lock_briefly<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        match mutex.try_lock() {
            Some(guard) => guard,
            None => lock_contended(mutex),
        }
    }

    #[cold]
    fn lock_contended<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        const LOOKS: u32 = 7;
        const SHORTEST: u32 = 16;
        for look in 0..LOOKS {
            for _ in 0..SHORTEST << look {
                core::hint::spin_loop();
            }
            if let Some(guard) = mutex.try_lock() {
                return guard;
            }
        }
        mutex.lock()
    }
}

#[cfg(loom)]
mod modelled {
    pub(crate) use loom::sync::MutexGuard;
    pub(crate) use loom::sync::atomic::Ordering;
    pub(crate) use loom::{lazy_static, thread, thread_local};
    use std::sync::TryLockError;

    /// `loom`'s atomics, with loads that can be raced with.
    ///
    /// When a thread writes, `loom` looks for a race with the last access alone. If that was a
    /// load of its own, as before a compare-exchange, it hides the load of another thread before
    /// it, and interleavings are left out (tokio-rs/loom#166, #392). So each load first touches a
    /// probe, in a way that is a race with other loads and orders nothing.
    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            #[derive(Debug)]
            pub(crate) struct $name {
                value: loom::sync::atomic::$name,
                probe: loom::sync::atomic::AtomicBool,
            }

            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    let value = loom::sync::atomic::$name::new(value);
                    Self { value, probe: loom::sync::atomic::AtomicBool::new(false) }
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    self.probe.swap(true, Ordering::Relaxed);
                    self.value.load(order)
                }

                /// As `std`'s. `loom`'s own has a load inside that no other thread can race with.
                #[allow(dead_code, reason = "for the word of the semaphore")]
                pub(crate) fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    mut step: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    let mut before = self.load(fetch);
                    while let Some(next) = step(before) {
                        match self.value.compare_exchange_weak(before, next, set, fetch) {
                            Ok(before) => return Ok(before),
                            Err(actual) => before = actual,
                        }
                    }
                    Err(before)
                }
            }

            impl core::ops::Deref for $name {
                type Target = loom::sync::atomic::$name;

                fn deref(&self) -> &Self::Target {
                    &self.value
                }
            }
        };
    }

    atomic!(AtomicU64, u64);
    atomic!(AtomicUsize, usize);

    /// The same in each run of a model, which must take the same way as the one that it repeats.
    pub(crate) type HashBuilder = core::hash::BuildHasherDefault<std::hash::DefaultHasher>;

    /// `loom`'s mutex with `parking_lot`'s signatures: a lock is never poisoned.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            match self.0.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            }
        }

        pub(crate) fn into_inner(self) -> T {
            self.0.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
        }
    }

    pub(crate) fn lock_briefly<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock()
    }
}

#[cfg(loom)]
pub(crate) use modelled::*;
#[cfg(not(loom))]
pub(crate) use real::*;
