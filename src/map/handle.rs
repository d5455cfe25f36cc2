//! What the hash tables hold: not keys and ids themselves but [`Handle`]s to them.
//!
//! A table of handles rehashes, inserts and removes without calling `Hash` or `Eq` of a user's
//! type. Those are called by look-ups alone, which change nothing: so a panic in them leaves
//! everything as it was.

use core::borrow::Borrow;
use core::hash::{BuildHasherDefault, Hash, Hasher};

/// The slot of a key or of an id, and the hash that was computed when it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) hash: u64,
    pub(super) slot: u32,
}

impl Hash for Handle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Either side of a comparison within a table: a handle that it holds, or a look-up.
pub(super) trait Probe {
    fn hash(&self) -> u64;
    /// The handle, unless this is a look-up.
    fn handle(&self) -> Option<Handle>;
    /// Whether a look-up is for what stands behind this handle.
    fn seeks(&self, handle: Handle) -> bool;
}

impl Probe for Handle {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn handle(&self) -> Option<Handle> {
        Some(*self)
    }

    fn seeks(&self, handle: Handle) -> bool {
        *self == handle
    }
}

/// A look-up by a hash and by a comparison with what is in a slot.
pub(super) struct Lookup<F> {
    pub(super) hash: u64,
    pub(super) same: F,
}

impl<F: Fn(u32) -> bool> Probe for Lookup<F> {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn handle(&self) -> Option<Handle> {
        None
    }

    fn seeks(&self, handle: Handle) -> bool {
        self.hash == handle.hash && (self.same)(handle.slot)
    }
}

impl<'a> Borrow<dyn Probe + 'a> for Handle {
    fn borrow(&self) -> &(dyn Probe + 'a) {
        self
    }
}

impl Hash for dyn Probe + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(Probe::hash(self));
    }
}

impl PartialEq for dyn Probe + '_ {
    fn eq(&self, other: &Self) -> bool {
        match (self.handle(), other.handle()) {
            (_, Some(handle)) => self.seeks(handle),
            (Some(handle), None) => other.seeks(handle),
            (None, None) => unreachable!("a table holds no look-ups"),
        }
    }
}

impl Eq for dyn Probe + '_ {}

/// Passes on the hash that a handle brings along.
#[derive(Debug, Default)]
pub(super) struct PassOn(u64);

impl Hasher for PassOn {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a handle writes its hash as one u64");
    }
}

pub(super) type Prehashed = BuildHasherDefault<PassOn>;
