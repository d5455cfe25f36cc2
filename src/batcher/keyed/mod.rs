//! A batch for each key, on the core that serves the batcher without keys.

mod batch;
mod buffers;
mod builder;
mod handle;
mod lane;
mod many;
mod recency;
mod send;
#[cfg(feature = "sink")]
mod sink;
mod wait;

pub use self::batch::KeyedBatch;
pub use self::builder::KeyedBuilder;
pub use self::handle::{KeyedBatcher, KeyedSlot};
pub(super) use self::send::KeyedSending;
#[cfg(feature = "sink")]
pub use self::sink::KeyedBatcherSink;
