//! The one task of a batcher: it owns the handlers and the timer, and does what the core says.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
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
    attempts: Vec<Attempt<T, F>>,
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
        Self { shared, handler, retry, timer, attempts: Vec::new() }
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
        // Backwards, because one that is concluded makes way for the last.
        for index in (0..this.attempts.len()).rev() {
            this.poll_attempt(index, cx);
        }
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
                    if let Some(index) = this.attempts.iter().position(|a| a.job.id == id) {
                        this.conclude(index);
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
    fn begin(&mut self, mut job: Job<T>, cx: &mut Context<'_>) {
        let batch = Batch::new(&mut job, Arc::clone(&self.shared));
        let index = self.attempts.len();
        match caught(|| (self.handler)(batch)) {
            Ok(future) => {
                let state = State::Running(Box::pin(future));
                self.attempts.push(Attempt { job, state });
                self.poll_attempt(index, cx);
            }
            Err(panic) => {
                let panicked = BatchError::Panicked { panic, attempts: job.attempts };
                self.attempts.push(Attempt { job, state: State::Ended(Err(panicked)) });
                self.conclude(index);
            }
        }
    }

    fn poll_attempt(&mut self, index: usize, cx: &mut Context<'_>) {
        let Attempt { job, state } = &mut self.attempts[index];
        let State::Running(future) = state else { return };
        let attempts = job.attempts;
        let ended = match caught(|| future.as_mut().poll(cx).map_err(Into::into)) {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(Ok(()))) => Ok(()),
            Ok(Poll::Ready(Err(error))) => Err(BatchError::Failed { error, attempts }),
            Err(panic) => Err(BatchError::Panicked { panic, attempts }),
        };
        // The guard may live in the future: it must be back before it is asked for.
        let future = mem::replace(state, State::Ended(ended));
        quietly(|| drop(future));
        self.conclude(index);
    }

    /// The handler of an attempt is done: finishes the batch or tries it again, if its guard is
    /// back; else `Next::Returned` will tell.
    fn conclude(&mut self, index: usize) {
        let id = self.attempts[index].job.id;
        let Some((handed, mut left)) = self.shared.reclaim(id) else { return };
        let Attempt { mut job, state } = self.attempts.swap_remove(index);
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
    }

    /// The wait before the next attempt, unless this was the last.
    fn next_delay(&self, job: &mut Job<T>) -> Option<Duration> {
        let delays = &mut job.delays;
        caught(|| delays.get_or_insert_with(|| self.retry.delays()).next()).ok().flatten()
    }
}

impl<T, H, F, C> Drop for Run<T, H, F, C> {
    fn drop(&mut self) {
        self.drop_attempts();
        self.shared.abandon();
    }
}
