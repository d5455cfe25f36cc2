//! Runs that are killed at random moments, and go on until all is done.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use sluicegate_examples::ingest::generator::Generator;
use sluicegate_examples::ingest::tally::Category;
use tempfile::TempDir;

use crate::cli::{file, flat, start};
use crate::reference::Reference;
use crate::rules::is_delete;
use crate::tables::Tables;

/// Kills a run `kills` times, and lets it come to its end. Returns the summary of the last one.
///
/// Some moments are so soon that the run has just begun to load what waits.
fn killed(arguments: &[&str], kills: u32, longest: Duration, seed: u64) -> Value {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for kill in 0..kills {
        let longest = if kill % 3 == 0 { longest / 8 } else { longest };
        let mut child = start(arguments);
        std::thread::sleep(random.random_range(Duration::ZERO..longest));
        // What has come to its end is not killed: then the moments are too late for this input.
        assert_eq!(child.try_wait().unwrap(), None, "{kill} of {kills} kills");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let Output { status, stdout, stderr } = start(arguments).wait_with_output().unwrap();
    let err = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(0), "{err}");
    flat(&String::from_utf8(stdout).unwrap())
}

/// As much of a run's time as the kills may take together, so that it is not over before.
fn longest(arguments: &[&str], kills: u32) -> Duration {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("measured.db");
    let begin = Instant::now();
    let arguments = [arguments, &["--resume", "--db", db.to_str().unwrap()]].concat();
    let output = start(&arguments).wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    begin.elapsed() / kills
}

/// The tables must be those of one line after the other, and the counts those that no order decides.
fn check(lines: &[String], arguments: &[&str], kills: u32, seed: u64) -> (Value, Reference) {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("ingest.db");
    let arguments = [arguments, &["--json", "--lookup-ms", "0"]].concat();
    let longest = longest(&arguments, kills);
    let resumable = [&arguments[..], &["--resume", "--db", db.to_str().unwrap()]].concat();
    let json = killed(&resumable, kills, longest, seed);
    let reference = Reference::of(lines.iter().map(String::as_str));
    assert!(Tables::read(&db) == reference.tables, "seed {seed}: tables differ\n{json}");
    assert_eq!(json["read"], reference.count("read"), "seed {seed}: {json}");
    assert_eq!(json["waiting"], waiting_rows(&db), "seed {seed}: {json}");
    let sum = |categories: &[Category]| {
        let of = |category: &Category| json[category.name()].as_u64().unwrap();
        let theirs = |category: &Category| reference.count(category.name());
        let ours: u64 = categories.iter().map(of).sum();
        assert_eq!(ours, categories.iter().map(theirs).sum::<u64>(), "{categories:?}\n{json}");
    };
    use Category::{
        Abandoned, Cancelled, DeleteUnknown, Deleted, Displaced, Dropped, Duplicate, Evicted,
        Expired, Failed, Ignored, Malformed, Stored, Waiting,
    };
    let certain = [Ignored, Malformed, Expired, Failed, Abandoned, Dropped];
    certain.iter().for_each(|category| sum(&[*category]));
    // The reference lets as many wait as come.
    sum(&[Stored, Waiting, Cancelled, Duplicate, Displaced, Evicted]);
    sum(&[Deleted, DeleteUnknown]);

    // Once more, there is nothing left to do.
    let again = start(&resumable).wait_with_output().unwrap();
    let again = flat(&String::from_utf8(again.stdout).unwrap());
    for name in ["read", "stored", "waiting", "duplicate", "deleted", "delete_unknown"] {
        assert_eq!(again[name], json[name], "{name}: {again}");
    }
    (json, reference)
}

fn waiting_rows(db: &Path) -> i64 {
    let database = rusqlite::Connection::open(db).unwrap();
    database.query_row("SELECT count(*) FROM waiting", [], |row| row.get(0)).unwrap()
}

/// With room for all that waits.
fn check_file(lines: &[String], kills: u32, seed: u64) -> (Value, Reference) {
    let folder = TempDir::new().unwrap();
    let input =
        file(folder.path(), &lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    check(lines, &["--input", &input, "--pending-items", "10000"], kills, seed)
}

#[test]
fn a_run_that_is_killed_ten_times_does_every_line_once() {
    let events = 6_000;
    let mut lines: Vec<_> = Generator::new(1, events).collect();
    check(&lines, &["--seed", "1", "--events", &events.to_string()], 10, 1);
    lines.insert(70, String::new());
    lines.insert(500, "nonsense".to_owned());
    check_file(&lines, 10, 2);
    // Without deletes, no order decides any count.
    lines.retain(|line| !is_delete(line));
    let (json, reference) = check_file(&lines, 10, 3);
    for category in Category::ALL {
        assert_eq!(json[category.name()], reference.count(category.name()), "{category:?}: {json}");
    }
}

/// `INGEST_DATA` is a folder with captured events; without it, generated ones must do.
#[test]
#[ignore = "minutes: cargo test --release --test ingest -- --ignored kills"]
fn a_run_that_is_killed_a_hundred_times_does_every_line_once() {
    let lines: Vec<_> = Generator::new(42, 200_000).collect();
    check(&lines, &[], 100, 42);
    let Some(folder) = std::env::var_os("INGEST_DATA") else { return };
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            check(&lines, &["--input", path.to_str().unwrap()], 100, 7);
        }
    }
}
