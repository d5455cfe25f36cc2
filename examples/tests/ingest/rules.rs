//! The pipeline against its sequential reference, from lines to tables.

use super::reference::Reference;
use super::run::{ingest, ingest_into, roomy};
use super::tables::Tables;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluicegate_examples::ingest::generator::{Generator, Shape};
use sluicegate_examples::ingest::pipeline::Config;
use sluicegate_examples::ingest::store;
use sluicegate_examples::ingest::summary::Summary;
use sluicegate_examples::ingest::tally::Category;
use tempfile::TempDir;

/// A small world, in which much meets.
pub(crate) const CROWDED: Shape = Shape {
    authors: 40,
    author_every: 60,
    delete_one_in: 4,
    delete_after: 15,
    early_by: 12,
    hot_every: 10,
};

pub(crate) fn stream(seed: u64, shape: Shape) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, line) in Generator::with_shape(seed, 1_500, shape).enumerate() {
        match number % 200 {
            50 => lines.push(String::new()),
            100 => lines.push(line[..line.len() / 2].to_owned()),
            _ => {}
        }
        lines.push(line);
    }
    lines
}

pub(crate) fn is_delete(line: &str) -> bool {
    line.contains(r#""operation":"delete""#)
}

/// Runs both, and compares what no interleaving can decide: the tables, and that lines add up.
fn both(config: &Config, lines: &[String]) -> (Summary, Reference) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ingest.db");
    let summary = ingest(config, &path, lines);
    let reference = Reference::of(lines.iter().map(String::as_str));
    assert!(Tables::read(&path) == reference.tables, "tables differ\n{summary}");
    assert!(summary.adds_up(), "{summary}");
    assert_eq!(summary.read, reference.count("read"), "{summary}");
    assert_eq!(summary.users_created, reference.tables.users.len() as u64, "{summary}");
    (summary, reference)
}

fn compare(summary: &Summary, reference: &Reference, categories: &[Category]) {
    for category in categories {
        let name = category.name();
        assert_eq!(summary.of(*category), reference.count(name), "{name}\n{summary}");
    }
}

fn compare_sum(summary: &Summary, reference: &Reference, categories: &[Category]) {
    let ours: u64 = categories.iter().map(|category| summary.of(*category)).sum();
    let theirs: u64 = categories.iter().map(|category| reference.count(category.name())).sum();
    assert_eq!(ours, theirs, "{categories:?}\n{summary}");
}

use Category::{
    Cancelled, DeleteUnknown, Deleted, Displaced, Duplicate, Evicted, Expired, Failed, Ignored,
    Malformed, Stored, Waiting,
};

/// The order of different authors decides whether a child is stored before its post is deleted,
/// waits in vain after it, or goes with it; but not how many creates and deletes there are.
#[test]
fn side_by_side_the_tables_are_those_of_one_after_the_other() {
    for seed in 0..40 {
        let (summary, reference) = both(&roomy(), &stream(seed, CROWDED));
        compare(&summary, &reference, &[Ignored, Malformed, Displaced, Evicted, Expired, Failed]);
        compare_sum(&summary, &reference, &[Stored, Waiting, Cancelled, Duplicate]);
        compare_sum(&summary, &reference, &[Deleted, DeleteUnknown]);
    }
}

/// Without deletes of posts, order decides only whether a child that is deleted still waited.
#[test]
fn without_deletes_of_posts_most_counts_are_the_same() {
    for seed in 100..120 {
        let shape = Shape { delete_one_in: 0, ..CROWDED };
        let (summary, reference) = both(&roomy(), &stream(seed, shape));
        compare(&summary, &reference, &[Waiting, Duplicate, Deleted, DeleteUnknown, Ignored]);
        compare(&summary, &reference, &[Malformed, Displaced, Evicted, Expired, Failed]);
        compare_sum(&summary, &reference, &[Stored, Cancelled]);
    }
}

