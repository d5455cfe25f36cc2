//! Wakers on their way out of a lock.

use std::task::Waker;

use crate::base::panic::quietly;

/// How many senders are woken out of one critical section. One under loom, so that the models see
/// the seam.
const SENDERS: usize = if cfg!(loom) { 1 } else { 64 };

/// Wakers taken out under the lock, to be woken or dropped after it: declare it before the guard.
///
/// Mostly there is one sender to wake and one driver, which want no vector.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    driver: Option<Waker>,
    first: Option<Waker>,
    wake: Vec<Waker>,
    senders: usize,
    discard: Option<Waker>,
}

impl Wakes {
    /// The waker of a flush or a shutdown that has ended.
    pub(crate) fn push(&mut self, waker: Option<Waker>) {
        self.wake.extend(waker);
    }

    pub(crate) fn driver(&mut self, waker: Option<Waker>) {
        debug_assert!(self.driver.is_none() || waker.is_none(), "there is one driver");
        if waker.is_some() {
            self.driver = waker;
        }
    }

    pub(crate) fn sender(&mut self, waker: Waker) {
        self.senders += 1;
        if self.first.is_none() {
            self.first = Some(waker);
        } else {
            if self.senders == 2 {
                // Once for all of them.
                self.wake.reserve(SENDERS);
            }
            self.wake.push(waker);
        }
    }

    /// Whether those who are still to be woken must wait for another critical section.
    pub(crate) fn senders_are_full(&self) -> bool {
        self.senders == SENDERS
    }

    pub(crate) fn discard(&mut self, waker: Option<Waker>) {
        self.discard = waker;
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        // One waker that panics must not keep the others asleep.
        for waker in [self.first.take(), self.driver.take()].into_iter().flatten() {
            quietly(|| waker.wake());
        }
        for waker in self.wake.drain(..) {
            quietly(|| waker.wake());
        }
        if let Some(waker) = self.discard.take() {
            quietly(|| drop(waker));
        }
    }
}
