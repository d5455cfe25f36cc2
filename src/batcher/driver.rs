//! The one task of a batcher: it owns the handlers and the timer, and does what the core says.

use core::fmt;
use core::future::Future;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::core::{Handed, Job, Next};
use super::place::Place;
use super::shared::Shared;
use crate::settled::{caught, quietly};
use crate::{OwnedSemaphorePermit, PollSemaphore, Retry, Semaphore};

/// Batches begun in one poll before the driver lets the other tasks of its thread have a turn.
const BATCHES_PER_POLL: usize = 32;

/// A clock and one alarm.
pub(crate) trait Timer {
    fn now() -> Instant;

    /// Ready when `at` has come, or earlier; without one the alarm is off and nothing is woken.
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

/// What happens to a batch that fails.
#[derive(Debug, Clone)]
pub(crate) struct Failing {
    pub(crate) retry: Retry,
    /// How many handler calls may be made to find the items that make it fail.
    pub(crate) max_probes: u32,
}

pub(crate) struct Run<T, H, F, C> {
    shared: Arc<Shared<T>>,
    handler: H,
    failing: Failing,
    timer: C,
    /// By the numbers that the core gives them.
    places: Vec<Place<F>>,
    /// Those whose handler is not done, in the order in which they are polled.
    running: VecDeque<usize>,
    /// Those whose handler is, and of which the core does not know yet.
    handled: Vec<(usize, bool)>,
    /// Each place in the handler takes a permit of it.
    semaphore: Option<PollSemaphore>,
    permit: Option<OwnedSemaphorePermit>,
    waker: Option<Waker>,
}

impl<T, H, F, C> Run<T, H, F, C> {
    pub(crate) fn new(
        shared: Arc<Shared<T>>,
        handler: H,
        failing: Failing,
        semaphore: Option<Arc<Semaphore>>,
        timer: C,
    ) -> Self {
        Self {
            shared,
            handler,
            failing,
            timer,
            places: Vec::new(),
            running: VecDeque::new(),
            handled: Vec::new(),
            semaphore: semaphore.map(PollSemaphore::new),
            permit: None,
            waker: None,
        }
    }

    fn drop_handlers(&mut self) {
        self.running.clear();
        self.handled.clear();
        for mut place in self.places.drain(..) {
            place.clear();
            quietly(|| drop(place));
        }
    }

