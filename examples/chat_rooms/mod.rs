//! A chat server with rooms, over WebSockets: what a room says within a window goes to each of its
//! members in one frame.
//!
//! ```text
//!  client ──▶ connection ──▶ publisher ──▶ rooms ──▶ outbox ──▶ connection ──▶ client
//!             reads          batches    the       bounded,   writes
//!             messages       by room    members   each its   frames
//!                                                 own
//! ```
//!
//! Everything on that way has a bound, and each bound has its answer: a batcher that is full makes
//! those who talk wait in line; a client whose outbox is full is too slow, is told so and closed; a
//! server whose places are taken answers 503. What the server has read from a client goes to every
//! member of the room, whoever leaves meanwhile, also when the server is told to stop.
//!
//! Begin with `server`, and go on to `connection`, the life of one client. `load` and `report` are
//! the other end: many clients, and what they saw.

pub mod cli;
pub mod client;
pub mod connection;
pub mod listener;
pub mod load;
pub mod options;
pub mod origin;
pub mod outbox;
pub mod protocol;
pub mod publisher;
pub mod report;
pub mod rooms;
pub mod server;
pub mod stats;
