//! The items of one key in a row, and the buffers that such rows leave behind.

use core::iter::Chain;
use core::slice;
use std::collections::VecDeque;

/// Items in order, the oldest first. A single one, which is what most keys hold, needs no buffer.
#[derive(Debug, Clone)]
pub(super) enum Line<T> {
    One(T),
    Many(VecDeque<T>),
}

pub(super) type LineIter<'a, T> = Chain<slice::Iter<'a, T>, slice::Iter<'a, T>>;

impl<T> Line<T> {
    pub(super) const EMPTY: Self = Self::Many(VecDeque::new());

    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(items) => items.len(),
        }
    }

    pub(super) fn get(&self, place: usize) -> Option<&T> {
        match self {
            Self::One(item) => (place == 0).then_some(item),
            Self::Many(items) => items.get(place),
        }
    }

    pub(super) fn last(&self) -> Option<&T> {
        match self {
            Self::One(item) => Some(item),
            Self::Many(items) => items.back(),
        }
    }

    pub(super) fn iter(&self) -> LineIter<'_, T> {
        let (first, rest) = match self {
            Self::One(item) => (slice::from_ref(item), [].as_slice()),
            Self::Many(items) => items.as_slices(),
        };
        first.iter().chain(rest)
    }

    #[inline]
    pub(super) fn push(&mut self, item: T, spares: &mut Spares<T>) {
        match self {
            Self::Many(items) if items.len() < items.capacity() => items.push_back(item),
            _ => self.push_growing(item, spares),
        }
    }

    #[inline(never)]
    fn push_growing(&mut self, item: T, spares: &mut Spares<T>) {
        *self = match core::mem::replace(self, Self::EMPTY) {
            Self::One(first) => {
                let mut items = spares.buffer(SMALLEST);
                items.extend([first, item]);
                Self::Many(items)
            }
            Self::Many(items) if items.capacity() == 0 => {
                drop(items);
                Self::One(item)
            }
            Self::Many(mut items) => {
                let mut wider = spares.buffer(2 * items.capacity());
                wider.append(&mut items);
                spares.keep(items);
                wider.push_back(item);
                Self::Many(wider)
            }
        };
    }

    #[inline]
    pub(super) fn pop_first(&mut self) -> Option<T> {
        match self {
            Self::Many(items) => items.pop_front(),
            Self::One(_) => self.pop_only(),
        }
    }

    /// Puts an item last in exchange for the first.
    #[inline]
    pub(super) fn replace_first(&mut self, item: T, spares: &mut Spares<T>) -> Option<T> {
        match self {
            Self::One(first) => Some(core::mem::replace(first, item)),
            Self::Many(items) => {
                let first = items.pop_front()?;
                self.push(item, spares);
                Some(first)
            }
        }
    }

    pub(super) fn pop_last(&mut self) -> Option<T> {
        match self {
            Self::Many(items) => items.pop_back(),
            Self::One(_) => self.pop_only(),
        }
    }

    fn pop_only(&mut self) -> Option<T> {
        match core::mem::replace(self, Self::EMPTY) {
            Self::One(item) => Some(item),
            Self::Many(_) => None,
        }
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<T> {
        match self {
            Self::Many(items) => items.remove(place),
            Self::One(_) => self.pop_only(),
        }
    }

    /// Takes out those in the places that are marked. Both parts stay in order.
    pub(super) fn extract(&mut self, marks: &[bool], spares: &mut Spares<T>) -> Self {
        let mut gone = Self::with_room(marks.iter().filter(|leaves| **leaves).count());
        for leaves in marks {
            if let Some(item) = self.pop_first() {
                let part = if *leaves { &mut gone } else { &mut *self };
                part.push(item, spares);
            }
        }
        gone
    }

    /// An empty line that holds so many without asking for a buffer again.
    pub(super) fn with_room(count: usize) -> Self {
        Self::Many(if count > 1 { VecDeque::with_capacity(count) } else { VecDeque::new() })
    }
}

/// A buffer never holds fewer; those that hold more do so by powers of two.
const SMALLEST: usize = 4;

/// Buffers that lines have grown out of or left behind, by the logarithm of their size.
///
/// A buffer is made only if none of its size is spare, so that of no size there are ever more
/// than there were lines of that size at once.
#[derive(Debug)]
pub(super) struct Spares<T>(Vec<Vec<VecDeque<T>>>);

impl<T> Spares<T> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// An empty buffer for at least `size` items, a power of two.
    fn buffer(&mut self, size: usize) -> VecDeque<T> {
        let spare = self.0.get_mut(size.ilog2() as usize).and_then(Vec::pop);
        spare.unwrap_or_else(|| VecDeque::with_capacity(size))
    }

    /// Keeps an empty buffer for later.
    fn keep(&mut self, buffer: VecDeque<T>) {
        // Values without a size need no memory, and capacity for none is not worth keeping.
        if size_of::<T>() == 0 || buffer.capacity() < SMALLEST {
            return;
        }
        let size = buffer.capacity().ilog2() as usize;
        if self.0.len() <= size {
            self.0.resize_with(size + 1, Vec::new);
        }
        self.0[size].push(buffer);
    }

    /// Keeps the buffer of a line that is no longer needed and has been emptied.
    pub(super) fn recycle(&mut self, line: Line<T>) {
        if let Line::Many(buffer) = line {
            self.keep(buffer);
        }
    }
}
