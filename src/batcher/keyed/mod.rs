//! A batch for each key, on the core that serves the batcher without keys.

mod batch;
mod buffers;
mod handle;
mod lane;
mod many;
mod recency;
mod send;
#[cfg(feature = "sink")]
mod sink;
mod wait;

pub use self::batch::KeyedBatch;
pub(super) use self::buffers::KeyedBuffers;
pub use self::handle::{KeyedBatcher, KeyedSlot};
pub(super) use self::send::KeyedSending;
#[cfg(feature = "sink")]
pub use self::sink::KeyedBatcherSink;
