//! `call` on both batchers, with the clock in hand: random calls whose callers leave at any step, and
//! a handler that answers all, some or none, shares answers, takes calls out, fails and panics.
//!
//! Each answer bears a number of its own, so the test knows which caller must get which. After each
//! step that settles: every caller whose call is over has exactly its own answer, or the error that
//! is due and its own item; no other caller has anything; items and answers are alive exactly as
//! long as somebody must have them. Every future is polled only when it was woken, and only by the
//! waker it was given last.
//!
//! Seen to fail: with answers sent to the next caller; with a slot used again while its call is under
//! way; with the waker of a caller that moved not kept; with answered calls tried again; with those that
//! share an answer forgotten, also when they are shared twice; with a caller that waited in line not
//! looking for its answer; with answers in order though they are too few; with those that share an answer
//! not told that its count does not match.

#![cfg(feature = "tokio")]

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use proptest::prelude::*;
use sluicegate::Retry;
use sluicegate::batcher::{
    Batch, Batcher, BatcherStats, Call, CallError, Caller, Driver, KeyedBatch, KeyedCaller,
    SendError,
};
use tokio::sync::oneshot;
use tokio::task::coop::unconstrained;

type Number = usize;

/// What is alive of what was made.
#[derive(Default)]
struct Alive {
    items: Mutex<BTreeSet<Number>>,
    answers: AtomicI64,
}

struct Item {
    number: Number,
    key: u8,
    class: u8,
    alive: Arc<Alive>,
}

impl Drop for Item {
    fn drop(&mut self) {
        assert!(self.alive.items.lock().unwrap().remove(&self.number), "an item leaves once");
    }
}

struct Answer {
    stamp: u64,
    alive: Arc<Alive>,
}

impl Answer {
    fn new(stamp: u64, alive: &Arc<Alive>) -> Self {
        alive.answers.fetch_add(1, Relaxed);
        Self { stamp, alive: alive.clone() }
    }
}

impl Clone for Answer {
    fn clone(&self) -> Self {
        Self::new(self.stamp, &self.alive)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.alive.answers.fetch_sub(1, Relaxed);
    }
}

type Asked = Call<Item, Answer>;
type Answered = Result<Answer, Unanswered>;

/// Why there is no answer.
#[derive(Debug)]
enum Why {
    Refused,
    Unanswered,
    Failed(Option<u32>),
    CountMismatch(usize, usize),
}

struct Unanswered {
    why: Why,
    item: Item,
}

impl Unanswered {
    fn new<I>(error: CallError<I>, item: impl Fn(I) -> Item) -> Self {
        let why = match &error {
            CallError::Refused(SendError::Closed(_)) => Why::Refused,
            CallError::Failed { error, .. } => Why::Failed(error.attempts()),
            CallError::Unanswered(_) => Why::Unanswered,
            CallError::CountMismatch { answers, calls, .. } => Why::CountMismatch(*answers, *calls),
            other => panic!("{other:?}"),
        };
        Self { why, item: item(error.into_item()) }
    }
}

/// What a call by key gives back is the item with its own key.
fn without_key((key, item): (u8, Item)) -> Item {
    assert_eq!(key, item.key, "its own key");
    item
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    keyed: bool,
    max_items: usize,
    more_capacity: usize,
    max_keys: usize,
    per_key: bool,
    in_order: bool,
    window: u64,
    eager: bool,
    concurrency: usize,
    attempts: u32,
    delay: u64,
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    Well,
    Fail,
    Panic,
}

/// Numbers that choose among what there is are taken modulo its count.
#[derive(Debug, Clone)]
enum Step {
    Call {
        key: u8,
        class: u8,
    },
    Leave(usize),
    /// The caller is polled with another waker, as when its task moved.
    Move(usize),
    /// Calls share an answer: those of one class, or all; perhaps one after the other.
    Share {
        batch: usize,
        passes: Vec<bool>,
    },
    Reply {
        batch: usize,
        index: usize,
    },
    ReplyAll {
        batch: usize,
        most: usize,
    },
    ReplyWith(usize),
    /// The handler takes a call out of its batch and keeps it.
    TakeOut {
        batch: usize,
        index: usize,
    },
    EndKept {
        which: usize,
        reply: bool,
    },
    End {
        batch: usize,
        verdict: Verdict,
    },
    Advance(u64),
    Shutdown(Option<u64>),
    DropDriver,
}

