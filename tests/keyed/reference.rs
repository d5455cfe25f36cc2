//! A keyed batcher so slow and simple that it is obviously right: lists of keys and of items.

use std::collections::{BTreeMap, VecDeque};

pub(crate) type Key = u8;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_keys: usize,
    pub(crate) max_items: usize,
    pub(crate) window: u64,
    pub(crate) eager: bool,
    pub(crate) capacity: usize,
    pub(crate) per_key: Option<usize>,
    pub(crate) concurrency: usize,
    pub(crate) in_order: bool,
    pub(crate) attempts: u32,
    pub(crate) delay: u64,
    /// How long an attempt may take.
    pub(crate) timeout: Option<u64>,
}

/// A batch that was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) key: Key,
    pub(crate) items: Vec<u32>,
    pub(crate) attempt: u32,
    pub(crate) evicted: bool,
}

#[derive(Default)]
struct Lane {
    open: Vec<u32>,
    opened_at: u64,
    ripe: bool,
    closed: VecDeque<Batch>,
    /// Batches with the handler or waiting for a retry.
    running: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flushed {
    pub(crate) delivered: u64,
    pub(crate) failed: u64,
}

struct Flush {
    task: usize,
    items: Vec<u32>,
    report: Flushed,
}

pub(crate) struct Reference {
    limits: Limits,
    now: u64,
    lanes: BTreeMap<Key, Lane>,
    /// Keys with an open batch, by their last use, and by when it was opened.
    used: Vec<Key>,
    opened: Vec<Key>,
    turns: VecDeque<Key>,
    pub(crate) out: Vec<Batch>,
    /// When they were handed over.
    begun: Vec<u64>,
    retries: Vec<(u64, u64, Batch)>,
    retried_last: bool,
    /// The numbers of batches that were handed over, by their first items.
    pub(crate) numbers: BTreeMap<u32, u64>,
    /// Items accepted and unfinished, with their keys.
    pending: Vec<(Key, u32)>,
    /// Senders in line, by task.
    line: VecDeque<(usize, Key, u32)>,
    flushes: Vec<Flush>,
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) failed: u64,
    pub(crate) sent: Vec<usize>,
    pub(crate) flushed: Vec<(usize, Flushed)>,
}

