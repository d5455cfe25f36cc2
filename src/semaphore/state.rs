//! The semaphore's core: one word for those who need not wait, one lock for those who do.
//!
//! ```text
//! word:   CLOSED | SLOW | permits
//!
//!            release, acquire: one read-modify-write
//!                 ┌────┐
//!                 ▼    │     too few permits, or a shrink that owes
//!               ┌────────┐ ──────────────────────────────────────▶ ┌────────┐
//!               │  fast  │                                         │  SLOW  │ lock on
//!               └────────┘ ◀────────────────────────────────────── └────────┘ every release
//!                    │       line empty and debt paid                   │
//!                    └───────────────────┬──────────────────────────────┘
//!                                        ▼ close
//!                                     CLOSED: nobody is given a permit any more
//! ```
//!
//! - `SLOW` is set exactly while somebody waits or a debt is owed; it changes only under the lock.
//!   While it is set, only releases change the permits without the lock, and they only add.
//! - Permits stay in the word until the head of the line can be served whole.
//! - An addition that finds `SLOW` locks and serves; a waiter that sets `SLOW` holds the lock
//!   and has just seen too few permits. One word, so neither can miss the other.
//! - The line is served in the order of its tickets, so that one number, the last ticket served,
//!   tells everybody whether they were: who looks takes no lock, and has nothing to give back to
//!   the line.

use core::task::Waker;

use super::error::{AcquireError, TryAcquireError};
use super::line::{Line, Ticket};
use super::stats::SemaphoreStats;
use crate::base::panic::{FirstPanic, unless_unwinding};
use crate::base::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::base::wake::WakeList;

/// The most permits that a semaphore can have.
pub(super) const MAX_PERMITS: usize = usize::MAX >> 3;

/// The flags stand above the permits, with a bit of room between: so one comparison with
/// `MAX_PERMITS` tells of a flag, of an addition that went too far and of a subtraction that wrapped.
const CLOSED: usize = 1 << (usize::BITS - 1);
const SLOW: usize = CLOSED >> 1;
const PERMITS: usize = !(CLOSED | SLOW);

/// A release of more than this looks for room before it adds. Smaller ones add first: thousands of
/// them at once do not reach the flags.
const LARGE: usize = MAX_PERMITS >> 13;

pub(super) struct State {
    word: AtomicUsize,
    /// Available + held − owed: all there would be if every permit came back. Changes only under
    /// the lock, together with what it is the sum of.
    limit: AtomicUsize,
    /// The number of the last ticket that was granted its permits; changes only under the lock.
    served: AtomicU64,
    /// How many of those granted have fetched their permits, or given them up.
    claimed: AtomicU64,
    /// How many of those gave them up.
    declined: AtomicU64,
    /// Made when the first waiter comes, so that a semaphore stays small.
    line: Mutex<Option<Box<Line>>>,
}

/// Whom a step under the lock has served: wakers leave it before they are woken.
#[derive(Default)]
struct Served {
    first: Option<Waker>,
    /// There are others who can be served.
    more: bool,
}

/// What to do with enough free permits, if nobody waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfFree {
    Take,
    Leave,
}

/// What became of a request to wait.
pub(super) enum Joined {
    /// There is nothing to wait for. With the waker, which is not needed.
    Free(Waker),
    Queued(Ticket),
}

/// What became of somebody who asked for permits up to the limit.
pub(super) enum Clamped {
    /// So many.
    Taken(u32),
    /// They could be had, and are still free.
    Free,
    Queued(Ticket),
}

impl State {
    #[cfg(not(loom))]
    pub(super) const fn new(permits: usize) -> Self {
        Self {
            word: AtomicUsize::new(permits),
            limit: AtomicUsize::new(permits),
            served: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            declined: AtomicU64::new(0),
            line: Mutex::new(None),
        }
    }

    #[cfg(loom)]
    pub(super) fn new(permits: usize) -> Self {
        Self {
            word: AtomicUsize::new(permits),
            limit: AtomicUsize::new(permits),
            served: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            declined: AtomicU64::new(0),
            line: Mutex::new(None),
        }
    }