fn limits() -> impl Strategy<Value = Limits> {
    let sizes = (any::<bool>(), 1..6usize, 0..8usize, 1..4usize, any::<bool>(), any::<bool>());
    let handling = (0..4u64, any::<bool>(), 1..4usize, 1..4u32, 0..3u64);
    (sizes, handling).prop_map(|(sizes, handling)| {
        let (keyed, max_items, more_capacity, max_keys, per_key, in_order) = sizes;
        let (window, eager, concurrency, attempts, delay) = handling;
        Limits {
            keyed,
            max_items,
            more_capacity,
            max_keys,
            per_key,
            in_order,
            window,
            eager,
            concurrency,
            attempts,
            delay,
        }
    })
}

/// A step, and whether all settles after it.
fn step() -> impl Strategy<Value = (Step, bool)> {
    let which = 0..1000usize;
    let verdict = prop_oneof![
        3 => Just(Verdict::Well),
        3 => Just(Verdict::Fail),
        1 => Just(Verdict::Panic),
    ];
    let step = prop_oneof![
        60 => (0..4u8, 0..3u8).prop_map(|(key, class)| Step::Call { key, class }),
        15 => which.clone().prop_map(Step::Leave),
        8 => which.clone().prop_map(Step::Move),
        12 => (which.clone(), prop::collection::vec(any::<bool>(), 1..3)).prop_map(|(batch, passes)| Step::Share { batch, passes }),
        15 => (which.clone(), which.clone()).prop_map(|(batch, index)| Step::Reply { batch, index }),
        8 => (which.clone(), 0..10usize).prop_map(|(batch, most)| Step::ReplyAll { batch, most }),
        5 => which.clone().prop_map(Step::ReplyWith),
        8 => (which.clone(), which.clone())
            .prop_map(|(batch, index)| Step::TakeOut { batch, index }),
        6 => (which.clone(), any::<bool>())
            .prop_map(|(which, reply)| Step::EndKept { which, reply }),
        30 => (which, verdict).prop_map(|(batch, verdict)| Step::End { batch, verdict }),
        25 => (1..4u64).prop_map(Step::Advance),
        1 => prop::option::of(0..5u64).prop_map(Step::Shutdown),
        1 => Just(Step::DropDriver),
    ];
    (step, prop::bool::weighted(0.7))
}

#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// A future, and whether the waker it was polled with last was woken since.
struct Polled<T> {
    future: Pin<Box<dyn Future<Output = T>>>,
    woken: Arc<Woken>,
    seen: u64,
}

impl<T> Polled<T> {
    fn new(future: impl Future<Output = T> + 'static) -> Self {
        Self { future: Box::pin(unconstrained(future)), woken: woken(), seen: 0 }
    }

    fn poll_if_woken(&mut self) -> Option<Poll<T>> {
        let wakes = self.woken.0.load(Relaxed);
        (wakes != self.seen).then(|| {
            self.seen = wakes;
            let waker = Waker::from(self.woken.clone());
            self.future.as_mut().poll(&mut Context::from_waker(&waker))
        })
    }
}

fn woken() -> Arc<Woken> {
    Arc::new(Woken(AtomicU64::new(1)))
}

enum Handle {
    Plain(Caller<Item, Answer>),
    Keyed(KeyedCaller<u8, Item, Answer>),
}

impl Handle {
    fn call(&self, item: Item) -> Polled<Answered> {
        match self {
            Self::Plain(batcher) => {
                let batcher = batcher.clone();
                Polled::new(async move {
                    let answered = batcher.call(item).await;
                    answered.map_err(|error| Unanswered::new(error, |item| item))
                })
            }
            Self::Keyed(batcher) => {
                let batcher = batcher.clone();
                Polled::new(async move {
                    let answered = batcher.call(item.key, item).await;
                    answered.map_err(|error| Unanswered::new(error, without_key))
                })
            }
        }
    }

