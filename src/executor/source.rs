//! Where inputs come from: an iterator or a stream, pulled one at a time.

use core::pin::Pin;
use core::task::{Context, Poll};

use futures_core::Stream;

use super::summary::BatchEnd;

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

    /// The batch does not come to its own end, but to this one.
    fn note_end(&mut self, _: BatchEnd) {}

    /// Whether it is known that the input has no more, though the run was not told. What was set aside
    /// for the run may still be there.
    fn is_exhausted(&self) -> bool {
        false
    }

    /// The run is not there any more: nothing more is to be set aside for it.
    fn detach(&mut self) {}

    /// An input that was not pulled and that nobody else has, when the run is dropped.
    fn take_unpulled(&mut self) -> Option<(usize, Self::Input)> {
        None
    }

    /// How much room there should be for it to be worth asking, as long as the run has other
    /// things to do.
    fn worth_asking(&self) -> usize {
        1
    }
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

/// Inputs, from wherever: an [iterator](IterInputs) or a [stream](StreamInputs).
pub trait Inputs {
    /// One of them.
    type Input;
    /// What is left of them when a batch is stopped: the iterator or the stream itself.
    type Rest;

    /// The next one.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Input>>;

    /// How many there are at least.
    fn at_least(&self) -> usize;

    /// What is left of them.
    fn into_rest(self) -> Self::Rest;
}

/// The inputs of a batch that come from an iterator.
#[derive(Debug)]
pub struct IterInputs<I>(pub(super) I);

impl<I: Iterator> Inputs for IterInputs<I> {
    type Input = I::Item;
    type Rest = I;

    #[inline]
    fn poll_input(&mut self, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }

    fn at_least(&self) -> usize {
        self.0.size_hint().0
    }

    fn into_rest(self) -> I {
        self.0
    }
}

/// The inputs of a batch that come from a stream.
#[derive(Debug)]
pub struct StreamInputs<S>(pub(super) Pin<Box<S>>);

impl<S: Stream> Inputs for StreamInputs<S> {
    type Input = S::Item;
    type Rest = Pin<Box<S>>;

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.as_mut().poll_next(cx)
    }

    fn at_least(&self) -> usize {
        self.0.size_hint().0
    }

    fn into_rest(self) -> Pin<Box<S>> {
        self.0
    }
}
