//! The strict sliding window: each start takes one of `limit` places, and has it for the length of
//! the window. So there are never more than `limit` starts in any half-open window: two in the same
//! place are at least its length apart. This holds whatever the order of the instants.

use super::meter::Meter;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) limit: u32,
    /// In ticks.
    pub(super) length: u64,
}

#[derive(Debug)]
pub(super) struct Starts {
    window: Window,
    /// When each place is free again: a ring, about in order from `next` on. It has no more places
    /// than were ever in use at once, rounded up to twice as many; all others are free.
    free: Vec<u64>,
    next: usize,
    /// The latest of them.
    last: u64,
}

/// How many places there are at first.
const FEW: usize = 4;

impl Starts {
    pub(super) fn new(window: Window) -> Self {
        let places = FEW.min(window.limit as usize);
        Self { window, free: vec![0; places], next: 0, last: 0 }
    }

    fn is_whole(&self) -> bool {
        self.free.len() == self.window.limit as usize
    }

    /// [`start`](Meter::start) for one, at its earliest; returns when, or nothing if that is after
    /// `latest`.
    #[inline]
    pub(super) fn start_one(&mut self, now: u64, latest: u64) -> Option<u64> {
        let mut when = now;
        let free = self.free[self.next];
        if free > now {
            if self.is_whole() {
                if free > latest {
                    return None;
                }
                when = free;
            } else {
                self.grow();
            }
        }
        self.take(when);
        Some(when)
    }

    /// Takes the next place.
    #[inline]
    fn take(&mut self, when: u64) {
        let free = when + self.window.length;
        self.free[self.next] = free;
        self.next = if self.next + 1 == self.free.len() { 0 } else { self.next + 1 };
        self.last = self.last.max(free);
    }

    /// Adds places, all of them free, which are the next then.
    #[cold]
    fn grow(&mut self) {
        let old = self.free.len();
        let new = (2 * old).min(self.window.limit as usize);
        let mut free = vec![0; new - old];
        free.extend_from_slice(&self.free[self.next..]);
        free.extend_from_slice(&self.free[..self.next]);
        self.free = free;
        self.next = 0;
    }

    /// From the next on.
    fn in_order(&self) -> impl Iterator<Item = u64> + '_ {
        self.free[self.next..].iter().chain(&self.free[..self.next]).copied()
    }
}

impl Meter for Starts {
    fn earliest(&self, n: u32, now: u64) -> u64 {
        let others = self.window.limit as usize - self.free.len();
        let needed = (n as usize).saturating_sub(others);
        self.in_order().take(needed).fold(now, u64::max)
    }

    fn earliest_behind(&self, ahead: u64, n: u32, now: u64) -> u64 {
        let limit = u64::from(self.window.limit);
        let others = limit - self.free.len() as u64;
        let needed = (ahead + u64::from(n)).saturating_sub(others);
        let Some(last) = needed.checked_sub(1) else { return now };
        let place = self.in_order().nth((last % limit) as usize).map_or(now, |free| free.max(now));
        place.saturating_add(self.window.length.saturating_mul(last / limit))
    }

    fn start(&mut self, n: u32, now: u64) -> u64 {
        let when = self.earliest(n, now);
        for _ in 0..n {
            // Those that are free now come first, so that nobody later starts before `when`.
            if self.free[self.next] > now && !self.is_whole() {
                self.grow();
            }
            self.take(when);
        }
        when
    }

    fn at_rest(&self) -> u64 {
        self.last
    }
}
