//! Those who wait for all that was accepted before them.
//!
//! Each flush ends a stretch of batches: those between the flush before and itself. A batch that
//! ends is counted in its stretch alone, however many flushes there are, and a flush is over when its
//! own stretch is and all before it are. What it reports is the difference between all that had
//! ended when it began and all that has ended in its own stretch and those before.

use core::mem;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::task::Waker;

use super::report::{Fate, FlushReport};
use super::wake::Wakes;

/// A flush: the number of the first batch that it does not cover, and its own.
pub(crate) type Ticket = (u64, u64);

/// The batches from the flush before up to this one.
#[derive(Debug)]
struct Stretch {
    /// Items of these batches that are not finished.
    remaining: u64,
    /// How the finished ones ended.
    ended: FlushReport,
    /// All that had ended when the flush began.
    at_start: FlushReport,
    waker: Option<Waker>,
}

/// All flushes that somebody waits for; one goes when its future does.
#[derive(Debug, Default)]
pub(crate) struct Barriers {
    waiting: BTreeMap<Ticket, Stretch>,
    over: BTreeMap<Ticket, FlushReport>,
    /// The sum of what remains in all stretches.
    remaining: u64,
    /// How the items of batches before the first stretch ended, and of those after the last.
    before: FlushReport,
    after: FlushReport,
    next: u64,
}

impl Barriers {
    /// A barrier over the `pending` unfinished items, all of them in batches before `before`;
    /// `ended` says how all others did.
    pub(crate) fn raise(&mut self, before: u64, pending: u64, at_start: FlushReport) -> Ticket {
        let ticket = (before, self.next);
        self.next += 1;
        let remaining = pending - self.remaining;
        self.remaining = pending;
        let ended = mem::take(&mut self.after);
        self.waiting.insert(ticket, Stretch { remaining, ended, at_start, waker: None });
        self.end_those_that_are_over(&mut Wakes::default());
        ticket
    }

    /// `items` of `batch` are finished.
    pub(crate) fn count(&mut self, batch: u64, fate: Fate, items: usize, wakes: &mut Wakes) {
        let first = (batch + 1, 0);
        let Some((_, stretch)) = self.waiting.range_mut(first..).next() else {
            return self.after.add(fate, items);
        };
        stretch.ended.add(fate, items);
        stretch.remaining -= items as u64;
        self.remaining -= items as u64;
        if stretch.remaining == 0 {
            self.end_those_that_are_over(wakes);
        }
    }

    fn end_those_that_are_over(&mut self, wakes: &mut Wakes) {
        while let Some(first) = self.waiting.first_entry() {
            if first.get().remaining > 0 {
                return;
            }
            let (ticket, stretch) = first.remove_entry();
            self.before.merge(&stretch.ended);
            self.over.insert(ticket, self.before.since(&stretch.at_start));
            wakes.push(stretch.waker);
        }
    }

    /// The report once nothing remains; until then `waker` is kept, and the one before it takes
    /// its place.
    pub(crate) fn poll(
        &mut self,
        ticket: Ticket,
        waker: &mut Option<Waker>,
    ) -> Option<FlushReport> {
        if let Some(stretch) = self.waiting.get_mut(&ticket) {
            mem::swap(&mut stretch.waker, waker);
            return None;
        }
        self.over.get(&ticket).copied()
    }

    /// Nobody waits for it any more: its stretch becomes part of the next.
    pub(crate) fn lower(&mut self, ticket: Ticket) -> Option<Waker> {
        self.over.remove(&ticket);
        let Stretch { remaining, ended, waker, .. } = self.waiting.remove(&ticket)?;
        match self.waiting.range_mut((Excluded(ticket), Unbounded)).next() {
            Some((_, next)) => {
                next.ended.merge(&ended);
                next.remaining += remaining;
            }
            None => {
                self.after.merge(&ended);
                self.remaining -= remaining;
            }
        }
        waker
    }
}
