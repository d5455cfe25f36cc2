//! The batcher's promises, each by name, with the clock paused.

#![cfg(feature = "tokio")]

mod coop;
mod flow;
mod limits;
mod losses;
mod order;
mod poison;
mod retries;
mod sharing;
#[cfg(feature = "sink")]
mod sink;
mod waits;
mod weights;
mod windows;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate::batcher::{Batch, BatchError, Batcher, Builder, SealedBy};
use tokio::time::Instant;

/// One call of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    at: u64,
    items: Vec<u32>,
    attempt: u32,
    sealed_by: SealedBy,
}

/// What came to the dead letter, and why.
type Buried = (Vec<u32>, String);

/// What happened, in order, with the milliseconds since the test began.
#[derive(Clone)]
struct Log {
    began: Instant,
    calls: Arc<Mutex<Vec<Call>>>,
    buried: Arc<Mutex<Vec<Buried>>>,
}

impl Log {
    fn new() -> Self {
        Self { began: Instant::now(), calls: Arc::default(), buried: Arc::default() }
    }

    fn builder(&self) -> Builder<u32> {
        let buried = self.buried.clone();
        Batcher::builder().dead_letter(move |items, why: BatchError| {
            buried.lock().unwrap().push((items, why.to_string()));
        })
    }

    fn ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn note(&self, batch: &Batch<u32>) {
        let call = Call {
            at: self.ms(),
            items: batch.as_slice().to_vec(),
            attempt: batch.attempt(),
            sealed_by: batch.sealed_by(),
        };
        self.calls.lock().unwrap().push(call);
    }

    /// A handler that notes what it is given, takes `ms` over it, and succeeds.
    fn handler(&self, ms: u64) -> impl Fn(Batch<u32>) -> BoxFuture + Send + Sync + use<> {
        let log = self.clone();
        move |batch| {
            log.note(&batch);
            Box::pin(async move {
                if ms > 0 {
                    tokio::time::sleep(millis(ms)).await;
                }
                drop(batch);
                Ok(())
            })
        }
    }

    /// When each batch began, and what was in it.
    fn batches(&self) -> Vec<(u64, Vec<u32>)> {
        self.calls.lock().unwrap().iter().map(|call| (call.at, call.items.clone())).collect()
    }

    fn buried(&self) -> Vec<Buried> {
        self.buried.lock().unwrap().clone()
    }
}

type BoxFuture = std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Runs a test with the clock paused. Where all wait for each other the clock runs on, to its end.
fn paused(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    runtime.block_on(async { tokio::time::timeout(day, test).await }).expect("it hangs");
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Moves the clock, a millisecond at a time, so that nothing rings late.
async fn pass(ms: u64) {
    // What was woken before runs first.
    tokio::task::yield_now().await;
    for _ in 0..ms {
        tokio::time::advance(millis(1)).await;
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
}

#[track_caller]
fn conserved(batcher: &Batcher<u32>) {
    let stats = batcher.stats();
    assert_eq!(
        stats.accepted,
        stats.delivered + stats.failed + stats.unsent + stats.indeterminate + stats.pending,
        "{stats:?}"
    );
    assert!(stats.pending <= batcher.capacity() as u64, "{stats:?}");
    assert!(stats.peak_pending <= batcher.capacity() as u64, "{stats:?}");
}
