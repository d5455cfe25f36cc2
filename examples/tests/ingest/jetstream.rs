//! A live stream from a server that drops, stalls and garbles: every event is taken once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use sluicegate::Retry;
use sluicegate_examples::ingest::jetstream::{self, Config};
use sluicegate_examples::ingest::recent::Recent;
use sluicegate_examples::ingest::source::{Line, Place};
use sluicegate_examples::ingest::tally::Category;
use sluicegate_examples::ingest::{live, pipeline, store};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::cli::{flat, ingest, send, start};
use crate::reference::Reference;
use crate::run::roomy;
use crate::server::{Manners, Server, distinct, events, time};
use crate::tables::Tables;

const ROUGH: Manners =
    Manners { drops: 400, stalls: 1_500, garbles: 900, closes: 900, refuses: false };

fn config(server: &Server) -> Config {
    Config {
        url: server.url(),
        collections: Vec::new(),
        cursor: None,
        retry: Retry::constant(20, Duration::from_millis(1)).unwrap(),
        quiet: Duration::from_millis(100),
    }
}

fn sum(json: &Value, categories: &[Category]) -> u64 {
    categories.iter().map(|category| json[category.name()].as_u64().unwrap()).sum()
}

#[test]
fn events_come_once_and_in_order_whatever_the_server_does() {
    let events = events(1, 4_000);
    let expected = distinct(&events);
    let runtime = Runtime::new().unwrap();
    let (lines, recent, server) = runtime.block_on(async {
        let server = Server::start(events, ROUGH).await;
        let recent = Arc::new(Recent::new());
        let lines = jetstream::lines(config(&server), Place::default(), recent.clone());
        let lines = lines.map(Result::unwrap).take(expected.len()).collect::<Vec<Line>>();
        let lines = tokio::time::timeout(Duration::from_secs(60), lines).await.expect("it hangs");
        (lines, recent, server)
    });
    for (line, (number, event)) in lines.iter().zip((1..).zip(&expected)) {
        assert_eq!(line.end.line, number);
        // What has no cursor has that of the event before.
        assert!(time(event).is_none_or(|time| line.end.offset == time), "{event}");
        let parsed = sluicegate_examples::ingest::event::parse(event.as_bytes());
        assert_eq!(line.event.as_ref().ok(), parsed.as_ref().ok(), "{event}");
    }
    assert!(recent.redelivered() > 100, "{}", recent.redelivered());
    let cursors = server.cursors();
    assert!(cursors.len() > 10 && cursors[0].is_none(), "{cursors:?}");
    assert!(cursors[1..].iter().all(Option::is_some), "{cursors:?}");
}

#[test]
fn a_request_names_the_collections_and_a_cursor_five_seconds_back() {
    let events = events(2, 2_000);
    let last = time(events.last().unwrap()).unwrap();
    let runtime = Runtime::new().unwrap();
    let queries = runtime.block_on(async {
        let manners = Manners { drops: 300, ..Manners::default() };
        let server = Server::start(events.clone(), manners).await;
        let collections = vec!["app.bsky.feed.post".to_owned(), "app.bsky.graph.*".to_owned()];
        let config = Config { collections, cursor: Some(5), ..config(&server) };
        let start = Place { line: 7, offset: 0 };
        let lines = jetstream::lines(config.clone(), start, Arc::default());
        let first = lines.take(1_500).map(Result::unwrap).collect::<Vec<_>>().await;
        assert_eq!(first[0].end.line, 8);
        // As a run that goes on does.
        let start = Place { line: 9, offset: last };
        let _ = std::pin::pin!(jetstream::lines(config, start, Arc::default())).next().await;
        server.queries.lock().unwrap().clone()
    });
    let wanted = "wantedCollections=app.bsky.feed.post&wantedCollections=app.bsky.graph.*&cursor=";
    assert_eq!(queries[0], format!("{wanted}5"));
    assert!(queries.len() > 2, "{queries:?}");
    assert_eq!(*queries.last().unwrap(), format!("{wanted}{}", last - 5_000_000));
}

