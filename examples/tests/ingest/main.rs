//! The pipeline of ingest: against a sequential reference of its rules, with the clock paused, and
//! from the command line.

mod cli;
mod kills;
mod live;
mod operator;
mod reference;
mod register;
mod resume;
mod rules;
mod run;
mod tables;
mod time;
mod trouble;
