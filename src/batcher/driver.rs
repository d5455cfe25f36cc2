//! The one task of a batcher: it owns the handlers and the timer, and does what the core says.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::VecDeque;
use std::error::Error;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::core::{Job, Next};
use super::error::BatchError;
use super::shared::Shared;
use crate::Retry;
use crate::settled::{caught, quietly};

/// Batches begun in one poll before the driver lets the other tasks of its thread have a turn.
const BATCHES_PER_POLL: usize = 32;

/// A clock and one alarm.
pub(crate) trait Timer {
    fn now() -> Instant;

    /// Ready when `at` has come; without one the alarm is off and nothing is woken.
    fn poll_alarm(&mut self, at: Option<Instant>, cx: &mut Context<'_>) -> Poll<()>;
}

/// The future that runs a batcher, for those who spawn it themselves.
///
/// It ends when the batcher was shut down, or its last handle dropped, and all is finished. It
/// must be polled for anything to be handed over; dropped before its end, it gives all that is
/// pending to the dead letter. It needs tokio's timers.
///
/// Made by [`Builder::build_with_driver`](super::Builder::build_with_driver).
#[must_use = "nothing is handed to the handler unless the driver is polled: spawn it"]
pub struct Driver(pub(crate) Pin<Box<dyn Future<Output = ()> + Send>>);

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

pub(crate) struct Run<T, H, F, C> {
    shared: Arc<Shared<T>>,
    handler: H,
    retry: Retry,
    timer: C,
    /// In the order in which they are polled.
    attempts: VecDeque<Attempt<T, F>>,
}

/// One batch in the handler. The job's items are in the guard.
struct Attempt<T, F> {
    job: Job<T>,
    state: State<F>,
}

enum State<F> {
    Running(Pin<Box<F>>),
    /// The handler is done; its guard may still be about.
    Ended(Result<(), BatchError>),
}

impl<T, H, F, C> Run<T, H, F, C> {
    pub(crate) fn new(shared: Arc<Shared<T>>, handler: H, retry: Retry, timer: C) -> Self {
        Self { shared, handler, retry, timer, attempts: VecDeque::new() }
    }

    fn drop_attempts(&mut self) {
        for attempt in self.attempts.drain(..) {
            quietly(|| drop(attempt));
        }
    }
}

// Nothing in it is pinned in place: the handlers' futures are boxed.
impl<T, H, F, C> Unpin for Run<T, H, F, C> {}

impl<T, H, F, E, C> Future for Run<T, H, F, C>
where
    H: Fn(Batch<T>) -> F,
    F: Future<Output = Result<(), E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
    C: Timer,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.poll_attempts(cx);
        let mut begun = 0;
        loop {
            match this.shared.next(cx.waker()) {
                Next::Run(job) => {
                    this.begin(job, cx);
                    begun += 1;
                    if begun == BATCHES_PER_POLL {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Next::Returned(id) => {
                    let index = this.attempts.iter().position(|a| a.job.id == id);
                    if let Some(attempt) = index.and_then(|index| this.attempts.remove(index)) {
                        let attempt = this.conclude(attempt);
                        this.attempts.extend(attempt);
                    }
                }
                Next::Sleep(until) => {
                    if this.timer.poll_alarm(until, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Next::Stop => {
                    this.drop_attempts();
                    this.shared.stop();
                }
                Next::Done => return Poll::Ready(()),
            }
        }
    }
}

impl<T, H, F, E, C> Run<T, H, F, C>
where
    H: Fn(Batch<T>) -> F,
    F: Future<Output = Result<(), E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
    C: Timer,
{
    /// Polls each attempt once. The first goes behind all others: where the task's budget is
    /// spent within a poll, as tokio's may be, each comes to the front in its turn.
    fn poll_attempts(&mut self, cx: &mut Context<'_>) {
        let Some(first) = self.attempts.pop_front() else { return };
        let first = self.poll_attempt(first, cx);
        for _ in 0..self.attempts.len() {
            let next = self.attempts.pop_front();
            let next = next.and_then(|attempt| self.poll_attempt(attempt, cx));
            self.attempts.extend(next);
        }
        self.attempts.extend(first);
    }

    fn begin(&mut self, mut job: Job<T>, cx: &mut Context<'_>) {
        let batch = Batch::new(&mut job, Arc::clone(&self.shared));
        let unfinished = match caught(|| (self.handler)(batch)) {
            Ok(future) => {
                let state = State::Running(Box::pin(future));
                self.poll_attempt(Attempt { job, state }, cx)
            }
            Err(panic) => {
                let panicked = BatchError::Panicked { panic, attempts: job.attempts };
                self.conclude(Attempt { job, state: State::Ended(Err(panicked)) })
            }
        };
        self.attempts.extend(unfinished);
    }

    /// Gives the attempt back unless it is over.
    fn poll_attempt(
        &mut self,
        mut attempt: Attempt<T, F>,
        cx: &mut Context<'_>,
    ) -> Option<Attempt<T, F>> {
        let State::Running(future) = &mut attempt.state else { return Some(attempt) };
        let attempts = attempt.job.attempts;
        let ended = match caught(|| future.as_mut().poll(cx).map_err(Into::into)) {
            Ok(Poll::Pending) => return Some(attempt),
            Ok(Poll::Ready(Ok(()))) => Ok(()),
            Ok(Poll::Ready(Err(error))) => Err(BatchError::Failed { error, attempts }),
            Err(panic) => Err(BatchError::Panicked { panic, attempts }),
        };
        // The guard may live in the future: it must be back before it is asked for.
        let future = mem::replace(&mut attempt.state, State::Ended(ended));
        quietly(|| drop(future));
        self.conclude(attempt)
    }

    /// The handler of an attempt is done: finishes the batch or tries it again, if its guard is
    /// back; else gives the attempt back, and `Next::Returned` will tell.
    fn conclude(&mut self, attempt: Attempt<T, F>) -> Option<Attempt<T, F>> {
        let id = attempt.job.id;
        let Some((handed, mut left)) = self.shared.reclaim(id) else { return Some(attempt) };
        let Attempt { mut job, state } = attempt;
        match state {
            State::Ended(Err(error)) if !left.is_empty() => {
                let delivered = handed - left.len();
                match self.next_delay(&mut job) {
                    Some(delay) => {
                        job.items = left;
                        self.shared.retry(job, C::now() + delay, delivered);
                        quietly(|| drop(error));
                    }
                    None => {
                        quietly(|| drop(job));
                        let failed = left.len();
                        self.shared.bury(left, error);
                        self.shared.settle(id, delivered, failed, Vec::new());
                    }
                }
            }
            state => {
                quietly(|| drop((state, job)));
                // The items' destructors run here, before anybody learns that they are delivered.
                quietly(|| left.clear());
                self.shared.settle(id, handed, 0, left);
            }
        }
        None
    }

    /// The wait before the next attempt, unless this was the last. A policy that panics has none.
    fn next_delay(&self, job: &mut Job<T>) -> Option<Duration> {
        let delays = &mut job.delays;
        match caught(|| delays.get_or_insert_with(|| self.retry.delays()).next()) {
            Ok(delay) => delay,
            Err(panic) => {
                quietly(|| drop(panic));
                None
            }
        }
    }
}

impl<T, H, F, C> Drop for Run<T, H, F, C> {
    fn drop(&mut self) {
        self.drop_attempts();
        self.shared.abandon();
    }
}
