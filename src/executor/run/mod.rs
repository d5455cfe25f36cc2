//! One run of an executor: pull, start, poll what was woken, settle, sink.
//!
//! The run is a single future in a task. It never loops over what is not ready: an entry of the ready
//! queue is polled once per wake-up. The source, the sink and the permits have entries of their own.
//!
//! ```text
//!            exhausted, or a drain                  all settled, all sunk
//!   pulling ───────────────────────▶ finishing ───────────────────────────▶ done
//!      │                                │                                    ▲
//!      └────────────────────────────────┴──▶ aborted ────────────────────────┘
//!                deadline, or an abort         (what is in hand is cut short)
//! ```

mod fast;
mod settle;
mod start;
mod stop;

use core::future::Future;
use core::ops::{Deref, DerefMut};
use core::task::{Context, Poll, ready};
use std::collections::VecDeque;
use std::task::Waker;
use std::time::Instant;

use super::limits::Limits;
use super::observe::Reporter;
use super::options::Batch;
use super::order::Keys;
#[cfg(debug_assertions)]
use super::order::Order;
use super::outcome_sink::OutcomeSink;
use super::permits::Permits;
use super::policies::Policy;
use super::ready_queue::ReadyQueue;
use super::retry_queue::RetryQueue;
use super::slots::Slots;
use super::source::Source;
use super::stop::{Stop, Stops};
use super::summary::{BatchEnd, BatchSummary};
use super::throttling::Throttling;
use crate::base::coop;
use crate::base::panic::{Quiet, caught};

/// Entries of the ready queue that belong to no slot.
const SOURCE: usize = 0;
const SINK: usize = 1;
const PERMITS: usize = 2;
const STOP: usize = 3;
const THROTTLE: usize = 4;
const FIRST_SLOT: usize = 5;

/// How many items one poll of a run pulls, at most, before it gives way to the thread's other
/// tasks; and how many it polls because they were woken.
const STEPS: usize = if cfg!(loom) { 4 } else { 256 };

pub(super) struct Run<S: Source, F, Fut, P: Policy<S::Input, E>, O, E> {
    limit: usize,
    backlog: usize,
    source: Quiet<S>,
    source_state: SourceState,
    source_waker: Waker,
    start: Quiet<F>,
    order: Quiet<P::Order>,
    policy: Quiet<P>,
    // Before the permits, which its futures give back when they are gone.
    slots: Slots<S::Input, Fut>,
    ready: ReadyQueue,
    /// Slots whose items may start, in the order in which they do.
    due: VecDeque<usize>,
    /// Has its permits, and waits for the throttle.
    next: Option<usize>,
    retries: RetryQueue<S::Input, E>,
    permits: Option<Box<Permits>>,
    throttling: Option<Box<Throttling>>,
    limits: Limits,
    stops: Stops,
    stop_waker: Waker,
    reporter: Option<Box<Reporter>>,
    sink: O,
    sink_waker: Waker,
    /// What is pulled from now on is cancelled: there is only what was set aside.
    aborted: bool,
    /// It is the deadline that ends what is in hand.
    late: bool,
    /// Something that was pulled has ended, or is about to, because the batch does.
    ended_early: bool,
    /// Whose code runs on the fast path, for when it panics.
    at: At,
    summary: BatchSummary,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SourceState {
    Ready,
    /// It will wake its entry.
    Pending,
    /// Ended or panicked: it is not asked again.
    Done,
}

#[derive(Clone, Copy)]
enum At {
    Source,
    /// The closure of the item with this index, or its first poll, in the slot that is vacant
    /// next.
    Item(usize),
    /// The item in this slot.
    Woken(usize),
    /// The destructor of what has settled.
    Drop,
}

impl<S: Source, F, Fut, P: Policy<S::Input, E>, O, E> Run<S, F, Fut, P, O, E> {
    pub(super) fn new(batch: Batch, source: S, start: F, policy: P, sink: O) -> Self {
        let mut ready = ReadyQueue::new();
        let [source_waker, sink_waker, permits_waker, stop_waker, throttle_waker] =
            [SOURCE, SINK, PERMITS, STOP, THROTTLE].map(|expected| {
                let (entry, waker) = ready.add_entry();
                debug_assert_eq!(entry, expected);
                waker
            });
        let Batch { options, deadline, stops, failures } = batch;
        let throttling =
            options.throttle.map(|throttle| Box::new(Throttling::new(throttle, throttle_waker)));
        let permits =
            options.semaphore.map(|semaphore| Box::new(Permits::new(semaphore, permits_waker)));
        Self {
            limit: options.limit,
            backlog: options.backlog,
            source: Quiet::new(source),
            source_state: SourceState::Ready,
            source_waker,
            start: Quiet::new(start),
            order: Quiet::new(policy.keys().order()),
            limits: Limits::new(options.limits, deadline, policy.attempt_timeout()),
            policy: Quiet::new(policy),
            slots: Slots::new(),
            ready,
            due: VecDeque::new(),
            permits,
            throttling,
            next: None,
            retries: RetryQueue::new(),
            stops: Stops::new(stops, failures),
            stop_waker,
            reporter: options.observer.map(Reporter::new),
            sink,
            sink_waker,
            aborted: false,
            late: false,
            ended_early: false,
            at: At::Source,
            summary: BatchSummary::default(),
        }
    }

