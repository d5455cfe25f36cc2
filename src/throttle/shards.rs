//! The slots of a sliding window, split among a few locks: threads that start at the same time find
//! their own lock, and do not wait for each other nor for each other's cache lines.
//!
//! Any slot that is free now will do. Which slot is free first, how many are, and which waiters are
//! present is looked up with all locks held: that of the waiters, then those of the shards from the
//! first on.

use core::cell::Cell;

use super::meter::Meter;
use super::waiters::Waiters;
use super::window::{Slots, Window};
use crate::base::sync::{
    AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lock_briefly, thread_local,
};

/// The most shards.
const MAX_SHARDS: usize = 4;

/// How many slots a shard has at least if there are several.
const MIN_SLOTS: u32 = if cfg!(loom) { 1 } else { 128 };

thread_local! {
    /// The shard that served the thread last.
    // loom's macro knows no constants.
    #[allow(clippy::missing_const_for_thread_local)]
    static LAST_SHARD: Cell<usize> = Cell::new(0);
}

#[derive(Debug)]
pub(super) struct Shards {
    waiters: Mutex<Waiters>,
    shards: Box<[CacheLine<Mutex<Shard>>]>,
    /// No slot is free before, in none of several shards: nothing that starts makes it earlier.
    /// Zero if nothing is known. It is exact: what starts later does so with all locks held.
    none_before: AtomicU64,
    /// Whether threads look for their own shards: all have the first one at first.
    spread: AtomicUsize,
}

/// What a start changes is in one cache line: the lock, and right behind it the rest.
#[derive(Debug)]
#[repr(align(64))]
struct CacheLine<T>(T);

#[derive(Debug)]
struct Shard {
    slots: Slots,
    /// Waiters are present, who would be passed.
    has_waiters: bool,
}

impl Shards {
    pub(super) fn new(Window { limit, length }: Window) -> Self {
        let count = (limit / MIN_SLOTS).clamp(1, MAX_SHARDS as u32);
        let shard = |number| {
            let limit = limit / count + u32::from(number < limit % count);
            let slots = Slots::new(Window { limit, length });
            CacheLine(Mutex::new(Shard { slots, has_waiters: false }))
        };
        Self {
            waiters: Mutex::new(Waiters::new()),
            shards: (0..count).map(shard).collect(),
            none_before: AtomicU64::new(0),
            spread: AtomicUsize::new(0),
        }
    }

    /// Where this thread looks first.
    #[inline]
    fn own(&self) -> usize {
        // A branch is foretold; the number itself would be waited for.
        if self.spread.load(Ordering::Relaxed) == 0 { 0 } else { LAST_SHARD.with(Cell::get) }
    }

    /// When one may start, and whether it has: unless that is after `latest`. `None` if that takes
    /// all locks to say.
    #[inline]
    pub(super) fn start_one(&self, now: u64, latest: u64) -> Option<(u64, bool)> {
        if let Some(CacheLine(shard)) = self.shards.get(self.own()) {
            if let Some(mut shard) = shard.try_lock() {
                if !shard.has_waiters && shard.slots.start_now(now) {
                    return Some((now, true));
                }
            }
        }
        self.start_elsewhere(now, latest)
    }

    /// Its own shard was locked, had no free slot, or waiters are present.
    #[cold]
    fn start_elsewhere(&self, now: u64, latest: u64) -> Option<(u64, bool)> {
        let [CacheLine(only)] = &*self.shards else { return self.start_in_any(now, latest) };
        let Shard { slots, has_waiters: false } = &mut *lock_briefly(only) else { return None };
        let when = slots.next_free(now);
        if when > latest {
            return Some((when, false));
        }
        slots.take(now, when);
        Some((when, true))
    }

