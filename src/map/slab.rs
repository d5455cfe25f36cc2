//! Numbered places for values, reused after they are freed.

use core::ops::{Index, IndexMut};

/// The number that stands for "no slot".
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Debug)]
enum Place<T> {
    Taken(T),
    /// The next free slot, or `NONE`.
    Free(u32),
}

/// A growing array whose freed places are handed out again, the last freed first.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: u32,
    taken: usize,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), free: NONE, taken: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.taken
    }

    /// The slots from this one on that are taken, with what is in them. O(values ever held at
    /// once).
    pub(crate) fn iter_from(&self, first: u32) -> impl Iterator<Item = (u32, &T)> + '_ {
        let places = self.places.get(first as usize..).unwrap_or(&[]);
        (first..).zip(places).filter_map(|(slot, place)| match place {
            Place::Taken(value) => Some((slot, value)),
            Place::Free(_) => None,
        })
    }

    /// Puts a value in; its slot is at most the number of values ever held at once. The builder
    /// has made sure that slots fit.
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let slot = self.free;
        if slot == NONE {
            let slot = self.places.len() as u32;
            self.places.push(Place::Taken(value));
            self.taken += 1;
            return slot;
        }
        let place = &mut self.places[slot as usize];
        let Place::Free(next) = *place else { unreachable!("a taken slot is in the free list") };
        *place = Place::Taken(value);
        self.free = next;
        self.taken += 1;
        slot
    }

    #[inline]
    pub(crate) fn remove(&mut self, slot: u32) -> T {
        let place = core::mem::replace(&mut self.places[slot as usize], Place::Free(self.free));
        let Place::Taken(value) = place else { unreachable!("a slot is freed once") };
        self.free = slot;
        self.taken -= 1;
        value
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: u32) -> &T {
        match &self.places[slot as usize] {
            Place::Taken(value) => value,
            Place::Free(_) => unreachable!("only taken slots are linked"),
        }
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut T {
        match &mut self.places[slot as usize] {
            Place::Taken(value) => value,
            Place::Free(_) => unreachable!("only taken slots are linked"),
        }
    }
}
