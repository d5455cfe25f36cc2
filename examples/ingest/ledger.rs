//! What makes a run resumable: which lines are done is stored by the transaction that makes them so.
//!
//! Decisions reach the batcher in the order in which they are taken, and it writes one batch after the
//! other. So the database always holds what some first part of them made of it, and the checkpoint says
//! which lines those were. A run that goes on from there does the other lines, and no line twice.
//!
//! That holds as long as no batch is passed over. So the first one that cannot be written stops the
//! run, and what it had decided beyond is forgotten.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use sluicegate::offsets::{Ack, Checkpoint};
use sluicegate::{ConfigError, OffsetTracker};

use super::identity::Identity;
use super::journal::{self, Progress};
use super::recent::Recent;
use super::register::{Held, Write};
use super::source::{Place, RawLines};
use super::tally::{Category, Counts};

/// What the batcher carries.
#[derive(Debug, Default)]
pub struct Entry {
    /// A change to the tables.
    pub write: Option<Write>,
    /// What a resumable run stores with it.
    pub record: Option<Box<Record>>,
}

/// What else a decision comes to.
#[derive(Debug, Default)]
pub struct Record {
    /// The lines that are done with it.
    pub acks: Vec<Ack<Place>>,
    /// They end at once.
    pub done: Option<(Category, u64)>,
    /// The line waits.
    pub waits: Option<Held>,
    /// The children of these numbers wait no longer, and are not written.
    pub left: Vec<(Category, Vec<u64>)>,
}

impl Record {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        let Self { acks, done, waits, left } = self;
        acks.is_empty() && done.is_none() && waits.is_none() && left.is_empty()
    }
}

/// What a transaction stores, once it is committed.
#[derive(Debug, Default)]
pub struct Stored {
    /// How lines ended.
    pub ended: Counts,
    /// The last event of a live stream of which it is stored that it came.
    seen: Option<u64>,
}

/// Which lines are done, and how they ended.
#[derive(Debug)]
pub struct Ledger {
    input: Identity,
    run: i64,
    tracker: OffsetTracker<Place>,
    /// What is stored.
    counts: Mutex<Counts>,
    /// Where the last line ended.
    last: Mutex<Place>,
    /// The furthest offset that this run or one before it has read to.
    read_to: AtomicU64,
    /// What was done when this run began.
    done_before: Checkpoint<Place>,
    /// Of a live stream.
    recent: Option<Arc<Recent>>,
    stopped: AtomicBool,
}

impl Ledger {
    /// Goes on from there, with at most `in_flight` lines that are not done; `recent` is that of a live
    /// stream.
    ///
    /// # Errors
    ///
    /// If `in_flight` is 0.
    pub fn new(
        progress: Progress,
        recent: Option<Arc<Recent>>,
        in_flight: usize,
    ) -> Result<Self, ConfigError> {
        let Progress { input, checkpoint, read_to, counts, run } = progress;
        // A line whose completion is forgotten would be done twice.
        let tracker =
            OffsetTracker::builder().capacity(in_flight).max_ranges(usize::MAX).build()?;
        tracker.resume(&checkpoint);
        let mut ledger = Self {
            input,
            run,
            tracker,
            counts: Mutex::new(counts),
            last: Mutex::default(),
            read_to: AtomicU64::new(read_to),
            done_before: checkpoint,
            recent,
            stopped: AtomicBool::new(false),
        };
        *ledger.last.get_mut().unwrap() = ledger.start();
        Ok(ledger)
    }

    /// Where the input goes on.
    pub fn start(&self) -> Place {
        let committed = self.done_before.committed();
        committed.map_or(Place::default(), |committed| committed.payload)
    }

    /// The greatest number of a line that is done.
    pub fn last_done(&self) -> u64 {
        let beyond = self.done_before.completed_beyond().last();
        beyond.map_or(self.start().line, |(_, last)| *last)
    }

    /// The lines that are not done, of those from the start on.
    pub fn not_done(&self, lines: RawLines) -> RawLines {
        let done = self.done_before.clone();
        Box::new(lines.filter(move |line| {
            line.as_ref().map_or(true, |line| !done.is_complete(line.end.line))
        }))
    }

    /// How the lines ended whose effect is stored.
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap()
    }

    /// A line comes in that is not done.
    pub async fn track(&self, end: Place) -> Ack<Place> {
        *self.last.lock().unwrap() = end;
        self.read_to.fetch_max(end.offset, Ordering::Relaxed);
        self.tracker.track(end.line, end).await.expect("lines come in order")
    }

    /// The lines between the last one and this one do not come. The first and the last of them stand for
    /// those between.
    pub async fn track_gap(&self, before: u64) -> Vec<Ack<Place>> {
        let end = *self.last.lock().unwrap();
        let mut acks = Vec::new();
        for line in [end.line + 1, before - 1] {
            match self.tracker.track(line, end).await {
                Ok(ack) => acks.push(ack),
                // A single line is its own last one.
                Err(error) => debug_assert!(!acks.is_empty(), "{error}"),
            }
        }
        acks
    }

    /// Stores all that belongs to `entries` besides their changes, in the transaction that makes
    /// those. `ended` says how lines ended by the changes.
    ///
    /// Their lines count as done from here on, though only the commit makes them so: if it does not
    /// come, none does any more.
    ///
    /// # Errors
    ///
    /// Whatever SQLite says.
    pub fn store(
        &self,
        connection: &Connection,
        entries: &mut [Entry],
        mut ended: Counts,
    ) -> rusqlite::Result<Stored> {
        let mut stored = Stored::default();
        for Entry { write, record } in entries {
            if let Some(number) = write.as_ref().and_then(|write| write.waited) {
                journal::remove(connection, number)?;
                ended.add(Category::Waiting, -1);
            }
            let Some(record) = record else { continue };
            if let Some((category, lines)) = record.done {
                ended.add(category, lines.cast_signed());
            }
            if let Some(held) = &record.waits {
                journal::insert(connection, held)?;
                ended.add(Category::Waiting, 1);
            }
            for (category, numbers) in &record.left {
                numbers.iter().try_for_each(|number| journal::remove(connection, *number))?;
                ended.add(*category, numbers.len() as i64);
                ended.add(Category::Waiting, -(numbers.len() as i64));
            }
            record.acks.drain(..).for_each(Ack::complete);
        }
        let checkpoint = self.tracker.checkpoint();
        if let Some(recent) = &self.recent {
            let done = checkpoint.committed().map(|committed| committed.payload);
            let (seen, forgotten) = recent.to_store(done);
            seen.iter().try_for_each(|seen| journal::see(connection, seen))?;
            forgotten.map_or(Ok(()), |number| journal::forget(connection, number))?;
            stored.seen = seen.last().map(|last| last.end.line);
        }
        stored.ended = ended;
        Progress {
            input: self.input.clone(),
            run: self.run,
            checkpoint,
            read_to: self.read_to.load(Ordering::Relaxed),
            counts: self.counts().plus(&ended),
        }
        .store(connection)?;
        Ok(stored)
    }

    /// What [`store`](Self::store) returned has been committed.
    pub fn committed(&self, stored: &Stored) {
        let mut counts = self.counts.lock().unwrap();
        *counts = counts.plus(&stored.ended);
        if let (Some(recent), Some(number)) = (&self.recent, stored.seen) {
            recent.stored(number);
        }
    }

    /// Nothing more is stored: something before could not be done.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether nothing more is stored.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}
