//! The queue beside a reference of plain vectors: random steps, and after each one everything that
//! can be seen is the same. Items are counted as they are dropped; wakers, weighers and destructors
//! panic now and then.

#[cfg(feature = "tokio")]
use crate::coop;
mod reference;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

#[cfg(feature = "sink")]
use futures_util::Sink as _;
use futures_util::StreamExt;
use proptest::prelude::*;
use reference::{Answer, Config, Id, Item, Read, Reference};
use sluicegate::OverflowQueue;
#[cfg(feature = "sink")]
use sluicegate::queue::PushSink;
use sluicegate::queue::{Items, Popped, Push, Pushed, TryPopError, WhenFull};

/// What is pushed: counts itself as it drops.
struct Token {
    id: Id,
    weight: u64,
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

/// A task: counts its wake-ups since it was polled, and panics at each of them if `panics`.
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

/// A way to push that may wait.
#[derive(Debug, Clone, Copy)]
enum How {
    Ordinary,
    Protected,
    Sink,
}

/// A form of reading that may wait.
#[derive(Debug, Clone, Copy)]
enum Form {
    Pop,
    PopMany,
    PopManyInto,
    Stream,
}

#[derive(Debug, Clone)]
enum Step {
    Push {
        how: How,
        weight: u64,
        waker_panics: bool,
        budget: bool,
    },
    TryPush {
        protected: bool,
        weight: u64,
    },
    PushPanics {
        waits: bool,
    },
    PollPush {
        which: usize,
        other_waker: bool,
        budget: bool,
    },
    CancelPush {
        which: usize,
        keep: bool,
        drop_panics: bool,
    },
    Pop {
        form: Form,
        max: usize,
        waker_panics: bool,
        budget: bool,
    },
    TryPop,
    PollReader {
        which: usize,
        other_waker: bool,
        budget: bool,
    },
    CancelReader(usize),
    /// More than are woken in one go.
    Crowd {
        readers: bool,
        size: usize,
    },
    Close,
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    let weight = || prop_oneof![4 => 0..6u64, 1 => 6..14u64];
    let which = 0..1000usize;
    let rarely = prop::bool::weighted(0.1);
    let protected = || prop::bool::weighted(0.25);
    let budget = prop::bool::weighted(0.8);
    let how =
        prop_oneof![2 => Just(How::Ordinary), 1 => Just(How::Protected), 1 => Just(How::Sink)];
    let form = prop_oneof![
        Just(Form::Pop),
        Just(Form::PopMany),
        Just(Form::PopManyInto),
        Just(Form::Stream)
    ];
    prop_oneof![
        10 => (how, weight(), rarely, budget).prop_map(|(how, weight, waker_panics, budget)| {
            Step::Push { how, weight, waker_panics, budget }
        }),
        8 => (protected(), weight())
            .prop_map(|(protected, weight)| Step::TryPush { protected, weight }),
        1 => any::<bool>().prop_map(|waits| Step::PushPanics { waits }),
        5 => (which.clone(), any::<bool>(), budget).prop_map(|(which, other_waker, budget)| {
            Step::PollPush { which, other_waker, budget }
        }),
        3 => (which.clone(), any::<bool>(), rarely)
            .prop_map(|(which, keep, drop_panics)| Step::CancelPush { which, keep, drop_panics }),
        8 => (form, 1..6usize, rarely, budget).prop_map(|(form, max, waker_panics, budget)| {
            Step::Pop { form, max, waker_panics, budget }
        }),
        4 => Just(Step::TryPop),
        5 => (which.clone(), any::<bool>(), budget).prop_map(|(which, other_waker, budget)| {
            Step::PollReader { which, other_waker, budget }
        }),
        3 => which.prop_map(Step::CancelReader),
        1 => Just(Step::Drain),
        1 => (any::<bool>(), 30..150usize)
            .prop_map(|(readers, size)| Step::Crowd { readers, size }),
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
    let max_weight = || prop::option::of(1..12u64);
    let capacity = prop_oneof![8 => 1..7usize, 1 => 60..140usize];
    (capacity, when_full, protected, max_weight(), max_weight()).prop_map(
        |(capacity, when_full, protected, max_weight, protected_max_weight)| Config {
            capacity,
            when_full,
            protected,
            max_weight,
            protected_max_weight: protected_max_weight
                .filter(|_| protected.and(max_weight).is_some()),
        },
    )
}

fn build(config: Config) -> OverflowQueue<Token> {
    let mut builder =
        OverflowQueue::builder().capacity(config.capacity).when_full(config.when_full);
    if let Some(protected) = config.protected {
        builder = builder.protected(protected);
    }
    if let Some(max_weight) = config.max_weight {
        builder = builder.max_weight(max_weight, |token: &Token| {
            if token.weigher_panics {
                panic_quietly();
            }
            token.weight
        });
    }
    if let Some(max_weight) = config.protected_max_weight {
        builder = builder.protected_max_weight(max_weight);
    }
    builder.build().expect("the limits are good")
}

/// Items, or how many were lost before the end.
type Reads<'q> = Pin<Box<dyn Future<Output = Result<Vec<Popped<Token>>, u64>> + 'q>>;

struct Reader<'q> {
    reads: Reads<'q>,
    max: usize,
}

impl<'q> Reader<'q> {
    fn new(queue: &'q OverflowQueue<Token>, form: Form, max: usize) -> Self {
        let lost = |closed: sluicegate::queue::Closed| closed.dropped_before;
        let one = matches!(form, Form::Pop | Form::Stream);
        let reads: Reads<'q> = match form {
            Form::Pop => Box::pin(async move { Ok(vec![queue.pop().await.map_err(lost)?]) }),
            Form::PopMany => Box::pin(async move { queue.pop_many(max).await.map_err(lost) }),
            Form::PopManyInto => Box::pin(async move {
                let mut into = Vec::new();
                let count = queue.pop_many_into(&mut into, max).await.map_err(lost)?;
                assert_eq!(into.len(), count);
                Ok(into)
            }),
            Form::Stream => {
                let mut items: Items<&'q OverflowQueue<Token>, Token> = queue.items();
                Box::pin(poll_fn(move |cx| {
                    items.poll_next_unpin(cx).map(|popped| match popped {
                        Some(popped) => Ok(vec![popped]),
                        None => Err(items.dropped_at_end().expect("it has ended")),
                    })
                }))
            }
        };
        Self { reads, max: if one { 1 } else { max } }
    }
}

