//! The tracker's state machine: it knows no lock, no runtime and no clock.
//!
//! What becomes of a position:
//!
//! ```text
//!            track            complete
//!  outside ────────▶ in work ──────────▶ complete ──┐
//!                     │ ▲  │ reject                 │ all before it are
//!             release │ │  └───────────▶ parked ────┤ complete or parked
//!                     ▼ │ redeliver                 ▼
//!                  released                     committed
//!
//!  in work, released ── new epoch ──▶ fenced: an acknowledgement is counted and ignored
//!  in work ── the future that waited for it is dropped before it was handed out ──▶ outside
//! ```
//!
//! The ring holds every position that is tracked and not committed, in order. Its front is never
//! complete or parked. A slot is named by its serial number, which is never used again: so an
//! acknowledgement from before an epoch finds no slot.

use core::task::Waker;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::checkpoint::{Checkpoint, Committed, Ranges};
use super::error::TrackError;
use super::stats::OffsetStats;
use crate::base::wait_list::{WaitList, WaiterId};
use crate::base::wake::WakeList;

/// A position that was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The position.
    pub position: u64,
    /// What [`Ack::reject`](super::Ack::reject) was given.
    pub reason: Cow<'static, str>,
}

/// The oldest position that is neither complete nor parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oldest {
    /// The position.
    pub position: u64,
    /// Since it was tracked; see [`OffsetTracker::oldest_incomplete`](super::OffsetTracker::oldest_incomplete)
    /// for how exact that is.
    pub age: Duration,
}

/// What an acknowledgement says; the worst of several parts is the greatest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Complete,
    Rejected(Cow<'static, str>),
    Released,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) capacity: usize,
    pub(super) window: usize,
    pub(super) max_ranges: usize,
    pub(super) max_parked: usize,
}

/// A released position on its way out again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery<P> {
    pub(super) serial: u64,
    pub(super) position: u64,
    pub(super) payload: P,
    pub(super) deliveries: u32,
}

#[derive(Debug, Clone, Copy)]
struct Slot<P> {
    position: u64,
    payload: P,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InWork {
        deliveries: u32,
    },
    Released {
        deliveries: u32,
    },
    /// Complete or parked, and so many positions before it with it.
    Done {
        span: u32,
    },
    Withdrawn,
}

/// When the clock was read: the slots from this one on, up to that of the next stamp, are as old.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    from: u64,
    at: Instant,
}

impl State {
    #[cfg(debug_assertions)]
    fn is_incomplete(self) -> bool {
        matches!(self, Self::InWork { .. } | Self::Released { .. })
    }
}

impl<P> Slot<P> {
    /// How many positions before this later one are done with it, if all since this one's first are, and
    /// their number fits.
    fn span_to(&self, position: u64) -> Option<u32> {
        let State::Done { span } = self.state else { return None };
        u32::try_from(position - self.position).ok()?.checked_add(span)
    }
}

/// What a waiter gets without having asked again.
#[derive(Debug)]
enum Grant {
    /// The serial number of its slot.
    Slot(u64),
    Refused(TrackError),
}

#[derive(Debug, Default)]
struct Counts {
    tracked: u64,
    completed: u64,
    parked: u64,
    fenced: u64,
    late: u64,
    released: u64,
    redelivered: u64,
    skipped: u64,
    unlisted: u64,
}

#[derive(Debug)]
pub(super) struct Core<P> {
    limits: Limits,
    ring: VecDeque<Slot<P>>,
    /// The serial number of the front of the ring.
    front: u64,
    committed: Option<Committed<P>>,
    /// The last position of this epoch that was tracked, skipped or committed.
    last: Option<u64>,
    /// What a checkpoint says is complete beyond what it committed.
    resumed: Ranges,
    /// Serial numbers, in the order of their release.
    released: VecDeque<u64>,
    incomplete: usize,
    /// None for slots that were tracked before the clock was read. At most one for each slot.
    stamps: VecDeque<Stamp>,
    epoch: u64,
    closed: bool,
    parked: VecDeque<Parked>,
    counts: Counts,
    trackers: WaitList<(u64, P)>,
    redeliverers: WaitList<()>,
    watchers: WaitList<()>,
    /// What trackers were granted that have left the list and have not been polled since, by number.
    grants: BTreeMap<u64, Grant>,
    /// The same of redeliverers: serial numbers.
    handed: BTreeMap<u64, u64>,
    /// Watchers up to this number are to be woken.
    watchers_due: u64,
}

/// While something is incomplete, the clock is read once for so many positions.
const STAMPED: u64 = 16;

