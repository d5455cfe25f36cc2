//! The far end of the batcher: one transaction a batch, and the count of what it did.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sluicegate::batcher::Batch;

use super::control::Control;
use super::register::{Register, Write};
use super::store::{Effect, Op, Writer};
use super::tally::{Category, Tally};
use crate::program::database;

/// Writes batches, and counts each line once it is certain how it ended.
#[derive(Debug)]
pub struct Sink {
    writer: Mutex<Writer>,
    register: Arc<Mutex<Register>>,
    tally: Arc<Tally>,
    control: Arc<Control>,
    users_created: AtomicU64,
    users_failed: AtomicU64,
    /// Whether the last batch failed in a way that the next one will, too.
    permanent: AtomicBool,
}

impl Sink {
    /// Writes with `writer`, tells `register` and counts in `tally`; ends the reading of lines through
    /// `control` when no further batch can be written.
    pub fn new(
        writer: Writer,
        register: Arc<Mutex<Register>>,
        tally: Arc<Tally>,
        control: Arc<Control>,
    ) -> Self {
        let writer = Mutex::new(writer);
        let (users_created, users_failed, permanent) = Default::default();
        Self { writer, register, tally, control, users_created, users_failed, permanent }
    }

    /// Writes a batch; blocks. After an error the guard still holds all of it, so that the batcher
    /// tries again.
    ///
    /// # Errors
    ///
    /// Whatever SQLite says; nothing was written then.
    pub fn write(&self, mut batch: Batch<Write>) -> rusqlite::Result<()> {
        let ops = batch.iter().map(|write| &write.op);
        let written = self.writer.lock().unwrap().write(ops);
        let permanent = written.as_ref().is_err_and(database::is_permanent);
        self.permanent.store(permanent, Ordering::Relaxed);
        let effects = written?;
        let written = batch.take();
        self.register.lock().unwrap().settled(&written);
        for (write, effect) in written.iter().zip(effects) {
            self.count(write, effect);
        }
        Ok(())
    }

    /// Counts what no retry could write.
    pub fn give_up(&self, writes: &[Write], why: &impl std::fmt::Display) {
        if self.permanent.load(Ordering::Relaxed) {
            self.control.stop_reading();
        }
        self.register.lock().unwrap().settled(writes);
        for write in writes {
            if let Op::User(_) = write.op {
                self.users_failed.fetch_add(1, Ordering::Relaxed);
                self.tally.failed(0, why);
            } else {
                self.tally.failed(1, why);
            }
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

    /// A user is no line of its own.
    fn count(&self, write: &Write, effect: Effect) {
        let category = match (&write.op, effect) {
            (Op::User(_), Effect::Stored) => {
                self.users_created.fetch_add(1, Ordering::Relaxed);
                return;
            }
            (Op::User(_), _) => return,
            (_, Effect::Stored) => Category::Stored,
            (_, Effect::Duplicate) => Category::Duplicate,
            (_, Effect::Deleted) => Category::Deleted,
            (_, Effect::NothingToDelete) if write.removed_waiting => Category::Deleted,
            (_, Effect::NothingToDelete) => Category::DeleteUnknown,
            (_, Effect::ParentLost) => {
                return self.tally.failed(1, &"its parent could not be written");
            }
        };
        self.tally.count(category, 1);
    }
}