    fn shutdown(&self, deadline: Option<u64>) -> Polled<()> {
        let deadline = deadline.map(Duration::from_millis);
        match self {
            Self::Plain(batcher) => {
                let batcher = batcher.clone();
                Polled::new(async move { drop(batcher.shutdown(deadline).await) })
            }
            Self::Keyed(batcher) => {
                let batcher = batcher.clone();
                Polled::new(async move { drop(batcher.shutdown(deadline).await) })
            }
        }
    }

    fn stats(&self) -> BatcherStats {
        match self {
            Self::Plain(batcher) => batcher.stats(),
            Self::Keyed(batcher) => batcher.stats(),
        }
    }
}

enum Guard {
    Plain(Batch<Asked>),
    Keyed(KeyedBatch<u8, Asked>),
}

impl Guard {
    fn batch(&mut self) -> &mut Batch<Asked> {
        match self {
            Self::Plain(batch) => batch,
            Self::Keyed(batch) => batch,
        }
    }
}

/// Calls that share an answer, in the order in which they are tried again.
#[derive(Default)]
struct Group {
    calls: Vec<Number>,
    answer: Option<Due>,
}

/// What a handler has answered with.
#[derive(Clone, Copy)]
enum Due {
    Stamp(u64),
    /// Of an answer in order: how many answers for how many calls.
    Mismatch(usize, usize),
}

impl Group {
    fn stamp(&self) -> Option<u64> {
        match self.answer {
            Some(Due::Stamp(stamp)) => Some(stamp),
            _ => None,
        }
    }
}

/// A batch with the handler.
struct Attempt {
    guard: Guard,
    tell: oneshot::Sender<Verdict>,
    groups: Vec<Group>,
    handed: usize,
}

type Begun = Arc<Mutex<Vec<Attempt>>>;

/// Hands the guard to the test, and ends as that says.
fn attempt(
    begun: &Begun,
    mut guard: Guard,
) -> impl Future<Output = Result<(), &'static str>> + Send + use<> {
    let (tell, told) = oneshot::channel();
    let numbers = guard.batch().iter().map(|call| call.item().number);
    let groups: Vec<_> =
        numbers.map(|number| Group { calls: vec![number], answer: None }).collect();
    let handed = groups.len();
    begun.lock().unwrap().push(Attempt { guard, tell, groups, handed });
    async {
        match told.await {
            Ok(Verdict::Well) => Ok(()),
            Ok(Verdict::Fail) => Err("as told"),
            Ok(Verdict::Panic) => std::panic::resume_unwind(Box::new("as told")),
            Err(_) => Err("it was not told"),
        }
    }
}

fn build(limits: Limits, begun: Begun) -> (Handle, Driver) {
    let retry = Retry::constant(limits.attempts, Duration::from_millis(limits.delay)).unwrap();
    let window = Duration::from_millis(limits.window);
    let capacity = limits.max_items + limits.more_capacity;
    if limits.keyed {
        let mut builder = Batcher::keyed(limits.max_keys)
            .max_items(limits.max_items)
            .capacity(capacity)
            .concurrency(limits.concurrency)
            .window(window)
            .retry(retry);
        if limits.eager {
            builder = builder.eager_when_idle();
        }
        if limits.in_order {
            builder = builder.in_order();
        }
        if limits.per_key {
            builder = builder.capacity_per_key(limits.max_items);
        }
        let handler = move |batch| attempt(&begun, Guard::Keyed(batch));
        let (batcher, driver) = builder.build_caller_with_driver(handler).unwrap();
        (Handle::Keyed(batcher), driver)
    } else {
        let mut builder = Batcher::builder()
            .max_items(limits.max_items)
            .capacity(capacity)
            .concurrency(limits.concurrency)
            .window(window)
            .retry(retry);
        if limits.eager {
            builder = builder.eager_when_idle();
        }
        let handler = move |batch| attempt(&begun, Guard::Plain(batch));
        let (batcher, driver) = builder.build_caller_with_driver(handler).unwrap();
        (Handle::Plain(batcher), driver)
    }
}

