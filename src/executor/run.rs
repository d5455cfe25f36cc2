//! One run of an executor: pull, start, poll what was woken, settle, sink.
//!
//! The run is a single future in the caller's task. It never loops over what is not ready: a line
//! on the wake list is polled once for each time it is woken, and so are the source and the sink,
//! which have lines of their own.

use core::future::Future;
use core::task::{Context, Poll};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use super::clock::{Clock, Overdue, TimeLimits};
use super::order::Order;
use super::outlet::Outlet;
use super::places::{Places, Polled};
use super::source::Source;
use super::summary::{BatchEnd, BatchSummary};
use super::wakes::WakeList;
use crate::settled::{Settled, caught, quietly};

/// Lines of the wake list that belong to no place.
const SOURCE: usize = 0;
const SINK: usize = 1;
const FIRST_PLACE: usize = 2;

/// How many rounds one poll of a run makes before it gives way to the thread's other tasks. A round
/// polls at most one woken item, one new one, and the sink.
const ROUNDS_PER_POLL: usize = 128;

pub(super) struct Run<S: Source, F, Fut, R, O> {
    limit: usize,
    source: S,
    source_state: SourceState,
    source_waker: Waker,
    start: F,
    order: R,
    places: Places<S::Input, Fut>,
    wakes: Arc<WakeList>,
    /// Taken from the wake list, or released by their key, and still to be polled.
    woken: VecDeque<usize>,
    clock: Clock,
    outlet: O,
    sink_waker: Waker,
    pulled: usize,
    summary: BatchSummary,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SourceState {
    Ready,
    /// It will wake its line.
    Pending,
    /// Ended, panicked, or not wanted any more: it is not asked again.
    Done,
}

impl<S: Source, F, Fut, R, O> Run<S, F, Fut, R, O> {
    pub(super) fn new(
        limit: usize,
        limits: TimeLimits,
        source: S,
        start: F,
        order: R,
        outlet: O,
    ) -> Self {
        let wakes = WakeList::new();
        let (source_line, source_waker) = wakes.open_line();
        let (sink_line, sink_waker) = wakes.open_line();
        debug_assert_eq!((source_line, sink_line), (SOURCE, SINK));
        Self {
            limit,
            source,
            source_state: SourceState::Ready,
            source_waker,
            start,
            order,
            places: Places::new(Arc::clone(&wakes), FIRST_PLACE),
            wakes,
            woken: VecDeque::new(),
            clock: Clock::new(limits),
            outlet,
            sink_waker,
            pulled: 0,
            summary: BatchSummary::default(),
        }
    }

