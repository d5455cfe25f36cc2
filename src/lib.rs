//! Bounded-concurrency primitives for ingestion pipelines.
//!
//! > **Everything that enters leaves exactly once, every structure has a bound, every wait is in
//! > line.**
//!
//! A permit is given back exactly once. An item pushed into a map or a batcher is handed out, handed
//! back, or handed to a callback for what could not be delivered, never dropped in silence. An
//! input pulled by the executor ends in exactly one outcome.
//!
//! | primitive | what for | instead of |
//! | --- | --- | --- |
//! | [`Semaphore`] | at most so many at once | `while active >= max { sleep }` |
//! | [`BoundedArrayMap`], [`SharedBoundedArrayMap`], [`ShardedBoundedArrayMap`] | items that wait under a key for something that has not arrived | a map of arrays that grows |
//! | [`OverflowQueue`] | a queue in front of workers whose source may not wait | a channel that drops in silence |
//! | `Batcher` (feature `tokio`) | many small writes as few large ones, within a window of time | a loop around a channel and a timer |
//! | `KeyedBatcher` (feature `tokio`) | the same for a batch by room, table or partition, with a bound on how many | a map of buffers that grows |
//! | [`BatchExecutor`] | many fallible things, a bounded number at once, every outcome kept | unbounded `join_all`, streams that stall |
//! | [`Phases`] | the same few named steps for many items | a list of futures a step |
//! | [`OffsetTracker`] | "done up to here", while work finishes in any order | a set of incomplete offsets under a mutex |
//! | [`SingleFlight`] | one run for all that ask for the same key at once | the same look-up ten times |
//! | [`Retry`], [`RetryBudget`] | attempts that wait in between, and not for ever | a loop around a sleep |
//! | [`Throttle`], [`KeyedThrottle`] | at most so many starts in a time | a counter that is reset each minute |
//!
//! # Features
//!
//! `tokio`, on by default, adds what needs timers or tasks: the batcher, and the time limits of the
//! others. Without it nothing here knows a runtime. `sink` adds `Sink`s for handles. `tracing` tells
//! of phases as they begin and end. `full` is everything there is.
//!
//! # How the house is built
//!
//! Dependencies run downwards only. On the ground floor one file knows which locks and atomics are
//! in use, so that `loom` can put its own in their place. Above it stand the cores: state machines
//! that know no runtime and take the time as an argument; property tests and models of every
//! interleaving run these. On top are thin drivers, in which alone there are timers and tasks. No
//! caller's code runs under a lock: wakers, destructors and callbacks wait until it is released.

#![cfg_attr(docsrs, feature(doc_cfg))]
// The docs also name what only the features add.
#![cfg_attr(not(feature = "tokio"), allow(rustdoc::broken_intra_doc_links))]

mod base;
#[cfg(any(feature = "tokio", loom))]
pub mod batcher;
pub mod executor;
pub mod map;
pub mod offsets;
pub mod phases;
pub mod queue;
pub mod retry;
mod semaphore;
mod settled;
pub mod single_flight;
pub mod throttle;

pub use base::config::ConfigError;
pub use base::panic::Panic;
#[cfg(any(feature = "tokio", loom))]
pub use batcher::{Batch, Batcher, KeyedBatch, KeyedBatcher};
pub use executor::{
    AllSettled, BatchEnd, BatchEvent, BatchExecutor, BatchExecutorBuilder, BatchSummary,
    ItemReport, Stop, StopToken,
};
pub use map::{
    BoundedArrayMap, FullKey, FullMap, Pushed, RejectReason, ShardedBoundedArrayMap,
    SharedBoundedArrayMap,
};
pub use offsets::{Ack, Acked, OffsetTracker};
pub use phases::Phases;
pub use queue::OverflowQueue;
pub use retry::{Delays, Retry, RetryBudget, RetryError, RetryWhen};
pub use semaphore::{
    Acquire, AcquireError, AcquireOwned, AcquireTimeoutError, OwnedSemaphorePermit, Permits,
    PollSemaphore, Semaphore, SemaphorePermit, SemaphoreStats, TryAcquireError, WaitTimes,
};
pub use settled::{
    ItemError, NotAllFulfilled, Partition, Scope, Settled, SettledCounts, SettledKind,
    all_fulfilled, partition,
};
pub use single_flight::SingleFlight;
pub use throttle::{KeyedThrottle, Throttle};

/// What the models steer: tokio's budget and the time.
#[cfg(loom)]
pub mod model {
    pub use crate::base::coop::model::without_budget;
    pub use crate::base::timer::advance;
}

/// The examples of the README, as tests.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
