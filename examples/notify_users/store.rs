//! The users, and what became of each.

use std::path::Path;

use rusqlite::{Connection, Params, Result};

/// Users are `NULL` until they are notified, or failed with a reason.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

impl Store {
    /// Opens a database, or makes one with so many users.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn open(path: &Path, users: usize) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             CREATE TABLE IF NOT EXISTS users (
                 id INTEGER PRIMARY KEY,
                 times_notified INTEGER NOT NULL DEFAULT 0,
                 failure TEXT
             );",
        )?;
        let empty: bool =
            connection
                .query_row("SELECT NOT EXISTS (SELECT 1 FROM users)", (), |row| row.get(0))?;
        if empty {
            connection.execute(
                "INSERT INTO users (id)
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                 SELECT i FROM n WHERE i <= ?1",
                [users as i64],
            )?;
        }
        Ok(Self { connection })
    }

    /// The next users behind `after` that are neither notified nor failed.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn page(&self, after: i64, most: usize) -> Result<Vec<i64>> {
        self.connection
            .prepare_cached(
                "SELECT id FROM users
                 WHERE id > ?1 AND times_notified = 0 AND failure IS NULL
                 ORDER BY id LIMIT ?2",
            )?
            .query_map((after, most as i64), |row| row.get(0))?
            .collect()
    }

    /// The user was notified; whether it is not by another run that this was written before.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn notified(&self, user: i64) -> Result<bool> {
        self.settle("UPDATE users SET times_notified = times_notified + 1", (user,))
    }

    /// Notifying the user failed for good; whether another run had not settled it before.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn failed(&self, user: i64, reason: &str) -> Result<bool> {
        self.settle("UPDATE users SET failure = ?2", (user, reason))
    }

    fn settle(&self, update: &str, parameters: impl Params) -> Result<bool> {
        let sql = format!("{update} WHERE id = ?1 AND times_notified = 0 AND failure IS NULL");
        let settled = self.connection.prepare_cached(&sql)?.execute(parameters)?;
        Ok(settled == 1)
    }

    /// How many are neither notified nor failed.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn left(&self) -> Result<u32> {
        let sql = "SELECT count(*) FROM users WHERE times_notified = 0 AND failure IS NULL";
        self.connection.query_row(sql, (), |row| row.get(0))
    }

    /// Those who failed, in order, each with the reason, for as long as `told` asks for more.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn each_failed(&self, mut told: impl FnMut(i64, &str) -> bool) -> Result<()> {
        let sql = "SELECT id, failure FROM users WHERE failure IS NOT NULL ORDER BY id";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            if !told(row.get(0)?, row.get_ref(1)?.as_str()?) {
                break;
            }
        }
        Ok(())
    }

    /// How many were notified once, how many more than once, and how many failed.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn counts(&self) -> Result<(u32, u32, u32)> {
        self.connection.query_row(
            "SELECT count(*) FILTER (WHERE times_notified = 1),
                    count(*) FILTER (WHERE times_notified > 1),
                    count(failure)
             FROM users",
            (),
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
    }
}
