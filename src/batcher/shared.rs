//! The core behind its lock, with what runs outside of it: wakers, weighing, the dead letter.

use core::{fmt, mem};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::buffers::{Buffers, SingleBuffer};
use super::capacity::{Limits, Weight};
use super::core::{Core, Next, Refusal, Undelivered};
use super::driver_buffers::{DriverBuffers, ReturnBox};
use super::error::{BatchError, SendError, TrySendError};
use super::failure_state::FailureState;
use super::flush;
use super::job::{Job, ReturnItems, Returned};
use super::report::{BatcherStats, FlushReport, ShutdownReport};
use super::wake::Wakes;
use crate::base::config::LONGEST_WAIT;
use crate::base::panic::quietly;
use crate::base::sync::{Mutex, MutexGuard, lock_briefly};
use crate::base::timer::now;

pub(crate) type DeadLetter<T, G = ()> = dyn Fn(&G, Vec<T>, BatchError) + Send + Sync;
pub(crate) type Weigher<T> = dyn Fn(&T) -> u64 + Send + Sync;

pub(crate) struct Shared<T, L: Buffers<T> = SingleBuffer<T>> {
    core: Mutex<Core<T, L>>,
    /// Locked alone or within the lock of the core, never around it.
    return_box: Mutex<ReturnBox<T>>,
    limits: Limits,
    weigher: Option<Box<Weigher<T>>>,
    dead_letter: Box<DeadLetter<T, L::Tag>>,
}

impl<T: Send, L: Buffers<T, Tag: Send, Unsent: Send> + Send> ReturnItems<T> for Shared<T, L> {
    fn return_items(&self, slot: usize, id: u64, items: Vec<T>) {
        let left = self.return_box.lock().leave(Returned { slot, id, items });
        let Err(back) = left else { return };
        // The driver sleeps or has just woken, or there is none any more.
        let given = self.locked(|core, wakes| core.return_items(back, wakes));
        if let Err((items, Some(tag))) = given {
            self.to_dead_letter(&tag, items, BatchError::Indeterminate);
            quietly(|| drop(tag));
        }
    }
}

