//! The far end of the batcher: one transaction a batch, and the count of what it did.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sluicegate::batcher::Batch;

use super::control::Control;
use super::ledger::{Entry, Ledger};
use super::register::{Register, Write};
use super::store::{self, Effect, Op, Writer};
use super::tally::{Category, Counts, Tally};
use crate::program::database;

/// Writes batches, and counts each line once it is certain how it ended.
#[derive(Debug)]
pub struct Sink {
    writer: Mutex<Writer>,
    register: Arc<Mutex<Register>>,
    tally: Arc<Tally>,
    control: Arc<Control>,
    /// In a resumable run.
    ledger: Option<Arc<Ledger>>,
    users_created: AtomicU64,
    users_failed: AtomicU64,
    /// Whether the last batch failed in a way that the next one will, too.
    permanent: AtomicBool,
}

/// Why a batch was not written.
#[derive(Debug)]
pub enum NotWritten {
    /// The database says so.
    Database(rusqlite::Error),
    /// Another run on the same database began meanwhile.
    Superseded,
    /// A batch before it was not, and the next run begins there.
    Stopped,
}

impl From<rusqlite::Error> for NotWritten {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::StatementChangedRows(_) => Self::Superseded,
            error => Self::Database(error),
        }
    }
}

impl fmt::Display for NotWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => error.fmt(f),
            Self::Superseded => f.write_str("another run goes on with this database"),
            Self::Stopped => f.write_str("something before it could not be done"),
        }
    }
}

impl std::error::Error for NotWritten {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Database(error) => Some(error),
            Self::Superseded | Self::Stopped => None,
        }
    }
}

/// What a transaction did.
#[derive(Debug, Default)]
struct Done {
    ended: Counts,
    users: u64,
    lost: u64,
}

impl Sink {
    /// Writes with `writer`, tells `register` and counts in `tally`; ends the reading of lines through
    /// `control` when no further batch can be written.
    pub fn new(
        writer: Writer,
        register: Arc<Mutex<Register>>,
        tally: Arc<Tally>,
        control: Arc<Control>,
        ledger: Option<Arc<Ledger>>,
    ) -> Self {
        let writer = Mutex::new(writer);
        let (users_created, users_failed, permanent) = Default::default();
        Self { writer, register, tally, control, ledger, users_created, users_failed, permanent }
    }

    /// Writes a batch; blocks. After an error the guard still holds all of it, so that the batcher
    /// tries again.
    ///
    /// # Errors
    ///
    /// Whatever SQLite says; nothing was written then. Or if the run was stopped.
    pub fn write(&self, mut batch: Batch<Entry>) -> Result<(), NotWritten> {
        if self.ledger.as_ref().is_some_and(|ledger| ledger.is_stopped()) {
            return Err(NotWritten::Stopped);
        }
        let written = self.transaction(batch.as_mut_slice());
        let permanent = written.as_ref().is_err_and(database::is_permanent);
        self.permanent.store(permanent, Ordering::Relaxed);
        let Done { ended, users, lost } = written?;
        let written = batch.take();
        let writes = written.iter().filter_map(|entry| entry.write.as_ref());
        self.register.lock().unwrap().settled(writes);
        self.tally.count_all(&ended);
        self.users_created.fetch_add(users, Ordering::Relaxed);
        if lost > 0 {
            self.tally.failure(&"its parent could not be written");
        }
        Ok(())
    }

    /// All of it, in order, or nothing.
    fn transaction(&self, entries: &mut [Entry]) -> rusqlite::Result<Done> {
        let mut writer = self.writer.lock().unwrap();
        let transaction = writer.begin()?;
        let mut done = Done::default();
        for write in entries.iter().filter_map(|entry| entry.write.as_ref()) {
            done.count(write, store::apply(&transaction, &write.op)?);
        }
        if let Some(ledger) = &self.ledger {
            let stored = ledger.store(&transaction, entries, done.ended)?;
            transaction.commit()?;
            ledger.committed(&stored);
            done.ended = stored.ended;
        } else {
            transaction.commit()?;
        }
        Ok(done)
    }

    /// Counts what no retry could write. A resumable run ends with it: the next one does it again.
    pub fn give_up(&self, entries: &[Entry], why: &impl fmt::Display) {
        if entries.is_empty() {
            return;
        }
        if self.permanent.load(Ordering::Relaxed) {
            self.control.stop_reading();
        }
        if self.ledger.is_some() {
            return self.stop(why);
        }
        let writes = || entries.iter().filter_map(|entry| entry.write.as_ref());
        self.register.lock().unwrap().settled(writes());
        self.tally.failure(why);
        let users = writes().filter(|write| matches!(write.op, Op::User(_))).count();
        self.users_failed.fetch_add(users as u64, Ordering::Relaxed);
        self.tally.count(Category::Failed, (entries.len() - users) as u64);
    }

    /// Nothing more is read or written.
    pub fn stop(&self, why: &impl fmt::Display) {
        self.tally.failure(why);
        self.control.stop_reading();
        if let Some(ledger) = &self.ledger {
            ledger.stop();
        }
    }

    /// Users that were created.
    pub fn users_created(&self) -> u64 {
        self.users_created.load(Ordering::Relaxed)
    }

    /// Users that could not be written, and were tried again with their next event.
    pub fn users_failed(&self) -> u64 {
        self.users_failed.load(Ordering::Relaxed)
    }
}

impl Done {
    /// A user is no line of its own.
    fn count(&mut self, write: &Write, effect: Effect) {
        let category = match (&write.op, effect) {
            (Op::User(_), Effect::Stored) => {
                self.users += 1;
                return;
            }
            (Op::User(_), _) => return,
            (_, Effect::Stored) => Category::Stored,
            (_, Effect::Duplicate) => Category::Duplicate,
            (_, Effect::Deleted) => Category::Deleted,
            (_, Effect::NothingToDelete) if write.removed_waiting => Category::Deleted,
            (_, Effect::NothingToDelete) => Category::DeleteUnknown,
            (_, Effect::ParentLost) => {
                self.lost += 1;
                Category::Failed
            }
        };
        self.ended.add(category, 1);
    }
}
