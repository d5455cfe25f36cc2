//! Which items may run side by side: all of them, or one of each key.

use core::hash::{BuildHasher, Hash};

use crate::base::panic::{drop_each, quietly};
use crate::base::slab::Slab;
use crate::base::sync::HashBuilder;
use crate::base::table::SlotTable;

pub trait Order<I> {
    /// Whether everything may start at once.
    const ALL_UNORDERED: bool = false;

    /// Whether the item that has taken `slot` may start. If it may not, the order remembers its
    /// slot and will name it.
    ///
    /// Runs user code, whose panic leaves the order as it was, without the item.
    fn admit(&mut self, slot: usize, item: &I) -> bool;

    /// The item at `slot`, admitted earlier, has settled: which held one may start now?
    fn release(&mut self, slot: usize) -> Option<usize>;

    #[cfg(debug_assertions)]
    fn validate(&self) {}
}

/// Which items may run side by side.
pub trait Keys<I> {
    /// Keeps the order during a run.
    type Order: Order<I>;

    /// For a new run.
    fn order(&self) -> Self::Order;

    /// A number that is the same for items of the same key; `None` if all run side by side.
    ///
    /// Runs the caller's code.
    fn route<H: BuildHasher>(&self, hasher: &H, item: &I) -> Option<u64>;
}

/// Every item beside every other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unordered;

impl<I> Order<I> for Unordered {
    const ALL_UNORDERED: bool = true;

    fn admit(&mut self, _: usize, _: &I) -> bool {
        true
    }

    fn release(&mut self, _: usize) -> Option<usize> {
        None
    }
}

impl<I> Keys<I> for Unordered {
    type Order = Self;

    fn order(&self) -> Self {
        Self
    }

    fn route<H: BuildHasher>(&self, _: &H, _: &I) -> Option<u64> {
        None
    }
}

/// Items of one key one at a time and in order; the key is a function of the item.
#[derive(Clone)]
pub struct ByKey<F>(pub(super) F);

impl<I, K, F> Keys<I> for ByKey<F>
where
    K: Hash + Eq,
    F: Fn(&I) -> K + Clone,
{
    type Order = KeyOrder<K, F>;

    fn order(&self) -> Self::Order {
        KeyOrder::new(self.0.clone())
    }

    fn route<H: BuildHasher>(&self, hasher: &H, item: &I) -> Option<u64> {
        Some(hasher.hash_one((self.0)(item)))
    }
}

impl<F> core::fmt::Debug for ByKey<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ByKey(..)")
    }
}

/// Items of one key in a queue of their own, in input order.
///
/// A queue ends with its last item, so there are never more queues than items in hand. Keys are
/// hashed, compared and dropped where their panic does no harm; a queue is found again by its
/// number, so that its end needs no user code but the key's destructor.
pub struct KeyOrder<K, F> {
    key: F,
    hasher: HashBuilder,
    table: SlotTable,
    queues: Slab<KeyQueue<K>>,
    /// By the run's slot.
    links: Vec<Link>,
}

struct KeyQueue<K> {
    key: K,
    hash: u64,
    /// The run's slot of the last item in this queue.
    tail: usize,
}

#[derive(Clone, Copy, Default)]
struct Link {
    queue: u32,
    /// The run's slot of the next item in the same queue.
    next: Option<usize>,
}

impl<K, F> core::fmt::Debug for KeyOrder<K, F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("KeyOrder(..)")
    }
}

impl<K, F> KeyOrder<K, F> {
    pub(super) fn new(key: F) -> Self {
        Self {
            key,
            hasher: HashBuilder::default(),
            table: SlotTable::new(),
            queues: Slab::new(),
            links: Vec::new(),
        }
    }

    fn link(&mut self, slot: usize, queue: u32) {
        if self.links.len() <= slot {
            self.links.resize(slot + 1, Link::default());
        }
        self.links[slot] = Link { queue, next: None };
    }
}

impl<I, K, F> Order<I> for KeyOrder<K, F>
where
    K: Hash + Eq,
    F: Fn(&I) -> K,
{
    fn admit(&mut self, slot: usize, item: &I) -> bool {
        let key = (self.key)(item);
        let hash = self.hasher.hash_one(&key);
        let queues = &mut self.queues;
        let is_key = |queue| {
            let queue: &KeyQueue<K> = &queues[queue];
            queue.hash == hash && queue.key == key
        };
        match self.table.find(hash, is_key) {
            Some(queue) => {
                // The last of the user code, and so before the first change.
                drop(key);
                let last = core::mem::replace(&mut queues[queue].tail, slot);
                self.link(slot, queue);
                self.links[last].next = Some(slot);
                false
            }
            None => {
                let queue = queues.insert(KeyQueue { key, hash, tail: slot });
                self.table.insert(hash, queue, |queue| queues[queue].hash);
                self.link(slot, queue);
                true
            }
        }
    }

    fn release(&mut self, slot: usize) -> Option<usize> {
        let Link { queue, next } = self.links[slot];
        if next.is_none() {
            let KeyQueue { key, hash, .. } = self.queues.remove(queue);
            self.table.remove(hash, queue);
            quietly(|| drop(key));
        }
        next
    }

    #[cfg(debug_assertions)]
    fn validate(&self) {
        self.queues.validate();
        self.table
            .validate(self.queues.iter().map(|(queue, KeyQueue { hash, .. })| (queue, *hash)));
    }
}

impl<K, F> Drop for KeyOrder<K, F> {
    fn drop(&mut self) {
        drop_each(self.queues.drain());
    }
}
