//! A doubly linked list of slots: joining at the end, leaving from anywhere and moving to the end are
//! O(1).
//!
//! The links are a ring apart from the values they order: a move writes to four links, which lie
//! close together. The link of slot `s` is number `s + 1`; number 0 is both ends of the list, so
//! that no link lacks a neighbour and no step needs a branch.

use super::slab::NONE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    prev: u32,
    next: u32,
}

impl Link {
    const OUTSIDE: Self = Self { prev: NONE, next: NONE };
}

const ENDS: u32 = 0;

/// An order of slots, each of which is in it at most once.
#[derive(Debug, Clone, Default)]
pub(crate) struct List {
    links: Vec<Link>,
}

impl List {
    pub(crate) const fn new() -> Self {
        Self { links: Vec::new() }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.front().is_none()
    }

    #[inline]
    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.links.get(slot as usize + 1).is_some_and(|link| link.next != NONE)
    }

    #[inline]
    pub(crate) fn front(&self) -> Option<u32> {
        self.links.first()?.next.checked_sub(1)
    }

    #[inline]
    pub(crate) fn back(&self) -> Option<u32> {
        self.links.first()?.prev.checked_sub(1)
    }

    /// The slot after one that is in the list.
    #[inline]
    pub(crate) fn next(&self, slot: u32) -> Option<u32> {
        self.links[slot as usize + 1].next.checked_sub(1)
    }

    /// The slot before one that is in the list.
    #[inline]
    pub(crate) fn prev(&self, slot: u32) -> Option<u32> {
        self.links[slot as usize + 1].prev.checked_sub(1)
    }

    /// Puts a slot at the end. It must not be in the list.
    #[inline]
    pub(crate) fn push_back(&mut self, slot: u32) {
        debug_assert!(!self.contains(slot), "slot {slot} is in the list");
        if self.links.len() < slot as usize + 2 {
            self.grow(slot);
        }
        self.link_back(slot + 1);
    }

    #[inline(never)]
    fn grow(&mut self, slot: u32) {
        if self.links.is_empty() {
            self.links.push(Link { prev: ENDS, next: ENDS });
        }
        self.links.resize(slot as usize + 2, Link::OUTSIDE);
    }

    /// Takes a slot out. It must be in the list.
    #[inline]
    pub(crate) fn remove(&mut self, slot: u32) {
        debug_assert!(self.contains(slot), "slot {slot} is not in the list");
        self.unlink(slot + 1);
        self.links[slot as usize + 1] = Link::OUTSIDE;
    }

    /// Puts a slot at the end, unless it is in the list.
    #[inline]
    pub(crate) fn insert(&mut self, slot: u32) {
        if !self.contains(slot) {
            self.push_back(slot);
        }
    }

    /// Takes a slot out, if it is in the list.
    #[inline]
    pub(crate) fn discard(&mut self, slot: u32) {
        if self.contains(slot) {
            self.remove(slot);
        }
    }

    /// Moves a slot to the end, if it is in the list. It must have been in it once.
    #[inline]
    pub(crate) fn move_to_back(&mut self, slot: u32) {
        let link = slot + 1;
        if !matches!(self.links[link as usize].next, ENDS | NONE) {
            self.unlink(link);
            self.link_back(link);
        }
    }

    /// Takes the first slot out.
    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<u32> {
        let links = &mut self.links[..];
        let link = links.first()?.next;
        if link == ENDS {
            return None;
        }
        let next = core::mem::replace(&mut links[link as usize], Link::OUTSIDE).next;
        links[ENDS as usize].next = next;
        links[next as usize].prev = ENDS;
        Some(link - 1)
    }

    #[inline]
    fn link_back(&mut self, link: u32) {
        let prev = self.links[ENDS as usize].prev;
        self.links[link as usize] = Link { prev, next: ENDS };
        self.links[prev as usize].next = link;
        self.links[ENDS as usize].prev = link;
    }

    #[inline]
    fn unlink(&mut self, link: u32) {
        let Link { prev, next } = self.links[link as usize];
        self.links[prev as usize].next = next;
        self.links[next as usize].prev = prev;
    }

    /// The slots from the first to the last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        core::iter::successors(self.front(), |slot| self.next(*slot))
    }

    /// Panics unless the links form one ring in both directions.
    #[cfg(any(all(test, not(loom)), debug_assertions))]
    pub(crate) fn validate(&self) {
        let mut last = ENDS;
        let mut linked = 0;
        for slot in self.iter() {
            assert_eq!(self.links[slot as usize + 1].prev, last, "the link before slot {slot}");
            last = slot + 1;
            linked += 1;
            assert!(linked < self.links.len(), "the list is a circle without an end");
        }
        assert_eq!(self.back(), last.checked_sub(1), "the last slot");
        let inside = self.links.iter().skip(1).filter(|link| **link != Link::OUTSIDE).count();
        assert_eq!(inside, linked, "links in use");
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_has_no_ends() {
        let mut list = List::new();
        assert_eq!((list.front(), list.back(), list.is_empty()), (None, None, true));
        list.push_back(3);
        list.remove(3);
        assert_eq!((list.front(), list.back(), list.is_empty()), (None, None, true));
        assert!(!list.contains(3) && !list.contains(100));
        list.validate();
    }

    #[test]
    fn neighbours_close_up_when_one_leaves() {
        let mut list = List::new();
        (0..4).for_each(|slot| list.push_back(slot));
        list.remove(2);
        assert!(list.iter().eq([0, 1, 3]));
        assert_eq!((list.prev(3), list.next(1), list.next(3)), (Some(1), Some(3), None));
        list.move_to_back(0);
        list.move_to_back(0);
        assert!(list.iter().eq([1, 3, 0]));
        list.move_to_back(2);
        assert!(list.iter().eq([1, 3, 0]), "one that is not in the list stays outside");
        list.validate();
    }

    #[test]
    fn behaves_as_a_vector() {
        let mut random = fastrand::Rng::with_seed(11);
        let (mut list, mut model) = (List::new(), Vec::new());
        for _ in 0..3_000 {
            let slot = random.u32(..24);
            match (model.iter().position(|known| *known == slot), random.bool()) {
                (None, _) => {
                    list.push_back(slot);
                    model.push(slot);
                }
                (Some(at), true) => {
                    list.remove(slot);
                    model.remove(at);
                }
                (Some(_), false) if slot == 0 => {
                    assert_eq!(list.pop_front(), Some(model.remove(0)));
                }
                (Some(at), false) => {
                    list.move_to_back(slot);
                    model.remove(at);
                    model.push(slot);
                }
            }
            list.validate();
            assert!(list.iter().eq(model.iter().copied()));
            assert_eq!(
                (list.front(), list.back()),
                (model.first().copied(), model.last().copied())
            );
        }
    }
}
