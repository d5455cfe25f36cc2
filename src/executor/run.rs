//! One run of an executor: pull, start, poll what was woken, settle, sink.
//!
//! The run is a single future in a task. It never loops over what is not ready: a line on the wake
//! list is polled once for each time it is woken, and so are the source, the sink and the permits,
//! which have lines of their own.
//!
//! ```text
//!            exhausted, or a drain                  all settled, all sunk
//!   pulling ───────────────────────▶ finishing ───────────────────────────▶ done
//!      │                                │                                    ▲
//!      └────────────────────────────────┴──▶ aborted ────────────────────────┘
//!                deadline, or an abort         (what is in hand is cut short)
//! ```

use core::future::Future;
use core::task::{Context, Poll};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use super::budget::Permits;
use super::clock::{Clock, Overdue};
use super::observe::{ItemReport, Watch};
use super::options::Batch;
use super::order::Order;
use super::outlet::Outlet;
use super::places::{Places, Unfinished};
use super::source::Source;
use super::stop::{Stop, Stops};
use super::summary::{BatchEnd, BatchSummary};
use super::wakes::Wakes;
use super::weight::Weigher;
use crate::settled::{Panic, Settled, caught, quietly};

/// Lines of the wake list that belong to no place.
const SOURCE: usize = 0;
const SINK: usize = 1;
const PERMITS: usize = 2;
const STOP: usize = 3;
const FIRST_PLACE: usize = 4;

/// How many items one poll of a run pulls, at most, before it gives way to the thread's other
/// tasks; and how many it polls because they were woken.
const TURNS: usize = if cfg!(loom) { 4 } else { 256 };

pub(super) struct Run<S: Source, F, Fut, R, W, O> {
    limit: usize,
    source: S,
    source_state: SourceState,
    source_waker: Waker,
    start: F,
    order: R,
    weigher: W,
    // Before the permits, which its futures give back when they are gone.
    places: Places<S::Input, Fut>,
    wakes: Wakes,
    /// Places whose items may start, in the order in which they do.
    due: VecDeque<usize>,
    permits: Option<Box<Permits>>,
    clock: Clock,
    stops: Stops,
    stop_waker: Waker,
    watch: Option<Box<Watch>>,
    outlet: O,
    sink_waker: Waker,
    /// What is pulled from now on is cancelled: there is only what was set aside.
    aborted: bool,
    /// Whose code runs, for when it panics.
    at: At,
    /// The item that this is about.
    index: usize,
    summary: BatchSummary,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SourceState {
    Ready,
    /// It will wake its line.
    Pending,
    /// Ended or panicked: it is not asked again.
    Done,
}

#[derive(Clone, Copy)]
enum At {
    Source,
    /// An item's closure, or its first poll, in the place that is vacant next.
    Item,
    /// The destructor of a future that has settled.
    Drop,
}

impl<S: Source, F, Fut, R, W, O> Run<S, F, Fut, R, W, O> {
    pub(super) fn new(batch: Batch, source: S, start: F, order: R, weigher: W, outlet: O) -> Self {
        let mut wakes = Wakes::new();
        let [source_waker, sink_waker, permits_waker, stop_waker] = [SOURCE, SINK, PERMITS, STOP]
            .map(|expected| {
                let (line, waker) = wakes.open_line();
                debug_assert_eq!(line, expected);
                waker
            });
        let permits = batch.budget.map(|budget| Box::new(Permits::new(budget, permits_waker)));
        Self {
            limit: batch.limit,
            source,
            source_state: SourceState::Ready,
            source_waker,
            start,
            order,
            weigher,
            places: Places::new(),
            wakes,
            due: VecDeque::new(),
            permits,
            clock: Clock::new(batch.limits),
            stops: Stops::new(batch.stops, batch.failures),
            stop_waker,
            watch: Watch::new(batch.observer, batch.reports),
            outlet,
            sink_waker,
            aborted: false,
            at: At::Source,
            index: 0,
            summary: BatchSummary::default(),
        }
    }

