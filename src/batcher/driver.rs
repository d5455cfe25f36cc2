//! The one task of a batcher: it owns the handlers and the timer, and does what the core says.

use core::fmt;
use core::future::Future;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use super::batch::Batch;
use super::buffers::Buffers;
use super::core::Next;
use super::driver_buffers::DriverBuffers;
use super::failure_state::{Failing, Then};
use super::handler_slot::HandlerSlot;
use super::job::{Handed, Job, ReturnItems};
use super::shared::Shared;
use crate::base::panic::quietly;
use crate::base::timer::{Timer, now};
use crate::{OwnedSemaphorePermit, PollSemaphore, Semaphore};

/// Batches begun in one poll before the driver lets the other tasks of its thread have a turn.
const BATCHES_PER_POLL: usize = 32;

/// How long the driver goes on by itself: what it finishes makes room for senders when it is done.
const FLOW: Duration = Duration::from_micros(50);

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

/// What the driver is built with, besides the handler.
pub(crate) struct Driven<T> {
    pub(crate) failing: Failing,
    pub(crate) semaphore: Option<Arc<Semaphore>>,
    pub(crate) delivered: Option<Box<Delivered<T>>>,
}

pub(crate) type Delivered<T> = dyn Fn(T) + Send + Sync;

/// Parts with delivered items, before they are reported as such. Runs the user's code.
#[inline]
fn hand_over<T>(delivered: &Option<Box<Delivered<T>>>, items: &mut Vec<T>) {
    match delivered {
        None => quietly(|| items.clear()),
        Some(take) => items.drain(..).for_each(|item| quietly(|| take(item))),
    }
}

