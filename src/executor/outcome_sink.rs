//! Where outcomes go: into a list by index, into the caller's slots, or through the caller's sink
//! one at a time.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::VecDeque;

use crate::base::panic::{Quiet, drop_each, quietly};
use crate::settled::{ItemError, Settled};

pub(super) trait OutcomeSink<I, T, E> {
    /// Takes an outcome in.
    fn settle(&mut self, index: usize, outcome: Settled<T, E>);

    /// Takes in the input of an item that was cancelled before it started, or gives it back.
    fn not_started(&mut self, _: usize, input: I) -> Option<I> {
        Some(input)
    }

    /// How many outcomes wait here and so keep their slots.
    fn waiting(&self) -> usize {
        0
    }

    /// Moves on by one step; whether there was one to make.
    fn step(&mut self, _: &mut Context<'_>) -> bool {
        false
    }

    /// The waker given to `step` was woken.
    fn woken(&mut self) {}

    /// The run is about to sleep, or done.
    fn flush(&mut self) {}

    /// Whether all outcomes taken in have gone where they go.
    fn is_empty(&self) -> bool {
        true
    }
}

/// A list in input order.
pub(super) struct Collected<T, E>(Vec<Settled<T, E>>);

impl<T, E> Collected<T, E> {
    /// Makes room for as many outcomes as the source promises, if that is a number to believe.
    pub(super) fn with_room_for(inputs: usize) -> Self {
        let mut outcomes = Vec::new();
        // An endless iterator promises `usize::MAX`, and that does not fit.
        let _ = outcomes.try_reserve(inputs);
        Self(outcomes)
    }

    pub(super) fn into_outcomes(mut self) -> Vec<Settled<T, E>> {
        core::mem::take(&mut self.0)
    }

    fn settle_out_of_order(&mut self, index: usize, outcome: Settled<T, E>) {
        if self.0.len() <= index {
            // Every pulled input settles, so those in between are not seen.
            self.0.resize_with(index + 1, || Err(ItemError::cancelled(false)));
        }
        self.0[index] = outcome;
    }
}

/// Those of a run that is dropped, which may be because something panicked.
impl<T, E> Drop for Collected<T, E> {
    fn drop(&mut self) {
        drop_each(self.0.drain(..));
    }
}

impl<I, T, E> OutcomeSink<I, T, E> for Collected<T, E> {
    #[inline]
    fn settle(&mut self, index: usize, outcome: Settled<T, E>) {
        if index == self.0.len() {
            self.0.push(outcome);
        } else {
            self.settle_out_of_order(index, outcome);
        }
    }
}

/// The caller's slots, from the first that is new.
pub(super) struct CallerSlots<'a, T, E> {
    slots: &'a mut Vec<Option<Settled<T, E>>>,
    first: usize,
}

impl<'a, T, E> CallerSlots<'a, T, E> {
    pub(super) fn new(slots: &'a mut Vec<Option<Settled<T, E>>>) -> Self {
        Self { first: slots.len(), slots }
    }
}

impl<I, T, E> OutcomeSink<I, T, E> for CallerSlots<'_, T, E> {
    fn settle(&mut self, index: usize, outcome: Settled<T, E>) {
        let slot = self.first + index;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(outcome);
    }
}

/// The caller's sink, called with one outcome at a time.
pub(super) struct CallerSink<S, Fut, T, E> {
    sink: Quiet<S>,
    /// What the sink is busy with.
    busy: Pin<Box<Option<Fut>>>,
    /// Whether `busy` holds a future, and it waits for its waker.
    asleep: bool,
    waiting: VecDeque<(usize, Settled<T, E>)>,
}

impl<S, Fut, T, E> CallerSink<S, Fut, T, E> {
    pub(super) fn new(sink: S) -> Self {
        let sink = Quiet::new(sink);
        Self { sink, busy: Box::pin(None), asleep: false, waiting: VecDeque::new() }
    }
}

impl<I, S, Fut, T, E> OutcomeSink<I, T, E> for CallerSink<S, Fut, T, E>
where
    S: FnMut(usize, Settled<T, E>) -> Fut,
    Fut: Future<Output = ()>,
{
    fn settle(&mut self, index: usize, outcome: Settled<T, E>) {
        self.waiting.push_back((index, outcome));
    }

    fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn step(&mut self, cx: &mut Context<'_>) -> bool {
        if self.asleep {
            return false;
        }
        if self.busy.is_none() {
            match self.waiting.pop_front() {
                Some((index, outcome)) => self.busy.set(Some((self.sink)(index, outcome))),
                None => return false,
            }
        }
        if let Some(busy) = self.busy.as_mut().as_pin_mut() {
            match busy.poll(cx) {
                Poll::Ready(()) => self.busy.set(None),
                Poll::Pending => self.asleep = true,
            }
        }
        true
    }

    fn woken(&mut self) {
        self.asleep = false;
    }

    fn is_empty(&self) -> bool {
        self.busy.is_none() && self.waiting.is_empty()
    }
}

/// As it may be the sink's panic that ends the run.
impl<S, Fut, T, E> Drop for CallerSink<S, Fut, T, E> {
    fn drop(&mut self) {
        quietly(|| self.busy.set(None));
        drop_each(self.waiting.drain(..));
    }
}
