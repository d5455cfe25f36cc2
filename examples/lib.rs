//! The parts of the example programs, so that their tests can reach them. Each program's own
//! folder holds all of it but for `program`, which is what every command line needs.

pub mod chat_rooms;
pub mod ingest;
pub mod notify_users;
pub mod program;
pub mod run_steps;
