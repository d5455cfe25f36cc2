//! The items of one key, and the recycling of their buffers.

use core::iter::Chain;
use core::slice;
use std::collections::VecDeque;

/// Items, oldest first. A single one, which is what most keys hold, needs no buffer.
#[derive(Debug, Clone)]
pub(super) enum ItemBuf<T> {
    One(T),
    Many(VecDeque<T>),
}

pub(super) type ItemBufIter<'a, T> = Chain<slice::Iter<'a, T>, slice::Iter<'a, T>>;

impl<T> ItemBuf<T> {
    pub(super) const EMPTY: Self = Self::Many(VecDeque::new());

    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(items) => items.len(),
        }
    }

    pub(super) fn get(&self, position: usize) -> Option<&T> {
        match self {
            Self::One(item) => (position == 0).then_some(item),
            Self::Many(items) => items.get(position),
        }
    }

    pub(super) fn last(&self) -> Option<&T> {
        match self {
            Self::One(item) => Some(item),
            Self::Many(items) => items.back(),
        }
    }

    pub(super) fn iter(&self) -> ItemBufIter<'_, T> {
        let (first, rest) = match self {
            Self::One(item) => (slice::from_ref(item), [].as_slice()),
            Self::Many(items) => items.as_slices(),
        };
        first.iter().chain(rest)
    }

    #[inline]
    pub(super) fn push(&mut self, item: T, pool: &mut BufPool<T>) {
        match self {
            Self::Many(items) if items.len() < items.capacity() => items.push_back(item),
            _ => self.push_growing(item, pool),
        }
    }

    /// Adds an item at the end, and returns the first if there were `most`; there must not be more.
    #[inline]
    pub(super) fn push_at_most(
        &mut self,
        most: usize,
        item: T,
        pool: &mut BufPool<T>,
    ) -> Option<T> {
        match self {
            Self::Many(items) if items.len() == most => {
                let first = items.pop_front();
                items.push_back(item);
                return first;
            }
            Self::Many(items) if items.len() < items.capacity() => items.push_back(item),
            Self::One(first) if most == 1 => return Some(core::mem::replace(first, item)),
            _ => self.push_growing(item, pool),
        }
        None
    }

    #[inline(never)]
    fn push_growing(&mut self, item: T, pool: &mut BufPool<T>) {
        *self = match core::mem::replace(self, Self::EMPTY) {
            Self::One(first) => {
                let mut items = pool.wider_than(1);
                items.push_back(first);
                items.push_back(item);
                Self::Many(items)
            }
            Self::Many(items) if items.capacity() == 0 => {
                drop(items);
                Self::One(item)
            }
            Self::Many(mut items) => {
                let mut wider = pool.wider_than(items.capacity());
                wider.append(&mut items);
                pool.keep(items);
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

    pub(super) fn remove(&mut self, position: usize) -> Option<T> {
        match self {
            Self::Many(items) => items.remove(position),
            Self::One(_) => self.pop_only(),
        }
    }

    /// Takes out the marked items, by position. Both parts stay in order.
    pub(super) fn extract(&mut self, marks: &[bool], pool: &mut BufPool<T>) -> Self {
        let mut gone = Self::with_room(marks.iter().filter(|leaves| **leaves).count());
        for leaves in marks {
            if let Some(item) = self.pop_first() {
                let part = if *leaves { &mut gone } else { &mut *self };
                part.push(item, pool);
            }
        }
        gone
    }

    /// An empty buffer for `count` items.
    pub(super) fn with_room(count: usize) -> Self {
        Self::Many(if count > 1 { VecDeque::with_capacity(count) } else { VecDeque::new() })
    }
}

/// The capacity of the smallest buffer, unless a key may hold less.
const SMALLEST: usize = 4;

/// Empty buffers for reuse, by the logarithm of their size, which is a power of two or the most
/// items that a key may hold.
///
/// A buffer is allocated only if none of its size is free, so the number of buffers of a size is at
/// most the number ever in use at once.
#[derive(Debug)]
pub(super) struct BufPool<T> {
    by_size: Vec<Vec<VecDeque<T>>>,
    /// The most items of a key: in a buffer of exactly this size, a new item takes the slot of the
    /// displaced one.
    most: usize,
}

impl<T> BufPool<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { by_size: Vec::new(), most }
    }

    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// An empty buffer for more than `size` items.
    fn wider_than(&mut self, size: usize) -> VecDeque<T> {
        let wider = SMALLEST.max(2 * size);
        // After a `resize` during a checkout, a key can hold more than it may.
        let wider = if size < self.most { wider.min(self.most) } else { wider };
        match self.by_size.get_mut(class(wider)).and_then(Vec::pop) {
            Some(mut unused) => {
                // Does nothing, unless the buffer is from before the limit was raised.
                unused.reserve_exact(wider);
                unused
            }
            None => VecDeque::with_capacity(wider),
        }
    }

    /// Keeps an empty buffer for later.
    fn keep(&mut self, buffer: VecDeque<T>) {
        // Values without a size need no memory, and capacity for none is not worth keeping.
        if size_of::<T>() == 0 || buffer.capacity() == 0 {
            return;
        }
        let class = class(buffer.capacity());
        if self.by_size.len() <= class {
            self.by_size.resize_with(class + 1, Vec::new);
        }
        self.by_size[class].push(buffer);
    }

    /// Keeps the buffer of an empty `ItemBuf`.
    pub(super) fn recycle(&mut self, line: ItemBuf<T>) {
        if let ItemBuf::Many(buffer) = line {
            self.keep(buffer);
        }
    }
}

/// The logarithm, rounded up.
fn class(size: usize) -> usize {
    size.next_power_of_two().ilog2() as usize
}
