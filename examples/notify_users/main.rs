//! Notifies every user of a SQLite database once, in pages, within a rate.
//!
//! `cargo run --release --example notify_users -- --help` says what there is to choose;
//! `mod.rs` is the place to begin reading.

fn main() -> std::process::ExitCode {
    sluicegate_examples::notify_users::cli::main()
}
