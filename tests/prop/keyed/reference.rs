//! A keyed batcher so slow and simple that it is obviously right: lists of keys and of items.

use std::collections::{BTreeMap, VecDeque};

pub(crate) type Key = u8;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_keys: usize,
    pub(crate) max_items: usize,
    /// Without it nothing is weighed.
    pub(crate) max_weight: Option<u64>,
    pub(crate) capacity_weight: Option<u64>,
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

/// What an item weighs: 0 to 3.
pub(crate) fn weight(item: u32) -> u64 {
    u64::from(item % 4)
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

/// Where somebody is who waits for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    InKeyLine,
    /// Room under the key is granted.
    HasKey,
    InLine,
    Granted,
}

/// A send, or a reservation, which has no item.
#[derive(Debug, Clone, Copy)]
struct Sender {
    key: Key,
    item: Option<u32>,
    stage: Stage,
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
    /// Those who wait for room, by task, and the lines that they stand in.
    senders: BTreeMap<usize, Sender>,
    line: VecDeque<usize>,
    key_lines: BTreeMap<Key, VecDeque<usize>>,
    /// Slots that are held, by task.
    slots: BTreeMap<usize, Key>,
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
            senders: BTreeMap::new(),
            line: VecDeque::new(),
            key_lines: BTreeMap::new(),
            slots: BTreeMap::new(),
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

