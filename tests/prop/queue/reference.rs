//! A queue so simple that it is obviously right: one vector of items, in the order of arrival, and
//! one of waiters per wait list.

use sluicegate::queue::{RejectReason, WhenFull};

pub(crate) type Id = usize;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    pub(crate) capacity: usize,
    pub(crate) when_full: WhenFull,
    pub(crate) protected: Option<usize>,
    /// Of each lane, if there is no other for the protected one.
    pub(crate) max_weight: Option<u64>,
    pub(crate) protected_max_weight: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) id: Id,
    pub(crate) weight: u64,
    pub(crate) protected: bool,
}

/// The outcome of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Stored,
    Displaced(Vec<Id>),
    DroppedNewest(Id),
    Rejected(RejectReason, Id),
    Pending,
}

/// The outcome of a reader: items with the gaps before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    Items(Vec<(Id, u64)>),
    Closed(u64),
    Empty,
}

#[derive(Debug)]
struct Pusher {
    item: Item,
    granted: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) pushed: u64,
    pub(crate) popped: u64,
    pub(crate) displaced: u64,
    pub(crate) rejected: u64,
    pub(crate) drained: u64,
    /// Lost items that readers learned of.
    pub(crate) reported: u64,
}

pub(crate) struct Reference {
    config: Config,
    /// With how many were lost before each.
    items: Vec<(Item, u64)>,
    lost_at_end: u64,
    pushers: Vec<Pusher>,
    readers: Vec<Id>,
    /// Not polled yet, or without budget, and not in the wait list.
    outside: Vec<Id>,
    pub(crate) closed: bool,
    pub(crate) counts: Counts,
}