    pub(super) fn with_wait_times(permits: usize) -> Self {
        let line = Mutex::new(Some(Box::new(Line::with_wait_times())));
        Self { line, ..Self::new(permits) }
    }

    pub(super) fn stats(&self) -> SemaphoreStats {
        let guard = self.line.lock();
        let declined = self.declined.load(Ordering::Relaxed);
        guard.as_deref().map_or_else(SemaphoreStats::default, |line| line.stats(declined))
    }

    pub(super) fn available(&self) -> usize {
        let word = self.word.load(Ordering::Acquire);
        if word & SLOW == 0 { word & PERMITS } else { 0 }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.word.load(Ordering::Acquire) & CLOSED != 0
    }

    pub(super) fn waiting(&self) -> usize {
        to_usize(self.line.lock().as_deref().map_or(0, Line::waiting))
    }

    /// How many were granted their permits and have not claimed them yet.
    pub(super) fn unclaimed(&self) -> usize {
        let guard = self.line.lock();
        let granted = guard.as_deref().map_or(0, Line::granted);
        to_usize(granted.saturating_sub(self.claimed.load(Ordering::Relaxed)))
    }

    /// Takes `need` permits if they are free and nobody waits.
    #[inline]
    pub(super) fn try_take(&self, need: usize) -> Result<(), TryAcquireError> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let left = word.wrapping_sub(need);
            if left > MAX_PERMITS || need > MAX_PERMITS {
                return self.refuse(need);
            }
            // Acquire: pairs with the Release of every addition to the word.
            match self.word.compare_exchange_weak(word, left, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(actual) => word = actual,
            }
        }
    }

    #[cold]
    fn refuse(&self, need: usize) -> Result<(), TryAcquireError> {
        if self.is_closed() {
            Err(TryAcquireError::Closed)
        } else if need == 0 {
            Ok(())
        } else {
            Err(TryAcquireError::NoPermits)
        }
    }

    /// Whether `need` permits cannot be had at once. A closed semaphore answers at once.
    #[inline]
    pub(super) fn must_wait(&self, need: u32) -> bool {
        let (word, need) = (self.word.load(Ordering::Relaxed), need as usize);
        word & CLOSED == 0 && need != 0 && (word & SLOW != 0 || word & PERMITS < need)
    }

    /// Joins the wait list, unless `need` permits are free and nobody waits.
    #[cold]
    pub(super) fn join(
        &self,
        need: u32,
        waker: Waker,
        if_free: IfFree,
    ) -> Result<Joined, AcquireError> {
        // `waker` outlives the guard: arguments are dropped after locals.
        let mut guard = self.line.lock();
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(AcquireError(()));
            }
            if word & SLOW != 0 {
                break;
            }
            // Releases are not held up by the lock: look again before setting the flag, so that
            // it is never seen while there are permits for everybody.
            let enough = word >= need as usize;
            if enough && if_free == IfFree::Leave {
                return Ok(Joined::Free(waker));
            }
            let next = if enough { word - need as usize } else { word | SLOW };
            match self.word.compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) if enough => return Ok(Joined::Free(waker)),
                Ok(_) => break,
                Err(actual) => word = actual,
            }
        }
        Ok(Joined::Queued(guard.get_or_insert_default().join(need, waker)))
    }

    /// Takes `weight` permits, or the limit if that is less, or a place in line for them. If it may
    /// not take any, permits that are free stay so.
    pub(super) fn take_clamped(
        &self,
        weight: u32,
        waker: &Waker,
        may_take: bool,
    ) -> Result<Clamped, AcquireError> {
        // A limit that grows meanwhile allows it just as well.
        if may_take && weight as usize <= self.limit() && self.try_take(weight as usize).is_ok() {
            return Ok(Clamped::Taken(weight));
        }
        let waker = waker.clone();
        let mut guard = self.line.lock();
        let need = weight.min(u32::try_from(self.clamp()).unwrap_or(u32::MAX));
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(AcquireError(()));
            }
            if word & SLOW != 0 {
                break;
            }
            let enough = word >= need as usize;
            if enough && !may_take {
                return Ok(Clamped::Free);
            }
            let next = if enough { word - need as usize } else { word | SLOW };
            match self.word.compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) if enough => return Ok(Clamped::Taken(need)),
                Ok(_) => break,
                Err(actual) => word = actual,
            }
        }
        Ok(Clamped::Queued(guard.get_or_insert_default().join_clamped(weight, waker)))
    }

    /// With the lock held: what clamped needs are clamped to now. With a limit of zero they wait for
    /// the first permit.
    fn clamp(&self) -> usize {
        self.limit().max(1)
    }

    /// As [`claim`](Self::claim), for a ticket with a clamped need: how many it was granted.
    pub(super) fn claim_clamped(&self, ticket: Ticket) -> Option<u32> {
        if !self.claim(ticket) {
            return None;
        }
        self.line.lock().as_deref_mut()?.take_clamped_grant(ticket)
    }

    /// Whether a ticket was granted its permits.
    #[inline]
    fn is_served(&self, ticket: Ticket) -> bool {
        // Acquire: pairs with the Release in `grant`.
        self.served.load(Ordering::Acquire) >= ticket.number
    }

    /// Fetches the permits of a ticket, if it was granted them. It is used up then.
    #[inline]
    pub(super) fn claim(&self, ticket: Ticket) -> bool {
        let served = self.is_served(ticket);
        if served {
            self.claimed.fetch_add(1, Ordering::Relaxed);
        }
        served
    }

    /// Leaves `fresh` to be woken instead of the waker before; `None` if the ticket does not wait
    /// any more.
    #[cold]
    pub(super) fn rewake(&self, ticket: Ticket, fresh: Waker) -> Option<()> {
        let mut guard = self.line.lock();
        let waker = guard.as_deref_mut()?.waker(ticket)?;
        let replaced = core::mem::replace(waker, fresh);
        drop(guard);
        drop(replaced);
        Some(())
    }

    /// Gives up a ticket, and passes on the `need` permits if they were granted to it.
    #[cold]
    pub(super) fn leave(&self, ticket: Ticket, need: u32) {
        let mut guard = self.line.lock();
        let Some(line) = guard.as_deref_mut() else { return };
        let Some((was_head, waker)) = line.leave(ticket) else {
            let need = line.take_clamped_grant(ticket).unwrap_or(need);
            drop(guard);
            if self.claim(ticket) {
                let declined = u64::from(!self.is_closed());
                self.declined.fetch_add(declined, Ordering::Relaxed);
                self.release(need as usize);
            }
            return;
        };
        // The waiter behind the head may need less than it did.
        let served = was_head.then(|| self.grant_one(line, 0));
        drop(guard);
        let Some(served) = served else { return unless_unwinding(|| drop(waker)) };
        let mut panic = FirstPanic::default();
        panic.catch(|| self.wake(served));
        panic.catch(|| drop(waker));
        panic.resume();
    }

    /// Gives back permits that were taken from this semaphore.
    #[inline]
    pub(super) fn release(&self, permits: usize) {
        if permits > LARGE {
            return self.release_large(permits);
        }
        // Release: pairs with the Acquire of the call that takes them.
        let before = self.word.fetch_add(permits, Ordering::Release);
        if before.wrapping_add(permits) > MAX_PERMITS {
            self.added(permits, before);
        }
    }

    #[cold]
    fn release_large(&self, permits: usize) {
        let mut word = self.word.load(Ordering::Relaxed);
        while permits <= MAX_PERMITS.saturating_sub(word & PERMITS) {
            let sum = word + permits;
            match self.word.compare_exchange_weak(word, sum, Ordering::Release, Ordering::Relaxed) {
                Ok(before) if before & SLOW != 0 => return self.give(self.line.lock(), 0, 0),
                Ok(_) => return,
                Err(actual) => word = actual,
            }
        }
        self.lose(permits);
    }

    /// Looks after a release that met a flag, or went too far.
    #[cold]
    fn added(&self, permits: usize, before: usize) {
        if self.undo_overflow(permits, before) {
            self.lose(permits);
        }
        if before & SLOW != 0 {
            self.give(self.line.lock(), 0, 0);
        }
    }

    /// Permits that found no room as they came back are lost, so that the limit does not count them.
    #[track_caller]
    fn lose(&self, permits: usize) -> ! {
        self.forget_held(permits);
        overflow(permits)
    }

    /// Takes an addition out again that went too far, unless others have taken so many permits since
    /// that it does not any more. Says whether it did.
    fn undo_overflow(&self, permits: usize, before: usize) -> bool {
        if (before & PERMITS) + permits <= MAX_PERMITS {
            return false;
        }
        let mut word = self.word.load(Ordering::Relaxed);
        while word & PERMITS > MAX_PERMITS {
            let less = word - permits;
            match self.word.compare_exchange_weak(word, less, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(actual) => word = actual,
            }
        }
        false
    }

    /// Adds permits that were never taken.
    ///
    /// # Panics
    ///
    /// If more than `MAX_PERMITS` would be free, or `usize::MAX` in circulation; none is added then.
    #[track_caller]
    pub(super) fn add(&self, permits: usize) {
        self.give(self.line.lock(), permits, permits);
    }

    /// Gives permits to those who wait, and what is left to the word; raises the limit by how many
    /// of them are `new`.
    #[track_caller]
    fn give(&self, mut guard: MutexGuard<'_, Option<Box<Line>>>, permits: usize, new: usize) {
        let word = self.word.load(Ordering::Relaxed);
        let limit = self.limit.load(Ordering::Relaxed);
        let fits = permits <= MAX_PERMITS.saturating_sub(word & PERMITS);
        if !fits || limit.checked_add(new).is_none() {
            drop(guard);
            overflow(permits);
        }
        let Some(line) = guard.as_deref_mut().filter(|_| word & SLOW != 0) else {
            let before = self.word.fetch_add(permits, Ordering::Release);
            // A release, which takes no lock, may have been quicker.
            if self.undo_overflow(permits, before) {
                drop(guard);
                overflow(permits);
            }
            self.limit.fetch_add(new, Ordering::Relaxed);
            return;
        };
        self.limit.fetch_add(new, Ordering::Relaxed);
        let served = self.grant_one(line, permits);
        drop(guard);
        self.wake(served);
    }

    /// Takes up to `permits` free ones out of circulation, and says how many.
    pub(super) fn forget_free(&self, permits: usize) -> usize {
        let _guard = self.line.lock();
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let free = if word & SLOW == 0 { word & PERMITS } else { 0 };
            let taken = free.min(permits);
            if taken == 0 {
                return 0;
            }
            match self.word.compare_exchange_weak(
                word,
                word - taken,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    self.limit.fetch_sub(taken, Ordering::Relaxed);
                    return taken;
                }
                Err(actual) => word = actual,
            }
        }
    }

    /// Permits that were taken will not come back.
    ///
    /// The limit cannot fall below zero: what goes beyond it was owed, and is owed no longer.
    pub(super) fn forget_held(&self, permits: usize) {
        let mut guard = self.line.lock();
        let limit = self.limit.load(Ordering::Relaxed);
        self.limit.store(limit.saturating_sub(permits), Ordering::Relaxed);
        let Some(line) = guard.as_deref_mut() else { return };
        line.debt = line.debt.saturating_sub(permits.saturating_sub(limit));
        let served = self.grant_one(line, 0);
        drop(guard);
        self.wake(served);
    }

    /// Makes the limit `permits`: adds what lacks, or takes what is free and owes the rest.
    pub(super) fn set_limit(&self, permits: usize) {
        let mut guard = self.line.lock();
        let line = guard.get_or_insert_default();
        let limit = self.limit.load(Ordering::Relaxed);
        if permits < limit {
            let excess = limit - permits;
            let mut word = self.word.load(Ordering::Relaxed);
            loop {
                let taken = excess.min(word & PERMITS);
                let owes = if taken < excess { SLOW } else { 0 };
                match self.word.compare_exchange_weak(
                    word,
                    (word - taken) | owes,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        line.debt += excess - taken;
                        self.limit.fetch_sub(excess, Ordering::Relaxed);
                        // Nobody can be served: a clamped waiter needs all permits that remain, of
                        // which some are held, or it would have had all of those before.
                        return;
                    }
                    Err(actual) => word = actual,
                }
            }
        }
        // What is owed is paid out of these first.
        let lacking = permits - limit;
        self.give(guard, lacking, lacking);
    }

    /// Fails everybody who waits and everybody who comes later.
    pub(super) fn close(&self) {
        let mut guard = self.line.lock();
        // Under the lock, so that nobody joins the wait list after it was emptied. The call that closed it
        // before is emptying it, and may be calling this from a waker.
        if self.word.fetch_or(CLOSED, Ordering::AcqRel) & CLOSED != 0 {
            return;
        }
        let mut wakers = WakeList::new();
        while let Some(line) = guard.as_deref_mut() {
            while let Some(waker) = line.dismiss_head() {
                wakers.push(waker);
                if wakers.is_full() {
                    break;
                }
            }
            let done = line.waiting() == 0;
            if done && line.is_idle() {
                self.word.fetch_and(!SLOW, Ordering::Relaxed);
            }
            drop(guard);
            wakers.wake_all();
            if done {
                break;
            }
            guard = self.line.lock();
        }
        wakers.finish();
    }

    /// With the lock held: serves the head of the line alone. Mostly that is all there is to do,
    /// and it wants no list of wakers.
    fn grant_one(&self, line: &mut Line, returned: usize) -> Served {
        let mut first = None;
        let more = self.grant(line, returned, 1, |waker| first = Some(waker));
        Served { first, more }
    }

    /// Without the lock: wakes the waiter that was served, and serves and wakes all others that can be.
    fn wake(&self, Served { first, more }: Served) {
        if more {
            self.wake_more(first);
        } else if let Some(waker) = first {
            unless_unwinding(|| waker.wake());
        }
    }

    #[cold]
    fn wake_more(&self, first: Option<Waker>) {
        let mut wakers = WakeList::new();
        first.into_iter().for_each(|waker| wakers.push(waker));
        let mut more = true;
        loop {
            wakers.wake_all();
            if !more {
                return wakers.finish();
            }
            let mut guard = self.line.lock();
            more = guard.as_deref_mut().is_some_and(|line| {
                self.grant(line, 0, WakeList::CAPACITY, |waker| wakers.push(waker))
            });
        }
    }

    /// With the lock held: pays debt, then serves the line from its head, `room` of them at the
    /// most, out of the word and the permits that are being `returned`; what is left of both stays
    /// in the word. Says whether there are more who can be served.
    ///
    /// Nothing is returned unless `SLOW` is set.
    fn grant(
        &self,
        line: &mut Line,
        returned: usize,
        room: usize,
        mut served: impl FnMut(Waker),
    ) -> bool {
        // Acquire: what was written before a release happens before what the granted one does.
        let word = self.word.load(Ordering::Acquire);
        if word & SLOW == 0 {
            return false;
        }
        let mut left = (word & PERMITS) + returned;
        let paid = left.min(line.debt);
        line.debt -= paid;
        left -= paid;
        let mut more = false;
        if word & CLOSED == 0 {
            line.clamp = self.clamp();
            let mut last = 0;
            for _ in 0..room {
                let Some((number, waker)) = line.serve_head(&mut left) else { break };
                last = number;
                served(waker);
            }
            more = line.can_serve(left);
            if last != 0 {
                self.served.store(last, Ordering::Release);
            }
        }
        // The word may have grown meanwhile: change it by the difference, and clear the flag in
        // the same step. A call that added to it waits for the lock and looks again.
        let idle = if line.is_idle() { SLOW } else { 0 };
        let change = left.wrapping_sub(word & PERMITS).wrapping_sub(idle);
        if change != 0 {
            self.word.fetch_add(change, Ordering::Release);
        }
        more
    }
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cold]
#[track_caller]
fn overflow(permits: usize) -> ! {
    panic!("number of added permits ({permits}) would overflow MAX_PERMITS ({MAX_PERMITS})")
}