#[test]
fn a_server_that_is_not_there_or_refuses_ends_the_stream_with_the_reason() {
    let runtime = Runtime::new().unwrap();
    let reason = |config| {
        let lines = jetstream::lines(config, Place::default(), Arc::default());
        let all = runtime.block_on(lines.collect::<Vec<_>>());
        let [Err(error)] = &all[..] else { panic!("{all:?}") };
        error.to_string()
    };
    let refusing = runtime
        .block_on(Server::start(Vec::new(), Manners { refuses: true, ..Manners::default() }));
    let refused = reason(config(&refusing));
    assert!(refused.contains("404"), "{refused}");
    assert_eq!(refusing.cursors().len(), 1, "it does not ask again");

    let gone = Config { url: "ws://127.0.0.1:1/subscribe".to_owned(), ..config(&refusing) };
    let gone = reason(gone);
    assert!(gone.contains("refused") && gone.contains("no attempts left"), "{gone}");

    // It takes connections, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", silent.local_addr().unwrap());
    let retry = Retry::constant(2, Duration::ZERO).unwrap();
    let silent = reason(Config { url, retry, ..config(&refusing) });
    assert!(silent.contains("does not answer"), "{silent}");
}

#[test]
fn bad_addresses_are_refused_in_one_line() {
    for (arguments, named) in [
        (&["--url", "http://localhost/"][..], "ws://HOST"),
        (&["--url", "wss://localhost/"], "no TLS"),
        (&["--url", "ws://localhost/", "--events", "5"], "--events"),
        (&["--url", "ws://localhost/", "--input", "-"], "--input"),
        (&["--url", "ws://localhost/", "--collections", "a&b"], "collection"),
        (&["--collections", "a"], "--url"),
        (&["--cursor", "5"], "--url"),
    ] {
        let (status, out, err) = ingest(arguments);
        assert_eq!((status, out.as_str(), err.lines().count()), (2, "", 1), "{arguments:?}: {err}");
        assert!(err.contains(named), "{arguments:?}: {err}");
    }
}

/// A consumer that is slower than the stream, behind a queue.
#[test]
fn a_slow_consumer_loses_what_is_counted_and_no_delete() {
    let events = events(4, 3_000);
    let expected = distinct(&events);
    let folder = TempDir::new().unwrap();
    let database = store::open(&folder.path().join("ingest.db")).unwrap();
    let slow = pipeline::Config { permits: 1, lookup: Duration::from_millis(2), ..roomy() };
    let queue = live::queue(200).unwrap();
    let summary = Runtime::new().unwrap().block_on(async {
        let manners = Manners { drops: 500, ..Manners::default() };
        let server = Server::start(events, manners).await;
        let recent = Arc::new(Recent::new());
        let lines = jetstream::lines(config(&server), Place::default(), recent);
        let all = lines.take(expected.len());
        let lines = live::stream(all, std::future::pending(), queue.clone());
        let run = pipeline::run(&slow, database, lines, |_| ());
        tokio::time::timeout(Duration::from_secs(60), run).await.expect("it hangs").unwrap()
    });
    assert!(summary.adds_up(), "{summary}");
    assert_eq!(summary.read, expected.len() as u64, "{summary}");
    assert!(summary.of(Category::Dropped) > 0, "{summary}");
    let deletes = expected.iter().filter(|line| crate::rules::is_delete(line)).count() as u64;
    let deleted = summary.of(Category::Deleted) + summary.of(Category::DeleteUnknown);
    assert_eq!(deleted, deletes, "{summary}");
}

/// How many lines the runs so far have done.
fn done(db: &str) -> rusqlite::Result<i64> {
    let database = Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    database.busy_timeout(Duration::from_secs(5))?;
    let sql = "SELECT sum(value) FROM progress, json_each(progress.counts)";
    database.query_row(sql, [], |row| row.get(0))
}

