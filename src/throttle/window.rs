//! The strict sliding window: each start takes one of `limit` slots, and has it for the length of
//! the window. So there are never more than `limit` starts in any half-open window: two in the same
//! slot are at least its length apart. This holds whatever the order of the instants, and whichever
//! start takes which slot.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) limit: u32,
    /// In ticks.
    pub(super) length: u64,
}

/// The slots of a window, or of one of its shards.
#[derive(Debug)]
pub(super) struct Slots {
    length: u64,
    limit: u32,
    next: u32,
    /// When each slot is free again: a ring, about in order from `next` on. It has no more slots
    /// than were ever in use at once, rounded up to twice as many; all others are free.
    free: Vec<u64>,
    /// The latest of them.
    last: u64,
}

/// How many slots there are at first.
const FEW: u32 = 4;

impl Slots {
    pub(super) fn new(Window { limit, length }: Window) -> Self {
        let free = vec![0; FEW.min(limit) as usize];
        Self { length, limit, next: 0, free, last: 0 }
    }

    fn is_whole(&self) -> bool {
        self.free.len() == self.limit as usize
    }

    /// How many were never in use.
    pub(super) fn others(&self) -> u32 {
        self.limit - self.free.len() as u32
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// When the next slot is free, or `now` if that is past.
    #[inline]
    pub(super) fn next_free(&self, now: u64) -> u64 {
        let free = self.free[self.next as usize];
        if free > now && self.is_whole() { free } else { now }
    }

    /// Takes the next slot if it is free now.
    #[inline]
    pub(super) fn start_now(&mut self, now: u64) -> bool {
        match self.free.get_mut(self.next as usize) {
            Some(free) if *free <= now => {
                let until = now + self.length;
                *free = until;
                self.next += 1;
                if self.next as usize == self.free.len() {
                    self.next = 0;
                }
                self.last = self.last.max(until);
                true
            }
            _ => self.start_in_another(now),
        }
    }

    #[cold]
    fn start_in_another(&mut self, now: u64) -> bool {
        let some = !self.is_whole();
        if some {
            self.take(now, now);
        }
        some
    }

    /// Takes the next slot, which is free by `when`. Those that are free `now` come first, so that
    /// no later start comes before `when`.
    pub(super) fn take(&mut self, now: u64, when: u64) {
        if self.free[self.next as usize] > now && !self.is_whole() {
            self.grow();
        }
        debug_assert!(self.free[self.next as usize] <= when);
        let free = when + self.length;
        self.free[self.next as usize] = free;
        self.next += 1;
        if self.next as usize == self.free.len() {
            self.next = 0;
        }
        self.last = self.last.max(free);
    }

    /// Adds slots, all of them free, which are the next then.
    #[cold]
    fn grow(&mut self) {
        let (old, next) = (self.free.len(), self.next as usize);
        let new = (2 * old).min(self.limit as usize);
        let mut free = vec![0; new - old];
        free.extend_from_slice(&self.free[next..]);
        free.extend_from_slice(&self.free[..next]);
        self.free = free;
        self.next = 0;
    }

    /// When the `nth` start from `now` on may be if they come in order; `nth` is one at least.
    pub(super) fn nth(&self, nth: u64, now: u64) -> u64 {
        let Some(last) = nth.checked_sub(u64::from(self.others()) + 1) else { return now };
        let (round, slot) = (last / u64::from(self.limit), last % u64::from(self.limit));
        let free = self.in_order().nth(slot as usize).map_or(now, |free| free.max(now));
        free.saturating_add(self.length.saturating_mul(round))
    }

    /// When those in the ring are free, from the next on.
    pub(super) fn in_order(&self) -> impl Iterator<Item = u64> + '_ {
        let next = self.next as usize;
        self.free[next..].iter().chain(&self.free[..next]).copied()
    }
}
