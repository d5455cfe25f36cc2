//! The chat server, driven by real WebSocket clients; its load; and the program from outside.

mod bounds;
mod cli;
mod hostile;
mod leaving;
mod manners;
mod order;
mod set_up;
mod stopping;
