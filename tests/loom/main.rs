//! Every interleaving of small programs: a module for each primitive.

#![cfg(loom)]

mod batcher;
mod executor;
mod executor_semaphore;
mod explore;
mod keyed;
mod map;
mod offsets;
mod queue;
mod retry;
mod run;
mod semaphore;
mod single_flight;
mod throttle;
