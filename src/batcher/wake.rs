//! Wakers on their way out of a lock.

use std::task::Waker;

use crate::settled::quietly;

/// Wakers taken out under the lock, to be woken or dropped after it: declare it before the guard.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    wake: Vec<Waker>,
    discard: Option<Waker>,
}

impl Wakes {
    pub(crate) fn push(&mut self, waker: Option<Waker>) {
        self.wake.extend(waker);
    }

    pub(crate) fn discard(&mut self, waker: Option<Waker>) {
        self.discard = waker;
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        for waker in self.wake.drain(..) {
            // One waker that panics must not keep the others asleep.
            quietly(|| waker.wake());
        }
        quietly(|| drop(self.discard.take()));
    }
}
