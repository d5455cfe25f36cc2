//! The program from the outside: arguments, streams, exit status.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use sluicegate_examples::ingest::cli;
use sluicegate_examples::ingest::tally::Category;
use tempfile::TempDir;

/// Runs the program within the test: its status, what it printed and what it complained about.
pub(crate) fn ingest(arguments: &[&str]) -> (u8, String, String) {
    let arguments = std::iter::once("ingest").chain(arguments.iter().copied());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = cli::run(arguments.map(OsString::from), &mut out, &mut err);
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn refused(arguments: &[&str]) -> String {
    let (status, out, err) = ingest(arguments);
    assert_eq!(status, 2, "{arguments:?}: {out}{err}");
    assert_eq!((out.as_str(), err.lines().count()), ("", 1), "{arguments:?}: {err}");
    err
}

pub(crate) fn summary(arguments: &[&str]) -> Value {
    let (status, out, err) = ingest(&[arguments, &["--json"]].concat());
    let complaints = err.lines().filter(|line| !line.starts_with("ingest: note: ")).count();
    assert_eq!((status, complaints), (0, 0), "{out}{err}");
    flat(&out)
}

/// The last line of what was printed, which must be one flat object that adds up.
pub(crate) fn flat(out: &str) -> Value {
    let json: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let fields = json.as_object().unwrap();
    assert!(fields.values().all(|value| !value.is_object() && !value.is_array()), "{json}");
    let sum: u64 =
        Category::ALL.iter().map(|category| json[category.name()].as_u64().unwrap()).sum();
    assert_eq!(json["read"], sum, "{json}");
    json
}

/// The built program, beside this test's own.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/ingest");
    assert!(path.exists(), "`cargo test` builds it; `cargo test --test ingest` alone does not");
    path
}

pub(crate) fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

pub(crate) const POST: &str = r#"{"did":"did:plc:a","kind":"commit","commit":{"operation":"create","collection":"app.bsky.feed.post","rkey":"1","record":{}}}"#;
pub(crate) const IDENTITY: &str = r#"{"did":"did:plc:a","kind":"identity"}"#;

pub(crate) fn file(folder: &Path, lines: &str) -> String {
    let path = folder.join("lines.jsonl");
    fs::write(&path, lines).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_live_source_that_is_slow_enough_loses_nothing() {
    let json = summary(&["--events", "500", "--lookup-ms", "0", "--live", "--rate", "100000"]);
    assert_eq!((&json["read"], &json["dropped"]), (&500.into(), &0.into()));
    assert_eq!(json["queue_popped"], 500);
    let waiting = summary(&["--events", "500", "--lookup-ms", "0"]);
    assert_eq!((&waiting["dropped"], waiting.get("queue_popped")), (&0.into(), None));
}

#[test]
fn a_rate_is_that_of_a_live_source() {
    assert!(refused(&["--rate", "5"]).contains("--live"));
    assert!(refused(&["--live", "--rate", "0"]).contains("--rate"));
}

#[test]
fn help_says_what_there_is_to_choose() {
    let (status, out, err) = ingest(&["--help"]);
    assert_eq!((status, err.as_str()), (0, ""));
    for option in [
        "--input",
        "--db",
        "--events",
        "--seed",
        "--permits",
        "--lookup-ms",
        "--pending-keys",
        "--live",
        "--rate",
        "--pending-items",
        "--ttl",
        "--json",
        "--busy-wait",
        "--resume",
        "--url",
        "--collections",
        "--cursor",
    ] {
        assert!(out.contains(option), "{option}\n{out}");
    }
}

/// As `head` does to it.
#[test]
fn help_that_is_not_read_to_its_end_is_no_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut err = Vec::new();
    let status = cli::run(["ingest", "--help"].map(OsString::from), &mut Closed, &mut err);
    assert_eq!((status, String::from_utf8(err).unwrap().as_str()), (0, ""));
}

