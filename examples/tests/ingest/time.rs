//! What depends on the clock, which is paused here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::run::roomy;
use super::tables::Tables;
use futures_util::stream;
use rusqlite::Connection;
use sluicegate_examples::ingest::event::parse;
use sluicegate_examples::ingest::identity::Identity;
use sluicegate_examples::ingest::journal::{self, Progress};
use sluicegate_examples::ingest::ledger::Ledger;
use sluicegate_examples::ingest::pipeline::{self, Config};
use sluicegate_examples::ingest::register::Limits;
use sluicegate_examples::ingest::source::{Line, Place};
use sluicegate_examples::ingest::store;
use sluicegate_examples::ingest::summary::Summary;
use sluicegate_examples::ingest::tally::Category;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, sleep_until};

fn create(did: &str, name: &str, rkey: u32, record: &str) -> String {
    format!(
        r#"{{"did":"{did}","kind":"commit","commit":{{"operation":"create","collection":"app.bsky.{name}","rkey":"{rkey}","record":{record}}}}}"#
    )
}

fn post(rkey: u32) -> String {
    create("did:plc:writer", "feed.post", rkey, "{}")
}

fn like(rkey: u32) -> String {
    let subject = format!("at://did:plc:writer/app.bsky.feed.post/{rkey}");
    create("did:plc:reader", "feed.like", rkey, &format!(r#"{{"subject":{{"uri":"{subject}"}}}}"#))
}

/// Runs lines that come at these seconds after the start.
async fn run(config: &Config, lines: Vec<(u64, String)>) -> (Summary, Tables) {
    run_refusing(0, config, lines).await
}

/// The same with a database that refuses the first `commits`.
async fn run_refusing(
    mut commits: u32,
    config: &Config,
    lines: Vec<(u64, String)>,
) -> (Summary, Tables) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ingest.db");
    let (mut writer, reader) = store::open(&path).unwrap();
    let refuse = move || {
        let refused = commits > 0;
        commits = commits.saturating_sub(1);
        refused
    };
    writer.connection().commit_hook(Some(refuse)).unwrap();
    let started = Instant::now();
    let lines = stream::unfold(lines.into_iter(), |mut lines| async move {
        let (second, line) = lines.next()?;
        sleep_until(started + Duration::from_secs(second)).await;
        Some((
            io::Result::Ok(Line {
                end: Place { line: 1, offset: 1 },
                event: parse(line.as_bytes()),
            }),
            lines,
        ))
    });
    let summary = pipeline::run(config, (writer, reader), lines, |_| ()).await.unwrap();
    assert!(summary.adds_up(), "{summary}");
    (summary, Tables::read(&path))
}

fn living(seconds: u64) -> Config {
    let limits = Limits { time_to_live: Duration::from_secs(seconds), ..roomy().limits };
    Config { limits, ..roomy() }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_too_long_expires_and_the_rest_is_stored() {
    let lines = vec![
        (0, like(1)),
        // Twice: that it comes again does not prolong its wait.
        (50, like(1)),
        (90, like(2)),
        // Swept at 120: the first has waited for 120 seconds by then, the second for 30.
        (130, post(1)),
        (130, post(2)),
        // Gone is gone: it may come again.
        (140, like(1)),
    ];
    let (summary, tables) = run(&living(100), lines).await;
    assert_eq!(summary.of(Category::Expired), 1, "{summary}");
    assert_eq!(summary.of(Category::Duplicate), 1, "{summary}");
    assert_eq!(tables.children["likes"].len(), 2, "{summary}");
}

/// Expiry is stored like all else: at the restart nothing waits.
#[tokio::test(start_paused = true)]
async fn in_a_resumable_run_what_waits_for_too_long_expires_for_good() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ingest.db");
    let (mut writer, reader) = store::open(&path).unwrap();
    let identity = Identity::Generated { seed: 0 };
    let progress = Progress::begin(writer.connection(), identity).unwrap();
    let ledger = Arc::new(Ledger::new(progress, None, 10).unwrap());
    let config = Config { ledger: Some(ledger.clone()), ..living(100) };
    let lines = vec![(0, like(1)), (90, like(2)), (130, post(1)), (130, post(2)), (140, like(3))];
    let started = Instant::now();
    let lines = stream::unfold((1, lines.into_iter()), |(number, mut lines)| async move {
        let (second, line) = lines.next()?;
        sleep_until(started + Duration::from_secs(second)).await;
        let end = Place { line: number, offset: number };
        let line = io::Result::Ok(Line { end, event: parse(line.as_bytes()) });
        Some((line, (number + 1, lines)))
    });
    // What is overdue at the end expires, too.
    let late = stream::once(async {
        sleep(Duration::from_secs(150)).await;
        Ok(Line { end: Place { line: 9, offset: 9 }, event: Ok(None) })
    });
    let lines = futures_util::StreamExt::chain(lines, late);
    let summary = pipeline::run(&config, (writer, reader), lines, |_| ()).await.unwrap();
    assert!(summary.adds_up(), "{summary}");
    assert_eq!((summary.of(Category::Expired), summary.of(Category::Waiting)), (2, 0), "{summary}");
    assert_eq!(ledger.counts().of(Category::Expired), 2);
    let connection = Connection::open(&path).unwrap();
    let progress = Progress::load(&connection).unwrap().unwrap();
    assert_eq!(progress.counts, ledger.counts());
    assert_eq!(journal::waiting(&connection, 0, 9).unwrap().len(), 0);
    assert_eq!(Tables::read(&path).children["likes"].len(), 1, "{summary}");
}

/// More than one step of the sweeper, in both maps.
#[tokio::test(start_paused = true)]
async fn a_sweep_takes_all_that_is_due_in_however_many_steps() {
    let follow = |rkey| {
        let subject = format!(r#"{{"subject":"did:plc:absent{rkey}"}}"#);
        create("did:plc:reader", "graph.follow", rkey, &subject)
    };
    let due = (0..2_500).map(|rkey| (0, like(rkey)));
    let due = due.chain((0..1_000).map(|rkey| (0, follow(rkey))));
    // Swept at 60 seconds; the posts come too late for all but the last like.
    let late = [(59, like(2_500)), (61, post(7)), (61, post(2_500))];
    let (summary, tables) = run(&living(30), due.chain(late).collect()).await;
    assert_eq!((summary.of(Category::Expired), summary.of(Category::Waiting)), (3_500, 0));
    assert_eq!(tables.children["likes"].len(), 1, "{summary}");
}

#[tokio::test(start_paused = true)]
async fn a_day_is_not_over_after_a_day_less_a_minute() {
    let day = 24 * 60 * 60;
    let lines = vec![(0, like(1)), (30, like(2)), (day - 60, post(1)), (day + 91, post(2))];
    let (summary, tables) = run(&living(day), lines).await;
    assert_eq!(summary.of(Category::Expired), 1, "{summary}");
    assert_eq!(tables.children["likes"].len(), 1, "{summary}");
}

#[tokio::test(start_paused = true)]
async fn what_is_overdue_at_the_end_does_not_count_as_waiting() {
    let (summary, _) = run(&living(10), vec![(0, like(1)), (15, like(2))]).await;
    assert_eq!((summary.of(Category::Expired), summary.of(Category::Waiting)), (1, 1), "{summary}");
}

/// A thousand users at 2 ms each, ten at once: the semaphore needs the 200 ms that it takes.
/// The polling gate sleeps past many of its chances; past how many depends on the order in which
/// the pollers are woken.
#[tokio::test(start_paused = true)]
async fn the_semaphore_wastes_no_time() {
    let lines = || {
        let author = |number| create(&format!("did:plc:{number}"), "feed.post", 1, "{}");
        (0..1_000).map(|number| (0, author(number))).collect()
    };
    let fair = Config { permits: 10, lookup: Duration::from_millis(2), in_hand: 256, ..roomy() };
    let busy = Config { busy_wait: true, ..fair.clone() };
    let (fair, _) = run(&fair, lines()).await;
    let (busy, _) = run(&busy, lines()).await;
    assert_eq!((fair.users_created, busy.users_created), (1_000, 1_000));
    let least = Duration::from_millis(1_000 * 2 / 10);
    assert!(fair.elapsed >= least && fair.elapsed < 11 * least / 10, "{fair}");
    assert!(2 * busy.elapsed > 3 * fair.elapsed, "{busy}");
}

/// What could not be written is not there: it may come again, and nothing takes it for a parent.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_may_come_again() {
    let lines = vec![(0, post(1)), (10, like(1)), (20, post(1)), (20, post(1))];
    let (summary, tables) = run_refusing(3, &roomy(), lines).await;
    assert_eq!((summary.users_failed, summary.users_created), (1, 2), "{summary}");
    assert_eq!((summary.of(Category::Failed), summary.of(Category::Stored)), (1, 2), "{summary}");
    assert_eq!((tables.users.len(), tables.posts.len(), tables.children["likes"].len()), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_input_that_breaks_off_ends_the_run_and_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ingest.db");
    let good = |text: String| {
        Ok(Line { end: Place { line: 1, offset: 1 }, event: parse(text.as_bytes()) })
    };
    let lines =
        stream::iter([good(post(1)), good(like(1)), Err(io::Error::other("the disk is gone"))]);
    let database = store::open(&path).unwrap();
    let summary = pipeline::run(&roomy(), database, lines, |_| ()).await.unwrap();
    assert!(summary.adds_up(), "{summary}");
    assert_eq!(summary.of(Category::Stored), 2, "{summary}");
    assert_eq!(summary.broken.unwrap().to_string(), "the disk is gone");
}

/// The rows are there after the window, not only at the end.
#[tokio::test(start_paused = true)]
async fn a_lone_row_is_written_after_the_window() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ingest.db");
    let first = Ok(Line { end: Place { line: 1, offset: 1 }, event: parse(post(1).as_bytes()) });
    let (looked, watched) = (path.clone(), path.clone());
    let lines = stream::unfold(Some(first), |first| async { first.map(|line| (line, None)) });
    let lines = futures_util::StreamExt::chain(
        lines,
        stream::once(async move {
            sleep(Duration::from_millis(100)).await;
            assert_eq!(Tables::read(&looked).posts.len(), 1);
            Ok(Line { end: Place { line: 2, offset: 2 }, event: parse(post(2).as_bytes()) })
        }),
    );
    let config = Config { rows: 500, window: Duration::from_millis(50), ..roomy() };
    let database = store::open(&path).unwrap();
    let summary = pipeline::run(&config, database, lines, |_| ()).await.unwrap();
    assert_eq!(summary.of(Category::Stored), 2, "{summary}");
    assert_eq!(summary.batcher.batches.window, 1, "{summary}");
    assert_eq!(Tables::read(&watched).posts.len(), 2);
}
