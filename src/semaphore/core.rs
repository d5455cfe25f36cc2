//! The semaphore's core: one word for the fast path, one lock for the slow path.
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
//!                    │       no waiters and debt paid                   │
//!                    └───────────────────┬──────────────────────────────┘
//!                                        ▼ close
//!                                     CLOSED: no permits are given any more
//! ```
//!
//! - `SLOW` is set exactly while there are waiters or a debt; it changes only under the lock.
//!   While it is set, only releases change the permits without the lock, and they only add.
//! - Permits stay in the word until the first waiter can be served whole.
//! - An addition that finds `SLOW` locks and serves; a waiter that sets `SLOW` holds the lock
//!   and has just seen too few permits. One word, so neither can miss the other.
//! - Waiters are served in the order of their numbers, so one number, that of the waiter served last,
//!   tells all of them whether they were: a look takes no lock. A waiter that leaves from the middle
//!   leaves a gap in the numbers, which no look meets.

use core::task::Waker;

use super::error::{AcquireError, TryAcquireError};
use super::stats::SemaphoreStats;
use super::waiters::{Request, Waiters};
use crate::base::panic::{FirstPanic, unless_unwinding};
use crate::base::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::base::wait_list::WaiterId;
use crate::base::wake::WakeList;

/// The most permits that a semaphore can have.
pub(super) const MAX_PERMITS: usize = usize::MAX >> 3;

/// The flags are above the permits, with an unused bit between: one comparison with `MAX_PERMITS`
/// detects a flag, an addition that went too far and a subtraction that wrapped.
const CLOSED: usize = 1 << (usize::BITS - 1);
const SLOW: usize = CLOSED >> 1;
const PERMITS: usize = !(CLOSED | SLOW);

/// A release of more than this checks for an overflow before it adds. Smaller ones add first: thousands
/// of them at once do not reach the flags.
const LARGE: usize = MAX_PERMITS >> 13;

pub(super) struct Core {
    word: AtomicUsize,
    /// Available + held − owed: all there would be if every permit came back. Changes only under
    /// the lock, together with what it is the sum of.
    limit: AtomicUsize,
    /// The number of the waiter served last; changes only under the lock.
    served: AtomicU64,
    /// Waiters that were served and have fetched their permits, or given them up.
    claimed: AtomicU64,
    /// Those that gave them up.
    declined: AtomicU64,
    /// Made when the first waiter comes, so that a semaphore stays small.
    waiters: Mutex<Option<Box<Waiters>>>,
}

type Guard<'a> = MutexGuard<'a, Option<Box<Waiters>>>;

/// What a step under the lock has served: wakers leave it before they are woken.
struct Served {
    first: Option<Waker>,
    /// Other waiters can be served.
    more: bool,
}

/// What to do with enough free permits, if there are no waiters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfFree {
    Take,
    Leave,
}

/// What became of a request to wait. Wakers that are not needed come back.
pub(super) enum Joined {
    /// Took so many permits, without waiting.
    Taken(u32, Waker),
    /// The permits are free, and were left.
    Free(Waker),
    Waiting(WaiterId),
}

/// Whether `need` permits can be taken from a word at once: no flag is set, and there are enough.
#[inline]
fn has(word: usize, need: usize) -> bool {
    word.wrapping_sub(need) <= MAX_PERMITS && need <= MAX_PERMITS
}

macro_rules! core {
    ($permits:expr) => {
        Self {
            word: AtomicUsize::new($permits),
            limit: AtomicUsize::new($permits),
            served: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            declined: AtomicU64::new(0),
            waiters: Mutex::new(None),
        }
    };
}

impl Core {
    #[cfg(not(loom))]
    pub(super) const fn new(permits: usize) -> Self {
        core!(permits)
    }

    #[cfg(loom)]
    pub(super) fn new(permits: usize) -> Self {
        core!(permits)
    }

