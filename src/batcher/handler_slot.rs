//! Where one batch at a time is handled.

use core::future::Future;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::error::Error;

use super::error::HandlerError;
use crate::OwnedSemaphorePermit;
use crate::base::panic::{caught, quietly};
use crate::retry::Failure;

/// A handler's future in a box that is used again, and what became of it.
pub(crate) struct HandlerSlot<F> {
    future: Pin<Box<Option<F>>>,
    ended: Result<(), Failure<HandlerError>>,
    /// Of the semaphore that is shared; held until the handler is done and its guard is back.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

impl<F> HandlerSlot<F> {
    pub(crate) fn new() -> Self {
        Self { future: Box::pin(None), ended: Ok(()), permit: None }
    }

    /// Calls the handler. Whether there is anything to poll.
    pub(crate) fn begin(&mut self, handler: impl FnOnce() -> F) -> bool {
        self.ended = Ok(());
        match caught(handler) {
            Ok(future) => {
                self.future.set(Some(future));
                true
            }
            Err(panic) => {
                self.ended = Err(Failure::Panicked(panic));
                false
            }
        }
    }

    /// Whether the handler is done, and if so, well.
    pub(crate) fn poll<E>(&mut self, cx: &mut Context<'_>) -> Poll<bool>
    where
        F: Future<Output = Result<(), E>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let future = self.future.as_mut().as_pin_mut();
        let Some(future) = future else { return Poll::Ready(self.ended.is_ok()) };
        self.ended = match caught(|| future.poll(cx).map_err(Into::into)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => Ok(()),
            Ok(Poll::Ready(Err(error))) => Err(Failure::Failed(error)),
            Err(panic) => Err(Failure::Panicked(panic)),
        };
        // The guard may live in the future: it must be back before it is asked for.
        self.clear();
        Poll::Ready(self.ended.is_ok())
    }

    /// The attempt has run out of time.
    pub(crate) fn time_out(&mut self) {
        self.ended = Err(Failure::TimedOut);
        // Its guard may be in it.
        self.clear();
    }

    /// Drops the future.
    pub(crate) fn clear(&mut self) {
        quietly(|| self.future.set(None));
    }

    /// How the handler ended.
    pub(crate) fn take_end(&mut self) -> Result<(), Failure<HandlerError>> {
        mem::replace(&mut self.ended, Ok(()))
    }
}
