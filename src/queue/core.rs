//! The queue's state machine: it knows no lock, no runtime and no clock.
//!
//! What becomes of an item:
//!
//! ```text
//!                    no room, Wait
//!        offered ────────────────────▶ waiting ──▶ given up: never offered
//!           │                             │
//!   ┌───────┼──────────────────┐          │ called, and asks again
//!   │       ▼ room             │          ▼
//!   │   resident ◀─────────────┼──────────┘ ───────▶ rejected (closed meanwhile)
//!   │       │                  │
//!   │       ├──▶ popped        ├──▶ rejected (full, too heavy, closed)
//!   │       ├──▶ drained       └──▶ displaced (the newest)
//!   │       └──▶ displaced (the oldest)
//! ```
//!
//! Everything that was ever resident or displaced has a number, in the order of arrival over both
//! lanes, and leaves in that order; so the gap before an item is the difference of two numbers.
//!
//! Room and items are kept for called waiters by count and not by name: a new call is served from
//! what there is beyond that. So no waiter is passed, nothing leaves out of order, and a called task
//! that does not come withholds only what is kept for it.
//!
//! While no waiter is to be called and nothing else is special, pushes and pops take the fast path:
//!
//! ```text
//!              a waiter to call, closed, weights, a second lane
//!  FastPath ──────────────────────────────────────────────────▶ FastPath::OFF
//!     ▲                                                              │
//!     └──────────────── refresh_fast_path, after each slow step ─────┘
//! ```

use core::task::Waker;

use super::lane::{Entry, Lane};
use super::outcome::{Displaced, Drained, Popped, Pushed, RejectReason, Rejected};
use super::policy::WhenFull;
use super::stats::QueueStats;
use super::waiters::Waiters;
use crate::base::wait_list::WaiterId;

/// Which lane a push is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneName {
    Ordinary,
    Protected,
}

/// An item on its way in.
pub(super) struct Offer<T> {
    pub(super) item: T,
    pub(super) weight: u64,
    pub(super) lane: LaneName,
}

#[derive(Debug)]
pub(super) struct Core<T> {
    ordinary: Lane<T>,
    protected: Option<Lane<T>>,
    when_full: WhenFull,
    /// The number of the next to arrive: how many did, and were not rejected.
    arrived: u64,
    /// The number of the next that a reader has not heard of yet.
    read: u64,
    readers: Waiters,
    closed: bool,
    counts: Counts,
    fast_path: FastPath,
}

/// Between which lengths of the ring of ordinary items the fast path is open: nothing but the ring is
/// touched there.
#[derive(Debug, Clone, Copy)]
struct FastPath {
    /// Shorter than this, the ring has room for a push.
    push_below: usize,
    /// Longer than this, it has an item for a pop.
    pop_above: usize,
}

impl FastPath {
    const OFF: Self = Self { push_below: 0, pop_above: usize::MAX };
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    displaced_oldest: u64,
    displaced_newest: u64,
    drained: u64,
    rejected: [u64; RejectReason::COUNT],
    given_up: u64,
    peak: usize,
}

impl<T> Core<T> {
    pub(super) fn new(ordinary: Lane<T>, protected: Option<Lane<T>>, when_full: WhenFull) -> Self {
        Self {
            ordinary,
            protected,
            when_full,
            arrived: 0,
            read: 0,
            readers: Waiters::new(),
            closed: false,
            counts: Counts::default(),
            fast_path: FastPath::OFF,
        }
    }

    /// Opens or shuts the fast path. The last step under the lock after every slow step.
    pub(super) fn refresh_fast_path(&mut self) {
        let calm = self.ordinary.waiters.waiting() == 0 && self.readers.waiting() == 0;
        self.fast_path = if calm && !self.closed && self.ordinary.is_fast() {
            let push_below = self.ordinary.room_beyond_called();
            FastPath { push_below, pop_above: self.readers.called() }
        } else {
            FastPath::OFF
        };
    }