    /// Ends a run that is done. A panic in dropping what the caller gave it changes no outcome.
    pub(super) fn into_outlet(self) -> O {
        let Self { source, start, order, outlet, .. } = self;
        quietly(|| drop(source));
        quietly(|| drop(start));
        quietly(|| drop(order));
        outlet
    }
}

impl<S, F, Fut, R, O, T, E> Run<S, F, Fut, R, O>
where
    S: Source,
    F: FnMut(S::Input) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    R: Order<S::Input>,
    O: Outlet<T, E>,
{
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<BatchSummary> {
        self.clock.wind();
        if self.woken.is_empty() {
            self.wakes.take(&mut self.woken);
        }
        for _ in 0..ROUNDS_PER_POLL {
            // All three in each round, so that none of them can starve another.
            let visited = self.visit_woken();
            let pulled = self.pull();
            let sunk = self.outlet.step(&mut Context::from_waker(&self.sink_waker));
            if visited || pulled || sunk || self.settle_overdue(cx) {
                continue;
            }
            if self.is_done() {
                return Poll::Ready(core::mem::take(&mut self.summary));
            }
            if !self.wakes.take_or_sleep(&mut self.woken, cx.waker()) {
                return Poll::Pending;
            }
        }
        // A run that always has something to do must keep its time limits as well.
        self.settle_overdue(cx);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_done(&self) -> bool {
        self.source_state == SourceState::Done
            && self.places.occupied() == 0
            && self.outlet.is_empty()
    }

    /// Polls the next woken line; whether there was one.
    fn visit_woken(&mut self) -> bool {
        let Some(line) = self.woken.pop_front() else {
            return false;
        };
        match line {
            SOURCE if self.source_state == SourceState::Pending => {
                self.source_state = SourceState::Ready;
            }
            SOURCE => {}
            SINK => self.outlet.woken(),
            line => self.poll_place(line - FIRST_PLACE),
        }
        true
    }

    /// Pulls an input and starts it, if there is room and the source has one; whether it did.
    fn pull(&mut self) -> bool {
        let room = self.places.occupied() + self.outlet.waiting() < self.limit;
        if !room || self.source_state != SourceState::Ready {
            return false;
        }
        let mut cx = Context::from_waker(&self.source_waker);
        let input = match caught(|| self.source.poll_pull(&mut cx)) {
            Ok(Poll::Ready(Some(input))) => input,
            Ok(Poll::Ready(None)) => {
                self.source_state = SourceState::Done;
                return false;
            }
            Ok(Poll::Pending) => {
                self.source_state = SourceState::Pending;
                return false;
            }
            Err(panic) => {
                self.source_state = SourceState::Done;
                self.summary.end = BatchEnd::SourcePanicked(panic);
                return false;
            }
        };
        let index = self.pulled;
        self.pulled += 1;
        let place = self.places.next_vacant();
        match caught(|| self.order.admit(place, &input)) {
            Ok(may_start) => {
                self.places.occupy(index, input, !may_start);
                if may_start {
                    self.poll_place(place);
                }
            }
            Err(panic) => {
                quietly(|| drop(input));
                self.record(index, Settled::Panicked(panic));
            }
        }
        true
    }

    fn poll_place(&mut self, place: usize) {
        match self.places.poll(place, &mut self.start) {
            Polled::Idle | Polled::Pending { first: None } => {}
            Polled::Pending { first: Some(index) } => {
                let places = &self.places;
                let runs = |place, index| places.runs(place, index);
                self.clock.item_started(place, index, places.len(), runs);
            }
            Polled::Settled(outcome) => self.settle(place, outcome),
        }
    }

    fn settle(&mut self, place: usize, outcome: Settled<T, E>) {
        let index = self.places.vacate(place);
        if let Some(next) = self.order.release(place) {
            self.places.release(next);
            self.woken.push_back(next + FIRST_PLACE);
        }
        self.record(index, outcome);
    }

    fn record(&mut self, index: usize, outcome: Settled<T, E>) {
        self.summary.counts.record(&outcome);
        self.outlet.settle(index, outcome);
    }

    /// Settles whatever has run out of time; whether there was anything.
    fn settle_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        loop {
            let places = &self.places;
            match self.clock.poll_overdue(cx, |place, index| places.runs(place, index)) {
                None => return any,
                Some(Overdue::Item(place)) => {
                    if let Some(outcome) = self.end(place, |_| Settled::TimedOut) {
                        self.settle(place, outcome);
                    }
                }
                Some(Overdue::Batch) => self.cancel_all(),
            }
            any = true;
        }
    }

    /// Stops pulling, and ends every item in hand. The order is not told, so that no held item
    /// starts because the one ahead of it ends.
    fn cancel_all(&mut self) {
        // With only the sink left to finish nothing is cut short, and a panic is the better reason.
        let cut_short = self.source_state != SourceState::Done || self.places.occupied() > 0;
        if cut_short && matches!(self.summary.end, BatchEnd::Exhausted) {
            self.summary.end = BatchEnd::DeadlinePassed;
        }
        self.source_state = SourceState::Done;
        for place in 0..self.places.len() {
            if let Some(outcome) = self.end(place, |started| Settled::Cancelled { started }) {
                let index = self.places.vacate(place);
                self.record(index, outcome);
            }
        }
    }

    /// Ends the item at this place, if there is one. If it runs it is polled a last time: what is
    /// ready by then counts.
    fn end(
        &mut self,
        place: usize,
        cut_short: impl FnOnce(bool) -> Settled<T, E>,
    ) -> Option<Settled<T, E>> {
        if self.places.has_started(place) {
            if let Polled::Settled(outcome) = self.places.poll(place, &mut self.start) {
                return Some(outcome);
            }
        }
        self.places.cancel(place).map(cut_short)
    }
}
