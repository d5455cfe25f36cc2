//! Bounded-concurrency primitives for ingestion pipelines.

mod error;
mod executor;
mod settled;
mod sync;

pub use error::ConfigError;
pub use executor::{BatchEnd, BatchExecutor, BatchExecutorBuilder, BatchSummary, KeyedExecutor};
pub use settled::{NotAllFulfilled, Panic, Partition, Settled, SettledCounts, SettledError};
