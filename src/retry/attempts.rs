//! The loop in the caller's hands.

use core::fmt;

use tokio::task::coop::consume_budget;
use tokio::time;

use super::{Retry, RetryError, RetryState, RetryWhen};

/// The attempts of one thing that the caller tries in a loop of its own; made by [`Retry::attempts`] and
/// [`RetryWhen::attempts`].
///
/// For what borrows mutably, or is awaited inside of a trait's `Send` future: [`Retry::run`] needs a closure
/// that makes a future each time, and this needs none.
///
/// ```
/// use sluicegate::{Retry, RetryError};
///
/// # struct Connection(u32);
/// # impl Connection {
/// #     async fn execute(&mut self, _: &str) -> Result<u32, &'static str> {
/// #         self.0 += 1;
/// #         if self.0 < 3 { Err("busy") } else { Ok(self.0) }
/// #     }
/// # }
/// async fn insert(connection: &mut Connection) -> Result<u32, RetryError<&'static str>> {
///     let mut attempts = Retry::jobs().attempts();
///     loop {
///         match connection.execute("insert").await {
///             Ok(rows) => break Ok(rows),
///             Err(error) => attempts.failed(error).await?,
///         }
///     }
/// }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// assert_eq!(insert(&mut Connection(0)).await, Ok(3));
/// # }
/// ```
pub struct Attempts<E> {
    policy: RetryWhen<E>,
    state: RetryState<E>,
}

impl Retry {
    /// The attempts of one thing, for a loop of the caller's; see [`Attempts`].
    pub fn attempts<E>(&self) -> Attempts<E> {
        RetryWhen::from(self.clone()).attempts()
    }
}

impl<E> RetryWhen<E> {
    /// [`Retry::attempts`] with the choice of errors.
    pub fn attempts(&self) -> Attempts<E> {
        Attempts { policy: self.clone(), state: RetryState::new() }
    }
}

impl<E> Attempts<E> {
    /// How many attempts have failed so far.
    pub fn failures(&self) -> u32 {
        self.state.failures()
    }

    /// Notes that an attempt failed with this error, and waits until the next is due.
    ///
    /// # Errors
    ///
    /// [`RetryError`] with this error, if there is to be no other attempt.
    ///
    /// # Panics
    ///
    /// If the choice of errors or the iterator of waits does; and outside a tokio runtime with timers
    /// enabled, if there is something to wait for.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait early; the failure stays counted.
    pub async fn failed(&mut self, error: E) -> Result<(), RetryError<E>> {
        let next = self.policy.next_wait(&mut self.state, &error);
        self.state.keep(error);
        let wait = next.map_err(|gave_up| self.state.give_up(None, gave_up))?;
        if wait.is_zero() {
            // Attempts that fail at once must not keep the worker from other tasks.
            consume_budget().await;
        } else {
            time::sleep(wait).await;
        }
        Ok(())
    }

    /// Notes that an attempt succeeded, which refills the [budget](Retry::budget), if there is one, and
    /// returns how many attempts were made.
    pub fn succeeded(self) -> u32 {
        self.policy.policy().succeeded();
        self.failures() + 1
    }
}

impl<E> fmt::Debug for Attempts<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, state } = self;
        let mut shown = f.debug_struct("Attempts");
        shown.field("policy", policy).field("failures", &state.failures()).finish_non_exhaustive()
    }
}