    /// Puts an item in by the fast path, if it is open.
    #[inline]
    pub(super) fn push_fast(&mut self, item: T) -> Result<(), T> {
        let len = self.ordinary.len();
        if len >= self.fast_path.push_below {
            return Err(item);
        }
        self.arrived += 1;
        self.ordinary.push_fast(item);
        if len >= self.counts.peak {
            self.counts.peak = len + 1;
        }
        Ok(())
    }

    /// Takes the oldest item out by the fast path, if it is open.
    #[inline]
    pub(super) fn pop_fast(&mut self) -> Option<Popped<T>> {
        if self.ordinary.len() <= self.fast_path.pop_above {
            return None;
        }
        let number = self.arrived - self.ordinary.len() as u64;
        let item = self.ordinary.pop_fast()?;
        Some(self.read(Entry { number, item }))
    }

    fn lane(&mut self, name: LaneName) -> Option<&mut Lane<T>> {
        match name {
            LaneName::Ordinary => Some(&mut self.ordinary),
            LaneName::Protected => self.protected.as_mut(),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.ordinary.len() + self.protected.as_ref().map_or(0, Lane::len)
    }

    pub(super) fn weight(&self) -> u64 {
        self.ordinary.weight() + self.protected.as_ref().map_or(0, Lane::weight)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Stores an item, or does what the queue does with one for which there is no room. The item comes
    /// back if it has to wait.
    #[inline]
    pub(super) fn push(&mut self, offer: Offer<T>) -> Result<Pushed<T>, Offer<T>> {
        let closed = self.closed;
        match self.lane(offer.lane) {
            Some(lane) if !closed && lane.is_open_to(offer.weight) => {
                self.admit(offer);
                Ok(Pushed::Stored)
            }
            _ => self.push_full(offer),
        }
    }

    fn admit(&mut self, Offer { item, weight, lane }: Offer<T>) {
        let number = self.arrived;
        self.arrived += 1;
        if let Some(lane) = self.lane(lane) {
            lane.push(Entry { number, item }, weight);
        }
        self.counts.peak = self.counts.peak.max(self.len());
    }

    #[inline]
    fn push_full(&mut self, offer: Offer<T>) -> Result<Pushed<T>, Offer<T>> {
        let closed = self.closed;
        let reason = match self.lane(offer.lane) {
            _ if closed => RejectReason::Closed,
            None => RejectReason::NoProtectedLane,
            Some(lane) if !lane.takes(offer.weight) => RejectReason::TooHeavy,
            Some(_) if offer.lane == LaneName::Protected => return Err(offer),
            Some(_) => match self.when_full {
                WhenFull::Wait => return Err(offer),
                WhenFull::Reject => RejectReason::Full,
                WhenFull::DropNewest => {
                    self.arrived += 1;
                    self.counts.displaced_newest += 1;
                    return Ok(Pushed::DroppedNewest(offer.item));
                }
                WhenFull::DropOldest | WhenFull::DropOldestShare { .. } => {
                    return Ok(self.displace(offer));
                }
            },
        };
        Ok(self.reject(offer.item, reason))
    }

    pub(super) fn reject(&mut self, item: T, reason: RejectReason) -> Pushed<T> {
        self.counts.rejected[reason as usize] += 1;
        Pushed::Rejected(Rejected { reason, item })
    }

    fn displace(&mut self, offer: Offer<T>) -> Pushed<T> {
        let lane = &mut self.ordinary;
        let share = self.when_full.share(lane.len()).unwrap_or(1);
        let count = lane.in_the_way(offer.weight, share);
        let displaced = match count {
            1 => Displaced::from(lane.take_one()),
            _ => Displaced::from(lane.take(count)),
        };
        self.counts.displaced_oldest += count as u64;
        self.admit(offer);
        self.call_off_readers();
        Pushed::Displaced(displaced)
    }

    /// Fewer items may be left than readers were called for.
    fn call_off_readers(&mut self) {
        while !self.closed && self.readers.called() > self.len() {
            self.readers.call_off();
        }
    }

    /// [`push`](Self::push) for a waiter, which leaves the wait list if this succeeds.
    pub(super) fn push_in_turn(
        &mut self,
        id: WaiterId,
        offer: Offer<T>,
        unused: &mut Option<Waker>,
    ) -> Result<Pushed<T>, Offer<T>> {
        let closed = self.closed;
        let Some(lane) = self.lane(offer.lane) else { return Err(offer) };
        if closed {
            *unused = lane.waiters.leave(id).flatten();
            return Ok(self.reject(offer.item, RejectReason::Closed));
        }
        let Some(waker) = lane.waiters.leave_called(id) else { return Err(offer) };
        *unused = waker;
        self.admit(offer);
        Ok(Pushed::Stored)
    }

    /// The wait list that a new push has to join: none, if it is answered at once.
    pub(super) fn wait_list_of_push(
        &mut self,
        name: LaneName,
        weight: u64,
    ) -> Option<&mut Waiters> {
        let waits = name == LaneName::Protected || self.when_full == WhenFull::Wait;
        let waits = waits && !self.closed;
        let lane = self.lane(name)?;
        (waits && lane.takes(weight) && !lane.is_open_to(weight)).then_some(&mut lane.waiters)
    }

    /// The wait list that a new reader has to join: none, if it is answered at once.
    pub(super) fn wait_list_of_pop(&mut self) -> Option<&mut Waiters> {
        let free = self.len() > self.readers.len();
        (!self.closed && !free).then_some(&mut self.readers)
    }

    /// The waiters for room in a lane.
    pub(super) fn pushers(&mut self, name: LaneName) -> Option<&mut Waiters> {
        self.lane(name).map(|lane| &mut lane.waiters)
    }

    /// The waiters for items.
    pub(super) fn readers(&mut self) -> &mut Waiters {
        &mut self.readers
    }

    /// A waiter for room gives up, if it is in the list still.
    pub(super) fn leave_pushers(&mut self, name: LaneName, id: WaiterId) -> Option<Waker> {
        let left = self.lane(name)?.waiters.leave(id);
        self.count_given_up(left)
    }

    /// A waiter for items gives up, if it is in the list still.
    pub(super) fn leave_readers(&mut self, id: WaiterId) -> Option<Waker> {
        let left = self.readers.leave(id);
        self.count_given_up(left)
    }

    fn count_given_up(&mut self, left: Option<Option<Waker>>) -> Option<Waker> {
        self.counts.given_up += u64::from(left.is_some());
        left?
    }

    /// How many items there are for a new call, or for a waiter, which leaves the wait list if there
    /// are any.
    ///
    /// Any caller may take the items that are left in a closed queue.
    #[inline]
    pub(super) fn free_items(&mut self, id: Option<WaiterId>, unused: &mut Option<Waker>) -> usize {
        if self.closed {
            *unused = id.and_then(|id| self.readers.leave(id)).flatten();
            return self.len();
        }
        let beyond_the_waiters = self.len().saturating_sub(self.readers.len());
        match id {
            None => beyond_the_waiters,
            Some(id) => match self.readers.leave_called(id) {
                Some(waker) => {
                    *unused = waker;
                    // One was kept.
                    beyond_the_waiters + 1
                }
                None => 0,
            },
        }
    }

    /// Takes up to `max` of the oldest items out.
    pub(super) fn pop_many(&mut self, max: usize, into: &mut Vec<Popped<T>>) {
        into.reserve(max.min(self.len()));
        for _ in 0..max {
            into.extend(self.pop_front());
        }
    }

    /// Takes the oldest item of both lanes out.
    pub(super) fn pop_front(&mut self) -> Option<Popped<T>> {
        let entry = match &mut self.protected {
            Some(protected) if protected.is_before(&self.ordinary) => protected.pop(self.arrived),
            _ => self.ordinary.pop(self.arrived),
        };
        entry.map(|entry| self.read(entry))
    }

    #[inline]
    fn read(&mut self, entry: Entry<T>) -> Popped<T> {
        let dropped_before = entry.number - self.read;
        self.read = entry.number + 1;
        Popped { item: entry.item, dropped_before }
    }

    /// How many were lost after the last item that was popped, and before anything that is still
    /// there. Only the first to ask is told.
    pub(super) fn read_gap(&mut self) -> u64 {
        let next = if self.len() == 0 { self.arrived } else { self.read };
        next - core::mem::replace(&mut self.read, next)
    }

    pub(super) fn drain(&mut self) -> Drained<T> {
        let mut items = Vec::with_capacity(self.len());
        while let Some(popped) = self.pop_front() {
            items.push(popped);
        }
        self.counts.drained += items.len() as u64;
        self.call_off_readers();
        Drained { items, dropped_after: self.read_gap() }
    }

    /// Accepts nothing more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether a waiter is to be woken.
    #[inline]
    pub(super) fn has_due(&self) -> bool {
        let protected = self.protected.as_ref().map_or(0, |lane| lane.waiters.waiting());
        let waiting = self.readers.waiting() + self.ordinary.waiters.waiting() + protected;
        waiting != 0 && self.is_any_due()
    }

    fn is_any_due(&self) -> bool {
        self.closed
            || self.can_call_reader()
            || self.ordinary.can_call()
            || self.protected.as_ref().is_some_and(Lane::can_call)
    }

    fn can_call_reader(&self) -> bool {
        self.readers.waiting() != 0 && self.readers.called() < self.len()
    }

    /// Calls the next waiter for which there is an item or room, or dismisses one if the queue is
    /// closed, and returns its waker. More may be [due](Self::has_due).
    pub(super) fn call_next(&mut self) -> Option<Waker> {
        loop {
            let waker = self.call_or_dismiss();
            if waker.is_some() || !self.has_due() {
                return waker;
            }
        }
    }

    fn call_or_dismiss(&mut self) -> Option<Waker> {
        if self.closed {
            let lists = [Some(&mut self.readers), Some(&mut self.ordinary.waiters)];
            let protected = self.protected.as_mut().map(|lane| &mut lane.waiters);
            let mut lists = lists.into_iter().chain([protected]).flatten();
            return lists.find(|waiters| waiters.waiting() != 0)?.dismiss_next();
        }
        if self.can_call_reader() {
            return self.readers.call_next();
        }
        let lanes = [Some(&mut self.ordinary), self.protected.as_mut()];
        lanes.into_iter().flatten().find(|lane| lane.can_call())?.waiters.call_next()
    }

    /// Panics unless the wait lists hold together.
    #[cfg(debug_assertions)]
    pub(super) fn validate(&self) {
        self.readers.validate();
        self.ordinary.waiters.validate();
        if let Some(protected) = &self.protected {
            protected.waiters.validate();
        }
    }

    pub(super) fn stats(&self) -> QueueStats {
        let Counts { displaced_oldest, displaced_newest, drained, rejected, given_up, peak } =
            self.counts;
        let protected = self.protected.as_ref();
        let waits = |waiters: &Waiters| waiters.joined();
        QueueStats {
            pushed: self.arrived + rejected.iter().sum::<u64>(),
            popped: self.arrived
                - displaced_oldest
                - displaced_newest
                - drained
                - self.len() as u64,
            displaced_oldest,
            displaced_newest,
            drained,
            rejected_full: rejected[RejectReason::Full as usize],
            rejected_too_heavy: rejected[RejectReason::TooHeavy as usize],
            rejected_closed: rejected[RejectReason::Closed as usize],
            rejected_no_lane: rejected[RejectReason::NoProtectedLane as usize],
            len: self.len(),
            protected_len: protected.map_or(0, Lane::len),
            weight: self.weight(),
            peak_len: peak,
            waiting_pushers: self.ordinary.waiters.len()
                + protected.map_or(0, |lane| lane.waiters.len()),
            waiting_readers: self.readers.len(),
            push_waits: waits(&self.ordinary.waiters)
                + protected.map_or(0, |lane| waits(&lane.waiters)),
            pop_waits: waits(&self.readers),
            given_up,
        }
    }
}
