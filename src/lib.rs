//! Bounded-concurrency primitives for ingestion pipelines.

mod error;
mod semaphore;
mod sync;
mod wake_list;

pub use error::ConfigError;
pub use semaphore::{
    Acquire, AcquireError, AcquireOwned, OwnedSemaphorePermit, Semaphore, SemaphorePermit,
    TryAcquireError,
};
