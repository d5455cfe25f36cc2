//! The program: from arguments to exit status.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use indicatif::ProgressBar;
use serde_json::json;
use sluicegate::{Stop, StopToken};
use tokio::time::sleep;

use super::service::Service;
use super::store::Store;
use super::{Rules, Summary, notify};
use crate::program::database::Location;
use crate::program::signals::{self, Interrupt};
use crate::program::{self, Error, progress};

/// After a signal, what has been claimed has so long to come to its end.
const GRACE: Duration = Duration::from_secs(1);

/// Notifies the users of a SQLite database, in pages of 100, within a rate. Started again, it goes on
/// where it was; several at once share the work.
///
/// After a crash a notification is sent at least once: each page is claimed before it is sent, and
/// what a user got is written after that. Those in between, at most --limit of them, are sent again
/// once the crashed run's --lease has lapsed, with the same idempotency key, which is welcome/USER.
///
/// A user without an address is named in the output and remembered as failed; that is done, too, and
/// is not tried again.
#[derive(Debug, Clone, Parser)]
#[command(name = "notify_users", version)]
struct Options {
    /// Database to go on with, or to make; without it, a temporary one
    #[arg(long, value_name = "PATH")]
    db: Option<PathBuf>,

    /// Users in a database that is made, at most 10,000,000
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = program::number(0..=10_000_000))]
    users: u64,

    /// Notifications at once, from 1 to 100,000
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = program::number(1..=100_000))]
    limit: u64,

    /// Attempts that may start in any second, from 1 to 1,000,000
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = program::number(1..=1_000_000))]
    rate: u64,

    /// Attempts for each user, the first counted, from 1 to 100
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = program::number(1..=100))]
    attempts: u64,

    /// Seconds for which claims outlive a crash, from 1 to 3,600
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    #[arg(value_parser = program::number(1..=3_600))]
    lease: u64,

    /// File to which the simulated service appends the key of each notification that it sends
    #[arg(long, value_name = "FILE")]
    sent: Option<PathBuf>,

    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the program and returns its exit status, with one line on `err` if it could not do its work.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    program::run(arguments, out, err, |options: Options, out, err| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = async |interrupt| notify_all(&options, interrupt, out, err).await;
        signals::run(runtime, work)?.unwrap_or(Ok(program::ABANDONED))
    })
}

async fn notify_all(
    options: &Options,
    interrupt: Interrupt,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Error> {
    let location = Location::new(options.db.as_deref(), "users.db")?;
    let failed = |error: &dyn std::fmt::Display| Error::Failed(location.named(error));
    let store = Store::open(location.path(), options.users as usize)
        .map_err(|error| Error::Unusable(location.named(error)))?;
    let service = match &options.sent {
        None => Service::default(),
        Some(path) => Service::with_log(path)
            .map_err(|error| Error::Unusable(format!("{}: {error}", path.display())))?,
    };
    let rules = Rules {
        limit: options.limit as usize,
        rate: options.rate as u32,
        attempts: options.attempts as u32,
        lease: Duration::from_secs(options.lease),
    };
    let left = store.left().map_err(|error| failed(&error))?;
    let bar = progress::bar(Some(left.into()), "users");
    let stop = StopToken::new();
    let work = notify(&store, &service, &rules, stop.clone(), &bar);
    let summary = tokio::select! {
        summary = work => summary,
        never = drain(&interrupt, &stop, &bar, err) => match never {},
    };
    bar.finish_and_clear();
    let summary = summary.map_err(|error| failed(&error))?;
    let interrupted = summary.left > 0 && interrupt.is_first();
    let reported = if options.json {
        report_json(&summary, interrupted, &store, out)
    } else {
        report(&summary, &store, out)
    };
    program::printed(reported.map_err(|error| failed(&error))?)?;
    match summary.left {
        0 => Ok(program::DONE),
        left => Err(Error::Failed(format!("interrupted: {left} users are left for the next run"))),
    }
}

/// At the first signal, lets what was claimed come to its end.
async fn drain(
    interrupt: &Interrupt,
    stop: &StopToken,
    bar: &ProgressBar,
    err: &mut dyn Write,
) -> std::convert::Infallible {
    interrupt.first().await;
    let text = format_args!(
        "notify_users: interrupted: finishing what has begun, for {GRACE:?} at most; \
         a second signal ends it at once"
    );
    // If this fails there is no place left to report to.
    let _ = bar.suspend(|| writeln!(err, "{text}"));
    stop.stop(Stop::Drain);
    // With a low rate that may take long: what waits for its turn is left.
    sleep(GRACE).await;
    stop.stop(Stop::Abort);
    std::future::pending().await
}

/// The counts, and the users that failed, in this run or an earlier one, each with the reason.
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

/// The same as one JSON object.
fn report_json(
    summary: &Summary,
    interrupted: bool,
    store: &Store,
    out: &mut dyn Write,
) -> rusqlite::Result<io::Result<()>> {
    let mut failures = Vec::new();
    store.each_failed(|user, reason| {
        failures.push(json!({ "user": user, "reason": reason }));
        true
    })?;
    let Summary { notified, failed, left } = summary;
    let json = json!({
        "notified": notified,
        "failed": failed,
        "left": left,
        "interrupted": interrupted,
        "failures": failures,
    });
    Ok(writeln!(out, "{json}").and_then(|()| out.flush()))
}

/// [`run`] with the arguments and the streams of this process.
pub fn main() -> std::process::ExitCode {
    run(std::env::args_os(), &mut io::stdout().lock(), &mut io::stderr()).into()
}