impl<P: Copy> Core<P> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            ring: VecDeque::new(),
            front: 0,
            committed: None,
            last: None,
            resumed: Ranges::default(),
            released: VecDeque::new(),
            incomplete: 0,
            stamps: VecDeque::new(),
            epoch: 0,
            closed: false,
            parked: VecDeque::new(),
            counts: Counts::default(),
            trackers: WaitList::new(),
            redeliverers: WaitList::new(),
            watchers: WaitList::new(),
            grants: BTreeMap::new(),
            handed: BTreeMap::new(),
            watchers_due: 0,
        }
    }

    #[inline]
    fn has_room(&self) -> bool {
        self.incomplete < self.limits.capacity && self.ring.len() < self.limits.window
    }

    /// Whether a new call would have to wait.
    pub(super) fn must_wait(&self) -> bool {
        !self.closed && (!self.has_room() || !self.trackers.is_empty())
    }

    /// Tracks a position at once: the serial number of its slot.
    #[inline]
    pub(super) fn track(
        &mut self,
        position: u64,
        payload: P,
        now: impl FnOnce() -> Instant,
    ) -> Result<u64, TrackError> {
        if self.closed {
            return Err(TrackError::Closed);
        }
        if self.must_wait() {
            return Err(TrackError::Full { capacity: self.limits.capacity });
        }
        self.admit(position, payload, now)
    }

    #[inline]
    fn admit(
        &mut self,
        position: u64,
        payload: P,
        now: impl FnOnce() -> Instant,
    ) -> Result<u64, TrackError> {
        if let Some(last) = self.last.filter(|last| position <= *last) {
            return Err(TrackError::NotIncreasing { position, last });
        }
        let serial = self.front + self.ring.len() as u64;
        if self.ring.is_empty() {
            // Most often it is complete before the next one comes, and no clock was read for it.
            self.stamps.clear();
        } else if self.stamps.back().is_none_or(|last| serial - last.from >= STAMPED) {
            self.stamp(serial, now());
        }
        self.ring.push_back(Slot { position, payload, state: State::InWork { deliveries: 1 } });
        self.last = Some(position);
        self.incomplete += 1;
        self.counts.tracked += 1;
        Ok(serial)
    }

    /// Notes the time for the slots from this one on, and for the front if it has none.
    fn stamp(&mut self, from: u64, at: Instant) {
        while self.stamps.get(1).is_some_and(|second| second.from <= self.front) {
            self.stamps.pop_front();
        }
        if self.stamps.front().is_none_or(|first| first.from > self.front) {
            self.stamps.push_front(Stamp { from: self.front, at });
        }
        match self.stamps.back_mut() {
            Some(last) if last.from == from => last.at = at,
            _ => self.stamps.push_back(Stamp { from, at }),
        }
    }

    /// Joins the wait list, or stays in it with another waker.
    pub(super) fn wait_to_track(
        &mut self,
        id: &mut Option<WaiterId>,
        (position, payload): (u64, P),
        waker: Waker,
    ) -> Option<Waker> {
        wait(&mut self.trackers, id, (position, payload), waker)
    }

    /// What a waiter was granted: the serial number of its slot. `None` while it has to wait.
    pub(super) fn claim(&mut self, id: WaiterId) -> Option<Result<u64, TrackError>> {
        Some(match self.grants.remove(&id.number())? {
            Grant::Slot(serial) => Ok(serial),
            Grant::Refused(error) => Err(error),
        })
    }

    /// A waiter leaves before it has come to know of its grant.
    pub(super) fn leave_trackers(&mut self, id: WaiterId) -> Option<Waker> {
        if let Some(waiter) = self.trackers.remove(id) {
            return waiter.waker;
        }
        if let Some(Grant::Slot(serial)) = self.grants.remove(&id.number()) {
            self.withdraw(serial);
        }
        None
    }

    /// As if the position had never been tracked.
    fn withdraw(&mut self, serial: u64) {
        let Some(index) = self.index(serial) else { return };
        self.ring[index].state = State::Withdrawn;
        self.incomplete -= 1;
        self.counts.tracked -= 1;
        while self.ring.back().is_some_and(|slot| slot.state == State::Withdrawn) {
            self.ring.pop_back();
            self.last = self.ring.back().map(|slot| slot.position).or(self.committed_position());
        }
        let end = self.front + self.ring.len() as u64;
        while self.stamps.back().is_some_and(|stamp| stamp.from > end) {
            self.stamps.pop_back();
        }
        self.advance();
    }

    #[inline]
    fn index(&self, serial: u64) -> Option<usize> {
        let index = serial.checked_sub(self.front)?;
        Some(index as usize).filter(|index| *index < self.ring.len())
    }

    pub(super) fn is_fenced(&self, serial: u64) -> bool {
        serial < self.front
    }

    /// Ends the work on a position, or lets it be redelivered.
    #[inline]
    pub(super) fn settle(&mut self, serial: u64, verdict: Verdict) {
        let Some(index) = self.index(serial) else {
            self.counts.late += 1;
            return;
        };
        let slot = &mut self.ring[index];
        let done = State::Done { span: 0 };
        match verdict {
            Verdict::Complete => {
                self.counts.completed += 1;
                slot.state = done;
            }
            Verdict::Rejected(reason) => {
                let position = slot.position;
                slot.state = done;
                self.park(Parked { position, reason });
            }
            Verdict::Released => {
                if let State::InWork { deliveries } = slot.state {
                    slot.state = State::Released { deliveries };
                }
                self.counts.released += 1;
                self.released.push_back(serial);
                return;
            }
        }
        self.incomplete -= 1;
        if index == 0 {
            self.advance();
        }
        if self.incomplete == 0 && self.closed {
            self.watchers_due = self.watchers.joined();
        }
    }

    #[cold]
    fn park(&mut self, parked: Parked) {
        self.counts.parked += 1;
        self.parked.push_back(parked);
        while self.parked.len() > self.limits.max_parked {
            self.parked.pop_front();
            self.counts.unlisted += 1;
        }
    }

    /// Commits what is complete or parked at the front.
    #[inline]
    fn advance(&mut self) {
        while let Some(slot) = self.ring.front() {
            match slot.state {
                State::Done { .. } => {
                    let Slot { position, payload, .. } = *slot;
                    self.committed = Some(Committed { position, payload });
                    self.watchers_due = self.watchers.joined();
                }
                State::Withdrawn => {}
                State::InWork { .. } | State::Released { .. } => break,
            }
            self.ring.pop_front();
            self.front += 1;
        }
    }

    /// Hands out the position that was released first, unless others wait for one.
    pub(super) fn redeliver(&mut self) -> Option<Delivery<P>> {
        if !self.redeliverers.is_empty() {
            return None;
        }
        let serial = self.take_released()?;
        self.delivery(serial)
    }

    /// Whether a new call would have to wait.
    pub(super) fn must_wait_for_redelivery(&self) -> bool {
        !self.is_finished() && (self.released.is_empty() || !self.redeliverers.is_empty())
    }

    fn take_released(&mut self) -> Option<u64> {
        let serial = self.released.pop_front()?;
        let index = self.index(serial)?;
        if let State::Released { deliveries } = self.ring[index].state {
            let deliveries = deliveries.saturating_add(1);
            self.ring[index].state = State::InWork { deliveries };
        }
        self.counts.redelivered += 1;
        Some(serial)
    }

    fn delivery(&self, serial: u64) -> Option<Delivery<P>> {
        let Slot { position, payload, state } = *self.ring.get(self.index(serial)?)?;
        match state {
            State::InWork { deliveries } => {
                Some(Delivery { serial, position, payload, deliveries })
            }
            State::Released { .. } | State::Done { .. } | State::Withdrawn => None,
        }
    }

    pub(super) fn wait_to_redeliver(
        &mut self,
        id: &mut Option<WaiterId>,
        waker: Waker,
    ) -> Option<Waker> {
        wait(&mut self.redeliverers, id, (), waker)
    }

    /// What a waiter was handed; `None` while it has to wait, or again, after a new epoch.
    pub(super) fn claim_redelivery(&mut self, id: &mut Option<WaiterId>) -> Option<Delivery<P>> {
        let serial = self.handed.remove(&(*id)?.number())?;
        *id = None;
        self.delivery(serial)
    }

    pub(super) fn leave_redeliverers(&mut self, id: WaiterId) -> Option<Waker> {
        if let Some(waiter) = self.redeliverers.remove(id) {
            return waiter.waker;
        }
        let serial = self.handed.remove(&id.number())?;
        let index = self.index(serial)?;
        if let State::InWork { deliveries } = self.ring[index].state {
            self.ring[index].state = State::Released { deliveries: deliveries - 1 };
            self.counts.redelivered -= 1;
            self.released.push_front(serial);
        }
        None
    }

    pub(super) fn wait_for_change(
        &mut self,
        id: &mut Option<WaiterId>,
        waker: Waker,
    ) -> Option<Waker> {
        wait(&mut self.watchers, id, (), waker)
    }

    pub(super) fn leave_watchers(&mut self, id: WaiterId) -> Option<Waker> {
        self.watchers.remove(id)?.waker
    }

    /// Whether a waiter can be served.
    #[inline]
    pub(super) fn has_due(&self) -> bool {
        self.watchers_are_due()
            || !self.trackers.is_empty() && (self.closed || self.has_room())
            || !self.redeliverers.is_empty() && (!self.released.is_empty() || self.is_finished())
    }

    #[inline]
    fn watchers_are_due(&self) -> bool {
        self.watchers.head().is_some_and(|head| head.number() <= self.watchers_due)
    }

    /// Serves waiters that can be, as many as `wakes` takes.
    pub(super) fn serve(&mut self, wakes: &mut WakeList, now: impl Fn() -> Instant) {
        while !wakes.is_full() && self.has_due() {
            let waker = if self.watchers_are_due() {
                self.watchers.pop_front().and_then(|waiter| waiter.waker)
            } else if !self.redeliverers.is_empty()
                && (!self.released.is_empty() || self.is_finished())
            {
                self.serve_redeliverer()
            } else {
                self.serve_tracker(&now)
            };
            if let Some(waker) = waker {
                wakes.push(waker);
            }
        }
    }

    fn serve_tracker(&mut self, now: impl FnOnce() -> Instant) -> Option<Waker> {
        let waiter = self.trackers.pop_front()?;
        let (position, payload) = waiter.data;
        let granted =
            if self.closed { Err(TrackError::Closed) } else { self.admit(position, payload, now) };
        let grant = granted.map_or_else(Grant::Refused, Grant::Slot);
        self.grants.insert(waiter.number(), grant);
        waiter.waker
    }

    /// Without a released position, it finds out that there will be none.
    fn serve_redeliverer(&mut self) -> Option<Waker> {
        let waiter = self.redeliverers.pop_front()?;
        if let Some(serial) = self.take_released() {
            self.handed.insert(waiter.number(), serial);
        }
        waiter.waker
    }

    pub(super) fn committed(&self) -> Option<Committed<P>> {
        self.committed
    }

    fn committed_position(&self) -> Option<u64> {
        self.committed.map(|committed| committed.position)
    }

    /// Closed, and nothing can be committed any more.
    pub(super) fn is_finished(&self) -> bool {
        self.closed && self.incomplete == 0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
        if self.incomplete == 0 {
            self.watchers_due = self.watchers.joined();
        }
    }

    /// Fences what is in work, and begins again after what is committed. What is complete beyond
    /// that is kept for [`is_complete`](Self::is_complete).
    pub(super) fn new_epoch(&mut self) -> u64 {
        let ranges = self.completed_beyond();
        self.begin_epoch(self.committed, ranges)
    }

    pub(super) fn resume(&mut self, checkpoint: &Checkpoint<P>) -> u64 {
        self.begin_epoch(checkpoint.committed(), checkpoint.ranges().clone())
    }

    fn begin_epoch(&mut self, committed: Option<Committed<P>>, resumed: Ranges) -> u64 {
        self.front += self.ring.len() as u64;
        self.ring.clear();
        self.released.clear();
        self.counts.fenced += self.incomplete as u64;
        self.incomplete = 0;
        (self.committed, self.resumed) = (committed, resumed);
        self.last = self.committed_position();
        self.watchers_due = self.watchers.joined();
        self.epoch += 1;
        self.epoch
    }

    /// Refuses the waiters of an epoch that is over: as many as `wakes` takes.
    pub(super) fn refuse_trackers(&mut self, up_to: u64, wakes: &mut WakeList) -> bool {
        while self.trackers.head().is_some_and(|head| head.number() <= up_to) {
            if wakes.is_full() {
                return true;
            }
            let Some(waiter) = self.trackers.pop_front() else { break };
            self.grants.insert(waiter.number(), Grant::Refused(TrackError::NewEpoch));
            if let Some(waker) = waiter.waker {
                wakes.push(waker);
            }
        }
        false
    }

    /// The number of the last that joined the wait list.
    pub(super) fn last_tracker(&self) -> u64 {
        self.trackers.joined()
    }

    /// Whether a position is complete or parked, as far as is known here.
    pub(super) fn is_complete(&self, position: u64) -> bool {
        if self.committed_position().is_some_and(|committed| position <= committed) {
            return true;
        }
        let slot = self.ring.partition_point(|slot| slot.position < position);
        let in_ring = self.ring.get(slot).is_some_and(|slot| match slot.state {
            State::Done { span } => slot.position - u64::from(span) <= position,
            State::InWork { .. } | State::Released { .. } | State::Withdrawn => false,
        });
        in_ring || self.resumed.contains(position)
    }

    /// Passes over a position that is complete; says whether it is.
    pub(super) fn skip(&mut self, position: u64, payload: P) -> bool {
        if !self.is_complete(position) {
            return false;
        }
        self.counts.skipped += 1;
        if self.last.is_some_and(|last| position <= last) {
            return true;
        }
        self.last = Some(position);
        let slot = |span| Slot { position, payload, state: State::Done { span } };
        match self.ring.back_mut() {
            // Nobody has an acknowledgement for it any more: one slot does for both.
            Some(back) => match back.span_to(position) {
                Some(span) => *back = slot(span),
                None => self.ring.push_back(slot(0)),
            },
            None => self.ring.push_back(slot(0)),
        }
        self.advance();
        true
    }

    /// What is complete or parked beyond what is committed.
    fn completed_beyond(&self) -> Ranges {
        let mut ranges = Ranges::default();
        let mut before_is_done = false;
        for slot in &self.ring {
            let State::Done { span } = slot.state else {
                before_is_done = false;
                continue;
            };
            ranges.push(slot.position - u64::from(span), slot.position, before_is_done);
            before_is_done = true;
        }
        ranges.merge(&self.resumed, self.committed_position())
    }

    pub(super) fn checkpoint(&self) -> Checkpoint<P> {
        Checkpoint::new(self.committed, self.completed_beyond(), self.limits.max_ranges)
    }

    /// The front of the ring, with the time since the clock was read for it.
    pub(super) fn oldest(&mut self, now: Instant) -> Option<Oldest> {
        let position = self.ring.front()?.position;
        self.stamp(self.front + self.ring.len() as u64, now);
        let age = self.stamps.front().map(|first| now.saturating_duration_since(first.at));
        Some(Oldest { position, age: age.unwrap_or_default() })
    }

    pub(super) fn take_parked(&mut self) -> VecDeque<Parked> {
        core::mem::take(&mut self.parked)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn stats(&self) -> OffsetStats {
        let Counts {
            tracked,
            completed,
            parked,
            fenced,
            late,
            released,
            redelivered,
            skipped,
            unlisted,
        } = self.counts;
        OffsetStats {
            tracked,
            completed,
            parked,
            fenced,
            incomplete: self.incomplete,
            awaiting_redelivery: self.released.len(),
            window_used: self.ring.len(),
            waiting: self.trackers.len(),
            released,
            redelivered,
            skipped,
            late_acks: late,
            parked_unlisted: unlisted,
        }
    }

    /// Panics unless the slots, the counts and the wait lists agree.
    #[cfg(debug_assertions)]
    pub(super) fn validate(&self) {
        let Counts { tracked, completed, parked, fenced, .. } = self.counts;
        assert_eq!(tracked, completed + parked + fenced + self.incomplete as u64, "the equation");
        let incomplete = self.ring.iter().filter(|slot| slot.state.is_incomplete()).count();
        assert_eq!(incomplete, self.incomplete, "slots in work or released");
        assert!(self.incomplete <= self.limits.capacity, "the capacity");
        assert!(self.ring.iter().is_sorted_by(|a, b| a.position < b.position), "the order");
        let front = self.ring.front();
        assert!(front.is_none_or(|front| front.state.is_incomplete()), "a front that is done");
        let last = self.ring.back().map(|back| back.position).or(self.committed_position());
        assert_eq!(self.last, last, "the last position");
        let stamped = self.stamps.iter().map(|stamp| stamp.from);
        assert!(stamped.clone().is_sorted_by(|a, b| a < b), "stamps in order");
        let end = self.front + self.ring.len() as u64;
        assert!(self.ring.is_empty() || stamped.max() <= Some(end), "a stamp beyond the ring");
        for serial in &self.released {
            let state = self.index(*serial).map(|index| self.ring[index].state);
            assert!(matches!(state, Some(State::Released { .. })), "{serial} is {state:?}");
        }
        self.trackers.validate();
        self.redeliverers.validate();
        self.watchers.validate();
        assert!(!self.has_due(), "a waiter that can be served");
    }
}

/// Joins a wait list, or stays in it with another waker; the waker before is dropped outside the lock.
fn wait<D>(
    list: &mut WaitList<D>,
    id: &mut Option<WaiterId>,
    data: D,
    waker: Waker,
) -> Option<Waker> {
    if let Some(waiter) = id.and_then(|id| list.get_mut(id)) {
        return waiter.waker.replace(waker);
    }
    *id = Some(list.push(data, Some(waker)));
    None
}
