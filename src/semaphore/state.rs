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

use core::task::Waker;
use std::time::Instant;

use super::error::{AcquireError, TryAcquireError};
use super::line::{Key, Line};
use super::stats::SemaphoreStats;
use crate::sync::{AtomicUsize, Mutex, Ordering};
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
    /// Made when the first waiter comes, so that a semaphore stays small.
    line: Mutex<Option<Box<Line>>>,
    times_waits: bool,
}

/// What became of somebody who asked to wait.
pub(super) enum Joined {
    Taken,
    Queued(Key),
}

impl State {
    #[cfg(not(loom))]
    pub(super) const fn new(permits: usize) -> Self {
        Self {
            word: AtomicUsize::new(permits << SHIFT),
            limit: AtomicUsize::new(permits),
            line: Mutex::new(None),
            times_waits: false,
        }
    }

    #[cfg(loom)]
    pub(super) fn new(permits: usize) -> Self {
        Self {
            word: AtomicUsize::new(permits << SHIFT),
            limit: AtomicUsize::new(permits),
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

    pub(super) fn granted(&self) -> usize {
        self.line.lock().as_deref().map_or(0, Line::granted)
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

    /// Looks whether the place was granted; if not, leaves `fresh` to be woken instead of the
    /// waker before, if there is one.
    ///
    /// `None`: it still waits. Otherwise the place is gone, with its permits if it is `Ok`.
    pub(super) fn claim(&self, key: Key, fresh: Option<Waker>) -> Option<Result<(), AcquireError>> {
        if self.is_closed() {
            self.leave(key);
            return Some(Err(AcquireError(())));
        }
        let mut guard = self.line.lock();
        let line = guard.get_or_insert_default();
        if !line.is_waiting(key) {
            let granted = line.claim(key).is_some();
            return Some(if granted { Ok(()) } else { Err(AcquireError(())) });
        }
        let replaced = fresh.map(|fresh| line.rewake(key, fresh));
        drop(guard);
        drop(replaced);
        None
    }

    /// Gives up a place, and passes on what was granted to it.
    #[cold]
    pub(super) fn leave(&self, key: Key) {
        let mut guard = self.line.lock();
        let line = guard.get_or_insert_default();
        if !line.is_waiting(key) {
            let granted = line.claim(key);
            line.stats.cancellations += u64::from(granted.is_some());
            drop(guard);
            if let Some(granted) = granted {
                self.release(granted);
            }
            return;
        }
        let was_head = line.is_head(key);
        let waker = line.leave(key);
        line.stats.cancellations += 1;
        if was_head {
            // Whoever stands behind the head may need less than it did.
            let mut wakers = WakeList::new();
            let more = self.grant(line, &mut wakers);
            drop(guard);
            self.wake(wakers, more);
        } else {
            drop(guard);
        }
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
            if permits > MAX_PERMITS - (word >> SHIFT) {
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
        let mut wakers = WakeList::new();
        let more = self.grant(line, &mut wakers);
        drop(guard);
        self.wake(wakers, more);
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
        let mut wakers = WakeList::new();
        let more = self.grant(line, &mut wakers);
        drop(guard);
        self.wake(wakers, more);
    }

    /// Fails everybody who waits and everybody who comes later.
    pub(super) fn close(&self) {
        let mut wakers = WakeList::new();
        loop {
            let mut guard = self.line.lock();
            // Under the lock, so that nobody joins the line after it was emptied.
            self.word.fetch_or(CLOSED, Ordering::AcqRel);
            let Some(line) = guard.as_deref_mut() else { break };
            while !wakers.is_full() && line.head_need().is_some() {
                wakers.push(line.dismiss_head());
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
        self.wake(WakeList::new(), true);
    }

    /// Wakes those whom the caller has served, then serves and wakes while there is more.
    fn wake(&self, mut wakers: WakeList, mut more: bool) {
        loop {
            wakers.wake_all();
            if !more {
                return wakers.finish();
            }
            let mut guard = self.line.lock();
            more = guard.as_deref_mut().is_some_and(|line| self.grant(line, &mut wakers));
        }
    }

    /// With the lock held: pays debt, then serves the line from its head while there is room in
    /// `wakers`, and says whether there may be more to serve.
    fn grant(&self, line: &mut Line, wakers: &mut WakeList) -> bool {
        let now = self.now();
        // Acquire: what was written before a release happens before what the granted one does.
        let word = self.word.load(Ordering::Acquire);
        if word & SLOW == 0 {
            return false;
        }
        let mut left = word >> SHIFT;
        let paid = left.min(line.debt);
        line.debt -= paid;
        left -= paid;
        if word & CLOSED == 0 && line.debt == 0 {
            while !wakers.is_full() {
                let Some(need) = line.head_need().filter(|&need| need <= left) else { break };
                left -= need;
                wakers.push(line.grant_head(now));
            }
        }
        // The word may have grown meanwhile: take the difference out, and the flag in the same
        // step. Whoever added to it waits for the lock and looks again.
        let spent = (word & !(SLOW | CLOSED)) - (left << SHIFT);
        let idle = if line.is_idle() { SLOW } else { 0 };
        self.word.fetch_sub(spent | idle, Ordering::Relaxed);
        wakers.is_full()
    }
}

#[cold]
#[track_caller]
fn overflow(permits: usize) -> ! {
    panic!("number of added permits ({permits}) would overflow MAX_PERMITS ({MAX_PERMITS})")
}