/// What the sink hands to the caller.
#[cfg(feature = "sink")]
type Lost = Rc<Cell<Option<Pushed<Token>>>>;

#[cfg(feature = "sink")]
type Sink<'q> = PushSink<&'q OverflowQueue<Token>, Token, Box<dyn FnMut(Pushed<Token>)>>;

enum Pushing<'q> {
    Push(Push<'q, Token>),
    #[cfg(feature = "sink")]
    Sink(Sink<'q>, Lost),
}

impl<'q> Pushing<'q> {
    fn new(queue: &'q OverflowQueue<Token>, token: Token, how: How) -> Self {
        match how {
            How::Protected => Self::Push(queue.push_protected(token)),
            #[cfg(feature = "sink")]
            How::Sink => {
                let lost = Lost::default();
                let loses = lost.clone();
                let mut sink: Sink<'q> =
                    queue.sink(Box::new(move |pushed| loses.set(Some(pushed))));
                assert!(Pin::new(&mut sink).start_send(token).is_ok());
                Self::Sink(sink, lost)
            }
            _ => Self::Push(queue.push(token)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pushed<Token>> {
        match self {
            Self::Push(push) => Pin::new(push).poll(cx),
            #[cfg(feature = "sink")]
            Self::Sink(sink, lost) => Pin::new(sink).poll_flush(cx).map(|flushed| match flushed {
                Ok(()) => lost.take().unwrap_or(Pushed::Stored),
                Err(rejected) => Pushed::Rejected(rejected),
            }),
        }
    }

    fn into_item(self) -> Option<Token> {
        match self {
            Self::Push(push) => push.into_item(),
            #[cfg(feature = "sink")]
            Self::Sink(sink, _) => sink.into_item(),
        }
    }
}

#[cfg(feature = "tokio")]
use coop::without_budget;

#[cfg(not(feature = "tokio"))]
fn without_budget<T>(_: impl FnOnce() -> T) -> T {
    unreachable!("there is no budget to spend")
}

/// A future and its task. A poll without budget adds a wake-up of its own.
struct Pending<F> {
    future: F,
    task: Arc<Task>,
    yielded: bool,
}

impl<F> Pending<F> {
    /// Polls the future, which can only yield without budget.
    fn poll<T>(
        &mut self,
        budget: bool,
        poll: impl FnOnce(&mut F, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.task.woken.store(0, Ordering::Relaxed);
        self.yielded = !budget;
        let waker = Waker::from(self.task.clone());
        let poll = || poll(&mut self.future, &mut Context::from_waker(&waker));
        if budget {
            return poll();
        }
        let polled = without_budget(poll);
        assert!(polled.is_pending());
        assert_eq!(self.task.woken.load(Ordering::Relaxed), 1, "it yields");
        polled
    }

    /// Whether the next poll has budget. There is always some without tokio, and a waker that panics
    /// must not do so in the runtime.
    fn has_budget(&self, budget: bool) -> bool {
        budget || self.task.panics || cfg!(not(feature = "tokio"))
    }

    fn assert_woken(&self, what: &str, id: Id, granted: bool) {
        let woken = self.task.woken.load(Ordering::Relaxed);
        assert!(woken > 0 || !granted, "{what} {id} sleeps");
        assert!(woken <= 1 + usize::from(self.yielded), "{what} {id} was woken {woken} times");
    }
}

/// Drives the queue and the reference, and keeps what lives outside of them.
struct Drive<'q> {
    config: Config,
    queue: &'q OverflowQueue<Token>,
    reference: Reference,
    dropped: Rc<Cell<usize>>,
    created: usize,
    held: Vec<Token>,
    /// The items of pending pushes.
    items: BTreeMap<Id, Item>,
    pushes: BTreeMap<Id, Pending<Pushing<'q>>>,
    readers: BTreeMap<Id, Pending<Reader<'q>>>,
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
            items: BTreeMap::new(),
            pushes: BTreeMap::new(),
            readers: BTreeMap::new(),
            next_reader: 0,
        }
    }

    fn token(&mut self, weight: u64) -> Token {
        let id = self.created;
        self.created += 1;
        let dropped = self.dropped.clone();
        Token { id, weight, weigher_panics: false, drop_panics: Cell::new(false), dropped }
    }

    fn item(&self, token: &Token, protected: bool) -> Item {
        let weight = if self.config.max_weight.is_some() { token.weight } else { 0 };
        Item { id: token.id, weight, protected }
    }

    /// Keeps the tokens of an outcome.
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

    fn push(&mut self, how: How, weight: u64, waker_panics: bool, budget: bool) {
        let token = self.token(weight);
        let (id, item) = (token.id, self.item(&token, matches!(how, How::Protected)));
        let future = Pushing::new(self.queue, token, how);
        self.items.insert(id, item);
        self.pushes.insert(id, Pending { future, task: task(waker_panics), yielded: false });
        self.poll_push(id, budget);
    }

    fn poll_push(&mut self, id: Id, budget: bool) {
        let push = self.pushes.get_mut(&id).unwrap();
        let item = self.items[&id];
        let budget = push.has_budget(budget);
        let polled = push.poll(budget, Pushing::poll);
        let expected = match budget {
            true => self.reference.poll_any_push(item),
            false => {
                self.reference.push_without_budget(item);
                Answer::Pending
            }
        };
        let answer = match polled {
            Poll::Ready(pushed) => {
                self.pushes.remove(&id);
                self.answer(pushed)
            }
            Poll::Pending => Answer::Pending,
        };
        assert_eq!(answer, expected);
    }

    fn poll_reader(&mut self, id: Id, budget: bool) {
        let reader = self.readers.get_mut(&id).unwrap();
        let (max, budget) = (reader.future.max, reader.has_budget(budget));
        let polled = reader.poll(budget, |reader, cx| reader.reads.as_mut().poll(cx));
        let expected = match budget {
            true => self.reference.poll_any_reader(id, max),
            false => {
                self.reference.read_without_budget(id);
                Read::Empty
            }
        };
        let read = match polled {
            Poll::Ready(Ok(items)) => self.read(items),
            Poll::Ready(Err(lost)) => Read::Closed(lost),
            Poll::Pending => Read::Empty,
        };
        if read != Read::Empty {
            self.readers.remove(&id);
        }
        assert_eq!(read, expected);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Push { how, weight, waker_panics, budget } => {
                self.push(how, weight, waker_panics, budget);
            }
            Step::TryPush { protected, weight } => {
                let token = self.token(weight);
                let expected = self.reference.push(self.item(&token, protected), false);
                let pushed = if protected {
                    self.queue.try_push_protected(token)
                } else {
                    self.queue.try_push(token)
                };
                assert_eq!(self.answer(pushed), expected);
            }
            Step::PushPanics { waits } if self.config.max_weight.is_some() => {
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
            Step::PollPush { which, other_waker, budget } => {
                let Some(id) = pick(&self.pushes, which) else { return };
                if other_waker {
                    self.pushes.get_mut(&id).unwrap().task = task(false);
                }
                self.poll_push(id, budget);
            }
            Step::CancelPush { which, keep, drop_panics } => {
                let Some(id) = pick(&self.pushes, which) else { return };
                let push = self.pushes.remove(&id).unwrap().future;
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
            Step::Pop { form, max, waker_panics, budget } => {
                let id = self.next_reader;
                self.next_reader += 1;
                let future = Reader::new(self.queue, form, max);
                self.readers
                    .insert(id, Pending { future, task: task(waker_panics), yielded: false });
                self.reference.new_reader(id);
                self.poll_reader(id, budget);
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
            Step::PollReader { which, other_waker, budget } => {
                let Some(id) = pick(&self.readers, which) else { return };
                if other_waker {
                    self.readers.get_mut(&id).unwrap().task = task(false);
                }
                self.poll_reader(id, budget);
            }
            Step::CancelReader(which) => {
                let Some(id) = pick(&self.readers, which) else { return };
                self.reference.cancel_reader(id);
                self.readers.remove(&id);
            }
            Step::Crowd { readers: true, size } => {
                for _ in 0..size {
                    let (form, max) = (Form::Pop, 1);
                    self.step(&Step::Pop { form, max, waker_panics: false, budget: true });
                }
            }
            Step::Crowd { readers: false, size } => {
                for _ in 0..size {
                    self.push(How::Ordinary, 1, false, true);
                    self.reference.finish_step();
                }
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
        self.reference.finish_step();
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
        #[cfg(debug_assertions)]
        self.queue.validate();
        assert_eq!((stats.len, stats.weight), (self.reference.len(), self.reference.weight()));
        assert_eq!((self.queue.len(), self.queue.weight()), (stats.len, stats.weight));
        if !self.reference.closed {
            let waiting = (stats.waiting_pushers, stats.waiting_readers);
            assert_eq!(waiting, self.reference.waiting());
        }
        // No waiter sleeps that could go on.
        for (id, push) in &self.pushes {
            push.assert_woken("push", *id, self.reference.is_pusher_granted(*id));
        }
        for (id, reader) in &self.readers {
            reader.assert_woken("reader", *id, self.reference.is_reader_granted(*id));
        }
        let inside = stats.len + self.pushes.len() + self.held.len();
        assert_eq!(self.dropped.get() + inside, self.created, "a token was lost");
    }

    /// Closes, and reads to the end: each waiter is woken once.
    fn finish(mut self) {
        self.step(&Step::Close);
        while !self.pushes.is_empty() {
            self.step(&Step::PollPush { which: 0, other_waker: false, budget: true });
            self.check();
        }
        while !self.readers.is_empty() {
            self.step(&Step::PollReader { which: 0, other_waker: false, budget: true });
            self.check();
        }
        while self.reference.len() > 0 {
            self.step(&Step::TryPop);
            self.check();
        }
        self.step(&Step::TryPop);
        assert_eq!(self.reference.counts.reported, self.queue.stats().displaced());
        assert_eq!((self.queue.len(), self.queue.weight()), (0, 0));
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

    /// Resident items are dropped with the queue, once.
    #[test]
    fn drops_each_once(config in config(), steps in prop::collection::vec(step(), 1..60)) {
        let queue = build(config);
        let mut drive = Drive::new(config, &queue);
        let dropped = drive.dropped.clone();
        for step in &steps {
            drive.step(step);
            #[cfg(debug_assertions)]
            queue.validate();
        }
        let created = drive.created;
        drop(drive);
        drop(queue);
        prop_assert_eq!(dropped.get(), created);
    }
}
