//! What the tests of ingest share: the sequential reference, the tables, and a way to run.

pub mod reference;
pub mod run;
pub mod tables;
