//! What an executor was told when it was built, and what of it concerns one batch.

use core::fmt;
use std::sync::Arc;

use super::limits::{BatchDeadline, TimeLimits};
use super::observe::Observer;
use super::stop::{Failures, Stop, StopToken};
use crate::semaphore::Semaphore;
use crate::throttle::Throttle;

/// The options that do not depend on the type of the items.
#[derive(Clone, Default)]
pub(super) struct Options {
    pub(super) limit: usize,
    pub(super) backlog: usize,
    pub(super) throttle: Option<Arc<Throttle>>,
    pub(super) semaphore: Option<Arc<Semaphore>>,
    pub(super) limits: TimeLimits,
    pub(super) stop: Option<StopToken>,
    pub(super) stop_when: Option<(usize, Stop)>,
    pub(super) observer: Option<Observer>,
}

/// The options of one batch, and what its runs share.
#[derive(Clone)]
pub(super) struct Batch {
    pub(super) options: Options,
    pub(super) deadline: BatchDeadline,
    pub(super) stops: Vec<StopToken>,
    pub(super) failures: Option<Failures>,
}

impl Options {
    /// For a new batch, whose items may weigh more than one permit each or not.
    pub(super) fn batch(&self, weighs: bool) -> Batch {
        let mut options = self.clone();
        if weighs {
            options.semaphore.get_or_insert_with(|| {
                Arc::new(Semaphore::new(self.limit.min(Semaphore::MAX_PERMITS)))
            });
        }
        Batch {
            options,
            deadline: BatchDeadline::new(self.limits),
            stops: self.stop.iter().cloned().collect(),
            failures: self.stop_when.map(|(most, how)| Failures::new(most, how)),
        }
    }
}

impl Batch {
    /// All that may stop it.
    pub(super) fn tokens(&self) -> Vec<StopToken> {
        let failures = self.failures.iter().map(|failures| failures.token());
        self.stops.iter().chain(failures).cloned().collect()
    }

    /// Reduces the limit and the backlog to the share of one of the workers.
    pub(super) fn reduce_to_share(&mut self, worker: usize, workers: usize) {
        let share = |of: usize| of / workers + usize::from(worker < of % workers);
        self.options.limit = share(self.options.limit);
        self.options.backlog = share(self.options.backlog);
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("limit", &self.limit)
            .field("backlog", &self.backlog)
            .field("throttle", &self.throttle)
            .field("semaphore", &self.semaphore)
            .field("limits", &self.limits)
            .field("stop", &self.stop)
            .field("stop_when", &self.stop_when)
            .field("observed", &self.observer.is_some())
            .finish()
    }
}
