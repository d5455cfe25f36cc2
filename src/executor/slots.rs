//! The slots of a run: where an input is from being pulled until it settles.
//!
//! ```text
//!           waits for its key or for permits           starts
//!   vacant ──────────────────────────────────▶ held ───────────▶ started ◀──▶ backing off
//!     ▲ │                                        │                 │ ▲  failed    │
//!     │ └────────────────────────────────────────┼─────────────────┼─┘            │
//!     │                  pending when first polled                 │              │
//!     └──────────────────────────────────────────┴─────────────────┴──────────────┘
//!                              settled, cancelled
//! ```
//!
//! An item that is ready when it is first polled uses a vacant slot for that poll, and leaves it
//! vacant.
//!
//! A slot keeps its box and its waker when it is vacated, so that an item costs no allocation.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::task::Waker;

use crate::base::panic::quietly;
use crate::base::slab::Slab;

enum State<I> {
    /// Pulled; others go first.
    Held(I),
    Started,
    /// Started, failed, and to be tried again: there is no future.
    BackingOff,
}

struct Item<I> {
    /// The position of its input.
    index: usize,
    state: State<I>,
}

/// What a slot keeps from one item to the next.
struct Kept<Fut> {
    future: Pin<Box<Option<Fut>>>,
    waker: Waker,
}

/// What became of an item that was not done.
pub(super) enum Cancelled<I> {
    Started,
    NotStarted(I),
}

/// As many slots as were ever needed at once, made one by one and used again.
pub(super) struct Slots<I, Fut> {
    items: Slab<Item<I>>,
    /// By slot, vacant ones included.
    kept: Vec<Kept<Fut>>,
    held: usize,
    backing_off: usize,
}

impl<I, Fut> Slots<I, Fut> {
    pub(super) fn new() -> Self {
        Self { items: Slab::new(), kept: Vec::new(), held: 0, backing_off: 0 }
    }

    /// How many slots there are, vacant ones included.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    #[inline]
    pub(super) fn occupied(&self) -> usize {
        self.items.len()
    }

    /// How many back off between two attempts.
    #[inline]
    pub(super) fn backing_off(&self) -> usize {
        self.backing_off
    }

    /// How many have started and do not back off.
    pub(super) fn running(&self) -> usize {
        self.occupied() - self.held - self.backing_off
    }

    /// The slot of the next item, if it was made already.
    #[inline]
    pub(super) fn next_vacant(&self) -> Option<usize> {
        let next = self.items.next_slot() as usize;
        (next < self.kept.len()).then_some(next)
    }

    /// Makes one more slot, when none is vacant: it is the next.
    #[cold]
    pub(super) fn add(&mut self, waker: Waker) -> usize {
        self.kept.push(Kept { future: Box::pin(None), waker });
        self.kept.len() - 1
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
        let next = self.items.insert(Item { index, state });
        debug_assert_eq!(next as usize, slot);
    }

    #[inline]
    fn state(&self, slot: usize) -> Option<&State<I>> {
        self.items.get(slot as u32).map(|item| &item.state)
    }

    /// The input that is held in this slot.
    pub(super) fn held(&self, slot: usize) -> Option<&I> {
        match self.state(slot) {
            Some(State::Held(input)) => Some(input),
            _ => None,
        }
    }

    /// Takes the input that is held in this slot; from now on it has started.
    pub(super) fn begin(&mut self, slot: usize) -> Option<I> {
        let state = &mut self.items.get_mut(slot as u32)?.state;
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

    /// The position of the input of the item in this slot.
    ///
    /// # Panics
    ///
    /// If the slot is vacant.
    #[inline]
    pub(super) fn index(&self, slot: usize) -> usize {
        self.items[slot as u32].index
    }

    #[inline]
    pub(super) fn has_started(&self, slot: usize) -> bool {
        matches!(self.state(slot), Some(State::Started))
    }

    #[inline]
    pub(super) fn is_backing_off(&self, slot: usize) -> bool {
        matches!(self.state(slot), Some(State::BackingOff))
    }

    /// The item in this slot backs off from now on.
    pub(super) fn back_off(&mut self, slot: usize) {
        self.items[slot as u32].state = State::BackingOff;
        self.backing_off += 1;
    }

    /// The item in this slot starts again.
    pub(super) fn resume(&mut self, slot: usize) {
        self.items[slot as u32].state = State::Started;
        self.backing_off -= 1;
    }

    /// Whether this slot still has the item with this index, and it has started.
    pub(super) fn runs(&self, slot: usize, index: usize) -> bool {
        let item = self.items.get(slot as u32);
        item.is_some_and(|item| item.index == index && !matches!(item.state, State::Held(_)))
    }

    /// Makes the slot of a settled item vacant.
    #[inline]
    pub(super) fn vacate(&mut self, slot: usize) {
        self.items.remove(slot as u32);
    }

    /// Drops the future in this slot.
    #[inline]
    pub(super) fn clear(&mut self, slot: usize) {
        self.kept[slot].future.set(None);
    }

    /// Ends an item that is not done, and drops its future, with its index; nothing if the slot is
    /// vacant. It counts as started until the slot is vacated.
    pub(super) fn cancel(&mut self, slot: usize) -> Option<(usize, Cancelled<I>)> {
        let item = self.items.get_mut(slot as u32)?;
        let cancelled = match core::mem::replace(&mut item.state, State::Started) {
            State::Held(input) => {
                self.held -= 1;
                Cancelled::NotStarted(input)
            }
            State::BackingOff => {
                self.backing_off -= 1;
                Cancelled::Started
            }
            State::Started => {
                quietly(|| self.kept[slot].future.set(None));
                Cancelled::Started
            }
        };
        Some((item.index, cancelled))
    }

    /// Panics unless the counts are those of the states.
    #[cfg(debug_assertions)]
    pub(super) fn validate(&self) {
        self.items.validate();
        let count = |is: fn(&State<I>) -> bool| {
            self.items.iter().filter(|(_, item)| is(&item.state)).count()
        };
        assert_eq!(count(|state| matches!(state, State::Held(_))), self.held, "held");
        let backing_off = count(|state| matches!(state, State::BackingOff));
        assert_eq!(backing_off, self.backing_off, "backing off");
        assert!(self.items.slots() <= self.kept.len(), "slots without a box");
    }
}

impl<I, Fut: Future> Slots<I, Fut> {
    /// The future's part of this slot.
    #[inline]
    pub(super) fn future(&mut self, slot: usize) -> SlotFuture<'_, Fut> {
        let Kept { future, waker } = &mut self.kept[slot];
        SlotFuture { future: future.as_mut(), waker }
    }

    /// The same, with the index of the item, if one has started in this slot and has not settled.
    #[inline]
    pub(super) fn started(&mut self, slot: usize) -> Option<(usize, SlotFuture<'_, Fut>)> {
        let item = self.items.get(slot as u32)?;
        if !matches!(item.state, State::Started) {
            return None;
        }
        let index = item.index;
        Some((index, self.future(slot)))
    }
}

/// Where a future is while it runs.
pub(super) struct SlotFuture<'a, Fut> {
    future: Pin<&'a mut Option<Fut>>,
    waker: &'a Waker,
}

impl<Fut: Future> SlotFuture<'_, Fut> {
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
        for slot in 0..self.len() {
            if let Some((_, Cancelled::NotStarted(input))) = self.cancel(slot) {
                quietly(|| drop(input));
            }
        }
    }
}
