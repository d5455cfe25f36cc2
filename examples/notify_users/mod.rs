//! Every user is notified or named as failed, also if the program is stopped in between.
//!
//! A run claims a page of users before it notifies them, under a lease that it renews while it runs:
//! no other run touches them meanwhile, so that runs at once share the work. What became of a user is
//! written after the service has answered. A crash between the two is why a notification is sent **at
//! least once**: the next run claims those users when the lease has lapsed, and sends again, with the
//! same [idempotency key](service::idempotency_key), by which the service can drop the second. At most
//! `limit` users are in that state. (After a power cut SQLite may have lost the last of what was
//! written, which is sent again, too: `synchronous = FULL` is the price of that.)

pub mod cli;
pub mod service;
pub mod store;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use sluicegate::executor::{DeadLetter, Page};
use sluicegate::retry::Jitter;
use sluicegate::{
    BatchEnd, BatchExecutor, ItemError, Retry, SettledKind, Stop, StopToken, Throttle,
};

use tokio::time::sleep;

use service::{BUSY, Service};
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
    /// How long claims are good for without a renewal: after a crash, other runs wait for that long.
    pub lease: Duration,
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
    /// Would be the same with the next user.
    Database(rusqlite::Error),
    /// The lease was not renewed in time: another run may have claimed the user.
    LeaseLapsed,
}

/// How often a run that has nothing left to claim looks whether other runs are done with their users,
/// or gone: between processes nothing else tells.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A lease, renewed while the run goes on.
#[derive(Debug)]
struct Lease<'a> {
    store: &'a Store,
    length: Duration,
    until: Cell<Instant>,
}

impl<'a> Lease<'a> {
    fn new(store: &'a Store, length: Duration) -> rusqlite::Result<Self> {
        let lease = Self { store, length, until: Cell::new(Instant::now()) };
        lease.renew()?;
        Ok(lease)
    }

    fn renew(&self) -> rusqlite::Result<()> {
        // As of before, since others count from when it is written.
        let until = Instant::now() + self.length;
        self.store.renew(self.length)?;
        self.until.set(until);
        Ok(())
    }

    fn has_lapsed(&self) -> bool {
        Instant::now() >= self.until.get()
    }

    /// Ends with an error alone.
    async fn keep(&self) -> rusqlite::Error {
        loop {
            sleep(self.length / 4).await;
            // One that has lapsed is not renewed: others may have claimed its users.
            if self.has_lapsed() {
                return std::future::pending().await;
            }
            if let Err(error) = self.renew() {
                return error;
            }
        }
    }
}

/// Notifies all users that are neither notified nor failed, until all are or it is stopped.
///
/// # Errors
///
/// Of the database, which ends the run; if a rule is out of its bounds; or if the run was suspended
/// for longer than its lease.
pub async fn notify(
    store: &Store,
    service: &Service,
    rules: &Rules,
    stop: StopToken,
    progress: &ProgressBar,
) -> Result<Summary, Error> {
    let (attempts, notified, failed) = (Cell::new(0_u32), Cell::new(0), Cell::new(0));
    let broken = RefCell::new(None::<Error>);
    let break_off = |error: Error| {
        broken.borrow_mut().get_or_insert(error);
        stop.stop(Stop::Abort);
    };

    let throttle = Arc::new(Throttle::new(rules.rate, Duration::from_secs(1))?);
    let retry = Retry::constant(rules.attempts, Duration::from_millis(20))?
        .jitter(Jitter::Equal)
        .when(|failure: &Failure| matches!(failure, Failure::Sending(BUSY)));
    let lease = Lease::new(store, rules.lease)?;
    let executor = BatchExecutor::builder()
        .limit(rules.limit)
        .backlog(PAGE)
        .throttle(throttle)
        .stop(stop.clone())
        .build()?
        .retry(retry)
        .dead_letter(|letter: DeadLetter<'_, i64, Failure>| {
            let Some(reason) = reason(&letter) else { return };
            match store.failed(letter.input, reason) {
                Ok(by_us) => failed.set(failed.get() + usize::from(by_us)),
                Err(error) => break_off(error.into()),
            }
        });

    let run = executor.pages_for_each(
        async |after: Option<i64>| claim_page(store, after, &stop).await,
        async |user| {
            attempts.set(attempts.get().wrapping_add(1));
            if lease.has_lapsed() {
                return Err(Failure::LeaseLapsed);
            }
            let key = service::idempotency_key(user);
            service.send(&key, user, attempts.get()).await.map_err(Failure::Sending)?;
            store.notified(user).map_err(Failure::Database)
        },
        |_, outcome| {
            match outcome {
                Ok(by_us) => notified.set(notified.get() + usize::from(by_us)),
                Err(ItemError::Rejected(Failure::Database(error))) => break_off(error.into()),
                Err(ItemError::Rejected(Failure::LeaseLapsed)) => {
                    break_off("suspended for longer than the lease: run it again".into());
                }
                // Among the dead letters.
                _ => {}
            }
            progress.inc(1);
            std::future::ready(())
        },
    );
    let summary = tokio::select! {
        summary = run => summary,
        error = lease.keep() => return Err(error.into()),
    };
    store.release()?;
    if let Some(error) = broken.take().or(summary.fetch_error.map(Error::from)) {
        return Err(error);
    }
    if let BatchEnd::SourcePanicked(panic) = summary.batch.into_end() {
        return Err(panic.to_string().into());
    }
    Ok(Summary { notified: notified.get(), failed: failed.get(), left: store.left()? })
}

/// Why a user failed for good; none for one that is left for the next run.
fn reason(letter: &DeadLetter<'_, i64, Failure>) -> Option<&'static str> {
    match letter.error {
        _ if letter.kind == SettledKind::Cancelled => None,
        Some(Failure::Sending(reason)) => Some(reason),
        Some(Failure::Database(_) | Failure::LeaseLapsed) => None,
        None => Some("it panicked"),
    }
}

/// Claims the next page. Once there is none, waits for what other runs have claimed: they settle it,
/// or their leases lapse.
async fn claim_page(
    store: &Store,
    after: Option<i64>,
    stop: &StopToken,
) -> rusqlite::Result<Page<Vec<i64>, i64>> {
    let mut after = after.unwrap_or(i64::MIN);
    loop {
        let items = store.claim(after, PAGE)?;
        if let next @ Some(_) = items.last().copied() {
            return Ok(Page { items, next });
        }
        if after > i64::MIN {
            // What is behind, and has become free meanwhile.
            after = i64::MIN;
        } else if stop.stopped().is_some() || !store.others_at_work()? {
            return Ok(Page { items, next: None });
        } else {
            sleep(LOOK_AGAIN).await;
        }
    }
}
