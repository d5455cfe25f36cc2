//! Bounded-concurrency primitives for ingestion pipelines.

mod error;
pub mod map;
mod semaphore;
mod sync;
mod wake_list;

pub use error::ConfigError;
pub use map::{BoundedArrayMap, FullKey, FullMap, Pushed, RejectReason, SharedBoundedArrayMap};
pub use semaphore::{
    Acquire, AcquireError, AcquireOwned, OwnedSemaphorePermit, Semaphore, SemaphorePermit,
    TryAcquireError,
};
