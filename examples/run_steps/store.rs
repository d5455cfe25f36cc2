//! The database: one connection, since SQLite has one writer at a time anyway.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Result};

use crate::program::database;

/// Where steps are.
#[derive(Debug)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
}

impl Store {
    /// Opens a database, or makes one.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = database::open(path)?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS steps (
                 id INTEGER PRIMARY KEY,
                 run TEXT NOT NULL,
                 idempotency_key TEXT NOT NULL UNIQUE,
                 enqueued INTEGER NOT NULL DEFAULT 0
             );",
        )?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    /// Creates a step unless there is one with its key; its number either way.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub async fn create(&self, run: &str, key: &str) -> Result<i64> {
        self.with(|connection| {
            connection
                .prepare_cached(
                    "INSERT INTO steps (run, idempotency_key) VALUES (?1, ?2)
                     ON CONFLICT (idempotency_key) DO UPDATE SET run = run
                     RETURNING id",
                )?
                .query_row((run, key), |row| row.get(0))
        })
    }

    /// Marks a step as enqueued.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub async fn enqueue(&self, step: i64) -> Result<()> {
        self.with(|connection| {
            connection
                .prepare_cached("UPDATE steps SET enqueued = 1 WHERE id = ?1")?
                .execute([step])
        })?;
        Ok(())
    }

    /// How many steps a run has, all of which are enqueued.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub async fn count(&self, run: &str) -> Result<usize> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT count(*) FROM steps WHERE run = ?1 AND enqueued = 1")?
                .query_row([run], |row| row.get::<_, u32>(0))
                .map(|count| count as usize)
        })
    }

    /// Each call is a few microseconds, which is not worth a thread of its own.
    fn with<T>(&self, call: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        call(&self.connection.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
