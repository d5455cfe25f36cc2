//! The wait line: a doubly linked list threaded through a slab, so that joining, leaving from
//! anywhere and being served are O(1), and a place that was left is used again.

use core::task::Waker;
use std::time::Instant;

use super::stats::{SemaphoreStats, WaitTimes};

/// The index of a place in the slab. Whoever joined owns it until it is freed.
pub(super) type Key = u32;

const NONE: Key = Key::MAX;

/// The need of a node whose owner was sent away without permits: nobody waits for none.
const DISMISSED: u32 = 0;

#[derive(Debug)]
struct Node {
    /// Present exactly while the node is linked, that is while its owner waits.
    waker: Option<Waker>,
    prev: Key,
    /// The next in line; in a free slot, the next free slot.
    next: Key,
    need: u32,
}

#[derive(Debug)]
pub(super) struct Line {
    nodes: Vec<Node>,
    head: Key,
    tail: Key,
    free: Key,
    waiting: u32,
    granted: u32,
    /// Permits that a smaller limit still has to take out of circulation.
    pub(super) debt: usize,
    pub(super) stats: SemaphoreStats,
    /// When each place was taken, by key; empty unless wait times are counted.
    since: Vec<Instant>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            head: NONE,
            tail: NONE,
            free: NONE,
            waiting: 0,
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

    /// How many were granted their permits and have not claimed them yet.
    pub(super) fn granted(&self) -> usize {
        self.granted as usize
    }

    /// Nobody waits and nothing is owed.
    pub(super) fn is_idle(&self) -> bool {
        self.head == NONE && self.debt == 0
    }

    /// What the head of the line waits for.
    pub(super) fn head_need(&self) -> Option<usize> {
        self.nodes.get(self.head as usize).map(|node| node.need as usize)
    }

    pub(super) fn is_head(&self, key: Key) -> bool {
        self.head == key
    }

    /// `now` is there if wait times are counted.
    ///
    /// # Panics
    ///
    /// With `u32::MAX` places taken already.
    pub(super) fn join(&mut self, need: u32, waker: Waker, now: Option<Instant>) -> Key {
        let node = Node { waker: Some(waker), prev: self.tail, next: NONE, need };
        let key = self.free;
        let key = if let Some(slot) = self.nodes.get_mut(key as usize) {
            self.free = slot.next;
            *slot = node;
            key
        } else {
            assert!(self.nodes.len() < NONE as usize, "more than {NONE} waiters on one semaphore");
            self.nodes.push(node);
            (self.nodes.len() - 1) as Key
        };
        match self.nodes.get_mut(self.tail as usize) {
            Some(tail) => tail.next = key,
            None => self.head = key,
        }
        self.tail = key;
        self.waiting += 1;
        self.stats.waits += 1;
        self.stats.peak_waiters = self.stats.peak_waiters.max(self.waiting());
        if let Some(now) = now {
            // Keys are handed out without gaps, so that a new one is the next.
            match self.since.get_mut(key as usize) {
                Some(since) => *since = now,
                None => self.since.push(now),
            }
        }
        key
    }

    /// Takes the head out of the line; its owner finds itself granted when it looks.
    pub(super) fn grant_head(&mut self, now: Option<Instant>) -> Option<Waker> {
        let key = self.head;
        let waker = self.unlink(key);
        self.granted += 1;
        if let (Some(now), Some(times)) = (now, &mut self.stats.wait_times) {
            times.add(self.since[key as usize], now);
        }
        waker
    }

    /// Sends the head away without permits.
    pub(super) fn dismiss_head(&mut self) -> Option<Waker> {
        let key = self.head;
        let waker = self.unlink(key);
        self.nodes[key as usize].need = DISMISSED;
        waker
    }

    /// Replaces the waker of a place that still waits, and hands back the old one.
    ///
    /// `Err` hands back the new one: the place was granted meanwhile.
    pub(super) fn rewake(&mut self, key: Key, waker: Waker) -> Result<Waker, Waker> {
        match &mut self.nodes[key as usize].waker {
            Some(old) => Ok(core::mem::replace(old, waker)),
            None => Err(waker),
        }
    }

    pub(super) fn is_waiting(&self, key: Key) -> bool {
        self.nodes[key as usize].waker.is_some()
    }

    /// The owner of a place that still waits goes.
    pub(super) fn leave(&mut self, key: Key) -> Option<Waker> {
        let waker = self.unlink(key);
        self.release(key);
        waker
    }

    /// The owner of a place that no longer waits goes, with the permits it was granted; `None` if
    /// it was dismissed.
    pub(super) fn claim(&mut self, key: Key) -> Option<usize> {
        let need = self.nodes[key as usize].need as usize;
        self.release(key);
        if need == DISMISSED as usize {
            return None;
        }
        self.granted -= 1;
        Some(need)
    }

    fn unlink(&mut self, key: Key) -> Option<Waker> {
        let node = &mut self.nodes[key as usize];
        let (prev, next, waker) = (node.prev, node.next, node.waker.take());
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

    fn release(&mut self, key: Key) {
        self.nodes[key as usize].next = self.free;
        self.free = key;
    }
}