/// Kills runs on a stream, and ends the last with a signal once all is done.
fn killed(server: &Server, db: &str, more: &[&str], lines: usize, kills: u32) -> Value {
    let url = server.url();
    let arguments =
        [&["--json", "--resume", "--db", db, "--url", &url, "--cursor", "1"], more].concat();
    for kill in 0..kills {
        let mut child = start(&arguments);
        std::thread::sleep(Duration::from_millis(u64::from(20 + kill * 37 % 150)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let connections = server.cursors().len();
    let child = start(&arguments);
    let limit = Instant::now() + Duration::from_secs(60);
    // It listens for signals before it connects.
    while done(db).unwrap() < lines as i64 || server.cursors().len() == connections {
        assert!(Instant::now() < limit, "{:?} of {lines} lines are done", done(db));
        std::thread::sleep(Duration::from_millis(5));
    }
    send("-INT", &child);
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{err}");
    flat(&String::from_utf8(output.stdout).unwrap())
}

#[cfg(unix)]
#[test]
fn runs_on_a_stream_that_are_killed_take_every_event_once() {
    let events = events(5, 4_000);
    let expected = distinct(&events);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ingest.db");
    let db = path.to_str().unwrap();
    let runtime = Runtime::new().unwrap();
    // A run waits longer between two attempts than the other tests do.
    let rough = Manners { drops: 1_500, stalls: 0, garbles: 3_000, closes: 3_000, refuses: false };
    let server = runtime.block_on(Server::start(events, rough));
    let json = killed(&server, db, &[], expected.len(), 10);
    assert!(server.cursors().len() > 10 && json["redelivered"].as_u64() > Some(0), "{json}");

    let reference = Reference::of(expected.iter().map(String::as_str));
    assert!(Tables::read(&path) == reference.tables, "tables differ\n{json}");
    assert_eq!(json["read"], expected.len(), "{json}");
    use Category::{
        Cancelled, DeleteUnknown, Deleted, Displaced, Duplicate, Ignored, Malformed, Stored,
        Waiting,
    };
    for categories in [
        &[Malformed][..],
        &[Ignored],
        &[Deleted, DeleteUnknown],
        &[Stored, Waiting, Cancelled, Duplicate, Displaced],
    ] {
        let theirs = categories.iter().map(|category| reference.count(category.name()));
        assert_eq!(sum(&json, categories), theirs.sum::<u64>(), "{categories:?}\n{json}");
    }
    assert_eq!(json["interrupted"], false);
}

/// As captured, and served by a server that drops and garbles; `INGEST_DATA` is the folder.
#[cfg(unix)]
#[test]
#[ignore = "needs captured events"]
fn captured_events_that_are_served_are_taken_once() {
    let Some(folder) = std::env::var_os("INGEST_DATA") else { return };
    for name in ["posts_2024-02-07_replies_3884.jsonl", "jetstream_2026-07-04_mixed_152.jsonl"] {
        let text = std::fs::read_to_string(std::path::Path::new(&folder).join(name)).unwrap();
        let events: Vec<_> = text.lines().map(str::to_owned).collect();
        let expected = distinct(&events);
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("ingest.db");
        let runtime = Runtime::new().unwrap();
        let rough = Manners { drops: 1_000, garbles: 1_000, closes: 1_000, ..Manners::default() };
        let server = runtime.block_on(Server::start(events, rough));
        let json = killed(&server, path.to_str().unwrap(), &[], expected.len(), 10);
        assert_eq!(json["read"], expected.len(), "{json}");
        let reference = Reference::of(expected.iter().map(String::as_str));
        assert!(Tables::read(&path) == reference.tables, "tables differ\n{json}");
    }
}

/// What is dropped is done, too: it is neither taken nor counted again.
#[cfg(unix)]
#[test]
fn what_a_queue_dropped_before_a_kill_is_counted_once() {
    let events = events(6, 30_000);
    let expected = distinct(&events);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ingest.db");
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(events, Manners::default()));
    let slow = ["--live", "--permits", "4"];
    let json = killed(&server, path.to_str().unwrap(), &slow, expected.len(), 10);
    assert_eq!(json["read"], expected.len(), "{json}");
    assert!(json["dropped"].as_u64() > Some(0), "{json}");
    let deletes = expected.iter().filter(|line| crate::rules::is_delete(line)).count() as u64;
    assert_eq!(sum(&json, &[Category::Deleted, Category::DeleteUnknown]), deletes, "{json}");
}

#[test]
fn a_stream_from_elsewhere_is_another_input() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ingest.db");
    let db = path.to_str().unwrap();
    let runtime = Runtime::new().unwrap();
    let server = runtime
        .block_on(Server::start(Vec::new(), Manners { refuses: true, ..Manners::default() }));
    let (status, _, err) = ingest(&["--resume", "--db", db, "--url", &server.url()]);
    assert!(status == 1 && err.contains("404"), "{err}");
    // It begins where the first run did, though nothing came.
    let _ = ingest(&["--resume", "--db", db, "--url", &server.url(), "--cursor", "5"]);
    let cursors = server.cursors();
    assert!(cursors[0].is_some() && cursors[0] == cursors[1], "{cursors:?}");
    let elsewhere = format!("{}?also", server.url());
    let (status, _, err) = ingest(&["--resume", "--db", db, "--url", &elsewhere]);
    assert!(status == 2 && err.contains(&server.url()), "{err}");
}

/// The sum of the categories is what was read, with the events that came again left out.
#[cfg(unix)]
#[test]
fn a_signal_ends_a_stream_as_it_should() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(events(7, 200), Manners::default()));
    let child = start(&["--json", "--url", &server.url()]);
    let limit = Instant::now() + Duration::from_secs(30);
    while server.cursors().is_empty() {
        assert!(Instant::now() < limit, "it does not connect");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    send("-TERM", &child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let json = flat(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(
        json["read"].as_u64().unwrap() + json["redelivered"].as_u64().unwrap(),
        200,
        "{json}"
    );
}