pub(crate) struct Run<T, L: Buffers<T>, H, F> {
    shared: Arc<Shared<T, L>>,
    /// The same, as the guards know it.
    origin: Arc<dyn ReturnItems<T>>,
    handler: H,
    failing: Failing,
    delivered: Option<Box<Delivered<T>>>,
    timer: Timer,
    /// By the numbers that the core gives them.
    slots: Vec<HandlerSlot<F>>,
    /// Those whose handler is not done, in the order in which they are polled.
    running: VecDeque<usize>,
    driver_buffers: DriverBuffers<T, L::Tag>,
    /// Each slot in the handler takes a permit of it.
    semaphore: Option<PollSemaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<T, L: Buffers<T>, H, F> Run<T, L, H, F> {
    pub(crate) fn new(
        shared: Arc<Shared<T, L>>,
        origin: Arc<dyn ReturnItems<T>>,
        handler: H,
        driven: Driven<T>,
    ) -> Self {
        let Driven { failing, semaphore, delivered } = driven;
        Self {
            shared,
            origin,
            handler,
            failing,
            delivered,
            timer: Timer::new(),
            slots: Vec::new(),
            running: VecDeque::new(),
            driver_buffers: DriverBuffers::new(),
            semaphore: semaphore.map(PollSemaphore::new),
            permit: None,
        }
    }

    fn drop_handlers(&mut self) {
        self.running.clear();
        self.driver_buffers.handled.clear();
        for mut slot in self.slots.drain(..) {
            slot.clear();
            quietly(|| drop(slot));
        }
    }

    /// Gives up the place in the wait list for a permit, or the permit that nothing is to be done with.
    fn leave_the_semaphore(&mut self) {
        let left = (self.semaphore.take(), self.permit.take());
        quietly(|| drop(left));
    }
}

// Nothing in it is pinned in place: the handlers' futures are boxed.
impl<T, L: Buffers<T>, H, F> Unpin for Run<T, L, H, F> {}

impl<T, L, H, F, E> Future for Run<T, L, H, F>
where
    L: Buffers<T>,
    H: Fn(L::Guard) -> F,
    F: Future<Output = Result<(), E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.poll_running(cx);
        let mut begun = 0;
        loop {
            match this.next(cx) {
                Next::Run { handed, flows } => {
                    let slot = handed.slot;
                    let over = this.begin(handed, cx);
                    begun += 1;
                    if over && flows {
                        this.flow(slot, &mut begun, cx);
                    }
                    if begun == BATCHES_PER_POLL || this.shared.limits().eager_when_idle {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Next::Overdue { slot } => this.end_attempt(slot, cx),
                Next::Returned { slot, handed, job } => this.conclude(slot, handed, job),
                Next::Sleep { until, wants_permit } => {
                    if wants_permit {
                        match this.poll_permit(cx) {
                            Poll::Ready(true) => continue,
                            Poll::Ready(false) => {
                                // Nobody will be given a permit any more.
                                this.drop_handlers();
                                this.shared.abandon(&mut this.driver_buffers);
                                return Poll::Ready(());
                            }
                            Poll::Pending => {}
                        }
                    }
                    if this.timer.poll(until, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Next::Stop => {
                    this.leave_the_semaphore();
                    this.drop_handlers();
                    this.shared.stop(&mut this.driver_buffers);
                }
                Next::Done => return Poll::Ready(()),
            }
        }
    }
}

impl<T, L, H, F, E> Run<T, L, H, F>
where
    L: Buffers<T>,
    H: Fn(L::Guard) -> F,
    F: Future<Output = Result<(), E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    fn next(&mut self, cx: &mut Context<'_>) -> Next<T, L::Tag> {
        // Kept from one sleep to the next where it can be, and cloned outside the lock.
        let waker = &mut self.driver_buffers.waker;
        match waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
        self.shared.next(&mut self.driver_buffers, self.permit.is_some())
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
            let Some(slot) = self.running.pop_front() else { break };
            if self.poll_place(slot, cx).is_pending() {
                self.running.push_back(slot);
            }
        }
        if first_goes_on {
            self.running.push_back(first);
        }
    }

    /// Begins the batches that are ahead, as long as each is finished at once, and well.
    fn flow(&mut self, mut slot: usize, begun: &mut usize, cx: &mut Context<'_>) {
        let until = now() + FLOW;
        while *begun < BATCHES_PER_POLL {
            let now = now();
            if now >= until {
                return;
            }
            let Some(handed) = self.driver_buffers.ahead.pop_front() else { return };
            self.driver_buffers.begun.push((handed.slot, now));
            // The next one has its future in the same box.
            while self.slots.len() <= handed.slot {
                self.slots.push(HandlerSlot::new());
            }
            self.slots.swap(slot, handed.slot);
            slot = handed.slot;
            *begun += 1;
            if !self.begin(handed, cx) {
                return;
            }
        }
    }

    /// Whether it is over already: the handler done, and well, and its guard back.
    fn begin(&mut self, handed: Handed<T, L::Tag>, cx: &mut Context<'_>) -> bool {
        let slot = handed.slot;
        while self.slots.len() <= slot {
            self.slots.push(HandlerSlot::new());
        }
        self.slots[slot].permit = self.permit.take();
        let (batch, tag) = Batch::new(handed, Arc::clone(&self.origin));
        let batch = L::guard(batch, tag);
        let handler = &self.handler;
        self.slots[slot].begin(|| handler(batch));
        match self.poll_place(slot, cx) {
            Poll::Ready(over) => over,
            Poll::Pending => {
                self.running.push_back(slot);
                false
            }
        }
    }

    /// Ready when the handler is done: whether it is well, and its guard is back.
    fn poll_place(&mut self, slot: usize, cx: &mut Context<'_>) -> Poll<bool> {
        let well = ready!(self.slots[slot].poll(cx));
        self.driver_buffers.handled.push((slot, well));
        if !well {
            return Poll::Ready(false);
        }
        self.failing.succeeded();
        self.shared.fetch(&mut self.driver_buffers.returned);
        let Some(back) = self.driver_buffers.returned.last_mut() else { return Poll::Ready(false) };
        if back.slot != slot {
            return Poll::Ready(false);
        }
        hand_over(&self.delivered, &mut back.items);
        Poll::Ready(true)
    }

    /// An attempt has run out of time: what is ready by now counts, and the rest is dropped.
    fn end_attempt(&mut self, slot: usize, cx: &mut Context<'_>) {
        if self.poll_place(slot, cx).is_pending() {
            self.slots[slot].time_out();
            self.driver_buffers.handled.push((slot, false));
        }
        if let Some(at) = self.running.iter().position(|running| *running == slot) {
            self.running.remove(at);
        }
    }

    /// The handler of a batch is done and its guard is back: finishes the batch, or has it go on
    /// later with those of the `handed` items that are left.
    fn conclude(&mut self, at: usize, handed: usize, mut job: Job<T, L::Tag>) {
        let slot = &mut self.slots[at];
        let end = slot.take_end();
        let permit = slot.permit.take();
        let left = job.items.len();
        match end {
            Err(failure) if left > 0 => {
                let delivered = handed - left;
                let failure_state = job.failure_state.get_or_insert_default();
                let due = match self.failing.next(failure_state, &failure, handed, left) {
                    Then::TryAgain(wait) => now() + wait,
                    Then::Split => {
                        job.parts.push(job.items.split_off(left.div_ceil(2)));
                        now()
                    }
                    Then::GiveUp(gave_up) => {
                        let why = self.failing.error(failure, failure_state, job.attempts, gave_up);
                        self.shared.to_dead_letter(&job.tag, mem::take(&mut job.items), why);
                        self.finish_part(at, job, Vec::new(), (delivered, left));
                        return quietly(|| drop(permit));
                    }
                };
                failure_state.note(failure);
                self.shared.go_on(at, job, due, (delivered, 0));
            }
            end => {
                quietly(|| drop(end));
                if let Some(failure_state) = &mut job.failure_state {
                    failure_state.delivered();
                }
                let mut emptied = mem::take(&mut job.items);
                hand_over(&self.delivered, &mut emptied);
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
                self.shared.go_on(at, job, now(), ended);
            }
            None => {
                let weight = job.weight;
                quietly(|| drop(job));
                self.shared.settle(at, weight, ended, emptied);
            }
        }
    }
}

impl<T, L: Buffers<T>, H, F> Drop for Run<T, L, H, F> {
    fn drop(&mut self) {
        self.drop_handlers();
        self.leave_the_semaphore();
        self.shared.abandon(&mut self.driver_buffers);
    }
}
