//! The wait list under every primitive that makes its callers wait: first come, first served, with
//! O(1) for joining, leaving from anywhere, and serving the head. Waiting allocates nothing in the
//! steady state, because slots are reused.
//!
//! ```text
//!           push                 pop_front: served, or told that it is closed
//!  outside ──────▶ waiting ─────────────────────────────────────────────────▶ outside
//!                     └──────────── remove: its future was dropped ──────────────▲
//! ```
//!
//! The list knows no lock and no runtime. Its users keep it under their lock and wake, clone and drop
//! wakers outside it.

use core::task::Waker;

use super::list::List;
use super::slab::Slab;

/// Names a waiter. Numbers follow the order of joining and are never reused, so that an old id finds
/// no waiter. Ids are ordered as their waiters joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WaiterId {
    number: u64,
    slot: u32,
}

impl WaiterId {
    /// The position among all that ever joined, from 1 on.
    #[inline]
    pub(crate) fn number(self) -> u64 {
        self.number
    }

    /// Where the waiter is, as long as it is in the list. Less than the most that ever waited at once,
    /// so that a primitive can keep things apart by it.
    #[inline]
    pub(crate) fn slot(self) -> u32 {
        self.slot
    }
}

/// A waiter that has left the list.
#[derive(Debug)]
pub(crate) struct Waiter<T> {
    number: u64,
    /// What the primitive keeps about the waiter, such as the permits it needs.
    pub(crate) data: T,
    /// `None` if it has been taken to be woken.
    pub(crate) waker: Option<Waker>,
}

impl<T> Waiter<T> {
    /// As [`WaiterId::number`].
    #[inline]
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

#[derive(Debug)]
pub(crate) struct WaitList<T> {
    waiters: Slab<Waiter<T>>,
    order: List,
    joined: u64,
}

impl<T> Default for WaitList<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> WaitList<T> {
    pub(crate) const fn new() -> Self {
        Self { waiters: Slab::new(), order: List::new(), joined: 0 }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.len() == 0
    }

    /// How many ever joined.
    #[inline]
    pub(crate) fn joined(&self) -> u64 {
        self.joined
    }

    /// Adds a waiter at the end.
    ///
    /// # Panics
    ///
    /// With 2^32 − 1 waiters in the list.
    #[inline]
    pub(crate) fn push(&mut self, data: T, waker: Option<Waker>) -> WaiterId {
        self.joined += 1;
        let number = self.joined;
        let slot = self.waiters.insert(Waiter { number, data, waker });
        self.order.push_back(slot);
        WaiterId { number, slot }
    }

    #[inline]
    pub(crate) fn get(&self, id: WaiterId) -> Option<&Waiter<T>> {
        self.waiters.get(id.slot).filter(|waiter| waiter.number == id.number)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: WaiterId) -> Option<&mut Waiter<T>> {
        self.waiters.get_mut(id.slot).filter(|waiter| waiter.number == id.number)
    }

    /// The id of the waiter that has waited longest.
    #[inline]
    pub(crate) fn front(&self) -> Option<WaiterId> {
        self.order.front().map(|slot| self.id_at(slot))
    }

    /// Whether a waiter that is in the list is at the front.
    #[inline]
    pub(crate) fn is_front(&self, id: WaiterId) -> bool {
        self.order.front() == Some(id.slot)
    }

    #[inline]
    pub(crate) fn back(&self) -> Option<WaiterId> {
        self.order.back().map(|slot| self.id_at(slot))
    }

    /// The waiter at the front.
    #[inline]
    pub(crate) fn head(&self) -> Option<&Waiter<T>> {
        self.waiters.get(self.order.front()?)
    }

    /// The next waiter behind one that is in the list.
    #[inline]
    pub(crate) fn after(&self, id: WaiterId) -> Option<WaiterId> {
        self.order.next(id.slot).map(|slot| self.id_at(slot))
    }

    /// The waiter ahead of one that is in the list.
    #[inline]
    pub(crate) fn before(&self, id: WaiterId) -> Option<WaiterId> {
        self.order.prev(id.slot).map(|slot| self.id_at(slot))
    }

