//! Which markers the public types have: losing one breaks those who rely on it.

use std::ops::Range;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use sluicegate::executor::{BatchHandle, BatchStream, IterInputs};
use sluicegate::queue::Pushed;
use sluicegate::{
    Acquire, AcquireError, AcquireOwned, AcquireTimeoutError, AllSettled, BatchExecutor,
    BatchExecutorBuilder, BatchSummary, BoundedArrayMap, ConfigError, KeyedThrottle, OverflowQueue,
    OwnedSemaphorePermit, PollSemaphore, Retry, RetryBudget, RetryError, RetryWhen, Semaphore,
    SemaphorePermit, SemaphoreStats, Settled, ShardedBoundedArrayMap, SharedBoundedArrayMap,
    StopToken, Throttle, TryAcquireError, throttle,
};

fn shared<T: Send + Sync + Unpin>() {}
fn sent<T: Send + Unpin>() {}
fn crosses_threads<T: Send + Sync>(_: T) {}
fn unwinds<T: UnwindSafe + RefUnwindSafe>() {}
fn seen_after_a_panic<T: RefUnwindSafe>() {}
fn is_an_error<T: std::error::Error + Send + Sync + 'static>() {}

#[test]
fn everything_crosses_threads() {
    shared::<Semaphore>();
    shared::<Acquire<&Semaphore>>();
    shared::<AcquireOwned>();
    shared::<SemaphorePermit<'_>>();
    shared::<OwnedSemaphorePermit>();
    shared::<PollSemaphore>();
    shared::<SemaphoreStats>();
    shared::<BoundedArrayMap<u64, u64, u64>>();
    shared::<SharedBoundedArrayMap<u64, u64, u64>>();
    shared::<ShardedBoundedArrayMap<u64, u64>>();
    shared::<OverflowQueue<u64>>();
    shared::<sluicegate::queue::Push<'_, u64>>();
    shared::<sluicegate::queue::Pop<'_, u64>>();
    shared::<sluicegate::queue::Items<&OverflowQueue<u64>, u64>>();
    shared::<sluicegate::queue::Items<Arc<OverflowQueue<u64>>, u64>>();
    shared::<sluicegate::queue::PopManyInto<'_, u64>>();
    crosses_threads(OverflowQueue::<u64>::new(1).unwrap().pop_many(1));
    shared::<sluicegate::queue::Pushed<u64>>();
    shared::<sluicegate::queue::Displaced<u64>>();
    shared::<sluicegate::queue::Drained<u64>>();
    shared::<sluicegate::queue::Builder<u64>>();
    #[cfg(feature = "sink")]
    shared::<sluicegate::queue::PushSink<&OverflowQueue<u64>, u64, fn(Pushed<u64>)>>();
    shared::<BatchExecutor>();
    shared::<BatchExecutorBuilder>();
    shared::<BatchSummary>();
    shared::<AllSettled<u64, u64>>();
    shared::<BatchHandle<IterInputs<Range<u64>>, u64, u64>>();
    shared::<BatchStream<IterInputs<Range<u64>>, u64, u64>>();
    shared::<StopToken>();
    shared::<Settled<u64, u64>>();
    shared::<Retry>();
    shared::<RetryWhen<u64>>();
    shared::<RetryBudget>();
    // They hold the caller's iterator, which need not be `Sync`.
    sent::<sluicegate::Delays>();
    sent::<sluicegate::retry::RetryState>();
    shared::<Throttle>();
    shared::<KeyedThrottle<u64>>();
    shared::<throttle::Waiter<&Throttle>>();
    #[cfg(feature = "tokio")]
    {
        shared::<throttle::Acquire<std::sync::Arc<Throttle>>>();
        shared::<sluicegate::Batcher<u64>>();
        shared::<sluicegate::Batch<u64>>();
        shared::<sluicegate::KeyedBatcher<u64, u64>>();
        shared::<sluicegate::KeyedBatch<u64, u64>>();
        shared::<sluicegate::batcher::Call<u64, u64>>();
        shared::<sluicegate::batcher::Caller<u64, u64>>();
        shared::<sluicegate::batcher::KeyedCaller<u64, u64, u64>>();
        shared::<sluicegate::batcher::Slot<'_, u64>>();
        shared::<sluicegate::batcher::KeyedSlot<'_, u64, u64>>();
        #[cfg(feature = "sink")]
        {
            shared::<sluicegate::batcher::BatcherSink<u64>>();
            shared::<sluicegate::batcher::KeyedBatcherSink<u64, u64>>();
            is_an_error::<sluicegate::batcher::SinkError<(u64, u64)>>();
        }
    }
}

#[test]
fn the_semaphore_survives_a_panic() {
    unwinds::<Semaphore>();
    unwinds::<SemaphorePermit<'_>>();
    unwinds::<OwnedSemaphorePermit>();
    unwinds::<Acquire<&Semaphore>>();
    unwinds::<AcquireOwned>();
    unwinds::<PollSemaphore>();
    unwinds::<SemaphoreStats>();
}

#[test]
fn the_queue_survives_a_panic() {
    unwinds::<OverflowQueue<u64>>();
    unwinds::<sluicegate::queue::Builder<u64>>();
    unwinds::<sluicegate::queue::Push<'_, u64>>();
    unwinds::<sluicegate::queue::Pop<'_, u64>>();
    // The vector is the caller's, by `&mut`.
    seen_after_a_panic::<sluicegate::queue::PopManyInto<'_, u64>>();
    unwinds::<sluicegate::queue::Items<&OverflowQueue<u64>, u64>>();
    unwinds::<sluicegate::queue::Items<Arc<OverflowQueue<u64>>, u64>>();
    #[cfg(feature = "sink")]
    unwinds::<sluicegate::queue::PushSink<&OverflowQueue<u64>, u64, fn(Pushed<u64>)>>();
    unwinds::<Pushed<u64>>();
    unwinds::<sluicegate::queue::Drained<u64>>();
}

#[test]
fn retry_survives_a_panic() {
    unwinds::<Retry>();
    unwinds::<RetryWhen<u64>>();
    unwinds::<RetryWhen<std::io::Error>>();
    unwinds::<RetryBudget>();
    unwinds::<RetryError<u64>>();
    unwinds::<sluicegate::retry::Retried<u64>>();
    let retry = Retry::with_backoff(2, || -> std::iter::Empty<_> { panic!("no waits") }).unwrap();
    let caught = std::panic::catch_unwind(|| retry.next_wait::<()>(&mut Default::default()));
    assert!(caught.is_err());
    assert_eq!(retry.max_attempts(), 2);
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
    is_an_error::<sluicegate::queue::Rejected<u64>>();
    is_an_error::<sluicegate::queue::TryPopError>();
    is_an_error::<sluicegate::queue::Closed>();
    is_an_error::<RetryError<std::fmt::Error>>();
    is_an_error::<throttle::TooMany>();
    is_an_error::<throttle::ReserveError>();
    is_an_error::<throttle::TryAcquireError>();
    is_an_error::<throttle::KeysBusy>();
    is_an_error::<throttle::KeyedError<throttle::TooMany>>();
}
