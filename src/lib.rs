//! Bounded-concurrency primitives for ingestion pipelines.

#[cfg(any(feature = "tokio", loom))]
pub mod batcher;
mod error;
mod executor;
pub mod map;
mod retry;
mod semaphore;
mod settled;
mod sync;
mod wake_list;

#[cfg(any(feature = "tokio", loom))]
pub use batcher::Batcher;
pub use error::ConfigError;
pub use executor::{BatchEnd, BatchExecutor, BatchExecutorBuilder, BatchSummary, KeyedExecutor};
pub use map::{BoundedArrayMap, FullKey, FullMap, Pushed, RejectReason, SharedBoundedArrayMap};
pub use retry::{Delays, Retry};
pub use semaphore::{
    Acquire, AcquireError, AcquireOwned, AcquireTimeoutError, OwnedSemaphorePermit, PollSemaphore,
    Semaphore, SemaphorePermit, SemaphoreStats, TryAcquireError, WaitTimes,
};
pub use settled::{NotAllFulfilled, Panic, Partition, Settled, SettledCounts, SettledError};
