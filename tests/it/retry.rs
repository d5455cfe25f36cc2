//! `Retry`: what its constructors refuse, what its presets say, and how it runs.

use std::time::Duration;

use sluicegate::retry::{Failure, GaveUp, Jitter, RetryState};
use sluicegate::{Panic, Retry, RetryBudget};

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn waits(retry: &Retry) -> Vec<u128> {
    retry.delays().map(|wait| wait.as_millis()).collect()
}

#[test]
fn the_shapes_of_backoff() {
    assert_eq!(waits(&Retry::none()), []);
    assert_eq!(waits(&Retry::constant(3, millis(5)).unwrap()), [5, 5]);
    assert_eq!(waits(&Retry::linear(5, millis(5), millis(12)).unwrap()), [5, 10, 12, 12]);
    assert_eq!(waits(&Retry::exponential(5, millis(5), millis(30)).unwrap()), [5, 10, 20, 30]);
    let any = Retry::with_backoff(4, || [9, 1, 4].map(millis).into_iter()).unwrap();
    assert_eq!(waits(&any), [9, 1, 4]);
    assert_eq!(waits(&any.clone().into_builder().cap(millis(4)).build().unwrap()), [4, 1, 4]);
    assert_eq!(waits(&any.into_builder().cap(millis(0)).build().unwrap()), [0, 0, 0]);
    let huge = Retry::linear(3, millis(1), Duration::from_secs(315_360_000)).unwrap();
    assert_eq!(waits(&huge), [1, 2]);
}

#[test]
fn the_presets() {
    let jobs = Retry::jobs();
    assert_eq!((jobs.max_attempts(), waits(&jobs)), (3, vec![2_000, 4_000]));
    assert_eq!(jobs.attempt_timeout(), None);
    let transactions = Retry::transactions();
    assert_eq!((transactions.max_attempts(), waits(&transactions)), (4, vec![100, 200, 400]));
    assert_eq!(transactions.attempt_timeout(), Some(Duration::from_secs(10)));
}

#[test]
fn bad_policies_are_refused() {
    let jobs = Retry::jobs;
    for (refused, field) in [
        (Retry::constant(0, millis(1)), "max_attempts"),
        (Retry::linear(0, millis(1), millis(1)), "max_attempts"),
        (Retry::linear(2, millis(2), millis(1)), "cap"),
        (Retry::exponential(2, millis(1), Duration::MAX), "cap"),
        (Retry::constant(2, Duration::MAX), "delay"),
        (jobs().into_builder().cap(Duration::MAX).build(), "cap"),
        (jobs().into_builder().attempt_timeout(Duration::ZERO).build(), "attempt_timeout"),
        (jobs().into_builder().attempt_timeout(Duration::MAX).build(), "attempt_timeout"),
    ] {
        assert_eq!(refused.unwrap_err().field(), field);
    }
    for (max_tokens, ratio, field) in [
        (0, 0.1, "max_tokens"),
        (1001, 0.1, "max_tokens"),
        (10, 0.0, "token_ratio"),
        (10, 1001.0, "token_ratio"),
        (10, f64::NAN, "token_ratio"),
    ] {
        assert_eq!(RetryBudget::new(max_tokens, ratio).unwrap_err().field(), field);
    }
}

#[test]
fn things_tried_side_by_side_do_not_draw_alike() {
    let seeded = || Retry::constant(9, millis(1_000)).unwrap().jitter(Jitter::Full).seed(3);
    let (one, other) = (seeded(), seeded());
    let first = waits(&one);
    let second = waits(&one.clone());
    assert_ne!(first, second);
    assert_eq!([first, second], [waits(&other), waits(&other)]);
}

#[test]
fn a_budget_is_shared_and_refilled_by_successes() {
    let budget = RetryBudget::new(10, 0.5).unwrap();
    let one = Retry::constant(100, millis(1)).unwrap().budget(&budget);
    let other = Retry::constant(100, millis(1)).unwrap().budget(&budget);
    let (mut a, mut b) = (RetryState::<()>::new(), RetryState::<()>::new());
    for _ in 0..2 {
        assert!(one.next_wait(&mut a).is_ok());
        assert!(other.next_wait(&mut b).is_ok());
    }
    assert_eq!((budget.tokens(), budget.allows_retries()), (6, true));
    assert_eq!(one.next_wait(&mut a), Err(GaveUp::BudgetSpent));
    assert!(!budget.allows_retries());
    one.succeeded();
    other.succeeded();
    one.succeeded();
    assert!(budget.allows_retries(), "6.5 of 10");
    for _ in 0..100 {
        one.succeeded();
    }
    assert_eq!(budget.tokens(), 10, "no more than at first");
    for _ in 0..100 {
        let _ = one.next_wait(&mut RetryState::<()>::new());
    }
    assert_eq!(budget.tokens(), 0, "no fewer than none");

    let generous = RetryBudget::new(10, 5.0).unwrap();
    let retry = Retry::jobs().budget(&generous);
    let _ = retry.next_wait(&mut RetryState::<()>::new());
    retry.succeeded();
    assert_eq!(generous.tokens(), 10, "no more than at first");
}

