//! What an executor was told when it was built, and what of it concerns one batch.

use core::fmt;
use std::sync::Arc;

use super::limits::{BatchDeadline, TimeLimits};
use super::observe::Observer;
use super::stop::{Failures, Stop, StopToken};
use crate::semaphore::Semaphore;
use crate::throttle::Throttle;

/// The options that do not depend on the type of the items.
#[derive(Clone)]
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

/// The options of one batch.
#[derive(Clone)]
pub(super) struct Batch {
    pub(super) limit: usize,
    pub(super) backlog: usize,
    pub(super) throttle: Option<Arc<Throttle>>,
    pub(super) semaphore: Option<Arc<Semaphore>>,
    pub(super) limits: TimeLimits,
    pub(super) deadline: BatchDeadline,
    pub(super) stops: Vec<StopToken>,
    pub(super) failures: Option<Failures>,
    pub(super) observer: Option<Observer>,
}

impl Options {
    /// For a new batch, whose items may weigh more than one permit each or not.
    pub(super) fn batch(&self, weighs: bool) -> Batch {
        let semaphore = match &self.semaphore {
            None if weighs => {
                Some(Arc::new(Semaphore::new(self.limit.min(Semaphore::MAX_PERMITS))))
            }
            semaphore => semaphore.clone(),
        };
        Batch {
            limit: self.limit,
            backlog: self.backlog,
            throttle: self.throttle.clone(),
            semaphore,
            limits: self.limits,
            deadline: BatchDeadline::new(self.limits),
            stops: self.stop.iter().cloned().collect(),
            failures: self.stop_when.map(|(most, how)| Failures::new(most, how)),
            observer: self.observer.clone(),
        }
    }
}

impl Batch {
    /// All that may stop it.
    pub(super) fn tokens(&self) -> Vec<StopToken> {
        let failures = self.failures.iter().map(|failures| failures.token());
        self.stops.iter().chain(failures).cloned().collect()
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
