//! SQLite databases: where they are, and how they are opened while others open them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, Result};
use tempfile::TempDir;

use super::Error;

/// How long a program waits for another that has the database locked.
pub const BUSY: Duration = Duration::from_secs(60);

/// Where a database is. A temporary one is removed when this is dropped.
#[derive(Debug)]
pub struct Location {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

impl Location {
    /// The path that was chosen, or a file called `name` in a temporary folder.
    ///
    /// # Errors
    ///
    /// If there can be no temporary folder.
    pub fn new(chosen: Option<&Path>, name: &str) -> std::result::Result<Self, Error> {
        if let Some(path) = chosen {
            return Ok(Self { path: path.to_owned(), _temporary: None });
        }
        let folder = tempfile::tempdir().map_err(|error| {
            Error::Unusable(format!("no temporary folder can be made: {error}"))
        })?;
        Ok(Self { path: folder.path().join(name), _temporary: Some(folder) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A database error, with the path in front.
    pub fn named(&self, error: impl std::fmt::Display) -> String {
        format!("{}: {error}", self.path.display())
    }
}

/// Opens a database, making it if it is not there, in WAL mode.
///
/// # Errors
///
/// Of the database; or if it cannot be put in WAL mode.
pub fn open(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let until = Instant::now() + BUSY;
    loop {
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
        match mode {
            Ok(mode @ String { .. }) if mode == "wal" => return Ok(connection),
            Ok(_) => {
                let cannot_open = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
                let why = "it cannot be put in WAL mode".to_owned();
                return Err(rusqlite::Error::SqliteFailure(cannot_open, Some(why)));
            }
            // Where two change the mode at once, SQLite refuses one of them without waiting.
            Err(error) if is_busy(&error) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether another program has the database locked.
pub fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether the same statement would fail again whatever it writes: a full disk, say.
pub fn is_permanent(error: &rusqlite::Error) -> bool {
    use ErrorCode::{
        CannotOpen, DatabaseCorrupt, DiskFull, NotADatabase, PermissionDenied, ReadOnly,
        SystemIoFailure,
    };
    matches!(
        error.sqlite_error_code(),
        Some(
            CannotOpen
                | DatabaseCorrupt
                | DiskFull
                | NotADatabase
                | PermissionDenied
                | ReadOnly
                | SystemIoFailure
        )
    )
}