/// What must be true of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// In line, or in a batch that was not handed over yet.
    Unseen,
    /// With the handler.
    Out,
    /// In a batch that will be tried again.
    Retrying,
    /// The batcher stops or has stopped: it may be handed over yet, or have an error at any time.
    Doubtful,
    Answered(u64),
    Mismatched(usize, usize),
    Unanswered,
    /// In the attempt of this number.
    Failed(u32),
    /// Nothing comes of it, and nobody waits.
    Gone,
}

impl State {
    fn is_over(self) -> bool {
        !matches!(self, Self::Unseen | Self::Out | Self::Retrying | Self::Doubtful)
    }
}

struct World {
    limits: Limits,
    handle: Handle,
    driver: Option<Polled<()>>,
    begun: Begun,
    alive: Arc<Alive>,
    callers: Vec<Option<Polled<Answered>>>,
    states: Vec<State>,
    attempts: Vec<Attempt>,
    kept: Vec<(Asked, Group)>,
    /// By the number of the batch: its next attempt, and what must be in it.
    retrying: HashMap<u64, (u32, Vec<Number>)>,
    /// Whose batch has ended, which the driver has not seen yet.
    unconcluded: Vec<Number>,
    shutdowns: Vec<Polled<()>>,
    next_stamp: u64,
    delivered: u64,
    failed: u64,
    closed: bool,
    stopping: bool,
}

impl World {
    fn new(limits: Limits) -> Self {
        let begun = Begun::default();
        let (handle, driver) = build(limits, begun.clone());
        Self {
            limits,
            handle,
            driver: Some(Polled::new(driver)),
            begun,
            alive: Arc::default(),
            callers: Vec::new(),
            states: Vec::new(),
            attempts: Vec::new(),
            kept: Vec::new(),
            retrying: HashMap::new(),
            unconcluded: Vec::new(),
            shutdowns: Vec::new(),
            next_stamp: 0,
            delivered: 0,
            failed: 0,
            closed: false,
            stopping: false,
        }
    }

    fn stamp(&mut self) -> u64 {
        self.next_stamp += 1;
        self.next_stamp
    }

    fn waiting(&self, which: usize) -> Option<Number> {
        let waiting: Vec<_> =
            (0..self.callers.len()).filter(|number| self.callers[*number].is_some()).collect();
        (!waiting.is_empty()).then(|| waiting[which % waiting.len()])
    }

    fn is_alive(&self, number: Number) -> bool {
        self.alive.items.lock().unwrap().contains(&number)
    }

    fn call(&mut self, key: u8, class: u8) {
        let number = self.callers.len();
        self.alive.items.lock().unwrap().insert(number);
        let item = Item { number, key, class, alive: self.alive.clone() };
        self.callers.push(Some(self.handle.call(item)));
        let doubtful = self.stopping;
        self.states.push(if doubtful { State::Doubtful } else { State::Unseen });
    }

    fn leave(&mut self, number: Number) {
        self.callers[number] = None;
        // What was not sent goes with its caller; what was is handled all the same.
        if !self.states[number].is_over() && !self.is_alive(number) {
            assert_ne!(self.states[number], State::Out, "the handler has it");
            assert_ne!(self.states[number], State::Retrying, "the batcher has it");
            self.states[number] = State::Gone;
        }
    }

    fn answer_group(&mut self, at: usize, index: usize) -> Answer {
        let stamp = self.stamp();
        self.attempts[at].groups[index].answer = Some(Due::Stamp(stamp));
        Answer::new(stamp, &self.alive)
    }

    fn end_group(&mut self, group: &Group, without: State) {
        for number in &group.calls {
            assert_eq!(self.states[*number], State::Out);
            self.states[*number] = match group.answer {
                Some(Due::Stamp(stamp)) => State::Answered(stamp),
                Some(Due::Mismatch(answers, calls)) => State::Mismatched(answers, calls),
                None => without,
            };
        }
    }

