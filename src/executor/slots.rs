//! The slots of a run: where an input is from being pulled until it settles.
//!
//! ```text
//!           waits for its key or for permits          its turn
//!   vacant ──────────────────────────────────▶ held ───────────▶ started
//!     ▲ │                                        │                 │ ▲
//!     │ └────────────────────────────────────────┼─────────────────┼─┘ pending when first polled
//!     └──────────────────────────────────────────┴─────────────────┘
//!                              settled, cancelled
//! ```
//!
//! An item that is to be tried again rests in between: it has started, and has no future.
//!
//! What is ready when it is first polled uses a vacant slot for that poll, and leaves it vacant.
//!
//! A slot keeps its box and its waker when it is vacated, so that an item costs no allocation.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::task::Waker;

use crate::base::panic::quietly;

enum State<I> {
    Vacant,
    /// Pulled; others go first.
    Held(I),
    Started,
    /// Started, failed, and to be tried again.
    BackingOff,
}

struct Slot<I, Fut> {
    /// The position of its input.
    index: usize,
    state: State<I>,
    future: Pin<Box<Option<Fut>>>,
    waker: Waker,
}

/// What became of an item that was not done.
pub(super) enum Cancelled<I> {
    Started,
    NotStarted(I),
}

/// As many slots as were ever needed at once, made one by one and used again. A slot is named by
/// its number.
pub(super) struct Slots<I, Fut> {
    slots: Vec<Slot<I, Fut>>,
    vacant: Vec<usize>,
    held: usize,
    backing_off: usize,
}

impl<I, Fut> Slots<I, Fut> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), vacant: Vec::new(), held: 0, backing_off: 0 }
    }

    /// How many slots there are, vacant ones included.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(super) fn occupied(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// How many rest between two attempts.
    #[inline]
    pub(super) fn backing_off(&self) -> usize {
        self.backing_off
    }

    /// How many have started and do not rest.
    pub(super) fn running(&self) -> usize {
        self.occupied() - self.held - self.backing_off
    }

    /// The slot that the next item will have, if one was made already.
    #[inline]
    pub(super) fn next_vacant(&self) -> Option<usize> {
        self.vacant.last().copied()
    }

    /// Makes one more slot, which is the next.
    #[cold]
    pub(super) fn add(&mut self, waker: Waker) -> usize {
        let slot = self.slots.len();
        let future = Box::pin(None);
        self.slots.push(Slot { index: 0, state: State::Vacant, future, waker });
        self.vacant.push(slot);
        slot
    }

    /// Puts an input into the next vacant slot, to be started later.
    pub(super) fn hold(&mut self, slot: usize, index: usize, input: I) {
        self.occupy(slot, index, State::Held(input));
        self.held += 1;
    }

    /// The next vacant slot belongs to an item that has been started in it.
    #[inline]
    pub(super) fn keep(&mut self, slot: usize, index: usize) {
        self.occupy(slot, index, State::Started);
    }

    #[inline]
    fn occupy(&mut self, slot: usize, index: usize, state: State<I>) {
        let next = self.vacant.pop();
        debug_assert_eq!(next, Some(slot));
        let slot = &mut self.slots[slot];
        slot.index = index;
        slot.state = state;
    }

    /// The input that is held in this slot.
    pub(super) fn held(&self, slot: usize) -> Option<&I> {
        match &self.slots[slot].state {
            State::Held(input) => Some(input),
            _ => None,
        }
    }

    /// Takes the input that is held in this slot; from now on it has started.
    pub(super) fn begin(&mut self, slot: usize) -> Option<I> {
        let state = &mut self.slots[slot].state;
        match core::mem::replace(state, State::Started) {
            State::Held(input) => {
                self.held -= 1;
                Some(input)
            }
            other => {
                *state = other;
                None
            }
        }
    }

    pub(super) fn index(&self, slot: usize) -> usize {
        self.slots[slot].index
    }

    #[inline]
    pub(super) fn has_started(&self, slot: usize) -> bool {
        matches!(self.slots[slot].state, State::Started)
    }

    #[inline]
    pub(super) fn is_backing_off(&self, slot: usize) -> bool {
        matches!(self.slots[slot].state, State::BackingOff)
    }

    /// The item in this slot rests from now on.
    pub(super) fn back_off(&mut self, slot: usize) {
        self.slots[slot].state = State::BackingOff;
        self.backing_off += 1;
    }

    /// The item in this slot rests no longer.
    pub(super) fn resume(&mut self, slot: usize) {
        self.slots[slot].state = State::Started;
        self.backing_off -= 1;
    }

    /// Whether this slot still has the item with this index, and it has started.
    pub(super) fn runs(&self, slot: usize, index: usize) -> bool {
        self.slots[slot].index == index && (self.has_started(slot) || self.is_backing_off(slot))
    }

    /// Makes the slot of a settled item vacant.
    #[inline]
    pub(super) fn vacate(&mut self, slot: usize) {
        self.slots[slot].state = State::Vacant;
        self.vacant.push(slot);
    }

    /// Drops the future in this slot.
    #[inline]
    pub(super) fn clear(&mut self, slot: usize) {
        self.slots[slot].future.set(None);
    }

    /// Ends an item that is not done, and drops its future; nothing if the slot is vacant.
    pub(super) fn cancel(&mut self, slot: usize) -> Option<Cancelled<I>> {
        let slot = &mut self.slots[slot];
        match core::mem::replace(&mut slot.state, State::Started) {
            State::Vacant => {
                slot.state = State::Vacant;
                None
            }
            State::Held(input) => {
                self.held -= 1;
                Some(Cancelled::NotStarted(input))
            }
            State::BackingOff => {
                self.backing_off -= 1;
                Some(Cancelled::Started)
            }
            State::Started => {
                quietly(|| slot.future.as_mut().set(None));
                Some(Cancelled::Started)
            }
        }
    }
}

