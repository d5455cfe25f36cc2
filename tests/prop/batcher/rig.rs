//! The batcher with its driver in hand: every future is polled only when it was woken, so that a
//! wake-up that is lost is a difference from the reference.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use sluicegate::batcher::{Batch, BatchError, Batcher, Driver, HandlerError};
use sluicegate::retry::GaveUp;
use sluicegate::{OwnedSemaphorePermit, Retry, RetryBudget, Semaphore};
use tokio::task::coop::{Unconstrained, unconstrained};

use super::reference::{Answer, Buried, Call, Figures, Limits, Verdict, Why, weight};

/// No `Clone`: what comes back is what went in.
pub(crate) struct Item(pub(crate) u32);

fn ids(items: Vec<Item>) -> Vec<u32> {
    items.into_iter().map(|item| item.0).collect()
}

/// When it was woken, in the order of all wake-ups; 0 if it was not since it was last polled.
struct Woken(AtomicU64);

static WAKE_UPS: AtomicU64 = AtomicU64::new(1);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        if self.0.load(Ordering::Relaxed) == 0 {
            self.0.store(WAKE_UPS.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// A future, and whether it was woken since it was last polled.
struct Polled<F> {
    future: F,
    woken: Arc<Woken>,
    wakes: u64,
}

impl<F: Future + Unpin> Polled<F> {
    fn new(future: F) -> Self {
        let woken = Arc::new(Woken(AtomicU64::new(WAKE_UPS.fetch_add(1, Ordering::Relaxed))));
        Self { future, woken, wakes: 0 }
    }

    /// When it was woken, if it was not polled since.
    fn woken_at(&self) -> Option<u64> {
        Some(self.woken.0.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }

    /// Whether it was polled, and what came of it.
    fn poll_if_woken(&mut self) -> Option<Poll<F::Output>> {
        if self.woken.0.swap(0, Ordering::Relaxed) == 0 {
            return None;
        }
        self.wakes += 1;
        let waker = Waker::from(self.woken.clone());
        Some(Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker)))
    }
}

/// One call of the handler, told from outside what to do.
struct Script {
    batch: u64,
    attempt: u32,
    state: Mutex<State>,
}

struct State {
    guard: Option<Batch<Item>>,
    verdict: Option<Verdict>,
    keep_guard: bool,
    waker: Option<Waker>,
}

struct Handling(Arc<Script>);

const REJECTED: &str = "rejected";

fn is_rejected(error: &HandlerError) -> bool {
    error.to_string() == REJECTED
}

impl Future for Handling {
    type Output = Result<(), String>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.state.lock().unwrap();
        match state.verdict {
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Verdict::Deliver) => Poll::Ready(Ok(())),
            Some(Verdict::Fail) => Poll::Ready(Err("as told".to_owned())),
            Some(Verdict::Reject) => Poll::Ready(Err(REJECTED.to_owned())),
            Some(Verdict::Panic) => {
                drop(state);
                resume_unwind(Box::new("as told"))
            }
            Some(Verdict::TimeOut) => unreachable!("nobody tells it so"),
        }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap();
        let guard = if state.keep_guard { None } else { state.guard.take() };
        drop(state);
        drop(guard);
    }
}

/// Without tokio's budget, which would hold up what nobody but the rig schedules.
type Task = Polled<Unconstrained<Pin<Box<dyn Future<Output = Answer>>>>>;

/// What a held slot is told.
type Order = Arc<Mutex<(Option<Option<u32>>, Option<Waker>)>>;

pub(crate) struct Rig {
    batcher: Option<Batcher<Item>>,
    driver: Option<Polled<Unconstrained<Driver>>>,
    tasks: Vec<Option<Task>>,
    orders: Vec<Option<Order>>,
    scripts: Arc<Mutex<Vec<Arc<Script>>>>,
    pub(crate) answers: Vec<(usize, Answer)>,
    buried: Arc<Mutex<Vec<Buried>>>,
    budget: Option<RetryBudget>,
    semaphore: Option<Arc<Semaphore>>,
    /// Permits that others hold.
    others: Vec<OwnedSemaphorePermit>,
}

