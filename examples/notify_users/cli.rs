//! The program: from arguments to exit status.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use sluicegate::{Stop, StopToken};
use tokio::time::sleep;

use super::store::Store;
use super::{Error, Rules, Summary, notify};
use crate::program;

/// After a Ctrl-C, what has been pulled has so long to come to its end.
const GRACE: Duration = Duration::from_secs(1);

/// Notifies the users of a SQLite database, in pages of 100, within a rate; goes on where it was
/// when it is started again.
///
/// Exit status: 0 if every user is notified or named as failed; 1 if it was stopped by Ctrl-C (or
/// SIGTERM) before, and some are left; 2 if the arguments or the database are no good; 130 after a
/// second Ctrl-C.
#[derive(Debug, Clone, Parser)]
#[command(name = "notify_users")]
struct Options {
    /// Database to go on with, or to make; without it, a temporary one
    #[arg(long, value_name = "PATH")]
    db: Option<PathBuf>,

    /// Users in a database that is made, at most 10,000,000
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(..=10_000_000))]
    users: usize,

    /// Notifications at once, from 1 to 100,000
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    limit: usize,

    /// Attempts that may start in any second, from 1 to 1,000,000
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,

    /// Attempts for each user, the first counted, from 1 to 100
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
}

/// Runs the program and returns its exit status, with one line on `err` if it could not do its work.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    program::run(arguments, out, err, |options: Options, out, _| notify_all(&options, out))
}

fn notify_all(options: &Options, out: &mut dyn Write) -> Result<u8, Error> {
    let (path, _temporary) = match &options.db {
        Some(path) => (path.clone(), None),
        None => {
            let folder = tempfile::tempdir()?;
            (folder.path().join("users.db"), Some(folder))
        }
    };
    let of_path = |error: rusqlite::Error| format!("{}: {error}", path.display());
    let store = Store::open(&path, options.users).map_err(of_path)?;
    let rules = Rules { limit: options.limit, rate: options.rate, attempts: options.attempts };
    // On a terminal only: where standard error goes elsewhere, nothing is drawn.
    let bar = ProgressBar::new(store.left().map_err(of_path)?.into());
    let template = "{wide_bar} {human_pos}/{human_len} users, {per_sec}, {eta}";
    bar.set_style(ProgressStyle::with_template(template)?);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let summary = runtime.block_on(async {
        let mut signals = program::signals()?;
        let stop = StopToken::new();
        let interrupted = async {
            signals.next().await;
            bar.println("finishing what has begun; Ctrl-C once more leaves it");
            stop.stop(Stop::Drain);
            tokio::select! {
                _ = signals.next() => {}
                // With a low rate, that may take long: what waits for its turn is left.
                () = sleep(GRACE) => {
                    stop.stop(Stop::Abort);
                    signals.next().await;
                }
            }
        };
        tokio::select! {
            summary = notify(&store, &rules, stop.clone(), &bar) => summary.map(Some),
            () = interrupted => Ok(None),
        }
    });
    bar.finish_and_clear();
    match summary? {
        None => Ok(program::INTERRUPTED),
        Some(summary) => {
            program::printed(report(&summary, &store, out)?)?;
            Ok(if summary.left == 0 { program::WELL } else { program::AMISS })
        }
    }
}

/// What it came to, and the users that failed, in this run or an earlier one, each with the reason.
fn report(
    summary: &Summary,
    store: &Store,
    out: &mut dyn Write,
) -> rusqlite::Result<io::Result<()>> {
    let mut told = writeln!(out, "{summary}");
    if told.is_err() {
        return Ok(told);
    }
    store.each_failed(|user, reason| {
        told = writeln!(out, "  user {user}: {reason}");
        told.is_ok()
    })?;
    Ok(told.and_then(|()| out.flush()))
}

/// [`run`] with the arguments and the streams of this process.
pub fn main() -> std::process::ExitCode {
    run(std::env::args_os(), &mut io::stdout().lock(), &mut io::stderr()).into()
}
