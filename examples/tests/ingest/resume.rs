//! Runs that go on where the last one ended: with what they may go on, and what they make of time,
//! limits and trouble in between.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::Value;
use sluicegate_examples::ingest::generator::Generator;
use tempfile::TempDir;

use crate::cli::{IDENTITY, POST, file, ingest, summary};
use crate::reference::Reference;
use crate::tables::Tables;

/// A folder with a database, and the lines that are read into it.
struct Runs {
    folder: TempDir,
    input: String,
}

impl Runs {
    fn of(lines: &[String]) -> Self {
        let folder = TempDir::new().unwrap();
        let input = file(folder.path(), &text(lines));
        Self { folder, input }
    }

    fn db(&self) -> PathBuf {
        self.folder.path().join("ingest.db")
    }

    fn arguments<'a>(&'a self, db: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
        let db = db.to_str().unwrap();
        let arguments = ["--resume", "--db", db, "--input", &self.input, "--lookup-ms", "0"];
        [&arguments, more].concat()
    }

    fn run(&self, more: &[&str]) -> Value {
        summary(&self.arguments(&self.db(), more))
    }

    /// Its one line on standard error.
    fn refused(&self, status: u8) -> String {
        let (found, out, err) = ingest(&self.arguments(&self.db(), &[]));
        assert_eq!((found, err.lines().count()), (status, 1), "{out}{err}");
        err
    }

    fn execute(&self, sql: &str) {
        Connection::open(self.db()).unwrap().execute_batch(sql).unwrap();
    }

    fn append(&self, lines: &[String]) {
        let mut input = OpenOptions::new().append(true).open(&self.input).unwrap();
        input.write_all(text(lines).as_bytes()).unwrap();
    }
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn like(rkey: u32, post: u32) -> String {
    let subject = format!("at://did:plc:a/app.bsky.feed.post/{post}");
    format!(
        r#"{{"did":"did:plc:b","kind":"commit","commit":{{"operation":"create","collection":"app.bsky.feed.like","rkey":"{rkey}","record":{{"subject":{{"uri":"{subject}"}}}}}}}}"#
    )
}