    #[inline]
    fn id_at(&self, slot: u32) -> WaiterId {
        WaiterId { number: self.waiters[slot].number, slot }
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<Waiter<T>> {
        let slot = self.order.pop_front()?;
        self.waiters.try_remove(slot)
    }

    /// Takes a waiter out, wherever it stands; `None` if it is not in the list any more.
    #[inline]
    pub(crate) fn remove(&mut self, id: WaiterId) -> Option<Waiter<T>> {
        let waiter = self.waiters.remove_if(id.slot, |waiter| waiter.number == id.number)?;
        self.order.remove(id.slot);
        Some(waiter)
    }

    /// The waiters from the first to the last. O(n).
    #[cfg(any(all(test, not(loom)), debug_assertions))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Waiter<T>> + '_ {
        self.order.iter().map(|slot| &self.waiters[slot])
    }

    /// Panics unless the list and its slots agree and numbers rise from front to back.
    #[cfg(any(all(test, not(loom)), debug_assertions))]
    pub(crate) fn validate(&self) {
        self.waiters.validate();
        self.order.validate();
        assert_eq!(self.order.iter().count(), self.waiters.len(), "waiters in order");
        let mut last = 0;
        for waiter in self.iter() {
            assert!(waiter.number > last, "waiter {} is behind {last}", waiter.number);
            last = waiter.number;
        }
        assert!(last <= self.joined, "waiter {last} of {} joined", self.joined);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn numbers(list: &WaitList<u32>) -> Vec<u32> {
        list.iter().map(|waiter| waiter.data).collect()
    }

    #[test]
    fn serves_in_the_order_of_joining() {
        let mut list = WaitList::new();
        let ids: Vec<_> = (0..5).map(|data| list.push(data, None)).collect();
        assert!(ids.is_sorted());
        assert!(list.remove(ids[1]).is_some());
        assert_eq!(list.after(ids[0]), Some(ids[2]));
        assert_eq!((list.before(ids[2]), list.before(ids[0])), (Some(ids[0]), None));
        let served: Vec<u32> =
            core::iter::from_fn(|| list.pop_front()).map(|waiter| waiter.data).collect();
        assert_eq!(served, [0, 2, 3, 4]);
        assert_eq!((list.front(), list.back(), list.joined()), (None, None, 5));
        list.validate();
    }

    #[test]
    fn an_old_id_finds_no_waiter_in_a_reused_slot() {
        let mut list = WaitList::new();
        let old = list.push(1, None);
        assert!(list.remove(old).is_some());
        let new = list.push(2, None);
        assert_eq!(old.slot(), new.slot());
        assert!(list.get(old).is_none() && list.get_mut(old).is_none());
        assert!(list.remove(old).is_none());
        assert_eq!(list.get(new).map(|waiter| waiter.data), Some(2));
        list.validate();
    }

    #[test]
    fn behaves_as_a_vector() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut list = WaitList::new();
        let mut model: Vec<(u32, WaiterId)> = Vec::new();
        for data in 0..3_000 {
            match random.u8(..3) {
                0 => model.push((data, list.push(data, None))),
                1 => {
                    let popped = list.pop_front().map(|waiter| (waiter.data, waiter.number()));
                    let front = (!model.is_empty()).then(|| model.remove(0));
                    assert_eq!(popped, front.map(|(data, id)| (data, id.number())));
                }
                _ => {
                    if !model.is_empty() {
                        let (data, id) = model.remove(random.usize(..model.len()));
                        assert_eq!(list.remove(id).map(|waiter| waiter.data), Some(data));
                    }
                }
            }
            list.validate();
            assert!(numbers(&list).iter().eq(model.iter().map(|(data, _)| data)));
            assert_eq!(list.front(), model.first().map(|(_, id)| *id));
            assert_eq!(list.back(), model.last().map(|(_, id)| *id));
            assert_eq!(list.len(), model.len());
        }
    }
}
