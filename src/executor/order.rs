//! Which items may run side by side: all of them, or one of each key.

use core::hash::{BuildHasher, Hash};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;

use crate::base::panic::{drop_each, quietly};

pub trait Order<I> {
    /// Whether everything may start at once.
    const ALL_SIDE_BY_SIDE: bool = false;

    /// Whether the item that has taken `place` may start. If it may not, the order remembers its
    /// place and will name it.
    ///
    /// Runs user code, whose panic leaves the order as it was, without the item.
    fn admit(&mut self, place: usize, item: &I) -> bool;

    /// The item at `place`, admitted earlier, has settled: which held one may start now?
    fn release(&mut self, place: usize) -> Option<usize>;
}

/// Which items may run side by side; implemented by what [`BatchExecutor`](super::BatchExecutor)
/// puts in place of its first parameter.
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
pub struct SideBySide;

impl<I> Order<I> for SideBySide {
    const ALL_SIDE_BY_SIDE: bool = true;

    fn admit(&mut self, _: usize, _: &I) -> bool {
        true
    }

    fn release(&mut self, _: usize) -> Option<usize> {
        None
    }
}

impl<I> Keys<I> for SideBySide {
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
    type Order = Lanes<K, F>;

    fn order(&self) -> Self::Order {
        Lanes::new(self.0.clone())
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

/// Items of one key in a lane of their own, one behind the other.
///
/// There are never more lanes than items in hand: a lane closes with its last item. Keys are
/// hashed, compared and dropped at points where their panic does no harm; lanes are found again by
/// number, so that closing one needs none of the user's code.
pub struct Lanes<K, F> {
    key: F,
    hasher: RandomState,
    /// The first of the lanes whose keys have this hash.
    first: HashMap<u64, usize>,
    lanes: Vec<Lane<K>>,
    closed: Vec<usize>,
    /// By place.
    seats: Vec<Seat>,
}

struct Lane<K> {
    /// `None` in a closed lane.
    key: Option<K>,
    hash: u64,
    /// The next lane whose key has the same hash.
    next: Option<usize>,
    /// The place of the last item in this lane.
    tail: usize,
}

#[derive(Clone, Copy, Default)]
struct Seat {
    lane: usize,
    /// The place of the next item in the same lane.
    behind: Option<usize>,
}

impl<K, F> core::fmt::Debug for Lanes<K, F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Lanes(..)")
    }
}

impl<K, F> Lanes<K, F> {
    pub(super) fn new(key: F) -> Self {
        Self {
            key,
            hasher: RandomState::new(),
            first: HashMap::new(),
            lanes: Vec::new(),
            closed: Vec::new(),
            seats: Vec::new(),
        }
    }

    fn seat(&mut self, place: usize, lane: usize) {
        if self.seats.len() <= place {
            self.seats.resize(place + 1, Seat::default());
        }
        self.seats[place] = Seat { lane, behind: None };
    }

    fn open(&mut self, key: K, hash: u64, place: usize) -> usize {
        let key = Some(key);
        let opened = Lane { key, hash, next: self.first.get(&hash).copied(), tail: place };
        let lane = match self.closed.pop() {
            Some(lane) => {
                self.lanes[lane] = opened;
                lane
            }
            None => {
                self.lanes.push(opened);
                self.lanes.len() - 1
            }
        };
        self.first.insert(hash, lane);
        lane
    }

    fn close(&mut self, lane: usize) {
        let Lane { hash, next, .. } = self.lanes[lane];
        if self.first[&hash] == lane {
            match next {
                Some(next) => self.first.insert(hash, next),
                None => self.first.remove(&hash),
            };
        } else {
            let mut before = self.first[&hash];
            while self.lanes[before].next != Some(lane) {
                before = self.lanes[before].next.expect("an open lane is on its hash's chain");
            }
            self.lanes[before].next = next;
        }
        let key = self.lanes[lane].key.take();
        self.closed.push(lane);
        quietly(|| drop(key));
    }
}

impl<I, K, F> Order<I> for Lanes<K, F>
where
    K: Hash + Eq,
    F: Fn(&I) -> K,
{
    fn admit(&mut self, place: usize, item: &I) -> bool {
        let key = (self.key)(item);
        let hash = self.hasher.hash_one(&key);
        let mut lane = self.first.get(&hash).copied();
        while let Some(number) = lane {
            if self.lanes[number].key.as_ref() == Some(&key) {
                break;
            }
            lane = self.lanes[number].next;
        }
        match lane {
            Some(lane) => {
                // The last of the user's code, and so before the first change.
                drop(key);
                let ahead = core::mem::replace(&mut self.lanes[lane].tail, place);
                self.seat(place, lane);
                self.seats[ahead].behind = Some(place);
                false
            }
            None => {
                let lane = self.open(key, hash, place);
                self.seat(place, lane);
                true
            }
        }
    }

    fn release(&mut self, place: usize) -> Option<usize> {
        let Seat { lane, behind } = self.seats[place];
        if behind.is_none() {
            self.close(lane);
        }
        behind
    }
}

impl<K, F> Drop for Lanes<K, F> {
    fn drop(&mut self) {
        drop_each(self.lanes.drain(..));
    }
}