impl Reference {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            items: Vec::new(),
            lost_at_end: 0,
            pushers: Vec::new(),
            readers: Vec::new(),
            outside: Vec::new(),
            closed: false,
            counts: Counts::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn weight(&self) -> u64 {
        self.items.iter().map(|(item, _)| item.weight).sum()
    }

    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.pushers.len(), self.readers.len())
    }

    fn room(&self, protected: bool) -> (usize, u64) {
        let Config { capacity, max_weight, protected_max_weight, .. } = self.config;
        let (items, weight) = match protected {
            true => (self.config.protected.unwrap(), protected_max_weight.or(max_weight)),
            false => (capacity, max_weight),
        };
        (items, weight.unwrap_or(u64::MAX / 2))
    }

    /// Whether there is room for it beside its lane's items and reserved room.
    fn fits(&self, new: &Item) -> bool {
        let (max_items, max_weight) = self.room(new.protected);
        let inside = self.items.iter().map(|(item, _)| item);
        let granted =
            self.pushers.iter().filter(|pusher| pusher.granted).map(|pusher| &pusher.item);
        let there: Vec<_> =
            inside.chain(granted).filter(|item| item.protected == new.protected).collect();
        let weight: u64 = there.iter().map(|item| item.weight).sum();
        there.len() < max_items && weight + new.weight <= max_weight
    }

    fn grant_pushers(&mut self) {
        for protected in [false, true] {
            while let Some(next) =
                self.pushers.iter().position(|p| p.item.protected == protected && !p.granted)
            {
                let item = self.pushers[next].item;
                if self.closed || !self.fits(&item) {
                    break;
                }
                self.pushers[next].granted = true;
            }
        }
    }

    fn admit(&mut self, item: Item) {
        self.counts.pushed += 1;
        self.items.push((item, std::mem::take(&mut self.lost_at_end)));
    }

    fn reject(&mut self, item: Item, reason: RejectReason) -> Answer {
        self.counts.pushed += 1;
        self.counts.rejected += 1;
        Answer::Rejected(reason, item.id)
    }

    /// Loses the item at an index: the reader of the next one learns of it.
    fn lose(&mut self, at: usize) -> Id {
        let (item, before) = self.items.remove(at);
        self.counts.displaced += 1;
        match self.items.get_mut(at) {
            Some((_, gap)) => *gap += before + 1,
            None => self.lost_at_end += before + 1,
        }
        item.id
    }

    pub(crate) fn push(&mut self, item: Item, may_wait: bool) -> Answer {
        if self.closed {
            return self.reject(item, RejectReason::Closed);
        }
        if item.protected && self.config.protected.is_none() {
            return self.reject(item, RejectReason::NoProtectedLane);
        }
        let (_, max_weight) = self.room(item.protected);
        if item.weight > max_weight {
            return self.reject(item, RejectReason::TooHeavy);
        }
        let waits = self.pushers.iter().any(|p| p.item.protected == item.protected && !p.granted);
        if !waits && self.fits(&item) {
            self.admit(item);
            return Answer::Stored;
        }
        let share = match self.config.when_full {
            WhenFull::DropOldest if !item.protected => 1,
            WhenFull::DropOldestShare { percent } if !item.protected => {
                let ordinary = self.items.iter().filter(|(item, _)| !item.protected).count();
                (ordinary * usize::from(percent)).div_ceil(100)
            }
            WhenFull::DropNewest if !item.protected => {
                self.counts.pushed += 1;
                self.counts.displaced += 1;
                self.lost_at_end += 1;
                return Answer::DroppedNewest(item.id);
            }
            WhenFull::Reject if !item.protected => return self.reject(item, RejectReason::Full),
            _ if may_wait => {
                self.pushers.push(Pusher { item, granted: false });
                return Answer::Pending;
            }
            _ => return self.reject(item, RejectReason::Full),
        };
        let mut displaced = Vec::new();
        while displaced.len() < share || !self.fits(&item) {
            let Some(at) = self.items.iter().position(|(item, _)| !item.protected) else { break };
            displaced.push(self.lose(at));
        }
        self.admit(item);
        Answer::Displaced(displaced)
    }

    /// Whether a push that may wait would have to.
    fn must_wait(&self, item: &Item) -> bool {
        let waits = item.protected || self.config.when_full == WhenFull::Wait;
        if self.closed || !waits || (item.protected && self.config.protected.is_none()) {
            return false;
        }
        let (_, max_weight) = self.room(item.protected);
        let before = self.pushers.iter().any(|p| p.item.protected == item.protected && !p.granted);
        item.weight <= max_weight && (before || !self.fits(item))
    }

    /// A push that is polled without budget: it moves nothing, and joins the wait list if it must wait.
    pub(crate) fn push_without_budget(&mut self, item: Item) {
        let known = self.pushers.iter().any(|pusher| pusher.item.id == item.id);
        if !known && self.must_wait(&item) {
            self.pushers.push(Pusher { item, granted: false });
        }
    }

    /// A reader that was not polled yet.
    pub(crate) fn new_reader(&mut self, id: Id) {
        self.outside.push(id);
    }

    /// A reader that is polled without budget: it takes nothing, and joins the wait list if it must wait.
    pub(crate) fn read_without_budget(&mut self, id: Id) {
        if self.readers.contains(&id) {
            return;
        }
        self.outside.retain(|reader| *reader != id);
        if !self.closed && self.items.len() <= self.readers.len() {
            self.readers.push(id);
        } else {
            self.outside.push(id);
        }
    }

    /// A push that was polled before, with budget this time.
    pub(crate) fn poll_any_push(&mut self, item: Item) -> Answer {
        if self.pushers.iter().any(|pusher| pusher.item.id == item.id) {
            return self.poll_push(item.id);
        }
        self.push(item, true)
    }

    /// A reader that was polled before, with budget this time.
    pub(crate) fn poll_any_reader(&mut self, id: Id, max: usize) -> Read {
        let outside = self.outside.len();
        self.outside.retain(|reader| *reader != id);
        if self.outside.len() < outside {
            return self.join_readers(id, max);
        }
        self.poll_reader(id, max)
    }

    fn poll_push(&mut self, id: Id) -> Answer {
        let at = self.pushers.iter().position(|pusher| pusher.item.id == id).unwrap();
        let Pusher { item, granted } = self.pushers[at];
        if self.closed {
            self.pushers.remove(at);
            return self.reject(item, RejectReason::Closed);
        }
        if !granted {
            return Answer::Pending;
        }
        self.pushers.remove(at);
        self.admit(item);
        Answer::Stored
    }

    pub(crate) fn cancel_push(&mut self, id: Id) {
        self.pushers.retain(|pusher| pusher.item.id != id);
    }

    /// Whether a waiting push must be woken.
    pub(crate) fn is_pusher_granted(&self, id: Id) -> bool {
        self.closed || self.pushers.iter().any(|pusher| pusher.item.id == id && pusher.granted)
    }

    /// The first readers are granted items, as many as there are.
    pub(crate) fn is_reader_granted(&self, id: Id) -> bool {
        self.closed || self.readers.iter().take(self.items.len()).any(|reader| *reader == id)
    }

    fn take(&mut self, max: usize) -> Vec<(Id, u64)> {
        let taken: Vec<_> =
            self.items.drain(..max).map(|(item, before)| (item.id, before)).collect();
        self.counts.reported += taken.iter().map(|(_, before)| before).sum::<u64>();
        taken
    }

    pub(crate) fn pop(&mut self, max: usize) -> Read {
        let reserved = if self.closed { 0 } else { self.readers.len() };
        let free = self.items.len().saturating_sub(reserved);
        if free > 0 {
            let taken = self.take(max.min(free));
            self.counts.popped += taken.len() as u64;
            return Read::Items(taken);
        }
        if self.closed {
            let lost = std::mem::take(&mut self.lost_at_end);
            self.counts.reported += lost;
            return Read::Closed(lost);
        }
        Read::Empty
    }

    /// `pop` of a reader that waits if there is no item.
    fn join_readers(&mut self, id: Id, max: usize) -> Read {
        let read = self.pop(max);
        if read == Read::Empty {
            self.readers.push(id);
        }
        read
    }

    fn poll_reader(&mut self, id: Id, max: usize) -> Read {
        if !self.is_reader_granted(id) {
            return Read::Empty;
        }
        self.cancel_reader(id);
        if self.closed {
            return self.pop(max);
        }
        // One was reserved for it.
        let free = self.items.len().saturating_sub(self.readers.len()).max(1);
        let taken = self.take(max.min(free));
        self.counts.popped += taken.len() as u64;
        Read::Items(taken)
    }

    pub(crate) fn cancel_reader(&mut self, id: Id) {
        self.outside.retain(|reader| *reader != id);
        self.readers.retain(|reader| *reader != id);
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn drain(&mut self) -> (Vec<(Id, u64)>, u64) {
        let drained = self.take(self.items.len());
        self.counts.drained += drained.len() as u64;
        let lost = std::mem::take(&mut self.lost_at_end);
        self.counts.reported += lost;
        (drained, lost)
    }

    /// To be called after every step.
    pub(crate) fn finish_step(&mut self) {
        self.grant_pushers();
    }
}
