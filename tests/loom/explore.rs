//! How far a model is explored, whatever the environment says.

use loom::model::Builder;

/// Every interleaving.
pub(crate) fn exhaustive(model: impl Fn() + Send + Sync + 'static) {
    explore(None, model);
}

/// Every interleaving with at most `preemptions` switches away from a thread that could go on.
pub(crate) fn bounded(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    explore(Some(preemptions), model);
}

fn explore(preemption_bound: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemption_bound;
    builder.max_permutations = None;
    builder.max_duration = None;
    builder.check(model);
}
