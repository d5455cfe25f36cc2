//! The program: from arguments to exit status.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Parser;

use super::table;

/// Every step was created once, but for those that are broken.
const DONE: u8 = 0;
/// The database is no good, or a step was lost or created twice.
const FAILED: u8 = 1;
/// The arguments are no good.
const UNUSABLE: u8 = 2;
/// What a shell reports for a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// Creates runs of 10, 50 and 100 steps in a temporary SQLite database, one by one and in parallel,
/// and prints how long that took beside the figures of the service it is modelled on; then a run
/// among whose steps one fails, one panics and one times out, twice.
///
/// Exit status: 0 if every sound step was created once; 1 if not, or if the database is no good; 2
/// if there are arguments; 130 after Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "run_steps")]
struct Options {}

/// Runs the program and returns its exit status, with one line on `err` if it could not do its work.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let (text, status) = match Options::try_parse_from(arguments) {
        Ok(Options {}) => match interruptible() {
            Ok(Some(text)) => (Ok(text), DONE),
            // The temporary database has been removed by now.
            Ok(None) => return INTERRUPTED,
            Err(error) => (Err(error.to_string()), FAILED),
        },
        Err(error) if !error.use_stderr() => (Ok(error.to_string()), DONE),
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            (Err(line.trim_start_matches("error: ").to_owned()), UNUSABLE)
        }
    };
    let printed = match text {
        Ok(text) => write!(out, "{text}").and_then(|()| out.flush()),
        Err(error) => {
            // Nobody is left to tell if this fails.
            let _ = writeln!(err, "run_steps: {error}");
            Ok(())
        }
    };
    match printed {
        // Whoever closes the pipe has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(err, "run_steps: the table: {error}");
            FAILED
        }
        _ => status,
    }
}

/// The table, unless there is a Ctrl-C before it is done.
fn interruptible() -> Result<Option<String>, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            biased;
            signal = tokio::signal::ctrl_c() => Ok(signal.map(|()| None)?),
            text = table() => text.map(Some),
        }
    })
}

/// [`run`] with the arguments and the streams of this process.
pub fn main() -> std::process::ExitCode {
    run(std::env::args_os(), &mut io::stdout().lock(), &mut io::stderr()).into()
}