    pub(super) fn with_wait_times(permits: usize) -> Self {
        let waiters = Mutex::new(Some(Box::new(Waiters::with_wait_times())));
        Self { waiters, ..Self::new(permits) }
    }

    pub(super) fn stats(&self) -> SemaphoreStats {
        let guard = self.waiters.lock();
        let declined = self.declined.load(Ordering::Relaxed);
        guard.as_deref().map(Waiters::counts).map_or_else(SemaphoreStats::default, |counts| {
            SemaphoreStats {
                waits: counts.joined,
                cancellations: counts.left + declined,
                peak_waiters: counts.peak,
                wait_times: counts.times,
            }
        })
    }

    pub(super) fn available(&self) -> usize {
        let word = self.word.load(Ordering::Acquire);
        if word & SLOW == 0 { word & PERMITS } else { 0 }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.word.load(Ordering::Acquire) & CLOSED != 0
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiters.lock().as_deref().map_or(0, Waiters::len)
    }

    /// Waiters that were granted their permits and have not claimed them yet.
    pub(super) fn unclaimed(&self) -> usize {
        let guard = self.waiters.lock();
        let granted = guard.as_deref().map_or(0, |waiters| waiters.counts().granted);
        let unclaimed = granted.saturating_sub(self.claimed.load(Ordering::Relaxed));
        usize::try_from(unclaimed).unwrap_or(usize::MAX)
    }

    /// The word, for [`take_from`](Self::take_from), if `need` permits are free and there are no
    /// waiters.
    #[inline]
    pub(super) fn word_with(&self, need: usize) -> Option<usize> {
        let word = self.word.load(Ordering::Relaxed);
        has(word, need).then_some(word)
    }

    /// Takes `need` permits, which `word` [has](Self::word_with), if they are still free and there are
    /// no waiters. Says whether it did.
    #[inline]
    pub(super) fn take_from(&self, word: usize, need: usize) -> bool {
        let left = word.wrapping_sub(need);
        // Acquire: pairs with the Release of every addition to the word.
        self.word.compare_exchange_weak(word, left, Ordering::Acquire, Ordering::Relaxed).is_ok()
            || self.take_contended(need)
    }

    #[cold]
    fn take_contended(&self, need: usize) -> bool {
        let step = |word| has(word, need).then(|| word - need);
        self.word.fetch_update(Ordering::Acquire, Ordering::Relaxed, step).is_ok()
    }

    /// Takes `need` permits if they are free and there are no waiters.
    #[inline]
    pub(super) fn try_take(&self, need: usize) -> Result<(), TryAcquireError> {
        let word = self.word.load(Ordering::Relaxed);
        if has(word, need) && self.take_from(word, need) { Ok(()) } else { self.refuse(need) }
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
    pub(super) fn must_wait(&self, need: usize) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        word & CLOSED == 0 && need != 0 && (word & SLOW != 0 || word < need)
    }

