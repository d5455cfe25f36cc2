//! The tables of a resumable run: how far it is, how lines ended, which children wait, and which events
//! of a live stream came lately. They are written by the transactions that write the rows.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Result, params};
use serde_json::{Map, Value};
use sluicegate::offsets::Checkpoint;

use super::event::{Child, Relation};
use super::identity::Identity;
use super::recent::Seen;
use super::register::Held;
use super::source::Place;
use super::tally::{Category, Counts};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS waiting (
        number INTEGER PRIMARY KEY, relation TEXT NOT NULL, uri TEXT NOT NULL,
        author TEXT NOT NULL, subject TEXT NOT NULL, arrived_ms INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS progress (
        id INTEGER PRIMARY KEY CHECK (id = 1), input TEXT NOT NULL,
        checkpoint TEXT NOT NULL, read_to INTEGER NOT NULL, counts TEXT NOT NULL,
        run INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS recent (
        number INTEGER PRIMARY KEY, cursor INTEGER NOT NULL, event TEXT NOT NULL
    );
";

const BEGIN: &str = "INSERT OR REPLACE INTO progress VALUES (1, ?1, ?2, ?3, ?4, ?5)";
const STORE: &str = "UPDATE progress SET input = ?1, checkpoint = ?2, read_to = ?3, counts = ?4
    WHERE run = ?5";
const SEEN: &str = "INSERT INTO recent VALUES (?1, ?2, ?3)";
const INSERT: &str = "INSERT INTO waiting VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const WAITING: &str = "SELECT number, relation, uri, author, subject, arrived_ms FROM waiting
    WHERE number > ?1 ORDER BY number LIMIT ?2";

/// How far the runs so far have come.
#[derive(Debug, Clone)]
pub struct Progress {
    /// What they read.
    pub input: Identity,
    /// The lines that are done.
    pub checkpoint: Checkpoint<Place>,
    /// The furthest offset to which anything was read.
    pub read_to: u64,
    /// How those lines ended.
    pub counts: Counts,
    /// How many runs have begun: an earlier one that is still there stores nothing more.
    pub run: i64,
}

/// Why the progress cannot be read.
#[derive(Debug)]
pub enum Unreadable {
    /// The database says so.
    Database(rusqlite::Error),
    /// This part of it cannot be right.
    Damaged(String),
}

impl From<rusqlite::Error> for Unreadable {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => error.fmt(f),
            Self::Damaged(what) => write!(f, "the checkpoint cannot be decoded: {what}"),
        }
    }
}

impl Progress {
    /// Nothing is read yet.
    pub fn none(input: Identity) -> Self {
        let nothing = Checkpoint::from_parts(None, []).expect("there is no range to be wrong");
        Self { input, checkpoint: nothing, read_to: 0, counts: Counts::default(), run: 0 }
    }

    /// Begins a run: it goes on from what was stored last or, if there is nothing, begins with `input`.
    ///
    /// # Errors
    ///
    /// If the database cannot be read or written, or what is in it cannot be right.
    pub fn begin(
        connection: &Connection,
        input: Identity,
    ) -> std::result::Result<Self, Unreadable> {
        let mut progress = Self::load(connection)?.unwrap_or_else(|| Self::none(input));
        progress.run += 1;
        progress.write(connection, BEGIN)?;
        Ok(progress)
    }

    /// Reads it; `None` before the first run. Makes the tables if they are not there.
    ///
    /// # Errors
    ///
    /// If the database cannot be read or written, or what is in it cannot be right.
    pub fn load(connection: &Connection) -> std::result::Result<Option<Self>, Unreadable> {
        connection.execute_batch(SCHEMA)?;
        // Tables of another shape are met here rather than at the first line.
        [BEGIN, STORE, SEEN, INSERT, WAITING]
            .iter()
            .try_for_each(|sql| connection.prepare(sql).map(drop))?;
        let columns = "SELECT input, checkpoint, read_to, counts, run FROM progress";
        let row = connection.query_row(columns, [], |row| {
            let texts: [String; 3] = [row.get(0)?, row.get(1)?, row.get(3)?];
            Ok((texts, row.get::<_, i64>(2)?, row.get(4)?))
        });
        let Some(([input, checkpoint, counts], read_to, run)) = row.optional()? else {
            return Ok(None);
        };
        let damaged = |what| move |why: serde_json::Error| damaged(what, &why);
        let progress = Self {
            input: serde_json::from_str(&input).map_err(damaged("input"))?,
            checkpoint: serde_json::from_str(&checkpoint).map_err(damaged("checkpoint"))?,
            read_to: read_to.try_into().map_err(|why| self::damaged("read_to", &why))?,
            run,
            counts: counts_from(&serde_json::from_str(&counts).map_err(damaged("counts"))?)?,
        };
        let waiting = "SELECT count(*) FROM waiting";
        let waiting: i64 = connection.query_row(waiting, [], |row| row.get(0))?;
        if waiting != progress.counts.of(Category::Waiting) {
            return Err(self::damaged("counts", &format!("{waiting} lines wait")));
        }
        Ok(Some(progress))
    }

    /// Stores how far this run has come.
    ///
    /// # Errors
    ///
    /// Whatever SQLite says; [`StatementChangedRows`](rusqlite::Error::StatementChangedRows) if another
    /// run has begun since.
    pub fn store(&self, connection: &Connection) -> Result<()> {
        match self.write(connection, STORE)? {
            1 => Ok(()),
            rows => Err(rusqlite::Error::StatementChangedRows(rows)),
        }
    }

