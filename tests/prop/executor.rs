//! Scripted batches under paused time, against an oracle that looks at one item at a time: what an
//! item's script says is its outcome, whatever the others do.
//!
//! While a batch runs, its world counts. After every poll, and at every pull and start:
//!
//! - pulled = alive (running, or waiting for their key) + settled, and alive ≤ limit;
//! - pulled − handed to the sink ≤ limit;
//! - what runs ≤ limit, starts in input order, and with keys: one of each at a time.
//!
//! At the end, or when the run is dropped after some poll, each input has been dropped once.
#![cfg(feature = "tokio")]

use crate::outcome::text;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::stream;
use proptest::prelude::*;
use sluicegate::executor::Policy;
use sluicegate::{
    BatchEnd, BatchExecutor, BatchSummary, Panic, Semaphore, Settled, Stop, StopToken,
};
use tokio::time::{Instant, Sleep, sleep, timeout};

#[derive(Debug, Clone, Copy)]
enum Step {
    Yield,
    /// Twice as many milliseconds: an even number, so that no limit, all odd, ends in the same one.
    Sleep(u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    Fulfil,
    Reject,
    PanicInClosure,
    PanicInPoll,
    Hang,
}

#[derive(Debug, Clone)]
struct Item {
    key: u8,
    steps: Vec<Step>,
    ending: Ending,
    panics_in_drop: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Method {
    AllSettled,
    ForEach,
    ForEachStream,
}

#[derive(Debug, Clone)]
struct Batch {
    items: Vec<Item>,
    limit: usize,
    method: Method,
    keyed: bool,
    item_timeout: Option<u64>,
    deadline: Option<u64>,
    source_panics_at: Option<usize>,
    /// What the source and the sink do for each item, in turn.
    source_steps: Vec<Step>,
    sink_steps: Vec<Step>,
    drop_after_polls: Option<usize>,
    stop_after_polls: Option<(usize, Stop)>,
    /// So many permits, some of which others hold until they give them back in between.
    semaphore: Option<usize>,
    weighed: bool,
    observed: bool,
}

impl Batch {
    /// What becomes of an item that nothing cuts short.
    fn oracle(&self, index: usize) -> &'static str {
        let item = &self.items[index];
        if item.ending == Ending::PanicInClosure {
            return "panicked: in the closure";
        }
        let slept: u64 = item.steps.iter().map(Step::millis).sum();
        let overdue = self.item_timeout.is_some_and(|limit| slept > limit);
        if overdue || item.ending == Ending::Hang {
            return "timed out";
        }
        match item.ending {
            Ending::Fulfil => "fulfilled",
            Ending::Reject => "rejected: no",
            _ => "panicked: in poll",
        }
    }

    fn allows(&self, index: usize, shown: &str) -> bool {
        let aborted = matches!(self.stop_after_polls, Some((_, Stop::Abort)));
        let late = ["batch timed out", "cancelled before it started"].contains(&shown);
        shown == self.oracle(index)
            || self.deadline.is_some() && late
            || aborted && shown.starts_with("cancelled")
    }
}

impl Step {
    fn millis(&self) -> u64 {
        match self {
            Self::Yield => 0,
            Self::Sleep(twice) => 2 * twice,
        }
    }

    async fn go(self) {
        match self {
            Self::Yield => tokio::task::yield_now().await,
            Self::Sleep(_) => sleep(Duration::from_millis(self.millis())).await,
        }
    }
}

/// What can be seen from outside while a batch runs. A violation is noted, not panicked with: the
/// executor would take that for an item's panic.
struct World {
    batch: Batch,
    started_at: Instant,
    pulled: usize,
    alive: BTreeSet<usize>,
    dropped: BTreeMap<usize, usize>,
    running: BTreeMap<usize, u8>,
    last_start: BTreeMap<u8, usize>,
    sink_calls: usize,
    sink_busy: bool,
    outcomes: BTreeMap<usize, String>,
    violations: Vec<String>,
    stopped: bool,
}

type Shared = Rc<RefCell<World>>;

impl World {
    fn check(&mut self, holds: bool, what: &str) {
        if !holds {
            self.violations.push(format!("{what}, pulled {}", self.pulled));
        }
    }

    fn pull(&mut self) -> usize {
        self.check(!self.stopped, "pulled after the stop");
        let index = self.pulled;
        self.pulled += 1;
        self.alive.insert(index);
        self.check_bounds();
        if let Some(deadline) = self.batch.deadline {
            let elapsed = self.started_at.elapsed();
            self.check(elapsed <= Duration::from_millis(deadline), "pulled after the deadline");
        }
        index
    }

