//! The wait list of a queue: `base::wait_list` and a cursor between called and waiting waiters.
//!
//! ```text
//!   front                                  back
//!    │                                      │
//!    ▼                                      ▼
//!  [ called, called, called │ waiting, waiting ]
//!                           ▲
//!                           next
//! ```
//!
//! A called waiter has room or an item kept for it and has been woken; it stays in the list until it
//! fetches that or leaves. Every waiter before `next` is called, none from it on is.

use core::task::Waker;

use crate::base::slab::NONE;
use crate::base::wait_list::{WaitList, Waiter, WaiterId};

/// What the queue keeps about a waiter.
#[derive(Debug)]
struct Call {
    need: u64,
    called: bool,
}

/// What a poll under the lock came to.
pub(super) enum Asked<A> {
    Answered(A),
    /// The waker is in the list.
    Waits,
    /// To be polled again with a clone of the waker, which is made without the lock.
    WantsWaker,
}

#[derive(Debug)]
pub(super) struct Waiters {
    list: WaitList<Call>,
    /// The slot of the first waiter that is not called, or `NONE`.
    next: u32,
    waiting: usize,
    called: usize,
    /// What the called waiters need together.
    reserved: u64,
}

impl Waiters {
    pub(super) const fn new() -> Self {
        Self { list: WaitList::new(), next: NONE, waiting: 0, called: 0, reserved: 0 }
    }

    /// How many are not called yet.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many are called and have not come yet.
    #[inline]
    pub(super) fn called(&self) -> usize {
        self.called
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.waiting + self.called
    }

    /// What is kept for the called waiters.
    #[inline]
    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// How many ever joined.
    pub(super) fn joined(&self) -> u64 {
        self.list.joined()
    }

    /// # Panics
    ///
    /// With 2^32 − 1 waiters in the list.
    #[inline]
    pub(super) fn join(&mut self, need: u64, waker: Waker) -> WaiterId {
        let id = self.list.push(Call { need, called: false }, Some(waker));
        if self.next == NONE {
            self.next = id.slot();
        }
        self.waiting += 1;
        id
    }

    /// What the first waiter needs that is not called yet.
    #[inline]
    pub(super) fn next_need(&self) -> Option<u64> {
        self.list.at(self.next).map(|waiter| waiter.data.need)
    }

    /// Calls the next waiter and returns its waker, unless that was taken before.
    #[inline]
    pub(super) fn call_next(&mut self) -> Option<Waker> {
        let slot = self.next;
        let waiter = self.list.at_mut(slot)?;
        waiter.data.called = true;
        self.waiting -= 1;
        self.called += 1;
        self.reserved += waiter.data.need;
        let waker = waiter.waker.take();
        self.next = self.list.slot_after(slot);
        waker
    }

    /// Takes back the last call; that waiter is the next again. It was woken, so it polls and finds
    /// out, unless it has left.
    #[cold]
    pub(super) fn call_off(&mut self) {
        let last = self.list.slot_before(self.next);
        let Some(waiter) = self.list.at_mut(last) else { return };
        waiter.data.called = false;
        self.waiting += 1;
        self.called -= 1;
        self.reserved -= waiter.data.need;
        self.next = last;
    }

    /// Leaves a waker in the list, with a new id if there is none; it must be a fresh clone of
    /// `waker`, unless that is what was left before.
    #[inline]
    pub(super) fn wait<A>(
        &mut self,
        id: &mut Option<WaiterId>,
        need: u64,
        waker: &Waker,
        fresh: &mut Option<Waker>,
        replaced: &mut Option<Waker>,
    ) -> Asked<A> {
        let waiter = id.and_then(|id| self.list.get_mut(id));
        let left = waiter.as_ref().and_then(|waiter| waiter.waker.as_ref());
        if left.is_some_and(|left| left.will_wake(waker)) {
            return Asked::Waits;
        }
        let Some(fresh) = fresh.take() else { return Asked::WantsWaker };
        match waiter {
            Some(waiter) => *replaced = waiter.waker.replace(fresh),
            None => *id = Some(self.join(need, fresh)),
        }
        Asked::Waits
    }

    /// Takes a waiter out of the list; `None` if it has left already.
    #[cold]
    pub(super) fn leave(&mut self, id: WaiterId) -> Option<Option<Waker>> {
        self.list.get(id)?;
        self.vacate(id.slot())
    }

    /// Takes a called waiter out of the list; `None` if it is not called.
    #[inline]
    pub(super) fn leave_called(&mut self, id: WaiterId) -> Option<Option<Waker>> {
        if !self.list.get(id)?.data.called {
            return None;
        }
        self.vacate(id.slot())
    }

    #[inline]
    fn vacate(&mut self, slot: u32) -> Option<Option<Waker>> {
        if self.next == slot {
            self.next = self.list.slot_after(slot);
        }
        let Waiter { data, waker, .. } = self.list.remove_at(slot)?;
        if data.called {
            self.called -= 1;
            self.reserved -= data.need;
        } else {
            self.waiting -= 1;
        }
        Some(waker)
    }

    /// Takes the first waiter out that is not called.
    pub(super) fn dismiss_next(&mut self) -> Option<Waker> {
        if self.next == NONE { None } else { self.vacate(self.next).flatten() }
    }

    /// Panics unless the cursor parts called from waiting waiters, and the counts are theirs.
    #[cfg(debug_assertions)]
    pub(super) fn validate(&self) {
        self.list.validate();
        let called = || self.list.iter().filter(|waiter| waiter.data.called);
        assert_eq!(called().count(), self.called, "called waiters");
        assert_eq!(self.list.len() - self.called, self.waiting, "waiting waiters");
        assert_eq!(called().map(|waiter| waiter.data.need).sum::<u64>(), self.reserved, "reserved");
        assert!(self.list.iter().skip(self.called).all(|waiter| !waiter.data.called), "the order");
        let next = self.list.iter().nth(self.called).map(Waiter::number);
        assert_eq!(self.list.at(self.next).map(Waiter::number), next, "the cursor");
    }
}
