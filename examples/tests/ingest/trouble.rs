//! Resumable runs in trouble: nothing is lost, and the next one goes on.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sluicegate_examples::ingest::generator::Generator;
use sluicegate_examples::ingest::identity::Identity;
use sluicegate_examples::ingest::journal::Progress;
use sluicegate_examples::ingest::pipeline::Config;
use sluicegate_examples::ingest::summary::Summary;
use sluicegate_examples::ingest::tally::Category;
use tempfile::TempDir;

use crate::cli::{flat, ingest, program, send, start};
use crate::reference::Reference;
use crate::rules::{CROWDED, anything_goes, stream};
use crate::run::{resume, roomy};
use crate::tables::Tables;

fn check(summary: &Summary, path: &Path, reference: &Reference) {
    assert!(summary.adds_up() && summary.complaint().is_none(), "{summary}");
    assert_eq!(summary.read, reference.count("read"), "{summary}");
    assert!(Tables::read(path) == reference.tables, "tables differ\n{summary}");
}

/// Each run commits a few times, and then a batch fails as often as it is tried; the ones after it would
/// be written.
fn in_pieces(config: &Config, path: &Path, lines: &[String], seed: u64) -> (Summary, u32) {
    let mut pieces = 0;
    loop {
        let fine = if pieces < 15 { (seed + u64::from(pieces) * 7) % 11 } else { u64::MAX - 3 };
        let attempts = u64::from(config.retry.max_attempts());
        let mut commits = 0;
        let summary = resume(config, path, lines, |connection| {
            let refuse = move || {
                commits += 1;
                (fine + 1..=fine + attempts).contains(&commits)
            };
            connection.commit_hook(Some(refuse)).unwrap();
        });
        assert!(summary.adds_up(), "{summary}");
        if !summary.stopped {
            return (summary, pieces);
        }
        assert!(summary.of(Category::Failed) > 0, "{summary}");
        assert!(summary.complaint().unwrap().contains("not written"), "{summary}");
        pieces += 1;
    }
}

#[test]
fn runs_that_stop_at_a_batch_leave_the_tables_of_one() {
    let folder = TempDir::new().unwrap();
    for seed in 0..5 {
        let path = folder.path().join(format!("{seed}.db"));
        let lines = stream(seed, CROWDED);
        let (summary, pieces) = in_pieces(&roomy(), &path, &lines, seed);
        assert!(pieces > 5, "{pieces}");
        check(&summary, &path, &Reference::of(lines.iter().map(String::as_str)));
    }
}

/// One line after the other: then no order decides any count.
#[test]
fn runs_that_stop_at_a_batch_count_what_one_counts() {
    let folder = TempDir::new().unwrap();
    for seed in 0..10 {
        let path = folder.path().join(format!("{seed}.db"));
        let config = Config { in_hand: 1, rows: 3, ..roomy() };
        let lines = anything_goes(seed, 2 + seed % 4);
        let (summary, _) = in_pieces(&config, &path, &lines, seed);
        let reference = Reference::of(lines.iter().map(String::as_str));
        check(&summary, &path, &reference);
        for category in Category::ALL {
            let name = category.name();
            assert_eq!(summary.of(category), reference.count(name), "{seed} {name}\n{summary}");
        }
    }
}

#[test]
fn a_database_that_is_locked_ends_the_run_and_the_next_one_goes_on() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ingest.db");
    let lines = stream(3, CROWDED);
    let mut locked = None;
    let summary = resume(&roomy(), &path, &lines, |connection| {
        connection.busy_timeout(Duration::from_millis(1)).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        locked = Some(other);
    });
    assert!(summary.adds_up() && summary.stopped, "{summary}");
    assert!(summary.complaint().unwrap().contains("database is locked"), "{summary}");
    drop(locked);
    let summary = resume(&roomy(), &path, &lines, |_| ());
    check(&summary, &path, &Reference::of(lines.iter().map(String::as_str)));
}