    /// Ends a run that is done. A panic in dropping what the caller gave it changes no outcome.
    pub(super) fn into_parts(self) -> (O, BatchSummary, Vec<ItemReport>) {
        let Self { source, start, order, weigher, outlet, watch, summary, .. } = self;
        quietly(|| drop(source));
        quietly(|| drop(start));
        quietly(|| drop(order));
        quietly(|| drop(weigher));
        (outlet, summary, watch.map(|watch| watch.into_reports()).unwrap_or_default())
    }
}

impl<S, F, Fut, R, W, O, T, E> Run<S, F, Fut, R, W, O>
where
    S: Source,
    F: FnMut(S::Input) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    R: Order<S::Input>,
    W: Weigher<S::Input>,
    O: Outlet<S::Input, T, E>,
{
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.clock.wind();
        self.stops.wind(&self.stop_waker);
        self.wakes.take();
        let mut turns = TURNS;
        while turns > 0 {
            turns -= 1;
            if let Some((how, failed)) = self.stops.news() {
                let end = if failed { BatchEnd::TooManyFailures } else { BatchEnd::Stopped };
                self.stop(how, end);
            }
            // All of them in each turn, so that none can starve another.
            let visited = self.visit_woken();
            let started = self.start_due();
            let pulled = self.pull(&mut turns);
            let sunk = self.outlet.step(&mut Context::from_waker(&self.sink_waker));
            if visited || started || pulled || sunk || self.settle_overdue(cx) {
                continue;
            }
            self.outlet.rest();
            if self.is_done() {
                return Poll::Ready(());
            }
            if !self.wakes.take_or_sleep(cx.waker()) {
                return Poll::Pending;
            }
        }
        // A run that always has something to do must keep its time limits as well.
        self.settle_overdue(cx);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ends a run that is dropped before it is done, without polling what is in hand.
    fn cut_off(&mut self) {
        self.summary.end = BatchEnd::Stopped;
        self.source.close();
        self.aborted = true;
        self.due.clear();
        for place in 0..self.places.len() {
            if self.places.has_started(place) {
                self.places.cancel(place);
                self.vacate(place, Settled::Cancelled { started: true });
            } else {
                self.cut_short(place);
            }
        }
        self.source.leave();
        // What was set aside for this run.
        let cx = &mut Context::from_waker(Waker::noop());
        while let Ok(Poll::Ready(Some((index, input)))) = caught(|| self.source.poll_pull(1, cx)) {
            self.admit(index, input);
        }
    }

    fn is_done(&self) -> bool {
        self.source_state == SourceState::Done
            && self.places.occupied() == 0
            && self.outlet.is_empty()
    }

    /// Polls the next woken line; whether there was one.
    fn visit_woken(&mut self) -> bool {
        let Some(line) = self.wakes.next() else {
            return false;
        };
        match line {
            SOURCE => self.ask_source_again(),
            SINK => self.outlet.woken(),
            PERMITS => {
                if let Some(permits) = &mut self.permits {
                    permits.woken();
                }
            }
            STOP => {}
            line => {
                let place = line - FIRST_PLACE;
                // A late wake-up may find the place vacant, or held.
                if self.places.has_started(place) {
                    self.poll_place(place);
                }
            }
        }
        true
    }

    fn ask_source_again(&mut self) {
        if self.source_state == SourceState::Pending {
            self.source_state = SourceState::Ready;
        }
    }

    #[inline]
    fn room(&self) -> usize {
        self.limit.saturating_sub(self.places.occupied() + self.outlet.waiting())
    }

    /// Pulls inputs and starts them, if there is room and the source has any; whether it did. One,
    /// or as many as there are turns if nothing else is to be done in between.
    fn pull(&mut self, turns: &mut usize) -> bool {
        if self.source_state != SourceState::Ready || self.room() == 0 || !self.due.is_empty() {
            return false;
        }
        if !self.wakes.is_empty() && self.room() < self.source.worth_asking() {
            return false;
        }
        if self.stops.is_news() {
            return false;
        }
        let mut any = false;
        loop {
            // Once for many items: what they leave half done is in `at`.
            match catch_unwind(AssertUnwindSafe(|| self.pull_some(turns, &mut any))) {
                Ok(()) => return any,
                Err(payload) => {
                    self.recover(Panic::new(payload));
                    if self.source_state != SourceState::Ready || self.room() == 0 {
                        return true;
                    }
                    any = true;
                }
            }
        }
    }

    fn pull_some(&mut self, turns: &mut usize, any: &mut bool) {
        let plain = R::ALL_SIDE_BY_SIDE && self.permits.is_none() && self.watch.is_none();
        loop {
            if plain && !self.aborted {
                self.pull_plain(turns, any);
            } else {
                self.at = At::Source;
                let room = self.room();
                let cx = &mut Context::from_waker(&self.source_waker);
                match self.source.poll_pull(room, cx) {
                    Poll::Ready(Some((index, input))) => {
                        *any = true;
                        self.admit(index, input);
                    }
                    Poll::Ready(None) => self.source_state = SourceState::Done,
                    Poll::Pending => self.source_state = SourceState::Pending,
                }
            }
            if *turns == 0 || !self.may_pull_at_once() {
                return;
            }
            *turns -= 1;
        }
    }

    /// Whether there is nothing but to pull one more.
    #[inline]
    fn may_pull_at_once(&self) -> bool {
        self.source_state == SourceState::Ready
            && self.wakes.is_empty()
            && self.due.is_empty()
            && self.outlet.waiting() == 0
            && !self.stops.is_news()
            && self.room() > 0
    }

    /// Pulls an input that may start at once and, as long as those are ready when first polled,
    /// further ones. They all use one place, which stays vacant: in here a ready item costs a
    /// handful of nanoseconds.
    fn pull_plain(&mut self, turns: &mut usize, any: &mut bool) {
        let place = self.vacant_place();
        let room = self.room();
        let alone = self.wakes.is_empty() && self.due.is_empty();
        let Self { source, source_waker, start, outlet, stops, at, index, summary, .. } = self;
        let mut slot = self.places.slot(place);
        let cx = &mut Context::from_waker(source_waker);
        loop {
            *at = At::Source;
            let input = match source.poll_pull(room, cx) {
                Poll::Ready(Some((pulled, input))) => {
                    *index = pulled;
                    input
                }
                Poll::Ready(None) => {
                    self.source_state = SourceState::Done;
                    return;
                }
                Poll::Pending => {
                    self.source_state = SourceState::Pending;
                    return;
                }
            };
            *any = true;
            *at = At::Item;
            match slot.start(|| start(input)) {
                Poll::Ready(result) => {
                    match &result {
                        Ok(_) => summary.counts.fulfilled += 1,
                        Err(_) => {
                            summary.counts.rejected += 1;
                            stops.failed();
                        }
                    }
                    outlet.settle(*index, result.into());
                    *at = At::Drop;
                    slot.clear();
                }
                Poll::Pending => {
                    let index = *index;
                    self.places.keep(place, index);
                    self.time(place, index);
                    return;
                }
            }
            if !alone || *turns == 0 || outlet.waiting() > 0 || stops.is_news() {
                return;
            }
            *turns -= 1;
        }
    }

    #[inline]
    fn vacant_place(&mut self) -> usize {
        match self.places.next_vacant() {
            Some(place) => place,
            None => {
                let (line, waker) = self.wakes.open_line();
                let place = self.places.add(waker);
                debug_assert_eq!(line, place + FIRST_PLACE);
                place
            }
        }
    }

    /// The caller's code panicked while inputs were being pulled.
    #[cold]
    fn recover(&mut self, panic: Panic) {
        match self.at {
            At::Source => {
                self.source_state = SourceState::Done;
                if matches!(self.summary.end, BatchEnd::Exhausted) {
                    self.summary.end = BatchEnd::SourcePanicked(panic);
                }
            }
            At::Item => {
                let place = self.vacant_place();
                quietly(|| self.places.clear(place));
                self.record(self.index, Settled::Panicked(panic));
            }
            // It has settled already.
            At::Drop => quietly(|| drop(panic)),
        }
    }

    /// Gives an input a place, where it may have to wait for its key or for permits.
    fn admit(&mut self, index: usize, input: S::Input) {
        let place = self.vacant_place();
        self.places.hold(place, index, input);
        if let Some(watch) = &mut self.watch {
            watch.pulled(place, index, self.clock.now());
        }
        if self.aborted {
            self.cut_short(place);
            return;
        }
        let Some(input) = self.places.held(place) else { return };
        let admitted = caught(|| {
            // The weight first: an order that has admitted an item is told when it settles.
            let weight = if W::WEIGHS { self.weigher.weigh(input) } else { 1 };
            (weight, self.order.admit(place, input))
        });
        match admitted {
            Ok((weight, may_start)) => {
                if let Some(permits) = &mut self.permits {
                    permits.weigh(place, weight);
                    if may_start {
                        self.due.push_back(place);
                        self.start_due();
                    }
                } else if may_start {
                    self.start_place(place);
                }
            }
            Err(panic) => {
                if let Some(Unfinished::NotStarted(input)) = self.places.cancel(place) {
                    quietly(|| drop(input));
                }
                self.vacate(place, Settled::Panicked(panic));
            }
        }
    }

    /// Starts the next item that may start, if there is one and it has its permits; whether it did.
    fn start_due(&mut self) -> bool {
        let Some(&place) = self.due.front() else {
            return false;
        };
        // An item that was polled in this turn may have stopped the batch.
        if self.stops.is_news() {
            return false;
        }
        if let Some(permits) = &mut self.permits {
            match permits.poll(place) {
                Poll::Ready(Ok(())) => {}
                Poll::Pending => return false,
                Poll::Ready(Err(_closed)) => {
                    self.stop(Stop::Drain, BatchEnd::BudgetClosed);
                    self.due.pop_front();
                    if let Some(next) = self.order.release(place) {
                        self.due.push_back(next);
                    }
                    self.cut_short(place);
                    return true;
                }
            }
        }
        self.due.pop_front();
        self.start_place(place);
        if self.due.is_empty() {
            if let Some(permits) = &mut self.permits {
                permits.rest();
            }
        }
        true
    }

    fn start_place(&mut self, place: usize) {
        let Some(input) = self.places.begin(place) else { return };
        let index = self.places.index(place);
        if let Some(watch) = &mut self.watch {
            watch.started(place, index, self.clock.now());
        }
        if self.poll_with(place, |places, start| places.slot(place).start(|| start(input))) {
            self.time(place, index);
        }
    }

    fn poll_place(&mut self, place: usize) {
        self.poll_with(place, |places, _| places.slot(place).poll());
    }

    /// Polls the item at this place, and settles it if it is done; whether it is not.
    fn poll_with(
        &mut self,
        place: usize,
        poll: impl FnOnce(&mut Places<S::Input, Fut>, &mut F) -> Poll<Result<T, E>>,
    ) -> bool {
        if let Some(permits) = &mut self.permits {
            permits.enter(place);
        }
        // Outside the closure, so that a future that panics when dropped does not take along
        // what it has already returned.
        let mut output = None;
        let run = caught(|| {
            if let Poll::Ready(result) = poll(&mut self.places, &mut self.start) {
                output = Some(result);
                self.places.clear(place);
            }
        });
        if let Some(permits) = &mut self.permits {
            permits.leave(place);
        }
        match (output, run) {
            (None, Ok(())) => return true,
            (Some(result), Ok(())) => self.settle(place, result.into()),
            (Some(result), Err(panic)) => {
                quietly(|| drop(panic));
                self.settle(place, result.into());
            }
            (None, Err(panic)) => {
                quietly(|| self.places.clear(place));
                self.settle(place, Settled::Panicked(panic));
            }
        }
        false
    }

    /// An item has been started, and is pending.
    #[inline]
    fn time(&mut self, place: usize, index: usize) {
        let places = &self.places;
        let runs = |place, index| places.runs(place, index);
        self.clock.item_started(place, index, places.len(), runs);
    }

    fn settle(&mut self, place: usize, outcome: Settled<T, E>) {
        if let Some(next) = self.order.release(place) {
            self.due.push_back(next);
        }
        self.vacate(place, outcome);
    }

    fn vacate(&mut self, place: usize, outcome: Settled<T, E>) {
        let (index, kind) = (self.places.index(place), outcome.kind());
        self.places.vacate(place);
        if let Some(permits) = &mut self.permits {
            permits.release(place);
        }
        self.record(index, outcome);
        if let Some(watch) = &mut self.watch {
            watch.settled(place, index, kind, self.clock.now());
        }
    }

    #[inline]
    fn record(&mut self, index: usize, outcome: Settled<T, E>) {
        self.summary.counts.record(&outcome);
        if !outcome.is_fulfilled() {
            self.stops.failed();
        }
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
                    if self.poll_with(place, |places, _| places.slot(place).poll()) {
                        self.places.cancel(place);
                        self.settle(place, Settled::TimedOut);
                    }
                }
                Some(Overdue::Batch) => self.stop(Stop::Abort, BatchEnd::DeadlinePassed),
            }
            any = true;
        }
    }

    /// Stops pulling and, in an abort, ends every item in hand.
    fn stop(&mut self, how: Stop, end: BatchEnd) {
        let cuts_short = self.source_state != SourceState::Done
            || how == Stop::Abort && self.places.occupied() > 0;
        if cuts_short && matches!(self.summary.end, BatchEnd::Exhausted) {
            self.summary.end = end;
        }
        self.source.close();
        self.ask_source_again();
        if how == Stop::Abort {
            self.abort();
        }
    }

    /// The order is not told, so that no held item starts because the one ahead of it ends.
    fn abort(&mut self) {
        self.aborted = true;
        self.due.clear();
        if let Some(permits) = &mut self.permits {
            permits.rest();
        }
        for place in 0..self.places.len() {
            // What is ready by now counts.
            if self.places.has_started(place) {
                if let Some(permits) = &mut self.permits {
                    permits.enter(place);
                }
                let mut output = None;
                let polled = caught(|| {
                    if let Poll::Ready(result) = self.places.slot(place).poll() {
                        output = Some(result);
                    }
                });
                if let Some(permits) = &mut self.permits {
                    permits.leave(place);
                }
                quietly(|| self.places.clear(place));
                let outcome = match (output, polled) {
                    (Some(result), _) => result.into(),
                    (None, Ok(())) => Settled::Cancelled { started: true },
                    (None, Err(panic)) => Settled::Panicked(panic),
                };
                self.vacate(place, outcome);
            } else {
                self.cut_short(place);
            }
        }
    }

    /// Ends an item that has not started, if there is one at this place.
    fn cut_short(&mut self, place: usize) {
        if let Some(Unfinished::NotStarted(input)) = self.places.cancel(place) {
            self.outlet.not_started(self.places.index(place), input);
            self.vacate(place, Settled::Cancelled { started: false });
        }
    }
}

/// A run of whatever types.
pub(super) trait Runs {
    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ends it, whether it is done or not.
    fn end_run(self) -> (BatchSummary, Vec<ItemReport>);
}

impl<S, F, Fut, R, W, O, T, E> Runs for Run<S, F, Fut, R, W, O>
where
    S: Source,
    F: FnMut(S::Input) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    R: Order<S::Input>,
    W: Weigher<S::Input>,
    O: Outlet<S::Input, T, E>,
{
    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll(cx)
    }

    fn end_run(mut self) -> (BatchSummary, Vec<ItemReport>) {
        if !self.is_done() {
            self.cut_off();
            self.outlet.rest();
        }
        let (_, summary, reports) = self.into_parts();
        (summary, reports)
    }
}
