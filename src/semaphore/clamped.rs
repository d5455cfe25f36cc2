//! Waits for a weight that the limit clamps: for the executor's items, the heaviest of which take all
//! permits, however many those are by then.

use core::task::{Context, Poll, Waker};
use std::sync::Arc;

use super::Semaphore;
use super::error::AcquireError;
use super::line::Ticket;
use super::permit::OwnedSemaphorePermit;
use super::state::Clamped;
use crate::base::coop;

/// Waits for `weight` permits, or for the limit if that is less when it is served: a shrink does not
/// strand it, and a growth does not serve it too little.
#[derive(Debug)]
pub(crate) struct AcquireClamped {
    semaphore: Arc<Semaphore>,
    weight: u32,
    ticket: Option<Ticket>,
}

impl AcquireClamped {
    pub(crate) fn new(semaphore: Arc<Semaphore>, weight: u32) -> Self {
        Self { semaphore, weight: weight.max(1), ticket: None }
    }

    pub(crate) fn weight(&self) -> u32 {
        self.weight
    }

    /// Gets the permits, and is as new then. The waker is the same in all polls, and the crate's own.
    pub(crate) fn poll(
        &mut self,
        waker: &Waker,
    ) -> Poll<Result<OwnedSemaphorePermit, AcquireError>> {
        let state = &self.semaphore.state;
        let permits = match self.ticket {
            Some(_) if state.is_closed() => {
                self.leave();
                return Poll::Ready(Err(AcquireError(())));
            }
            Some(ticket) => match state.claim_clamped(ticket) {
                Some(permits) => permits,
                None => return Poll::Pending,
            },
            None => {
                // A task without budget does not take what is free, but a place if it must wait.
                let unit = coop::poll_proceed(&mut Context::from_waker(waker));
                match state.take_clamped(self.weight, waker, unit.is_ready()) {
                    Ok(Clamped::Taken(permits)) => {
                        if let Poll::Ready(unit) = unit {
                            unit.made_progress();
                        }
                        permits
                    }
                    Ok(Clamped::Free) => return Poll::Pending,
                    Ok(Clamped::Queued(ticket)) => {
                        self.ticket = Some(ticket);
                        return Poll::Pending;
                    }
                    Err(closed) => return Poll::Ready(Err(closed)),
                }
            }
        };
        self.ticket = None;
        Poll::Ready(Ok(OwnedSemaphorePermit::new(Arc::clone(&self.semaphore), permits as usize)))
    }

    fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.semaphore.state.leave(ticket, self.weight);
        }
    }
}

impl Drop for AcquireClamped {
    fn drop(&mut self) {
        self.leave();
    }
}
