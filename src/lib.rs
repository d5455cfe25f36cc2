//! Bounded-concurrency primitives for ingestion pipelines.

mod error;
mod sync;

pub use error::ConfigError;
