//! The waiters of a throttle: a wait list whose absent waiters are passed.
//!
//! ```text
//!            join                  its turn: starts
//!  outside ────────▶ present ─────────────────────────▶ outside
//!                     │   ▲                                ▲
//!  first, and overdue │   │ polls again                    │
//!                     ▼   │                                │
//!                    absent ───────── removed ─────────────┤
//!                                                          │
//!                    present ──────── removed ─────────────┘
//! ```
//!
//! No start is reserved for a waiter: the head of the list starts when it is polled and the rate
//! allows it, so that each start is counted when it happens. A removed waiter leaves its turn to the
//! next one.
//!
//! # Absent waiters
//!
//! Each poll returns when to poll again. A waiter is absent if it has not polled [`NOTICE`] after that
//! (the head: [`PATIENCE`] after its turn). The next waiter that polls passes all absent waiters at
//! the head of the list together. Waiters behind the head poll [`NOTICE`] before the head becomes
//! absent. This shows which of them are alive, so that only abandoned waiters are absent when the head
//! is: however many are abandoned, the waiters behind them lose [`PATIENCE`] once.
//!
//! A passed waiter keeps its position in the list. Since only the head is passed, the list has two
//! parts: a first one of passed waiters, which are absent or have returned, and a second one of waiters
//! that were never passed, all present. The returned waiters are also kept in order beside the list.

use core::ops::Bound::{Excluded, Unbounded};
use core::task::Waker;
use std::collections::BTreeSet;

use super::meter::Meter;
use crate::base::wait_list::{self, WaitList, WaiterId};
use crate::base::wake::WakeList;

/// How long a waiter that does not poll delays the waiters behind it, counted from its turn or from
/// its wake-up. In ticks.
const PATIENCE: u64 = 100_000_000;

/// How late a waiter behind the head may poll.
const NOTICE: u64 = PATIENCE / 2;

/// The most waiters that poll in each `NOTICE`: with more of them, each polls later.
const POLLS: u64 = 1024;

#[derive(Debug)]
struct Request {
    n: u32,
    /// The starts of all waiters that joined before, modulo 2^64: the difference of two waiters
    /// bounds the starts between them.
    starts_before: u64,
    /// The tick from which it is absent unless it polls. `UNKNOWN` if no clock was read since it
    /// joined.
    absent_from: u64,
    /// Whether it was passed and has not polled since.
    is_absent: bool,
}

const UNKNOWN: u64 = u64::MAX;

/// Takes the waker of a waiter, to be woken at `now`.
fn take_waker(waiter: &mut wait_list::Waiter<Request>, now: u64) -> Option<Waker> {
    let request = &mut waiter.data;
    request.absent_from = request.absent_from.min(now.saturating_add(PATIENCE));
    waiter.waker.take()
}

/// Joining and leaving are O(1), and O(log returned waiters) if there are any.
#[derive(Debug)]
pub(super) struct Waiters {
    list: WaitList<Request>,
    /// The first waiter that was never passed.
    first_unpassed: Option<WaiterId>,
    /// Waiters that were passed and have polled again: ahead of the first unpassed one.
    returned: BTreeSet<WaiterId>,
    absent: usize,
    /// The number of the last waiter that had joined when a clock was read.
    noted: u64,
    /// The latest instant at which a waiter polled.
    latest: u64,
    starts_joined: u64,
}

/// The outcome of a poll, with the wakers to wake and to drop outside the lock.
#[derive(Debug)]
pub(super) struct Polled {
    /// Started, and out of the list; or the tick at which to poll again, if it is not woken before.
    pub(super) started: Result<(), u64>,
    pub(super) wake: Option<Waker>,
    pub(super) retired: [Option<Waker>; 2],
}

