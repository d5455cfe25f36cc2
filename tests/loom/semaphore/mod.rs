//! The semaphore's models, numbered as the interleavings that they cover.

mod support;

mod cancel;
mod close;
mod coop;
mod limit;
mod order;
mod release;
mod waker;
