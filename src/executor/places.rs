//! The places of a run: where an input is from being pulled until it settles.
//!
//! ```text
//!           its key is busy             its key is free
//!   vacant ─────────────────▶ held ───────────────────────▶ due
//!     │                        │                             ▲ │
//!     │   it may start at once │                             │ │ first poll
//!     └────────────────────────┼─────────────────────────────┘ │
//!                              │ cancelled                     ▼
//!   vacant ◀───────────────────┴───────────────────────── started
//!                                 settled, cancelled
//! ```
//!
//! What is due and has not started is cancelled as what is held.
//!
//! A place keeps its box and its waker when it is vacated, so that an item costs no allocation.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;
use std::task::Waker;

use super::wakes::WakeList;
use crate::settled::{Settled, caught, quietly};

enum State<I> {
    Vacant,
    /// Pulled; another item of its key goes first.
    Held(I),
    /// Pulled; starts when it is next polled.
    Due(I),
    Started,
}

struct Place<I, Fut> {
    /// The position of its input.
    index: usize,
    state: State<I>,
    future: Pin<Box<Option<Fut>>>,
    waker: Waker,
}

/// As many places as were ever needed at once, made one by one and used again.
///
/// A place is named by its number; its line on the wake list is that number plus `first_line`.
pub(super) struct Places<I, Fut> {
    places: Vec<Place<I, Fut>>,
    vacant: Vec<usize>,
    wakes: Arc<WakeList>,
    first_line: usize,
}

impl<I, Fut> Places<I, Fut> {
    /// `first_line` lines of the list are in use by others.
    pub(super) fn new(wakes: Arc<WakeList>, first_line: usize) -> Self {
        Self { places: Vec::new(), vacant: Vec::new(), wakes, first_line }
    }

    /// How many places there are, vacant ones included.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn occupied(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    /// The place that the next [`occupy`](Self::occupy) will use.
    pub(super) fn next_vacant(&mut self) -> usize {
        match self.vacant.last() {
            Some(&place) => place,
            None => {
                let (line, waker) = self.wakes.open_line();
                let place = line - self.first_line;
                debug_assert_eq!(place, self.places.len());
                let future = Box::pin(None);
                self.places.push(Place { index: 0, state: State::Vacant, future, waker });
                self.vacant.push(place);
                place
            }
        }
    }

    /// Puts an input into the next vacant place, to start when it is polled, or held.
    pub(super) fn occupy(&mut self, index: usize, input: I, held: bool) {
        let place = self.next_vacant();
        self.vacant.pop();
        let place = &mut self.places[place];
        place.index = index;
        place.state = if held { State::Held(input) } else { State::Due(input) };
    }

    /// Lets a held item start when it is next polled.
    pub(super) fn release(&mut self, place: usize) {
        let state = &mut self.places[place].state;
        *state = match core::mem::replace(state, State::Vacant) {
            State::Held(input) => State::Due(input),
            other => other,
        };
    }

    pub(super) fn has_started(&self, place: usize) -> bool {
        matches!(self.places[place].state, State::Started)
    }

    /// Whether this place is still running the item with this index.
    pub(super) fn runs(&self, place: usize, index: usize) -> bool {
        self.places[place].index == index && self.has_started(place)
    }

    /// Makes the place of a settled item vacant, and tells which item it was.
    pub(super) fn vacate(&mut self, place: usize) -> usize {
        self.places[place].state = State::Vacant;
        self.vacant.push(place);
        self.places[place].index
    }

    /// Ends an item that is not done: its future, or its input if it has not started, is dropped.
    /// Whether it had started; nothing if the place is vacant.
    pub(super) fn cancel(&mut self, place: usize) -> Option<bool> {
        let place = &mut self.places[place];
        let state = core::mem::replace(&mut place.state, State::Started);
        match state {
            State::Vacant => {
                place.state = State::Vacant;
                None
            }
            State::Held(input) | State::Due(input) => {
                quietly(|| drop(input));
                Some(false)
            }
            State::Started => {
                quietly(|| place.future.as_mut().set(None));
                Some(true)
            }
        }
    }
}

/// What polling a place came to.
pub(super) enum Polled<T, E> {
    /// Nothing to do here: a late wake-up found the place vacant or held.
    Idle,
    /// Pending; `first` if it started with this poll.
    Pending { first: Option<usize> },
    /// Settled; its future is gone, the place is not vacated yet.
    Settled(Settled<T, E>),
}

impl<I, Fut, T, E> Places<I, Fut>
where
    Fut: Future<Output = Result<T, E>>,
{
    /// Polls the item at this place, starting it with `start` if it has not started.
    pub(super) fn poll(&mut self, place: usize, start: &mut impl FnMut(I) -> Fut) -> Polled<T, E> {
        let Place { index, state, future, waker } = &mut self.places[place];
        let input = match core::mem::replace(state, State::Started) {
            State::Due(input) => Some(input),
            State::Started => None,
            other => {
                *state = other;
                return Polled::Idle;
            }
        };
        let first = input.is_some().then_some(*index);
        // Outside the closure, so that a future that panics when dropped does not take along
        // what it has already returned.
        let mut output = None;
        let run = caught(|| {
            if let Some(input) = input {
                future.as_mut().set(Some(start(input)));
            }
            if let Some(running) = future.as_mut().as_pin_mut() {
                if let Poll::Ready(result) = running.poll(&mut Context::from_waker(waker)) {
                    output = Some(result);
                    future.as_mut().set(None);
                }
            }
        });
        match (output, run) {
            (Some(result), Ok(())) => Polled::Settled(result.into()),
            (Some(result), Err(panic)) => {
                quietly(|| drop(panic));
                Polled::Settled(result.into())
            }
            (None, Ok(())) => Polled::Pending { first },
            (None, Err(panic)) => {
                quietly(|| future.as_mut().set(None));
                Polled::Settled(Settled::Panicked(panic))
            }
        }
    }
}

/// Drops every future once, whatever the destructors of the others do.
impl<I, Fut> Drop for Places<I, Fut> {
    fn drop(&mut self) {
        self.wakes.retire();
        for place in 0..self.places.len() {
            self.cancel(place);
        }
    }
}
