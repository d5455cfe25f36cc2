//! The queue's state machine: it knows no lock, no runtime and no clock.
//!
//! What becomes of an item:
//!
//! ```text
//!                    no room, Wait
//!         pushed ─────────────────────▶ waiting ──▶ cancelled: never pushed
//!           │                             │
//!   ┌───────┼──────────────────┐          │ granted, and polled again
//!   │       ▼ room             │          ▼
//!   │   resident ◀─────────────┼──────────┘ ───────▶ rejected (closed meanwhile)
//!   │       │                  │
//!   │       ├──▶ popped        ├──▶ rejected (full, too heavy, closed)
//!   │       ├──▶ drained       └──▶ displaced (the newest)
//!   │       └──▶ displaced (the oldest)
//! ```
//!
//! Each item that was ever resident or displaced has a number, in the order of arrival over both
//! lanes. Items leave in that order, so the gap before an item is the difference of two numbers.
//!
//! Room and items are reserved for granted waiters by count, not by name: a new caller is served if
//! there is more than that. So no waiter is passed, items leave in order, and a granted waiter that
//! is not polled withholds no more than its own reservation.
//!
//! The fast path moves an item in or out of the ring of ordinary items and touches nothing else:
//!
//! ```text
//!            a waiter waits, or the queue is closed
//!     on ─────────────────────────────────────────────▶ off
//!      ◀────────────────────────────────────────────────
//!            all waiters are granted, or none is left
//! ```
//!
//! It is always off if items have marks beside them, see [`Lane`].

use core::task::Waker;

use super::builder::WhenFull;
use super::lane::{Entry, Lane};
use super::outcome::{Displaced, Drained, Popped, Pushed, QueueStats, RejectReason, Rejected};
use super::waiters::Waiters;
use crate::base::wait_list::WaiterId;

/// The lane of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneName {
    Ordinary,
    Protected,
}

/// One of the three wait lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitersOf {
    Pushers(LaneName),
    Readers,
}

/// An item to push.
pub(super) struct Offer<T> {
    pub(super) item: T,
    pub(super) weight: u64,
    pub(super) lane: LaneName,
}

/// The lengths of the ring of ordinary items between which the fast path pushes and pops.
///
/// Two bounds that no length satisfies stand for "off": an enum would cost each operation one more
/// comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FastPath {
    push_below: usize,
    pop_above: usize,
}

impl FastPath {
    const OFF: Self = Self { push_below: 0, pop_above: usize::MAX };

    /// Up to the room and down to the items that are reserved for granted waiters.
    fn on<T>(lane: &Lane<T>, readers: &Waiters) -> Self {
        Self { push_below: lane.unreserved(), pop_above: readers.granted() }
    }

    #[inline]
    fn can_push(self, len: usize) -> bool {
        len < self.push_below
    }

    #[inline]
    fn can_pop(self, len: usize) -> bool {
        len > self.pop_above
    }
}

#[derive(Debug)]
pub(super) struct Core<T> {
    ordinary: Lane<T>,
    /// Without capacity if the queue has no protected lane.
    protected: Lane<T>,
    when_full: WhenFull,
    /// The number of the next item to arrive: how many arrived and were not rejected.
    arrived: u64,
    /// The first number that no reader knows about: neither as an item nor as part of a gap.
    unread: u64,
    readers: Waiters,
    closed: bool,
    counts: Counts,
    fast_path: FastPath,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    displaced_oldest: u64,
    displaced_newest: u64,
    drained: u64,
    rejected: [u64; RejectReason::COUNT],
    cancellations: u64,
    peak: usize,
}

impl<T> Core<T> {
    pub(super) fn new(ordinary: Lane<T>, protected: Lane<T>, when_full: WhenFull) -> Self {
        let mut core = Self {
            ordinary,
            protected,
            when_full,
            arrived: 0,
            unread: 0,
            readers: Waiters::new(),
            closed: false,
            counts: Counts::default(),
            fast_path: FastPath::OFF,
        };
        core.refresh_fast_path();
        core
    }

    fn fast_path(&self) -> FastPath {
        if self.closed || self.has_waiting() || self.ordinary.has_marks() {
            return FastPath::OFF;
        }
        FastPath::on(&self.ordinary, &self.readers)
    }

    /// To be called at the end of each critical section that did more than the fast path does.
    #[inline]
    pub(super) fn refresh_fast_path(&mut self) {
        self.fast_path = self.fast_path();
    }

    /// Pushes an item, if the fast path is on and there is room.
    #[inline]
    pub(super) fn push_fast(&mut self, item: T) -> Result<(), T> {
        let len = self.ordinary.len();
        if !self.fast_path.can_push(len) {
            return Err(item);
        }
        self.arrived += 1;
        self.ordinary.push_fast(item);
        if len >= self.counts.peak {
            self.counts.peak = len + 1;
        }
        Ok(())
    }