    /// Moves the thread to the first shard that has a free slot.
    fn start_in_any(&self, now: u64, latest: u64) -> Option<(u64, bool)> {
        let none_before = self.none_before.load(Ordering::Relaxed);
        if none_before > now {
            return (none_before > latest).then_some((none_before, false));
        }
        let (own, count) = (self.own(), self.shards.len());
        for step in 1..=count {
            let at = (own + step) % count;
            let CacheLine(shard) = &self.shards[at];
            // Waits for the last alone, its own.
            let shard = if step < count { shard.try_lock() } else { Some(lock_briefly(shard)) };
            let Some(mut shard) = shard else { continue };
            if shard.has_waiters {
                return None;
            }
            if shard.slots.start_now(now) {
                self.move_to(at);
                return Some((now, true));
            }
        }
        None
    }

    fn move_to(&self, at: usize) {
        LAST_SHARD.with(|last| last.set(at));
        if at != 0 && self.spread.load(Ordering::Relaxed) == 0 {
            self.spread.store(1, Ordering::Relaxed);
        }
    }

    /// The instant from which on nothing that has started counts any more.
    pub(super) fn expires_at(&self) -> u64 {
        let last = |CacheLine(shard): &CacheLine<Mutex<Shard>>| shard.lock().slots.last();
        self.shards.iter().map(last).max().unwrap_or(0)
    }

    pub(super) fn waiters(&self) -> usize {
        self.waiters.lock().len()
    }

    #[cfg(debug_assertions)]
    pub(super) fn validate(&self) {
        let waiters = self.waiters.lock();
        waiters.validate();
        for CacheLine(shard) in &self.shards {
            assert_eq!(shard.lock().has_waiters, !waiters.none_present(), "the fast path");
        }
    }

    /// With all locks held.
    pub(super) fn locked<T>(&self, work: impl FnOnce(&mut Waiters, &mut dyn Meter) -> T) -> T {
        let mut waiters = self.waiters.lock();
        let mut all =
            AllShards(core::array::from_fn(|at| self.shards.get(at).map(|shard| shard.0.lock())));
        let result = work(&mut waiters, &mut all);
        for shard in all.each_mut() {
            shard.has_waiters = !waiters.none_present();
        }
        if self.shards.len() > 1 {
            let none_before = if waiters.none_present() { all.earliest(1, 0) } else { 0 };
            self.none_before.store(none_before, Ordering::Relaxed);
        }
        result
    }
}

/// All shards, locked.
struct AllShards<'a>([Option<MutexGuard<'a, Shard>>; MAX_SHARDS]);

impl AllShards<'_> {
    fn each(&self) -> impl Iterator<Item = &Slots> {
        self.0.iter().flatten().map(|shard| &shard.slots)
    }

    fn each_mut(&mut self) -> impl Iterator<Item = &mut Shard> {
        self.0.iter_mut().flatten().map(|shard| &mut **shard)
    }
}

impl Meter for AllShards<'_> {
    fn earliest(&self, n: u32, now: u64) -> u64 {
        if n == 1 {
            return self.each().map(|slots| slots.next_free(now)).min().unwrap_or(now);
        }
        let others: u32 = self.each().map(Slots::others).sum();
        let mut rings: [_; MAX_SHARDS] = core::array::from_fn(|at| {
            let shard = self.0[at].as_ref();
            shard.into_iter().flat_map(|shard| shard.slots.in_order())
        });
        let mut heads = rings.each_mut().map(Iterator::next);
        let mut when = now;
        for _ in others..n {
            let first =
                heads.iter().enumerate().filter_map(|(at, free)| Some(((*free)?, at))).min();
            let Some((free, at)) = first else { break };
            when = when.max(free);
            heads[at] = rings[at].next();
        }
        when
    }

    fn earliest_behind(&self, ahead: u64, n: u32, now: u64) -> u64 {
        // As if each shard served its part of the waiters.
        let count = self.each().count() as u64;
        let each = (ahead + u64::from(n)).div_ceil(count);
        self.each().map(|slots| slots.nth(each, now)).max().unwrap_or(now)
    }

    fn start(&mut self, n: u32, now: u64) -> u64 {
        let when = self.earliest(n, now);
        for _ in 0..n {
            let shard = self.each_mut().min_by_key(|shard| shard.slots.next_free(now));
            let Some(shard) = shard else { unreachable!("there is at least one") };
            shard.slots.take(now, when);
        }
        when
    }
}
