//! Lists through the lanes themselves: to enter, to leave from anywhere and to move to the end is
//! O(1), and takes no memory of its own.

use crate::base::slab::{NONE, Slab};

/// The neighbours of a lane in one list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Links {
    prev: u32,
    next: u32,
    inside: bool,
}

impl Links {
    pub(super) const OUTSIDE: Self = Self { prev: NONE, next: NONE, inside: false };
}

/// What can be in `LISTS` lists at once.
pub(super) trait Linked<const LISTS: usize> {
    fn links(&mut self) -> &mut [Links; LISTS];
}

/// The list number `WHICH` of those that go through the same slab.
#[derive(Debug)]
pub(super) struct List<const WHICH: usize> {
    head: u32,
    tail: u32,
}

impl<const WHICH: usize> List<WHICH> {
    pub(super) fn new() -> Self {
        Self { head: NONE, tail: NONE }
    }

    #[inline]
    pub(super) fn head(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    /// Puts a lane at the end, unless it is in the list already.
    #[inline]
    pub(super) fn enter<const N: usize, T: Linked<N>>(&mut self, slab: &mut Slab<T>, slot: u32) {
        let links = &mut slab[slot].links()[WHICH];
        if links.inside {
            return;
        }
        *links = Links { prev: self.tail, next: NONE, inside: true };
        match self.tail {
            NONE => self.head = slot,
            tail => slab[tail].links()[WHICH].next = slot,
        }
        self.tail = slot;
    }

    /// Takes a lane out, if it is in the list.
    #[inline]
    pub(super) fn leave<const N: usize, T: Linked<N>>(&mut self, slab: &mut Slab<T>, slot: u32) {
        let links = &mut slab[slot].links()[WHICH];
        if !links.inside {
            return;
        }
        let Links { prev, next, .. } = std::mem::replace(links, Links::OUTSIDE);
        match prev {
            NONE => self.head = next,
            prev => slab[prev].links()[WHICH].next = next,
        }
        match next {
            NONE => self.tail = prev,
            next => slab[next].links()[WHICH].prev = prev,
        }
    }
}