    fn take_out(&mut self, at: usize, index: usize) {
        let Attempt { guard, groups, .. } = &mut self.attempts[at];
        let index = index % groups.len();
        let call = guard.batch().drain(index..=index).next().unwrap();
        let group = groups.remove(index);
        self.kept.push((call, group));
    }

    fn end_kept(&mut self, which: usize, reply: bool) {
        let (call, mut group) = self.kept.swap_remove(which);
        if reply {
            let stamp = self.stamp();
            group.answer = Some(Due::Stamp(stamp));
            let item = call.reply(Answer::new(stamp, &self.alive));
            assert_eq!(item.number, group.calls[0]);
        } else {
            drop(call);
        }
        self.end_group(&group, State::Unanswered);
    }

    fn share(&mut self, at: usize, all: bool) {
        let Attempt { guard, groups, .. } = &mut self.attempts[at];
        let class = |item: &Item| if all { 0 } else { item.class };
        let classes: Vec<_> = guard.batch().iter().map(|call| class(call.item())).collect();
        guard.batch().dedup_by_key(class);
        let mut shared: Vec<(u8, Group)> = Vec::new();
        for (class, group) in classes.into_iter().zip(groups.drain(..)) {
            match shared.iter_mut().find(|(known, _)| *known == class) {
                Some((_, first)) => first.calls.extend(group.calls),
                None => shared.push((class, group)),
            }
        }
        groups.extend(shared.into_iter().map(|(_, group)| group));
        let seen: Vec<_> = guard.batch().iter().map(|call| call.item().number).collect();
        let firsts: Vec<_> = groups.iter().map(|group| group.calls[0]).collect();
        assert_eq!(seen, firsts, "the first of each stays");
    }

    fn end(&mut self, at: usize, verdict: Verdict) {
        let Attempt { mut guard, tell, groups, handed } = self.attempts.remove(at);
        let (id, number) = (guard.batch().id(), guard.batch().attempt());
        drop(guard);
        // The handler may be gone, with its driver.
        tell.send(verdict).ok();
        let well = matches!(verdict, Verdict::Well);
        let again = !well && number < self.limits.attempts;
        let without = match (self.stopping, well, again) {
            (true, ..) => State::Doubtful,
            (false, true, _) => State::Unanswered,
            (false, false, true) => State::Retrying,
            (false, false, false) => State::Failed(number),
        };
        let mut left = Vec::new();
        for group in &groups {
            self.end_group(group, without);
            if group.answer.is_none() {
                left.extend(&group.calls);
            }
        }
        self.unconcluded.extend(&left);
        let unfinished = if well { 0 } else { left.len() };
        self.delivered += (handed - unfinished) as u64;
        if !again {
            self.failed += unfinished as u64;
        }
        if again && !left.is_empty() {
            self.retrying.insert(id, (number + 1, left));
        }
    }

    fn stop(&mut self) {
        self.closed = true;
        self.stopping = true;
        for number in self.unconcluded.drain(..) {
            self.states[number] = State::Doubtful;
        }
        for state in &mut self.states {
            if matches!(state, State::Unseen | State::Retrying) {
                *state = State::Doubtful;
            }
        }
    }

