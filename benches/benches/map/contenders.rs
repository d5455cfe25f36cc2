//! Who competes: each pushes one item under a key, handing back what goes if it can.

use std::collections::VecDeque;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use lru::LruCache;
use schnellru::{ByLength, LruMap};
use sluicegate::{BoundedArrayMap, ShardedBoundedArrayMap, SharedBoundedArrayMap};

pub(crate) trait Map {
    fn new(keys: usize, items: usize) -> Self;
    fn push(&mut self, key: u64, item: u64);
    fn take(&mut self, key: u64);
}

pub(crate) trait Shared: Sync {
    fn new(keys: usize, items: usize) -> Self;
    fn push(&self, key: u64, item: u64);
    fn take(&self, key: u64);
}

pub(crate) struct Ours(BoundedArrayMap<u64, u64>);

impl Map for Ours {
    fn new(keys: usize, items: usize) -> Self {
        Self(BoundedArrayMap::new(keys, items).expect("the limits are good"))
    }

    fn push(&mut self, key: u64, item: u64) {
        black_box(&self.0.push(key, item));
    }

    fn take(&mut self, key: u64) {
        black_box(self.0.take(&key)).for_each(drop);
    }
}

pub(crate) struct OursShared(SharedBoundedArrayMap<u64, u64>);

impl Shared for OursShared {
    fn new(keys: usize, items: usize) -> Self {
        Self(SharedBoundedArrayMap::new(keys, items).expect("the limits are good"))
    }

    fn push(&self, key: u64, item: u64) {
        black_box(&self.0.push(key, item));
    }

    fn take(&self, key: u64) {
        black_box(self.0.take(&key)).for_each(drop);
    }
}

pub(crate) struct OursSharded(ShardedBoundedArrayMap<u64, u64>);

impl Shared for OursSharded {
    fn new(keys: usize, items: usize) -> Self {
        let builder = BoundedArrayMap::builder().max_keys(keys).max_items_per_key(items);
        Self(builder.build_sharded(16).expect("the limits are good"))
    }

    fn push(&self, key: u64, item: u64) {
        black_box(&self.0.push(key, item));
    }

    fn take(&self, key: u64) {
        black_box(self.0.take(&key)).for_each(drop);
    }
}

/// Puts an item last, and hands back the first if there are too many.
fn push_bounded(array: &mut VecDeque<u64>, most: usize, item: u64) -> Option<u64> {
    let displaced = if array.len() >= most { array.pop_front() } else { None };
    array.push_back(item);
    displaced
}

pub(crate) struct Lru {
    cache: LruCache<u64, VecDeque<u64>>,
    items: usize,
}

impl Map for Lru {
    fn new(keys: usize, items: usize) -> Self {
        Self { cache: LruCache::new(NonZeroUsize::new(keys).expect("some keys")), items }
    }

    fn push(&mut self, key: u64, item: u64) {
        if let Some(array) = self.cache.get_mut(&key) {
            black_box(&push_bounded(array, self.items, item));
        } else {
            black_box(&self.cache.push(key, VecDeque::from_iter([item])));
        }
    }

    fn take(&mut self, key: u64) {
        black_box(self.cache.pop(&key)).into_iter().flatten().for_each(drop);
    }
}

pub(crate) struct Schnellru {
    cache: LruMap<u64, VecDeque<u64>, ByLength>,
    keys: usize,
    items: usize,
}

impl Map for Schnellru {
    fn new(keys: usize, items: usize) -> Self {
        Self { cache: LruMap::new(ByLength::new(keys as u32)), keys, items }
    }

    fn push(&mut self, key: u64, item: u64) {
        if let Some(array) = self.cache.get(&key) {
            black_box(&push_bounded(array, self.items, item));
            return;
        }
        if self.cache.len() >= self.keys {
            black_box(&self.cache.pop_oldest());
        }
        self.cache.insert(key, VecDeque::from_iter([item]));
    }

    fn take(&mut self, key: u64) {
        black_box(self.cache.remove(&key)).into_iter().flatten().for_each(drop);
    }
}

/// One of the maps without a lock behind one.
pub(crate) struct Locked<M>(parking_lot::Mutex<M>);

impl<M: Map + Send> Shared for Locked<M> {
    fn new(keys: usize, items: usize) -> Self {
        Self(parking_lot::Mutex::new(M::new(keys, items)))
    }

    fn push(&self, key: u64, item: u64) {
        self.0.lock().push(key, item);
    }

    fn take(&self, key: u64) {
        self.0.lock().take(key);
    }
}

pub(crate) type LruShared = Locked<Lru>;
pub(crate) type SchnellruShared = Locked<Schnellru>;

type Array = Arc<Mutex<VecDeque<u64>>>;

fn push_locked(array: &Array, most: usize, item: u64) {
    black_box(push_bounded(&mut array.lock().expect("nobody panics"), most, item));
}

pub(crate) struct QuickShared {
    cache: quick_cache::sync::Cache<u64, Array>,
    items: usize,
}

impl Shared for QuickShared {
    fn new(keys: usize, items: usize) -> Self {
        Self { cache: quick_cache::sync::Cache::new(keys), items }
    }

    fn push(&self, key: u64, item: u64) {
        let array = self.cache.get_or_insert_with(&key, || Ok::<_, ()>(Array::default()));
        push_locked(&array.expect("it cannot fail"), self.items, item);
    }

    fn take(&self, key: u64) {
        black_box(self.cache.remove(&key));
    }
}

pub(crate) struct MokaShared {
    cache: moka::sync::Cache<u64, Array>,
    items: usize,
}

impl Shared for MokaShared {
    fn new(keys: usize, items: usize) -> Self {
        Self { cache: moka::sync::Cache::new(keys as u64), items }
    }

    fn push(&self, key: u64, item: u64) {
        push_locked(&self.cache.get_with(key, Array::default), self.items, item);
    }

    fn take(&self, key: u64) {
        black_box(self.cache.remove(&key));
    }
}
