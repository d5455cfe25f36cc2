//! Which markers the public types have: losing one breaks those who rely on it.

#![cfg(not(loom))]

use std::ops::Range;
use std::panic::{RefUnwindSafe, UnwindSafe};

use sluicegate::executor::{BatchHandle, BatchStream, OfIterator};
use sluicegate::{
    Acquire, AcquireError, AcquireOwned, AcquireTimeoutError, AllSettled, BatchExecutor,
    BatchExecutorBuilder, BatchSummary, BoundedArrayMap, ConfigError, OwnedSemaphorePermit,
    PollSemaphore, Retry, Semaphore, SemaphorePermit, SemaphoreStats, Settled,
    ShardedBoundedArrayMap, SharedBoundedArrayMap, StopToken, TryAcquireError,
};

fn shared<T: Send + Sync + Unpin>() {}
fn unwinds<T: UnwindSafe + RefUnwindSafe>() {}
fn is_an_error<T: std::error::Error + Send + Sync + 'static>() {}

#[test]
fn everything_crosses_threads() {
    shared::<Semaphore>();
    shared::<Acquire<'_>>();
    shared::<AcquireOwned>();
    shared::<SemaphorePermit<'_>>();
    shared::<OwnedSemaphorePermit>();
    shared::<PollSemaphore>();
    shared::<SemaphoreStats>();
    shared::<BoundedArrayMap<u64, u64, u64>>();
    shared::<SharedBoundedArrayMap<u64, u64, u64>>();
    shared::<ShardedBoundedArrayMap<u64, u64>>();
    shared::<BatchExecutor>();
    shared::<BatchExecutorBuilder>();
    shared::<BatchSummary>();
    shared::<AllSettled<u64, u64>>();
    shared::<BatchHandle<OfIterator<Range<u64>>, u64, u64>>();
    shared::<BatchStream<OfIterator<Range<u64>>, u64, u64>>();
    shared::<StopToken>();
    shared::<Settled<u64, u64>>();
    shared::<Retry>();
    #[cfg(feature = "tokio")]
    {
        shared::<sluicegate::Batcher<u64>>();
        shared::<sluicegate::Batch<u64>>();
    }
}

#[test]
fn the_semaphore_survives_a_panic() {
    unwinds::<Semaphore>();
    unwinds::<SemaphorePermit<'_>>();
    unwinds::<OwnedSemaphorePermit>();
    unwinds::<Acquire<'_>>();
    unwinds::<AcquireOwned>();
}

#[test]
fn the_maps_survive_a_panic() {
    unwinds::<BoundedArrayMap<u64, u64, u64>>();
    unwinds::<SharedBoundedArrayMap<u64, u64, u64>>();
    unwinds::<ShardedBoundedArrayMap<u64, u64>>();
    let map = SharedBoundedArrayMap::new(1, 1).unwrap();
    assert!(std::panic::catch_unwind(|| map.push("a", 1).is_stored()).is_ok());
}

#[test]
fn errors_are_errors() {
    is_an_error::<AcquireError>();
    is_an_error::<TryAcquireError>();
    is_an_error::<AcquireTimeoutError>();
    is_an_error::<ConfigError>();
}
