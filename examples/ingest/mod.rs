//! x
pub mod event;
pub mod generator;
pub mod store;
pub mod tally;