impl<I, Fut: Future> Slots<I, Fut> {
    /// The future's part of this slot.
    #[inline]
    pub(super) fn future(&mut self, slot: usize) -> SlotFuture<'_, Fut> {
        self.slots[slot].future()
    }

    /// The same, if its item has started and has not settled.
    #[inline]
    pub(super) fn started(&mut self, slot: usize) -> Option<SlotFuture<'_, Fut>> {
        let slot = &mut self.slots[slot];
        matches!(slot.state, State::Started).then(|| slot.future())
    }
}

impl<I, Fut> Slot<I, Fut> {
    #[inline]
    fn future(&mut self) -> SlotFuture<'_, Fut> {
        SlotFuture { index: self.index, future: self.future.as_mut(), waker: &self.waker }
    }
}

/// Where a future is while it runs.
pub(super) struct SlotFuture<'a, Fut> {
    index: usize,
    future: Pin<&'a mut Option<Fut>>,
    waker: &'a Waker,
}

impl<Fut: Future> SlotFuture<'_, Fut> {
    /// The position of the input of the item that has this slot, if one has.
    #[inline]
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Puts a future here and polls it.
    #[inline]
    pub(super) fn start(&mut self, start: impl FnOnce() -> Fut) -> Poll<Fut::Output> {
        let future = start();
        self.future.set(Some(future));
        self.poll()
    }

    #[inline]
    pub(super) fn poll(&mut self) -> Poll<Fut::Output> {
        match self.future.as_mut().as_pin_mut() {
            Some(future) => future.poll(&mut Context::from_waker(self.waker)),
            None => Poll::Pending,
        }
    }

    /// Drops the future.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.future.set(None);
    }
}

/// Drops every future and every input in hand once, whatever the destructors of the others do.
impl<I, Fut> Drop for Slots<I, Fut> {
    fn drop(&mut self) {
        for slot in 0..self.slots.len() {
            if let Some(Cancelled::NotStarted(input)) = self.cancel(slot) {
                quietly(|| drop(input));
            }
        }
    }
}
