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
    let mut killed = 0;
    for kill in 0..kills {
        let longest = if kill % 3 == 0 { longest / 8 } else { longest };
        let mut child = start(arguments);
        std::thread::sleep(random.random_range(Duration::ZERO..longest));
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            killed += 1;
        }
        child.wait().unwrap();
    }
    assert!(killed > kills / 2, "all was done after {killed} of {kills} kills");
    let Output { status, stdout, stderr } = start(arguments).wait_with_output().unwrap();
    let err = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(0), "{err}");
    flat(&String::from_utf8(stdout).unwrap())
}

/// How late a kill may come, so that a run is not over before the last of them. Less than a window of the
/// batcher would be too soon for anything to be stored.
fn longest(arguments: &[&str], kills: u32) -> Duration {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("measured.db");
    let begin = Instant::now();
    let arguments = [arguments, &["--resume", "--db", db.to_str().unwrap()]].concat();
    let output = start(&arguments).wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    (begin.elapsed() * 3 / 2 / kills).max(Duration::from_millis(120))
}

/// The tables must be those of one line after the other, and the counts those that no order decides.
fn check(lines: &[String], arguments: &[&str], kills: u32, seed: u64) -> (Value, Reference) {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("ingest.db");
    let arguments = [&["--json"], arguments].concat();
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

/// In a folder of captured events, of which there are so few that each author is made to take time.
const REAL: [(&str, &str); 2] =
    [("posts_2024-02-07_replies_3884.jsonl", "3"), ("jetstream_2026-07-04_mixed_152.jsonl", "40")];

/// `INGEST_DATA` is that folder; without it, generated events must do.
#[test]
#[ignore = "minutes: cargo test --release --test ingest -- --ignored kills"]
fn a_run_that_is_killed_a_hundred_times_does_every_line_once() {
    let lines: Vec<_> = Generator::new(42, 200_000).collect();
    check(&lines, &["--lookup-ms", "0"], 100, 42);
    let Some(folder) = std::env::var_os("INGEST_DATA") else { return };
    for (name, lookup) in REAL {
        let path = Path::new(&folder).join(name);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let slow = ["--permits", "1", "--lookup-ms", lookup];
        check(&lines, &[&["--input", path.to_str().unwrap()], &slow[..]].concat(), 100, 7);
    }
}
