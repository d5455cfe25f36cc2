//! Batches by number and by time, handed to an async handler; nothing accepted is lost unnamed.
//!
//! [`Batcher`] is the handle that takes items, [`Builder`] sets its limits, [`Batch`] is what the
//! handler is given; [`KeyedBatcher`] and [`KeyedBatch`] are the same for a batch per key, which
//! [`Batcher::keyed`] begins. A [`Caller`] sends [`Call`]s: items whose sender waits for an answer. The other types say what
//! happened.

mod batch;
mod buffers;
mod builder;
mod call;
mod capacity;
mod core;
mod driver;
mod driver_buffers;
mod error;
mod failure_state;
mod flush;
mod handle;
mod handler_slot;
mod in_flight;
mod job;
mod keyed;
mod open_batch;
mod report;
#[cfg(feature = "tokio")]
mod runtime;
mod send;
mod shared;
#[cfg(feature = "sink")]
mod sink;
#[cfg(feature = "tokio")]
mod stream;
mod wait;
mod wake;

pub use self::batch::Batch;
pub use self::builder::{Builder, Keyed, Unkeyed};
pub use self::call::{Call, CallError, Caller, KeyedCaller};
pub use self::driver::Driver;
pub use self::error::{BatchError, Closed, HandlerError, SendError, SendManyError, TrySendError};
pub use self::handle::{Batcher, Slot};
#[cfg(feature = "sink")]
pub use self::keyed::KeyedBatcherSink;
pub use self::keyed::{KeyedBatch, KeyedBatcher, KeyedSlot};
pub use self::report::{BatcherStats, BatchesSealed, FlushReport, SealedBy, ShutdownReport};
#[cfg(feature = "sink")]
pub use self::sink::{BatcherSink, SinkError};
#[cfg(feature = "tokio")]
pub use self::stream::{Batched, BatchedExt};
