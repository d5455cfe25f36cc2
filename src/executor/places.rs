//! The places of a run: where an input is from being pulled until it settles.
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
//! What is ready when it is first polled uses a vacant place for that poll, and leaves it vacant.
//!
//! A place keeps its box and its waker when it is vacated, so that an item costs no allocation.

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
    Resting,
}

struct Place<I, Fut> {
    /// The position of its input.
    index: usize,
    state: State<I>,
    future: Pin<Box<Option<Fut>>>,
    waker: Waker,
}

/// What became of an item that was not done.
pub(super) enum Unfinished<I> {
    Started,
    NotStarted(I),
}

/// As many places as were ever needed at once, made one by one and used again. A place is named by
/// its number.
pub(super) struct Places<I, Fut> {
    places: Vec<Place<I, Fut>>,
    vacant: Vec<usize>,
    held: usize,
    resting: usize,
}

impl<I, Fut> Places<I, Fut> {
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), vacant: Vec::new(), held: 0, resting: 0 }
    }

    /// How many places there are, vacant ones included.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    #[inline]
    pub(super) fn occupied(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    /// How many rest between two attempts.
    #[inline]
    pub(super) fn resting(&self) -> usize {
        self.resting
    }

    /// How many have started and do not rest.
    pub(super) fn running(&self) -> usize {
        self.occupied() - self.held - self.resting
    }

    /// The place that the next item will have, if one was made already.
    #[inline]
    pub(super) fn next_vacant(&self) -> Option<usize> {
        self.vacant.last().copied()
    }

    /// Makes one more place, which is the next.
    #[cold]
    pub(super) fn add(&mut self, waker: Waker) -> usize {
        let place = self.places.len();
        let future = Box::pin(None);
        self.places.push(Place { index: 0, state: State::Vacant, future, waker });
        self.vacant.push(place);
        place
    }

    /// Puts an input into the next vacant place, to be started later.
    pub(super) fn hold(&mut self, place: usize, index: usize, input: I) {
        self.occupy(place, index, State::Held(input));
        self.held += 1;
    }

    /// The next vacant place belongs to an item that has been started in it.
    #[inline]
    pub(super) fn keep(&mut self, place: usize, index: usize) {
        self.occupy(place, index, State::Started);
    }

    #[inline]
    fn occupy(&mut self, place: usize, index: usize, state: State<I>) {
        let next = self.vacant.pop();
        debug_assert_eq!(next, Some(place));
        let place = &mut self.places[place];
        place.index = index;
        place.state = state;
    }

    /// The input that is held at this place.
    pub(super) fn held(&self, place: usize) -> Option<&I> {
        match &self.places[place].state {
            State::Held(input) => Some(input),
            _ => None,
        }
    }

    /// Takes the input that is held at this place; from now on it has started.
    pub(super) fn begin(&mut self, place: usize) -> Option<I> {
        let state = &mut self.places[place].state;
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

    pub(super) fn index(&self, place: usize) -> usize {
        self.places[place].index
    }

    #[inline]
    pub(super) fn has_started(&self, place: usize) -> bool {
        matches!(self.places[place].state, State::Started)
    }

    #[inline]
    pub(super) fn is_resting(&self, place: usize) -> bool {
        matches!(self.places[place].state, State::Resting)
    }

    /// The item at this place rests from now on.
    pub(super) fn rest(&mut self, place: usize) {
        self.places[place].state = State::Resting;
        self.resting += 1;
    }

    /// The item at this place rests no longer.
    pub(super) fn resume(&mut self, place: usize) {
        self.places[place].state = State::Started;
        self.resting -= 1;
    }

    /// Whether this place still has the item with this index, and it has started.
    pub(super) fn runs(&self, place: usize, index: usize) -> bool {
        self.places[place].index == index && (self.has_started(place) || self.is_resting(place))
    }

    /// Makes the place of a settled item vacant.
    #[inline]
    pub(super) fn vacate(&mut self, place: usize) {
        self.places[place].state = State::Vacant;
        self.vacant.push(place);
    }

    /// Drops the future at this place.
    #[inline]
    pub(super) fn clear(&mut self, place: usize) {
        self.places[place].future.set(None);
    }

    /// Ends an item that is not done, and drops its future; nothing if the place is vacant.
    pub(super) fn cancel(&mut self, place: usize) -> Option<Unfinished<I>> {
        let place = &mut self.places[place];
        match core::mem::replace(&mut place.state, State::Started) {
            State::Vacant => {
                place.state = State::Vacant;
                None
            }
            State::Held(input) => {
                self.held -= 1;
                Some(Unfinished::NotStarted(input))
            }
            State::Resting => {
                self.resting -= 1;
                Some(Unfinished::Started)
            }
            State::Started => {
                quietly(|| place.future.as_mut().set(None));
                Some(Unfinished::Started)
            }
        }
    }
}

impl<I, Fut: Future> Places<I, Fut> {
    /// The future's part of this place.
    #[inline]
    pub(super) fn slot(&mut self, place: usize) -> Slot<'_, Fut> {
        self.places[place].slot()
    }

    /// The same, if its item has started and has not settled.
    #[inline]
    pub(super) fn started(&mut self, place: usize) -> Option<Slot<'_, Fut>> {
        let place = &mut self.places[place];
        matches!(place.state, State::Started).then(|| place.slot())
    }
}

impl<I, Fut> Place<I, Fut> {
    #[inline]
    fn slot(&mut self) -> Slot<'_, Fut> {
        Slot { index: self.index, future: self.future.as_mut(), waker: &self.waker }
    }
}

/// Where a future is while it runs.
pub(super) struct Slot<'a, Fut> {
    index: usize,
    future: Pin<&'a mut Option<Fut>>,
    waker: &'a Waker,
}

impl<Fut: Future> Slot<'_, Fut> {
    /// The position of the input of the item that has this place, if one has.
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
impl<I, Fut> Drop for Places<I, Fut> {
    fn drop(&mut self) {
        for place in 0..self.places.len() {
            if let Some(Unfinished::NotStarted(input)) = self.cancel(place) {
                quietly(|| drop(input));
            }
        }
    }
}