    fn start(&mut self, index: usize) {
        let key = self.batch.items[index].key;
        if self.batch.keyed {
            let alone = !self.running.values().any(|&running| running == key);
            self.check(alone, "two of one key run");
        }
        let line = if self.batch.keyed { key } else { 0 };
        let last = self.last_start.insert(line, index);
        self.check(last.is_none_or(|last| last < index), "started out of order");
        self.running.insert(index, key);
        let most = self.batch.limit.min(self.batch.semaphore.unwrap_or(usize::MAX));
        self.check(self.running.len() <= most, "too many run");
    }

    fn settle(&mut self, index: usize, shown: String) {
        self.check(self.dropped.get(&index) == Some(&1), "settled and not dropped once");
        let allowed = self.batch.allows(index, &shown);
        self.check(allowed, &format!("item {index} {shown}"));
        let before = self.outcomes.insert(index, shown);
        self.check(before.is_none(), "settled twice");
    }

    fn check_bounds(&mut self) {
        let gone: usize = self.dropped.values().sum();
        self.check(self.pulled == self.alive.len() + gone, "an input is lost, or dropped twice");
        self.check(self.alive.len() <= self.batch.limit, "too many alive");
        if self.batch.method != Method::AllSettled {
            let unsunk = self.pulled - self.sink_calls;
            self.check(unsunk <= self.batch.limit, "too many pulled and not sunk");
        }
    }
}

/// An input, from pull to outcome.
struct Token {
    index: usize,
    world: Shared,
}

impl Drop for Token {
    fn drop(&mut self) {
        let mut world = self.world.borrow_mut();
        world.alive.remove(&self.index);
        *world.dropped.entry(self.index).or_default() += 1;
    }
}

struct Source(Shared);

impl Iterator for Source {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let mut world = self.0.borrow_mut();
        if world.batch.source_panics_at == Some(world.pulled) {
            drop(world);
            resume_unwind(Box::new("in the source"));
        }
        (world.pulled < world.batch.items.len())
            .then(|| Token { index: world.pull(), world: Rc::clone(&self.0) })
    }
}

/// An item's future.
struct Scripted {
    token: Token,
    steps: VecDeque<Step>,
    sleep: Option<Pin<Box<Sleep>>>,
    ending: Ending,
    panics_in_drop: bool,
}

impl Scripted {
    fn start(token: Token) -> Self {
        let item = {
            let mut world = token.world.borrow_mut();
            let item = world.batch.items[token.index].clone();
            world.start(token.index);
            if item.ending == Ending::PanicInClosure {
                world.running.remove(&token.index);
            }
            item
        };
        if item.ending == Ending::PanicInClosure {
            resume_unwind(Box::new("in the closure"));
        }
        let Item { steps, ending, panics_in_drop, .. } = item;
        Self { token, steps: steps.into(), sleep: None, ending, panics_in_drop }
    }
}

impl Future for Scripted {
    type Output = Result<usize, &'static str>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                std::task::ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            match self.steps.pop_front() {
                Some(Step::Yield) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(step) => {
                    self.sleep = Some(Box::pin(sleep(Duration::from_millis(step.millis()))));
                }
                None => break,
            }
        }
        match self.ending {
            Ending::Fulfil => Poll::Ready(Ok(self.token.index)),
            Ending::Reject => Poll::Ready(Err("no")),
            Ending::Hang => Poll::Pending,
            _ => resume_unwind(Box::new("in poll")),
        }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.token.world.borrow_mut().running.remove(&self.token.index);
        if self.panics_in_drop {
            resume_unwind(Box::new("in drop"));
        }
    }
}

async fn sink(world: Shared, step: Step, index: usize, outcome: Settled<usize, &'static str>) {
    {
        let mut world = world.borrow_mut();
        let idle = !std::mem::replace(&mut world.sink_busy, true);
        world.check(idle, "two outcomes in the sink");
        let own = !matches!(outcome, Ok(value) if value != index);
        world.check(own, "an outcome under another's index");
        world.settle(index, text(&outcome));
    }
    step.go().await;
    world.borrow_mut().sink_busy = false;
}

/// Runs the batch and puts what `all_settled` returns into the world. The summary, if there is one.
async fn run_batch(world: &Shared, executor: BatchExecutor) -> Option<BatchSummary> {
    let Batch { keyed, weighed, .. } = world.borrow().batch.clone();
    let key = |token: &Token| token.world.borrow().batch.items[token.index].key;
    let weight = |token: &Token| token.index as u32 % 4;
    match (keyed, weighed) {
        (false, false) => run_on(world, executor).await,
        (false, true) => run_on(world, executor.by_weight(weight)).await,
        (true, false) => run_on(world, executor.by_key(key)).await,
        (true, true) => run_on(world, executor.by_weight(weight).by_key(key)).await,
    }
}

