//! Where inputs come from: an iterator or a stream, pulled one at a time.

use core::pin::Pin;
use core::task::{Context, Poll};

use futures_core::Stream;

/// A source of inputs. After it has ended or panicked it is not asked again.
pub(super) trait Source {
    type Input;

    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Input>>;
}

pub(super) struct FromIterator<I>(pub(super) I);

impl<I: Iterator> Source for FromIterator<I> {
    type Input = I::Item;

    fn poll_pull(&mut self, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }
}

pub(super) struct FromStream<S>(pub(super) Pin<Box<S>>);

impl<S: Stream> Source for FromStream<S> {
    type Input = S::Item;

    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}
