//! A batch for each key, on the core that serves the batcher without keys.

mod batch;
mod builder;
mod handle;
mod lane;
mod lanes;
mod list;
mod recency;
mod send;
mod wait;

pub use self::batch::KeyedBatch;
pub use self::builder::KeyedBuilder;
pub use self::handle::{KeyedBatcher, KeyedSlot};
pub(super) use self::send::KeyedSending;