async fn run_on<P>(world: &Shared, executor: BatchExecutor<P>) -> Option<BatchSummary>
where
    P: Policy<Token, &'static str>,
{
    let Batch { method, source_steps, sink_steps, .. } = world.borrow().batch.clone();
    let inputs = Source(Rc::clone(world));
    let sink = |index, outcome| {
        let calls = {
            let mut world = world.borrow_mut();
            world.sink_calls += 1;
            world.sink_calls
        };
        sink(Rc::clone(world), sink_steps[calls % sink_steps.len()], index, outcome)
    };
    let streamed = |inputs| {
        let steps = source_steps.into_iter().cycle();
        stream::unfold((inputs, steps), |(mut inputs, mut steps): (Source, _)| async move {
            let step: Step = Iterator::next(&mut steps)?;
            step.go().await;
            Some((inputs.next()?, (inputs, steps)))
        })
    };
    let f = Scripted::start;
    match method {
        Method::AllSettled => {
            let outcomes = executor.all_settled(inputs, f).await;
            let mut world = world.borrow_mut();
            let (outcomes, summary) = outcomes.into_parts();
            for (index, outcome) in outcomes.into_iter().enumerate() {
                world.settle(index, text(&outcome));
            }
            Some(summary)
        }
        Method::ForEach => Some(executor.for_each(inputs, f, sink).await),
        _ => Some(executor.for_each_stream(streamed(inputs), f, sink).await),
    }
}

enum StreamEnd {
    Dropped,
    Returned(Option<BatchSummary>),
    Panicked(Panic),
}

/// Polls the run to its end, or for as long as the script says, with the checks after each poll.
async fn drive(world: &Shared, executor: BatchExecutor, token: StopToken) -> StreamEnd {
    let mut run = Box::pin(run_batch(world, executor));
    let last = world.borrow().batch.drop_after_polls;
    let stop = world.borrow().batch.stop_after_polls;
    let mut polls = 0;
    poll_fn(move |cx| {
        if last == Some(polls) {
            return Poll::Ready(StreamEnd::Dropped);
        }
        if let Some((after, how)) = stop {
            if after == polls {
                token.stop(how);
                world.borrow_mut().stopped = true;
            }
        }
        polls += 1;
        let polled = catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx)));
        let mut world = world.borrow_mut();
        world.check_bounds();
        let violations = std::mem::take(&mut world.violations);
        assert!(violations.is_empty(), "{violations:?}");
        match polled {
            Ok(polled) => polled.map(StreamEnd::Returned),
            Err(payload) => Poll::Ready(StreamEnd::Panicked(Panic::new(payload))),
        }
    })
    .await
}

