//! A run's waiter at a throttle, for the one item that starts next.

use core::task::Context;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use crate::throttle::{Throttle, Waiter};

pub(super) struct Throttling {
    throttle: Arc<Throttle>,
    asking: Option<Waiter<Arc<Throttle>>>,
    /// Not before then, or before the waker is woken.
    until: Option<Instant>,
    waker: Waker,
}

impl Throttling {
    pub(super) fn new(throttle: Arc<Throttle>, waker: Waker) -> Self {
        Self { throttle, asking: None, until: None, waker }
    }

    /// Whether the next item may start.
    pub(super) fn may_start(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.until.is_some() {
            return false;
        }
        let asking = self.asking.get_or_insert_with(|| Waiter::new(Arc::clone(&self.throttle), 1));
        match asking.poll_at(now(), &mut Context::from_waker(&self.waker)) {
            Ok(()) => {
                self.asking = None;
                true
            }
            Err(until) => {
                self.until = Some(until);
                false
            }
        }
    }

    /// When to ask again.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// The time has come, or the waker was woken.
    pub(super) fn woken(&mut self) {
        self.until = None;
    }

    /// Nobody is to start.
    pub(super) fn stop_waiting(&mut self) {
        self.until = None;
        self.asking = None;
    }
}