    fn weigh<'a>(&self, items: impl IntoIterator<Item = &'a u32>) -> u64 {
        let weighed = self.limits.max_weight.is_some();
        if weighed { items.into_iter().copied().map(weight).sum() } else { 0 }
    }

    /// The weight of what is accepted and unfinished.
    pub(crate) fn pending_weight(&self) -> u64 {
        self.weigh(self.pending.iter().map(|(_, item)| item))
    }

    pub(crate) fn waiting(&self) -> usize {
        let waits = |sender: &&Sender| matches!(sender.stage, Stage::InKeyLine | Stage::InLine);
        self.senders.values().filter(waits).count()
    }

    pub(crate) fn slots(&self) -> Vec<usize> {
        self.slots.keys().copied().collect()
    }

    /// The weight that is taken up for an item, or for any.
    fn need(&self, item: Option<u32>) -> u64 {
        match (self.limits.capacity_weight, item) {
            (None, _) => 0,
            (Some(_), Some(item)) => weight(item),
            (Some(_), None) => self.limits.max_weight.unwrap(),
        }
    }

    fn key_has_room(&self, key: Key) -> bool {
        let pending = self.pending.iter().filter(|(of, _)| *of == key).count();
        let slots = self.slots.values().filter(|of| **of == key).count();
        let holds =
            |sender: &&Sender| sender.key == key && !matches!(sender.stage, Stage::InKeyLine);
        let reserved = self.senders.values().filter(holds).count();
        self.limits.per_key.is_none_or(|most| pending + slots + reserved < most)
    }

    /// Whether there is room in all, however many wait for it.
    fn has_room(&self, item: Option<u32>) -> bool {
        let granted = self.senders.values().filter(|sender| sender.stage == Stage::Granted);
        let granted: Vec<_> = granted.map(|sender| self.need(sender.item)).collect();
        let items = self.pending.len() + granted.len() + self.slots.len();
        let slots = self.slots.len() as u64 * self.need(None);
        let weight = self.pending_weight() + granted.iter().sum::<u64>() + slots + self.need(item);
        items < self.limits.capacity
            && self.limits.capacity_weight.is_none_or(|most| weight <= most)
    }

    /// Whether one who comes new finds room under the key, and in all.
    fn is_free(&self, key: Key, item: Option<u32>) -> (bool, bool) {
        let nobody_waits = self.key_lines.get(&key).is_none_or(VecDeque::is_empty);
        let of_key = nobody_waits && self.key_has_room(key);
        (of_key, self.line.is_empty() && self.has_room(item))
    }

    pub(crate) fn try_send(&mut self, key: Key, item: u32) -> bool {
        let accepted = self.is_free(key, Some(item)) == (true, true);
        if accepted {
            self.accept(key, item);
        }
        accepted
    }

    pub(crate) fn send(&mut self, task: usize, key: Key, item: u32) {
        self.ask(task, key, Some(item));
    }

    pub(crate) fn reserve(&mut self, task: usize, key: Key) {
        self.ask(task, key, None);
    }

    fn ask(&mut self, task: usize, key: Key, item: Option<u32>) {
        let stage = match self.is_free(key, item) {
            (true, true) => return self.let_in(task, key, item),
            (true, false) => Stage::InLine,
            (false, _) => Stage::InKeyLine,
        };
        match stage {
            Stage::InLine => self.line.push_back(task),
            _ => self.key_lines.entry(key).or_default().push_back(task),
        }
        self.senders.insert(task, Sender { key, item, stage });
    }

    /// One that has its room.
    fn let_in(&mut self, task: usize, key: Key, item: Option<u32>) {
        self.senders.remove(&task);
        match item {
            Some(item) => {
                self.accept(key, item);
                self.sent.push(task);
            }
            None => drop(self.slots.insert(task, key)),
        }
    }

    pub(crate) fn use_slot(&mut self, task: usize, item: u32) {
        let key = self.slots.remove(&task).unwrap();
        self.accept(key, item);
        self.sent.push(task);
        // It may weigh less than it might.
        self.serve();
    }

    pub(crate) fn cancel(&mut self, task: usize) {
        self.flushes.retain(|flush| flush.task != task);
        self.line.retain(|other| *other != task);
        for line in self.key_lines.values_mut() {
            line.retain(|other| *other != task);
        }
        let sender = self.senders.remove(&task).map(|sender| sender.key);
        if let Some(key) = sender.or(self.slots.remove(&task)) {
            self.serve();
            self.serve_key(key);
        }
    }

    /// Grants room under a key to those who wait for it.
    fn serve_key(&mut self, key: Key) {
        while self.key_has_room(key) {
            let line = self.key_lines.entry(key).or_default();
            let Some(task) = line.pop_front() else { return };
            self.senders.get_mut(&task).unwrap().stage = Stage::HasKey;
        }
    }

    /// Grants room in all to those who wait for it.
    fn serve(&mut self) {
        while let Some(task) = self.line.front() {
            if !self.has_room(self.senders[task].item) {
                return;
            }
            self.senders.get_mut(task).unwrap().stage = Stage::Granted;
            self.line.pop_front();
        }
    }

    /// Those who were granted something go on, as they are polled. Whether there were any.
    fn go_on(&mut self) -> bool {
        let mut any = false;
        let tasks: Vec<_> = self.senders.keys().copied().collect();
        for task in tasks {
            let Sender { key, item, stage } = self.senders[&task];
            match stage {
                Stage::InKeyLine | Stage::InLine => continue,
                Stage::Granted => self.let_in(task, key, item),
                Stage::HasKey if self.line.is_empty() && self.has_room(item) => {
                    self.let_in(task, key, item);
                }
                Stage::HasKey => {
                    self.senders.get_mut(&task).unwrap().stage = Stage::InLine;
                    self.line.push_back(task);
                }
            }
            any = true;
        }
        any
    }

    fn accept(&mut self, key: Key, item: u32) {
        self.accepted += 1;
        self.pending.push((key, item));
        let most = self.limits.max_weight.unwrap_or(u64::MAX);
        let lane = self.lanes.entry(key).or_default();
        let with_it: Vec<_> = lane.open.iter().copied().chain([item]).collect();
        if self.weigh(&with_it) > most {
            self.close(key, false);
        }
        if self.lanes[&key].open.is_empty() {
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
        let items = lane.open.clone();
        if items.len() == self.limits.max_items || self.weigh(&items) == most {
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
        self.serve_key(key);
        self.serve();
    }

    /// Lets everything happen that can happen now.
    pub(crate) fn run(&mut self) {
        loop {
            while self.drive() {}
            if !self.go_on() {
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

    /// The driver does one thing, if there is one.
    pub(crate) fn drive(&mut self) -> bool {
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
