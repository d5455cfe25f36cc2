//! A chat server with rooms, over WebSockets: what a room says within a window goes to each of its
//! members in one frame.
//!
//! ```text
//!  client ──▶ connection ──▶ publisher ──▶ rooms ──▶ outbox ──▶ connection ──▶ client
//!             reads          batches       the       bounded,   writes
//!             messages       by room       members   each its   frames
//!                                                    own
//! ```
//!
//! Everything on that way has a bound: a batcher that is full makes senders wait, first come, first
//! served; a client whose outbox is full is closed as too slow, with the reason; a server whose slots
//! are taken answers 503; a connection that takes too long for its request is closed; a web page of
//! another origin gets 403. What the server has read from a client goes to every member of the room,
//! whichever clients leave meanwhile, also when the server stops. It is held in memory alone: a crash
//! loses what was accepted and not yet delivered.
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