    async fn step(&mut self, step: &Step, settle: bool) {
        let at = |batch: usize| (!self.attempts.is_empty()).then(|| batch % self.attempts.len());
        match *step {
            Step::Call { key, class } => self.call(key, class),
            Step::Leave(which) => {
                if let Some(number) = self.waiting(which) {
                    self.leave(number);
                }
            }
            Step::Move(which) => {
                if let Some(number) = self.waiting(which) {
                    let caller = self.callers[number].as_mut().unwrap();
                    (caller.woken, caller.seen) = (woken(), 0);
                    self.poll_caller(number);
                }
            }
            Step::Share { batch, ref passes } => {
                // Of calls that have an answer already, the answers would have to be compared.
                let at = at(batch)
                    .filter(|at| self.attempts[*at].groups.iter().all(|g| g.answer.is_none()));
                if let Some(at) = at {
                    for all in passes {
                        self.share(at, *all);
                    }
                }
            }
            Step::Reply { batch, index } => {
                if let Some(at) = at(batch).filter(|at| !self.attempts[*at].groups.is_empty()) {
                    let index = index % self.attempts[at].groups.len();
                    let before = self.attempts[at].groups[index].stamp();
                    let answer = self.answer_group(at, index);
                    let replaced = self.attempts[at].guard.batch().reply(index, answer);
                    assert_eq!(replaced.map(|answer| answer.stamp), before);
                }
            }
            Step::ReplyAll { batch, most } => {
                if let Some(at) = at(batch) {
                    let calls = self.attempts[at].groups.len();
                    // As many as there are calls more often than not.
                    let answers = if most < 5 { most } else { calls };
                    let made: Vec<_> = if answers == calls {
                        (0..calls).map(|index| self.answer_group(at, index)).collect()
                    } else {
                        for group in &mut self.attempts[at].groups {
                            group.answer = Some(Due::Mismatch(answers, calls));
                        }
                        (0..answers).map(|_| Answer::new(self.stamp(), &self.alive)).collect()
                    };
                    self.attempts[at].guard.batch().reply_all(made);
                }
            }
            Step::ReplyWith(batch) => {
                if let Some(at) = at(batch) {
                    let firsts: Vec<_> =
                        self.attempts[at].groups.iter().map(|group| group.calls[0]).collect();
                    let answers: Vec<_> =
                        (0..firsts.len()).map(|index| self.answer_group(at, index)).collect();
                    let mut answers: HashMap<_, _> = firsts.into_iter().zip(answers).collect();
                    let answer = |item: &Item| answers.remove(&item.number).unwrap();
                    self.attempts[at].guard.batch().reply_with(answer);
                }
            }
            Step::TakeOut { batch, index } => {
                if let Some(at) = at(batch).filter(|at| !self.attempts[*at].groups.is_empty()) {
                    self.take_out(at, index);
                }
            }
            Step::EndKept { which, reply } => {
                if !self.kept.is_empty() {
                    self.end_kept(which % self.kept.len(), reply);
                }
            }
            Step::End { batch, verdict } => {
                if let Some(at) = at(batch) {
                    self.end(at, verdict);
                }
            }
            Step::Advance(ms) => {
                for _ in 0..ms {
                    tokio::time::advance(Duration::from_millis(1)).await;
                    self.settle();
                }
            }
            Step::Shutdown(deadline) => {
                self.shutdowns.push(self.handle.shutdown(deadline));
                self.closed = true;
                if deadline.is_some() {
                    self.stop();
                }
            }
            Step::DropDriver => {
                self.driver = None;
                self.stop();
            }
        }
        if settle {
            self.settle();
        }
    }

    fn poll_caller(&mut self, number: Number) -> bool {
        let Some(caller) = &mut self.callers[number] else { return false };
        match caller.poll_if_woken() {
            Some(Poll::Ready(answered)) => {
                self.callers[number] = None;
                self.check(number, answered);
                true
            }
            Some(Poll::Pending) => true,
            None => false,
        }
    }

    /// A caller has its answer.
    fn check(&mut self, number: Number, answered: Answered) {
        let state = self.states[number];
        let error = match answered {
            Ok(answer) => {
                assert_eq!(State::Answered(answer.stamp), state, "its own answer");
                return;
            }
            Err(error) => error,
        };
        let due = match error.why {
            Why::Refused => self.closed && state == State::Unseen,
            Why::Unanswered => state == State::Unanswered,
            Why::Failed(attempts) => {
                attempts.is_some_and(|attempts| state == State::Failed(attempts))
            }
            Why::CountMismatch(answers, calls) => state == State::Mismatched(answers, calls),
        };
        let why = &error.why;
        assert!(due || state == State::Doubtful, "{why:?} for one that is {state:?}");
        assert_eq!(error.item.number, number, "its own item");
        if !state.is_over() {
            self.states[number] = State::Gone;
        }
    }

