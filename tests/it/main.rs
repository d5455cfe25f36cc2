//! The promises of each primitive, by example: a module for each.

#![cfg(not(loom))]

mod batched;
mod batcher;
mod call;
#[cfg(feature = "tokio")]
#[path = "../support/coop.rs"]
mod coop;
mod executor;
mod keyed;
mod map;
mod offsets;
#[path = "../support/outcome.rs"]
mod outcome;
#[path = "../support/pushed.rs"]
mod pushed;
mod queue;
mod retry;
mod semaphore;
mod single_flight;
mod throttle;
mod traits;
mod wakers;
