//! Each primitive against a reference model, at random: a module for each.

#![cfg(not(loom))]

mod batcher;
mod call;
#[cfg(feature = "tokio")]
#[path = "../support/coop.rs"]
mod coop;
mod executor;
mod executor_retry;
mod executor_semaphore;
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
