//! What allocates, and what does not: a module for each primitive.

#![cfg(not(loom))]

mod batcher;
mod executor;
mod map;
mod offsets;
mod queue;
mod semaphore;
