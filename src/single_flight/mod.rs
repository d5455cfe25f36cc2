//! Concurrent calls for one key share one run and its outcome.

mod call;
mod core;
mod error;
mod stats;

use ::core::fmt;
use ::core::future::Future;
use ::core::hash::{BuildHasher, Hash};
use ::core::pin::Pin;
use ::core::task::{Context, Poll, Waker};
use std::sync::{Arc, Weak};
use std::task::Wake;

pub use self::call::Call;
pub use self::error::RunPanicked;
pub use self::stats::SingleFlightStats;

use self::core::{Core, Due};
use crate::base::config::ConfigError;
use crate::base::sync::{HashBuilder, Mutex, lock_briefly};
use crate::base::wake::WakeList;

/// Lets concurrent calls for one key share one run, and hands its value to all of them.
///
/// Ten workers that need the same user at once look it up once. The value is not kept: a call that comes
/// after the run has ended begins another. So it is no cache, but what stands in front of one.
///
/// # The run
///
/// The function of the call that comes first begins the run; those of the others are dropped with their
/// calls. A run belongs to all its callers: whichever of them is polled drives it, so that it goes on if
/// the one that began it leaves, or is kept and not polled. It is dropped as the last caller leaves. As it
/// may outlive the call that began it, it borrows nothing (`'static`).
///
/// For runs that may fail, `V` is a `Result` whose error can be cloned: an `Arc` of one, say. A panic is an
/// outcome too: all callers get [`RunPanicked`].
///
/// A run must not wait for a call for its own key: it would wait for itself.
///
/// # Bounds
///
/// There are at most `max_keys` runs. A call for another key waits until one of them has ended, and other
/// calls for that key with it; keys are served first come, first served. What waits is in the memory of its
/// callers' tasks: each call adds a waker, each key that waits itself.
///
/// # What runs under the lock
///
/// `Eq` of keys, which must not use the same `SingleFlight`. No function, future, waker or destructor does.
///
/// # When not to use it
///
/// For what differs from call to call, such as a write: all but one of them would not happen.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use sluicegate::SingleFlight;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let lookups = Arc::new(AtomicU32::new(0));
/// let users = SingleFlight::new(100)?;
/// let look_up = |name: &'static str| {
///     let lookups = Arc::clone(&lookups);
///     users.run(name, move || async move {
///         lookups.fetch_add(1, Ordering::Relaxed);
///         tokio::task::yield_now().await;
///         format!("the user {name}")
///     })
/// };
/// let (ann, again, bob) = tokio::join!(look_up("ann"), look_up("ann"), look_up("bob"));
/// assert_eq!([ann?, again?, bob?], ["the user ann", "the user ann", "the user bob"]);
/// assert_eq!(lookups.load(Ordering::Relaxed), 2);
/// # Ok(())
/// # }
/// ```
pub struct SingleFlight<K, V> {
    shared: Arc<Shared<K, V>>,
}

impl<K, V> SingleFlight<K, V> {
    /// At most `max_keys` runs at a time. No memory is reserved for them.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] unless `max_keys` is at least 1 and less than 2^32 − 1.
    pub fn new(max_keys: usize) -> Result<Self, ConfigError> {
        if max_keys == 0 || max_keys >= u32::MAX as usize {
            let expected = "at least 1 and less than 4294967295";
            return Err(ConfigError::new("max_keys", max_keys, expected));
        }
        let core = Mutex::new(Core::new(max_keys));
        Ok(Self { shared: Arc::new(Shared { core, hasher: HashBuilder::default() }) })
    }

    /// Waits for the run of `key`, which `function` begins if there is none, and returns its value.
    ///
    /// It joins the run when it is first polled.
    ///
    /// # Errors
    ///
    /// [`RunPanicked`] if `function` or the run panics.
    ///
    /// # Panics
    ///
    /// If `Hash` or `Eq` of a key does, or `Clone` of the value, which only this call notices.
    ///
    /// # Cancel safety
    ///
    /// Dropping it leaves the run to its other callers, and drops the run if there are none.
    ///
    /// # Complexity
    ///
    /// O(1) for a call, and O(callers of the key) each time that its run is woken: all of them are, as any
    /// may be one that is not polled.
    pub fn run<F, R>(&self, key: K, function: F) -> Call<'_, K, V, F>
    where
        K: Hash + Eq + Send + 'static,
        V: Clone + Send + Sync + 'static,
        F: FnOnce() -> R,
        R: Future<Output = V> + Send + 'static,
    {
        Call::new(self, key, function)
    }

    /// What became of calls and runs. O(keys).
    #[must_use]
    pub fn stats(&self) -> SingleFlightStats {
        self.shared.read(|core| core.stats())
    }

    /// Panics unless its structures agree: for tests. O(keys + callers).
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub fn validate(&self) {
        self.shared.read(|core| core.validate());
    }
}

/// A handle of the same.
impl<K, V> Clone for SingleFlight<K, V> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K, V> fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SingleFlight").field(&self.stats()).finish()
    }
}

type RunFuture<V> = Pin<Box<dyn Future<Output = V> + Send>>;

/// A run that has begun, between two polls.
struct Running<V> {
    future: RunFuture<V>,
    /// Wakes all its callers.
    waker: Waker,
}

impl<V> Running<V> {
    fn poll(&mut self) -> Poll<V> {
        self.future.as_mut().poll(&mut Context::from_waker(&self.waker))
    }
}

struct Shared<K, V> {
    core: Mutex<Core<K, V>>,
    hasher: HashBuilder,
}

impl<K, V> Shared<K, V> {
    fn hash(&self, key: &Option<K>) -> u64
    where
        K: Hash,
    {
        key.as_ref().map_or(0, |key| self.hasher.hash_one(key))
    }

    fn read<T>(&self, step: impl FnOnce(&mut Core<K, V>) -> T) -> T {
        step(&mut lock_briefly(&self.core))
    }

    /// Wakes the callers of these runs, some at a time.
    fn wake(&self, due: Due) {
        let mut wakes = WakeList::new();
        for run in due.into_iter().flatten() {
            let mut from = Some(0);
            while let Some(first) = from {
                from = self.read(|core| core.take_wakers(run, first, &mut wakes));
                wakes.wake_all();
            }
        }
        wakes.finish();
    }
}

impl<K: Send + 'static, V: Send + Sync + 'static> Shared<K, V> {
    /// For the runs in a slot.
    fn waker_of(shared: &Arc<Self>, slot: u32) -> Waker {
        Waker::from(Arc::new(RunWaker { shared: Arc::downgrade(shared), slot }))
    }
}

/// It is kept for the next run in its slot, within what it wakes: so it does not keep that alive.
struct RunWaker<K, V> {
    shared: Weak<Shared<K, V>>,
    slot: u32,
}

impl<K: Send, V: Send + Sync> Wake for RunWaker<K, V> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let due = shared.read(|core| core.wake(self.slot));
        shared.wake(due);
    }
}
