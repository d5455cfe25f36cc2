//! What is traced of phases: which events, at which level, and with which fields.
//!
//! Seen to fail: with no start told; with the failed of a plain function counted as its successes; with
//! a phase that is not named; with no throughput; with all items counted as failed at the end; with
//! a boundary told at another level.

#![cfg(all(feature = "tracing", feature = "tokio", not(loom)))]

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate::{BatchExecutor, Retry};
use tokio::time::sleep;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

const MS: Duration = Duration::from_millis(1);

/// Writes each event in a line of its own.
#[derive(Default, Clone)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sluicegate")
    }

    fn event(&self, event: &Event<'_>) {
        struct Fields(String, String);

        impl Visit for Fields {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                } else {
                    write!(self.1, " {}={value:?}", field.name()).unwrap();
                }
            }
        }

        assert_eq!(*event.metadata().level(), Level::INFO);
        assert_eq!(event.metadata().target(), "sluicegate::phases");
        let mut fields = Fields(String::new(), String::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0 + &fields.1);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        unreachable!("there are no spans")
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Like [`tracing::subscriber::set_default`], for the thread of a test.
fn traced() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let guard = tracing::subscriber::set_default(lines.clone());
    (lines, guard)
}

#[tokio::test(start_paused = true)]
async fn each_boundary_is_told_with_its_counts() {
    let (lines, _guard) = traced();
    let executor = BatchExecutor::new(10).unwrap();
    let phases =
        executor.phases("run", 0..5_u32).map("check", |n| if n == 0 { Err("no") } else { Ok(n) });
    let told = lines.take();
    assert_eq!(told.len(), 2, "as they happen, not at the end");
    assert_eq!(told[0], "start batch=\"run\" items=5");
    let check = "phase batch=\"run\" phase=\"check\" entered=5 succeeded=4 failed=1 elapsed_ms=";
    assert!(told[1].starts_with(check), "{told:?}");

    let phases = phases
        .phase("create", async |n| {
            sleep(MS * 10).await;
            if n == 1 { Err("no") } else { Ok(n) }
        })
        .await;
    let told = lines.take();
    let created = "phase batch=\"run\" phase=\"create\" entered=4 succeeded=3 failed=1 elapsed_ms=";
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with(created), "{told:?}");

    let phases = phases
        .flow(["index", "enqueue"], async |n, cursor| {
            if n == 2 {
                return Err("no");
            }
            cursor.next();
            if n == 3 {
                std::panic::resume_unwind(Box::new("bad luck"))
            }
            Ok(n)
        })
        .await;
    let told = lines.take();
    let index = "phase batch=\"run\" phase=\"index\" entered=3 succeeded=2 failed=1 elapsed_ms=";
    let enqueue =
        "phase batch=\"run\" phase=\"enqueue\" entered=2 succeeded=1 failed=1 elapsed_ms=";
    assert_eq!(told.len(), 2);
    assert!(told[0].starts_with(index) && told[1].starts_with(enqueue), "{told:?}");

    let report = phases.report();
    let told = lines.take();
    assert_eq!(told.len(), 1);
    let complete = "complete batch=\"run\" items=5 succeeded=1 failed=4 elapsed_ms=";
    assert!(told[0].starts_with(complete), "{told:?}");
    let rate: f64 = told[0].split_once("per_second=").unwrap().1.parse().unwrap();
    assert!((rate - report.throughput()).abs() < 1e-6, "{rate} {}", report.throughput());
}

#[tokio::test(start_paused = true)]
async fn retries_are_counted_as_the_items_that_they_are() {
    let (lines, _guard) = traced();
    let calls = std::cell::Cell::new(0);
    let report = BatchExecutor::new(1)
        .unwrap()
        .retry(Retry::constant(3, MS).unwrap())
        .phases("run", ["item"])
        .phase("create", async |_| {
            calls.set(calls.get() + 1);
            if calls.get() < 3 { Err("busy") } else { Ok(()) }
        })
        .await
        .report();
    assert_eq!((report.succeeded(), calls.get()), (1, 3));
    let told = lines.take();
    assert!(told[1].contains("entered=1 succeeded=1 failed=0"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn phases_that_are_dropped_are_not_said_to_be_complete() {
    let (lines, _guard) = traced();
    let executor = BatchExecutor::new(1).unwrap();
    let run = executor
        .phases("run", ["item"])
        .phase("create", async |_| std::future::pending::<Result<(), ()>>().await);
    assert!(tokio::time::timeout(MS * 10, run).await.is_err());
    assert_eq!(lines.take(), ["start batch=\"run\" items=1"]);
}
