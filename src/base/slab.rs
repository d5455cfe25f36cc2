//! A growing array of values whose freed slots are reused.

use core::ops::{Index, IndexMut};

/// The number that stands for "no slot".
pub(crate) const NONE: u32 = u32::MAX;

const VACANT: &str = "the slot is vacant";

#[derive(Debug, Clone)]
enum Slot<T> {
    Occupied(T),
    /// The next vacant slot, or `NONE`.
    Vacant(u32),
}

/// Values by slot. The slot freed last is reused first, so that the number of slots is the number of
/// values ever held at once.
#[derive(Debug, Clone)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    first_vacant: u32,
    len: usize,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), first_vacant: NONE, len: 0 }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The number of slots, vacant ones included.
    #[cfg(any(all(test, not(loom)), debug_assertions))]
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The slot of the next [`insert`](Self::insert).
    #[inline]
    pub(crate) fn next_slot(&self) -> u32 {
        if self.first_vacant == NONE { self.slots.len() as u32 } else { self.first_vacant }
    }

    /// Stores a value.
    ///
    /// # Panics
    ///
    /// With 2^32 − 1 values in it.
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let slot = self.first_vacant;
        let Some(vacant) = self.slots.get_mut(slot as usize) else { return self.grow(value) };
        let Slot::Vacant(next) = *vacant else {
            unreachable!("an occupied slot is listed as vacant")
        };
        *vacant = Slot::Occupied(value);
        self.first_vacant = next;
        self.len += 1;
        slot
    }

    #[inline]
    fn grow(&mut self, value: T) -> u32 {
        let slot = self.slots.len();
        assert!(slot < NONE as usize, "more than {NONE} values");
        self.slots.push(Slot::Occupied(value));
        self.len += 1;
        slot as u32
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        match self.slots.get(slot as usize)? {
            Slot::Occupied(value) => Some(value),
            Slot::Vacant(_) => None,
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        match self.slots.get_mut(slot as usize)? {
            Slot::Occupied(value) => Some(value),
            Slot::Vacant(_) => None,
        }
    }

    /// Takes a value out.
    ///
    /// # Panics
    ///
    /// If the slot is vacant.
    #[inline]
    pub(crate) fn remove(&mut self, slot: u32) -> T {
        self.try_remove(slot).expect(VACANT)
    }

    #[inline]
    pub(crate) fn try_remove(&mut self, slot: u32) -> Option<T> {
        self.remove_if(slot, |_| true)
    }

    /// Takes a value out if `condition` holds for it.
    #[inline]
    pub(crate) fn remove_if(&mut self, slot: u32, condition: impl FnOnce(&T) -> bool) -> Option<T> {
        let place = self.slots.get_mut(slot as usize)?;
        if !matches!(place, Slot::Occupied(value) if condition(value)) {
            return None;
        }
        let old = core::mem::replace(place, Slot::Vacant(self.first_vacant));
        self.first_vacant = slot;
        self.len -= 1;
        match old {
            Slot::Occupied(value) => Some(value),
            Slot::Vacant(_) => None,
        }
    }

    /// The occupied slots from `first` on. O(slots).
    pub(crate) fn iter_from(&self, first: u32) -> impl Iterator<Item = (u32, &T)> + '_ {
        let slots = self.slots.get(first as usize..).unwrap_or(&[]);
        (first..).zip(slots).filter_map(|(slot, value)| match value {
            Slot::Occupied(value) => Some((slot, value)),
            Slot::Vacant(_) => None,
        })
    }

    /// All values. O(slots).
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> + '_ {
        self.iter_from(0)
    }

    /// Takes all values out; every slot is gone then.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + use<'_, T> {
        (self.first_vacant, self.len) = (NONE, 0);
        self.slots.drain(..).filter_map(|slot| match slot {
            Slot::Occupied(value) => Some(value),
            Slot::Vacant(_) => None,
        })
    }

    /// Panics unless each slot is either occupied or on the list of vacant slots, once.
    #[cfg(any(all(test, not(loom)), debug_assertions))]
    pub(crate) fn validate(&self) {
        let mut vacant = 0;
        let mut next = self.first_vacant;
        while next != NONE {
            let Slot::Vacant(after) = self.slots[next as usize] else {
                panic!("slot {next} is occupied and listed as vacant")
            };
            vacant += 1;
            assert!(vacant <= self.slots.len(), "the list of vacant slots is a circle");
            next = after;
        }
        let occupied = self.iter().count();
        assert_eq!(occupied, self.len, "occupied slots");
        assert_eq!(occupied + vacant, self.slots.len(), "occupied and vacant slots");
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: u32) -> &T {
        self.get(slot).expect(VACANT)
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut T {
        self.get_mut(slot).expect(VACANT)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn slots_are_reused_last_freed_first() {
        let mut slab = Slab::new();
        let slots: Vec<u32> = (0..4).map(|value| slab.insert(value)).collect();
        assert_eq!(slots, [0, 1, 2, 3]);
        assert_eq!((slab.remove(1), slab.remove(3)), (1, 3));
        slab.validate();
        assert_eq!(slab.next_slot(), 3);
        assert_eq!([slab.insert(10), slab.insert(11), slab.insert(12)], [3, 1, 4]);
        assert_eq!((slab.len(), slab.slots()), (5, 5));
        slab.validate();
    }

    #[test]
    fn a_vacant_slot_has_no_value() {
        let mut slab = Slab::new();
        let slot = slab.insert("value");
        assert_eq!(slab.try_remove(slot), Some("value"));
        assert_eq!(slab.try_remove(slot), None);
        assert_eq!((slab.get(slot), slab.get(7), slab.len()), (None, None, 0));
        slab.validate();
    }

    #[test]
    #[should_panic = "the slot is vacant"]
    fn indexing_a_vacant_slot_panics() {
        let mut slab = Slab::new();
        let slot = slab.insert(1);
        slab.remove(slot);
        let _ = slab[slot];
    }

    #[test]
    fn behaves_as_a_map_from_slots_to_values() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut slab, mut model) = (Slab::new(), BTreeMap::new());
        for value in 0..2_000 {
            if random.u8(..) < 140 {
                let expected = slab.next_slot();
                let slot = slab.insert(value);
                assert_eq!(slot, expected);
                assert!(model.insert(slot, value).is_none(), "slot {slot} was occupied");
            } else {
                let slot = random.u32(..40);
                assert_eq!(slab.try_remove(slot), model.remove(&slot));
            }
            slab.validate();
            assert!(slab.iter().map(|(slot, value)| (slot, *value)).eq(model.clone()));
            assert!(slab.iter_from(5).count() <= model.len());
        }
        let slots = slab.slots();
        assert_eq!(slab.drain().count(), model.len());
        assert!(slots > 0 && slab.slots() == 0);
        slab.validate();
    }
}
