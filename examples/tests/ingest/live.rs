//! A source that does not wait, in front of a pipeline that cannot keep up.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use std::{future, io};

use futures_util::{StreamExt, stream};
use rusqlite::Connection;
use sluicegate_examples::ingest::event::{Change, Event, parse};
use sluicegate_examples::ingest::generator::Generator;
use sluicegate_examples::ingest::identity::Identity;
use sluicegate_examples::ingest::journal::Progress;
use sluicegate_examples::ingest::ledger::Ledger;
use sluicegate_examples::ingest::live;
use sluicegate_examples::ingest::pipeline::{self, Config};
use sluicegate_examples::ingest::source::{Arrived, Line, Place, generated};
use sluicegate_examples::ingest::store;
use sluicegate_examples::ingest::tally::Category::{
    Abandoned, DeleteUnknown, Deleted, Dropped, Ignored,
};
use tokio::runtime::Runtime;

use crate::cli::{IDENTITY, POST};
use crate::run::roomy;

const EVENTS: u64 = 3_000;

fn is_delete(line: &str) -> bool {
    let change = parse(line.as_bytes()).ok().flatten().map(|Event { change, .. }| change);
    matches!(change, Some(Change::DeletePost(_) | Change::DeleteChild(..)))
}

/// The line before the gap is abandoned, so that the next run goes on there.
#[tokio::test]
async fn what_is_dropped_is_done_though_a_line_before_it_is_not() {
    for lost in [1, 2, 5] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ingest.db");
        let (mut writer, reader) = store::open(&path).unwrap();
        let identity = Identity::Generated { seed: 0 };
        let progress = Progress::begin(writer.connection(), identity).unwrap();
        let ledger = Some(Arc::new(Ledger::new(progress, None, 10).unwrap()));
        let config = Config { lookup: Duration::from_secs(3_600), ledger, ..roomy() };
        let arrived = |line, text: &str| {
            let end = Place { line, offset: 10 * line };
            io::Result::Ok(Arrived::Line(Line { end, event: parse(text.as_bytes()) }))
        };
        let after = lost + 2;
        let lines = [
            arrived(1, POST),
            Ok(Arrived::Gap { lines: lost, before: Some(after) }),
            arrived(after, IDENTITY),
        ];
        let end = stream::poll_fn(|_| {
            config.control.give_up_look_ups();
            Poll::Ready(None)
        });
        let lines = stream::iter(lines).chain(end);
        let summary = pipeline::run(&config, (writer, reader), lines, |_| ()).await.unwrap();
        assert!(summary.adds_up() && summary.of(Abandoned) == 1, "{summary}");
        assert_eq!((summary.of(Dropped), summary.of(Ignored)), (lost, 1), "{summary}");
        let progress = Progress::load(&Connection::open(&path).unwrap()).unwrap().unwrap();
        assert_eq!(progress.checkpoint.completed_beyond(), [(2, after)]);
        assert_eq!(
            (progress.checkpoint.committed(), progress.counts.sum()),
            (None, lost as i64 + 1)
        );
    }
}

#[test]
fn what_is_lost_is_counted_and_no_delete_is() {
    let folder = tempfile::tempdir().unwrap();
    let database = store::open(&folder.path().join("ingest.db")).unwrap();
    let config = Config { permits: 1, lookup: Duration::from_millis(2), ..roomy() };
    let queue = live::queue(200).unwrap();
    let summary = Runtime::new().unwrap().block_on(async {
        let raw = generated(Generator::new(1, EVENTS), Place::default());
        let lines = live::lines(raw, future::pending(), queue.clone(), 1_000_000);
        let run = pipeline::run(&config, database, lines, |_| ());
        tokio::time::timeout(Duration::from_secs(120), run).await.expect("it hangs").unwrap()
    });
    assert!(summary.adds_up(), "{summary}");
    assert_eq!(summary.read, EVENTS);
    assert!(summary.of(Dropped) > 0, "{summary}");
    assert_eq!(summary.of(Dropped), queue.stats().displaced());

    let deletes = Generator::new(1, EVENTS).filter(|line| is_delete(line)).count() as u64;
    assert!(deletes > 0);
    assert_eq!(summary.of(Deleted) + summary.of(DeleteUnknown), deletes, "{summary}");
}
