//! The users, what became of each, and which run has claimed it.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Params, Result, TransactionBehavior, params};

use crate::program::database;

/// A user that is neither notified nor failed.
const UNSETTLED: &str = "times_notified = 0 AND failure IS NULL";

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS users (
        id INTEGER PRIMARY KEY,
        times_notified INTEGER NOT NULL DEFAULT 0,
        failure TEXT,
        claimed_by INTEGER
    );
    CREATE INDEX IF NOT EXISTS unsettled ON users (id)
        WHERE times_notified = 0 AND failure IS NULL;
    -- AUTOINCREMENT: an identity is never used again, so that no claim changes its owner.
    CREATE TABLE IF NOT EXISTS runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        lease_until_ms INTEGER NOT NULL
    );";

/// A connection, and the run whose claims it makes.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    run: i64,
}

impl Store {
    /// Opens a database, or makes one with so many users, and registers a run in it, which has no
    /// lease yet. Several may do so at once.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn open(path: &Path, users: usize) -> Result<Self> {
        let mut connection = database::open(path)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        add_claims(&transaction)?;
        transaction.execute_batch(SCHEMA)?;
        transaction.execute(
            "INSERT INTO users (id)
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             SELECT i FROM n WHERE i <= ?1 AND NOT EXISTS (SELECT 1 FROM users)",
            [users as i64],
        )?;
        transaction.execute("INSERT INTO runs (lease_until_ms) VALUES (0)", ())?;
        let run = transaction.last_insert_rowid();
        transaction.commit()?;
        Ok(Self { connection, run })
    }

    /// Extends this run's lease until `lease` from now. Its claims are good for as long.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn renew(&self, lease: Duration) -> Result<()> {
        let until = now_ms().saturating_add(lease.as_millis() as i64);
        self.connection
            .prepare_cached("UPDATE runs SET lease_until_ms = ?2 WHERE id = ?1")?
            .execute((self.run, until))?;
        Ok(())
    }

    /// Claims the next users behind `after` that are neither settled nor claimed by a run with a
    /// lease, this one included, and returns them in order.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn claim(&self, after: i64, most: usize) -> Result<Vec<i64>> {
        let sql = format!(
            "UPDATE users SET claimed_by = ?1
             WHERE id IN (
                 SELECT id FROM users
                 WHERE id > ?2 AND {UNSETTLED} AND claimed_by IS NOT ?1 AND (
                     claimed_by IS NULL
                     OR claimed_by NOT IN (SELECT id FROM runs WHERE lease_until_ms > ?3)
                 )
                 ORDER BY id LIMIT ?4
             )
             RETURNING id"
        );
        let users = self
            .connection
            .prepare_cached(&sql)?
            .query_map(params![self.run, after, now_ms(), most as i64], |row| row.get(0))?
            .collect::<Result<Vec<_>>>();
        users.map(|mut users| {
            users.sort_unstable();
            users
        })
    }

    /// Whether other runs have claimed users that are not settled.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn others_at_work(&self) -> Result<bool> {
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM users WHERE {UNSETTLED} AND claimed_by IS NOT ?1)"
        );
        self.connection.prepare_cached(&sql)?.query_row([self.run], |row| row.get(0))
    }

    /// Ends this run: what it has claimed and not settled may be claimed by others.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn release(&self) -> Result<()> {
        self.connection.execute("DELETE FROM runs WHERE id = ?1", [self.run])?;
        Ok(())
    }

    /// The user was notified; whether it was this run's claim and not yet settled.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn notified(&self, user: i64) -> Result<bool> {
        self.settle("UPDATE users SET times_notified = times_notified + 1", (user,))
    }

    /// Notifying the user failed for good; whether it was not yet settled.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn failed(&self, user: i64, reason: &str) -> Result<bool> {
        self.settle("UPDATE users SET failure = ?2", (user, reason))
    }

    fn settle(&self, update: &str, parameters: impl Params) -> Result<bool> {
        let sql = format!("{update} WHERE id = ?1 AND {UNSETTLED}");
        let settled = self.connection.prepare_cached(&sql)?.execute(parameters)?;
        Ok(settled == 1)
    }

    /// How many are neither notified nor failed.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn left(&self) -> Result<u32> {
        let sql = format!("SELECT count(*) FROM users WHERE {UNSETTLED}");
        self.connection.query_row(&sql, (), |row| row.get(0))
    }

    /// Calls `each` with every user that failed, in order, with the reason, until it returns false.
    ///
    /// # Errors
    ///
    /// Of the database.
    pub fn each_failed(&self, mut each: impl FnMut(i64, &str) -> bool) -> Result<()> {
        let sql = "SELECT id, failure FROM users WHERE failure IS NOT NULL ORDER BY id";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            if !each(row.get(0)?, row.get_ref(1)?.as_str()?) {
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

/// A database of a version without claims gets their column.
fn add_claims(connection: &Connection) -> Result<()> {
    let sql = "SELECT (SELECT count(*) FROM pragma_table_info('users')) > 0
               AND NOT EXISTS (SELECT 1 FROM pragma_table_info('users') WHERE name = 'claimed_by')";
    if connection.query_row(sql, (), |row| row.get(0))? {
        connection.execute_batch("ALTER TABLE users ADD COLUMN claimed_by INTEGER")?;
    }
    Ok(())
}

/// Processes on one machine share this clock.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(i64::MAX)
}