    /// Joins the wait list, unless the permits are free and there are no waiters.
    #[cold]
    pub(super) fn join(
        &self,
        request: Request,
        waker: Waker,
        if_free: IfFree,
    ) -> Result<Joined, AcquireError> {
        // `waker` outlives the guard: arguments are dropped after locals.
        let mut guard = self.waiters.lock();
        let need = request.need(self.limit());
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(AcquireError(()));
            }
            // Unlike `has`, with permits that a release is about to take out again: a waiter for them
            // would not be served.
            let enough = need == 0 || (word & SLOW == 0 && word >= need as usize);
            if enough && if_free == IfFree::Leave {
                return Ok(Joined::Free(waker));
            }
            if !enough && word & SLOW != 0 {
                break;
            }
            // Releases do not wait for the lock: the flag is set in the step that sees too few permits.
            let next = if enough { word - need as usize } else { word | SLOW };
            match self.word.compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) if enough => return Ok(Joined::Taken(need, waker)),
                Ok(_) => break,
                Err(actual) => word = actual,
            }
        }
        Ok(Joined::Waiting(guard.get_or_insert_default().push(request, waker)))
    }

    /// Fetches the permits of a waiter, if it was granted them. Its id is used up then.
    #[inline]
    pub(super) fn claim(&self, id: WaiterId, request: Request) -> Option<u32> {
        // Acquire: pairs with the Release in `grant`.
        if self.served.load(Ordering::Acquire) < id.number() {
            return None;
        }
        self.claimed.fetch_add(1, Ordering::Relaxed);
        Some(if request.clamped { self.claim_clamped(id)? } else { request.permits })
    }

    #[cold]
    fn claim_clamped(&self, id: WaiterId) -> Option<u32> {
        self.waiters.lock().as_deref_mut()?.take_clamped_grant(id)
    }

    /// Leaves `fresh` to be woken instead of the waker before; `None` if the waiter is not in the list
    /// any more.
    #[cold]
    pub(super) fn rewake(&self, id: WaiterId, fresh: Waker) -> Option<()> {
        let mut guard = self.waiters.lock();
        let waker = guard.as_deref_mut()?.waker(id)?;
        let replaced = core::mem::replace(waker, fresh);
        drop(guard);
        drop(replaced);
        Some(())
    }

    /// Takes a waiter out of the list, or passes on the permits that it was granted.
    #[cold]
    pub(super) fn leave(&self, id: WaiterId, request: Request) {
        let mut guard = self.waiters.lock();
        let Some(waiters) = guard.as_deref_mut() else { return };
        let Some((was_first, waker)) = waiters.remove(id) else {
            drop(guard);
            if let Some(granted) = self.claim(id, request) {
                let declined = u64::from(!self.is_closed());
                self.declined.fetch_add(declined, Ordering::Relaxed);
                self.release(granted as usize);
            }
            return;
        };
        // The waiter behind the first may need less than it did. One that leaves from the middle
        // changes nothing for the others.
        let served = was_first.then(|| self.grant_one(waiters, 0));
        drop(guard);
        let Some(served) = served else { return unless_unwinding(|| drop(waker)) };
        let mut panic = FirstPanic::default();
        panic.catch(|| self.wake(served));
        panic.catch(|| drop(waker));
        panic.resume();
    }

    /// Returns permits that were taken from this semaphore.
    #[inline]
    pub(super) fn release(&self, permits: usize) {
        if permits > LARGE {
            return self.release_locked(permits);
        }
        // Release: pairs with the Acquire of the call that takes them.
        let before = self.word.fetch_add(permits, Ordering::Release);
        if before.wrapping_add(permits) > MAX_PERMITS {
            self.added(permits, before);
        }
    }

    /// The lock keeps the addition from going too far.
    #[cold]
    fn release_locked(&self, permits: usize) {
        if !self.give(self.waiters.lock(), permits, 0) {
            self.lose(permits);
        }
    }

    /// The rest of a release that met a flag, or went too far.
    #[cold]
    fn added(&self, permits: usize, before: usize) {
        if self.undo_overflow(permits, before) {
            self.lose(permits);
        }
        if before & SLOW != 0 {
            self.release_locked(0);
        }
    }

    /// Permits that would be too many as they come back are lost, so that the limit does not count them.
    #[track_caller]
    fn lose(&self, permits: usize) -> ! {
        self.forget_held(permits);
        overflow(permits)
    }

    /// Takes an addition out again that went too far, unless others have taken so many permits since
    /// that it does not any more. Says whether it did.
    fn undo_overflow(&self, permits: usize, before: usize) -> bool {
        let step = |word: usize| (word & PERMITS > MAX_PERMITS).then(|| word - permits);
        (before & PERMITS) + permits > MAX_PERMITS
            && self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok()
    }

    /// Adds permits that were never taken.
    ///
    /// # Panics
    ///
    /// If more than `MAX_PERMITS` would be free, or `usize::MAX` in circulation; none is added then.
    #[track_caller]
    pub(super) fn add(&self, permits: usize) {
        if !self.give(self.waiters.lock(), permits, permits) {
            overflow(permits);
        }
    }

    /// Gives permits to the waiters, and the rest to the word; raises the limit by `new`. Says whether
    /// they fitted; if not, nothing has changed.
    #[must_use]
    fn give(&self, mut guard: Guard<'_>, permits: usize, new: usize) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        let limit = self.limit.load(Ordering::Relaxed);
        let fits = permits <= MAX_PERMITS.saturating_sub(word & PERMITS);
        let Some(limit) = limit.checked_add(new).filter(|_| fits) else { return false };
        let Some(waiters) = guard.as_deref_mut().filter(|_| word & SLOW != 0) else {
            let before = self.word.fetch_add(permits, Ordering::Release);
            // A release, which takes no lock, may have been quicker.
            let fits = !self.undo_overflow(permits, before);
            if fits {
                self.limit.store(limit, Ordering::Relaxed);
            }
            return fits;
        };
        self.limit.store(limit, Ordering::Relaxed);
        let served = self.grant_one(waiters, permits);
        drop(guard);
        self.wake(served);
        true
    }

    /// Takes up to `permits` free ones out of circulation, and says how many.
    pub(super) fn forget_free(&self, permits: usize) -> usize {
        let _guard = self.waiters.lock();
        let mut taken = 0;
        let step = |word: usize| {
            taken = if word & SLOW == 0 { permits.min(word & PERMITS) } else { 0 };
            (taken > 0).then(|| word - taken)
        };
        // Acquire: as in `take_from`.
        if self.word.fetch_update(Ordering::Acquire, Ordering::Relaxed, step).is_ok() {
            self.limit.fetch_sub(taken, Ordering::Relaxed);
        }
        taken
    }

    /// Permits that were taken will not come back.
    ///
    /// The limit cannot fall below zero: what goes beyond it was owed, and is owed no longer.
    pub(super) fn forget_held(&self, permits: usize) {
        let mut guard = self.waiters.lock();
        let limit = self.limit.load(Ordering::Relaxed);
        self.limit.store(limit.saturating_sub(permits), Ordering::Relaxed);
        let Some(waiters) = guard.as_deref_mut() else { return };
        waiters.debt = waiters.debt.saturating_sub(permits.saturating_sub(limit));
        let served = self.grant_one(waiters, 0);
        drop(guard);
        self.wake(served);
    }

    /// Makes the limit `permits`: adds what lacks, or takes what is free and owes the rest.
    pub(super) fn set_limit(&self, permits: usize) {
        let mut guard = self.waiters.lock();
        let limit = self.limit.load(Ordering::Relaxed);
        if permits >= limit {
            // What is owed is paid out of these first.
            let lacking = permits - limit;
            if !self.give(guard, lacking, lacking) {
                overflow(lacking);
            }
            return;
        }
        let excess = limit - permits;
        let mut owed = 0;
        let step = |word: usize| {
            owed = excess.saturating_sub(word & PERMITS);
            Some((word - (excess - owed)) | if owed > 0 { SLOW } else { 0 })
        };
        let _ = self.word.fetch_update(Ordering::Acquire, Ordering::Relaxed, step);
        self.limit.fetch_sub(excess, Ordering::Relaxed);
        if owed > 0 {
            guard.get_or_insert_default().debt += owed;
        }
        // No waiter can be served: a clamped one needs all permits that remain, of which some are held,
        // or it would have had all of those before.
    }

    /// Fails all waiters, and all that come later.
    pub(super) fn close(&self) {
        let mut guard = self.waiters.lock();
        // Under the lock, so that no waiter joins the list after it was emptied. The call that closed it
        // before is emptying it, and may be calling this from a waker.
        if self.word.fetch_or(CLOSED, Ordering::AcqRel) & CLOSED != 0 {
            return;
        }
        let mut wakers = WakeList::new();
        while let Some(waiters) = guard.as_deref_mut() {
            while !wakers.is_full() {
                let Some(waker) = waiters.dismiss() else { break };
                wakers.push(waker);
            }
            let done = waiters.len() == 0;
            if done && waiters.is_idle() {
                self.word.fetch_and(!SLOW, Ordering::Relaxed);
            }
            drop(guard);
            wakers.wake_all();
            if done {
                break;
            }
            guard = self.waiters.lock();
        }
        wakers.finish();
    }

    /// With the lock held: serves the first waiter alone. Mostly that is all there is to do, and it
    /// wants no list of wakers.
    fn grant_one(&self, waiters: &mut Waiters, returned: usize) -> Served {
        let mut first = None;
        let more = self.grant(waiters, returned, 1, |waker| first = Some(waker));
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
            let mut guard = self.waiters.lock();
            more = guard.as_deref_mut().is_some_and(|waiters| {
                self.grant(waiters, 0, WakeList::CAPACITY, |waker| wakers.push(waker))
            });
        }
    }

    /// With the lock held: pays debt, then serves waiters in order, `most` of them at the most, out of
    /// the word and the permits that are being `returned`; the rest of both stays in the word. Says
    /// whether more can be served.
    ///
    /// Nothing is returned unless `SLOW` is set.
    fn grant(
        &self,
        waiters: &mut Waiters,
        returned: usize,
        most: usize,
        mut served: impl FnMut(Waker),
    ) -> bool {
        // Acquire: what was written before a release happens before what the granted one does.
        let word = self.word.load(Ordering::Acquire);
        if word & SLOW == 0 {
            return false;
        }
        let mut left = (word & PERMITS) + returned;
        let paid = left.min(waiters.debt);
        waiters.debt -= paid;
        left -= paid;
        let mut more = false;
        if word & CLOSED == 0 {
            let limit = self.limit();
            let mut last = None;
            for _ in 0..most {
                let Some((number, waker)) = waiters.serve(&mut left, limit) else { break };
                last = Some(number);
                waker.into_iter().for_each(&mut served);
            }
            more = waiters.can_serve(left, limit);
            if let Some(number) = last {
                self.served.store(number, Ordering::Release);
            }
        }
        // The word may have grown meanwhile: change it by the difference, and clear the flag in
        // the same step. A call that added to it waits for the lock and looks again.
        let idle = if waiters.is_idle() { SLOW } else { 0 };
        let change = left.wrapping_sub(word & PERMITS).wrapping_sub(idle);
        if change != 0 {
            self.word.fetch_add(change, Ordering::Release);
        }
        more
    }

    /// Panics unless the word, the waiters and the counts agree. To be called while no other thread uses
    /// the semaphore.
    #[cfg(debug_assertions)]
    pub(super) fn validate(&self) {
        let guard = self.waiters.lock();
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let [served, claimed, declined] = [&self.served, &self.claimed, &self.declined].map(load);
        let word = self.word.load(Ordering::Relaxed);
        let (free, slow, closed) = (word & PERMITS, word & SLOW != 0, word & CLOSED != 0);
        assert!(free <= MAX_PERMITS, "{free} permits");
        let Some(waiters) = guard.as_deref() else {
            assert!(!slow && (served, claimed) == (0, 0), "served {served} without a wait list");
            return;
        };
        waiters.validate(served, closed);
        assert_eq!(slow, !waiters.is_idle(), "the flag; debt {}", waiters.debt);
        assert!(waiters.debt == 0 || free == 0, "{free} permits free, {} owed", waiters.debt);
        assert!(!waiters.can_serve(free, self.limit()), "a waiter that {free} permits can serve");
        let granted = waiters.counts().granted;
        assert!(granted >= claimed && claimed >= declined, "{granted}, {claimed}, {declined}");
    }
}

#[cold]
#[track_caller]
fn overflow(permits: usize) -> ! {
    panic!("number of added permits ({permits}) would overflow MAX_PERMITS ({MAX_PERMITS})")
}