impl Rig {
    pub(crate) fn new(limits: Limits) -> Self {
        let scripts: Arc<Mutex<Vec<Arc<Script>>>> = Arc::default();
        let buried: Arc<Mutex<Vec<Buried>>> = Arc::default();
        let handler = {
            let scripts = scripts.clone();
            move |batch: Batch<Item>| {
                let (number, attempt) = (batch.id(), batch.attempt());
                let state =
                    State { guard: Some(batch), verdict: None, keep_guard: false, waker: None };
                let script = Script { batch: number, attempt, state: Mutex::new(state) };
                let script = Arc::new(script);
                scripts.lock().unwrap().push(script.clone());
                Handling(script)
            }
        };
        let dead_letter = {
            let buried = buried.clone();
            move |items: Vec<Item>, why: BatchError| {
                let refused = why.gave_up() == Some(GaveUp::BudgetSpent);
                let why = match why {
                    BatchError::Failed { attempts, .. } => Why::Failed(attempts, refused),
                    BatchError::Panicked { attempts, .. } => Why::Panicked(attempts, refused),
                    BatchError::TimedOut { attempts, .. } => Why::TimedOut(attempts, refused),
                    BatchError::Unsent => Why::Unsent,
                    BatchError::Indeterminate => Why::Indeterminate,
                    other => unreachable!("{other}"),
                };
                buried.lock().unwrap().push((ids(items), why));
            }
        };
        let mut retry =
            Retry::constant(limits.attempts, Duration::from_millis(limits.delay)).unwrap();
        if let Some(limit) = limits.timeout {
            retry =
                retry.into_builder().attempt_timeout(Duration::from_millis(limit)).build().unwrap();
        }
        let budget = limits
            .budget
            .map(|(most, ratio)| RetryBudget::new(most, ratio as f64 / 1000.0).unwrap());
        if let Some(budget) = &budget {
            retry = retry.budget(budget);
        }
        let mut builder = Batcher::builder()
            .max_items(limits.max_items)
            .window(Duration::from_millis(limits.window))
            .capacity(limits.capacity)
            .concurrency(limits.concurrency)
            .dead_letter(dead_letter);
        builder = if limits.chooses {
            builder.retry(retry.when(|error| !is_rejected(error)))
        } else {
            builder.retry(retry)
        };
        if let Some(max_weight) = limits.max_weight {
            builder = builder.max_weight(max_weight, |item: &Item| weight(item.0));
        }
        if let Some(capacity) = limits.capacity_weight {
            builder = builder.capacity_weight(capacity);
        }
        if limits.eager {
            builder = builder.eager_when_idle();
        }
        let semaphore = limits.permits.map(|permits| Arc::new(Semaphore::new(permits)));
        if let Some(semaphore) = &semaphore {
            builder = builder.semaphore(semaphore.clone());
        }
        if limits.max_probes > 0 {
            builder = if limits.cuts_rejected {
                builder.isolate_poison_when(limits.max_probes, is_rejected)
            } else {
                builder.isolate_poison(limits.max_probes)
            };
        }
        let (batcher, driver) = builder.build_with_driver(handler).unwrap();
        Self {
            batcher: Some(batcher),
            driver: Some(Polled::new(unconstrained(driver))),
            tasks: Vec::new(),
            orders: Vec::new(),
            scripts,
            answers: Vec::new(),
            buried,
            budget,
            semaphore,
            others: Vec::new(),
        }
    }

    pub(crate) fn has_main_handle(&self) -> bool {
        self.batcher.is_some()
    }

    /// The number that the next task will have.
    pub(crate) fn next_task(&self) -> usize {
        self.tasks.len()
    }

    fn start(&mut self, order: Option<Order>, future: impl Future<Output = Answer> + 'static) {
        self.tasks.push(Some(Polled::new(unconstrained(Box::pin(future)))));
        self.orders.push(order);
        self.poll_task(self.tasks.len() - 1);
    }

