//! Reads Bluesky Jetstream events into a SQLite database, through the four primitives.
//!
//! `cargo run --release --example ingest -- --help` says what there is to choose;
//! `pipeline.rs` is the place to begin reading.

fn main() -> std::process::ExitCode {
    sluicegate_examples::ingest::cli::main()
}
