//! Where outcomes go: into a list by index, or through the caller's sink one at a time.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::VecDeque;

use crate::settled::Settled;

pub(super) trait Outlet<T, E> {
    /// Takes an outcome in.
    fn settle(&mut self, index: usize, outcome: Settled<T, E>);

    /// How many outcomes wait here and so keep their places.
    fn waiting(&self) -> usize;

    /// Moves on by one step; whether there was one to make.
    fn step(&mut self, cx: &mut Context<'_>) -> bool;

    /// The waker given to `step` was woken.
    fn woken(&mut self);

    /// Whether all outcomes taken in have gone where they go.
    fn is_empty(&self) -> bool;
}

/// A list in input order.
pub(super) struct Collected<T, E>(Vec<Option<Settled<T, E>>>);

impl<T, E> Collected<T, E> {
    /// Makes room for as many outcomes as the source promises, if that is a number to believe.
    pub(super) fn with_room_for(inputs: usize) -> Self {
        let mut outcomes = Vec::new();
        // An endless iterator promises `usize::MAX`, and that does not fit.
        let _ = outcomes.try_reserve(inputs);
        Self(outcomes)
    }

    pub(super) fn into_outcomes(self) -> Vec<Settled<T, E>> {
        let outcomes = self.0.into_iter();
        outcomes.map(|outcome| outcome.expect("every pulled input settles")).collect()
    }
}

impl<T, E> Outlet<T, E> for Collected<T, E> {
    fn settle(&mut self, index: usize, outcome: Settled<T, E>) {
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(outcome);
    }

    fn waiting(&self) -> usize {
        0
    }

    fn step(&mut self, _: &mut Context<'_>) -> bool {
        false
    }

    fn woken(&mut self) {}

    fn is_empty(&self) -> bool {
        true
    }
}

/// The caller's sink, called with one outcome at a time.
pub(super) struct Sunk<S, Fut, T, E> {
    sink: S,
    /// What the sink is busy with.
    busy: Pin<Box<Option<Fut>>>,
    /// Whether `busy` holds a future, and it waits for its waker.
    asleep: bool,
    waiting: VecDeque<(usize, Settled<T, E>)>,
}

impl<S, Fut, T, E> Sunk<S, Fut, T, E> {
    pub(super) fn new(sink: S) -> Self {
        Self { sink, busy: Box::pin(None), asleep: false, waiting: VecDeque::new() }
    }
}

impl<S, Fut, T, E> Outlet<T, E> for Sunk<S, Fut, T, E>
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
