//! A batcher so slow and simple that it is obviously right: one list of items in the order they
//! were accepted, and where each of them is.

use std::collections::VecDeque;

/// Milliseconds.
pub(crate) type Time = u64;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_items: usize,
    pub(crate) max_weight: Option<u64>,
    pub(crate) window: Time,
    pub(crate) eager: bool,
    pub(crate) capacity: usize,
    pub(crate) capacity_weight: Option<u64>,
    pub(crate) concurrency: usize,
    /// The permits of a semaphore that is shared.
    pub(crate) permits: Option<usize>,
    pub(crate) max_probes: u32,
    /// Whether the policy says that a rejected batch is not worth another attempt.
    pub(crate) chooses: bool,
    /// Whether only a rejected batch is cut.
    pub(crate) cuts_rejected: bool,
    pub(crate) attempts: u32,
    pub(crate) delay: Time,
    /// How long an attempt may take.
    pub(crate) timeout: Option<Time>,
    /// The most tokens of the budget for retries, and how many thousandths a success gives back.
    pub(crate) budget: Option<(u32, u64)>,
}

/// What an item weighs, where items are weighed.
pub(crate) fn weight(id: u32) -> u64 {
    u64::from(id % 4)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Open,
    Sealed,
    Out,
    Waiting(Time),
    /// In a part of a failing batch that waits for the one before it.
    Parked,
    Delivered,
    Failed,
    Unsent,
    Indeterminate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    Count,
    Weight,
    Window,
    Idle,
    Flush,
    Shutdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Deliver,
    Fail,
    /// For what is in it, which another attempt does not change.
    Reject,
    Panic,
    /// Nobody says so: its time is up.
    TimeOut,
}

/// Why items came to the dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// After so many attempts, and whether the budget was what refused another.
    Failed(u32, bool),
    Panicked(u32, bool),
    TimedOut(u32, bool),
    Unsent,
    Indeterminate,
}

/// What came to the dead letter, and why.
pub(crate) type Buried = (Vec<u32>, Why);

/// Where the guard of a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    None,
    Handler,
    Away,
}

struct Batch {
    sealed_by: Closed,
    opened_at: Time,
    attempts: u32,
    /// When the latest attempt began, and how many had before.
    begun: (Time, u64),
    /// Whether the handler keeps its guard from going with it.
    given: bool,
    guard: Guard,
    /// What its guard holds.
    held: Vec<u32>,
    verdict: Option<Verdict>,
    /// Failures that were worth another attempt, until there is to be none.
    failures: Option<u32>,
    probes: Option<u32>,
    /// The next part last.
    parts: Vec<Vec<u32>>,
}

struct Item {
    id: u32,
    batch: Option<usize>,
    place: Place,
}

/// What somebody waits for; by the number of the task that does.
enum Task {
    Send(u32),
    SendMany(VecDeque<u32>),
    Reserve,
    Slot,
    Flush(Vec<usize>),
    Shutdown,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted,
    Refused(Option<u32>),
    /// All of them but these.
    AcceptedMany(Vec<u32>),
    Dropped,
    Flushed {
        delivered: u64,
        failed: u64,
        unsent: u64,
        indeterminate: u64,
    },
    Ended {
        delivered: u64,
        failed: u64,
        unsent: Vec<u32>,
        indeterminate: Vec<u32>,
        held: u64,
    },
}

/// A call of the handler that has not ended, or whose guard is not back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) batch: u64,
    pub(crate) attempt: u32,
    pub(crate) items: Vec<u32>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) failed: u64,
    pub(crate) unsent: u64,
    pub(crate) indeterminate: u64,
    pub(crate) pending: u64,
    pub(crate) peak_pending: u64,
    pub(crate) waiting_senders: usize,
    pub(crate) pending_weight: u64,
    pub(crate) closed: [u64; 6],
    pub(crate) batched_items: u64,
    pub(crate) batched_weight: u64,
    pub(crate) largest_batch: usize,
    pub(crate) heaviest_batch: u64,
    pub(crate) retries: u64,
    pub(crate) handed_over: u64,
    pub(crate) total_age: Time,
    pub(crate) oldest_handed_over: Time,
}

