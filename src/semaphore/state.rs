//! The semaphore's core: one word for those who need not wait, one lock for those who do.
//!
//! ```text
//! word:   permits << 2 | SLOW | CLOSED
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
//! - Whoever adds permits and finds `SLOW` locks and serves; whoever sets `SLOW` holds the lock
//!   and has just seen too few permits. One word, so neither can miss the other.
//! - The line is served in the order of its tickets, so that one number, the last ticket served,
//!   tells everybody whether they were: who looks takes no lock, and has nothing to give back to
//!   the line.

use core::task::Waker;
use std::time::Instant;

use super::error::{AcquireError, TryAcquireError};
use super::line::{Line, Ticket};
use super::stats::SemaphoreStats;
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering};
use crate::wake_list::WakeList;

const CLOSED: usize = 0b01;
const SLOW: usize = 0b10;
const SHIFT: u32 = 2;

/// The most permits that a semaphore can have.
pub(super) const MAX_PERMITS: usize = usize::MAX >> 3;

/// Set in the word by an addition past `MAX_PERMITS`, and by nothing else.
const OVERFLOW: usize = !(usize::MAX >> 1);

pub(super) struct State {
    word: AtomicUsize,
    /// Available + held − owed: all there would be if every permit came back.
    limit: AtomicUsize,
    /// The number of the last ticket that was granted its permits; changes only under the lock.
    served: AtomicU64,
    /// How many of those granted have fetched their permits, or given them up.
    claimed: AtomicUsize,
    /// Made when the first waiter comes, so that a semaphore stays small.
    line: Mutex<Option<Box<Line>>>,
    times_waits: bool,
}

/// Whom a step under the lock has served: wakers leave it before they are woken.
#[derive(Default)]
struct Served {
    first: Option<Waker>,
    /// There are others who can be served.
    more: bool,
}

/// What became of somebody who asked to wait.
pub(super) enum Joined {
    Taken,
    Queued(Ticket),
}

impl State {
    #[cfg(not(loom))]
    pub(super) const fn new(permits: usize) -> Self {
        Self {
            word: AtomicUsize::new(permits << SHIFT),
            limit: AtomicUsize::new(permits),
            served: AtomicU64::new(0),
            claimed: AtomicUsize::new(0),
            line: Mutex::new(None),
            times_waits: false,
        }
    }

    #[cfg(loom)]
    pub(super) fn new(permits: usize) -> Self {
        Self {
            word: AtomicUsize::new(permits << SHIFT),
            limit: AtomicUsize::new(permits),
            served: AtomicU64::new(0),
            claimed: AtomicUsize::new(0),
            line: Mutex::new(None),
            times_waits: false,
        }
    }

    pub(super) fn with_wait_times(permits: usize) -> Self {
        let line = Mutex::new(Some(Box::new(Line::with_wait_times())));
        Self { line, times_waits: true, ..Self::new(permits) }
    }

    pub(super) fn stats(&self) -> SemaphoreStats {
        self.line.lock().as_deref().map_or_else(SemaphoreStats::default, |line| line.stats)
    }

    /// The clock, read only if it matters.
    fn now(&self) -> Option<Instant> {
        self.times_waits.then(Instant::now)
    }