    /// Ends a run that is done.
    pub(super) fn into_parts(self) -> (O, BatchSummary) {
        (self.sink, self.summary)
    }
}

impl<S, F, Fut, P, O, T, E> Run<S, F, Fut, P, O, E>
where
    S: Source,
    F: FnMut(S::Input) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    P: Policy<S::Input, E>,
    O: OutcomeSink<S::Input, T, E>,
{
    /// The run is being polled: its deadline counts from the first time.
    pub(super) fn begin(&mut self) {
        self.limits.begin();
    }

    /// Charges the task's coop budget when it is done. The unit that is looked at in the beginning is not
    /// kept: what gives it back would give back what the items are charged meanwhile.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.begin();
        let _ = ready!(coop::poll_proceed(cx));
        let polled = self.poll_steps(cx);
        #[cfg(debug_assertions)]
        self.validate();
        ready!(polled);
        if let Poll::Ready(unit) = coop::poll_proceed(&mut Context::from_waker(Waker::noop())) {
            unit.made_progress();
        }
        Poll::Ready(())
    }

    fn poll_steps(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stops.begin(&self.stop_waker);
        self.ready.take();
        let mut steps = STEPS;
        while steps > 0 {
            steps -= 1;
            if let Some((how, failed)) = self.stops.news() {
                let end = if failed { BatchEnd::TooManyFailures } else { BatchEnd::Stopped };
                self.stop(how, end);
            }
            let moved = if self.is_time_up() && self.settle_overdue(cx) {
                true
            } else if self.takes_fast_path() {
                self.fast_steps(&mut steps)
            } else {
                self.step()
            };
            let sunk = self.sink.step(&mut Context::from_waker(&self.sink_waker));
            if moved || sunk || self.settle_overdue(cx) {
                continue;
            }
            self.sink.flush();
            if self.is_done() {
                return Poll::Ready(());
            }
            if !self.ready.take_or_sleep(cx.waker()) {
                return Poll::Pending;
            }
        }
        // A run that always has something to do must keep its time limits as well.
        self.settle_overdue(cx);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Panics unless what it counts agrees with what it has. Of many slots that takes long.
    #[cfg(debug_assertions)]
    fn validate(&self) {
        if self.slots.len() <= 64 {
            self.slots.validate();
            self.retries.validate();
            self.order.validate();
        }
    }

    fn is_done(&self) -> bool {
        self.source_state == SourceState::Done && self.slots.occupied() == 0 && self.sink.is_empty()
    }

    /// Whether a time limit may have passed, or something is due that waits for its time.
    #[inline]
    fn is_time_up(&self) -> bool {
        self.limits.may_be_due(self.first_alarm())
    }

    #[inline]
    fn first_alarm(&self) -> Option<Instant> {
        let throttle = self.throttling.as_ref().and_then(|throttling| throttling.until());
        if !P::RETRIES {
            return throttle;
        }
        match (throttle, self.retries.first_due()) {
            (Some(throttle), Some(retry)) => Some(throttle.min(retry)),
            (throttle, retry) => throttle.or(retry),
        }
    }

    /// Many steps of the fast path, and one of what is tried again.
    fn fast_steps(&mut self, steps: &mut usize) -> bool {
        let moved = self.fast_path(steps);
        if moved && self.is_time_up() {
            return true;
        }
        moved | self.start_due()
    }

    /// One step of each kind, so that none can starve another. Looks at the clock in between.
    fn step(&mut self) -> bool {
        self.ready.take_if_due();
        let visited = self.visit_woken();
        if visited && self.is_time_up() {
            return true;
        }
        let started = self.start_due();
        if started && self.is_time_up() {
            return true;
        }
        visited | started | self.pull()
    }

    /// Polls the next woken entry; whether there was one.
    fn visit_woken(&mut self) -> bool {
        match self.ready.next() {
            Some(entry) => self.visit(entry),
            None => return false,
        }
        true
    }

    fn visit(&mut self, entry: usize) {
        match entry {
            SOURCE => self.ask_source_again(),
            SINK => self.sink.woken(),
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
            entry => {
                let slot = entry - FIRST_SLOT;
                // A late wake-up may find the slot vacant, or held.
                if self.slots.has_started(slot) {
                    self.poll_slot(slot);
                }
            }
        }
    }

    fn ask_source_again(&mut self) {
        if self.source_state == SourceState::Pending {
            self.source_state = SourceState::Ready;
        }
    }

    #[inline]
    fn room(&self) -> usize {
        let in_hand = self.slots.occupied() + self.sink.waiting();
        if !P::RETRIES {
            return self.limit.saturating_sub(in_hand);
        }
        let room = self.limit.saturating_sub(in_hand - self.slots.backing_off());
        room.min((self.limit + self.backlog).saturating_sub(in_hand))
    }

    /// Whether no item is due to start.
    #[inline]
    fn none_due(&self) -> bool {
        self.due.is_empty()
            && self.next.is_none()
            && !(P::RETRIES && self.retries.ready().is_some())
    }

    /// How many inputs may be pulled now: none also if other things go first.
    #[inline]
    fn room_to_pull(&self) -> usize {
        if self.source_state != SourceState::Ready || !self.none_due() || self.stops.is_news() {
            return 0;
        }
        let room = self.room();
        if self.ready.is_empty() || room >= self.source.worth_asking() { room } else { 0 }
    }

    /// Pulls an input, if there is room and the source has any; whether it did.
    fn pull(&mut self) -> bool {
        let room = self.room_to_pull();
        if room == 0 {
            return false;
        }
        let cx = &mut Context::from_waker(&self.source_waker);
        match caught(|| self.source.poll_pull(room, cx)) {
            Ok(Poll::Ready(Some((index, input)))) => {
                self.check_deadline();
                self.admit(index, input);
            }
            Ok(Poll::Ready(None)) => {
                self.source_state = SourceState::Done;
                return false;
            }
            Ok(Poll::Pending) => {
                self.source_state = SourceState::Pending;
                return false;
            }
            Err(panic) => self.source_panicked(panic),
        }
        true
    }

    /// Whether the batch is to end, of which the run has not been told.
    pub(super) fn should_stop(&self) -> bool {
        self.stops.is_news() || self.limits.is_batch_due()
    }

    /// Ends the batch if its time is up: pulling may have taken long.
    #[inline]
    fn check_deadline(&mut self) {
        if self.limits.is_batch_due() {
            self.stop(Stop::Abort, BatchEnd::TimedOut);
        }
    }

    #[inline]
    fn vacant_slot(&mut self) -> usize {
        match self.slots.next_vacant() {
            Some(slot) => slot,
            None => {
                let (entry, waker) = self.ready.add_entry();
                let slot = self.slots.add(waker);
                debug_assert_eq!(entry, slot + FIRST_SLOT);
                slot
            }
        }
    }
}

/// What a run that has ended comes to.
pub(super) struct RunEnd {
    pub(super) summary: BatchSummary,
    /// Whether something that was pulled has ended because the batch did.
    pub(super) ended_early: bool,
}

/// A run of whatever types.
pub(super) trait Runs {
    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ends it, whether it is done or not.
    fn end_run(self) -> RunEnd;

