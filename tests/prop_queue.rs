//! The queue beside a reference of plain vectors: random steps, and after each one everything that
//! can be seen is the same. Items are counted as they are dropped; wakers, weighers and destructors
//! panic now and then.
#![cfg(not(loom))]

#[path = "queue/reference.rs"]
mod reference;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use proptest::prelude::*;
use reference::{Answer, Config, Id, Item, Read, Reference};
use sluicegate::OverflowQueue;
use sluicegate::queue::{Closed, Pop, PopMany, Popped, Push, Pushed, TryPopError, WhenFull};

/// What is pushed: counts itself as it drops.
struct Token {
    id: Id,
    bytes: u64,
    weigher_panics: bool,
    drop_panics: Cell<bool>,
    dropped: Rc<Cell<usize>>,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.dropped.set(self.dropped.get() + 1);
        if self.drop_panics.replace(false) {
            panic_quietly();
        }
    }
}

struct OnPurpose;

/// Unlike `panic!`, this prints nothing.
fn panic_quietly() -> ! {
    resume_unwind(Box::new(OnPurpose))
}

/// Whether it panicked on purpose; any other panic goes on.
fn panics(act: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(()) => false,
        Err(payload) if payload.is::<OnPurpose>() => true,
        Err(payload) => resume_unwind(payload),
    }
}

