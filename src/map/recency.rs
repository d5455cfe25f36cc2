//! Which keys there are, from the least to the most recently used.

use core::num::NonZeroUsize;

use lru::LruCache;

use super::handle::{Handle, Lookup, Prehashed, Probe};

/// The keys' handles in order of use, at most `max_keys` of them.
///
/// Of `lru` only calls are used by which whatever leaves is handed back; and what they hold is
/// handles, so that no user's value could be dropped inside it.
pub(super) struct Recency(LruCache<Handle, u32, Prehashed>);

impl Recency {
    pub(super) fn new(max_keys: usize) -> Self {
        // Built empty and then bounded, because building it bounded would reserve memory for
        // `max_keys` at once.
        let mut order = LruCache::unbounded_with_hasher(Prehashed::default());
        order.resize(NonZeroUsize::new(max_keys).unwrap_or(NonZeroUsize::MIN));
        Self(order)
    }

    /// The slot of the key with this hash of which `same` is true; does not promote.
    pub(super) fn find(&self, hash: u64, same: impl Fn(u32) -> bool) -> Option<u32> {
        let lookup: &dyn Probe = &Lookup { hash, same };
        self.0.peek(lookup).copied()
    }

    pub(super) fn promote(&mut self, handle: Handle) {
        self.0.promote(&handle);
    }

    /// Adds a new key as the most recently used; what it pushes out for want of room comes back.
    pub(super) fn insert(&mut self, handle: Handle) -> Option<u32> {
        self.0.push(handle, handle.slot).map(|(evicted, _)| evicted.slot)
    }

    pub(super) fn remove(&mut self, handle: Handle) {
        self.0.pop(&handle);
    }

    pub(super) fn least_recent(&self) -> Option<u32> {
        self.0.peek_lru().map(|(handle, _)| handle.slot)
    }

    /// From the most to the least recently used.
    pub(super) fn iter(&self) -> lru::Iter<'_, Handle, u32> {
        self.0.iter()
    }
}

impl core::fmt::Debug for Recency {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter().map(|(handle, _)| handle.slot)).finish()
    }
}
