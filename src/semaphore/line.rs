//! The wait line: a doubly linked list threaded through a slab, so that joining, leaving from
//! anywhere and being served are O(1), and the slot of whoever is gone is used again.

use core::task::Waker;
use std::time::Instant;

use super::stats::{SemaphoreStats, WaitTimes};

/// A place in line: tickets are numbered in the order of joining, and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) number: u64,
    slot: u32,
}

const NONE: u32 = u32::MAX;

/// The number in a slot that nobody waits in: tickets start at one.
const VACANT: u64 = 0;

#[derive(Debug)]
struct Node {
    number: u64,
    /// Present exactly while somebody waits here.
    waker: Option<Waker>,
    prev: u32,
    /// The next in line; in a vacant slot, the next vacant slot.
    next: u32,
    need: u32,
}

#[derive(Debug)]
pub(super) struct Line {
    nodes: Vec<Node>,
    head: u32,
    tail: u32,
    vacant: u32,
    waiting: u32,
    last_number: u64,
    /// How many were ever granted their permits.
    pub(super) granted: usize,
    /// Permits that a smaller limit still has to take out of circulation.
    pub(super) debt: usize,
    pub(super) stats: SemaphoreStats,
    /// When each place was taken, by slot; empty unless wait times are counted.
    since: Vec<Instant>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            head: NONE,
            tail: NONE,
            vacant: NONE,
            waiting: 0,
            last_number: VACANT,
            granted: 0,
            debt: 0,
            stats: SemaphoreStats::default(),
            since: Vec::new(),
        }
    }
}

impl Line {
    pub(super) fn with_wait_times() -> Self {
        let stats = SemaphoreStats { wait_times: Some(WaitTimes::default()), ..Default::default() };
        Self { stats, ..Self::default() }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting as usize
    }

    /// Nobody waits and nothing is owed.
    pub(super) fn is_idle(&self) -> bool {
        self.head == NONE && self.debt == 0
    }

    /// What the head of the line waits for.
    pub(super) fn head_need(&self) -> Option<usize> {
        self.nodes.get(self.head as usize).map(|node| node.need as usize)
    }

    pub(super) fn is_head(&self, ticket: Ticket) -> bool {
        self.head == ticket.slot && self.is_waiting(ticket)
    }

    pub(super) fn is_waiting(&self, ticket: Ticket) -> bool {
        self.nodes[ticket.slot as usize].number == ticket.number
    }

    /// `now` is there if wait times are counted.
    ///
    /// # Panics
    ///
    /// With `u32::MAX` in line already.
    pub(super) fn join(&mut self, need: u32, waker: Waker, now: Option<Instant>) -> Ticket {
        let number = self.last_number + 1;
        let node = Node { number, waker: Some(waker), prev: self.tail, next: NONE, need };
        let mut slot = self.vacant;
        if let Some(vacant) = self.nodes.get_mut(slot as usize) {
            self.vacant = vacant.next;
            *vacant = node;
        } else {
            assert!(self.nodes.len() < NONE as usize, "more than {NONE} waiters on one semaphore");
            slot = self.nodes.len() as u32;
            self.nodes.push(node);
        }
        match self.nodes.get_mut(self.tail as usize) {
            Some(tail) => tail.next = slot,
            None => self.head = slot,
        }
        self.tail = slot;
        self.last_number = number;
        self.waiting += 1;
        self.stats.waits += 1;
        self.stats.peak_waiters = self.stats.peak_waiters.max(self.waiting());
        if let Some(now) = now {
            // Slots are handed out without gaps, so that a new one is the next.
            match self.since.get_mut(slot as usize) {
                Some(since) => *since = now,
                None => self.since.push(now),
            }
        }
        Ticket { number, slot }
    }

    /// Serves the head, and says which number that was.
    pub(super) fn grant_head(&mut self, now: Option<Instant>) -> Option<(u64, Waker)> {
        let slot = self.head;
        let number = self.nodes.get(slot as usize)?.number;
        if let (Some(now), Some(times)) = (now, &mut self.stats.wait_times) {
            times.add(self.since[slot as usize], now);
        }
        self.granted += 1;
        Some((number, self.unlink(slot)?))
    }

    /// Sends the head away without permits.
    pub(super) fn dismiss_head(&mut self) -> Option<Waker> {
        if self.head == NONE { None } else { self.unlink(self.head) }
    }

    /// Takes somebody who waits out of the line.
    pub(super) fn leave(&mut self, ticket: Ticket) -> Option<Waker> {
        self.stats.cancellations += 1;
        self.unlink(ticket.slot)
    }

    /// Replaces the waker of somebody who waits, and hands back the old one.
    pub(super) fn rewake(&mut self, ticket: Ticket, waker: Waker) -> Option<Waker> {
        self.nodes[ticket.slot as usize].waker.replace(waker)
    }

    fn unlink(&mut self, slot: u32) -> Option<Waker> {
        let node = &mut self.nodes[slot as usize];
        let (prev, next, waker) = (node.prev, node.next, node.waker.take());
        node.number = VACANT;
        node.next = self.vacant;
        self.vacant = slot;
        match self.nodes.get_mut(prev as usize) {
            Some(prev) => prev.next = next,
            None => self.head = next,
        }
        match self.nodes.get_mut(next as usize) {
            Some(next) => next.prev = prev,
            None => self.tail = prev,
        }
        self.waiting -= 1;
        waker
    }
}
