//! The one task of a batcher: it owns the handlers and the timer, and does what the core says.

use core::fmt;
use core::future::Future;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::core::{Handed, Job, Next};
use super::exchange::Exchange;
use super::lanes::Lanes;
use super::place::Place;
use super::setback::{Failing, Then};
use super::shared::{Home, Shared};
use crate::base::panic::quietly;
use crate::{OwnedSemaphorePermit, PollSemaphore, Semaphore};

/// Batches begun in one poll before the driver lets the other tasks of its thread have a turn.
const BATCHES_PER_POLL: usize = 32;

/// How long the driver goes on by itself: what it finishes makes room for senders when it is done.
const FLOW: Duration = Duration::from_micros(50);

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

pub(crate) struct Run<T, L: Lanes<T>, H, F, C> {
    shared: Arc<Shared<T, L>>,
    /// The same, as the guards know it.
    home: Arc<dyn Home<T>>,
    handler: H,
    failing: Failing,
    timer: C,
    /// By the numbers that the core gives them.
    places: Vec<Place<F>>,
    /// Those whose handler is not done, in the order in which they are polled.
    running: VecDeque<usize>,
    exchange: Exchange<T, L::Tag>,
    /// Each place in the handler takes a permit of it.
    semaphore: Option<PollSemaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<T, L: Lanes<T>, H, F, C> Run<T, L, H, F, C> {
    pub(crate) fn new(
        shared: Arc<Shared<T, L>>,
        home: Arc<dyn Home<T>>,
        handler: H,
        failing: Failing,
        semaphore: Option<Arc<Semaphore>>,
        timer: C,
    ) -> Self {
        Self {
            shared,
            home,
            handler,
            failing,
            timer,
            places: Vec::new(),
            running: VecDeque::new(),
            exchange: Exchange::new(),
            semaphore: semaphore.map(PollSemaphore::new),
            permit: None,
        }
    }

    fn drop_handlers(&mut self) {
        self.running.clear();
        self.exchange.handled.clear();
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
impl<T, L: Lanes<T>, H, F, C> Unpin for Run<T, L, H, F, C> {}

impl<T, L, H, F, E, C> Future for Run<T, L, H, F, C>
where
    L: Lanes<T>,
    H: Fn(L::Guard) -> F,
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
                Next::Run { handed, flows } => {
                    let place = handed.place;
                    let over = this.begin(handed, cx);
                    begun += 1;
                    if over && flows {
                        this.flow(place, &mut begun, cx);
                    }
                    if begun == BATCHES_PER_POLL || this.shared.limits().eager_when_idle {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Next::Overdue { place } => this.end_attempt(place, cx),
                Next::Returned { place, handed, job } => this.conclude(place, handed, job),
                Next::Sleep { until, wants_permit } => {
                    if wants_permit {
                        match this.poll_permit(cx) {
                            Poll::Ready(true) => continue,
                            Poll::Ready(false) => {
                                // Nobody will be given a permit any more.
                                this.drop_handlers();
                                this.shared.abandon(&mut this.exchange);
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
                    this.shared.stop(&mut this.exchange);
                }
                Next::Done => return Poll::Ready(()),
            }
        }
    }
}

impl<T, L, H, F, E, C> Run<T, L, H, F, C>
where
    L: Lanes<T>,
    H: Fn(L::Guard) -> F,
    F: Future<Output = Result<(), E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
    C: Timer,
{
    fn next(&mut self, cx: &mut Context<'_>) -> Next<T, L::Tag> {
        // Kept from one sleep to the next where it can be, and cloned outside the lock.
        let waker = &mut self.exchange.waker;
        match waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
        self.shared.next(&mut self.exchange, self.permit.is_some())
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
        let first_goes_on = self.poll_place(first, cx).is_pending();
        for _ in 0..self.running.len() {
            let Some(place) = self.running.pop_front() else { break };
            if self.poll_place(place, cx).is_pending() {
                self.running.push_back(place);
            }
        }
        if first_goes_on {
            self.running.push_back(first);
        }
    }

    /// Begins the batches that are ahead, as long as each is finished at once, and well.
    fn flow(&mut self, mut place: usize, begun: &mut usize, cx: &mut Context<'_>) {
        let until = C::now() + FLOW;
        while *begun < BATCHES_PER_POLL {
            let now = C::now();
            if now >= until {
                return;
            }
            let Some(handed) = self.exchange.ahead.pop_front() else { return };
            self.exchange.begun.push((handed.place, now));
            // The next one has its future in the same box.
            while self.places.len() <= handed.place {
                self.places.push(Place::new());
            }
            self.places.swap(place, handed.place);
            place = handed.place;
            *begun += 1;
            if !self.begin(handed, cx) {
                return;
            }
        }
    }

    /// Whether it is over already: the handler done, and well, and its guard back.
    fn begin(&mut self, handed: Handed<T, L::Tag>, cx: &mut Context<'_>) -> bool {
        let place = handed.place;
        while self.places.len() <= place {
            self.places.push(Place::new());
        }
        self.places[place].permit = self.permit.take();
        let (batch, tag) = Batch::new(handed, Arc::clone(&self.home));
        let batch = L::guard(batch, tag);
        let handler = &self.handler;
        self.places[place].begin(|| handler(batch));
        match self.poll_place(place, cx) {
            Poll::Ready(over) => over,
            Poll::Pending => {
                self.running.push_back(place);
                false
            }
        }
    }

    /// Ready when the handler is done: whether it is well, and its guard is back.
    fn poll_place(&mut self, place: usize, cx: &mut Context<'_>) -> Poll<bool> {
        let well = ready!(self.places[place].poll(cx));
        self.exchange.handled.push((place, well));
        if !well {
            return Poll::Ready(false);
        }
        self.failing.succeeded();
        self.shared.fetch(&mut self.exchange.backs);
        let Some(back) = self.exchange.backs.last_mut() else { return Poll::Ready(false) };
        if back.place != place {
            return Poll::Ready(false);
        }
        // Delivered; the items' destructors run here, before anybody learns that they are.
        quietly(|| back.items.clear());
        Poll::Ready(true)
    }

    /// An attempt has run out of time: what is ready by now counts, and the rest is dropped.
    fn end_attempt(&mut self, place: usize, cx: &mut Context<'_>) {
        if self.poll_place(place, cx).is_pending() {
            self.places[place].time_out();
            self.exchange.handled.push((place, false));
        }
        if let Some(at) = self.running.iter().position(|running| *running == place) {
            self.running.remove(at);
        }
    }

    /// The handler of a batch is done and its guard is back: finishes the batch, or has it go on
    /// later with those of the `handed` items that are left.
    fn conclude(&mut self, at: usize, handed: usize, mut job: Job<T, L::Tag>) {
        let place = &mut self.places[at];
        let end = place.take_end();
        let permit = place.permit.take();
        let left = job.items.len();
        match end {
            Err(failure) if left > 0 => {
                let delivered = handed - left;
                let setback = job.setback.get_or_insert_default();
                let due = match self.failing.next(setback, &failure, handed, left) {
                    Then::TryAgain(wait) => C::now() + wait,
                    Then::Split => {
                        job.parts.push(job.items.split_off(left.div_ceil(2)));
                        C::now()
                    }
                    Then::Bury(gave_up) => {
                        let why = self.failing.error(failure, setback, job.attempts, gave_up);
                        self.shared.bury(&job.tag, mem::take(&mut job.items), why);
                        self.finish_part(at, job, Vec::new(), (delivered, left));
                        return quietly(|| drop(permit));
                    }
                };
                setback.note(failure);
                self.shared.go_on(at, job, due, (delivered, 0));
            }
            end => {
                quietly(|| drop(end));
                if let Some(setback) = &mut job.setback {
                    setback.delivered();
                }
                // The items' destructors run here, before anybody learns that they are delivered.
                let mut emptied = mem::take(&mut job.items);
                quietly(|| emptied.clear());
                self.finish_part(at, job, emptied, (handed, 0));
            }
        }
        quietly(|| drop(permit));
    }

    /// The batch is finished, or goes on with its next part.
    fn finish_part(
        &self,
        at: usize,
        mut job: Job<T, L::Tag>,
        emptied: Vec<T>,
        ended: (usize, usize),
    ) {
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

impl<T, L: Lanes<T>, H, F, C> Drop for Run<T, L, H, F, C> {
    fn drop(&mut self) {
        self.drop_handlers();
        self.leave_the_semaphore();
        self.shared.abandon(&mut self.exchange);
    }
}
