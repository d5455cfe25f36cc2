//! How much more may be accepted, and the line of those who wait for it.

use std::task::Waker;

use super::wake::Wakes;
use crate::semaphore::line::{Line, Ticket};

/// What one item takes up: one place, and its weight if that is limited, else zero.
pub(crate) type Weight = u32;

/// Room for items, by number and by weight. Nobody passes the line: while somebody waits, there is
/// no room for who comes new.
pub(crate) struct Room {
    items: usize,
    weight: usize,
    line: Line,
}

impl Room {
    pub(crate) fn new(items: usize, weight: usize) -> Self {
        Self { items, weight, line: Line::default() }
    }

    /// Whether there is room for one item and nobody waits.
    #[inline]
    pub(crate) fn fits(&self, weight: Weight) -> bool {
        self.items > 0 && weight as usize <= self.weight && self.line.is_idle()
    }

    /// Takes room for one item, if there is and nobody waits.
    #[inline]
    pub(crate) fn take(&mut self, weight: Weight) -> bool {
        let fits = self.fits(weight);
        if fits {
            self.items -= 1;
            self.weight -= weight as usize;
        }
        fits
    }

    pub(crate) fn join(&mut self, weight: Weight, waker: Waker) -> Ticket {
        self.line.join(weight, waker)
    }

    /// The waker of somebody who still waits.
    pub(crate) fn waker(&mut self, ticket: Ticket) -> Option<&mut Waker> {
        self.line.waker(ticket)
    }

    pub(crate) fn waiting(&self) -> usize {
        usize::try_from(self.line.waiting()).unwrap_or(usize::MAX)
    }

    /// Gives room back, and as much of it as can be to those who wait.
    pub(crate) fn give(&mut self, items: usize, weight: usize, wakes: &mut Wakes) {
        self.items += items;
        self.weight += weight;
        self.serve(wakes);
    }

    /// Serves the line from its head, while there is room and `wakes` has.
    pub(crate) fn serve(&mut self, wakes: &mut Wakes) {
        while self.items > 0 && self.line.can_serve(self.weight) {
            if wakes.senders_are_full() {
                return;
            }
            if let Some((_, waker)) = self.line.serve_head(&mut self.weight) {
                self.items -= 1;
                wakes.sender(waker);
            }
        }
    }

    /// Sends everybody who waits away, while `wakes` has room.
    pub(crate) fn dismiss(&mut self, wakes: &mut Wakes) {
        while !wakes.senders_are_full() {
            let Some(waker) = self.line.dismiss_head() else { return };
            wakes.sender(waker);
        }
    }

    /// Gives up a place in line, or the room that was granted to it.
    pub(crate) fn leave(&mut self, ticket: Ticket, weight: Weight, wakes: &mut Wakes) {
        match self.line.leave(ticket) {
            Some((_, waker)) => {
                wakes.discard(Some(waker));
                self.serve(wakes);
            }
            None => self.give(1, weight as usize, wakes),
        }
    }
}
