//! The pipeline of ingest: against a sequential reference of its rules, with the clock paused, and
//! from the command line.

mod cli;
mod jetstream;
mod kills;
mod live;
mod operator;
mod reference;
mod register;
mod resume;
mod rules;
mod run;
mod server;
mod tables;
mod time;
mod trouble;
