//! The program: from arguments to exit status.

use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::Arc;

use clap::Parser;

use super::store::Store;
use super::{Table, table};
use crate::program::database::Location;
use crate::program::{self, Error, signals};

/// Creates runs of 10, 50 and 100 steps in a temporary SQLite database, one by one and in parallel,
/// and prints how long that took beside the figures of the service it is modelled on; then a run in
/// which one step fails, one panics and one times out, twice.
///
/// The temporary database is removed at the end, also after a signal. Only a crash leaves it behind.
#[derive(Debug, Parser)]
#[command(name = "run_steps", version)]
struct Options {
    /// Print the table as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the program and returns its exit status, with one line on `err` if it could not do its work.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    program::run(arguments, out, err, |options: Options, out, _| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let table = signals::run(runtime, async |interrupt| {
            tokio::select! {
                biased;
                () = interrupt.first() => Err(Error::failed("interrupted: the rest was left out")),
                table = measure() => table,
            }
        })?;
        let Some(table) = table else { return Ok(program::ABANDONED) };
        let table = table?;
        let text = if options.json { table.to_json() + "\n" } else { table.to_string() };
        program::print(out, &text)?;
        Ok(program::DONE)
    })
}

async fn measure() -> Result<Table, Error> {
    let location = Location::new(None, "runs.db")?;
    let named = |error: &dyn std::fmt::Display| location.named(error);
    let store = Store::open(location.path()).map_err(|error| Error::Unusable(named(&error)))?;
    table(&Arc::new(store)).await.map_err(|error| Error::Failed(named(&error)))
}

/// [`run`] with the arguments and the streams of this process.
pub fn main() -> std::process::ExitCode {
    run(std::env::args_os(), &mut io::stdout().lock(), &mut io::stderr()).into()
}