fn post(rkey: u32) -> String {
    POST.replace(r#""rkey":"1""#, &format!(r#""rkey":"{rkey}""#))
}

fn expect(json: &Value, counts: &[(&str, u64)]) {
    for (name, count) in counts {
        assert_eq!(json[name], *count, "{name}: {json}");
    }
}

#[test]
fn an_input_that_grew_is_gone_on_with_and_all_runs_count_together() {
    let runs = Runs::of(&[like(1, 1), post(2), IDENTITY.to_owned(), String::new()]);
    expect(&runs.run(&[]), &[("read", 3), ("waiting", 1), ("stored", 1), ("ignored", 1)]);
    runs.append(&[post(1), like(2, 2), post(2), like(3, 3)]);
    let counts = [("read", 7), ("waiting", 1), ("stored", 4), ("ignored", 1), ("duplicate", 1)];
    expect(&runs.run(&[]), &counts);
    assert_eq!(Tables::read(&runs.db()).children["likes"].len(), 2);
    let nothing_new = runs.run(&[]);
    expect(&nothing_new, &counts);
    assert_eq!(nothing_new["events_fulfilled"], 0);
}

#[test]
fn without_it_nothing_of_an_earlier_run_is_known() {
    let runs = Runs::of(&[like(1, 1), post(2)]);
    runs.run(&[]);
    let db = runs.db();
    let arguments = runs.arguments(&db, &[]);
    expect(&summary(&arguments[1..]), &[("read", 2), ("duplicate", 1), ("waiting", 1)]);
    expect(&runs.run(&[]), &[("read", 2), ("stored", 1), ("waiting", 1)]);
}

#[test]
fn an_input_that_is_another_is_refused() {
    let runs = Runs::of(&[post(1), post(2)]);
    runs.run(&[]);
    let before = fs::read(&runs.input).unwrap();
    fs::write(&runs.input, text(&[post(3), post(2)])).unwrap();
    let err = runs.refused(2);
    assert!(err.contains("of another input") && err.contains("lines.jsonl"), "{err}");

    let db = runs.db();
    let generated = ["--resume", "--db", db.to_str().unwrap(), "--events", "5"];
    let (status, _, err) = ingest(&generated);
    assert!(status == 2 && err.contains("of another input"), "{err}");

    // Under another name it is the same one.
    let renamed = runs.folder.path().join("renamed.jsonl");
    fs::write(&renamed, before).unwrap();
    let arguments = ["--resume", "--db", db.to_str().unwrap(), "--input"];
    expect(&summary(&[&arguments[..], &[renamed.to_str().unwrap()]].concat()), &[("read", 2)]);
}

#[test]
fn generated_lines_of_another_seed_are_another_input() {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("ingest.db");
    let run = |more: &[&'static str]| {
        let arguments = ["--resume", "--lookup-ms", "0", "--db", db.to_str().unwrap(), "--json"];
        ingest(&[&arguments[..], more].concat())
    };
    assert_eq!(run(&["--events", "300", "--seed", "1"]).0, 0);
    let (status, out, _) = run(&["--events", "500", "--seed", "1"]);
    expect(&crate::cli::flat(&out), &[("read", 500)]);
    let reference = Generator::new(1, 500).collect::<Vec<_>>();
    let reference = Reference::of(reference.iter().map(String::as_str));
    assert!(status == 0 && Tables::read(&db) == reference.tables);
    let (status, _, err) = run(&["--events", "500", "--seed", "2"]);
    assert!(status == 2 && err.contains("seed 1"), "{err}");
    let (status, _, err) = run(&["--events", "499", "--seed", "1"]);
    assert!(status == 2 && err.contains("shrank"), "{err}");
}

#[test]
fn an_input_that_shrank_is_refused_until_it_is_whole() {
    let runs = Runs::of(&[post(1), post(2), like(1, 3)]);
    runs.run(&[]);
    let whole = fs::read(&runs.input).unwrap();
    fs::write(&runs.input, &whole[..whole.len() - 1]).unwrap();
    let err = runs.refused(2);
    assert!(err.contains("the input shrank") && err.contains(&runs.input), "{err}");
    fs::write(&runs.input, whole).unwrap();
    runs.append(&[post(3)]);
    expect(&runs.run(&[]), &[("read", 4), ("stored", 4)]);
}

#[test]
fn what_cannot_be_right_is_refused() {
    let checkpoint = r#"{"committed":null,"completed_beyond":[[3,2]],"forgotten":0}"#;
    let counts = "json_set(counts, '$.stored', -1)";
    for (column, value, named) in [
        ("checkpoint", "'nonsense'".to_owned(), "checkpoint"),
        ("checkpoint", format!("'{checkpoint}'"), "range 3 to 2"),
        ("checkpoint", "'{}'".to_owned(), "checkpoint"),
        ("input", r#"'{"kind":"wine"}'"#.to_owned(), "wine"),
        ("counts", counts.to_owned(), "stored"),
        ("counts", "json_set(counts, '$.waiting', 5)".to_owned(), "counts: 1 lines wait"),
        ("counts", "json_set(counts, '$.eaten', 5)".to_owned(), "eaten"),
        ("read_to", "-1".to_owned(), "read_to"),
    ] {
        let runs = Runs::of(&[post(1), like(1, 3)]);
        runs.run(&[]);
        runs.execute(&format!("UPDATE progress SET {column} = {value}"));
        let err = runs.refused(2);
        assert!(err.contains("cannot be decoded") && err.contains(named), "{err}");
    }
    for table in ["waiting", "progress"] {
        let runs = Runs::of(&[post(1)]);
        runs.execute(&format!("CREATE TABLE {table} (number, id, input)"));
        let err = runs.refused(2);
        assert!(err.contains(&format!("table {table}")), "{err}");
    }
}

#[test]
fn what_cannot_be_read_again_is_refused() {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("ingest.db");
    let (status, _, err) = ingest(&["--resume", "--db", db.to_str().unwrap(), "--input", "-"]);
    assert!(status == 2 && err.contains("read only once") && !db.exists(), "{err}");
    let (status, _, err) = ingest(&["--resume"]);
    assert!(status == 2 && err.contains("--db"), "{err}");
}

#[test]
fn age_counts_by_the_wall_clock_from_run_to_run() {
    let runs = Runs::of(&[like(1, 1), like(2, 2), like(3, 3)]);
    runs.run(&[]);
    let aged = |number, seconds: u32| {
        let set = format!("arrived_ms = arrived_ms - {seconds} * 1000");
        runs.execute(&format!("UPDATE waiting SET {set} WHERE number = {number}"));
    };
    aged(1, 101);
    aged(2, 95);
    let json = runs.run(&["--ttl", "100"]);
    expect(&json, &[("read", 3), ("expired", 1), ("waiting", 2)]);
    // It comes too late for the first alone.
    runs.append(&[post(1), post(2), post(3)]);
    expect(&runs.run(&["--ttl", "100"]), &[("read", 6), ("expired", 1), ("stored", 5)]);
    // A clock that was set back makes nothing older.
    let back = Runs::of(&[like(1, 1)]);
    back.run(&[]);
    back.execute("UPDATE waiting SET arrived_ms = arrived_ms + 1000000");
    expect(&back.run(&["--ttl", "100"]), &[("expired", 0), ("waiting", 1)]);
}

#[test]
fn what_waits_keeps_its_order_and_leaves_when_there_is_less_room() {
    let runs = Runs::of(&[like(1, 1), like(2, 2), like(3, 1), like(4, 3)]);
    runs.run(&[]);
    // The second post's like came last but two, and that of the third last.
    let json = runs.run(&["--pending-keys", "2", "--pending-items", "1"]);
    expect(&json, &[("read", 4), ("displaced", 1), ("evicted", 1), ("waiting", 2)]);
    runs.append(&[post(1), post(2), post(3)]);
    expect(&runs.run(&[]), &[("read", 7), ("stored", 5), ("waiting", 0)]);
    let likes = &Tables::read(&runs.db()).children["likes"];
    let likes: Vec<_> = likes.keys().map(|uri| uri.rsplit('/').next().unwrap()).collect();
    assert_eq!(likes, ["3", "4"]);
}

/// As a run leaves it that is killed between the two.
#[test]
fn a_child_whose_parent_was_stored_before_the_end_follows_it_at_the_restart() {
    let runs = Runs::of(&[like(1, 1)]);
    runs.run(&[]);
    let post = "at://did:plc:a/app.bsky.feed.post/1";
    runs.execute(&format!("INSERT INTO posts VALUES ('{post}', 'did:plc:a', NULL, NULL)"));
    expect(&runs.run(&[]), &[("read", 1), ("stored", 1), ("waiting", 0)]);
    assert_eq!(Tables::read(&runs.db()).children["likes"].len(), 1);
}
