//! Where inputs come from: an iterator or a stream, pulled one at a time.

use core::pin::Pin;
use core::task::{Context, Poll};

use futures_core::Stream;

/// A source of inputs, each with its position. After it has ended or panicked it is not asked
/// again.
pub(super) trait Source {
    type Input;

    /// The next input. The run has room for so many.
    fn poll_pull(
        &mut self,
        room: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(usize, Self::Input)>>;

    /// Nothing more is to be pulled. What was set aside for the run already it still gets.
    fn close(&mut self);
}

/// A source with one run, which counts for itself.
pub(super) struct Own<S> {
    inputs: S,
    pulled: usize,
    closed: bool,
}

impl<S> Own<S> {
    pub(super) fn new(inputs: S) -> Self {
        Self { inputs, pulled: 0, closed: false }
    }
}

impl<S: Inputs> Source for Own<S> {
    type Input = S::Input;

    #[inline]
    fn poll_pull(&mut self, _: usize, cx: &mut Context<'_>) -> Poll<Option<(usize, Self::Input)>> {
        if self.closed {
            return Poll::Ready(None);
        }
        self.inputs.poll_input(cx).map(|input| {
            let index = self.pulled;
            self.pulled = index + 1;
            input.map(|input| (index, input))
        })
    }

    fn close(&mut self) {
        self.closed = true;
    }
}

/// Inputs, from wherever.
pub(super) trait Inputs {
    type Input;

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Input>>;

    /// How many there are at least.
    fn at_least(&self) -> usize;
}

pub(super) struct FromIterator<I>(pub(super) I);

impl<I: Iterator> Inputs for FromIterator<I> {
    type Input = I::Item;

    #[inline]
    fn poll_input(&mut self, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }

    fn at_least(&self) -> usize {
        self.0.size_hint().0
    }
}

pub(super) struct FromStream<S>(pub(super) Pin<Box<S>>);

impl<S: Stream> Inputs for FromStream<S> {
    type Input = S::Item;

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.as_mut().poll_next(cx)
    }

    fn at_least(&self) -> usize {
        self.0.size_hint().0
    }
}
