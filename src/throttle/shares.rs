//! The places of a sliding window, dealt out among a few locks: threads that start at the same time
//! find their own lock, and do not wait for each other nor for each other's cache lines.
//!
//! Whoever has a place that is free now may have it, whichever it is. Which place is free first, how
//! many are, and who is in line is asked with all locks held: that of the line, then those of the
//! shares from the first on.

use core::cell::Cell;

use super::line::Line;
use super::meter::Meter;
use super::window::{Places, Window};
use crate::base::sync::{
    AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lock_briefly, thread_local,
};

/// The most shares.
const MOST: usize = 4;

/// How many places a share has at least if there are several.
const PLACES: u32 = if cfg!(loom) { 1 } else { 128 };

thread_local! {
    /// The share that served the thread last.
    // loom's macro knows no constants.
    #[allow(clippy::missing_const_for_thread_local)]
    static HOME: Cell<usize> = Cell::new(0);
}

#[derive(Debug)]
pub(super) struct Shares {
    line: Mutex<Line>,
    shares: Box<[OneLine<Mutex<Share>>]>,
    /// No place is free before, in none of several shares: nothing that starts makes it earlier.
    /// Zero if nothing is known. It is exact: what starts later does so with all locks held.
    none_before: AtomicU64,
    /// Whether threads look for their own shares: all have the first one at first.
    settled: AtomicUsize,
}

/// What a start changes is in one cache line: the lock, and right behind it the rest.
#[derive(Debug)]
#[repr(align(64))]
struct OneLine<T>(T);

#[derive(Debug)]
struct Share {
    places: Places,
    /// Somebody waits in line, who would be passed.
    closed: bool,
}

impl Shares {
    pub(super) fn new(Window { limit, length }: Window) -> Self {
        let count = (limit / PLACES).clamp(1, MOST as u32);
        let share = |number| {
            let limit = limit / count + u32::from(number < limit % count);
            let places = Places::new(Window { limit, length });
            OneLine(Mutex::new(Share { places, closed: false }))
        };
        Self {
            line: Mutex::new(Line::default()),
            shares: (0..count).map(share).collect(),
            none_before: AtomicU64::new(0),
            settled: AtomicUsize::new(0),
        }
    }

    /// Where this thread looks first.
    #[inline]
    fn home(&self) -> usize {
        // A branch is foretold; the number itself would be waited for.
        if self.settled.load(Ordering::Relaxed) == 0 { 0 } else { HOME.with(Cell::get) }
    }

    /// When one may start, and whether it has: unless that is after `latest`. `None` if that takes
    /// all locks to say.
    #[inline]
    pub(super) fn start_one(&self, now: u64, latest: u64) -> Option<(u64, bool)> {
        if let Some(OneLine(share)) = self.shares.get(self.home()) {
            if let Some(mut share) = share.try_lock() {
                if !share.closed && share.places.start_now(now) {
                    return Some((now, true));
                }
            }
        }
        self.start_elsewhere(now, latest)
    }

    /// Its own share was closed or locked, or had no place.
    #[cold]
    fn start_elsewhere(&self, now: u64, latest: u64) -> Option<(u64, bool)> {
        let [OneLine(only)] = &*self.shares else { return self.start_in_any(now, latest) };
        let Share { places, closed: false } = &mut *lock_briefly(only) else { return None };
        let when = places.next_free(now);
        if when > latest {
            return Some((when, false));
        }
        places.take(now, when);
        Some((when, true))
    }

    /// Settles in the first share that has a place.
    fn start_in_any(&self, now: u64, latest: u64) -> Option<(u64, bool)> {
        let none_before = self.none_before.load(Ordering::Relaxed);
        if none_before > now {
            return (none_before > latest).then_some((none_before, false));
        }
        let (home, count) = (self.home(), self.shares.len());
        for step in 1..=count {
            let at = (home + step) % count;
            let OneLine(share) = &self.shares[at];
            // Waits for the last alone, its own.
            let share = if step < count { share.try_lock() } else { Some(lock_briefly(share)) };
            let Some(mut share) = share else { continue };
            if share.closed {
                return None;
            }
            if share.places.start_now(now) {
                self.settle(at);
                return Some((now, true));
            }
        }
        None
    }

    fn settle(&self, at: usize) {
        HOME.with(|home| home.set(at));
        if at != 0 && self.settled.load(Ordering::Relaxed) == 0 {
            self.settled.store(1, Ordering::Relaxed);
        }
    }

    /// The instant from which on nothing that has started counts any more.
    pub(super) fn at_rest(&self) -> u64 {
        let last = |OneLine(share): &OneLine<Mutex<Share>>| share.lock().places.last();
        self.shares.iter().map(last).max().unwrap_or(0)
    }

    pub(super) fn waiters(&self) -> usize {
        self.line.lock().len()
    }

    /// With all locks held.
    pub(super) fn locked<T>(&self, work: impl FnOnce(&mut Line, &mut dyn Meter) -> T) -> T {
        let mut line = self.line.lock();
        let mut whole =
            Whole(core::array::from_fn(|at| self.shares.get(at).map(|share| share.0.lock())));
        let result = work(&mut line, &mut whole);
        for share in whole.each_mut() {
            share.closed = !line.is_clear();
        }
        if self.shares.len() > 1 {
            let none_before = if line.is_clear() { whole.earliest(1, 0) } else { 0 };
            self.none_before.store(none_before, Ordering::Relaxed);
        }
        result
    }
}

/// All shares, locked.
struct Whole<'a>([Option<MutexGuard<'a, Share>>; MOST]);

impl Whole<'_> {
    fn each(&self) -> impl Iterator<Item = &Places> {
        self.0.iter().flatten().map(|share| &share.places)
    }

    fn each_mut(&mut self) -> impl Iterator<Item = &mut Share> {
        self.0.iter_mut().flatten().map(|share| &mut **share)
    }
}

impl Meter for Whole<'_> {
    fn earliest(&self, n: u32, now: u64) -> u64 {
        if n == 1 {
            return self.each().map(|places| places.next_free(now)).min().unwrap_or(now);
        }
        let others: u32 = self.each().map(Places::others).sum();
        let mut rings: [_; MOST] = core::array::from_fn(|at| {
            let share = self.0[at].as_ref();
            share.into_iter().flat_map(|share| share.places.in_order())
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
        // As if each share served its part of the line.
        let count = self.each().count() as u64;
        let each = (ahead + u64::from(n)).div_ceil(count);
        self.each().map(|places| places.nth(each, now)).max().unwrap_or(now)
    }

    fn start(&mut self, n: u32, now: u64) -> u64 {
        let when = self.earliest(n, now);
        for _ in 0..n {
            let share = self.each_mut().min_by_key(|share| share.places.next_free(now));
            let Some(share) = share else { unreachable!("there is at least one") };
            share.places.take(now, when);
        }
        when
    }
}
