//! Those who wait for all that was accepted before them.

use core::mem;
use std::collections::BTreeMap;
use std::task::Waker;

use super::report::{Fate, FlushReport};
use super::wake::Wakes;

/// One flush: it waits for `remaining` more items of the batches before `before`.
#[derive(Debug)]
struct Barrier {
    before: u64,
    remaining: u64,
    report: FlushReport,
    waker: Option<Waker>,
}

/// All flushes that somebody waits for; one goes when its future does.
#[derive(Debug, Default)]
pub(crate) struct Barriers {
    waiting: BTreeMap<u64, Barrier>,
    next_ticket: u64,
}

impl Barriers {
    /// A barrier over the `remaining` unfinished items, all of them in batches before `before`.
    pub(crate) fn raise(&mut self, before: u64, remaining: u64) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let report = FlushReport::default();
        self.waiting.insert(ticket, Barrier { before, remaining, report, waker: None });
        ticket
    }

    /// `items` of `batch` are finished.
    pub(crate) fn count(&mut self, batch: u64, fate: Fate, items: usize, wakes: &mut Wakes) {
        for barrier in self.waiting.values_mut().filter(|barrier| batch < barrier.before) {
            barrier.report.add(fate, items);
            barrier.remaining -= items as u64;
            if barrier.remaining == 0 {
                wakes.push(barrier.waker.take());
            }
        }
    }

    /// The report once nothing remains; until then `waker` is kept, and the one before it takes
    /// its place.
    pub(crate) fn poll(&mut self, ticket: u64, waker: &mut Option<Waker>) -> Option<FlushReport> {
        let barrier = self.waiting.get_mut(&ticket)?;
        if barrier.remaining > 0 {
            mem::swap(&mut barrier.waker, waker);
            return None;
        }
        Some(barrier.report)
    }

    pub(crate) fn lower(&mut self, ticket: u64) -> Option<Waker> {
        self.waiting.remove(&ticket).and_then(|barrier| barrier.waker)
    }
}
