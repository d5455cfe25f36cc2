//! Which items may run side by side: all of them, or one of each key.

use core::hash::{BuildHasher, Hash};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;

use crate::base::panic::{drop_each, quietly};

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
}

/// Which items may run side by side; implemented by what [`BatchExecutor`](super::BatchExecutor)
/// puts in for its first parameter.
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

/// Items of one key in a queue of their own, one behind the other.
///
/// There are never more queues than items in hand: a queue closes with its last item. Keys are
/// hashed, compared and dropped at points where their panic does no harm; queues are found again by
/// number, so that closing one needs none of the user's code.
pub struct KeyOrder<K, F> {
    key: F,
    hasher: RandomState,
    /// The first of the queues whose keys have this hash.
    first: HashMap<u64, usize>,
    queues: Vec<KeyQueue<K>>,
    closed: Vec<usize>,
    /// By slot.
    links: Vec<Link>,
}

struct KeyQueue<K> {
    /// `None` in a closed queue.
    key: Option<K>,
    hash: u64,
    /// The next queue whose key has the same hash.
    next: Option<usize>,
    /// The slot of the last item in this queue.
    tail: usize,
}

#[derive(Clone, Copy, Default)]
struct Link {
    queue: usize,
    /// The slot of the next item in the same queue.
    behind: Option<usize>,
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
            hasher: RandomState::new(),
            first: HashMap::new(),
            queues: Vec::new(),
            closed: Vec::new(),
            links: Vec::new(),
        }
    }

    fn link(&mut self, slot: usize, queue: usize) {
        if self.links.len() <= slot {
            self.links.resize(slot + 1, Link::default());
        }
        self.links[slot] = Link { queue, behind: None };
    }

    fn open(&mut self, key: K, hash: u64, slot: usize) -> usize {
        let key = Some(key);
        let opened = KeyQueue { key, hash, next: self.first.get(&hash).copied(), tail: slot };
        let queue = match self.closed.pop() {
            Some(queue) => {
                self.queues[queue] = opened;
                queue
            }
            None => {
                self.queues.push(opened);
                self.queues.len() - 1
            }
        };
        self.first.insert(hash, queue);
        queue
    }

    fn close(&mut self, queue: usize) {
        let KeyQueue { hash, next, .. } = self.queues[queue];
        if self.first[&hash] == queue {
            match next {
                Some(next) => self.first.insert(hash, next),
                None => self.first.remove(&hash),
            };
        } else {
            let mut before = self.first[&hash];
            while self.queues[before].next != Some(queue) {
                before = self.queues[before].next.expect("an open queue is on its hash's chain");
            }
            self.queues[before].next = next;
        }
        let key = self.queues[queue].key.take();
        self.closed.push(queue);
        quietly(|| drop(key));
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
        let mut queue = self.first.get(&hash).copied();
        while let Some(number) = queue {
            if self.queues[number].key.as_ref() == Some(&key) {
                break;
            }
            queue = self.queues[number].next;
        }
        match queue {
            Some(queue) => {
                // The last of the user's code, and so before the first change.
                drop(key);
                let ahead = core::mem::replace(&mut self.queues[queue].tail, slot);
                self.link(slot, queue);
                self.links[ahead].behind = Some(slot);
                false
            }
            None => {
                let queue = self.open(key, hash, slot);
                self.link(slot, queue);
                true
            }
        }
    }

    fn release(&mut self, slot: usize) -> Option<usize> {
        let Link { queue, behind } = self.links[slot];
        if behind.is_none() {
            self.close(queue);
        }
        behind
    }
}

impl<K, F> Drop for KeyOrder<K, F> {
    fn drop(&mut self) {
        drop_each(self.queues.drain(..));
    }
}
