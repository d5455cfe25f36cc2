//! How many users are created at once: with the semaphore, or as the service first had it.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use sluicegate::Semaphore;
use tokio::time::Instant;

/// Lets so many through at once.
#[derive(Debug)]
pub struct Gate {
    kind: Kind,
    waiting: AtomicUsize,
    peak_waiting: AtomicUsize,
    longest_wait_us: AtomicU64,
}

#[derive(Debug)]
enum Kind {
    /// First come, first served: a returned permit wakes the first waiter.
    Fair(Semaphore),
    /// Each waiter sleeps and looks again: which one gets a free permit is a matter of chance.
    BusyWait { active: AtomicUsize, permits: usize },
}

/// How long the busy wait sleeps between two looks.
const NAP: Duration = Duration::from_millis(10);

impl Gate {
    /// A gate that lets `permits` through at once, first come, first served.
    pub fn fair(permits: usize) -> Self {
        Self::new(Kind::Fair(Semaphore::new(permits)))
    }

    /// The same with a busy wait, to compare.
    pub fn busy_wait(permits: usize) -> Self {
        Self::new(Kind::BusyWait { active: AtomicUsize::new(0), permits })
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            waiting: AtomicUsize::new(0),
            peak_waiting: AtomicUsize::new(0),
            longest_wait_us: AtomicU64::new(0),
        }
    }

    /// Waits for a place and does `work` in it.
    pub async fn pass<F: Future>(&self, work: F) -> F::Output {
        let waiting = Held::new(&self.waiting);
        self.peak_waiting.fetch_max(waiting.now, Ordering::Relaxed);
        let since = Instant::now();
        let entered = || {
            drop(waiting);
            let waited = since.elapsed().as_micros().try_into().unwrap_or(u64::MAX);
            self.longest_wait_us.fetch_max(waited, Ordering::Relaxed);
        };
        match &self.kind {
            Kind::Fair(semaphore) => {
                let _permit = semaphore.acquire().await.expect("it is never closed");
                entered();
                work.await
            }
            Kind::BusyWait { active, permits } => {
                while active.load(Ordering::Relaxed) >= *permits {
                    tokio::time::sleep(NAP).await;
                }
                let _place = Held::new(active);
                entered();
                work.await
            }
        }
    }

    /// How many wait for a place.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The most that ever waited at once.
    pub fn peak_waiting(&self) -> usize {
        self.peak_waiting.load(Ordering::Relaxed)
    }

    /// The longest wait.
    pub fn longest_wait(&self) -> Duration {
        Duration::from_micros(self.longest_wait_us.load(Ordering::Relaxed))
    }
}

/// One more in a count, for as long as it lives.
struct Held<'a> {
    count: &'a AtomicUsize,
    now: usize,
}

impl<'a> Held<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        Self { count, now: count.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
