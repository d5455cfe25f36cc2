//! Creates the steps of a run in a SQLite database, through phases: prepare, create, enqueue.
//!
//! `cargo run --release --example run_steps` prints a table beside the figures of the service that
//! it is modelled on.

fn main() -> std::process::ExitCode {
    match sluicegate_examples::run_steps::main() {
        Ok(text) => {
            #[expect(clippy::print_stdout, reason = "it is what the program is for")]
            {
                print!("{text}");
            }
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a program says why it failed")]
            {
                eprintln!("run_steps: {error}");
            }
            std::process::ExitCode::FAILURE
        }
    }
}
