//! The program: from arguments to exit status.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Parser;

use super::table;
use crate::program;

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
    program::run(arguments, out, err, |Options {}, out, err| match interruptible() {
        Ok(Some(text)) => program::print(out, &text).map(|()| program::WELL),
        // The temporary database has been removed by now.
        Ok(None) => Ok(program::INTERRUPTED),
        Err(error) => writeln!(err, "run_steps: {error}").map(|()| program::AMISS),
    })
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