    /// It is dropped before it is done.
    fn drop_run(self);
}

/// A run in the task that polls it. It returns its inputs if it is dropped before it is done.
pub(super) struct InTask<R: Runs>(Option<R>);

impl<R: Runs> InTask<R> {
    pub(super) fn new(run: R) -> Self {
        Self(Some(run))
    }

    /// Ends a run that is done.
    pub(super) fn into_done(mut self) -> R {
        self.0.take().expect(THERE)
    }
}

const THERE: &str = "it is there until it is dropped";

impl<R: Runs> Deref for InTask<R> {
    type Target = R;

    #[inline]
    fn deref(&self) -> &R {
        self.0.as_ref().expect(THERE)
    }
}

impl<R: Runs> DerefMut for InTask<R> {
    #[inline]
    fn deref_mut(&mut self) -> &mut R {
        self.0.as_mut().expect(THERE)
    }
}

impl<R: Runs> Drop for InTask<R> {
    fn drop(&mut self) {
        if let Some(run) = self.0.take() {
            run.drop_run();
        }
    }
}

impl<S, F, Fut, P, O, T, E> Runs for Run<S, F, Fut, P, O, E>
where
    S: Source,
    F: FnMut(S::Input) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    P: Policy<S::Input, E>,
    O: OutcomeSink<S::Input, T, E>,
{
    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll(cx)
    }

    fn drop_run(mut self) {
        self.dead_letter_inputs();
    }

    fn end_run(mut self) -> RunEnd {
        if !self.is_done() {
            self.cancel_all();
            self.sink.flush();
        }
        let ended_early = self.ended_early;
        RunEnd { summary: self.summary, ended_early }
    }
}
