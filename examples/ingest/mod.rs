//! An ingestion pipeline for Bluesky's Jetstream events, as an appview runs one, into SQLite.
//!
//! One equation holds it together: every line that is read ends in exactly one [`Category`]
//! (`tally`), whatever is displaced, evicted, cancelled, retried or interrupted on its way. Begin
//! with `pipeline`, which wires the primitives together, and go on to `register`, which takes
//! the decisions. `ledger` and `journal` make a run resumable, `jetstream` and `recent` read a live stream.
//!
//! [`Category`]: tally::Category

pub mod cli;
pub mod control;
pub mod event;
pub mod gate;
pub mod generator;
pub mod identity;
pub mod input;
pub mod jetstream;
pub mod journal;
pub mod ledger;
pub mod live;
pub mod options;
pub mod pipeline;
pub mod recent;
pub mod register;
mod restore;
pub mod sink;
pub mod source;
pub mod store;
pub mod summary;
pub mod tally;
