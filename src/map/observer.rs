//! The callback that sees what leaves a map unasked.

use super::core::Core;
use super::items::Items;
use super::items::NoIndex;
use super::outcome::{Expired, Pushed, RejectReason};
use super::resize::Shrunk;
use crate::base::panic::{caught, drop_each, drop_quietly};
use crate::base::sync::{AtomicUsize, Ordering};
use core::fmt;

/// An item or a key that left a map unasked, or was rejected. The observer gets references: the
/// values go to the caller, or are dropped with the map.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a, K, V, Id = NoIndex> {
    /// The oldest item of a full key made room for another.
    Displaced {
        /// Its key.
        key: &'a K,
        /// The item.
        value: &'a V,
        /// Its id, if it was pushed with one.
        id: Option<&'a Id>,
    },
    /// A key made room for another.
    Evicted {
        /// The key.
        key: &'a K,
        /// All its items.
        items: &'a Items<V, Id>,
    },
    /// The map was dropped with this key in it.
    ///
    /// One event per key, from the least to the most recently used, on the thread that drops the
    /// map, also while it unwinds from a panic. What [`clear`](crate::BoundedArrayMap::clear),
    /// `into_inner` or `into_iter` has handed over is no longer in the map.
    Dropped {
        /// The key.
        key: &'a K,
        /// All its items.
        items: &'a Items<V, Id>,
    },
    /// An item expired.
    Expired(&'a Expired<K, V, Id>),
    /// A push was refused.
    Rejected {
        /// Why.
        reason: RejectReason,
        /// The key as handed in.
        key: &'a K,
        /// The item as handed in.
        value: &'a V,
        /// Its id as handed in, if there was one.
        id: Option<&'a Id>,
    },
}

type Observe<K, V, Id> = dyn Fn(Event<'_, K, V, Id>) + Send + Sync;

/// The callback, if there is one, and how often it has panicked.
pub(super) struct Observer<K, V, Id> {
    observe: Option<Box<Observe<K, V, Id>>>,
    panics: AtomicUsize,
}

impl<K, V, Id> Observer<K, V, Id> {
    pub(super) fn none() -> Self {
        Self { observe: None, panics: AtomicUsize::new(0) }
    }

    pub(super) fn new(observe: impl Fn(Event<'_, K, V, Id>) + Send + Sync + 'static) -> Self {
        Self { observe: Some(Box::new(observe)), panics: AtomicUsize::new(0) }
    }

    pub(super) fn is_set(&self) -> bool {
        self.observe.is_some()
    }

    pub(super) fn panics(&self) -> usize {
        // Only read as a figure; it orders nothing.
        self.panics.load(Ordering::Relaxed)
    }

    /// Must not be called under a lock. Catches a panic, with which the values on their way to the
    /// caller would be lost.
    fn report(&self, event: Event<'_, K, V, Id>) {
        if let Some(observe) = &self.observe {
            if let Err(panic) = caught(|| observe(event)) {
                self.panics.fetch_add(1, Ordering::Relaxed);
                drop_quietly(panic);
            }
        }
    }

    /// `pushed_to` is the key of a push that went to a resident one.
    pub(super) fn report_pushed(&self, pushed: &Pushed<K, V, Id>, pushed_to: Option<&K>) {
        match (pushed, pushed_to) {
            (Pushed::Displaced { value, id }, Some(key)) => {
                self.report(Event::Displaced { key, value, id: id.as_ref() });
            }
            (Pushed::Evicted { key, items }, _) => self.report(Event::Evicted { key, items }),
            (Pushed::Rejected { reason, key, value, id }, _) => {
                self.report(Event::Rejected { reason: *reason, key, value, id: id.as_ref() });
            }
            (Pushed::Several(several), _) => {
                for (value, id) in &several.displaced {
                    if let Some(key) = pushed_to {
                        self.report(Event::Displaced { key, value, id: id.as_ref() });
                    }
                }
                for (key, items) in &several.evicted {
                    self.report(Event::Evicted { key, items });
                }
            }
            (Pushed::Stored | Pushed::Displaced { .. }, _) => {}
        }
    }

    /// Reports everything in a map that is dropped, and drops it. Catches panics in destructors, so
    /// that all of it is reported.
    pub(super) fn report_dropped(&self, core: Core<K, V, Id>) {
        for (key, items) in core.into_entries() {
            self.report(Event::Dropped { key: &key, items: &items });
            drop_quietly(key);
            drop_each(items.with_ids());
        }
    }

    pub(super) fn report_expired(&self, expired: &[Expired<K, V, Id>]) {
        if self.is_set() {
            expired.iter().for_each(|expired| self.report(Event::Expired(expired)));
        }
    }

    pub(super) fn report_shrunk(&self, shrunk: &Shrunk<K, V, Id>) {
        for (key, items) in &shrunk.evicted {
            self.report(Event::Evicted { key, items });
        }
        for (key, items) in &shrunk.displaced {
            for (value, id) in items.iter_with_ids() {
                self.report(Event::Displaced { key, value, id });
            }
        }
    }
}

impl<K, V, Id> fmt::Debug for Observer<K, V, Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").field("is_set", &self.observe.is_some()).finish()
    }
}