impl Reference {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            now: 0,
            lanes: BTreeMap::new(),
            used: Vec::new(),
            opened: Vec::new(),
            turns: VecDeque::new(),
            out: Vec::new(),
            begun: Vec::new(),
            retries: Vec::new(),
            retried_last: false,
            numbers: BTreeMap::new(),
            pending: Vec::new(),
            line: VecDeque::new(),
            flushes: Vec::new(),
            accepted: 0,
            delivered: 0,
            failed: 0,
            sent: Vec::new(),
            flushed: Vec::new(),
        }
    }

    pub(crate) fn keys(&self) -> usize {
        self.used.len()
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.line.len()
    }

    fn has_room(&self, key: Key) -> bool {
        let of_key = self.pending.iter().filter(|(of, _)| *of == key).count();
        self.pending.len() < self.limits.capacity
            && self.limits.per_key.is_none_or(|most| of_key < most)
    }

    /// Whether one who comes new must wait: with a bound by key, only for those of the same key.
    fn passes_the_line(&self, key: Key) -> bool {
        self.line.iter().all(|(_, of, _)| self.limits.per_key.is_some() && *of != key)
    }

    pub(crate) fn try_send(&mut self, key: Key, item: u32) -> bool {
        let accepted = self.has_room(key) && self.passes_the_line(key);
        if accepted {
            self.accept(key, item);
        }
        accepted
    }

    pub(crate) fn send(&mut self, task: usize, key: Key, item: u32) {
        if self.try_send(key, item) {
            self.sent.push(task);
        } else {
            self.line.push_back((task, key, item));
        }
    }

    pub(crate) fn cancel(&mut self, task: usize) {
        self.line.retain(|(other, _, _)| *other != task);
        self.flushes.retain(|flush| flush.task != task);
    }

    fn accept(&mut self, key: Key, item: u32) {
        self.accepted += 1;
        self.pending.push((key, item));
        let open = self.lanes.entry(key).or_default().open.is_empty();
        if open {
            if self.used.len() == self.limits.max_keys {
                self.close(self.used[0], true);
            }
            self.used.push(key);
            self.opened.push(key);
            self.lanes.get_mut(&key).unwrap().opened_at = self.now;
        } else {
            self.used.retain(|other| *other != key);
            self.used.push(key);
        }
        let lane = self.lanes.get_mut(&key).unwrap();
        lane.open.push(item);
        if lane.open.len() == self.limits.max_items {
            self.close(key, false);
        }
    }

    fn close(&mut self, key: Key, evicted: bool) {
        let lane = self.lanes.get_mut(&key).unwrap();
        lane.ripe = false;
        let items = std::mem::take(&mut lane.open);
        if !items.is_empty() {
            lane.closed.push_back(Batch { key, items, attempt: 0, evicted });
        }
        self.used.retain(|other| *other != key);
        self.opened.retain(|other| *other != key);
        self.take_turn(key);
    }

    fn take_turn(&mut self, key: Key) {
        let Some(lane) = self.lanes.get(&key) else { return };
        let something = !lane.closed.is_empty() || lane.ripe;
        let held_up = self.limits.in_order && lane.running > 0;
        if something && !held_up && !self.turns.contains(&key) {
            self.turns.push_back(key);
        }
    }

    pub(crate) fn flush(&mut self, task: usize, key: Option<Key>) {
        let ripe: Vec<_> = self.lanes.iter().filter(|(_, l)| l.ripe).map(|(key, _)| *key).collect();
        // Those that are ripe have their turns already: it does not matter which is closed first.
        for of in ripe.into_iter().chain(self.opened.clone()) {
            if key.is_none_or(|key| key == of) {
                self.close(of, false);
            }
        }
        let covered = self.pending.iter().filter(|(of, _)| key.is_none_or(|key| key == *of));
        let items = covered.map(|(_, item)| *item).collect();
        self.flushes.push(Flush { task, items, report: Flushed { delivered: 0, failed: 0 } });
    }

    pub(crate) fn advance(&mut self) {
        self.now += 1;
    }

    /// The handler of a batch ends.
    pub(crate) fn end(&mut self, at: usize, well: bool) {
        let batch = self.out.remove(at);
        self.begun.remove(at);
        let key = batch.key;
        if !well && batch.attempt < self.limits.attempts {
            let due = self.now + self.limits.delay;
            self.retries.push((due, self.numbers[&batch.items[0]], batch));
            return;
        }
        self.pending.retain(|(_, item)| !batch.items.contains(item));
        for flush in &mut self.flushes {
            let covered = flush.items.iter().filter(|item| batch.items.contains(item)).count();
            flush.items.retain(|item| !batch.items.contains(item));
            *if well { &mut flush.report.delivered } else { &mut flush.report.failed } +=
                covered as u64;
        }
        *if well { &mut self.delivered } else { &mut self.failed } += batch.items.len() as u64;
        self.lanes.get_mut(&key).unwrap().running -= 1;
        self.take_turn(key);
    }

    /// Lets everything happen that can happen now.
    pub(crate) fn run(&mut self) {
        loop {
            while self.drive() {}
            let before = self.accepted;
            let waiting = std::mem::take(&mut self.line);
            for (task, key, item) in waiting {
                self.send(task, key, item);
            }
            if before == self.accepted {
                break;
            }
        }
        for flush in std::mem::take(&mut self.flushes) {
            if flush.items.is_empty() {
                self.flushed.push((flush.task, flush.report));
            } else {
                self.flushes.push(flush);
            }
        }
    }

    fn drive(&mut self) -> bool {
        // In the order in which they began.
        let overdue =
            |begun: &u64| self.limits.timeout.is_some_and(|most| begun + most <= self.now);
        if let Some(at) = self.begun.iter().position(overdue) {
            self.end(at, false);
            return true;
        }
        if self.out.len() == self.limits.concurrency {
            return false;
        }
        // Retries that are due and batches that were never tried take turns.
        self.retries.sort_by_key(|(due, number, _)| (*due, *number));
        let due = self.retries.first().is_some_and(|(due, _, _)| *due <= self.now);
        let yields = self.retried_last && self.limits.concurrency > 1;
        if due && !yields {
            self.retry();
            return true;
        }
        self.ripen();
        let Some(key) = self.turns.pop_front() else {
            if due {
                self.retry();
            }
            return due;
        };
        if self.lanes[&key].closed.is_empty() {
            self.close(key, false);
            self.turns.retain(|other| *other != key);
        }
        let lane = self.lanes.get_mut(&key).unwrap();
        let mut batch = lane.closed.pop_front().unwrap();
        lane.running += 1;
        batch.attempt = 1;
        self.out.push(batch);
        self.begun.push(self.now);
        self.retried_last = false;
        self.take_turn(key);
        true
    }

    fn ripen(&mut self) {
        while let Some(&key) = self.opened.first() {
            let over = self.lanes[&key].opened_at + self.limits.window <= self.now;
            let idle = self.limits.eager && self.out.is_empty() && self.turns.is_empty();
            if !over && !idle {
                return;
            }
            self.lanes.get_mut(&key).unwrap().ripe = true;
            self.opened.remove(0);
            self.take_turn(key);
        }
    }

    fn retry(&mut self) {
        let (_, _, mut batch) = self.retries.remove(0);
        batch.attempt += 1;
        self.out.push(batch);
        self.begun.push(self.now);
        self.retried_last = true;
    }
}
