//! An orchestration server's creation of a run: its steps are named, written with a unique
//! idempotency key, and enqueued.

pub mod cli;
pub mod store;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use sluicegate::phases::PhasesReport;
use sluicegate::{BatchExecutor, ConfigError};
use tokio::time::sleep;

use store::Store;

/// What creating one step costs beside the database: the call of another service.
const CALL: Duration = Duration::from_millis(5);
/// How long one step may take.
const LIMIT: Duration = Duration::from_millis(200);

/// One at a time and all at once, in milliseconds, as the reports of the service give them.
const REPORTED: [(usize, u64, u64); 3] = [(10, 500, 50), (50, 2500, 150), (100, 5000, 300)];

/// A step as it comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// One that can be created.
    Sound,
    /// One that the service refuses.
    Refused,
    /// One whose creation panics.
    Panics,
    /// One whose creation hangs.
    Hangs,
}

/// A run of so many sound steps.
pub fn sound(steps: usize) -> Vec<Step> {
    vec![Step::Sound; steps]
}

/// Creates the steps of a run, at most `limit` at once. A step that exists is left as it is.
///
/// # Errors
///
/// If `limit` is zero.
pub async fn create(
    store: &Arc<Store>,
    run: &str,
    steps: &[Step],
    limit: usize,
) -> Result<PhasesReport<i64, String>, ConfigError> {
    let executor = BatchExecutor::builder().limit(limit).item_timeout(LIMIT).build()?;
    let steps = steps.iter().copied().enumerate();
    let report = executor
        .phases("step.batch", steps)
        .map("name", |(number, step)| Ok((format!("{run}/{number}"), step)))
        .phase("create", async |(key, step)| {
            sleep(CALL).await;
            match step {
                Step::Sound => {}
                Step::Refused => return Err(format!("{key} is refused")),
                // Not `panic!`, so that nothing is printed.
                Step::Panics => std::panic::resume_unwind(Box::new("a broken step")),
                Step::Hangs => std::future::pending().await,
            }
            store.create(run, &key).await.map_err(|error| error.to_string())
        })
        .await
        .phase("enqueue", async |step| {
            store.enqueue(step).await.map_err(|error| error.to_string())?;
            Ok(step)
        })
        .await;
    Ok(report.report())
}

/// One size of run: how long it took one by one and in parallel, in milliseconds, here and as
/// reported.
#[derive(Debug)]
pub struct Row {
    steps: usize,
    took: [f64; 2],
    reported: [u64; 2],
}

/// What there is to print.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Row>,
    /// Of the run in which some steps go wrong.
    failures: Vec<(usize, String)>,
    phases: Vec<PhaseRow>,
    created: usize,
}

#[derive(Debug)]
struct PhaseRow {
    phase: String,
    succeeded: usize,
    entered: usize,
}

/// Runs of 10, 50 and 100 steps, one by one and in parallel, and one in which some go wrong.
///
/// # Errors
///
/// Of the database; or if a step was lost, or created twice.
pub async fn table(store: &Arc<Store>) -> Result<Table, Box<dyn std::error::Error>> {
    let mut rows = Vec::new();
    for (steps, single_reported, parallel_reported) in REPORTED {
        let mut took = [0.0; 2];
        for (took, limit) in took.iter_mut().zip([1, steps]) {
            let start = Instant::now();
            let run = format!("{steps} at most {limit}");
            let report = create(store, &run, &sound(steps), limit).await?;
            *took = start.elapsed().as_secs_f64() * 1e3;
            if let Some((number, error)) = report.failed().next() {
                return Err(format!("step {number} of {steps}: {error}").into());
            }
        }
        rows.push(Row { steps, took, reported: [single_reported, parallel_reported] });
    }

    let mut steps = sound(10);
    (steps[3], steps[5], steps[7]) = (Step::Refused, Step::Panics, Step::Hangs);
    let report = create(store, "mixed", &steps, 10).await?;
    let failures = report.failed().map(|(number, error)| (number, error.to_string())).collect();
    let phases = report.phases.iter().map(|phase| PhaseRow {
        phase: phase.phase.to_string(),
        succeeded: phase.succeeded,
        entered: phase.entered,
    });
    let phases = phases.collect();
    let created = store.count("mixed").await?;
    let _ = create(store, "mixed", &steps, 10).await?;
    let after = store.count("mixed").await?;
    if created != after {
        return Err(format!("a repeated run created {} steps twice", after - created).into());
    }
    Ok(Table { rows, failures, phases, created })
}

impl Table {
    /// All of it as one JSON object.
    pub fn to_json(&self) -> String {
        let rows = self.rows.iter().map(|Row { steps, took, reported }| {
            json!({
                "steps": steps,
                "one_by_one_ms": took[0],
                "in_parallel_ms": took[1],
                "reported_one_by_one_ms": reported[0],
                "reported_in_parallel_ms": reported[1],
            })
        });
        let failures =
            self.failures.iter().map(|(step, error)| json!({ "step": step, "error": error }));
        let (rows, failures): (Vec<_>, Vec<_>) = (rows.collect(), failures.collect());
        json!({ "runs": rows, "failures": failures, "created": self.created }).to_string()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "steps   one by one   in parallel    ratio   reported: one by one   in parallel    ratio"
        )?;
        let ratio = |parallel: f64, single: f64| format!("{:.3}", parallel / single);
        for Row { steps, took: [single, parallel], reported: [r_single, r_parallel] } in &self.rows
        {
            writeln!(
                f,
                "{steps:>5} {single:>9.0} ms {parallel:>10.0} ms {:>8} {r_single:>19} ms {r_parallel:>10} ms {:>8}",
                ratio(*parallel, *single),
                ratio(*r_parallel as f64, *r_single as f64),
            )?;
        }
        writeln!(f, "\nA run of 10 steps, of which one fails, one panics and one times out:")?;
        for (number, error) in &self.failures {
            writeln!(f, "  step {number}: {error}")?;
        }
        for PhaseRow { phase, succeeded, entered } in &self.phases {
            writeln!(f, "  {phase}: {succeeded} of {entered} steps")?;
        }
        let created = self.created;
        writeln!(f, "Created {created} steps; {created} after the same run once more.")
    }
}
