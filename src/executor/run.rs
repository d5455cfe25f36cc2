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

use super::attempts::{Attempts, DeadLetter};
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
use super::throttling::Throttling;
use super::trials::{Trial, Trials};
use super::wakes::Wakes;
use super::weight::Weigher;
use crate::settled::{Panic, Scope, Settled, caught, quietly};

/// Lines of the wake list that belong to no place.
const SOURCE: usize = 0;
const SINK: usize = 1;
const PERMITS: usize = 2;
const STOP: usize = 3;
const THROTTLE: usize = 4;
const FIRST_PLACE: usize = 5;

/// How many items one poll of a run pulls, at most, before it gives way to the thread's other
/// tasks; and how many it polls because they were woken.
const TURNS: usize = if cfg!(loom) { 4 } else { 256 };

pub(super) struct Run<S: Source, F, Fut, R, W, A, O, E> {
    limit: usize,
    backlog: usize,
    source: S,
    source_state: SourceState,
    source_waker: Waker,
    start: F,
    order: R,
    weigher: W,
    attempts: A,
    // Before the permits, which its futures give back when they are gone.
    places: Places<S::Input, Fut>,
    wakes: Wakes,
    /// Places whose items may start, in the order in which they do.
    due: VecDeque<usize>,
    /// No longer in line for permits, which it has, but for the throttle.
    next: Option<usize>,
    trials: Trials<S::Input, E>,
    permits: Option<Box<Permits>>,
    throttling: Option<Box<Throttling>>,
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

impl<S: Source, F, Fut, R, W, A, O, E> Run<S, F, Fut, R, W, A, O, E> {
    pub(super) fn new(
        batch: Batch,
        source: S,
        start: F,
        order: R,
        weigher: W,
        attempts: A,
        outlet: O,
    ) -> Self
    where
        A: Attempts<S::Input, E>,
    {
        let mut wakes = Wakes::new();
        let [source_waker, sink_waker, permits_waker, stop_waker, throttle_waker] =
            [SOURCE, SINK, PERMITS, STOP, THROTTLE].map(|expected| {
                let (line, waker) = wakes.open_line();
                debug_assert_eq!(line, expected);
                waker
            });
        let throttling = batch.throttle;
        let throttling =
            throttling.map(|throttle| Box::new(Throttling::new(throttle, throttle_waker)));
        let permits = batch.budget.map(|budget| Box::new(Permits::new(budget, permits_waker)));
        Self {
            limit: batch.limit,
            backlog: batch.backlog,
            source,
            source_state: SourceState::Ready,
            source_waker,
            start,
            order,
            weigher,
            clock: Clock::new(batch.limits, attempts.attempt_timeout()),
            attempts,
            places: Places::new(),
            wakes,
            due: VecDeque::new(),
            permits,
            throttling,
            next: None,
            trials: Trials::new(),
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
        let Self { source, start, order, weigher, attempts, outlet, watch, summary, .. } = self;
        quietly(|| drop(source));
        quietly(|| drop(start));
        quietly(|| drop(order));
        quietly(|| drop(weigher));
        quietly(|| drop(attempts));
        (outlet, summary, watch.map(|watch| watch.into_reports()).unwrap_or_default())
    }
}

impl<S, F, Fut, R, W, A, O, T, E> Run<S, F, Fut, R, W, A, O, E>
where
    S: Source,
    F: FnMut(S::Input) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    R: Order<S::Input>,
    W: Weigher<S::Input>,
    A: Attempts<S::Input, E>,
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
        self.clear_lines();
        for place in 0..self.places.len() {
            if self.places.has_started(place) || self.places.is_resting(place) {
                self.places.cancel(place);
                let outcome = self.cancelled(place);
                self.vacate(place, outcome);
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
            THROTTLE => {
                if let Some(throttling) = &mut self.throttling {
                    throttling.woken();
                }
            }
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
        let in_hand = self.places.occupied() + self.outlet.waiting();
        if !A::RETRIES {
            return self.limit.saturating_sub(in_hand);
        }
        let room = self.limit.saturating_sub(in_hand - self.places.resting());
        room.min((self.limit + self.backlog).saturating_sub(in_hand))
    }

    /// Whether nobody is in line to start.
    #[inline]
    fn nobody_is_due(&self) -> bool {
        self.due.is_empty() && self.next.is_none() && !(A::RETRIES && self.trials.ready().is_some())
    }

    /// Pulls inputs and starts them, if there is room and the source has any; whether it did. One,
    /// or as many as there are turns if nothing else is to be done in between.
    fn pull(&mut self, turns: &mut usize) -> bool {
        if self.source_state != SourceState::Ready || self.room() == 0 || !self.nobody_is_due() {
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
        let plain = R::ALL_SIDE_BY_SIDE
            && self.permits.is_none()
            && self.throttling.is_none()
            && self.watch.is_none();
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
            && self.nobody_is_due()
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
        let (attempts, trials) = (&self.attempts, &mut self.trials);
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
            if A::RETRIES {
                trials.fresh = attempts.keep(&input);
            }
            match slot.start(|| start(input)) {
                Poll::Ready(Err(error)) if A::RETRIES => {
                    quietly(|| slot.clear());
                    let index = *index;
                    trials.open_fresh(place);
                    self.places.keep(place, index);
                    self.finish(place, Err(error));
                    return;
                }
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
                    if A::RETRIES {
                        attempts.succeeded();
                    }
                    slot.clear();
                    if A::RETRIES {
                        trials.fresh = None;
                    }
                }
                Poll::Pending => {
                    let index = *index;
                    if A::RETRIES {
                        trials.open_fresh(place);
                    }
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
                self.trials.open_fresh(place);
                let trial = self.trials.take(place);
                self.record(self.index, Settled::Panicked(panic), trial);
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
                }
                if self.permits.is_some() || self.throttling.is_some() {
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
    /// Those that are to be tried again go first.
    fn start_due(&mut self) -> bool {
        // An item that was polled in this turn may have stopped the batch.
        if self.nobody_is_due() || self.stops.is_news() {
            return false;
        }
        let place = match self.next {
            Some(place) => place,
            None => match self.next_due() {
                Some(place) => place,
                None => return true,
            },
        };
        if self.next.is_none() {
            return false;
        }
        if let Some(throttling) = &mut self.throttling {
            if !throttling.may_start(|| self.clock.now()) {
                return false;
            }
        }
        self.next = None;
        if A::RETRIES && self.places.is_resting(place) {
            self.start_again(place);
        } else {
            self.start_place(place);
        }
        if self.nobody_is_due() {
            self.rest_lines();
        }
        true
    }

    /// Gets the item in front of those that are due its permits, if it may have them; `None` if it
    /// ended instead.
    fn next_due(&mut self) -> Option<usize> {
        let again = if A::RETRIES { self.trials.ready() } else { None };
        let place = again.or_else(|| self.due.front().copied())?;
        // Those held for their keys are not seen by the room that there is.
        if A::RETRIES && self.places.running() >= self.limit {
            return Some(place);
        }
        let permitted = match &mut self.permits {
            Some(permits) => permits.poll(place),
            None => Poll::Ready(Ok(())),
        };
        match permitted {
            Poll::Pending => return Some(place),
            Poll::Ready(Ok(())) => self.next = Some(place),
            Poll::Ready(Err(_closed)) => self.stop(Stop::Drain, BatchEnd::BudgetClosed),
        }
        if again.is_some() {
            self.trials.take_ready();
        } else {
            self.due.pop_front();
        }
        if self.next.is_some() {
            return Some(place);
        }
        if let Some(next) = self.order.release(place) {
            self.due.push_back(next);
        }
        self.cut_short(place);
        None
    }

    /// Nobody is in line: what was asked for is given back.
    fn rest_lines(&mut self) {
        if let Some(permits) = &mut self.permits {
            permits.rest();
        }
        if let Some(throttling) = &mut self.throttling {
            throttling.rest();
        }
    }

    /// Nobody is to start any more.
    fn clear_lines(&mut self) {
        self.due.clear();
        self.next = None;
        self.trials.forget_all();
        self.rest_lines();
    }

    fn start_place(&mut self, place: usize) {
        let Some(input) = self.places.begin(place) else { return };
        let index = self.places.index(place);
        if let Some(watch) = &mut self.watch {
            watch.started(place, index, self.clock.now());
        }
        if A::RETRIES {
            match caught(|| self.attempts.keep(&input)) {
                Ok(kept) => self.trials.open(place, kept),
                Err(panic) => {
                    quietly(|| drop(input));
                    return self.settle(place, Settled::Panicked(panic));
                }
            }
        }
        if self.poll_with(place, |places, start| places.slot(place).start(|| start(input))) {
            self.time(place, index);
        }
    }

    /// Starts another attempt.
    fn start_again(&mut self, place: usize) {
        self.places.resume(place);
        let index = self.places.index(place);
        if let Some(watch) = &mut self.watch {
            watch.started(place, index, self.clock.now());
        }
        let attempts = &self.attempts;
        let Some(trial) = self.trials.begin(place) else { return };
        let input = match caught(|| attempts.keep(&trial.input)) {
            Ok(Some(input)) => input,
            Ok(None) => return,
            Err(panic) => return self.settle(place, Settled::Panicked(panic)),
        };
        trial.attempts = trial.attempts.saturating_add(1);
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
            (Some(result), Ok(())) => self.finish(place, result),
            (Some(result), Err(panic)) => {
                quietly(|| drop(panic));
                self.finish(place, result);
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
        self.time_item(place, index);
        if let (true, Some(serial)) = (A::RETRIES, self.trials.serial_at(place)) {
            let (places, trials) = (&self.places, &self.trials);
            let tries = |place, serial| {
                places.has_started(place) && trials.serial_at(place) == Some(serial)
            };
            self.clock.attempt_started(place, serial, places.len(), tries);
        }
    }

    /// The time of an item counts from now on, if it does not yet.
    #[inline]
    fn time_item(&mut self, place: usize, index: usize) {
        if A::RETRIES {
            if let Some(trial) = self.trials.get(place) {
                if core::mem::replace(&mut trial.timed, true) {
                    return;
                }
            }
        }
        let places = &self.places;
        let runs = |place, index| places.runs(place, index);
        self.clock.item_started(place, index, places.len(), runs);
    }

    /// An attempt has come to its end.
    fn finish(&mut self, place: usize, result: Result<T, E>) {
        match result {
            Ok(value) => {
                if A::RETRIES {
                    self.attempts.succeeded();
                }
                self.settle(place, Settled::Fulfilled(value));
            }
            Err(error) if A::RETRIES => {
                if let Err(Some(error)) = self.try_again(place, Some(error)) {
                    self.settle(place, Settled::Rejected(error));
                }
            }
            Err(error) => self.settle(place, Settled::Rejected(error)),
        }
    }

    /// Lets an item rest whose attempt failed, or timed out if there is no error, if it is to be
    /// tried again.
    ///
    /// # Errors
    ///
    /// The error, if there is to be no other attempt.
    fn try_again(&mut self, place: usize, error: Option<E>) -> Result<(), Option<E>> {
        let attempts = &self.attempts;
        let Some(trial) = self.trials.get(place) else { return Err(error) };
        // What cannot decide does not try again.
        let wait = caught(|| attempts.next_wait(&mut trial.course, error.as_ref()));
        let Some(wait) = wait.ok().and_then(Result::ok) else { return Err(error) };
        let due = (!wait.is_zero()).then(|| self.clock.now() + wait);
        if due.is_some_and(|due| self.clock.is_past_the_deadline(due)) {
            return Err(error);
        }
        if let Some(error) = error {
            let before = trial.last_error.replace(error);
            quietly(|| drop(before));
        }
        self.places.rest(place);
        if let Some(permits) = &mut self.permits {
            permits.release(place);
        }
        self.trials.rest(place, due);
        let index = self.places.index(place);
        self.time_item(place, index);
        if let Some(watch) = &mut self.watch {
            watch.retrying(index, wait);
        }
        Ok(())
    }

    /// The outcome of a started item that is cancelled.
    fn cancelled(&mut self, place: usize) -> Settled<T, E> {
        let last_error = self.trials.get(place).and_then(|trial| trial.last_error.take());
        Settled::Cancelled { started: true, scope: Scope::Batch, last_error }
    }

    /// The outcome of an item that has run out of time.
    fn timed_out(&mut self, place: usize, scope: Scope) -> Settled<T, E> {
        let last_error = self.trials.get(place).and_then(|trial| trial.last_error.take());
        Settled::TimedOut { scope, last_error }
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
        let trial = if A::RETRIES { self.trials.take(place) } else { None };
        self.record(index, outcome, trial);
        if let Some(watch) = &mut self.watch {
            watch.settled(place, index, kind, self.clock.now());
        }
    }

    #[inline]
    fn record(&mut self, index: usize, outcome: Settled<T, E>, trial: Option<Trial<S::Input, E>>) {
        self.summary.counts.record(&outcome);
        if !outcome.is_fulfilled() {
            self.stops.failed();
        }
        if let Some(trial) = trial {
            self.let_go(index, &outcome, trial);
        }
        self.outlet.settle(index, outcome);
    }

    /// What was kept of an item that has settled goes to the dead letters, if it failed.
    fn let_go(&self, index: usize, outcome: &Settled<T, E>, trial: Trial<S::Input, E>) {
        if matches!(outcome, Settled::Fulfilled(_) | Settled::Cancelled { .. }) {
            return quietly(|| drop(trial));
        }
        let Trial { input, attempts, last_error, .. } = trial;
        let error = outcome.last_error().or(last_error.as_ref());
        quietly(|| {
            let kind = outcome.kind();
            self.attempts.bury(DeadLetter { index, input, kind, attempts, error });
        });
        quietly(|| drop(last_error));
    }

    /// Settles whatever has run out of time; whether there was anything.
    fn settle_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        loop {
            let throttle = self.throttling.as_ref().and_then(|throttling| throttling.until());
            let retry = if A::RETRIES { self.trials.next_due() } else { None };
            let alarm = [throttle, retry].into_iter().flatten().min();
            let (places, trials) = (&self.places, &self.trials);
            let runs = |place, index| places.runs(place, index);
            let tries = |place, serial| {
                places.has_started(place) && trials.serial_at(place) == Some(serial)
            };
            match self.clock.poll_overdue(cx, alarm, runs, tries) {
                None => return any,
                Some(Overdue::Item(place)) => self.end_item(place),
                Some(Overdue::Attempt(place)) => self.end_attempt(place),
                Some(Overdue::Alarm) => {
                    let now = self.clock.now();
                    self.trials.wake_due(now);
                    if let (true, Some(throttling)) =
                        (throttle.is_some_and(|until| until <= now), &mut self.throttling)
                    {
                        throttling.woken();
                    }
                }
                Some(Overdue::Batch) => self.stop(Stop::Abort, BatchEnd::DeadlinePassed),
            }
            any = true;
        }
    }

    fn end_item(&mut self, place: usize) {
        if self.places.is_resting(place) {
            if let (true, Some(permits)) = (self.trials.ready() == Some(place), &mut self.permits) {
                // What is asked for is what this one weighs.
                permits.rest();
            }
            self.trials.forget(place);
            if self.next == Some(place) {
                self.next = None;
                if let Some(throttling) = &mut self.throttling {
                    throttling.rest();
                }
            }
        } else {
            // What is ready by now counts, be it a failure that is worth another attempt: then the
            // item is out of time for that.
            let pending = self.poll_with(place, |places, _| places.slot(place).poll());
            if A::RETRIES && self.places.is_resting(place) {
                return self.end_item(place);
            }
            if !pending {
                return;
            }
        }
        self.places.cancel(place);
        let outcome = self.timed_out(place, Scope::Item);
        self.settle(place, outcome);
        if self.nobody_is_due() {
            self.rest_lines();
        }
    }

    fn end_attempt(&mut self, place: usize) {
        if !self.poll_with(place, |places, _| places.slot(place).poll()) {
            return;
        }
        quietly(|| self.places.clear(place));
        if self.try_again(place, None).is_err() {
            let outcome = self.timed_out(place, Scope::Attempt);
            self.settle(place, outcome);
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
        self.clear_lines();
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
                    (None, Ok(())) => self.cancelled(place),
                    (None, Err(panic)) => Settled::Panicked(panic),
                };
                self.vacate(place, outcome);
            } else {
                self.cut_short(place);
            }
        }
    }

    /// Ends an item that does not run, if there is one at this place: one that has not started, or
    /// rests.
    fn cut_short(&mut self, place: usize) {
        let outcome = match self.places.cancel(place) {
            None => return,
            Some(Unfinished::Started) => self.cancelled(place),
            Some(Unfinished::NotStarted(input)) => {
                self.outlet.not_started(self.places.index(place), input);
                Settled::cancelled(false)
            }
        };
        self.vacate(place, outcome);
    }
}

/// A run of whatever types.
pub(super) trait Runs {
    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ends it, whether it is done or not.
    fn end_run(self) -> (BatchSummary, Vec<ItemReport>);
}

impl<S, F, Fut, R, W, A, O, T, E> Runs for Run<S, F, Fut, R, W, A, O, E>
where
    S: Source,
    F: FnMut(S::Input) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    R: Order<S::Input>,
    W: Weigher<S::Input>,
    A: Attempts<S::Input, E>,
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