/// Both would do the same lines.
#[test]
fn a_run_that_another_one_follows_stores_nothing_more() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ingest.db");
    let lines = stream(4, CROWDED);
    let summary = resume(&roomy(), &path, &lines, |_| {
        let other = Connection::open(&path).unwrap();
        Progress::begin(&other, Identity::Generated { seed: 0 }).unwrap();
    });
    assert!(summary.adds_up() && summary.stopped, "{summary}");
    assert_eq!(summary.of(Category::Failed), summary.read, "{summary}");
    let complaint = summary.complaint().unwrap();
    assert!(complaint.contains("another run goes on with this database"), "{complaint}");
    assert!(Tables::read(&path) == Tables::default());
    let summary = resume(&roomy(), &path, &lines, |_| ());
    check(&summary, &path, &Reference::of(lines.iter().map(String::as_str)));
}

#[cfg(unix)]
#[test]
fn a_full_disk_ends_the_run_and_the_next_one_goes_on() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ingest.db");
    let db = path.to_str().unwrap();
    let arguments = ["--json", "--lookup-ms", "0", "--events", "20000", "--resume", "--db", db];
    let limited = r#"trap '' XFSZ; ulimit -f 3000; exec "$0" "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", limited]).arg(program()).args(arguments).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let err = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(err.contains(" lines were not written: ") && err.contains("--resume"), "{err}");
    let json = flat(&String::from_utf8(stdout).unwrap());
    assert!(json["failed"].as_u64() > Some(0) && json["stored"].as_u64() > Some(0), "{json}");

    let (status, out, err) = ingest(&arguments);
    assert_eq!((status, err.as_str()), (0, ""));
    let json = flat(&out);
    assert_eq!((&json["read"], &json["failed"]), (&20_000.into(), &0.into()), "{json}");
    let lines: Vec<_> = Generator::new(42, 20_000).collect();
    let reference = Reference::of(lines.iter().map(String::as_str));
    assert!(Tables::read(&path) == reference.tables, "{json}");
}

/// What a signal makes it abandon is done by the next run.
#[cfg(unix)]
#[test]
fn an_interrupted_run_is_gone_on_with() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ingest.db");
    let arguments = ["--json", "--events", "3000", "--resume", "--db", path.to_str().unwrap()];
    let slow = [&arguments[..], &["--lookup-ms", "300", "--grace", "0"]].concat();
    let child = start(&slow);
    std::thread::sleep(Duration::from_millis(1_000));
    send("-INT", &child);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let err = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{err}");
    let json = flat(&String::from_utf8(stdout).unwrap());
    assert!(json["abandoned"].as_u64() > Some(0), "{json}");

    let (status, out, err) = ingest(&[&arguments[..], &["--lookup-ms", "0"]].concat());
    assert_eq!((status, err.as_str()), (0, ""));
    let json = flat(&out);
    assert_eq!((&json["read"], &json["abandoned"]), (&3_000.into(), &0.into()), "{json}");
    let lines: Vec<_> = Generator::new(42, 3_000).collect();
    let reference = Reference::of(lines.iter().map(String::as_str));
    assert!(Tables::read(&path) == reference.tables, "{json}");
}

/// The queue in front holds more than a run may have in flight.
#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_what_is_queued_to_the_next() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ingest.db");
    let db = path.to_str().unwrap();
    let arguments = ["--json", "--events", "8000", "--resume", "--db", db];
    let slow = ["--live", "--rate", "1000000", "--lookup-ms", "600000", "--grace", "0"];
    let mut child = start(&[&arguments[..], &slow].concat());
    std::thread::sleep(Duration::from_millis(1_000));
    send("-INT", &child);
    let limit = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > limit {
            child.kill().unwrap();
            panic!("it does not end: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
    let (status, out, err) = ingest(&[&arguments[..], &["--lookup-ms", "0"]].concat());
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(flat(&out)["read"], 8_000);
}
