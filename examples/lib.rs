//! The parts of the example programs, so that their tests can reach them. Each program's own
//! folder holds all of it.

pub mod chat_rooms;
pub mod ingest;
pub mod notify_users;
pub mod run_steps;
