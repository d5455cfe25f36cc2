//! The guard that a handler is given.

use core::fmt;
use core::mem;
use core::ops::RangeBounds;
use core::slice;
use std::sync::Arc;
use std::vec::Drain;

use super::job::{Handed, ReturnItems};
use super::report::SealedBy;
use crate::base::panic::quietly;

/// The items of one attempt, owned by the handler until it drops them here.
///
/// The handler takes out what it finished: with [`drain`](Self::drain), [`retain`](Self::retain) or
/// [`take`](Self::take). What the guard still holds when it is dropped goes back to the batcher:
/// delivered when the handler returns `Ok`, tried again or failed when it returns an error, panics or
/// [takes too long](super::Builder::retry), [indeterminate](super::ShutdownReport::indeterminate)
/// when it is aborted. So an item needs no `Clone` to be tried twice.
///
/// The guard is `Send + 'static` and can be moved to another thread or task; the attempt ends when
/// both the handler's future and the guard are done. A guard that is never dropped (leaked, or kept
/// somewhere) keeps its items pending for ever.
///
/// ```
/// use sluicegate::batcher::Batch;
///
/// fn write(row: &str) -> Result<(), String> {
///     if row.is_empty() { Err("an empty row".to_owned()) } else { Ok(()) }
/// }
///
/// /// Stops at the first row that fails: it and those behind it are tried again.
/// async fn handler(mut rows: Batch<String>) -> Result<(), String> {
///     while let Some(row) = rows.first() {
///         write(row)?;
///         rows.drain(..1);
///     }
///     Ok(())
/// }
/// ```
///
/// # How it is built
///
/// A vector and the way back: nothing is shared with the batcher while the handler has it.
#[must_use = "dropping a batch at once hands its items straight back"]
pub struct Batch<T> {
    items: Vec<T>,
    handed: usize,
    slot: usize,
    id: u64,
    attempt: u32,
    sealed_by: SealedBy,
    origin: Arc<dyn ReturnItems<T>>,
    on_return: Option<OnReturn<T>>,
}

/// Removes finished items from a batch before the others are returned. It gets the length that the batch
/// had when it was handed over.
type OnReturn<T> = fn(&mut Vec<T>, usize);

impl<T> Batch<T> {
    pub(crate) fn new<G>(handed: Handed<T, G>, origin: Arc<dyn ReturnItems<T>>) -> (Self, G) {
        let Handed { tag, items, slot, id, attempt, sealed_by } = handed;
        let handed = items.len();
        let batch = Self { items, handed, slot, id, attempt, sealed_by, origin, on_return: None };
        (batch, tag)
    }

    /// How many items the guard holds; at most `max_items`.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether everything was taken out.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Which attempt this is: 1 for the first.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The number of the batch, from 0 in the order they were closed. It stays the same when the
    /// batch is tried again.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What closed the batch.
    pub fn sealed_by(&self) -> SealedBy {
        self.sealed_by
    }

    /// The items, in the order they were accepted.
    pub fn as_slice(&self) -> &[T] {
        &self.items
    }

    /// The items, to be changed in place. What they are changed to is what is tried again.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.items
    }

    /// The oldest item.
    pub fn first(&self) -> Option<&T> {
        self.items.first()
    }

    /// The items, in the order they were accepted.
    pub fn iter(&self) -> slice::Iter<'_, T> {
        self.items.iter()
    }

    /// Takes out the items in `range`: they count as delivered, whatever happens afterwards.
    ///
    /// # Panics
    ///
    /// If the range ends beyond [`len`](Self::len) or before it starts.
    pub fn drain(&mut self, range: impl RangeBounds<usize>) -> Drain<'_, T> {
        self.items.drain(range)
    }

    /// Keeps the items for which `unfinished` is true; the others are dropped and count as
    /// delivered.
    pub fn retain(&mut self, unfinished: impl FnMut(&T) -> bool) {
        self.items.retain(unfinished);
    }

    pub(super) fn on_return(&mut self, on_return: OnReturn<T>) {
        self.on_return = Some(on_return);
    }

    pub(crate) fn items_mut(&mut self) -> &mut Vec<T> {
        &mut self.items
    }

    /// Takes out all that is left: it counts as delivered, whatever happens afterwards.
    #[must_use = "the items count as delivered once they are taken out"]
    pub fn take(&mut self) -> Vec<T> {
        mem::take(&mut self.items)
    }
}

impl<T> Drop for Batch<T> {
    fn drop(&mut self) {
        let mut items = mem::take(&mut self.items);
        if let Some(on_return) = self.on_return {
            quietly(|| on_return(&mut items, self.handed));
        }
        self.origin.return_items(self.slot, self.id, items);
    }
}

impl<T> AsRef<[T]> for Batch<T> {
    fn as_ref(&self) -> &[T] {
        &self.items
    }
}

impl<'a, T> IntoIterator for &'a Batch<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl<T> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("id", &self.id)
            .field("len", &self.items.len())
            .field("attempt", &self.attempt)
            .field("sealed_by", &self.sealed_by)
            .finish_non_exhaustive()
    }
}