#[test]
fn without_deletes_all_counts_are_the_same() {
    for seed in 200..220 {
        let mut lines = stream(seed, CROWDED);
        lines.retain(|line| !is_delete(line));
        let (summary, reference) = both(&roomy(), &lines);
        compare(&summary, &reference, &Category::ALL);
    }
}

/// With one event in hand nothing is left to chance, whatever the batcher still holds.
#[test]
fn one_after_the_other_all_counts_are_the_same() {
    for seed in 300..310 {
        let config = Config { in_hand: 1, ..roomy() };
        let (summary, reference) = both(&config, &stream(seed, CROWDED));
        compare(&summary, &reference, &Category::ALL);
    }
}

/// What the generator never does: URIs that come back after they went or with another subject,
/// subjects of the wrong kind, everything under a handful of names.
pub(crate) fn anything_goes(seed: u64, authors: u64) -> Vec<String> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut lines = Vec::new();
    for _ in 0..250 {
        let mut did = || format!("did:plc:{}", random.random_range(0..authors));
        let (author, other) = (did(), did());
        let mut uri = |did: &str| {
            let kind = random.random_range(0..10);
            let name = if kind == 0 { "feed.like" } else { "feed.post" };
            format!("at://{did}/app.bsky.{name}/{}", random.random_range(0..3))
        };
        let (post, second) = (uri(&other), uri(&author));
        let odd = random.random_range(0..20) == 0;
        let (post, other) = if odd { (other, post) } else { (post, other) };
        let (name, record) = match random.random_range(0..10) {
            0..3 => ("feed.post", r#"{"text":""}"#.to_owned()),
            3 => (
                "feed.post",
                format!(
                    r#"{{"reply":{{"parent":{{"uri":"{post}"}},"root":{{"uri":"{second}"}}}}}}"#
                ),
            ),
            4..6 => ("feed.like", format!(r#"{{"subject":{{"uri":"{post}"}}}}"#)),
            6 => ("feed.repost", format!(r#"{{"subject":{{"uri":"{post}"}}}}"#)),
            7..9 => ("graph.follow", format!(r#"{{"subject":"{other}"}}"#)),
            _ => ("graph.block", format!(r#"{{"subject":"{other}"}}"#)),
        };
        let operation = if random.random_range(0..3) == 0 { "delete" } else { "create" };
        let rkey = random.random_range(0..3);
        lines.push(format!(
            r#"{{"did":"{author}","kind":"commit","commit":{{"operation":"{operation}","collection":"app.bsky.{name}","rkey":"{rkey}","record":{record}}}}}"#
        ));
    }
    lines
}

#[test]
fn whatever_comes_from_one_author_takes_effect_in_order() {
    for seed in 0..30 {
        let (summary, reference) = both(&roomy(), &anything_goes(seed, 1));
        compare(&summary, &reference, &Category::ALL);
    }
}

#[test]
fn whatever_comes_one_after_the_other_takes_effect_in_order() {
    for seed in 0..60 {
        let rows = 1 + seed as usize % 40;
        let config = Config { in_hand: 1, rows, ..roomy() };
        let (summary, reference) = both(&config, &anything_goes(seed, 2 + seed % 4));
        compare(&summary, &reference, &Category::ALL);
    }
}

#[test]
fn whatever_comes_side_by_side_adds_up_and_leaves_no_orphans() {
    for seed in 0..30 {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("ingest.db");
        let summary = ingest(&roomy(), &path, &anything_goes(seed, 6));
        assert!(summary.adds_up(), "{summary}");
        assert_eq!(summary.of(Failed), 0, "{summary}");
        assert_no_orphans(&Tables::read(&path));
    }
}

fn assert_no_orphans(tables: &Tables) {
    for (table, rows) in &tables.children {
        for [_, subject] in rows.values() {
            let here = match *table {
                "likes" | "reposts" => tables.posts.contains_key(subject),
                _ => tables.users.contains(subject),
            };
            assert!(here, "{table} of {subject}");
        }
    }
}

#[test]
fn small_caps_displace_and_evict_and_everything_is_counted() {
    for seed in 0..5 {
        let mut config = roomy();
        config.limits = sluicegate_examples::ingest::register::Limits {
            posts: 5,
            users: 3,
            items: 2,
            ..config.limits
        };
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("ingest.db");
        let mut lines: Vec<_> = stream(seed, CROWDED);
        lines.extend(Generator::new(seed, 1_000));
        let summary = ingest(&config, &path, &lines);
        assert!(summary.adds_up(), "{summary}");
        assert!(summary.of(Displaced) > 0 && summary.of(Evicted) > 0, "{summary}");
        assert!(summary.of(Waiting) <= 2 * (5 + 3), "{summary}");
        for (map, keys) in summary.waiting.iter().zip([5, 3]) {
            assert!(map.peak_keys <= keys && map.peak_items <= 2 * keys, "{summary}");
        }
        assert_no_orphans(&Tables::read(&path));
    }
}

#[test]
fn a_second_run_on_the_same_database_changes_nothing() {
    for seed in 0..5 {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("ingest.db");
        let lines = stream(seed, CROWDED);
        let first = ingest(&roomy(), &path, &lines);
        let tables = Tables::read(&path);
        let second = ingest(&roomy(), &path, &lines);
        assert!(Tables::read(&path) == tables, "{first}\n{second}");
        assert!(second.adds_up(), "{second}");
        assert_eq!(second.users_created, 0, "{second}");
        let rows =
            tables.posts.len() + tables.children.values().map(|rows| rows.len()).sum::<usize>();
        assert!(second.of(Duplicate) >= rows as u64, "{rows} rows\n{second}");
    }
}

#[test]
fn the_polling_gate_leaves_the_same_tables() {
    let config = Config { busy_wait: true, permits: 2, ..roomy() };
    let (summary, reference) = both(&config, &stream(1, CROWDED));
    compare(&summary, &reference, &[Ignored, Malformed, Failed]);
}

#[test]
fn a_full_disk_fails_lines_with_the_reason_and_loses_none() {
    for seed in 0..3 {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("ingest.db");
        let (mut writer, reader) = store::open(&path).unwrap();
        writer.connection().pragma_update(None, "max_page_count", 30).unwrap();
        let mut lines = stream(seed, CROWDED);
        lines.retain(|line| !is_delete(line));
        let summary = ingest_into(&roomy(), (writer, reader), &lines);
        assert!(summary.adds_up(), "{summary}");
        assert!(summary.of(Stored) > 0 && summary.of(Failed) > 0, "{summary}");
        assert!(summary.failure.as_ref().unwrap().contains("full"), "{summary}");
        let tables = Tables::read(&path);
        assert_no_orphans(&tables);
        let rows =
            tables.posts.len() + tables.children.values().map(|rows| rows.len()).sum::<usize>();
        assert_eq!(summary.of(Stored), rows as u64, "{summary}");
    }
}

#[test]
fn what_fails_twice_is_written_at_the_third_attempt() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ingest.db");
    let (mut writer, reader) = store::open(&path).unwrap();
    let mut attempts = 0;
    let refuse = move || {
        attempts += 1;
        attempts % 3 != 0
    };
    writer.connection().commit_hook(Some(refuse)).unwrap();
    let lines = stream(7, Shape { delete_one_in: 0, ..CROWDED });
    let summary = ingest_into(&roomy(), (writer, reader), &lines);
    let reference = Reference::of(lines.iter().map(String::as_str));
    assert!(Tables::read(&path) == reference.tables, "{summary}");
    compare(&summary, &reference, &[Waiting, Duplicate, Deleted, DeleteUnknown, Failed]);
    assert_eq!(summary.batcher.retries, 2 * summary.batcher.batches.total(), "{summary}");
}