    fn handle(&self) -> Batcher<Item> {
        self.batcher.clone().expect("the main handle is there")
    }

    pub(crate) fn try_send(&mut self, id: u32) -> bool {
        match self.handle().try_send(Item(id)) {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.into_inner().0, id);
                false
            }
        }
    }

    pub(crate) fn send(&mut self, id: u32) {
        let batcher = self.handle();
        self.start(None, async move {
            match batcher.send(Item(id)).await {
                Ok(()) => Answer::Accepted,
                Err(error) => Answer::Refused(Some(error.into_inner().0)),
            }
        });
    }

    pub(crate) fn send_many(&mut self, ids: &[u32]) {
        let batcher = self.handle();
        let mut items: VecDeque<_> = ids.iter().map(|id| Item(*id)).collect();
        self.start(None, async move {
            let sent = batcher.send_many(&mut items).await;
            assert_eq!(sent.is_ok(), items.is_empty());
            Answer::AcceptedMany(items.into_iter().map(|item| item.0).collect())
        });
    }

    pub(crate) fn take_permit(&mut self) -> bool {
        let permit =
            self.semaphore.clone().and_then(|semaphore| semaphore.try_acquire_owned().ok());
        let taken = permit.is_some();
        self.others.extend(permit);
        taken
    }

    pub(crate) fn give_permit(&mut self) -> bool {
        self.others.pop().is_some()
    }

    pub(crate) fn reserve(&mut self) {
        let batcher = self.handle();
        let order = Order::default();
        self.start(Some(order.clone()), async move {
            let Ok(slot) = batcher.reserve().await else { return Answer::Refused(None) };
            let told = poll_fn(|cx| {
                let mut order = order.lock().unwrap();
                order.1 = Some(cx.waker().clone());
                order.0.map_or(Poll::Pending, Poll::Ready)
            });
            match told.await {
                None => Answer::Dropped,
                Some(id) => match slot.send(Item(id)) {
                    Ok(()) => Answer::Accepted,
                    Err(error) => Answer::Refused(Some(error.into_inner().0)),
                },
            }
        });
    }

    pub(crate) fn use_slot(&mut self, task: usize, id: Option<u32>) {
        let waker = {
            let mut order = self.orders[task].as_ref().unwrap().lock().unwrap();
            order.0 = Some(id);
            order.1.take()
        };
        waker.expect("the slot was reserved").wake();
        self.poll_task(task);
    }

    pub(crate) fn flush(&mut self) {
        let batcher = self.handle();
        self.start(None, async move {
            let report = batcher.flush().await;
            Answer::Flushed {
                delivered: report.delivered,
                failed: report.failed,
                unsent: report.unsent,
                indeterminate: report.indeterminate,
            }
        });
    }

    pub(crate) fn shutdown(&mut self, deadline: Option<u64>) {
        let batcher = self.handle();
        self.start(None, async move {
            let report = batcher.shutdown(deadline.map(Duration::from_millis)).await;
            Answer::Ended {
                delivered: report.delivered,
                failed: report.failed,
                unsent: ids(report.unsent),
                indeterminate: ids(report.indeterminate),
                held: report.still_held,
            }
        });
    }

    pub(crate) fn cancel(&mut self, task: usize) {
        self.tasks[task] = None;
    }

    pub(crate) fn drop_main_handle(&mut self) {
        self.batcher = None;
    }

    pub(crate) fn drop_driver(&mut self) {
        self.driver = None;
    }

    fn script(&self, batch: u64) -> Arc<Script> {
        let scripts = self.scripts.lock().unwrap();
        scripts.iter().rfind(|script| script.batch == batch).unwrap().clone()
    }

    pub(crate) fn take(&mut self, batch: u64, n: usize) {
        let script = self.script(batch);
        let mut state = script.state.lock().unwrap();
        let _taken = state.guard.as_mut().unwrap().drain(..n);
    }

    pub(crate) fn end(&mut self, batch: u64, verdict: Verdict, keep_guard: bool) {
        let script = self.script(batch);
        let waker = {
            let mut state = script.state.lock().unwrap();
            state.verdict = Some(verdict);
            state.keep_guard |= keep_guard;
            state.waker.take()
        };
        waker.expect("the handler was polled").wake();
    }

    /// The handler gives its guard to another.
    pub(crate) fn give_guard(&mut self, batch: u64) {
        self.script(batch).state.lock().unwrap().keep_guard = true;
    }

    pub(crate) fn tokens(&self) -> u32 {
        self.budget.as_ref().map_or(0, RetryBudget::tokens)
    }

    pub(crate) fn return_guard(&mut self, batch: u64) {
        let guard = self.script(batch).state.lock().unwrap().guard.take();
        drop(guard.expect("it is away"));
    }

    /// Polls whoever was woken, the driver first, until nobody is.
    pub(crate) fn run(&mut self) {
        for _ in 0..10_000 {
            let mut polled = false;
            if let Some(driver) = &mut self.driver {
                match driver.poll_if_woken() {
                    Some(Poll::Ready(())) => self.driver = None,
                    Some(Poll::Pending) => polled = true,
                    None => {}
                }
            }
            // In the order in which they were woken, as a runtime would.
            let woken =
                |(number, task): (usize, &Option<Task>)| Some((task.as_ref()?.woken_at()?, number));
            let mut tasks: Vec<_> = self.tasks.iter().enumerate().filter_map(woken).collect();
            tasks.sort_unstable();
            for (_, task) in tasks {
                polled |= self.poll_task(task);
            }
            if !polled {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn poll_task(&mut self, number: usize) -> bool {
        let Some(task) = &mut self.tasks[number] else { return false };
        match task.poll_if_woken() {
            Some(Poll::Ready(answer)) => {
                self.answers.push((number, answer));
                self.tasks[number] = None;
                true
            }
            Some(Poll::Pending) => true,
            None => false,
        }
    }

    pub(crate) fn driver_polls(&self) -> Option<u64> {
        self.driver.as_ref().map(|driver| driver.wakes)
    }

    pub(crate) fn driver_is_done(&self) -> bool {
        self.driver.is_none()
    }

    pub(crate) fn buried(&self) -> Vec<Buried> {
        self.buried.lock().unwrap().clone()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        let mut calls = Vec::new();
        for script in self.scripts.lock().unwrap().iter() {
            let state = script.state.lock().unwrap();
            if let Some(guard) = &state.guard {
                let items = guard.iter().map(|item| item.0).collect();
                calls.push(Call { batch: script.batch, attempt: script.attempt, items });
            }
        }
        calls.sort();
        calls
    }

    pub(crate) fn figures(&self) -> Option<Figures> {
        let stats = self.batcher.as_ref()?.stats();
        let equation =
            stats.delivered + stats.failed + stats.unsent + stats.indeterminate + stats.pending;
        assert_eq!(stats.accepted, equation, "{stats:?}");
        let batches = stats.batches;
        Some(Figures {
            accepted: stats.accepted,
            delivered: stats.delivered,
            failed: stats.failed,
            unsent: stats.unsent,
            indeterminate: stats.indeterminate,
            pending: stats.pending,
            peak_pending: stats.peak_pending,
            waiting_senders: stats.waiting_senders,
            pending_weight: stats.pending_weight,
            closed: [
                batches.count,
                batches.weight,
                batches.window,
                batches.idle,
                batches.flush,
                batches.shutdown,
            ],
            batched_items: stats.batched_items,
            batched_weight: stats.batched_weight,
            largest_batch: stats.largest_batch,
            heaviest_batch: stats.heaviest_batch,
            retries: stats.retries,
            handed_over: stats.handed_over,
            total_age: stats.total_age.as_millis() as u64,
            oldest_handed_over: stats.oldest_handed_over.as_millis() as u64,
        })
    }
}
