//! The built programs, from outside.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

pub(crate) const NAMES: [&str; 4] = ["ingest", "chat_rooms", "notify_users", "run_steps"];

/// The program beside this test's own.
pub(crate) fn command(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(path.exists(), "`cargo test` builds it; `--test` alone does not");
    Command::new(path)
}

/// Runs it to its end: its status, what it printed and what it complained about.
pub(crate) fn finish(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code(), out, err)
}

pub(crate) fn until(so: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < limit, "it does not begin");
        std::thread::yield_now();
    }
}

pub(crate) fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Whether there is a row in the temporary database.
pub(crate) fn has_row(temporary: &Path, of: &str) -> bool {
    let found = || {
        let folder = std::fs::read_dir(temporary).ok()?.next()?.ok()?;
        let file = std::fs::read_dir(folder.path()).ok()?.find_map(|file| {
            let path = file.ok()?.path();
            path.extension().is_some_and(|extension| extension == "db").then_some(path)
        })?;
        let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database = Connection::open_with_flags(file, read_only).ok()?;
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {of})");
        database.query_row(&sql, (), |row| row.get(0)).ok()
    };
    found().unwrap_or(false)
}

#[cfg(unix)]
pub(crate) fn send(signal: &str, child: &Child) {
    let kill = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
}
