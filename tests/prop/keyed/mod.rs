//! The keyed batcher beside a reference of plain lists: random operations with the clock in hand, and
//! after each one everything that can be seen is the same. Every future is polled only when it was
//! woken, so that a wake-up that is lost is a difference.

#![cfg(feature = "tokio")]

mod reference;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use proptest::prelude::*;
use reference::{Flushed, Key, Limits, Reference, weight};
use sluicegate::Retry;
use sluicegate::batcher::{Batcher, Driver, KeyedBatch, KeyedBatcher, SealedBy};
use tokio::task::coop::unconstrained;

/// Numbers that choose among what there is are taken modulo its count.
#[derive(Debug, Clone)]
enum Step {
    TrySend(Key),
    Send(Key),
    Reserve(Key),
    /// An item is sent with a slot that is held.
    UseSlot(usize),
    /// Drops any future that waits, or a slot that is held.
    Cancel(usize),
    Flush,
    FlushKey(Key),
    Advance(u64),
    End {
        which: usize,
        well: bool,
        /// Drops a future before those that were granted something are polled.
        cancel: Option<usize>,
    },
}

fn limits() -> impl Strategy<Value = Limits> {
    let sizes = (1..4usize, 1..4usize, 0..6u64, 0..10usize);
    let per_key = prop::option::of(0..3usize);
    let timeout = prop::option::of(1..8u64);
    let handling = (1..3usize, any::<bool>(), any::<bool>(), 1..3u32, 0..4u64, timeout);
    // At least the heaviest item.
    let weights = prop::option::of((3..8u64, prop::option::of(0..6u64)));
    (sizes, per_key, handling, weights).prop_map(|(sizes, per_key, rest, weights)| {
        let (max_keys, max_items, window, more) = sizes;
        let max_weight = weights.map(|(max, _)| max);
        let capacity_weight = weights.and_then(|(max, more)| Some(max + more?));
        let capacity = max_items + more;
        let (concurrency, eager, in_order, attempts, delay, timeout) = rest;
        Limits {
            max_keys,
            max_items,
            max_weight,
            capacity_weight,
            window,
            eager,
            capacity,
            per_key: per_key.map(|more| capacity.min(max_items + more)),
            concurrency,
            in_order,
            attempts,
            delay,
            timeout,
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    // More keys than the largest `max_keys`.
    let key = 0..6u8;
    prop_oneof![
        20 => key.clone().prop_map(Step::TrySend),
        30 => key.clone().prop_map(Step::Send),
        10 => key.clone().prop_map(Step::Reserve),
        8 => (0..1000usize).prop_map(Step::UseSlot),
        10 => (0..1000usize).prop_map(Step::Cancel),
        3 => Just(Step::Flush),
        6 => key.prop_map(Step::FlushKey),
        20 => (1..6u64).prop_map(Step::Advance),
        30 => (0..1000usize, prop::bool::weighted(0.75), prop::option::weighted(0.3, 0..1000usize))
            .prop_map(|(which, well, cancel)| Step::End { which, well, cancel }),
    ]
}

#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A future, and whether it was woken since it was last polled.
struct Polled<T> {
    future: Pin<Box<dyn Future<Output = T>>>,
    woken: Arc<Woken>,
    seen: u64,
    polls: u64,
}

impl<T> Polled<T> {
    fn new(future: impl Future<Output = T> + 'static) -> Self {
        let woken = Arc::new(Woken(AtomicU64::new(1)));
        Self { future: Box::pin(unconstrained(future)), woken, seen: 0, polls: 0 }
    }

    fn poll_if_woken(&mut self) -> Option<Poll<T>> {
        let wakes = self.woken.0.load(Ordering::Relaxed);
        if wakes == self.seen {
            return None;
        }
        self.seen = wakes;
        self.polls += 1;
        let waker = Waker::from(self.woken.clone());
        Some(self.future.as_mut().poll(&mut Context::from_waker(&waker)))
    }
}

enum Answer {
    Sent(Result<(), u32>),
    Flushed(Flushed),
}

/// A call of the handler, which ends when it is told to.
struct Call {
    batch: reference::Batch,
    number: u64,
    told: Mutex<(Option<bool>, Option<Waker>)>,
    dropped: AtomicBool,
}

struct Handling(Arc<Call>);

impl Future for Handling {
    type Output = Result<(), &'static str>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut told = self.0.told.lock().unwrap();
        told.1 = Some(cx.waker().clone());
        match told.0 {
            None => Poll::Pending,
            Some(true) => Poll::Ready(Ok(())),
            Some(false) => Poll::Ready(Err("as told")),
        }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.dropped.store(true, Ordering::Relaxed);
    }
}

/// What the holder of a slot is told.
#[derive(Default)]
struct Slot {
    held: bool,
    item: Option<u32>,
    waker: Option<Waker>,
}

struct Pair {
    batcher: KeyedBatcher<Key, u32>,
    driver: Polled<()>,
    calls: Arc<Mutex<Vec<Arc<Call>>>>,
    tasks: Vec<Option<Polled<Answer>>>,
    slots: BTreeMap<usize, Arc<Mutex<Slot>>>,
    sent: Vec<usize>,
    flushed: Vec<(usize, Flushed)>,
    reference: Reference,
    limits: Limits,
    next_item: u32,
    buried: Arc<AtomicU64>,
}

impl Pair {
    fn new(limits: Limits) -> Self {
        let calls: Arc<Mutex<Vec<Arc<Call>>>> = Arc::default();
        let buried: Arc<AtomicU64> = Arc::default();
        let mut retry =
            Retry::constant(limits.attempts, Duration::from_millis(limits.delay)).unwrap();
        if let Some(limit) = limits.timeout {
            retry =
                retry.into_builder().attempt_timeout(Duration::from_millis(limit)).build().unwrap();
        }
        let mut builder = Batcher::keyed(limits.max_keys)
            .max_items(limits.max_items)
            .window(Duration::from_millis(limits.window))
            .capacity(limits.capacity)
            .concurrency(limits.concurrency)
            .retry(retry)
            .dead_letter({
                let buried = buried.clone();
                move |_: &Key, items: Vec<u32>, _| {
                    buried.fetch_add(items.len() as u64, Ordering::Relaxed);
                }
            });
        if limits.eager {
            builder = builder.eager_when_idle();
        }
        if limits.in_order {
            builder = builder.in_order();
        }
        if let Some(max_weight) = limits.max_weight {
            builder = builder.max_weight(max_weight, |item| weight(*item));
        }
        if let Some(capacity_weight) = limits.capacity_weight {
            builder = builder.capacity_weight(capacity_weight);
        }
        if let Some(per_key) = limits.per_key {
            builder = builder.capacity_per_key(per_key);
        }
        let (batcher, driver): (_, Driver) = builder
            .build_with_driver({
                let calls = calls.clone();
                move |batch: KeyedBatch<Key, u32>| {
                    let seen = reference::Batch {
                        key: *batch.key(),
                        items: batch.as_slice().to_vec(),
                        attempt: batch.attempt(),
                        evicted: batch.sealed_by() == SealedBy::Evicted,
                    };
                    let call = Arc::new(Call {
                        batch: seen,
                        number: batch.id(),
                        told: Mutex::default(),
                        dropped: AtomicBool::new(false),
                    });
                    calls.lock().unwrap().push(call.clone());
                    let handling = Handling(call);
                    async move {
                        let result = handling.await;
                        drop(batch);
                        result
                    }
                }
            })
            .unwrap();
        Self {
            batcher,
            driver: Polled::new(driver),
            calls,
            tasks: Vec::new(),
            slots: BTreeMap::new(),
            sent: Vec::new(),
            flushed: Vec::new(),
            reference: Reference::new(limits),
            limits,
            next_item: 0,
            buried,
        }
    }

    fn item(&mut self) -> u32 {
        self.next_item += 1;
        self.next_item
    }

    fn start(&mut self, future: impl Future<Output = Answer> + 'static) -> usize {
        self.tasks.push(Some(Polled::new(future)));
        self.poll_task(self.tasks.len() - 1);
        self.tasks.len() - 1
    }

    fn poll_task(&mut self, task: usize) -> bool {
        let Some(polled) = &mut self.tasks[task] else { return false };
        match polled.poll_if_woken() {
            Some(Poll::Ready(answer)) => {
                self.tasks[task] = None;
                match answer {
                    Answer::Sent(sent) => {
                        sent.expect("it is not closed");
                        self.sent.push(task);
                    }
                    Answer::Flushed(report) => self.flushed.push((task, report)),
                }
                true
            }
            Some(Poll::Pending) => true,
            None => false,
        }
    }

    fn cancel_any(&mut self, which: usize) {
        let tasks: Vec<_> =
            (0..self.tasks.len()).filter(|task| self.tasks[*task].is_some()).collect();
        if !tasks.is_empty() {
            self.cancel(tasks[which % tasks.len()]);
        }
    }

    fn drive(&mut self) -> bool {
        let mut polled = false;
        while let Some(poll) = self.driver.poll_if_woken() {
            assert!(poll.is_pending());
            polled = true;
        }
        polled
    }

    fn cancel(&mut self, task: usize) {
        self.tasks[task] = None;
        self.slots.remove(&task);
        self.reference.cancel(task);
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::TrySend(key) => {
                let item = self.item();
                let accepted = self.batcher.try_send(key, item).is_ok();
                assert_eq!(accepted, self.reference.try_send(key, item), "accepted");
            }
            Step::Send(key) => {
                let (item, batcher) = (self.item(), self.batcher.clone());
                let task = self.start(async move {
                    let sent = batcher.send(key, item).await;
                    Answer::Sent(sent.map_err(|error| error.into_inner().1))
                });
                self.reference.send(task, key, item);
            }
            Step::Reserve(key) => {
                let (batcher, slot) = (self.batcher.clone(), Arc::new(Mutex::new(Slot::default())));
                self.slots.insert(self.tasks.len(), slot.clone());
                let task = self.start(async move {
                    let reserved = batcher.reserve(key).await.expect("it is not closed");
                    slot.lock().unwrap().held = true;
                    let item = poll_fn(|cx| {
                        let mut slot = slot.lock().unwrap();
                        slot.waker = Some(cx.waker().clone());
                        slot.item.map_or(Poll::Pending, Poll::Ready)
                    });
                    let sent = reserved.send(item.await);
                    Answer::Sent(sent.map_err(|error| error.into_inner().1))
                });
                self.reference.reserve(task, key);
            }
            Step::UseSlot(which) => {
                let held = self.reference.slots();
                if !held.is_empty() {
                    let (task, item) = (held[which % held.len()], self.item());
                    let slot = self.slots.remove(&task).unwrap();
                    let mut slot = slot.lock().unwrap();
                    slot.item = Some(item);
                    slot.waker.take().unwrap().wake();
                    drop(slot);
                    assert!(self.poll_task(task));
                    self.reference.use_slot(task, item);
                }
            }
            Step::Cancel(which) => self.cancel_any(which),
            Step::Flush => {
                let batcher = self.batcher.clone();
                let task = self.start(async move {
                    let report = batcher.flush().await;
                    let (delivered, failed) = (report.delivered, report.failed);
                    Answer::Flushed(Flushed { delivered, failed })
                });
                self.reference.flush(task, None);
            }
            Step::FlushKey(key) => {
                let batcher = self.batcher.clone();
                let task = self.start(async move {
                    let report = batcher.flush_key(&key).await;
                    let (delivered, failed) = (report.delivered, report.failed);
                    Answer::Flushed(Flushed { delivered, failed })
                });
                self.reference.flush(task, Some(key));
            }
            Step::Advance(ms) => {
                for _ in 0..ms {
                    let idle = self.reference.pending() == 0;
                    let polls = self.driver.polls;
                    tokio::time::advance(Duration::from_millis(1)).await;
                    self.reference.advance();
                    self.settle();
                    assert!(!idle || self.driver.polls == polls, "an empty batcher was woken");
                }
            }
            Step::End { which, well, cancel } => {
                if !self.reference.out.is_empty() {
                    let at = which % self.reference.out.len();
                    let call = self.calls.lock().unwrap().remove(at);
                    let waker = {
                        let mut told = call.told.lock().unwrap();
                        told.0 = Some(well);
                        told.1.take()
                    };
                    waker.expect("it was polled").wake();
                    self.reference.end(at, well);
                    if let Some(which) = cancel {
                        self.drive();
                        while self.reference.drive() {}
                        self.look();
                        self.cancel_any(which);
                    }
                }
            }
        }
        self.settle();
    }

    /// Compares what is with the handler.
    fn look(&mut self) {
        // Those whose time was up.
        self.calls.lock().unwrap().retain(|call| !call.dropped.load(Ordering::Relaxed));
        let calls: Vec<_> =
            self.calls.lock().unwrap().iter().map(|call| call.batch.clone()).collect();
        assert_eq!(calls, self.reference.out, "batches with the handler");
        for call in self.calls.lock().unwrap().iter() {
            self.reference.numbers.insert(call.batch.items[0], call.number);
        }
    }

    /// Lets both do what they can, and compares all that can be seen.
    fn settle(&mut self) {
        loop {
            let mut polled = self.drive();
            for task in 0..self.tasks.len() {
                polled |= self.poll_task(task);
            }
            if !polled {
                break;
            }
        }
        self.reference.run();
        self.look();
        self.sent.sort_unstable();
        self.reference.sent.sort_unstable();
        assert_eq!(self.sent, self.reference.sent, "senders that are through");
        self.flushed.sort_by_key(|(task, _)| *task);
        self.reference.flushed.sort_by_key(|(task, _)| *task);
        assert_eq!(self.flushed, self.reference.flushed, "flushes that are over");
        let stats = self.batcher.stats();
        assert_eq!(stats.accepted, stats.delivered + stats.failed + stats.pending);
        assert_eq!(stats.accepted, self.reference.accepted);
        assert_eq!(
            (stats.delivered, stats.failed),
            (self.reference.delivered, self.reference.failed)
        );
        assert_eq!(self.buried.load(Ordering::Relaxed), stats.failed);
        assert_eq!(stats.pending, self.reference.pending() as u64);
        assert_eq!(stats.pending_weight, self.reference.pending_weight());
        assert!(self.limits.max_weight.is_none_or(|most| stats.heaviest_batch <= most));
        assert!(self.limits.capacity_weight.is_none_or(|most| stats.pending_weight <= most));
        assert_eq!(stats.waiting_senders, self.reference.waiting());
        let held = self.slots.iter().filter(|(_, slot)| slot.lock().unwrap().held);
        let held: Vec<_> = held.map(|(task, _)| *task).collect();
        assert_eq!(held, self.reference.slots(), "slots that are held");
        assert_eq!(stats.keys, self.reference.keys());
        assert!(stats.peak_keys <= self.limits.max_keys, "keys are bounded");
        assert!(stats.peak_pending <= self.limits.capacity as u64);
    }
}

proptest! {
    #[test]
    fn it_does_what_the_reference_does(
        limits in limits(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new(limits);
            pair.settle();
            for step in &steps {
                pair.step(step).await;
            }
            // Everything ends: no sender waits for ever, no key is forgotten.
            pair.step(&Step::Flush).await;
            for _ in 0..500 {
                for slot in pair.reference.slots() {
                    pair.cancel(slot);
                }
                pair.settle();
                pair.step(&Step::End { which: 0, well: true, cancel: None }).await;
                pair.step(&Step::Advance(1)).await;
            }
            prop_assert_eq!(pair.reference.pending(), 0);
            prop_assert_eq!(pair.reference.waiting(), 0);
            Ok(())
        })?;
    }
}
