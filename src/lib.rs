//! Bounded-concurrency primitives for ingestion pipelines.

mod error;
pub mod map;
mod sync;

pub use error::ConfigError;
pub use map::{BoundedArrayMap, FullKey, FullMap, Pushed, RejectReason, SharedBoundedArrayMap};
