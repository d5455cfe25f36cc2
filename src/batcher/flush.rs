//! Those who wait for all that was accepted before them.
//!
//! Each flush ends a span of batches: those between the flush before and itself. A batch that
//! ends is counted in its span alone, however many flushes there are, and a flush is over when its
//! own span is and all before it are. What it reports is the difference between all that had
//! ended when it began and all that has ended in its own span and those before.

use core::mem;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::task::Waker;

use super::report::{Fate, FlushReport};
use super::wake::Wakes;

/// A flush: the number of the first batch that it does not cover, and its own.
pub(crate) type FlushId = (u64, u64);

/// The batches from the flush before up to this one.
#[derive(Debug)]
struct FlushSpan {
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
pub(crate) struct Flushes {
    waiting: BTreeMap<FlushId, FlushSpan>,
    over: BTreeMap<FlushId, FlushReport>,
    /// The sum of what remains in all spans.
    remaining: u64,
    /// How the items of batches before the first span ended, and of those after the last.
    before: FlushReport,
    after: FlushReport,
    next: u64,
}

impl Flushes {
    /// A barrier over the `pending` unfinished items, all of them in batches before `before`;
    /// `ended` says how all others did.
    pub(crate) fn begin(&mut self, before: u64, pending: u64, at_start: FlushReport) -> FlushId {
        let ticket = (before, self.next);
        self.next += 1;
        let remaining = pending - self.remaining;
        self.remaining = pending;
        let ended = mem::take(&mut self.after);
        self.waiting.insert(ticket, FlushSpan { remaining, ended, at_start, waker: None });
        self.end_those_that_are_over(&mut Wakes::default());
        ticket
    }

    /// `items` of `batch` are finished.
    pub(crate) fn count(&mut self, batch: u64, fate: Fate, items: usize, wakes: &mut Wakes) {
        let first = (batch + 1, 0);
        let Some((_, span)) = self.waiting.range_mut(first..).next() else {
            return self.after.add(fate, items);
        };
        span.ended.add(fate, items);
        span.remaining -= items as u64;
        self.remaining -= items as u64;
        if span.remaining == 0 {
            self.end_those_that_are_over(wakes);
        }
    }

    fn end_those_that_are_over(&mut self, wakes: &mut Wakes) {
        while let Some(first) = self.waiting.first_entry() {
            if first.get().remaining > 0 {
                return;
            }
            let (ticket, span) = first.remove_entry();
            self.before.merge(&span.ended);
            self.over.insert(ticket, self.before.since(&span.at_start));
            wakes.push(span.waker);
        }
    }

    /// The report once nothing undelivered; until then `waker` is kept, and the one before it takes
    /// its place.
    pub(crate) fn poll(
        &mut self,
        ticket: FlushId,
        waker: &mut Option<Waker>,
    ) -> Option<FlushReport> {
        if let Some(span) = self.waiting.get_mut(&ticket) {
            mem::swap(&mut span.waker, waker);
            return None;
        }
        self.over.get(&ticket).copied()
    }

    /// Nobody waits for it any more: its span becomes part of the next.
    pub(crate) fn forget(&mut self, ticket: FlushId) -> Option<Waker> {
        self.over.remove(&ticket);
        let FlushSpan { remaining, ended, waker, .. } = self.waiting.remove(&ticket)?;
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
