//! An orchestration server's creation of a run: its steps are named, written with a unique
//! idempotency key, and enqueued.

pub mod cli;
pub mod store;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Runs of 10, 50 and 100 steps, one by one and in parallel, and one in which some go wrong; what
/// there is to print of them.
///
/// # Errors
///
/// Of the database; or if a step was lost, or created twice.
pub async fn table() -> Result<String, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let store = Arc::new(Store::open(&folder.path().join("runs.db"))?);
    let mut text = String::from(
        "steps   one by one   in parallel    ratio   reported: one by one   in parallel    ratio\n",
    );
    let ratio = |parallel: f64, single: f64| format!("{:.3}", parallel / single);
    for (steps, single_reported, parallel_reported) in REPORTED {
        let mut took = [0.0; 2];
        for (took, limit) in took.iter_mut().zip([1, steps]) {
            let start = Instant::now();
            let run = format!("{steps} at most {limit}");
            let report = create(&store, &run, &sound(steps), limit).await?;
            *took = start.elapsed().as_secs_f64() * 1e3;
            if report.succeeded() != steps {
                return Err(format!("{} of {steps} steps created", report.succeeded()).into());
            }
        }
        let [single, parallel] = took;
        writeln!(
            text,
            "{steps:>5} {single:>9.0} ms {parallel:>10.0} ms {:>8} {single_reported:>19} ms {parallel_reported:>10} ms {:>8}",
            ratio(parallel, single),
            ratio(parallel_reported as f64, single_reported as f64),
        )?;
    }

    let mut steps = sound(10);
    (steps[3], steps[5], steps[7]) = (Step::Refused, Step::Panics, Step::Hangs);
    let first = create(&store, "mixed", &steps, 10).await?;
    writeln!(text, "\nA run of 10 steps, of which one fails, one panics and one times out:")?;
    for (number, error) in first.failed() {
        writeln!(text, "  step {number}: {error}")?;
    }
    for phase in &first.phases {
        writeln!(text, "  {}: {} of {} steps", phase.phase, phase.succeeded, phase.entered)?;
    }
    let before = store.count("mixed").await?;
    let _ = create(&store, "mixed", &steps, 10).await?;
    let after = store.count("mixed").await?;
    writeln!(text, "Created {before} steps; {after} after the same run once more.")?;
    if before != after {
        return Err("a repeated run created a step twice".into());
    }
    Ok(text)
}