#[test]
fn panics_and_time_outs_are_worth_another_attempt_whatever_is_chosen() {
    let retry = Retry::constant(9, millis(1)).unwrap().when(|_: &&str| false);
    let mut state = RetryState::new();
    let panic = Failure::Panicked(Panic::new(Box::new("out of paper")));
    for failure in [panic, Failure::TimedOut] {
        assert_eq!(retry.next_wait_after(&mut state, &failure), Ok(millis(1)));
    }
    let failed = Failure::Failed("denied");
    assert_eq!(retry.next_wait_after(&mut state, &failed), Err(GaveUp::NotRetryable));
    assert_eq!(state.failures(), 3);
}

#[test]
fn a_state_keeps_the_last_error_it_is_told() {
    let mut state = RetryState::new();
    assert_eq!(state.last_error(), None);
    state.keep("busy");
    state.keep("gone");
    assert_eq!((state.last_error(), state.failures()), (Some(&"gone"), 0));
    assert_eq!((state.take_last_error(), state.take_last_error()), (Some("gone"), None));
}

#[cfg(feature = "tokio")]
use crate::coop;

#[cfg(feature = "tokio")]
mod run {
    use std::cell::Cell;
    use std::future::{pending, ready};

    use super::coop::assert_yields;

    use sluicegate::RetryError;
    use sluicegate::retry::Retried;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_in_between_and_counts() {
        let (start, calls) = (Instant::now(), Cell::new(0_u32));
        let retried = Retry::transactions()
            .run(|| {
                calls.set(calls.get() + 1);
                let call = calls.get();
                async move { if call < 4 { Err(call) } else { Ok("done") } }
            })
            .await;
        assert_eq!(retried.unwrap(), Retried { value: "done", attempts: 4 });
        assert_eq!(start.elapsed(), millis(700));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_refills_the_budget() {
        let budget = RetryBudget::new(4, 1.0).unwrap();
        let (retry, calls) = (Retry::jobs().budget(&budget), Cell::new(0_u32));
        let retried = retry.run(|| {
            calls.set(calls.get() + 1);
            std::future::ready(if calls.get() == 1 { Err(()) } else { Ok(()) })
        });
        assert_eq!(retried.await.unwrap().attempts, 2);
        assert_eq!(budget.tokens(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_back_the_last_error_and_the_number_of_attempts() {
        let calls = Cell::new(0_u32);
        let error = Retry::jobs()
            .run(|| {
                calls.set(calls.get() + 1);
                std::future::ready(Err::<(), _>(calls.get()))
            })
            .await
            .unwrap_err();
        assert_eq!((error.attempts, error.gave_up), (3, GaveUp::AttemptsSpent));
        assert_eq!(error.to_string(), "3 attempts failed, no attempts left: 3");
        assert_eq!((error.last_error, error.timeout), (Some(3), None));
    }

    /// An operation that borrows mutably, inside of a trait's `Send` future.
    #[tokio::test(start_paused = true)]
    async fn a_loop_of_the_callers_borrows_mutably() {
        struct Connection(u32);
        impl Connection {
            async fn execute(&mut self) -> Result<u32, &'static str> {
                self.0 += 1;
                if self.0 < 3 { Err("busy") } else { Ok(self.0) }
            }
        }
        trait Store {
            fn store(
                &mut self,
            ) -> impl Future<Output = Result<u32, RetryError<&'static str>>> + Send;
        }
        impl Store for Connection {
            async fn store(&mut self) -> Result<u32, RetryError<&'static str>> {
                let mut attempts = Retry::jobs().attempts();
                loop {
                    match self.execute().await {
                        Ok(rows) => break Ok(rows * attempts.succeeded()),
                        Err(error) => attempts.failed(error).await?,
                    }
                }
            }
        }
        let start = Instant::now();
        assert_eq!(Connection(0).store().await, Ok(9));
        assert_eq!(start.elapsed(), Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_of_the_callers_ends_as_a_run_does() {
        let budget = RetryBudget::new(10, 1.0).unwrap();
        let retry = Retry::jobs().budget(&budget);
        let mut attempts = retry.attempts();
        attempts.failed(1).await.unwrap();
        attempts.failed(2).await.unwrap();
        let error = attempts.failed(3).await.unwrap_err();
        assert_eq!((error.last_error, error.attempts), (Some(3), 3));
        assert_eq!((error.gave_up, budget.tokens()), (GaveUp::AttemptsSpent, 7));
        assert_eq!((retry.attempts::<()>().succeeded(), budget.tokens()), (1, 8));

        let start = Instant::now();
        let mut attempts = Retry::jobs().when(|code: &u32| *code == 503).attempts();
        let error = attempts.failed(404).await.unwrap_err();
        assert_eq!((error.gave_up, attempts.failures()), (GaveUp::NotRetryable, 1));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[test]
    fn a_loop_of_failures_without_waits_lets_others_go_on() {
        assert_yields(async {
            let mut attempts = Retry::constant(u32::MAX, Duration::ZERO).unwrap().attempts();
            loop {
                attempts.failed("busy").await.unwrap();
            }
        });
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_retryable_is_tried_once() {
        let (start, calls) = (Instant::now(), Cell::new(0_u32));
        let error = Retry::transactions()
            .when(|code: &&str| ["40P01", "40001"].contains(code))
            .run(|| {
                calls.set(calls.get() + 1);
                std::future::ready(Err::<(), _>("23505"))
            })
            .await
            .unwrap_err();
        assert_eq!((calls.get(), error.attempts, error.gave_up), (1, 1, GaveUp::NotRetryable));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_has_its_limit() {
        let (start, calls) = (Instant::now(), Cell::new(0_u32));
        let error = Retry::transactions()
            .run(|| {
                calls.set(calls.get() + 1);
                let call = calls.get();
                async move { if call == 1 { Err::<(), _>("busy") } else { pending().await } }
            })
            .await
            .unwrap_err();
        let limit = Duration::from_secs(10);
        assert_eq!(start.elapsed(), millis(700) + 3 * limit);
        assert_eq!((error.last_error, error.timeout), (Some("busy"), Some(limit)));
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_it_begins_no_other_attempt() {
        let calls = Cell::new(0_u32);
        let jobs = Retry::jobs();
        let run = jobs.run(|| {
            calls.set(calls.get() + 1);
            std::future::ready(Err::<(), _>(()))
        });
        assert!(tokio::time::timeout(millis(1_000), run).await.is_err());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(calls.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_without_waits_lets_others_go_on() {
        let retry = Retry::constant(10_000, Duration::ZERO).unwrap();
        let run = retry.run(|| std::future::ready(Err::<(), _>(())));
        tokio::select! {
            biased;
            _ = run => unreachable!("nobody else had a turn"),
            () = tokio::task::yield_now() => {}
        }
    }

    #[test]
    fn a_run_that_succeeds_at_once_yields() {
        assert_yields(async {
            let retry = Retry::none();
            loop {
                assert!(retry.run(|| ready(Ok::<_, ()>(1))).await.is_ok());
            }
        });
        assert_yields(async {
            let retry =
                Retry::none().into_builder().attempt_timeout(millis(3_600_000)).build().unwrap();
            loop {
                assert!(retry.run(|| ready(Ok::<_, ()>(1))).await.is_ok());
            }
        });
        assert_yields(async {
            let retry = Retry::jobs().when(|_: &()| false);
            loop {
                assert!(retry.run(|| ready(Err::<(), _>(()))).await.is_err());
            }
        });
    }

    #[test]
    fn attempts_without_end_or_wait_yield() {
        let retry = || Retry::constant(u32::MAX, Duration::ZERO).unwrap();
        assert_yields(async move {
            let _ = retry().run(|| ready(Err::<(), _>(()))).await;
        });
        assert_yields(async move {
            let _ = retry().when(|_: &()| true).run(|| ready(Err::<(), _>(()))).await;
        });
    }

    /// Without budget no attempt begins.
    #[tokio::test]
    async fn an_attempt_waits_for_its_turn() {
        let (calls, retry) = (Cell::new(0), Retry::none());
        super::coop::spend().await;
        let mut run = std::pin::pin!(retry.run(|| {
            calls.set(calls.get() + 1);
            ready(Ok::<_, ()>(()))
        }));
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(run.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
        assert_eq!(calls.get(), 0);
        assert!(run.await.is_ok());
        assert_eq!(calls.get(), 1);
    }

    #[test]
    fn can_be_spawned() {
        fn assert_send<T: Send>(_: T) {}
        assert_send(Retry::jobs().run(|| async { Ok::<_, ()>(1) }));
        assert_send(Retry::jobs().when(|_: &()| true).run(|| async { Ok::<_, ()>(1) }));
    }
}
