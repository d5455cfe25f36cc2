//! What the driver and the core tell each other when they meet, so that they meet once for many
//! batches.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Instant;

use super::job::{Handed, Returned};

/// Kept by the driver, whose vectors are used again.
pub(crate) struct DriverBuffers<T, G> {
    /// Batches that the driver may begin without asking: one when the one before it is finished, and
    /// well. To the core they are with the handler, and are unsent if they never are.
    pub(crate) ahead: VecDeque<Handed<T, G>>,
    /// Those of them that were begun, and when.
    pub(crate) begun: Vec<(usize, Instant)>,
    /// Slots whose handler is done, and whether well.
    pub(crate) handled: Vec<(usize, bool)>,
    /// Guards that are back.
    pub(crate) returned: Vec<Returned<T>>,
    /// Keys that are to be dropped after the lock.
    pub(crate) tags: Vec<G>,
    /// The driver's, while the core does not have it.
    pub(crate) waker: Option<Waker>,
    /// One that the core had and has no use for, to be dropped after the lock.
    pub(crate) stale: Option<Waker>,
}

impl<T, G> DriverBuffers<T, G> {
    pub(crate) fn new() -> Self {
        Self {
            ahead: VecDeque::new(),
            begun: Vec::new(),
            handled: Vec::new(),
            returned: Vec::new(),
            tags: Vec::new(),
            waker: None,
            stale: None,
        }
    }
}

/// Where guards leave what they hold while the driver is about, which is sure to look before it
/// sleeps: so a handler that drops its guard where it was called keeps no sender waiting for a lock.
pub(crate) struct ReturnBox<T> {
    returned: Vec<Returned<T>>,
    /// Whether the driver is about. What it does not fetch goes to the core.
    attended: bool,
}

impl<T> ReturnBox<T> {
    pub(crate) fn new() -> Self {
        Self { returned: Vec::new(), attended: false }
    }

    /// Takes what a guard held, unless the driver is not about.
    pub(crate) fn leave(&mut self, back: Returned<T>) -> Result<(), Returned<T>> {
        if !self.attended {
            return Err(back);
        }
        self.returned.push(back);
        Ok(())
    }

    /// The driver is about, and fetches what is there.
    pub(crate) fn fetch(&mut self, returned: &mut Vec<Returned<T>>) {
        self.attended = true;
        returned.append(&mut self.returned);
    }

    /// The driver goes, if nothing was left here since it looked.
    pub(crate) fn close(&mut self) -> bool {
        self.attended = !self.returned.is_empty();
        !self.attended
    }
}
