//! What is traced, if anything is.

use super::{PhaseReport, PhasesReport};

#[cfg(feature = "tracing")]
const TARGET: &str = "sluicegate::phases";

#[cfg(feature = "tracing")]
fn millis(elapsed: core::time::Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn start(batch: &str, items: usize) {
    #[cfg(feature = "tracing")]
    tracing::info!(target: TARGET, batch, items, "start");
    let _ = (batch, items);
}

pub(super) fn phase(batch: &str, report: &PhaseReport) {
    #[cfg(feature = "tracing")]
    tracing::info!(
        target: TARGET,
        batch,
        phase = report.phase,
        entered = report.entered,
        succeeded = report.succeeded,
        failed = report.failed(),
        elapsed_ms = millis(report.elapsed),
        "phase"
    );
    let _ = (batch, report);
}

pub(super) fn complete<V, E>(batch: &str, report: &PhasesReport<V, E>) {
    #[cfg(feature = "tracing")]
    tracing::info!(
        target: TARGET,
        batch,
        items = report.outcomes.len(),
        succeeded = report.succeeded(),
        failed = report.outcomes.len() - report.succeeded(),
        elapsed_ms = millis(report.elapsed),
        per_second = report.throughput(),
        "complete"
    );
    let _ = (batch, report);
}
