//! Creates the steps of a run in a SQLite database, through phases: name, create, enqueue.
//!
//! `cargo run --release --example run_steps` prints a table beside the figures of the service that
//! it is modelled on; `mod.rs` is the place to begin reading.

fn main() -> std::process::ExitCode {
    sluicegate_examples::run_steps::cli::main()
}
