//! Bounded-concurrency primitives for ingestion pipelines.

#[cfg(any(feature = "tokio", loom))]
pub mod batcher;
mod error;
mod retry;
mod semaphore;
mod sync;
mod wake_list;

#[cfg(any(feature = "tokio", loom))]
pub use batcher::Batcher;
pub use error::ConfigError;
pub use retry::{Delays, Retry};
pub use semaphore::{
    Acquire, AcquireError, AcquireOwned, OwnedSemaphorePermit, Semaphore, SemaphorePermit,
    TryAcquireError,
};