#[test]
fn bad_arguments_are_refused_in_one_line() {
    for (arguments, named) in [
        (&["--frobnicate"][..], "--frobnicate"),
        (&["stray"], "stray"),
        (&["--events", "many"], "--events"),
        (&["--events", "-1"], "-1"),
        (&["--permits", "0"], "--permits"),
        (&["--pending-keys", "0"], "--pending-keys"),
        (&["--pending-items", "0"], "--pending-items"),
        (&["--pending-keys", "4294967295", "--events", "1"], "`--pending-keys` is 4294967295"),
        (&["--pending-keys", "4000000000", "--events", "1"], "`--pending-items` is 100"),
        (&["--input", "-", "--events", "1"], "'--input <FILE>' cannot be used with '--events <N>'"),
        (&["--seed", "1", "--input", "-"], "'--input <FILE>'"),
        (&["--input", "-", "--events", "1", "--seed", "1"], "--seed <N>"),
        (&["--ttl", "0"], "--ttl"),
        (&["--lookup-ms", "fast"], "--lookup-ms"),
        (&["--input"], "--input"),
    ] {
        let err = refused(arguments);
        assert!(err.contains(named), "{arguments:?}: {err}");
    }
}

#[test]
fn unusable_files_are_refused_in_one_line() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    refused(&["--input", &at("missing.jsonl")]);
    refused(&["--input", &at("")]);
    refused(&["--events", "1", "--db", &at("missing/ingest.db")]);
    refused(&["--events", "1", "--db", &at("")]);
    refused(&["--events", "1", "--db", ":memory:"]);
    fs::write(folder.path().join("text.db"), "no database at all, but long enough to look")
        .unwrap();
    refused(&["--events", "1", "--db", &at("text.db")]);
    let other = rusqlite::Connection::open(folder.path().join("other.db")).unwrap();
    other.execute_batch("CREATE TABLE likes (something, other)").unwrap();
    refused(&["--events", "1", "--db", &at("other.db")]);
}

#[test]
fn no_events_are_a_run_too() {
    let json = summary(&["--events", "0"]);
    assert_eq!(json["read"], 0);
    let folder = TempDir::new().unwrap();
    assert_eq!(summary(&["--input", &file(folder.path(), "")])["read"], 0);
}

#[test]
fn the_largest_values_are_no_trouble() {
    let most = u64::MAX.to_string();
    let json = summary(&["--events", "50", "--lookup-ms", "0", "--ttl", &most, "--seed", &most]);
    assert_eq!(json["read"], 50);
}

#[test]
fn malformed_lines_are_shown_with_their_number_and_the_run_goes_on() {
    let folder = TempDir::new().unwrap();
    let lines = format!("\n{POST}\nnonsense\n   \n{IDENTITY}\n{{}}\n{POST}\n");
    let input = file(folder.path(), &lines);
    let (status, out, err) = ingest(&["--input", &input, "--json"]);
    let shown: Vec<_> = err.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!((status, shown), (0, vec!["malformed line 3", "malformed line 6"]), "{err}");
    let json = flat(&out);
    for (name, count) in
        [("read", 5), ("stored", 1), ("malformed", 2), ("ignored", 1), ("duplicate", 1)]
    {
        assert_eq!(json[name], count, "{name}: {json}");
    }
    let number = file(folder.path(), "1\n");
    let (_, _, err) = ingest(&["--input", &number]);
    assert!(err.contains("expected a JSON object"), "{err}");
    let many = file(folder.path(), &"nonsense\n".repeat(1_000));
    let (status, _, err) = ingest(&["--input", &many]);
    // Nothing of it was of any use.
    assert_eq!((status, err.lines().count()), (1, 6), "{err}");
    assert!(err.ends_with("ingest: all 1000 lines are malformed\n"), "{err}");
}

