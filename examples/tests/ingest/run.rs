//! Ways to run the pipeline in a test.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use sluicegate::Retry;
use sluicegate_examples::ingest::identity::Identity;
use sluicegate_examples::ingest::journal::Progress;
use sluicegate_examples::ingest::ledger::Ledger;
use sluicegate_examples::ingest::pipeline::{self, Config};
use sluicegate_examples::ingest::register::Limits;
use sluicegate_examples::ingest::source::{self, Place, RawLine, RawLines};
use sluicegate_examples::ingest::store::{self, Reader, Writer};
use sluicegate_examples::ingest::summary::Summary;
use tokio::runtime::Runtime;

/// Nothing is displaced, evicted or expired, and batches are small, so that there are many.
pub(crate) fn roomy() -> Config {
    Config {
        permits: 4,
        busy_wait: false,
        lookup: Duration::ZERO,
        limits: Limits {
            posts: 100_000,
            users: 100_000,
            items: 10_000,
            time_to_live: Duration::from_secs(3_600),
        },
        in_hand: 64,
        rows: 20,
        window: Duration::from_millis(1),
        retry: Retry::exponential(3, Duration::from_millis(1), Duration::from_millis(2)).unwrap(),
        control: Default::default(),
        ledger: None,
    }
}

/// The lines as an input, with a newline after each.
pub(crate) fn raw(lines: &[String]) -> RawLines {
    let mut end = Place::default();
    let lines = lines.iter().map(|line| {
        let bytes = format!("{line}\n").into_bytes();
        end = Place { line: end.line + 1, offset: end.offset + bytes.len() as u64 };
        Ok(RawLine { end, bytes })
    });
    Box::new(lines.collect::<Vec<_>>().into_iter())
}

/// Runs `lines` into the database at `path`.
pub(crate) fn ingest(config: &Config, path: &Path, lines: &[String]) -> Summary {
    ingest_into(config, store::open(path).unwrap(), lines)
}

/// The same, with connections that the test has prepared.
pub(crate) fn ingest_into(
    config: &Config,
    database: (Writer, Reader),
    lines: &[String],
) -> Summary {
    let raw = raw(lines);
    Runtime::new().unwrap().block_on(async {
        let run =
            pipeline::run(config, database, source::lines(raw, std::future::pending()), |_| ());
        tokio::time::timeout(Duration::from_secs(120), run).await.expect("it hangs").unwrap()
    })
}

/// Goes on with `lines` in the database at `path`, once `prepare` has done what it wants.
pub(crate) fn resume(
    config: &Config,
    path: &Path,
    lines: &[String],
    prepare: impl FnOnce(&mut Connection),
) -> Summary {
    let (mut writer, reader) = store::open(path).unwrap();
    let identity = Identity::Generated { seed: 0 };
    let progress = Progress::begin(writer.connection(), identity).unwrap();
    let ledger = Ledger::new(progress, None, config.in_flight()).unwrap();
    let start = ledger.start();
    let raw = ledger.not_done(Box::new(raw(lines).skip(start.line as usize)));
    prepare(writer.connection());
    let (control, ledger) = (Arc::default(), Some(Arc::new(ledger)));
    let config = Config { control, ledger, ..config.clone() };
    Runtime::new().unwrap().block_on(async {
        let lines = source::lines(raw, std::future::pending());
        let run = pipeline::run(&config, (writer, reader), lines, |_| ());
        tokio::time::timeout(Duration::from_secs(120), run).await.expect("it hangs").unwrap()
    })
}