pub(crate) struct Reference {
    limits: Limits,
    now: Time,
    items: Vec<Item>,
    batches: Vec<Batch>,
    opened_at: Time,
    closed: bool,
    stop_at: Option<Time>,
    stopped: bool,
    /// What a shutdown gave up, until somebody has it.
    remains: Option<(Vec<u32>, Vec<u32>)>,
    still_held: u64,
    tasks: Vec<(usize, Task)>,
    line: VecDeque<usize>,
    /// Those who were in line and have room now, in that order.
    granted: VecDeque<usize>,
    /// Permits that others hold.
    others: usize,
    main_handle: bool,
    peak: usize,
    retries: u64,
    retried_last: bool,
    /// Whether a batch was handed over after which those who wait for room come first: so that what
    /// is eager gathers what they have.
    gives_way: bool,
    oldest: Time,
    handed_over: u64,
    total_age: Time,
    /// What is left of the budget, in thousandths.
    tokens: u64,
    pub(crate) answers: Vec<(usize, Answer)>,
    pub(crate) buried: Vec<Buried>,
}

impl Reference {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            now: 0,
            items: Vec::new(),
            batches: Vec::new(),
            opened_at: 0,
            closed: false,
            stop_at: None,
            stopped: false,
            remains: None,
            still_held: 0,
            tasks: Vec::new(),
            line: VecDeque::new(),
            granted: VecDeque::new(),
            others: 0,
            main_handle: true,
            peak: 0,
            retries: 0,
            retried_last: false,
            gives_way: false,
            oldest: 0,
            handed_over: 0,
            total_age: 0,
            tokens: limits.budget.map_or(0, |(most, _)| u64::from(most) * 1000),
            answers: Vec::new(),
            buried: Vec::new(),
        }
    }

    fn count(&self, is: impl Fn(Place) -> bool) -> usize {
        self.items.iter().filter(|item| is(item.place)).count()
    }

    fn unfinished(place: Place) -> bool {
        matches!(
            place,
            Place::Open | Place::Sealed | Place::Out | Place::Waiting(_) | Place::Parked
        )
    }

    pub(crate) fn pending(&self) -> usize {
        self.count(Self::unfinished)
    }

    fn weight(&self, id: u32) -> u64 {
        self.limits.max_weight.map_or(0, |_| weight(id))
    }

    fn is_too_heavy(&self, id: u32) -> bool {
        self.limits.max_weight.is_some_and(|max| self.weight(id) > max)
    }

    /// What somebody takes up who waits for room, or has it: as much weight as the item may have.
    fn need(&self, task: &Task) -> u64 {
        match task {
            Task::Send(id) => self.weight(*id),
            Task::SendMany(ids) => ids.front().map_or(0, |id| self.weight(*id)),
            Task::Reserve | Task::Slot => self.limits.max_weight.unwrap_or(0),
            Task::Flush(_) | Task::Shutdown => 0,
        }
    }

    fn task(&self, task: usize) -> &Task {
        &self.tasks.iter().find(|(other, _)| *other == task).unwrap().1
    }

    /// The weight of all batches that are not finished.
    fn pending_weight(&self) -> u64 {
        let unfinished = |item: &Item| match item.batch {
            None => true,
            Some(_) => self
                .items
                .iter()
                .any(|other| other.batch == item.batch && Self::unfinished(other.place)),
        };
        self.items.iter().filter(|item| unfinished(item)).map(|item| self.weight(item.id)).sum()
    }

    fn has_room(&self, weight: u64) -> bool {
        let slots = self.tasks.iter().filter(|(_, task)| matches!(task, Task::Slot));
        let granted = self.granted.iter().map(|task| self.task(*task));
        let reserved: Vec<_> =
            slots.map(|(_, task)| task).chain(granted).map(|task| self.need(task)).collect();
        let limit = self.limits.capacity_weight.unwrap_or(u64::MAX);
        self.pending() + reserved.len() < self.limits.capacity
            && self.pending_weight() + reserved.iter().sum::<u64>() + weight <= limit
    }

    fn accept(&mut self, id: u32) {
        let open = |reference: &Self| {
            let items = reference.items.iter().filter(|item| item.place == Place::Open);
            items.map(|item| reference.weight(item.id)).sum::<u64>()
        };
        let max_weight = self.limits.max_weight.unwrap_or(u64::MAX);
        if open(self) + self.weight(id) > max_weight {
            self.seal(Closed::Weight);
        }
        if self.count(|place| place == Place::Open) == 0 {
            self.opened_at = self.now;
        }
        self.items.push(Item { id, batch: None, place: Place::Open });
        self.peak = self.peak.max(self.pending());
        if self.count(|place| place == Place::Open) == self.limits.max_items {
            self.seal(Closed::Count);
        } else if open(self) == max_weight {
            self.seal(Closed::Weight);
        }
    }

    fn seal(&mut self, sealed_by: Closed) {
        let batch = self.batches.len();
        let mut any = false;
        for item in self.items.iter_mut().filter(|item| item.place == Place::Open) {
            item.batch = Some(batch);
            item.place = Place::Sealed;
            any = true;
        }
        if any {
            let (guard, held) = (Guard::None, Vec::new());
            let opened_at = self.opened_at;
            self.batches.push(Batch {
                sealed_by,
                opened_at,
                attempts: 0,
                begun: (0, 0),
                given: false,
                guard,
                held,
                verdict: None,
                failures: Some(0),
                probes: None,
                parts: Vec::new(),
            });
        }
    }

    // ---- what a caller does

    pub(crate) fn try_send(&mut self, id: u32) -> bool {
        let accepted = !self.closed
            && !self.is_too_heavy(id)
            && self.line.is_empty()
            && self.has_room(self.weight(id));
        if accepted {
            self.accept(id);
        }
        accepted
    }

    pub(crate) fn send(&mut self, task: usize, id: u32) {
        self.tasks.push((task, Task::Send(id)));
        if self.is_too_heavy(id) {
            return self.answer(task, Answer::Refused(Some(id)));
        }
        self.line.push_back(task);
        self.admit();
    }

    pub(crate) fn send_many(&mut self, task: usize, ids: Vec<u32>) {
        self.tasks.push((task, Task::SendMany(ids.into())));
        self.queue_many(task);
        self.admit();
    }

    /// Puts it in line for the first that is left, if there is one and it may be accepted.
    fn queue_many(&mut self, task: usize) {
        let Task::SendMany(ids) = self.task(task) else { unreachable!() };
        let ids: Vec<_> = ids.iter().copied().collect();
        match ids.first() {
            Some(first) if !self.is_too_heavy(*first) => self.line.push_back(task),
            _ => self.answer(task, Answer::AcceptedMany(ids)),
        }
    }

    pub(crate) fn reserve(&mut self, task: usize) {
        self.tasks.push((task, Task::Reserve));
        self.line.push_back(task);
        self.admit();
    }

    fn free_permits(&self) -> usize {
        let out = self.batches_in(|place| place == Place::Out).len();
        self.limits.permits.map_or(usize::MAX, |permits| permits - out - self.others)
    }

    /// Somebody else takes a permit, if there is one.
    pub(crate) fn take_permit(&mut self) -> bool {
        let free = self.limits.permits.is_some() && self.free_permits() > 0;
        self.others += usize::from(free);
        free
    }

    pub(crate) fn give_permit(&mut self) -> bool {
        let held = self.others > 0;
        self.others -= usize::from(held);
        held
    }

    /// Uses the slot of `task`, or drops it without an item.
    pub(crate) fn use_slot(&mut self, task: usize, id: Option<u32>) {
        match id {
            Some(id) if self.closed || self.is_too_heavy(id) => {
                self.answer(task, Answer::Refused(Some(id)));
            }
            Some(id) => {
                // The slot's room becomes the item's.
                self.tasks.retain(|(other, _)| *other != task);
                self.accept(id);
                self.answer(task, Answer::Accepted);
            }
            None => self.answer(task, Answer::Dropped),
        }
    }

    pub(crate) fn flush(&mut self, task: usize) {
        self.seal(Closed::Flush);
        let covered =
            (0..self.items.len()).filter(|item| Self::unfinished(self.items[*item].place));
        self.tasks.push((task, Task::Flush(covered.collect())));
    }

    pub(crate) fn shutdown(&mut self, task: usize, deadline: Option<Time>) {
        self.close();
        if !self.stopped {
            let stop_at = deadline.map(|wait| self.now + wait);
            self.stop_at = [self.stop_at, stop_at].into_iter().flatten().min();
        }
        self.tasks.push((task, Task::Shutdown));
    }

    fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            self.seal(Closed::Shutdown);
        }
        self.admit();
    }

    pub(crate) fn cancel(&mut self, task: usize) {
        self.line.retain(|other| *other != task);
        self.granted.retain(|other| *other != task);
        self.tasks.retain(|(other, _)| *other != task);
        self.after_a_handle();
    }

    pub(crate) fn drop_main_handle(&mut self) {
        self.main_handle = false;
        self.after_a_handle();
    }

    fn after_a_handle(&mut self) {
        if !self.main_handle && self.tasks.is_empty() {
            self.close();
        }
    }

    pub(crate) fn drop_driver(&mut self) {
        if let Some((unsent, indeterminate)) = self.stop() {
            self.bury(indeterminate, Why::Indeterminate);
            self.bury(unsent, Why::Unsent);
        }
    }

    // ---- what the handler does

    /// The handler, or whoever has its guard, takes out the first `n` items.
    pub(crate) fn take(&mut self, batch: u64, n: usize) {
        self.batches[batch as usize].held.drain(..n);
    }

    /// The handler ends; its guard goes with it, or stays where it is.
    pub(crate) fn end(&mut self, batch: u64, verdict: Verdict, keep_guard: bool) {
        let stopped = self.stopped;
        let batch = &mut self.batches[batch as usize];
        batch.verdict = Some(verdict);
        let away = keep_guard || batch.given;
        batch.guard = if away { Guard::Away } else { Guard::None };
        if let (Verdict::Deliver, Some((most, ratio)), false) =
            (verdict, self.limits.budget, stopped)
        {
            self.tokens = (self.tokens + ratio).min(u64::from(most) * 1000);
        }
    }

    /// The handler gives its guard to another.
    pub(crate) fn give_guard(&mut self, batch: u64) {
        self.batches[batch as usize].given = true;
    }

    pub(crate) fn tokens(&self) -> u32 {
        (self.tokens / 1000) as u32
    }

    fn may_retry(&self) -> bool {
        self.limits.budget.is_none_or(|(most, _)| self.tokens > u64::from(most) * 500)
    }

    /// The attempt that has run out of time first.
    fn overdue(&self) -> Option<usize> {
        let limit = self.limits.timeout?;
        let running = (0..self.batches.len()).filter(|batch| {
            let batch = &self.batches[*batch];
            batch.guard == Guard::Handler && batch.begun.0 + limit <= self.now
        });
        running.min_by_key(|batch| self.batches[*batch].begun)
    }

    pub(crate) fn return_guard(&mut self, batch: u64) {
        self.batches[batch as usize].guard = Guard::None;
        if self.stopped {
            let held = std::mem::take(&mut self.batches[batch as usize].held);
            self.bury(held, Why::Indeterminate);
        }
    }

    // ---- what follows from it

    pub(crate) fn advance(&mut self) {
        self.now += 1;
    }

    /// Lets everything happen that can happen now.
    pub(crate) fn run(&mut self) {
        loop {
            let before = (self.answers.len(), self.batches.len(), self.items.len());
            self.gives_way = false;
            while !self.gives_way && self.drive() {}
            self.admit();
            self.tell();
            if !self.gives_way
                && before == (self.answers.len(), self.batches.len(), self.items.len())
            {
                return self.forget();
            }
        }
    }

    fn drive(&mut self) -> bool {
        if self.stopped {
            return false;
        }
        let done = |batch: &Batch| batch.guard == Guard::None && batch.verdict.is_some();
        if let Some(batch) = self.batches.iter().position(done) {
            self.conclude(batch);
            return true;
        }
        if self.stop_at.is_some_and(|at| at <= self.now) {
            self.remains = self.stop();
            return true;
        }
        if let Some(batch) = self.overdue() {
            self.end(batch as u64, Verdict::TimeOut, false);
            return true;
        }
        if let Some(batch) = self.ripe() {
            self.hand_over(batch);
            return true;
        }
        if self.closed && self.pending() == 0 {
            self.stopped = true;
            return true;
        }
        false
    }

    fn conclude(&mut self, batch: usize) {
        let now = self.now;
        let info = &mut self.batches[batch];
        let attempts = info.attempts;
        let verdict = info.verdict.take().unwrap();
        let held = std::mem::take(&mut info.held);
        self.put(batch, |place| place == Place::Out, &held, Place::Delivered, false);
        if verdict == Verdict::Deliver {
            self.put(batch, |place| place == Place::Out, &held, Place::Delivered, true);
        } else if !held.is_empty() {
            let retryable = !(self.limits.chooses && verdict == Verdict::Reject);
            let searching = self.batches[batch].probes.is_some();
            if retryable || searching {
                self.tokens = self.tokens.saturating_sub(1000);
            }
            let may_retry = self.may_retry();
            let info = &mut self.batches[batch];
            let failures = info.failures.filter(|_| retryable).map(|failures| failures + 1);
            let attempts_left = failures.is_some_and(|failures| failures < self.limits.attempts);
            if attempts_left && may_retry {
                info.failures = failures;
                let due = Place::Waiting(now + self.limits.delay);
                self.put(batch, |place| place == Place::Out, &held, due, true);
                return;
            }
            if retryable {
                info.failures = None;
            }
            let worth_it = match verdict {
                Verdict::Reject => true,
                Verdict::Fail => !self.limits.cuts_rejected && !self.limits.chooses,
                _ => true,
            };
            let cuts = held.len() >= 2 && worth_it && self.limits.max_probes > 0;
            if cuts {
                info.probes.get_or_insert(self.limits.max_probes);
            }
            let mut none = 0;
            let probes = info.probes.as_mut().unwrap_or(&mut none);
            let may_split = cuts && *probes >= 2;
            if may_split && may_retry {
                *probes -= 2;
                let (first, second) = held.split_at(held.len().div_ceil(2));
                info.parts.push(second.to_vec());
                self.put(batch, |place| place == Place::Out, second, Place::Parked, true);
                self.put(batch, |place| place == Place::Out, first, Place::Waiting(now), true);
                return;
            }
            self.put(batch, |place| place == Place::Out, &held, Place::Failed, true);
            let refused = attempts_left || may_split;
            let why = match verdict {
                Verdict::Panic => Why::Panicked(attempts, refused),
                Verdict::TimeOut => Why::TimedOut(attempts, refused),
                _ => Why::Failed(attempts, refused),
            };
            self.bury(held, why);
        }
        if let Some(part) = self.batches[batch].parts.pop() {
            self.put(batch, |place| place == Place::Parked, &part, Place::Waiting(now), true);
        }
    }

    /// Puts those items of a batch that are in such a place, and among `ids` or not, into another.
    fn put(
        &mut self,
        batch: usize,
        from: impl Fn(Place) -> bool,
        ids: &[u32],
        to: Place,
        among: bool,
    ) {
        for item in &mut self.items {
            if item.batch == Some(batch) && from(item.place) && ids.contains(&item.id) == among {
                item.place = to;
            }
        }
    }

    /// The next batch to be handed over: one at a time, retries first, then in order; side by side,
    /// a retry and another in turn.
    fn ripe(&mut self) -> Option<usize> {
        let busy =
            |place: Place| matches!(place, Place::Out) || (matches!(place, Place::Waiting(_)));
        let out = self.batches_in(|place| place == Place::Out);
        if out.len() == self.limits.concurrency || self.free_permits() == 0 {
            return None;
        }
        let mut due: Vec<_> = self
            .items
            .iter()
            .filter_map(|item| match item.place {
                Place::Waiting(due) if due <= self.now => Some((due, item.batch.unwrap())),
                _ => None,
            })
            .collect();
        due.sort();
        let retry = due.first().map(|(_, batch)| *batch);
        let one_at_a_time = self.limits.concurrency == 1;
        if retry.is_some() && (one_at_a_time || !self.retried_last) {
            return retry;
        }
        if one_at_a_time && !self.batches_in(busy).is_empty() {
            return None;
        }
        if self.batches_in(|place| place == Place::Sealed).is_empty() {
            if self.opened_at + self.limits.window <= self.now {
                self.seal(Closed::Window);
            } else if self.limits.eager && out.is_empty() {
                self.seal(Closed::Idle);
            }
        }
        self.batches_in(|place| place == Place::Sealed).first().copied().or(retry)
    }

    fn batches_in(&self, is: impl Fn(Place) -> bool) -> Vec<usize> {
        let mut batches: Vec<_> =
            self.items.iter().filter(|item| is(item.place)).filter_map(|item| item.batch).collect();
        batches.dedup();
        batches
    }

    fn hand_over(&mut self, batch: usize) {
        let mut held = Vec::new();
        for item in &mut self.items {
            let goes = matches!(item.place, Place::Sealed | Place::Waiting(_));
            if item.batch == Some(batch) && goes {
                item.place = Place::Out;
                held.push(item.id);
            }
        }
        let info = &mut self.batches[batch];
        info.attempts += 1;
        self.gives_way = self.limits.eager;
        info.begun = (self.now, self.handed_over + self.retries);
        info.given = false;
        info.guard = Guard::Handler;
        info.held = held;
        self.retried_last = info.attempts > 1;
        if self.retried_last {
            self.retries += 1;
        } else {
            self.oldest = self.oldest.max(self.now - info.opened_at);
            self.handed_over += 1;
            self.total_age += self.now - info.opened_at;
        }
    }

    /// Ends now: what was never handed over, and what was.
    fn stop(&mut self) -> Option<(Vec<u32>, Vec<u32>)> {
        if self.stopped {
            return None;
        }
        self.closed = true;
        self.seal(Closed::Shutdown);
        self.stopped = true;
        let (mut unsent, mut indeterminate) = (Vec::new(), Vec::new());
        for item in &mut self.items {
            let batch = item.batch.map(|batch| &self.batches[batch]);
            match item.place {
                Place::Sealed => {
                    item.place = Place::Unsent;
                    unsent.push(item.id);
                }
                Place::Waiting(_) | Place::Parked => {
                    item.place = Place::Indeterminate;
                    indeterminate.push(item.id);
                }
                Place::Out
                    if batch.is_some_and(|batch| {
                        batch.guard == Guard::Away || batch.guard == Guard::Handler && batch.given
                    }) =>
                {
                    item.place = Place::Indeterminate;
                    self.still_held += 1;
                }
                Place::Out if batch.is_some_and(|batch| batch.held.contains(&item.id)) => {
                    item.place = Place::Indeterminate;
                    indeterminate.push(item.id);
                }
                Place::Out => item.place = Place::Delivered,
                _ => {}
            }
        }
        // The handlers are dropped, and their guards with them.
        for batch in &mut self.batches {
            batch.verdict = None;
            if batch.guard == Guard::Handler {
                // What was given to another is there still.
                if batch.given {
                    batch.guard = Guard::Away;
                } else {
                    batch.guard = Guard::None;
                    batch.held.clear();
                }
            }
        }
        self.admit();
        Some((unsent, indeterminate))
    }

    /// Gives room to who is next in line, while there is enough, and lets those in who have it.
    fn admit(&mut self) {
        loop {
            while let Some(&task) = self.line.front() {
                if !self.closed && !self.has_room(self.need(self.task(task))) {
                    break;
                }
                self.line.pop_front();
                self.granted.push_back(task);
            }
            let Some(task) = self.granted.pop_front() else { return };
            self.let_in(task);
        }
    }

    fn let_in(&mut self, task: usize) {
        let at = self.tasks.iter().position(|(other, _)| *other == task).unwrap();
        match &mut self.tasks[at].1 {
            Task::Send(id) => {
                let id = *id;
                if self.closed {
                    return self.answer(task, Answer::Refused(Some(id)));
                }
                self.accept(id);
                self.answer(task, Answer::Accepted);
            }
            Task::SendMany(ids) => {
                if self.closed {
                    let left = ids.iter().copied().collect();
                    return self.answer(task, Answer::AcceptedMany(left));
                }
                let id = ids.pop_front().unwrap();
                self.accept(id);
                // What nobody else waits for it has at once.
                while let Task::SendMany(ids) = &self.tasks[at].1 {
                    let Some(&id) = ids.front() else { break };
                    let room = self.line.is_empty() && self.has_room(self.weight(id));
                    if self.is_too_heavy(id) || !room {
                        break;
                    }
                    let Task::SendMany(ids) = &mut self.tasks[at].1 else { unreachable!() };
                    ids.pop_front();
                    self.accept(id);
                }
                self.queue_many(task);
            }
            _ if self.closed => self.answer(task, Answer::Refused(None)),
            reserve => *reserve = Task::Slot,
        }
    }

    /// Ends the flushes and shutdowns that have what they waited for.
    fn tell(&mut self) {
        let mut ended = Vec::new();
        for (task, waits) in &self.tasks {
            match waits {
                Task::Flush(items) => {
                    let places: Vec<_> = items.iter().map(|item| self.items[*item].place).collect();
                    let number = |is| places.iter().filter(|place| **place == is).count() as u64;
                    if !places.iter().any(|place| Self::unfinished(*place)) {
                        ended.push((
                            *task,
                            Answer::Flushed {
                                delivered: number(Place::Delivered),
                                failed: number(Place::Failed),
                                unsent: number(Place::Unsent),
                                indeterminate: number(Place::Indeterminate),
                            },
                        ));
                    }
                }
                Task::Shutdown if self.stopped => {
                    let (unsent, indeterminate) = self.remains.take().unwrap_or_default();
                    ended.push((
                        *task,
                        Answer::Ended {
                            delivered: self.count(|place| place == Place::Delivered) as u64,
                            failed: self.count(|place| place == Place::Failed) as u64,
                            unsent,
                            indeterminate,
                            held: self.still_held,
                        },
                    ));
                }
                _ => {}
            }
        }
        for (task, answer) in ended {
            self.answer(task, answer);
        }
    }

    fn answer(&mut self, task: usize, answer: Answer) {
        self.answers.push((task, answer));
        self.tasks.retain(|(other, _)| *other != task);
        self.after_a_handle();
    }

    /// Once everybody is gone, what a shutdown gave up goes the way of the rest.
    fn forget(&mut self) {
        let guards = self.batches.iter().any(|batch| batch.guard != Guard::None);
        if self.stopped && !self.main_handle && self.tasks.is_empty() && !guards {
            if let Some((unsent, indeterminate)) = self.remains.take() {
                self.bury(indeterminate, Why::Indeterminate);
                self.bury(unsent, Why::Unsent);
            }
        }
    }

    fn bury(&mut self, items: Vec<u32>, why: Why) {
        if !items.is_empty() {
            self.buried.push((items, why));
        }
    }

    // ---- what can be seen

    pub(crate) fn calls(&self) -> Vec<Call> {
        let guarded = |(number, batch): (usize, &Batch)| Call {
            batch: number as u64,
            attempt: batch.attempts,
            items: batch.held.clone(),
        };
        let batches = self.batches.iter().enumerate();
        batches.filter(|(_, batch)| batch.guard != Guard::None).map(guarded).collect()
    }

    pub(crate) fn is_away(&self, batch: u64) -> bool {
        self.batches[batch as usize].guard == Guard::Away
    }

    pub(crate) fn slots(&self) -> Vec<usize> {
        let slot = |(task, waits): &(usize, Task)| matches!(waits, Task::Slot).then_some(*task);
        self.tasks.iter().filter_map(slot).collect()
    }

    pub(crate) fn tasks(&self) -> Vec<usize> {
        self.tasks.iter().map(|(task, _)| *task).collect()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(crate) fn has_deadline(&self) -> bool {
        self.stop_at.is_some()
    }

    pub(crate) fn figures(&self) -> Figures {
        let number = |is| self.count(|place| place == is) as u64;
        let by = |reason| self.batches.iter().filter(|b| b.sealed_by == reason).count() as u64;
        let of = |batch| self.items.iter().filter(move |item| item.batch == Some(batch));
        let batches = 0..self.batches.len();
        let sizes: Vec<_> = batches.clone().map(|batch| of(batch).count()).collect();
        let weights: Vec<u64> =
            batches.map(|batch| of(batch).map(|item| self.weight(item.id)).sum()).collect();
        Figures {
            accepted: self.items.len() as u64,
            delivered: number(Place::Delivered),
            failed: number(Place::Failed),
            unsent: number(Place::Unsent),
            indeterminate: number(Place::Indeterminate),
            pending: self.pending() as u64,
            peak_pending: self.peak as u64,
            waiting_senders: self.line.len(),
            pending_weight: self.pending_weight(),
            closed: [
                by(Closed::Count),
                by(Closed::Weight),
                by(Closed::Window),
                by(Closed::Idle),
                by(Closed::Flush),
                by(Closed::Shutdown),
            ],
            batched_items: sizes.iter().sum::<usize>() as u64,
            batched_weight: weights.iter().sum(),
            largest_batch: sizes.iter().copied().max().unwrap_or(0),
            heaviest_batch: weights.iter().copied().max().unwrap_or(0),
            retries: self.retries,
            handed_over: self.handed_over,
            total_age: self.total_age,
            oldest_handed_over: self.oldest,
        }
    }
}