impl<T, L: Buffers<T>> Shared<T, L> {
    pub(crate) fn new(
        limits: Limits,
        weigher: Option<Box<Weigher<T>>>,
        dead_letter: Box<DeadLetter<T, L::Tag>>,
    ) -> Arc<Self> {
        let core = Mutex::new(Core::new(limits));
        let return_box = Mutex::new(ReturnBox::new());
        Arc::new(Self { core, return_box, limits, weigher, dead_letter })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn now(&self) -> Instant {
        now()
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Core<T, L>> {
        lock_briefly(&self.core)
    }

    /// Runs `f` under the lock; what it wants woken is woken after it.
    pub(crate) fn locked<R>(&self, f: impl FnOnce(&mut Core<T, L>, &mut Wakes) -> R) -> R {
        let mut wakes = Wakes::default();
        let result = f(&mut self.lock(), &mut wakes);
        self.wake_all(wakes);
        result
    }

    /// Wakes these, and those that did not fit in.
    #[inline]
    fn wake_all(&self, wakes: Wakes) {
        if wakes.senders_are_full() {
            self.serve_the_rest(wakes);
        }
    }

    #[cold]
    fn serve_the_rest(&self, mut wakes: Wakes) {
        while wakes.senders_are_full() {
            // The last ones are woken here.
            wakes = Wakes::default();
            self.lock().serve(&mut wakes);
        }
    }

    // ---- what senders do

    /// The weight of an item, 0 if items are not weighed.
    #[inline]
    pub(crate) fn weigh(&self, item: &T) -> u64 {
        self.weigher.as_ref().map_or(0, |weigh| weigh(item))
    }

    pub(crate) fn is_weighed(&self) -> bool {
        self.weigher.is_some()
    }

    /// Gives reserved room back.
    pub(crate) fn return_capacity(&self, room: Weight) {
        self.locked(|core, wakes| core.return_capacity(1, room, wakes));
    }

    // ---- what the driver does

    pub(crate) fn next(
        &self,
        driver_buffers: &mut DriverBuffers<T, L::Tag>,
        has_permit: bool,
    ) -> Next<T, L::Tag> {
        let now = self.now();
        let next = self.locked(|core, wakes| {
            loop {
                if core.is_stopped() {
                    return Next::Done;
                }
                self.fetch(&mut driver_buffers.returned);
                let next = core.next(now, driver_buffers, has_permit, wakes);
                if !matches!(next, Next::Sleep { .. }) {
                    return next;
                }
                // Guards dropped from here on go to the core, and find the waker there.
                if self.return_box.lock().close() {
                    core.rest(&mut driver_buffers.waker);
                    return next;
                }
            }
        });
        for tag in driver_buffers.tags.drain(..) {
            quietly(|| drop(tag));
        }
        if let Some(waker) = driver_buffers.stale.take() {
            quietly(|| drop(waker));
        }
        next
    }

    /// Fetches what guards have left.
    pub(crate) fn fetch(&self, returned: &mut Vec<Returned<T>>) {
        self.return_box.lock().fetch(returned);
    }

    pub(crate) fn settle(&self, slot: usize, weight: u64, ended: (usize, usize), emptied: Vec<T>) {
        let tag = self.locked(|core, wakes| core.settle(slot, weight, ended, emptied, wakes));
        quietly(|| drop(tag));
    }

    pub(crate) fn go_on(
        &self,
        slot: usize,
        job: Job<T, L::Tag>,
        due: Instant,
        ended: (usize, usize),
    ) {
        self.locked(|core, wakes| core.go_on(slot, job, due, ended, wakes));
    }

    /// Hands items to the dead letter. When it panics, they were handed out all the same.
    pub(crate) fn to_dead_letter(&self, tag: &L::Tag, items: Vec<T>, why: BatchError) {
        if items.is_empty() {
            quietly(|| drop(why));
        } else {
            quietly(|| (self.dead_letter)(tag, items, why));
        }
    }

    // ---- flushing and stopping

    pub(crate) fn close(&self, stop_at: Option<Instant>) {
        self.locked(|core, wakes| core.close(stop_at, wakes));
    }

    /// Closes, with a deadline from now on; one that is very far off is none.
    pub(crate) fn close_within(&self, deadline: Option<Duration>) {
        let deadline = deadline.filter(|wait| *wait <= LONGEST_WAIT);
        self.close(deadline.map(|wait| self.now() + wait));
    }

    /// The deadline of a shutdown is over: undelivered items are kept for the report.
    pub(crate) fn stop(&self, driver_buffers: &mut DriverBuffers<T, L::Tag>) {
        let (tags, failure_states) = self.locked(|core, wakes| {
            let mut undelivered = self.stop_core(core, driver_buffers, wakes);
            let dropped =
                (mem::take(&mut undelivered.tags), mem::take(&mut undelivered.failure_states));
            core.keep(undelivered);
            dropped
        });
        quietly(|| drop(tags));
        failure_states.into_iter().for_each(FailureState::discard);
    }

    /// The driver is gone: undelivered items go to the dead letter, before any waiter is woken.
    pub(crate) fn abandon(&self, driver_buffers: &mut DriverBuffers<T, L::Tag>) {
        let mut wakes = Wakes::default();
        let undelivered = self.stop_core(&mut self.lock(), driver_buffers, &mut wakes);
        self.all_to_dead_letter(undelivered);
        self.wake_all(wakes);
    }

    fn stop_core(
        &self,
        core: &mut Core<T, L>,
        driver_buffers: &mut DriverBuffers<T, L::Tag>,
        wakes: &mut Wakes,
    ) -> Undelivered<L::Unsent, L::Tag> {
        let mut return_box = self.return_box.lock();
        return_box.fetch(&mut driver_buffers.returned);
        let _is_empty = return_box.close();
        drop(return_box);
        core.stop(driver_buffers, wakes)
    }

    fn all_to_dead_letter(&self, undelivered: Undelivered<L::Unsent, L::Tag>) {
        L::to_dead_letter(undelivered.indeterminate, |tag, items| {
            self.to_dead_letter(tag, items, BatchError::Indeterminate);
        });
        L::to_dead_letter(undelivered.unsent, |tag, items| {
            self.to_dead_letter(tag, items, BatchError::Unsent)
        });
        quietly(|| drop(undelivered.tags));
        undelivered.failure_states.into_iter().for_each(FailureState::discard);
    }

    pub(crate) fn flush(&self) -> flush::FlushId {
        self.locked(|core, wakes| core.flush(wakes))
    }

    pub(crate) fn poll_flush(&self, ticket: flush::FlushId, waker: &Waker) -> Option<FlushReport> {
        let mut waker = Some(waker.clone());
        self.lock().poll_flush(ticket, &mut waker)
    }

    pub(crate) fn forget_flush(&self, ticket: flush::FlushId) {
        let _old_waker = self.lock().forget_flush(ticket);
    }

    pub(crate) fn await_stop(&self) -> u64 {
        self.lock().await_stop()
    }

    pub(crate) fn poll_stopped(&self, ticket: u64, waker: &Waker) -> bool {
        let mut waker = Some(waker.clone());
        self.lock().poll_stopped(ticket, &mut waker)
    }

    pub(crate) fn forget_stop(&self, ticket: u64) {
        let _old_waker = self.lock().forget_stop(ticket);
    }

    pub(crate) fn shutdown_report(&self) -> ShutdownReport<L::Unsent> {
        let mut core = self.lock();
        let Undelivered { unsent, indeterminate, .. } = core.take_remains();
        let stats = core.stats();
        ShutdownReport {
            delivered: stats.delivered,
            failed: stats.failed,
            unsent,
            indeterminate,
            still_held: core.still_held(),
            accepted: stats.accepted,
        }
    }

    pub(crate) fn is_accepting(&self) -> bool {
        self.lock().is_accepting()
    }

    pub(crate) fn stats(&self) -> BatcherStats {
        self.lock().stats()
    }
}

impl<T> Shared<T> {
    /// Accepts an item for which room was taken, with the lock held. The driver is to be woken
    /// after it.
    #[inline]
    pub(crate) fn accept(
        &self,
        core: &mut Core<T>,
        item: impl FnOnce() -> T,
        weight: u64,
    ) -> Option<Waker> {
        core.accept((), item, weight, now).0
    }

    #[inline]
    pub(crate) fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let weight = self.weigh(&item);
        if weight > self.limits.max_weight {
            return Err(TrySendError::TooHeavy(item));
        }
        let mut core = self.lock();
        match core.take_capacity(self.limits.room_for(weight)) {
            Ok(()) => {
                let driver = self.accept(&mut core, || item, weight);
                drop(core);
                wake(driver);
                Ok(())
            }
            Err(Refusal::Full) => Err(TrySendError::Full(item)),
            Err(Refusal::Closed) => Err(TrySendError::Closed(item)),
        }
    }

    /// Accepts an item for which this room was reserved. What it does not take up is given back.
    pub(crate) fn send_reserved(
        &self,
        room: Weight,
        item: T,
        weight: u64,
    ) -> Result<(), SendError<T>> {
        if weight > self.limits.max_weight {
            self.return_capacity(room);
            return Err(SendError::TooHeavy(item));
        }
        let driver = self.locked(|core, wakes| {
            if !core.is_accepting() {
                return Err(SendError::Closed(item));
            }
            let surplus = room - self.limits.room_for(weight);
            if surplus > 0 {
                core.return_capacity(0, surplus, wakes);
            }
            Ok(self.accept(core, || item, weight))
        })?;
        wake(driver);
        Ok(())
    }
}

/// Wakes the driver, outside the lock. Its waker may be user code and panic: what was accepted
/// is accepted all the same.
#[inline]
pub(crate) fn wake(driver: Option<Waker>) {
    if let Some(waker) = driver {
        quietly(|| waker.wake());
    }
}

impl<T, L: Buffers<T>> Drop for Shared<T, L> {
    fn drop(&mut self) {
        // A shutdown that gave items up, and whose report nobody waited for.
        let undelivered = self.lock().take_remains();
        self.all_to_dead_letter(undelivered);
    }
}

impl<T, L: Buffers<T>> fmt::Debug for Shared<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("limits", &self.limits).finish_non_exhaustive()
    }
}