    /// What the handler was given since.
    fn look(&mut self) {
        let begun = std::mem::take(&mut *self.begun.lock().unwrap());
        for mut attempt in begun {
            let numbers: Vec<_> = attempt.groups.iter().map(|group| group.calls[0]).collect();
            let batch = attempt.guard.batch();
            let before = match self.retrying.remove(&batch.id()) {
                Some(due) => {
                    assert_eq!((batch.attempt(), &numbers), (due.0, &due.1), "what was left");
                    State::Retrying
                }
                None => {
                    assert_eq!(batch.attempt(), 1);
                    State::Unseen
                }
            };
            if let Guard::Keyed(batch) = &attempt.guard {
                assert!(batch.iter().all(|call| call.item().key == *batch.key()));
            }
            for number in numbers {
                let state = self.states[number];
                assert!(state == before || state == State::Doubtful, "{number} is {state:?}");
                self.states[number] = State::Out;
            }
            self.attempts.push(attempt);
        }
    }

    /// Lets all do what they can, and looks at all that can be seen.
    fn settle(&mut self) {
        loop {
            let mut polled = false;
            while let Some(poll) = self.driver.as_mut().and_then(Polled::poll_if_woken) {
                polled = true;
                if poll.is_ready() {
                    self.driver = None;
                }
            }
            self.unconcluded.clear();
            self.look();
            self.shutdowns.retain_mut(|shutdown| match shutdown.poll_if_woken() {
                Some(Poll::Ready(())) => false,
                Some(Poll::Pending) => {
                    polled = true;
                    true
                }
                None => true,
            });
            for number in 0..self.callers.len() {
                polled |= self.poll_caller(number);
            }
            if !polled {
                break;
            }
        }
        for number in 0..self.states.len() {
            let (state, waits) = (self.states[number], self.callers[number].is_some());
            let alive = self.is_alive(number);
            match state {
                State::Doubtful => {
                    assert!(alive || !waits, "the item of {number} is lost");
                    assert!(self.driver.is_some() || !waits, "{number} was not told of the end");
                }
                state => {
                    assert_eq!(alive, !state.is_over(), "the item of {number}, which is {state:?}");
                    assert!(!waits || !state.is_over(), "{number} waits and is {state:?}");
                }
            }
        }
        let groups = self.attempts.iter().flat_map(|attempt| &attempt.groups);
        let groups = groups.chain(self.kept.iter().map(|(_, group)| group));
        let answers = groups.filter(|group| group.stamp().is_some()).count();
        assert_eq!(self.alive.answers.load(Relaxed), answers as i64, "answers alive");
        let stats = self.handle.stats();
        let ended = stats.delivered + stats.failed + stats.unsent + stats.indeterminate;
        assert_eq!(stats.accepted, ended + stats.pending);
        assert!(stats.pending <= (self.limits.max_items + self.limits.more_capacity) as u64);
        if !self.stopping {
            assert_eq!((stats.delivered, stats.failed), (self.delivered, self.failed));
        }
    }

    /// Every batch is answered in part, until all is over.
    async fn drain(mut self) {
        self.settle();
        for turn in 0..400 {
            if !self.attempts.is_empty() {
                let most = turn % 3;
                self.step(&Step::ReplyAll { batch: 0, most }, false).await;
                self.step(&Step::End { batch: 0, verdict: Verdict::Well }, true).await;
            }
            self.step(&Step::EndKept { which: 0, reply: turn % 2 == 0 }, true).await;
            self.step(&Step::Advance(1), true).await;
        }
        assert!(self.callers.iter().all(Option::is_none), "a caller waits for ever");
        assert_eq!((self.handle.stats().pending, self.handle.stats().waiting_senders), (0, 0));
        self.driver = None;
        drop(self.handle);
        assert!(self.alive.items.lock().unwrap().is_empty(), "items are lost");
        assert_eq!(self.alive.answers.load(Relaxed), 0, "answers are lost");
    }
}

proptest! {
    #[test]
    fn each_caller_that_stays_gets_its_own_answer(
        limits in limits(),
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::new(limits);
            world.settle();
            for (step, settle) in &steps {
                world.step(step, *settle).await;
            }
            world.drain().await;
        });
    }
}