    /// Gives up the place in line for a permit, or the permit that nothing is to be done with.
    fn leave_the_semaphore(&mut self) {
        let left = (self.semaphore.take(), self.permit.take());
        quietly(|| drop(left));
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
        this.poll_running(cx);
        let mut begun = 0;
        loop {
            match this.next(cx) {
                Next::Run(handed) => {
                    this.begin(handed, cx);
                    begun += 1;
                    if begun == BATCHES_PER_POLL {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Next::Returned { place, handed, job } => this.conclude(place, handed, job),
                Next::Sleep { until, wants_permit } => {
                    if wants_permit {
                        match this.poll_permit(cx) {
                            Poll::Ready(true) => continue,
                            Poll::Ready(false) => {
                                // Nobody will be given a permit any more.
                                this.drop_handlers();
                                this.shared.abandon();
                                return Poll::Ready(());
                            }
                            Poll::Pending => {}
                        }
                    }
                    if this.timer.poll_alarm(until, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Next::Stop => {
                    this.leave_the_semaphore();
                    this.drop_handlers();
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
    fn next(&mut self, cx: &mut Context<'_>) -> Next<T> {
        // Kept from one sleep to the next where it can be, and cloned outside the lock.
        match &self.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => self.waker = Some(cx.waker().clone()),
        }
        self.shared.next(&mut self.handled, self.permit.is_some(), &mut self.waker)
    }

    /// Whether there is a permit; never, if the semaphore is closed.
    fn poll_permit(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(semaphore) = &mut self.semaphore else { return Poll::Ready(false) };
        semaphore.poll_acquire(cx).map(|permit| {
            self.permit = permit;
            self.permit.is_some()
        })
    }

    /// Polls each attempt once. The first goes behind all others: where the task's budget is
    /// spent within a poll, as tokio's may be, each comes to the front in its turn.
    fn poll_running(&mut self, cx: &mut Context<'_>) {
        let Some(first) = self.running.pop_front() else { return };
        let first_goes_on = self.poll_place(first, cx);
        for _ in 0..self.running.len() {
            let Some(place) = self.running.pop_front() else { break };
            if self.poll_place(place, cx) {
                self.running.push_back(place);
            }
        }
        if first_goes_on {
            self.running.push_back(first);
        }
    }

    fn begin(&mut self, handed: Handed<T>, cx: &mut Context<'_>) {
        let (place, attempt) = (handed.place, handed.attempt);
        while self.places.len() <= place {
            self.places.push(Place::new());
        }
        self.places[place].permit = self.permit.take();
        let batch = Batch::new(handed, Arc::clone(&self.shared));
        let handler = &self.handler;
        self.places[place].begin(attempt, || handler(batch));
        if self.poll_place(place, cx) {
            self.running.push_back(place);
        }
    }

    /// Whether the handler goes on.
    fn poll_place(&mut self, place: usize, cx: &mut Context<'_>) -> bool {
        match self.places[place].poll(cx) {
            Poll::Pending => true,
            Poll::Ready(well) => {
                self.handled.push((place, well));
                false
            }
        }
    }

    /// The handler of a batch is done and its guard is back: finishes the batch, or has it go on
    /// later with those of the `handed` items that are left.
    fn conclude(&mut self, at: usize, handed: usize, mut job: Job<T>) {
        let place = &mut self.places[at];
        let end = place.take_end();
        let permit = place.permit.take();
        let left = job.items.len();
        match end {
            Err(error) if left > 0 => {
                let delivered = handed - left;
                if let Some(delay) = self.next_delay(&mut job) {
                    quietly(|| drop(error));
                    self.shared.go_on(at, job, C::now() + delay, (delivered, 0));
                } else if self.split(&mut job) {
                    quietly(|| drop(error));
                    self.shared.go_on(at, job, C::now(), (delivered, 0));
                } else {
                    self.shared.bury(mem::take(&mut job.items), error);
                    self.finish_part(at, job, Vec::new(), (delivered, left));
                }
            }
            end => {
                quietly(|| drop(end));
                // The items' destructors run here, before anybody learns that they are delivered.
                let mut emptied = mem::take(&mut job.items);
                quietly(|| emptied.clear());
                self.finish_part(at, job, emptied, (handed, 0));
            }
        }
        quietly(|| drop(permit));
    }

    /// The wait before the next attempt, unless this was the last. A policy that panics has none.
    fn next_delay(&self, job: &mut Job<T>) -> Option<Duration> {
        if job.probes.is_some() {
            return None;
        }
        let delays = &mut job.delays;
        match caught(|| delays.get_or_insert_with(|| self.failing.retry.delays()).next()) {
            Ok(delay) => delay,
            Err(panic) => {
                quietly(|| drop(panic));
                None
            }
        }
    }

    /// Cuts what failed in two, to be tried one after the other, if that is asked for and may help.
    fn split(&self, job: &mut Job<T>) -> bool {
        let probes = job.probes.get_or_insert(self.failing.max_probes);
        // One for each half, so that a part that was cut off is sure to be tried.
        if *probes < 2 || job.items.len() < 2 {
            return false;
        }
        *probes -= 2;
        let half = job.items.len().div_ceil(2);
        job.parts.push(job.items.split_off(half));
        true
    }

    /// The batch is finished, or goes on with its next part.
    fn finish_part(&self, at: usize, mut job: Job<T>, emptied: Vec<T>, ended: (usize, usize)) {
        match job.parts.pop() {
            Some(part) => {
                job.items = part;
                self.shared.go_on(at, job, C::now(), ended);
            }
            None => {
                let weight = job.weight;
                quietly(|| drop(job));
                self.shared.settle(at, weight, ended, emptied);
            }
        }
    }
}

impl<T, H, F, C> Drop for Run<T, H, F, C> {
    fn drop(&mut self) {
        self.drop_handlers();
        self.leave_the_semaphore();
        self.shared.abandon();
    }
}
