//! The core behind its lock, with what runs outside of it: wakers, permits, the dead letter.

use core::{fmt, mem};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::core::{Core, Job, Limits, Next, Remains};
use super::error::BatchError;
use super::report::{FlushReport, ShutdownReport, Stats};
use super::wake::Wakes;
use crate::Semaphore;
use crate::settled::quietly;
use crate::sync::Mutex;

pub(crate) type DeadLetter<T> = dyn Fn(Vec<T>, BatchError) + Send + Sync;

pub(crate) struct Shared<T> {
    core: Mutex<Core<T>>,
    /// One permit for each item that may still be accepted.
    room: Semaphore,
    capacity: usize,
    clock: fn() -> Instant,
    dead_letter: Box<DeadLetter<T>>,
}

impl<T> Shared<T> {
    pub(crate) fn new(
        limits: Limits,
        capacity: usize,
        clock: fn() -> Instant,
        dead_letter: Box<DeadLetter<T>>,
    ) -> Arc<Self> {
        let core = Mutex::new(Core::new(limits));
        let room = Semaphore::new(capacity);
        Arc::new(Self { core, room, capacity, clock, dead_letter })
    }

    pub(crate) fn room(&self) -> &Semaphore {
        &self.room
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn now(&self) -> Instant {
        (self.clock)()
    }

    /// Runs `f` under the lock; what it wants woken is woken after it.
    fn locked<R>(&self, f: impl FnOnce(&mut Core<T>, &mut Wakes) -> R) -> R {
        let mut wakes = Wakes::default();
        f(&mut self.core.lock(), &mut wakes)
    }

    /// To be called with a permit of `room`, which the caller forgets if this succeeds.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        self.locked(|core, wakes| core.push(item, self.clock, wakes))
    }

    pub(crate) fn next(&self, waker: &Waker) -> Next<T> {
        let mut waker = Some(waker.clone());
        // The clock is read under the lock, so that no window that is over opens after it.
        self.locked(|core, wakes| core.next(self.now(), &mut waker, wakes))
    }

    pub(crate) fn give_back(&self, id: u64, items: Vec<T>) {
        if let Err(items) = self.locked(|core, wakes| core.give_back(id, items, wakes)) {
            self.bury(items, BatchError::Indeterminate);
        }
    }

    pub(crate) fn reclaim(&self, id: u64) -> Option<(usize, Vec<T>)> {
        self.core.lock().reclaim(id)
    }

    pub(crate) fn settle(&self, id: u64, delivered: usize, failed: usize, emptied: Vec<T>) {
        self.locked(|core, wakes| core.settle(id, delivered, failed, emptied, wakes));
        self.make_room(delivered + failed);
    }

    pub(crate) fn retry(&self, job: Job<T>, due: Instant, delivered: usize) {
        self.locked(|core, wakes| core.retry(job, due, delivered, wakes));
        self.make_room(delivered);
    }

    fn make_room(&self, items: usize) {
        // A sender's waker may panic; the driver must not end for it.
        quietly(|| self.room.add_permits(items));
    }

    /// Hands items to the dead letter. When it panics, they were handed out all the same.
    pub(crate) fn bury(&self, items: Vec<T>, why: BatchError) {
        if !items.is_empty() {
            quietly(|| (self.dead_letter)(items, why));
        }
    }

    pub(crate) fn close(&self, stop_at: Option<Instant>) {
        self.locked(|core, wakes| core.close(stop_at, wakes));
        self.wake_senders();
    }

    /// After the core refuses items: the senders that wait learn it.
    fn wake_senders(&self) {
        quietly(|| self.room.close());
    }

    /// The deadline of a shutdown is over: what is left is kept for the report.
    pub(crate) fn stop(&self) {
        let delays = self.locked(|core, wakes| {
            let mut remains = core.stop(wakes);
            let delays = mem::take(&mut remains.delays);
            core.keep(remains);
            delays
        });
        quietly(|| drop(delays));
        self.wake_senders();
    }

    /// The driver is gone: what is left goes to the dead letter.
    pub(crate) fn abandon(&self) {
        let mut wakes = Wakes::default();
        let remains = self.core.lock().stop(&mut wakes);
        self.bury_all(remains);
        self.wake_senders();
    }

    fn bury_all(&self, remains: Remains<T>) {
        self.bury(remains.indeterminate, BatchError::Indeterminate);
        self.bury(remains.unsent, BatchError::Unsent);
        quietly(|| drop(remains.delays));
    }

    pub(crate) fn flush(&self) -> u64 {
        self.locked(|core, wakes| core.flush(wakes))
    }

    pub(crate) fn poll_flush(&self, ticket: u64, waker: &Waker) -> Option<FlushReport> {
        let mut waker = Some(waker.clone());
        self.core.lock().poll_flush(ticket, &mut waker)
    }

    pub(crate) fn forget_flush(&self, ticket: u64) {
        let _old_waker = self.core.lock().forget_flush(ticket);
    }

    pub(crate) fn await_stop(&self) -> u64 {
        self.core.lock().await_stop()
    }

    pub(crate) fn poll_stopped(&self, ticket: u64, waker: &Waker) -> bool {
        let mut waker = Some(waker.clone());
        self.core.lock().poll_stopped(ticket, &mut waker)
    }

    pub(crate) fn forget_stop(&self, ticket: u64) {
        let _old_waker = self.core.lock().forget_stop(ticket);
    }

    pub(crate) fn shutdown_report(&self) -> ShutdownReport<T> {
        let mut core = self.core.lock();
        let Remains { unsent, indeterminate, .. } = core.take_remains();
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
        self.core.lock().is_accepting()
    }

    pub(crate) fn stats(&self) -> Stats {
        let waiting_senders = self.room.waiters();
        Stats { waiting_senders, ..self.core.lock().stats() }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // A shutdown that gave items up, and whose report nobody waited for.
        let remains = self.core.lock().take_remains();
        self.bury_all(remains);
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}
