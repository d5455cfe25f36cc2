//! The wait list of a queue: `base::wait_list` and a cursor between granted and waiting waiters.
//!
//! ```text
//!   front                                       back
//!    │                                           │
//!    ▼                                           ▼
//!  [ granted, granted, granted │ waiting, waiting ]
//!                              ▲
//!                              next
//! ```
//!
//! A granted waiter has room or an item reserved for it and has been woken. It stays in the list
//! until it claims that or is cancelled, so that a grant can be taken back when items are displaced
//! or drained.

use core::task::Waker;

use crate::base::wait_list::{WaitList, Waiter, WaiterId};

/// What the queue keeps about a waiter.
#[derive(Debug)]
struct Grant {
    need: u64,
    granted: bool,
}

/// What a poll under the lock came to.
pub(super) enum Attempt<A> {
    Done(A),
    /// The waker is in the list.
    Waiting,
    /// To be made again with a clone of the waker.
    NeedsClone,
}

/// The waker of a poll. Clones are made and dropped outside the lock.
pub(super) struct PollWaker<'a> {
    pub(super) waker: &'a Waker,
    pub(super) clone: Option<Waker>,
    /// To be dropped.
    pub(super) unused: Option<Waker>,
}

#[derive(Debug)]
pub(super) struct Waiters {
    list: WaitList<Grant>,
    /// The first waiter without a grant.
    next: Option<WaiterId>,
    waiting: usize,
    granted: usize,
    /// What the granted waiters need together.
    reserved: u64,
}

impl Waiters {
    pub(super) const fn new() -> Self {
        Self { list: WaitList::new(), next: None, waiting: 0, granted: 0, reserved: 0 }
    }

    /// The number of waiters without a grant.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The number of waiters that have not claimed their grant yet.
    #[inline]
    pub(super) fn granted(&self) -> usize {
        self.granted
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.waiting + self.granted
    }

    /// The weight that is reserved for granted waiters.
    #[inline]
    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// How many ever joined.
    pub(super) fn joined(&self) -> u64 {
        self.list.joined()
    }

    /// What the next waiter without a grant needs.
    #[inline]
    pub(super) fn next_need(&self) -> Option<u64> {
        Some(self.list.get(self.next?)?.data.need)
    }

    /// Grants the next waiter what it needs and returns its waker, if it was polled since the last
    /// grant.
    pub(super) fn grant_next(&mut self) -> Option<Waker> {
        let id = self.next?;
        self.next = self.list.after(id);
        let waiter = self.list.get_mut(id)?;
        waiter.data.granted = true;
        self.waiting -= 1;
        self.granted += 1;
        self.reserved += waiter.data.need;
        waiter.waker.take()
    }

    /// Takes the last grant back; that waiter is the next again. It was woken, so it polls and joins
    /// nothing anew, unless it is cancelled.
    pub(super) fn revoke_last(&mut self) {
        let last = match self.next {
            Some(next) => self.list.before(next),
            None => self.list.back(),
        };
        let Some(waiter) = last.and_then(|last| self.list.get_mut(last)) else { return };
        waiter.data.granted = false;
        self.waiting += 1;
        self.granted -= 1;
        self.reserved -= waiter.data.need;
        self.next = last;
    }

    /// Leaves the waker of a poll in the list; joins with a new id if there is none.
    ///
    /// # Panics
    ///
    /// With 2^32 − 1 waiters in the list.
    pub(super) fn wait<A>(
        &mut self,
        id: &mut Option<WaiterId>,
        need: u64,
        poll: &mut PollWaker<'_>,
    ) -> Attempt<A> {
        let waiter = id.and_then(|id| self.list.get_mut(id));
        let left = waiter.as_ref().and_then(|waiter| waiter.waker.as_ref());
        if left.is_some_and(|left| left.will_wake(poll.waker)) {
            return Attempt::Waiting;
        }
        let Some(clone) = poll.clone.take() else { return Attempt::NeedsClone };
        if let Some(waiter) = waiter {
            poll.unused = waiter.waker.replace(clone);
        } else {
            let joined = self.list.push(Grant { need, granted: false }, Some(clone));
            self.next.get_or_insert(joined);
            self.waiting += 1;
            *id = Some(joined);
        }
        Attempt::Waiting
    }

    /// Removes a waiter that has a grant; `None` if it has none.
    pub(super) fn claim(&mut self, id: WaiterId) -> Option<Option<Waker>> {
        let granted = self.list.get(id).is_some_and(|waiter| waiter.data.granted);
        if granted { self.remove(id) } else { None }
    }

    /// Removes a waiter; `None` if it is not in the list.
    pub(super) fn remove(&mut self, id: WaiterId) -> Option<Option<Waker>> {
        if self.next == Some(id) {
            self.next = self.list.after(id);
        }
        let Waiter { data, waker, .. } = self.list.remove(id)?;
        if data.granted {
            self.granted -= 1;
            self.reserved -= data.need;
        } else {
            self.waiting -= 1;
        }
        Some(waker)
    }

    /// Removes the next waiter without a grant.
    pub(super) fn dismiss_next(&mut self) -> Option<Waker> {
        self.remove(self.next?).flatten()
    }

    /// Panics unless the cursor parts granted from waiting waiters and the counts are right.
    #[cfg(debug_assertions)]
    pub(super) fn validate(&self) {
        self.list.validate();
        let granted = || self.list.iter().filter(|waiter| waiter.data.granted);
        let reserved = granted().map(|waiter| waiter.data.need).sum::<u64>();
        assert_eq!((granted().count(), reserved), (self.granted, self.reserved), "grants");
        assert_eq!(self.list.len(), self.len(), "waiters");
        assert!(self.list.iter().take(self.granted).all(|waiter| waiter.data.granted), "the order");
        let next = self.list.iter().nth(self.granted).map(Waiter::number);
        assert_eq!(self.next.map(WaiterId::number), next, "the cursor");
    }
}