impl Waiters {
    pub(super) const fn new() -> Self {
        Self {
            list: WaitList::new(),
            first_unpassed: None,
            returned: BTreeSet::new(),
            absent: 0,
            noted: 0,
            latest: 0,
            starts_joined: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether all waiters are absent, so that a newcomer passes none.
    pub(super) fn none_present(&self) -> bool {
        self.head().is_none()
    }

    /// The first waiter that is present.
    fn head(&self) -> Option<WaiterId> {
        self.returned.first().copied().or(self.first_unpassed)
    }

    /// The next waiter that is present, behind one that is.
    fn next_present(&self, id: WaiterId) -> Option<WaiterId> {
        if self.first_unpassed.is_some_and(|first| first <= id) {
            return self.list.after(id);
        }
        let behind = self.returned.range((Excluded(id), Unbounded)).next();
        behind.copied().or(self.first_unpassed)
    }

    /// The starts that present waiters wait for, or a few more.
    pub(super) fn starts_ahead(&self) -> u64 {
        let head = self.head().and_then(|head| self.list.get(head));
        head.map_or(0, |head| self.starts_joined.wrapping_sub(head.data.starts_before))
    }

    pub(super) fn join(&mut self, n: u32) -> WaiterId {
        let starts_before = self.starts_joined;
        self.starts_joined = starts_before.wrapping_add(n.into());
        let request = Request { n, starts_before, absent_from: UNKNOWN, is_absent: false };
        let id = self.list.push(request, None);
        self.first_unpassed.get_or_insert(id);
        id
    }

    /// Starts a waiter, if it is the head and the rate allows it.
    pub(super) fn poll(
        &mut self,
        id: WaiterId,
        now: u64,
        waker: Waker,
        meter: &mut dyn Meter,
    ) -> Polled {
        self.note(now);
        let Some(waiter) = self.list.get_mut(id) else {
            unreachable!("a waiter is in the list until it has started or is dropped")
        };
        let n = waiter.data.n;
        waiter.data.absent_from = UNKNOWN;
        if core::mem::take(&mut waiter.data.is_absent) {
            self.absent -= 1;
            self.returned.insert(id);
        }
        let passed = self.pass_absent(now);
        if self.head() == Some(id) {
            self.poll_head(id, n, now, waker, meter)
        } else {
            self.poll_behind(id, passed, now, waker)
        }
    }

    fn poll_head(
        &mut self,
        id: WaiterId,
        n: u32,
        now: u64,
        waker: Waker,
        meter: &mut dyn Meter,
    ) -> Polled {
        let when = meter.earliest(n, now);
        if when <= now {
            meter.start(n, now);
            let own = self.take(id).and_then(|started| started.waker);
            self.pass_absent(now);
            return Polled {
                started: Ok(()),
                wake: self.take_head_waker(now),
                retired: [Some(waker), own],
            };
        }
        let replaced = self.list.get_mut(id).and_then(|head| {
            head.data.absent_from = when.saturating_add(PATIENCE);
            head.waker.replace(waker)
        });
        Polled { started: Err(when), wake: None, retired: [replaced, None] }
    }

    fn poll_behind(&mut self, id: WaiterId, passed: bool, now: u64, waker: Waker) -> Polled {
        let spread = (self.list.len() - self.absent) as u64 / POLLS * NOTICE;
        let Some(head) = self.head().and_then(|head| self.list.get_mut(head)) else {
            unreachable!("the waiter that polls is present")
        };
        // Woken and not polled since, new as the head, or due.
        let due = head.data.absent_from <= now.saturating_add(PATIENCE);
        let wake = if passed || due || head.waker.is_none() { take_waker(head, now) } else { None };
        let passes = head.data.absent_from;
        // It polls twice: to show that it is alive, and to pass the head.
        let first = passes.saturating_sub(NOTICE).saturating_add(spread);
        let again = if passes - now > NOTICE { first } else { passes };
        let absent_from = again.saturating_add(NOTICE).max(now.saturating_add(PATIENCE));
        let replaced = self.list.get_mut(id).and_then(|waiter| {
            waiter.data.absent_from = absent_from;
            waiter.waker.replace(waker)
        });
        Polled { started: Err(again), wake, retired: [replaced, None] }
    }

    /// Passes absent waiters for a newcomer outside the list. The caller wakes the waker.
    pub(super) fn pass_as_newcomer(&mut self, now: u64) -> Option<Waker> {
        self.note(now);
        if self.pass_absent(now) { self.take_head_waker(now) } else { None }
    }

    /// Passes the absent waiters at the head. Each has joined or polled since it was last passed, so
    /// this adds O(log returned waiters) to each join and poll.
    fn pass_absent(&mut self, now: u64) -> bool {
        let mut passed = false;
        while let Some(id) = self.head() {
            let Some(head) = self.list.get_mut(id).filter(|head| head.data.absent_from <= now)
            else {
                break;
            };
            head.data.is_absent = true;
            self.absent += 1;
            if self.returned.pop_first().is_none() {
                self.first_unpassed = self.list.after(id);
            }
            passed = true;
        }
        passed
    }

    /// Notes that a clock was read: waiters that have not polled since they joined have to from now on.
    fn note(&mut self, now: u64) {
        self.latest = self.latest.max(now);
        let mut newest = self.list.back();
        while let Some(id) = newest.filter(|id| id.number() > self.noted) {
            if let Some(waiter) = self.list.get_mut(id) {
                waiter.data.absent_from = now.saturating_add(PATIENCE);
            }
            newest = self.list.before(id);
        }
        self.noted = self.list.joined();
    }

    /// Removes a waiter that has not started. Returns its waker, and collects those of the waiters
    /// that have to poll.
    pub(super) fn remove(&mut self, id: WaiterId, wakers: &mut WakeList) -> Option<Waker> {
        let was_head = self.head() == Some(id);
        let own = self.take(id)?;
        if was_head {
            // There is no clock here: the next poll sets the new head's deadline.
            self.pass_absent(self.latest);
            // With a smaller head, every turn may come sooner. If that head is abandoned, others must
            // know; not all, or each of many removals would wake all waiters.
            let mut next = self.head();
            let head = next.and_then(|head| self.list.get(head));
            let sooner = head.is_some_and(|head| head.data.n < own.data.n);
            for _ in 0..if sooner { WakeList::CAPACITY } else { 1 } {
                let Some(id) = next else { break };
                if let Some(waker) = self.list.get_mut(id).and_then(|waiter| waiter.waker.take()) {
                    wakers.push(waker);
                }
                next = self.next_present(id);
            }
        }
        own.waker
    }

    fn take(&mut self, id: WaiterId) -> Option<wait_list::Waiter<Request>> {
        if self.first_unpassed == Some(id) {
            self.first_unpassed = self.list.after(id);
        } else {
            self.returned.remove(&id);
        }
        let taken = self.list.remove(id)?;
        self.absent -= usize::from(taken.data.is_absent);
        Some(taken)
    }

    fn take_head_waker(&mut self, now: u64) -> Option<Waker> {
        let head = self.head()?;
        take_waker(self.list.get_mut(head)?, now)
    }

    /// Panics unless the list's two parts and the waiters that have returned agree.
    #[cfg(any(all(test, not(loom)), debug_assertions))]
    pub(super) fn validate(&self) {
        self.list.validate();
        let (mut next, mut absent) = (self.list.front(), 0);
        let mut returned = self.returned.iter();
        while let Some(id) = next {
            let is_absent = self.list.get(id).is_some_and(|waiter| waiter.data.is_absent);
            absent += usize::from(is_absent);
            let unpassed = self.first_unpassed.is_some_and(|first| first <= id);
            assert!(!unpassed || !is_absent, "an absent waiter was never passed");
            if !unpassed && !is_absent {
                assert_eq!(returned.next(), Some(&id), "a waiter that has returned");
            }
            next = self.list.after(id);
        }
        assert_eq!(returned.next(), None, "a returned waiter that is not in the list");
        assert_eq!(absent, self.absent, "absent waiters");
        let first = self.first_unpassed.and_then(|first| self.list.get(first));
        assert_eq!(
            first.is_some(),
            self.first_unpassed.is_some(),
            "the first unpassed waiter left"
        );
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A rate that allows no start for a long time.
    struct Never;

    impl Meter for Never {
        fn earliest(&self, _: u32, now: u64) -> u64 {
            now + 1_000 * PATIENCE
        }

        fn earliest_behind(&self, _: u64, n: u32, now: u64) -> u64 {
            self.earliest(n, now)
        }

        fn start(&mut self, n: u32, now: u64) -> u64 {
            self.earliest(n, now)
        }
    }

    /// Behind a large head are returned waiters, an absent one, and one that was never passed. When the
    /// head is removed, all present waiters are woken, in order.
    #[test]
    fn a_removed_large_head_wakes_returned_waiters_too() {
        let mut waiters = Waiters::new();
        let ids = [9, 1, 1, 1, 1].map(|n| waiters.join(n));
        assert!(waiters.pass_as_newcomer(0).is_none());
        // All but the last are passed, the last polls in time.
        let woken = [(); 5].map(|()| Arc::<Woken>::default());
        let poll = |waiters: &mut Waiters, at: usize, now| {
            let polled = waiters.poll(ids[at], now, woken[at].clone().into(), &mut Never);
            waiters.validate();
            assert!(polled.started.is_err());
        };
        poll(&mut waiters, 4, PATIENCE - 1);
        poll(&mut waiters, 4, PATIENCE);
        assert_eq!((waiters.absent, waiters.head()), (4, Some(ids[4])));
        for at in [2, 0, 1] {
            poll(&mut waiters, at, PATIENCE);
        }
        assert_eq!((waiters.absent, waiters.head()), (1, Some(ids[0])));

        let mut wakers = WakeList::new();
        drop(waiters.remove(ids[0], &mut wakers));
        waiters.validate();
        wakers.wake_all();
        wakers.finish();
        let count = |woken: &Arc<Woken>| woken.0.load(Ordering::Relaxed);
        assert_eq!([1, 2, 3, 4].map(|at| count(&woken[at])), [1, 1, 0, 1]);
        assert_eq!((waiters.len(), waiters.head()), (4, Some(ids[1])));
    }
}