    fn write(&self, connection: &Connection, sql: &str) -> Result<usize> {
        let to_json = |error| rusqlite::Error::ToSqlConversionFailure(Box::new(error));
        let input = serde_json::to_string(&self.input).map_err(to_json)?;
        let checkpoint = serde_json::to_string(&self.checkpoint).map_err(to_json)?;
        let counts: Map<String, Value> = Category::ALL
            .into_iter()
            .map(|category| (category.name().to_owned(), self.counts.of(category).into()))
            .collect();
        let read_to = i64::try_from(self.read_to).unwrap_or(i64::MAX);
        let counts = Value::Object(counts).to_string();
        let row = params![input, checkpoint, read_to, counts, self.run];
        connection.prepare_cached(sql)?.execute(row)
    }
}

fn damaged(what: &str, why: &impl fmt::Display) -> Unreadable {
    Unreadable::Damaged(format!("{what}: {why}"))
}

fn counts_from(json: &Map<String, Value>) -> std::result::Result<Counts, Unreadable> {
    let mut counts = Counts::default();
    for (name, lines) in json {
        let category = Category::ALL.into_iter().find(|category| category.name() == name);
        let lines = lines.as_i64().filter(|lines| *lines >= 0);
        let (Some(category), Some(lines)) = (category, lines) else {
            return Err(damaged("counts", &name));
        };
        counts.add(category, lines);
    }
    Ok(counts)
}

/// A child begins to wait.
///
/// # Errors
///
/// Whatever SQLite says.
pub fn insert(connection: &Connection, held: &Held) -> Result<()> {
    let Held { number, child: Child { relation, uri, author, subject } } = held;
    let arrived = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let arrived = i64::try_from(arrived).unwrap_or(i64::MAX);
    let row = params![number.cast_signed(), relation.name(), uri, author, subject, arrived];
    connection.prepare_cached(INSERT)?.execute(row)?;
    Ok(())
}

/// A child waits no longer.
///
/// # Errors
///
/// Whatever SQLite says.
pub fn remove(connection: &Connection, number: u64) -> Result<()> {
    let sql = "DELETE FROM waiting WHERE number = ?1";
    let rows = connection.prepare_cached(sql)?.execute([number.cast_signed()])?;
    debug_assert_eq!(rows, 1, "child {number} does not wait");
    Ok(())
}

/// Children that wait, from the one after number `after` on, `most` of them; and for how long they have.
///
/// # Errors
///
/// Whatever SQLite says.
pub fn waiting(connection: &Connection, after: u64, most: u32) -> Result<Vec<(Held, Duration)>> {
    let now = SystemTime::now();
    let mut rows = connection.prepare_cached(WAITING)?;
    let rows = rows.query_map(params![after.cast_signed(), most], |row| {
        let relation = row.get_ref(1)?.as_str()?;
        let relation = Relation::ALL.into_iter().find(|known| known.name() == relation);
        let relation = relation.ok_or(rusqlite::Error::InvalidQuery)?;
        let child = Child { relation, uri: row.get(2)?, author: row.get(3)?, subject: row.get(4)? };
        let arrived =
            UNIX_EPOCH + Duration::from_millis(row.get::<_, i64>(5)?.max(0).cast_unsigned());
        // A clock that was set back makes them young, never older than they are.
        let age = now.duration_since(arrived).unwrap_or_default();
        Ok((Held { child, number: row.get::<_, i64>(0)?.cast_unsigned() }, age))
    })?;
    rows.collect()
}

/// An event of a live stream came.
///
/// # Errors
///
/// Whatever SQLite says.
pub fn see(connection: &Connection, seen: &Seen) -> Result<()> {
    let Seen { end, key } = seen;
    let row = params![end.line.cast_signed(), end.offset.cast_signed(), key];
    connection.prepare_cached(SEEN)?.execute(row)?;
    Ok(())
}

/// The events up to this number come no more.
///
/// # Errors
///
/// Whatever SQLite says.
pub fn forget(connection: &Connection, number: u64) -> Result<()> {
    let sql = "DELETE FROM recent WHERE number <= ?1";
    connection.prepare_cached(sql)?.execute([number.cast_signed()])?;
    Ok(())
}

/// The events that came and are done. The others will come again as new ones, and are forgotten.
///
/// # Errors
///
/// Whatever SQLite says.
pub fn done_recently(connection: &Connection, done: &Checkpoint<Place>) -> Result<Vec<Seen>> {
    let mut rows =
        connection.prepare("SELECT number, cursor, event FROM recent ORDER BY number")?;
    let rows = rows.query_map([], |row| {
        let (line, offset): (i64, i64) = (row.get(0)?, row.get(1)?);
        let end = Place { line: line.cast_unsigned(), offset: offset.cast_unsigned() };
        Ok(Seen { end, key: row.get(2)? })
    })?;
    let mut events = rows.collect::<Result<Vec<_>>>()?;
    let mut delete = connection.prepare("DELETE FROM recent WHERE number = ?1")?;
    for seen in &events {
        if !done.is_complete(seen.end.line) {
            delete.execute([seen.end.line.cast_signed()])?;
        }
    }
    events.retain(|seen| done.is_complete(seen.end.line));
    Ok(events)
}