#[test]
fn a_database_is_gone_on_with() {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("ingest.db").to_str().unwrap().to_owned();
    let arguments = ["--events", "3000", "--lookup-ms", "0", "--db", &db];
    let first = summary(&arguments);
    let second = summary(&arguments);
    assert_eq!(second["users_created"], 0, "{second}");
    assert_eq!(second["waiting"], first["waiting"]);
    assert!(second["duplicate"].as_u64() > first["stored"].as_u64(), "{first}\n{second}");
}

#[test]
fn standard_input_is_read_to_its_end() {
    let mut child = start(&["--input", "-", "--json"]);
    child.stdin.take().unwrap().write_all(format!("{POST}\r\n\n{IDENTITY}").as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert_eq!((status.code(), String::from_utf8_lossy(&stderr)), (Some(0), "".into()));
    let json = flat(&String::from_utf8(stdout).unwrap());
    assert_eq!((&json["read"], &json["stored"]), (&2.into(), &1.into()), "{json}");
}

#[test]
fn the_program_exits_with_status_2_too() {
    let output = start(&["--frobnicate"]).wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1);
}

#[cfg(unix)]
pub(crate) fn send(signal: &str, child: &Child) {
    let kill = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
}

#[cfg(unix)]
#[test]
fn an_interrupt_drains() {
    drains_at("-INT");
}

#[cfg(unix)]
#[test]
fn a_request_to_terminate_drains_too() {
    drains_at("-TERM");
}

/// Its input stays open, so that only the signal can end it; what it had read is stored.
#[cfg(unix)]
fn drains_at(signal: &str) {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("ingest.db");
    let mut child = start(&["--input", "-", "--json", "--db", db.to_str().unwrap()]);
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{POST}").unwrap();
    // It listens for the signal before it reads, so once there is a row it does.
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let posts = || {
        let read_only = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database = rusqlite::Connection::open_with_flags(&db, read_only)?;
        database.query_row("SELECT count(*) FROM posts", [], |row| row.get::<_, i64>(0))
    };
    while posts() != Ok(1) {
        assert!(std::time::Instant::now() < limit, "the row does not come");
        std::thread::yield_now();
    }
    send(signal, &child);
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    let (last, before) = err.trim_end().rsplit_once('\n').map_or((&*err, ""), |(a, b)| (b, a));
    assert_eq!(last.trim_end(), "ingest: interrupted (lines read: 1)", "{err}");
    // The row may have gone all the way before the signal came: then nothing is left to drain.
    assert!(before.is_empty() || before.contains("finishing"), "{err}");
    let json = flat(&String::from_utf8(output.stdout).unwrap());
    assert_eq!((&json["read"], &json["stored"]), (&1.into(), &1.into()), "{json}");
    assert_eq!(json["interrupted"], true, "{json}");
    drop(stdin);
}

/// More than the pipeline takes in hand, so that it does not look at its input any more.
#[cfg(unix)]
#[test]
fn a_second_interrupt_ends_a_pipeline_that_is_full() {
    ends_at_the_second_interrupt(1_280);
}

#[cfg(unix)]
#[test]
fn a_second_interrupt_ends_a_pipeline_whose_input_has_ended() {
    ends_at_the_second_interrupt(100);
}

/// No event gets done in hours. The lines are so long that a pipe does not hold them: once they are
/// written most have been read, and so the program listens for signals.
#[cfg(unix)]
fn ends_at_the_second_interrupt(lines: usize) {
    let mut child = start(&["--input", "-", "--lookup-ms", "10000000"]);
    let line = POST.replace("{}", &format!(r#"{{"text":"{}"}}"#, "x".repeat(2_000)));
    let input = format!("{line}\n").repeat(lines);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(30);
    // Again and again, since two that come too close to each other are one.
    while child.try_wait().unwrap().is_none() {
        if std::time::Instant::now() > limit {
            child.kill().unwrap();
            panic!("it does not listen: {:?}", child.wait_with_output());
        }
        send("-INT", &child);
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert_eq!(
        (status.code(), stdout.len()),
        (Some(130), 0),
        "{}",
        String::from_utf8_lossy(&stderr)
    );
}
