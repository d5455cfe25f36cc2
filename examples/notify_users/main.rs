//! Notifies every user of a SQLite database once, in pages, within a rate.
//!
//! `cargo run --release --example notify_users -- --help` says what there is to choose.

fn main() -> std::process::ExitCode {
    match sluicegate_examples::notify_users::main() {
        Ok(text) => {
            #[expect(clippy::print_stdout, reason = "it is what the program is for")]
            {
                println!("{text}");
            }
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a program says why it failed")]
            {
                eprintln!("notify_users: {error}");
            }
            std::process::ExitCode::FAILURE
        }
    }
}
