//! The waiters of a semaphore: `base::wait_list`, what is owed before any of them is served, and
//! what is counted of them.

use core::task::Waker;
use std::collections::VecDeque;
use std::time::Instant;

use super::stats::WaitTimes;
use crate::base::wait_list::{WaitList, Waiter, WaiterId};

/// What a waiter asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) permits: u32,
    /// Takes the limit, if that is less when it is served.
    pub(super) clamped: bool,
}

impl Request {
    /// What it takes at this limit. With a limit of zero a clamped one waits for the first permit.
    #[inline]
    pub(super) fn need(self, limit: usize) -> u32 {
        match u32::try_from(limit) {
            Ok(limit) if self.clamped => self.permits.min(limit.max(1)),
            _ => self.permits,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Waiters {
    list: WaitList<Request>,
    /// Permits that a smaller limit still has to take out of circulation.
    pub(super) debt: usize,
    /// What clamped waiters were granted and have not claimed, in the order of their numbers.
    clamped_grants: VecDeque<(u64, u32)>,
    counts: Counts,
    /// When each waiter joined, by slot; empty unless wait times are counted.
    since: Vec<Instant>,
}

/// What [`SemaphoreStats`](super::SemaphoreStats) is made from.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// All that ever joined: each of them waits, was granted, has left or was told of the close.
    pub(super) joined: u64,
    pub(super) granted: u64,
    /// Left before they were granted permits.
    pub(super) left: u64,
    pub(super) peak: usize,
    pub(super) times: Option<WaitTimes>,
}

impl Waiters {
    pub(super) fn with_wait_times() -> Self {
        let counts = Counts { times: Some(WaitTimes::default()), ..Counts::default() };
        Self { counts, ..Self::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { joined: self.list.joined(), ..self.counts }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// There are no waiters and nothing is owed.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.list.is_empty() && self.debt == 0
    }

    /// # Panics
    ///
    /// With 2^32 − 1 waiters in the list.
    pub(super) fn push(&mut self, request: Request, waker: Waker) -> WaiterId {
        let id = self.list.push(request, Some(waker));
        self.counts.peak = self.counts.peak.max(self.list.len());
        if self.counts.times.is_some() {
            self.begin_time(id.slot() as usize);
        }
        id
    }

    #[cold]
    fn begin_time(&mut self, slot: usize) {
        let now = Instant::now();
        self.since.resize(self.since.len().max(slot + 1), now);
        self.since[slot] = now;
    }

    /// Whether `free` permits are enough for the first waiter.
    #[inline]
    pub(super) fn can_serve(&self, free: usize, limit: usize) -> bool {
        self.list.head().is_some_and(|head| head.data.need(limit) as usize <= free)
    }

    /// Serves the first waiter out of `free`, if that is enough, and returns its number.
    #[inline(always)]
    pub(super) fn serve(&mut self, free: &mut usize, limit: usize) -> Option<(u64, Option<Waker>)> {
        let need = self.list.head()?.data.need(limit);
        *free = free.checked_sub(need as usize)?;
        if let Some(times) = &mut self.counts.times {
            let since = self.list.front().map(|id| self.since[id.slot() as usize]);
            times.add(since);
        }
        let head = self.list.pop_front()?;
        if head.data.clamped {
            self.clamped_grants.push_back((head.number(), need));
        }
        self.counts.granted += 1;
        Some((head.number(), head.waker))
    }

    /// What a clamped waiter was granted, once.
    pub(super) fn take_clamped_grant(&mut self, id: WaiterId) -> Option<u32> {
        let at = self.clamped_grants.binary_search_by_key(&id.number(), |(number, _)| *number);
        self.clamped_grants.remove(at.ok()?).map(|(_, granted)| granted)
    }

    /// Takes the first waiter out of the list without permits.
    pub(super) fn dismiss(&mut self) -> Option<Waker> {
        self.list.pop_front()?.waker
    }

    /// The waker of a waiter; `None` if it is not in the list any more.
    pub(super) fn waker(&mut self, id: WaiterId) -> Option<&mut Waker> {
        self.list.get_mut(id)?.waker.as_mut()
    }

    /// Takes a waiter out of the list, and tells whether it was the first; `None` if it is not in the
    /// list any more.
    #[inline]
    pub(super) fn remove(&mut self, id: WaiterId) -> Option<(bool, Option<Waker>)> {
        let was_first = self.list.is_front(id);
        let Waiter { waker, .. } = self.list.remove(id)?;
        self.counts.left += 1;
        Some((was_first, waker))
    }

    /// Panics unless the list, the grants and the counts agree with each other and with the number
    /// that was `served` last.
    #[cfg(debug_assertions)]
    pub(super) fn validate(&self, served: u64, closed: bool) {
        self.list.validate();
        assert!(self.list.front().is_none_or(|first| first.number() > served), "served, and waits");
        let numbers = || self.clamped_grants.iter().map(|(number, _)| *number);
        assert!(numbers().is_sorted(), "clamped grants in order");
        assert!(numbers().all(|number| number <= served), "a clamped grant that was not served");
        let Counts { joined, granted, left, peak, .. } = self.counts();
        let waiting = self.list.len();
        let dismissed = joined.checked_sub(granted + left + waiting as u64);
        assert!(dismissed.is_some_and(|count| closed || count == 0), "dismissed: {dismissed:?}");
        assert!(served <= joined && peak >= waiting, "served {served} of {joined}, peak {peak}");
    }
}
