//! A source that does not wait, in front of a pipeline that cannot keep up.

use std::future;
use std::time::Duration;

use sluicegate_examples::ingest::event::{Change, Event};
use sluicegate_examples::ingest::generator::Generator;
use sluicegate_examples::ingest::live;
use sluicegate_examples::ingest::pipeline::{self, Config};
use sluicegate_examples::ingest::source::{Place, generated};
use sluicegate_examples::ingest::store;
use sluicegate_examples::ingest::tally::Category::{DeleteUnknown, Deleted, Dropped};
use tokio::runtime::Runtime;

use crate::run::roomy;

const EVENTS: u64 = 3_000;

fn is_delete(line: &str) -> bool {
    use sluicegate_examples::ingest::event::parse;
    let change = parse(line.as_bytes()).ok().flatten().map(|Event { change, .. }| change);
    matches!(change, Some(Change::DeletePost(_) | Change::DeleteChild(..)))
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