    /// Pops the oldest item, if the fast path is on and there is one.
    #[inline]
    pub(super) fn pop_fast(&mut self) -> Option<Popped<T>> {
        let len = self.ordinary.len();
        if !self.fast_path.can_pop(len) {
            return None;
        }
        let number = self.arrived - len as u64;
        let item = self.ordinary.pop_fast()?;
        Some(self.read(Entry { number, item }))
    }

    fn lane(&mut self, name: LaneName) -> &mut Lane<T> {
        match name {
            LaneName::Ordinary => &mut self.ordinary,
            LaneName::Protected => &mut self.protected,
        }
    }

    pub(super) fn waiters(&mut self, of: WaitersOf) -> &mut Waiters {
        match of {
            WaitersOf::Pushers(lane) => &mut self.lane(lane).waiters,
            WaitersOf::Readers => &mut self.readers,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.ordinary.len() + self.protected.len()
    }

    pub(super) fn weight(&self) -> u64 {
        self.ordinary.weight() + self.protected.weight()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Pushes an item, or answers it as a full queue does. An item that has to wait comes back.
    pub(super) fn push(&mut self, offer: Offer<T>) -> Result<Pushed<T>, Offer<T>> {
        let closed = self.closed;
        if !closed && self.lane(offer.lane).is_open_to(offer.weight) {
            return Ok(self.admit(offer));
        }
        self.push_full(offer)
    }

    fn admit(&mut self, Offer { item, weight, lane }: Offer<T>) -> Pushed<T> {
        let number = self.arrived;
        self.arrived += 1;
        self.lane(lane).push(Entry { number, item }, weight);
        self.counts.peak = self.counts.peak.max(self.len());
        Pushed::Stored
    }

    fn push_full(&mut self, offer: Offer<T>) -> Result<Pushed<T>, Offer<T>> {
        let lane = self.lane(offer.lane);
        let (exists, fits) = (lane.exists(), lane.can_hold(offer.weight));
        let reason = match self.when_full {
            _ if self.closed => RejectReason::Closed,
            _ if !exists => RejectReason::NoProtectedLane,
            _ if !fits => RejectReason::TooHeavy,
            _ if offer.lane == LaneName::Protected => return Err(offer),
            WhenFull::Wait => return Err(offer),
            WhenFull::Reject => RejectReason::Full,
            WhenFull::DropNewest => {
                self.arrived += 1;
                self.counts.displaced_newest += 1;
                return Ok(Pushed::DroppedNewest(offer.item));
            }
            WhenFull::DropOldest | WhenFull::DropOldestShare { .. } => {
                return Ok(Pushed::Displaced(self.displace(offer)));
            }
        };
        Ok(self.reject(offer.item, reason))
    }

    pub(super) fn reject(&mut self, item: T, reason: RejectReason) -> Pushed<T> {
        self.counts.rejected[reason as usize] += 1;
        Pushed::Rejected(Rejected { reason, item })
    }

    fn displace(&mut self, offer: Offer<T>) -> Displaced<T> {
        let share = self.when_full.share(self.ordinary.len());
        let displaced = self.ordinary.displace(offer.weight, share);
        self.counts.displaced_oldest += displaced.len() as u64;
        let _stored = self.admit(offer);
        self.revoke_readers();
        displaced
    }

    /// Takes grants back, the last first, for which there is no item any more.
    fn revoke_readers(&mut self) {
        while !self.closed && self.readers.granted() > self.len() {
            self.readers.revoke_last();
        }
    }

    /// [`push`](Self::push) of a waiter, which has left the wait list if this succeeds.
    pub(super) fn push_granted(
        &mut self,
        id: WaiterId,
        offer: Offer<T>,
        unused: &mut Option<Waker>,
    ) -> Result<Pushed<T>, Offer<T>> {
        let closed = self.closed;
        let waiters = &mut self.lane(offer.lane).waiters;
        if closed {
            *unused = waiters.remove(id).flatten();
            return Ok(self.reject(offer.item, RejectReason::Closed));
        }
        let Some(waker) = waiters.claim(id) else { return Err(offer) };
        *unused = waker;
        Ok(self.admit(offer))
    }

    /// Whether a new push would have to wait.
    pub(super) fn must_push_wait(&mut self, name: LaneName, weight: u64) -> bool {
        let waits = name == LaneName::Protected || self.when_full == WhenFull::Wait;
        let closed = self.closed;
        let lane = self.lane(name);
        let lane_takes_it = lane.exists() && lane.can_hold(weight);
        waits && !closed && lane_takes_it && !lane.is_open_to(weight)
    }

    /// Whether a new reader would have to wait.
    pub(super) fn must_pop_wait(&self) -> bool {
        !self.closed && self.len() <= self.readers.len()
    }

    /// Removes a cancelled waiter, if it is in the list still.
    pub(super) fn cancel(&mut self, of: WaitersOf, id: WaiterId) -> Option<Waker> {
        let removed = self.waiters(of).remove(id);
        self.counts.cancellations += u64::from(removed.is_some());
        removed?
    }

    /// How many items a new reader can take, or a waiting one, which has left the wait list if there
    /// are any. Once the queue is closed that is all items, for any reader.
    pub(super) fn available(&mut self, id: Option<WaiterId>, unused: &mut Option<Waker>) -> usize {
        if self.closed {
            *unused = id.and_then(|id| self.readers.remove(id)).flatten();
            return self.len();
        }
        let unreserved = self.len().saturating_sub(self.readers.len());
        let Some(id) = id else { return unreserved };
        let Some(waker) = self.readers.claim(id) else { return 0 };
        *unused = waker;
        unreserved + 1
    }

    /// Pops up to `max` of the oldest items.
    pub(super) fn pop_many(&mut self, max: usize, into: &mut Vec<Popped<T>>) {
        into.reserve(max.min(self.len()));
        for _ in 0..max {
            into.extend(self.pop_front());
        }
    }

    /// Pops the oldest item of both lanes.
    pub(super) fn pop_front(&mut self) -> Option<Popped<T>> {
        let protected = self.protected.len() != 0 && self.protected.is_before(&self.ordinary);
        let lane = if protected { &mut self.protected } else { &mut self.ordinary };
        let entry = lane.pop(self.arrived)?;
        Some(self.read(entry))
    }

    #[inline]
    fn read(&mut self, entry: Entry<T>) -> Popped<T> {
        let dropped_before = entry.number - self.unread;
        self.unread = entry.number + 1;
        Popped { item: entry.item, dropped_before }
    }

    /// How many items were lost after the last one that was popped and before any resident one. Only
    /// the first call reports them.
    pub(super) fn read_gap(&mut self) -> u64 {
        let next = if self.len() == 0 { self.arrived } else { self.unread };
        next - core::mem::replace(&mut self.unread, next)
    }

    pub(super) fn drain(&mut self) -> Drained<T> {
        let mut items = Vec::new();
        self.pop_many(self.len(), &mut items);
        self.counts.drained += items.len() as u64;
        self.revoke_readers();
        Drained { items, dropped_after: self.read_gap() }
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether there are waiters without a grant.
    #[inline]
    pub(super) fn has_waiting(&self) -> bool {
        let pushers = self.ordinary.waiters.waiting() + self.protected.waiters.waiting();
        self.readers.waiting() + pushers != 0
    }

    /// A wait list whose next waiter can be granted what it waits for, or told of the close.
    fn next_to_serve(&mut self) -> Option<&mut Waiters> {
        let closed = self.closed;
        let can_grant = closed || self.readers.granted() < self.len();
        if can_grant && self.readers.waiting() != 0 {
            return Some(&mut self.readers);
        }
        let mut lanes = [&mut self.ordinary, &mut self.protected].into_iter();
        let lane = lanes.find(|lane| match lane.waiters.next_need() {
            Some(weight) => closed || lane.has_room(weight),
            None => false,
        });
        lane.map(|lane| &mut lane.waiters)
    }

    #[inline]
    pub(super) fn can_serve(&mut self) -> bool {
        self.has_waiting() && self.next_to_serve().is_some()
    }

    /// Serves waiters up to the first with a waker, which it returns. There may be more of them: see
    /// [`can_serve`](Self::can_serve).
    pub(super) fn serve_next(&mut self) -> Option<Waker> {
        let closed = self.closed;
        loop {
            let waiters = self.next_to_serve()?;
            let waker = if closed { waiters.dismiss_next() } else { waiters.grant_next() };
            if waker.is_some() {
                return waker;
            }
        }
    }

    /// Panics unless lanes and wait lists hold together and the fast path is up to date. O(n).
    #[cfg(debug_assertions)]
    pub(super) fn validate(&self) {
        self.readers.validate();
        self.ordinary.validate();
        self.protected.validate();
        assert_eq!(self.fast_path, self.fast_path(), "the fast path");
        assert!(self.closed || self.readers.granted() <= self.len(), "items for granted readers");
        assert!(self.unread <= self.arrived && self.len() as u64 <= self.arrived - self.unread);
    }

    pub(super) fn stats(&self) -> QueueStats {
        let Self { ordinary, protected, readers, arrived, counts, .. } = self;
        let displaced = counts.displaced_oldest + counts.displaced_newest;
        QueueStats {
            pushed: arrived + counts.rejected.iter().sum::<u64>(),
            popped: arrived - displaced - counts.drained - self.len() as u64,
            displaced_oldest: counts.displaced_oldest,
            displaced_newest: counts.displaced_newest,
            drained: counts.drained,
            rejected_full: counts.rejected[RejectReason::Full as usize],
            rejected_too_heavy: counts.rejected[RejectReason::TooHeavy as usize],
            rejected_closed: counts.rejected[RejectReason::Closed as usize],
            rejected_no_lane: counts.rejected[RejectReason::NoProtectedLane as usize],
            len: self.len(),
            protected_len: protected.len(),
            weight: self.weight(),
            peak_len: counts.peak,
            waiting_pushers: ordinary.waiters.len() + protected.waiters.len(),
            waiting_readers: readers.len(),
            push_waits: ordinary.waiters.joined() + protected.waiters.joined(),
            pop_waits: readers.joined(),
            cancellations: counts.cancellations,
        }
    }
}
