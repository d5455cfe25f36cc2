//! Wakers on their way out of a lock, and walls around code that is not ours.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

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
            let _ = contained(|| waker.wake());
        }
        let _ = contained(|| drop(self.discard.take()));
    }
}

/// Runs code that is not ours; a panic ends here, as its message.
pub(crate) fn contained<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(message)
}

fn message(payload: Box<dyn Any + Send>) -> String {
    let text = if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a value that is not text".to_owned()
    };
    // A payload's own destructor may panic as well, with a payload that nobody should try again.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(again);
    }
    text
}