fn check(batch: Batch) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut builder = BatchExecutor::builder().limit(batch.limit);
        if let Some(limit) = batch.item_timeout {
            builder = builder.item_timeout(Duration::from_millis(limit));
        }
        if let Some(limit) = batch.deadline {
            builder = builder.timeout(Duration::from_millis(limit));
        }
        let world = Rc::new(RefCell::new(World {
            batch: batch.clone(),
            started_at: Instant::now(),
            pulled: 0,
            alive: BTreeSet::new(),
            dropped: BTreeMap::new(),
            running: BTreeMap::new(),
            last_start: BTreeMap::new(),
            sink_calls: 0,
            sink_busy: false,
            outcomes: BTreeMap::new(),
            violations: Vec::new(),
            stopped: false,
        }));
        // A wake-up that is lost leaves nothing but this timer: time jumps to it.
        let hour = Duration::from_secs(3600);
        let token = StopToken::new();
        builder = builder.stop(token.clone());
        let semaphore = batch.semaphore.map(|permits| Arc::new(Semaphore::new(permits)));
        if let Some(semaphore) = &semaphore {
            builder = builder.semaphore(Arc::clone(semaphore));
        }
        if batch.observed {
            builder = builder.observer(|_| resume_unwind(Box::new("in the observer")));
        }
        let executor = builder.build().unwrap();
        let others = async {
            while let Some(semaphore) = &semaphore {
                let held = semaphore.acquire().await.unwrap();
                sleep(Duration::from_millis(3)).await;
                drop(held);
            }
            pending().await
        };
        let driven = drive(&world, executor, token);
        let finished = timeout(hour, async {
            match select(pin!(driven), pin!(others)).await {
                Either::Left((finished, _)) => finished,
                Either::Right((never, _)) => never,
            }
        });
        let finished = finished.await;

        let world = world.borrow();
        assert_eq!(world.violations, [""; 0]);
        // Whatever happened, what was pulled is gone, each input once, and nothing runs.
        assert!(world.alive.is_empty() && world.running.is_empty());
        assert_eq!(world.dropped.len(), world.pulled);
        assert!(world.dropped.values().all(|&times| times == 1));

        if let Some(semaphore) = semaphore {
            assert_eq!(semaphore.available_permits(), batch.semaphore.unwrap());
        }
        let summary = match finished.expect("asleep, and nobody will wake it") {
            StreamEnd::Dropped => return,
            StreamEnd::Panicked(panic) => panic!("{panic}"),
            StreamEnd::Returned(summary) => summary,
        };
        assert_eq!(world.outcomes.len(), world.pulled);
        let cut = |shown: &&str| shown.starts_with("cancelled") || *shown == "batch timed out";
        let cut = world.outcomes.values().any(|shown| cut(&shown.as_ref()));
        let source_panicked = batch.source_panics_at == Some(world.pulled);
        let exhausted = world.pulled == batch.items.len() && !source_panicked;
        assert!(exhausted || source_panicked || batch.deadline.is_some() || world.stopped);
        if let Some(summary) = summary {
            let counts = summary.counts();
            let of = |kind: &str| {
                world.outcomes.values().filter(|shown| shown.starts_with(kind)).count()
            };
            assert_eq!(summary.pulled(), world.pulled);
            assert_eq!(counts.fulfilled, of("fulfilled"));
            assert_eq!(counts.rejected, of("rejected"));
            assert_eq!(counts.panicked, of("panicked"));
            assert_eq!(counts.timed_out, of("timed out") + of("batch timed out"));
            assert_eq!(counts.cancelled, of("cancelled"));
            match summary.end() {
                BatchEnd::Exhausted => assert!(exhausted && !cut),
                BatchEnd::Stopped => assert!(world.stopped),
                BatchEnd::TimedOut => assert!(batch.deadline.is_some()),
                BatchEnd::SourcePanicked(panic) => {
                    assert!(source_panicked);
                    assert_eq!(panic.message(), Some("in the source"));
                }
                other => panic!("{other}"),
            }
        }
    });
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![Just(Step::Yield), (0..8_u64).prop_map(Step::Sleep)];
    prop::collection::vec(step, 0..=most)
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let ending = prop_oneof![
        6 => Just(Ending::Fulfil),
        2 => Just(Ending::Reject),
        1 => Just(Ending::PanicInClosure),
        1 => Just(Ending::PanicInPoll),
        1 => Just(Ending::Hang),
    ];
    let item = (0..4_u8, steps(3), ending, prop::bool::weighted(0.2)).prop_map(
        |(key, steps, ending, panics_in_drop)| Item { key, steps, ending, panics_in_drop },
    );
    prop::collection::vec(item, 0..24)
}

fn odd() -> impl Strategy<Value = u64> {
    (0..16_u64).prop_map(|half| 2 * half + 1)
}

fn batches() -> impl Strategy<Value = Batch> {
    let method =
        prop_oneof![Just(Method::AllSettled), Just(Method::ForEach), Just(Method::ForEachStream)];
    let shape = (items(), 1..7_usize, method, any::<bool>());
    let limits = (prop::option::of(odd()), prop::option::weighted(0.3, odd()));
    let around = (prop::option::weighted(0.1, 0..24_usize), steps(3), steps(3));
    let dropped = prop::option::weighted(0.4, 0..40_usize);
    let how = prop_oneof![Just(Stop::Drain), Just(Stop::Abort)];
    let stopped = prop::option::weighted(0.3, (0..40_usize, how));
    let options = (prop::option::of(1..5_usize), any::<bool>(), any::<bool>());
    (shape, limits, around, dropped, stopped, options).prop_map(
        |(
            (mut items, limit, method, keyed),
            (item_timeout, deadline),
            (source_panics_at, mut source_steps, mut sink_steps),
            drop_after_polls,
            stop_after_polls,
            (semaphore, weighed, observed),
        )| {
            for item in &mut items {
                if item.ending == Ending::Hang && item_timeout.or(deadline).is_none() {
                    item.ending = Ending::Fulfil;
                }
            }
            source_steps.push(Step::Yield);
            sink_steps.push(Step::Sleep(0));
            Batch {
                items,
                limit,
                method,
                keyed,
                item_timeout,
                deadline,
                source_panics_at,
                source_steps,
                sink_steps,
                drop_after_polls,
                stop_after_polls,
                semaphore,
                weighed,
                observed,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn every_input_has_the_outcome_its_script_says(batch in batches()) {
        check(batch);
    }
}
