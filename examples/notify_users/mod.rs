//! Every user is notified once or named as failed, also if the program is stopped in between.

pub mod store;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sluicegate::executor::Page;
use sluicegate::retry::Jitter;
use sluicegate::{BatchEnd, BatchExecutor, Retry, Stop, StopToken, Throttle};

use store::Store;

const PAGE: usize = 100;

/// Notifies the users of a SQLite database, in pages of 100, within a rate; goes on where it was
/// when it is started again.
#[derive(Debug, Clone, Parser)]
#[command(name = "notify_users")]
pub struct Options {
    /// Database to go on with, or to make; without it, a temporary one
    #[arg(long, value_name = "PATH")]
    pub db: Option<PathBuf>,

    /// Users in a database that is made
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub users: usize,

    /// Notifications at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub limit: usize,

    /// Notifications that may start in any second
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub rate: u32,

    /// Attempts for each user, the first counted
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub attempts: u32,
}

/// What it came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Users notified in this run.
    pub notified: usize,
    /// Users for whom it failed for good, in this run.
    pub failed: Vec<i64>,
    /// Users that are neither, because the program was stopped.
    pub left: usize,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { notified, failed, left } = self;
        write!(f, "{notified} notified, {} failed, {left} left", failed.len())?;
        if !failed.is_empty() {
            write!(f, "; failed: {failed:?}")?;
        }
        Ok(())
    }
}

type Error = Box<dyn std::error::Error>;

/// Sends a notification: of 1,000 users one is gone, and one in ten attempts fails in passing.
///
/// A service that is asked twice with the same key sends once; here the table of deliveries does.
pub fn send(user: i64, attempt: u32) -> Result<(), &'static str> {
    if user % 1000 == 999 {
        Err("no such address")
    } else if (user + i64::from(attempt)) % 10 == 0 {
        Err("busy")
    } else {
        Ok(())
    }
}

/// Notifies all who are not yet notified nor failed, until all are or it is stopped.
///
/// # Errors
///
/// Of the database, or if an option is out of its bounds.
pub async fn notify(
    store: &Store,
    options: &Options,
    stop: StopToken,
    progress: &ProgressBar,
) -> Result<Summary, Error> {
    let throttle = Arc::new(Throttle::new(options.rate, Duration::from_secs(1))?);
    let retry = Retry::constant(options.attempts, Duration::from_millis(20))?
        .jitter(Jitter::Equal)
        .when(|error: &(i64, &str)| error.1 == "busy");
    let executor = BatchExecutor::builder()
        .limit(options.limit)
        .backlog(PAGE)
        .throttle(throttle)
        .stop(stop)
        .build()?
        .retry(retry);

    let fetch = async |after: Option<i64>| {
        let items = store.page(after.unwrap_or(i64::MIN), PAGE)?;
        let next = items.last().copied().filter(|_| items.len() == PAGE);
        Ok::<_, rusqlite::Error>(Page { items, next })
    };
    let attempts = Cell::new(0_u32);
    let (mut notified, mut failed, mut broken) = (0, Vec::new(), None);
    let summary = executor
        .pages_for_each(
            fetch,
            async |user| {
                attempts.set(attempts.get().wrapping_add(1));
                tokio::time::sleep(Duration::from_millis(1)).await;
                // What the user got is written where it is sent, so that neither is without the
                // other when the program ends here.
                send(user, attempts.get()).map_err(|error| (user, error))?;
                store.notified(user).map_err(|_| (user, "database"))?;
                Ok(user)
            },
            |_, outcome| {
                progress.inc(1);
                match outcome.into_result() {
                    Ok(_) => notified += 1,
                    Err(error) => {
                        // One that is cancelled is left for the next time.
                        if let sluicegate::SettledError::Rejected((user, reason)) = error {
                            failed.push(user);
                            broken = store.failed(user, reason).err().or(broken.take());
                        }
                    }
                }
                std::future::ready(())
            },
        )
        .await;
    if let Some(error) = summary.fetch_error.or(broken) {
        return Err(error.into());
    }
    if let BatchEnd::SourcePanicked(panic) = summary.batch.into_end() {
        return Err(panic.to_string().into());
    }
    failed.sort_unstable();
    Ok(Summary { notified, failed, left: store.left()? })
}

/// Everything that the program does; what it prints.
///
/// # Errors
///
/// Of [`notify`], or if the runtime cannot start.
pub fn main() -> Result<String, Error> {
    let options = Options::parse();
    let folder = tempfile::tempdir()?;
    let path = options.db.clone().unwrap_or_else(|| folder.path().join("users.db"));
    let store = Store::open(&path, options.users)?;
    let progress = ProgressBar::new(store.left()? as u64);
    progress
        .set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} users, {per_sec}, {eta}")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let summary = runtime.block_on(async {
        let stop = StopToken::new();
        let run = notify(&store, &options, stop.clone(), &progress);
        tokio::pin!(run);
        tokio::select! {
            summary = &mut run => summary,
            _ = tokio::signal::ctrl_c() => {
                stop.stop(Stop::Drain);
                run.await
            }
        }
    })?;
    progress.finish_and_clear();
    Ok(summary.to_string())
}
