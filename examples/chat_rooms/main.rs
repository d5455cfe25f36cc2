//! A WebSocket chat server that sends each room one frame a window instead of one a message, and a
//! load that shows what that saves.
//!
//! `cargo run --release --example chat_rooms -- --help` says what there is to choose; `server.rs`
//! is the place to begin reading.

fn main() -> std::process::ExitCode {
    sluicegate_examples::chat_rooms::cli::main()
}
