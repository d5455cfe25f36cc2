//! Every user is notified once or named as failed, also if the program is stopped in between.
//!
//! What a user got is written where it is sent, in one step, so that neither is without the other:
//! whenever the program ends, by a signal or a crash, the next run finds who is left. (After a power
//! cut SQLite may have lost the last of them, which are notified again: `synchronous = FULL` is the
//! price of that.) Two runs at once share the work.

pub mod cli;
pub mod store;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use sluicegate::executor::{DeadLetter, Page};
use sluicegate::retry::Jitter;
use sluicegate::{
    BatchEnd, BatchExecutor, ItemError, Retry, SettledKind, Stop, StopToken, Throttle,
};

use store::Store;

const PAGE: usize = 100;

/// How users are notified.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Notifications at once.
    pub limit: usize,
    /// Attempts that may start in any second.
    pub rate: u32,
    /// Attempts for each user, the first counted.
    pub attempts: u32,
}

/// What it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Users notified in this run.
    pub notified: usize,
    /// Users for whom it failed for good, in this run.
    pub failed: usize,
    /// Users that are neither, because the run was stopped.
    pub left: u32,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { notified, failed, left } = self;
        write!(f, "{notified} notified, {failed} failed, {left} left")
    }
}

type Error = Box<dyn std::error::Error>;

/// Why an attempt came to nothing.
#[derive(Debug)]
enum Failure {
    /// Of the service.
    Sending(&'static str),
    /// It would be no better with the next user.
    Database(rusqlite::Error),
}

const BUSY: &str = "busy";

/// Sends a notification: of 1,000 users one is gone, and one in ten attempts fails in passing.
fn send(user: i64, attempt: u32) -> Result<(), &'static str> {
    if user % 1000 == 999 {
        Err("no such address")
    } else if (user + i64::from(attempt)) % 10 == 0 {
        Err(BUSY)
    } else {
        Ok(())
    }
}

/// Notifies all who are not yet notified nor failed, until all are or it is stopped.
///
/// # Errors
///
/// Of the database, which ends the run, or if a rule is out of its bounds.
pub async fn notify(
    store: &Store,
    rules: &Rules,
    stop: StopToken,
    progress: &ProgressBar,
) -> Result<Summary, Error> {
    let (attempts, notified, failed) = (Cell::new(0_u32), Cell::new(0), Cell::new(0));
    let broken = RefCell::new(None);
    let break_off = |error| {
        broken.borrow_mut().get_or_insert(error);
        stop.stop(Stop::Abort);
    };

    let throttle = Arc::new(Throttle::new(rules.rate, Duration::from_secs(1))?);
    let retry = Retry::constant(rules.attempts, Duration::from_millis(20))?
        .jitter(Jitter::Equal)
        .when(|failure: &Failure| matches!(failure, Failure::Sending(BUSY)));
    let executor = BatchExecutor::builder()
        .limit(rules.limit)
        .backlog(PAGE)
        .throttle(throttle)
        .stop(stop.clone())
        .build()?
        .retry(retry)
        .dead_letter(|letter: DeadLetter<'_, i64, Failure>| {
            if letter.kind == SettledKind::Cancelled {
                // It is left for the next time.
                return;
            }
            let reason = match letter.error {
                Some(Failure::Sending(reason)) => *reason,
                Some(Failure::Database(_)) => return,
                None => "it panicked",
            };
            match store.failed(letter.input, reason) {
                Ok(by_us) => failed.set(failed.get() + usize::from(by_us)),
                Err(error) => break_off(error),
            }
        });

    let fetch = async |after: Option<i64>| {
        let items = store.page(after.unwrap_or(i64::MIN), PAGE)?;
        let next = items.last().copied().filter(|_| items.len() == PAGE);
        Ok::<_, rusqlite::Error>(Page { items, next })
    };
    let summary = executor
        .pages_for_each(
            fetch,
            async |user| {
                attempts.set(attempts.get().wrapping_add(1));
                tokio::time::sleep(Duration::from_millis(1)).await;
                send(user, attempts.get()).map_err(Failure::Sending)?;
                store.notified(user).map_err(Failure::Database)
            },
            |_, outcome| {
                match outcome {
                    Ok(by_us) => notified.set(notified.get() + usize::from(by_us)),
                    Err(ItemError::Rejected(Failure::Database(error))) => break_off(error),
                    // Among the dead letters.
                    _ => {}
                }
                progress.inc(1);
                std::future::ready(())
            },
        )
        .await;
    if let Some(error) = broken.take().or(summary.fetch_error) {
        return Err(error.into());
    }
    if let BatchEnd::SourcePanicked(panic) = summary.batch.into_end() {
        return Err(panic.to_string().into());
    }
    Ok(Summary { notified: notified.get(), failed: failed.get(), left: store.left()? })
}
