//! The database: SQLite in WAL mode, one connection that writes and one that looks.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Result, Transaction, TransactionBehavior, params};

use super::event::{Child, Id, Parent, Post, Relation};
use crate::program::database;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS users (did TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS posts (
        uri TEXT PRIMARY KEY, author TEXT NOT NULL, reply_parent TEXT, reply_root TEXT
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS likes (
        uri TEXT PRIMARY KEY, author TEXT NOT NULL, subject TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS reposts (
        uri TEXT PRIMARY KEY, author TEXT NOT NULL, subject TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS follows (
        uri TEXT PRIMARY KEY, author TEXT NOT NULL, subject TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS blocks (
        uri TEXT PRIMARY KEY, author TEXT NOT NULL, subject TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS likes_subject ON likes (subject);
    CREATE INDEX IF NOT EXISTS reposts_subject ON reposts (subject);
";

/// The statements for one table of children.
struct Children {
    insert: &'static str,
    delete: &'static str,
    subject: &'static str,
}

macro_rules! children {
    ($table:literal of $parents:literal by $key:literal) => {
        &Children {
            // A child whose parent's own write failed is not stored without it.
            insert: concat!(
                "INSERT OR IGNORE INTO ",
                $table,
                " SELECT ?1, ?2, ?3",
                " WHERE EXISTS (SELECT 1 FROM ",
                $parents,
                " WHERE ",
                $key,
                " = ?3)"
            ),
            delete: concat!("DELETE FROM ", $table, " WHERE uri = ?1"),
            subject: concat!("SELECT subject FROM ", $table, " WHERE uri = ?1"),
        }
    };
}

fn children(relation: Relation) -> &'static Children {
    match relation {
        Relation::Like => children!("likes" of "posts" by "uri"),
        Relation::Repost => children!("reposts" of "posts" by "uri"),
        Relation::Follow => children!("follows" of "users" by "did"),
        Relation::Block => children!("blocks" of "users" by "did"),
    }
}

/// Pages that gather in the write-ahead log before they are copied to the database: many transactions
/// write the same pages, which then are copied, and synced, once.
const CHECKPOINT_PAGES: i64 = 16 * 1024;

/// Pages of SQLite's own cache, in KiB a connection, so that memory does not follow the database.
const CACHE_KIB: i64 = 8 * 1024;

/// How long a transaction waits for another process's: it is tried again after that.
const BUSY: Duration = Duration::from_secs(5);

/// One change to the database.
#[derive(Debug)]
pub enum Op {
    /// A user appears.
    User(Id),
    /// A post appears.
    Post(Post),
    /// A child appears; its parent existed when it was accepted.
    Child(Child),
    /// A post goes, and with it the likes and reposts on it.
    DeletePost(Id),
    /// A child goes.
    DeleteChild(Relation, Id),
}

impl Op {
    /// What it is about.
    pub fn name(&self) -> Name {
        match self {
            Self::User(did) => Name::Parent(Parent::User, did.clone()),
            Self::Post(Post { uri, .. }) | Self::DeletePost(uri) => {
                Name::Parent(Parent::Post, uri.clone())
            }
            Self::Child(Child { uri, .. }) | Self::DeleteChild(_, uri) => Name::Child(uri.clone()),
        }
    }
}

/// What names a row. A subject is whatever its author wrote, so that only the kind tells a post's
/// URI from a user's DID or from a like's URI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Name {
    /// A user by its DID, or a post by its URI.
    Parent(Parent, Id),
    /// A child by its URI.
    Child(Id),
}

/// What an [`Op`] turned out to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The row is new.
    Stored,
    /// The row was there.
    Duplicate,
    /// The child's parent is not there after all: its own write must have failed.
    ParentLost,
    /// At least one row went.
    Deleted,
    /// There was no row to go.
    NothingToDelete,
}

/// The connection that writes.
#[derive(Debug)]
pub struct Writer(Connection);

/// The connection that looks. In WAL mode it neither waits for the writer nor holds it up, and sees
/// whatever was committed before it asks.
#[derive(Debug)]
pub struct Reader(Connection);

/// Opens the database, making it if it is not there.
///
/// # Errors
///
/// If it cannot be opened, is not a database, has other tables by these names, or cannot be put in
/// WAL mode.
pub fn open(path: &Path) -> Result<(Writer, Reader)> {
    let mut writer = connect(path)?;
    // The lock first: SQLite waits for it, and not for a lock on top of a read.
    let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.commit()?;
    let reader = connect(path)?;
    reader.pragma_update(None, "query_only", true)?;

    let (mut writer, reader) = (Writer(writer), Reader(reader));
    // Tables of another shape are met here rather than at the first event.
    writer.check_tables()?;
    Ok((writer, reader))
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = database::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

impl Writer {
    /// The connection itself.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.0
    }

    /// Begins a transaction. Takes the write lock at once, since only there SQLite waits for another process's.
    ///
    /// # Errors
    ///
    /// Whatever SQLite says: that it is busy, say.
    pub fn begin(&mut self) -> Result<Transaction<'_>> {
        self.0.transaction_with_behavior(TransactionBehavior::Immediate)
    }

    /// One of each, undone at once.
    fn check_tables(&mut self) -> Result<()> {
        let transaction = self.begin()?;
        let id = || Id::from("");
        apply(&transaction, &Op::User(id()))?;
        let (reply_parent, reply_root) = (None, None);
        apply(&transaction, &Op::Post(Post { uri: id(), author: id(), reply_parent, reply_root }))?;
        for relation in Relation::ALL {
            let child = Child { relation, uri: id(), author: id(), subject: id() };
            apply(&transaction, &Op::Child(child))?;
            apply(&transaction, &Op::DeleteChild(relation, id()))?;
        }
        apply(&transaction, &Op::DeletePost(id()))?;
        transaction.rollback()
    }
}

/// Makes a change, and says what it did.
///
/// # Errors
///
/// Whatever SQLite says: a full disk, say.
pub fn apply(connection: &Connection, op: &Op) -> Result<Effect> {
    let run =
        |sql, params: &[&dyn rusqlite::ToSql]| connection.prepare_cached(sql)?.execute(params);
    let stored = |rows| if rows == 0 { Effect::Duplicate } else { Effect::Stored };
    let deleted = |rows| if rows == 0 { Effect::NothingToDelete } else { Effect::Deleted };
    Ok(match op {
        Op::User(did) => stored(run("INSERT OR IGNORE INTO users VALUES (?1)", params![did])?),
        Op::Post(Post { uri, author, reply_parent, reply_root }) => stored(run(
            "INSERT OR IGNORE INTO posts VALUES (?1, ?2, ?3, ?4)",
            params![uri, author, reply_parent, reply_root],
        )?),
        Op::Child(Child { relation, uri, author, subject }) => {
            let rows = run(children(*relation).insert, params![uri, author, subject])?;
            if rows == 0 && subject_of(connection, *relation, uri)?.is_none() {
                return Ok(Effect::ParentLost);
            }
            stored(rows)
        }
        Op::DeletePost(uri) => deleted(
            run("DELETE FROM likes WHERE subject = ?1", params![uri])?
                + run("DELETE FROM reposts WHERE subject = ?1", params![uri])?
                + run("DELETE FROM posts WHERE uri = ?1", params![uri])?,
        ),
        Op::DeleteChild(relation, uri) => deleted(run(children(*relation).delete, params![uri])?),
    })
}

impl Reader {
    /// Whether this post or user is stored.
    ///
    /// # Errors
    ///
    /// Whatever SQLite says.
    pub fn has(&self, parent: Parent, id: &str) -> Result<bool> {
        let sql = match parent {
            Parent::Post => "SELECT 1 FROM posts WHERE uri = ?1",
            Parent::User => "SELECT 1 FROM users WHERE did = ?1",
        };
        self.0.prepare_cached(sql)?.exists(params![id])
    }

    /// What a stored child refers to, if it is stored.
    ///
    /// # Errors
    ///
    /// Whatever SQLite says.
    pub fn subject_of(&self, relation: Relation, uri: &str) -> Result<Option<Id>> {
        subject_of(&self.0, relation, uri)
    }

    /// The connection itself.
    pub fn connection(&self) -> &Connection {
        &self.0
    }
}

fn subject_of(connection: &Connection, relation: Relation, uri: &str) -> Result<Option<Id>> {
    let sql = children(relation).subject;
    connection.prepare_cached(sql)?.query_row(params![uri], |row| row.get(0)).optional()
}
