//! One key: what a send to it touches, in one cache line where the key is small, and the rest.

use core::borrow::Borrow;
use std::sync::Arc;
use std::time::Instant;

use super::list::{Linked, Links};
use crate::base::slab::NONE;
use crate::batcher::barrier::Barriers;
use crate::batcher::report::{ClosedBy, FlushReport};
use crate::semaphore::line::Line;

/// A key, and the open batch under it: open exactly while it holds items.
///
/// A send with ten thousand keys is the price of the memory that it touches. So all that one to an
/// open batch looks at is here, aligned to the line of a cache, and the key itself too.
#[repr(align(64))]
pub(super) struct Open<K, T> {
    pub(super) key: Key<K>,
    pub(super) items: Vec<T>,
    pub(super) weight: u64,
    /// The number of the last use.
    pub(super) used: u64,
}

impl<K, T> Open<K, T> {
    pub(super) fn new(key: K) -> Self {
        Self { key: Key::Own(key), items: Vec::new(), weight: 0, used: 0 }
    }

    #[inline]
    pub(super) fn is_open(&self) -> bool {
        !self.items.is_empty()
    }
}

/// The key of a lane: its own until a batch needs it too, so that who looks for a key need not go
/// through a pointer.
pub(super) enum Key<K> {
    Own(K),
    Shared(Arc<K>),
    /// The lane is gone.
    Gone,
}

impl<K> Key<K> {
    #[inline]
    pub(super) fn is<Q>(&self, other: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        match self {
            Self::Own(key) => key.borrow() == other,
            Self::Shared(key) => (**key).borrow() == other,
            Self::Gone => false,
        }
    }

    /// The key, to be shared with a batch.
    pub(super) fn share(&mut self) -> Arc<K> {
        let key = self.take();
        *self = Self::Shared(Arc::clone(&key));
        key
    }

    /// The key of a lane that goes.
    pub(super) fn take(&mut self) -> Arc<K> {
        match core::mem::replace(self, Self::Gone) {
            Self::Own(key) => Arc::new(key),
            Self::Shared(key) => key,
            Self::Gone => unreachable!("a lane goes once"),
        }
    }
}

/// The batches of one flush of one key.
#[derive(Debug, Default)]
pub(super) struct KeyFlushes {
    pub(super) barriers: Barriers,
    /// How the items that finished since the first of these flushes ended.
    pub(super) ended: FlushReport,
    /// How many wait for one.
    pub(super) waiting: usize,
}

/// What else there is to know of a key.
pub(super) struct Lane {
    pub(super) hash: u64,
    /// When the open batch was opened; without meaning where there is none.
    pub(super) opened_at: Option<Instant>,
    /// The number of the use that opened it.
    pub(super) first_use: u64,
    /// Whether one of its batches is to be handed over next: until it is, no other has its turn.
    pub(super) ahead: bool,
    /// Why the open batch may be handed over, though it goes on filling until it is.
    pub(super) ripe: Option<ClosedBy>,
    /// The closed batches, from the first to the last.
    pub(super) first: u32,
    pub(super) last: u32,
    links: [Links; 3],
    /// Unfinished items in closed batches, wherever these are.
    pub(super) closed_items: usize,
    /// Room that was granted or reserved and not used yet.
    pub(super) reserved: usize,
    /// Batches that are with the handler or wait for their retry.
    pub(super) running: usize,
    /// Those who wait for room in this lane.
    pub(super) line: Option<Box<Line>>,
    pub(super) flushes: Option<Box<KeyFlushes>>,
}

impl Linked<3> for Lane {
    #[inline]
    fn links(&mut self) -> &mut [Links; 3] {
        &mut self.links
    }
}

impl Lane {
    pub(super) fn new(hash: u64) -> Self {
        Self {
            hash,
            opened_at: None,
            first_use: 0,
            ahead: false,
            ripe: None,
            first: NONE,
            last: NONE,
            links: [Links::OUTSIDE; 3],
            closed_items: 0,
            reserved: 0,
            running: 0,
            line: None,
            flushes: None,
        }
    }

    /// Whether nothing is left of it but an open batch, if there is one.
    pub(super) fn is_unused(&self) -> bool {
        self.closed_items == 0
            && self.reserved == 0
            && self.nobody_waits()
            && self.flushes.is_none()
    }

    pub(super) fn nobody_waits(&self) -> bool {
        self.line.as_ref().is_none_or(|line| line.waiting() == 0)
    }

    pub(super) fn has_closed(&self) -> bool {
        self.first != NONE
    }
}
