//! The loop that waits on tokio's clock.

use core::future::Future;
use core::time::Duration;

use tokio::task::coop::consume_budget;
use tokio::time;

use super::{Failure, GaveUp, Retried, Retry, RetryError, RetryState, RetryWhen};

impl Retry {
    /// Calls `attempt` and awaits what it returns, again and again until one succeeds or the policy
    /// allows no other; in between it waits.
    ///
    /// # Errors
    ///
    /// [`RetryError`] with the last error, the number of attempts and why there was no other one.
    /// Errors before the last are dropped.
    ///
    /// # Panics
    ///
    /// If `attempt`, its future or the iterator of waits does; and outside a tokio runtime with
    /// timers enabled, if there is something to wait for.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the attempt that runs, and begins no other.
    ///
    /// ```
    /// use sluicegate::Retry;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let mut calls = 0;
    /// let fetched = Retry::jobs()
    ///     .run(|| {
    ///         calls += 1;
    ///         let reply = if calls < 3 { Err("busy") } else { Ok(calls) };
    ///         async move { reply }
    ///     })
    ///     .await
    ///     .unwrap();
    /// assert_eq!((fetched.value, fetched.attempts), (3, 3));
    ///
    /// let error = Retry::transactions()
    ///     .when(|error: &&str| *error == "deadlock")
    ///     .run(|| async { Err::<(), _>("no such table") })
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(error.to_string(), "1 attempt failed, not retryable: no such table");
    /// # }
    /// ```
    pub async fn run<T, E, A, F>(&self, attempt: A) -> Result<Retried<T>, RetryError<E>>
    where
        A: FnMut() -> F,
        F: Future<Output = Result<T, E>>,
    {
        run(self, attempt, |state, _| self.next_wait(state)).await
    }
}

impl<E> RetryWhen<E> {
    /// [`Retry::run`] with the choice of errors.
    ///
    /// # Errors
    ///
    /// [`RetryError`], as [`Retry::run`].
    ///
    /// # Panics
    ///
    /// As [`Retry::run`], and if the choice does.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the attempt that runs, and begins no other.
    pub async fn run<T, A, F>(&self, attempt: A) -> Result<Retried<T>, RetryError<E>>
    where
        A: FnMut() -> F,
        F: Future<Output = Result<T, E>>,
    {
        run(self.policy(), attempt, |state, failure| self.next_wait_after(state, failure)).await
    }
}

async fn run<T, E, A, F, N>(
    policy: &Retry,
    mut attempt: A,
    next_wait: N,
) -> Result<Retried<T>, RetryError<E>>
where
    A: FnMut() -> F,
    F: Future<Output = Result<T, E>>,
    N: Fn(&mut RetryState<E>, &Failure<E>) -> Result<Duration, GaveUp>,
{
    let mut state = RetryState::new();
    loop {
        // Attempts that are ready at once must not keep the worker from other tasks.
        consume_budget().await;
        let failure = match with_timeout(policy, attempt()).await {
            Ok(value) => {
                policy.succeeded();
                return Ok(Retried { value, attempts: state.failures() + 1 });
            }
            Err(failure) => failure,
        };
        let next = next_wait(&mut state, &failure);
        let timeout = match failure {
            Failure::Failed(error) => {
                state.keep(error);
                None
            }
            Failure::Panicked(_) | Failure::TimedOut => policy.attempt_timeout,
        };
        let wait = next.map_err(|gave_up| state.give_up(timeout, gave_up))?;
        if !wait.is_zero() {
            time::sleep(wait).await;
        }
    }
}

async fn with_timeout<T, E, F>(policy: &Retry, attempt: F) -> Result<T, Failure<E>>
where
    F: Future<Output = Result<T, E>>,
{
    match policy.attempt_timeout {
        None => attempt.await.map_err(Failure::Failed),
        Some(timeout) => match time::timeout(timeout, attempt).await {
            Ok(done) => done.map_err(Failure::Failed),
            Err(_) => Err(Failure::TimedOut),
        },
    }
}