/// A task: counts how often it was woken since it was polled, and panics at that if it is told to.
struct Task {
    woken: AtomicUsize,
    panics: bool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::Relaxed);
        if self.panics {
            panic_quietly();
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push { protected: bool, bytes: u64, waker_panics: bool },
    TryPush { protected: bool, bytes: u64 },
    PushPanics { waits: bool },
    PollPush { which: usize, other_waker: bool },
    CancelPush { which: usize, keep: bool, drop_panics: bool },
    Pop { max: Option<usize>, waker_panics: bool },
    TryPop,
    PollReader { which: usize, other_waker: bool },
    CancelReader(usize),
    Close,
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop_oneof![4 => 0..6u64, 1 => 6..14u64];
    let which = 0..1000usize;
    let rarely = prop::bool::weighted(0.1);
    let protected = || prop::bool::weighted(0.25);
    let max = prop::option::of(1..6usize);
    prop_oneof![
        10 => (protected(), bytes(), rarely)
            .prop_map(|(protected, bytes, waker_panics)| Step::Push { protected, bytes, waker_panics }),
        8 => (protected(), bytes())
            .prop_map(|(protected, bytes)| Step::TryPush { protected, bytes }),
        1 => any::<bool>().prop_map(|waits| Step::PushPanics { waits }),
        5 => (which.clone(), any::<bool>())
            .prop_map(|(which, other_waker)| Step::PollPush { which, other_waker }),
        3 => (which.clone(), any::<bool>(), rarely)
            .prop_map(|(which, keep, drop_panics)| Step::CancelPush { which, keep, drop_panics }),
        8 => (max, rarely).prop_map(|(max, waker_panics)| Step::Pop { max, waker_panics }),
        4 => Just(Step::TryPop),
        5 => (which.clone(), any::<bool>())
            .prop_map(|(which, other_waker)| Step::PollReader { which, other_waker }),
        3 => which.prop_map(Step::CancelReader),
        1 => Just(Step::Drain),
        1 => prop::bool::weighted(0.5).prop_map(|close| if close { Step::Close } else { Step::TryPop }),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    let when_full = prop_oneof![
        2 => Just(WhenFull::Wait),
        1 => Just(WhenFull::Reject),
        2 => Just(WhenFull::DropNewest),
        2 => Just(WhenFull::DropOldest),
        3 => (1..=100u8).prop_map(|percent| WhenFull::DropOldestShare { percent }),
    ];
    let protected = prop::option::of(1..4usize);
    let max_bytes = prop::option::of(1..12u64);
    (1..7usize, when_full, protected, max_bytes).prop_map(
        |(capacity, when_full, protected, max_bytes)| Config {
            capacity,
            when_full,
            protected,
            max_bytes,
        },
    )
}

fn build(config: Config) -> OverflowQueue<Token> {
    let mut builder =
        OverflowQueue::builder().capacity(config.capacity).when_full(config.when_full);
    if let Some(protected) = config.protected {
        builder = builder.protected(protected);
    }
    if let Some(max_bytes) = config.max_bytes {
        builder = builder.max_bytes(max_bytes, |token: &Token| {
            if token.weigher_panics {
                panic_quietly();
            }
            token.bytes
        });
    }
    builder.build().expect("the limits are good")
}

enum Reader<'q> {
    One(Pin<Box<Pop<'q, Token>>>),
    Many(Pin<Box<PopMany<'q, Token>>>, usize),
}

struct InLine<F> {
    future: F,
    task: Arc<Task>,
}

/// Drives the queue and the reference, and keeps what lives outside of them.
struct Drive<'q> {
    config: Config,
    queue: &'q OverflowQueue<Token>,
    reference: Reference,
    dropped: Rc<Cell<usize>>,
    created: usize,
    held: Vec<Token>,
    pushes: BTreeMap<Id, InLine<Pin<Box<Push<'q, Token>>>>>,
    readers: BTreeMap<Id, InLine<Reader<'q>>>,
    next_reader: Id,
}

fn task(panics: bool) -> Arc<Task> {
    Arc::new(Task { woken: AtomicUsize::new(0), panics })
}

fn pick<T>(from: &BTreeMap<Id, T>, which: usize) -> Option<Id> {
    if from.is_empty() { None } else { from.keys().nth(which % from.len()).copied() }
}

impl<'q> Drive<'q> {
    fn new(config: Config, queue: &'q OverflowQueue<Token>) -> Self {
        Self {
            config,
            queue,
            reference: Reference::new(config),
            dropped: Rc::default(),
            created: 0,
            held: Vec::new(),
            pushes: BTreeMap::new(),
            readers: BTreeMap::new(),
            next_reader: 0,
        }
    }

    fn token(&mut self, bytes: u64) -> Token {
        let id = self.created;
        self.created += 1;
        let dropped = self.dropped.clone();
        Token { id, bytes, weigher_panics: false, drop_panics: Cell::new(false), dropped }
    }

    fn item(&self, token: &Token, protected: bool) -> Item {
        let bytes = if self.config.max_bytes.is_some() { token.bytes } else { 0 };
        Item { id: token.id, bytes, protected }
    }

    /// Keeps what an answer hands out.
    fn answer(&mut self, pushed: Pushed<Token>) -> Answer {
        let mut keep = |token: Token| {
            let id = token.id;
            self.held.push(token);
            id
        };
        match pushed {
            Pushed::Stored => Answer::Stored,
            Pushed::Displaced(older) => Answer::Displaced(older.map(keep).collect()),
            Pushed::DroppedNewest(token) => Answer::DroppedNewest(keep(token)),
            Pushed::Rejected(rejected) => Answer::Rejected(rejected.reason, keep(rejected.item)),
        }
    }

    fn read(&mut self, items: impl IntoIterator<Item = Popped<Token>>) -> Read {
        let mut keep = |popped: Popped<Token>| {
            let seen = (popped.item.id, popped.dropped_before);
            self.held.push(popped.item);
            seen
        };
        Read::Items(items.into_iter().map(&mut keep).collect())
    }

    fn push(&mut self, protected: bool, bytes: u64, waker_panics: bool) {
        let token = self.token(bytes);
        let (id, item) = (token.id, self.item(&token, protected));
        let push =
            if protected { self.queue.push_protected(token) } else { self.queue.push(token) };
        let line = InLine { future: Box::pin(push), task: task(waker_panics) };
        self.pushes.insert(id, line);
        let expected = self.reference.push(item, true);
        self.poll_push(id, &expected);
    }

    fn poll_push(&mut self, id: Id, expected: &Answer) {
        let InLine { future, task } = self.pushes.get_mut(&id).unwrap();
        task.woken.store(0, Ordering::Relaxed);
        let waker = Waker::from(task.clone());
        let answer = match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(pushed) => {
                self.pushes.remove(&id);
                self.answer(pushed)
            }
            Poll::Pending => Answer::Pending,
        };
        assert_eq!(&answer, expected);
    }

    fn poll_reader(&mut self, id: Id, expected: &Read) {
        let InLine { future, task } = self.readers.get_mut(&id).unwrap();
        task.woken.store(0, Ordering::Relaxed);
        let waker = Waker::from(task.clone());
        let cx = &mut Context::from_waker(&waker);
        let polled: Poll<Result<Vec<_>, Closed>> = match future {
            Reader::One(pop) => pop.as_mut().poll(cx).map_ok(|popped| vec![popped]),
            Reader::Many(pop, _) => pop.as_mut().poll(cx),
        };
        let read = match polled {
            Poll::Ready(Ok(items)) => self.read(items),
            Poll::Ready(Err(closed)) => Read::Closed(closed.dropped_before),
            Poll::Pending => Read::Empty,
        };
        if read != Read::Empty {
            self.readers.remove(&id);
        }
        assert_eq!(&read, expected);
    }

    fn max_of(&self, id: Id) -> usize {
        match self.readers[&id].future {
            Reader::One(_) => 1,
            Reader::Many(_, max) => max,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Push { protected, bytes, waker_panics } => {
                self.push(protected, bytes, waker_panics);
            }
            Step::TryPush { protected, bytes } => {
                let token = self.token(bytes);
                let expected = self.reference.push(self.item(&token, protected), false);
                let pushed = if protected {
                    self.queue.try_push_protected(token)
                } else {
                    self.queue.try_push(token)
                };
                assert_eq!(self.answer(pushed), expected);
            }
            Step::PushPanics { waits } if self.config.max_bytes.is_some() => {
                let mut token = self.token(1);
                token.weigher_panics = true;
                if waits {
                    let mut push = self.queue.push(token);
                    let cx = &mut Context::from_waker(Waker::noop());
                    assert!(panics(|| assert!(Pin::new(&mut push).poll(cx).is_ready())));
                    self.held.extend(push.into_item());
                } else {
                    assert!(panics(|| drop(self.queue.try_push(token))));
                }
            }
            Step::PollPush { which, other_waker } => {
                let Some(id) = pick(&self.pushes, which) else { return };
                if other_waker {
                    self.pushes.get_mut(&id).unwrap().task = task(false);
                }
                let expected = self.reference.poll_push(id);
                self.poll_push(id, &expected);
            }
            Step::CancelPush { which, keep, drop_panics } => {
                let Some(id) = pick(&self.pushes, which) else { return };
                let push = self.pushes.remove(&id).unwrap().future;
                let push = *Pin::into_inner(push);
                self.reference.cancel_push(id);
                let before = self.dropped.get();
                if keep || drop_panics {
                    let token = push.into_item().expect("it has not completed");
                    assert_eq!((token.id, self.dropped.get()), (id, before));
                    token.drop_panics.set(drop_panics);
                    assert_eq!(panics(|| drop(token)), drop_panics);
                } else {
                    drop(push);
                }
                assert_eq!(self.dropped.get(), before + 1);
            }
            Step::Pop { max, waker_panics } => {
                let id = self.next_reader;
                self.next_reader += 1;
                let future = match max {
                    Some(max) => Reader::Many(Box::pin(self.queue.pop_many(max)), max),
                    None => Reader::One(Box::pin(self.queue.pop())),
                };
                self.readers.insert(id, InLine { future, task: task(waker_panics) });
                let expected = self.reference.join_readers(id, max.unwrap_or(1));
                self.poll_reader(id, &expected);
            }
            Step::TryPop => {
                let expected = self.reference.pop(1);
                let read = match self.queue.try_pop() {
                    Ok(popped) => self.read([popped]),
                    Err(TryPopError::Closed(closed)) => Read::Closed(closed.dropped_before),
                    Err(TryPopError::Empty) => Read::Empty,
                };
                assert_eq!(read, expected);
            }
            Step::PollReader { which, other_waker } => {
                let Some(id) = pick(&self.readers, which) else { return };
                if other_waker {
                    self.readers.get_mut(&id).unwrap().task = task(false);
                }
                let expected = self.reference.poll_reader(id, self.max_of(id));
                self.poll_reader(id, &expected);
            }
            Step::CancelReader(which) => {
                let Some(id) = pick(&self.readers, which) else { return };
                self.reference.cancel_reader(id);
                self.readers.remove(&id);
            }
            Step::Close => {
                self.reference.close();
                self.queue.close();
            }
            Step::Drain => {
                let (expected, lost) = self.reference.drain();
                let drained = self.queue.drain();
                let dropped_after = drained.dropped_after;
                assert_eq!(self.read(drained.items), Read::Items(expected));
                assert_eq!(dropped_after, lost);
            }
            Step::PushPanics { .. } => {}
        }
        self.reference.settle();
    }

    fn check(&self) {
        let (stats, expected) = (self.queue.stats(), &self.reference.counts);
        let pushed =
            stats.popped + stats.displaced() + stats.rejected() + stats.drained + stats.len as u64;
        assert_eq!(stats.pushed, pushed, "{stats:?}");
        let seen = [stats.pushed, stats.popped, stats.displaced(), stats.rejected(), stats.drained];
        let wanted = [
            expected.pushed,
            expected.popped,
            expected.displaced,
            expected.rejected,
            expected.drained,
        ];
        assert_eq!(seen, wanted);
        assert_eq!((stats.len, stats.bytes), (self.reference.len(), self.reference.bytes()));
        assert_eq!((self.queue.len(), self.queue.bytes()), (stats.len, stats.bytes));
        if !self.reference.closed {
            let in_line = (stats.waiting_pushers, stats.waiting_readers);
            assert_eq!(in_line, self.reference.in_line());
        }
        // Nobody is left asleep who could go on.
        for (id, line) in &self.pushes {
            let woken = line.task.woken.load(Ordering::Relaxed);
            assert!(woken > 0 || !self.reference.is_pusher_called(*id), "push {id} sleeps");
            assert!(woken <= 1, "push {id} was woken {woken} times");
        }
        for (id, line) in &self.readers {
            let woken = line.task.woken.load(Ordering::Relaxed);
            assert!(woken > 0 || !self.reference.is_reader_called(*id), "reader {id} sleeps");
            assert!(woken <= 1, "reader {id} was woken {woken} times");
        }
        let inside = stats.len + self.pushes.len() + self.held.len();
        assert_eq!(self.dropped.get() + inside, self.created, "somebody was lost");
    }

    /// Closes, and reads to the end: whoever still waits is told so, once.
    fn finish(mut self) {
        self.step(&Step::Close);
        while !self.pushes.is_empty() {
            self.step(&Step::PollPush { which: 0, other_waker: false });
            self.check();
        }
        while !self.readers.is_empty() {
            self.step(&Step::PollReader { which: 0, other_waker: false });
            self.check();
        }
        while self.reference.len() > 0 {
            self.step(&Step::TryPop);
            self.check();
        }
        self.step(&Step::TryPop);
        assert_eq!(self.reference.counts.told, self.queue.stats().displaced());
        assert_eq!((self.queue.len(), self.queue.bytes()), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn is_the_reference(config in config(), steps in prop::collection::vec(step(), 1..120)) {
        let queue = build(config);
        let mut drive = Drive::new(config, &queue);
        let dropped = drive.dropped.clone();
        for step in &steps {
            drive.step(step);
            drive.check();
        }
        let created = drive.created;
        drive.finish();
        prop_assert_eq!(dropped.get(), created);
    }

    /// What is left in a queue is dropped with it, once.
    #[test]
    fn drops_each_once(config in config(), steps in prop::collection::vec(step(), 1..60)) {
        let queue = build(config);
        let mut drive = Drive::new(config, &queue);
        let dropped = drive.dropped.clone();
        steps.iter().for_each(|step| drive.step(step));
        let created = drive.created;
        drop(drive);
        drop(queue);
        prop_assert_eq!(dropped.get(), created);
    }
}