    pub(super) fn available(&self) -> usize {
        let word = self.word.load(Ordering::Acquire);
        if word & SLOW == 0 { word >> SHIFT } else { 0 }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Acquire)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.word.load(Ordering::Acquire) & CLOSED != 0
    }

    pub(super) fn waiting(&self) -> usize {
        self.line.lock().as_deref().map_or(0, Line::waiting)
    }

    /// How many were granted their permits and have not claimed them yet.
    pub(super) fn unclaimed(&self) -> usize {
        let guard = self.line.lock();
        let granted = guard.as_deref().map_or(0, |line| line.granted);
        granted.saturating_sub(self.claimed.load(Ordering::Relaxed))
    }

    /// Takes `need` permits if they are free and nobody waits.
    #[inline]
    pub(super) fn try_take(&self, need: usize) -> Result<(), TryAcquireError> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            // In one comparison: with neither flag set the word is the permits alone.
            if word & (SLOW | CLOSED) != 0 || word >> SHIFT < need {
                return Self::refuse(word, need);
            }
            // Acquire: pairs with the Release of every addition to the word.
            match self.word.compare_exchange_weak(
                word,
                word - (need << SHIFT),
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(actual) => word = actual,
            }
        }
    }

    #[cold]
    fn refuse(word: usize, need: usize) -> Result<(), TryAcquireError> {
        if word & CLOSED != 0 {
            Err(TryAcquireError::Closed)
        } else if need == 0 {
            Ok(())
        } else {
            Err(TryAcquireError::NoPermits)
        }
    }

    /// Takes `need` permits, or a place in line for them.
    #[cold]
    pub(super) fn join(&self, need: u32, waker: Waker) -> Result<Joined, AcquireError> {
        // `waker` outlives the guard: arguments are dropped after locals.
        let now = self.now();
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
            let enough = word >> SHIFT >= need as usize;
            let next = if enough { word - ((need as usize) << SHIFT) } else { word | SLOW };
            match self.word.compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) if enough => return Ok(Joined::Taken),
                Ok(_) => break,
                Err(actual) => word = actual,
            }
        }
        Ok(Joined::Queued(guard.get_or_insert_default().join(need, waker, now)))
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
        // Wakers outlive the guard: arguments, and what is returned, are dropped after it.
        let mut guard = self.line.lock();
        let line = guard.as_deref_mut().filter(|line| line.is_waiting(ticket))?;
        let replaced = line.rewake(ticket, fresh);
        drop(guard);
        drop(replaced);
        Some(())
    }

    /// Gives up a ticket, and passes on the `need` permits if they were granted to it.
    #[cold]
    pub(super) fn leave(&self, ticket: Ticket, need: u32) {
        let mut guard = self.line.lock();
        let Some(line) = guard.as_deref_mut() else { return };
        if !line.is_waiting(ticket) {
            let served = self.claim(ticket);
            line.stats.cancellations += u64::from(served && !self.is_closed());
            drop(guard);
            if served {
                self.release(need as usize);
            }
            return;
        }
        let was_head = line.is_head(ticket);
        let waker = line.leave(ticket);
        // Whoever stands behind the head may need less than it did.
        let served = if was_head { self.grant_one(line) } else { Served::default() };
        drop(guard);
        self.wake(served);
        drop(waker);
    }

    /// Gives back permits that were taken from this semaphore.
    #[inline]
    pub(super) fn release(&self, permits: usize) {
        // Release: pairs with the Acquire of whoever takes them.
        let added = permits << SHIFT;
        let before = self.word.fetch_add(added, Ordering::Release);
        if before.wrapping_add(added) & (SLOW | OVERFLOW) != 0 {
            self.release_slow(permits, before);
        }
    }

    #[cold]
    fn release_slow(&self, permits: usize, before: usize) {
        if (before >> SHIFT) + permits > MAX_PERMITS {
            self.word.fetch_sub(permits << SHIFT, Ordering::Relaxed);
            overflow(permits);
        }
        self.serve();
    }

    /// Adds permits that were never taken.
    ///
    /// # Panics
    ///
    /// If there would be more than `MAX_PERMITS`; none is added then.
    pub(super) fn add(&self, permits: usize) {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            // Saturating: a release that overflows is in the word until it is undone.
            if permits > MAX_PERMITS.saturating_sub(word >> SHIFT) {
                overflow(permits);
            }
            match self.word.compare_exchange_weak(
                word,
                word + (permits << SHIFT),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(actual) => word = actual,
            }
        }
        self.limit.fetch_add(permits, Ordering::Release);
        if word & SLOW != 0 {
            self.serve();
        }
    }

    /// Takes up to `permits` free ones out of circulation, and says how many.
    pub(super) fn forget_free(&self, permits: usize) -> usize {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let free = if word & SLOW == 0 { word >> SHIFT } else { 0 };
            let taken = free.min(permits);
            if taken == 0 {
                return 0;
            }
            match self.word.compare_exchange_weak(
                word,
                word - (taken << SHIFT),
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    self.limit.fetch_sub(taken, Ordering::Release);
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
        let mut limit = self.limit.load(Ordering::Relaxed);
        loop {
            let excess = permits.saturating_sub(limit);
            match self.limit.compare_exchange_weak(
                limit,
                limit - (permits - excess),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) if excess == 0 => return,
                Ok(_) => return self.forgive(excess),
                Err(actual) => limit = actual,
            }
        }
    }

    #[cold]
    fn forgive(&self, permits: usize) {
        let mut guard = self.line.lock();
        let line = guard.get_or_insert_default();
        line.debt = line.debt.saturating_sub(permits);
        let served = self.grant_one(line);
        drop(guard);
        self.wake(served);
    }

    /// Makes the limit `permits`: adds what lacks, or takes what is free and owes the rest.
    pub(super) fn set_limit(&self, permits: usize) {
        let mut guard = self.line.lock();
        let line = guard.get_or_insert_default();
        let limit = self.limit.load(Ordering::Acquire);
        if permits < limit {
            let excess = limit - permits;
            let mut word = self.word.load(Ordering::Relaxed);
            loop {
                let taken = excess.min(word >> SHIFT);
                let owes = if taken < excess { SLOW } else { 0 };
                match self.word.compare_exchange_weak(
                    word,
                    (word - (taken << SHIFT)) | owes,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        line.debt += excess - taken;
                        self.limit.fetch_sub(excess, Ordering::Release);
                        return;
                    }
                    Err(actual) => word = actual,
                }
            }
        }
        let lacking = permits - limit;
        let forgiven = lacking.min(line.debt);
        line.debt -= forgiven;
        self.word.fetch_add((lacking - forgiven) << SHIFT, Ordering::Release);
        self.limit.fetch_add(lacking, Ordering::Release);
        let served = self.grant_one(line);
        drop(guard);
        self.wake(served);
    }

    /// Fails everybody who waits and everybody who comes later.
    pub(super) fn close(&self) {
        let mut wakers = WakeList::new();
        loop {
            let mut guard = self.line.lock();
            // Under the lock, so that nobody joins the line after it was emptied.
            self.word.fetch_or(CLOSED, Ordering::AcqRel);
            let Some(line) = guard.as_deref_mut() else { break };
            while let Some(waker) = line.dismiss_head() {
                wakers.push(waker);
                if wakers.is_full() {
                    break;
                }
            }
            let done = line.head_need().is_none();
            if done && line.is_idle() {
                self.word.fetch_and(!SLOW, Ordering::Relaxed);
            }
            drop(guard);
            wakers.wake_all();
            if done {
                break;
            }
        }
        wakers.finish();
    }

    #[cold]
    fn serve(&self) {
        let mut guard = self.line.lock();
        let served = guard.as_deref_mut().map_or_else(Served::default, |line| self.grant_one(line));
        drop(guard);
        self.wake(served);
    }

    /// With the lock held: serves the head of the line alone. Mostly that is all there is to do,
    /// and it wants no list of wakers.
    fn grant_one(&self, line: &mut Line) -> Served {
        let mut first = None;
        let more = self.grant(line, 1, |waker| first = Some(waker));
        Served { first, more }
    }

    /// Without the lock: wakes the one who was served, and serves and wakes whoever else can be.
    fn wake(&self, Served { first, more }: Served) {
        if more {
            self.wake_more(first);
        } else if let Some(waker) = first {
            waker.wake();
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
                self.grant(line, WakeList::CAPACITY, |waker| wakers.push(waker))
            });
        }
    }

    /// With the lock held: pays debt, then serves the line from its head, `room` of them at the
    /// most, and says whether there are more who can be served.
    fn grant(&self, line: &mut Line, room: usize, mut served: impl FnMut(Waker)) -> bool {
        // Acquire: what was written before a release happens before what the granted one does.
        let word = self.word.load(Ordering::Acquire);
        if word & SLOW == 0 {
            return false;
        }
        let mut left = word >> SHIFT;
        let paid = left.min(line.debt);
        line.debt -= paid;
        left -= paid;
        let mut more = false;
        if word & CLOSED == 0 && line.debt == 0 {
            let now = self.now();
            let mut granted = 0;
            let mut last = None;
            while let Some(need) = line.head_need().filter(|&need| need <= left) {
                more = granted == room;
                if more {
                    break;
                }
                let Some((number, waker)) = line.grant_head(now) else { break };
                left -= need;
                granted += 1;
                last = Some(number);
                served(waker);
            }
            if let Some(number) = last {
                self.served.store(number, Ordering::Release);
            }
        }
        // The word may have grown meanwhile: take the difference out, and the flag in the same
        // step. Whoever added to it waits for the lock and looks again.
        let spent = (word & !(SLOW | CLOSED)) - (left << SHIFT);
        let idle = if line.is_idle() { SLOW } else { 0 };
        if spent | idle != 0 {
            self.word.fetch_sub(spent | idle, Ordering::Relaxed);
        }
        more
    }
}

#[cold]
#[track_caller]
fn overflow(permits: usize) -> ! {
    panic!("number of added permits ({permits}) would overflow MAX_PERMITS ({MAX_PERMITS})")
}
