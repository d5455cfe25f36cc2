//! Batches by number and by time, handed to an async handler; nothing accepted is lost unnamed.
//!
//! [`Batcher`] is the handle that takes items, [`Builder`] sets its limits, [`Batch`] is what the
//! handler is given; [`KeyedBatcher`], [`KeyedBuilder`] and [`KeyedBatch`] are the same for a batch
//! by key. A [`Call`] is an item whose sender waits for an answer. The other types say what happened.

mod barrier;
mod batch;
mod builder;
mod call;
mod core;
mod driver;
mod error;
mod flight;
mod handle;
mod keyed;
mod lanes;
mod open;
mod place;
mod report;
mod room;
mod send;
mod setback;
mod shared;
#[cfg(feature = "sink")]
mod sink;
mod spare;
#[cfg(feature = "tokio")]
mod stream;
#[cfg(feature = "tokio")]
mod timer;
mod wait;
mod wake;

#[cfg(loom)]
#[doc(hidden)]
pub mod model;

pub use self::batch::Batch;
pub use self::builder::Builder;
pub use self::call::{Call, CallError};
pub use self::driver::Driver;
pub use self::error::{BatchError, Closed, HandlerError, SendError, SendManyError, TrySendError};
pub use self::handle::{Batcher, Slot};
pub use self::keyed::{KeyedBatch, KeyedBatcher, KeyedBuilder, KeyedSlot};
pub use self::report::{BatchesClosed, ClosedBy, FlushReport, ShutdownReport, Stats};
#[cfg(feature = "sink")]
pub use self::sink::{BatcherSink, SinkError};
#[cfg(feature = "tokio")]
pub use self::stream::{Batched, BatchedExt};
