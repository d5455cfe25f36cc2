//! `Retry` beside a loop that is obviously right: delays within their bounds, attempts within the
//! policy, and each attempt at its instant under paused time.

use std::time::Duration;

use proptest::prelude::*;
use sluicegate::Retry;
use sluicegate::retry::Jitter;

fn jitters() -> impl Strategy<Value = Jitter> {
    prop_oneof![Just(Jitter::None), Just(Jitter::Full), Just(Jitter::Equal)]
}

/// Waits of all sizes, beyond what a policy may ask for included.
fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0_u64..5).prop_map(Duration::from_nanos),
        (0_u64..10_000).prop_map(Duration::from_millis),
        (0_u64..1_000_000_000).prop_map(Duration::from_secs),
        Just(Duration::MAX),
    ]
}

const TEN_YEARS: Duration = Duration::from_secs(315_360_000);

proptest! {
    #[test]
    fn delays_are_within_their_bounds(
        waits in prop::collection::vec(durations(), 0..20),
        max_attempts in 1_u32..20,
        cap in proptest::option::of(durations().prop_map(|cap| cap.min(TEN_YEARS))),
        jitter in jitters(),
        seed in proptest::option::of(any::<u64>()),
    ) {
        let script = waits.clone();
        let mut retry = Retry::with_backoff(max_attempts, move || script.clone().into_iter()).unwrap();
        if let Some(cap) = cap {
            retry = retry.into_builder().cap(cap).build().unwrap();
        }
        retry = retry.jitter(jitter);
        if let Some(seed) = seed {
            retry = retry.seed(seed);
        }
        let delays: Vec<_> = retry.delays().collect();
        prop_assert_eq!(delays.len(), waits.len().min(max_attempts as usize - 1));
        for (delay, wait) in delays.into_iter().zip(waits) {
            let most = wait.min(cap.unwrap_or(TEN_YEARS)).min(TEN_YEARS);
            let least = match jitter {
                Jitter::None => most,
                Jitter::Equal => most / 2,
                _ => Duration::ZERO,
            };
            prop_assert!((least..=most).contains(&delay), "{delay:?} of {most:?}");
        }
    }
}

#[cfg(feature = "tokio")]
mod run {
    use std::cell::RefCell;
    use std::future::pending;

    use sluicegate::RetryBudget;
    use sluicegate::retry::GaveUp;
    use tokio::time::{Instant, sleep};

    use super::*;

    /// What an attempt does.
    #[derive(Debug, Clone, Copy)]
    enum Does {
        Succeed { after: u64 },
        Fail { after: u64, retryable: bool },
        Hang,
    }

    fn does() -> impl Strategy<Value = Does> {
        prop_oneof![
            1 => (0_u64..30).prop_map(|after| Does::Succeed { after }),
            5 => (0_u64..30, prop::bool::weighted(0.9))
                .prop_map(|(after, retryable)| Does::Fail { after, retryable }),
            1 => Just(Does::Hang),
        ]
    }

    #[derive(Debug, PartialEq)]
    struct Ended {
        value: bool,
        gave_up: Option<GaveUp>,
        last_error: Option<usize>,
        timed_out: bool,
        /// When each attempt began.
        begun: Vec<u64>,
        end: u64,
        tokens: u32,
    }

    const LIMIT: u64 = 20;
    const TOKENS: u32 = 8;

    /// Milliseconds in, milliseconds out. A budget of [`TOKENS`] gives back half a token.
    fn reference(script: &[Does], waits: &[u64], max_attempts: usize, limited: bool) -> Ended {
        let (mut now, mut begun, mut half_tokens) = (0, Vec::new(), 2 * TOKENS);
        let (mut last_error, mut end) = (None, None);
        while end.is_none() {
            let attempt = begun.len();
            begun.push(now);
            let (took, ok, retryable, hung) = match script[attempt] {
                Does::Succeed { after } if !limited || after < LIMIT => (after, true, true, false),
                Does::Fail { after, retryable } if !limited || after < LIMIT => {
                    (after, false, retryable, false)
                }
                _ => (LIMIT, false, true, true),
            };
            now += took;
            if ok {
                half_tokens = (half_tokens + 1).min(2 * TOKENS);
                end = Some((None, false));
                continue;
            }
            if !hung {
                last_error = Some(attempt);
            }
            if retryable {
                half_tokens = half_tokens.saturating_sub(2);
            }
            let gave_up = if !retryable {
                GaveUp::NotRetryable
            } else if begun.len() == max_attempts {
                GaveUp::AttemptsSpent
            } else if attempt == waits.len() {
                GaveUp::WaitsEnded
            } else if half_tokens <= TOKENS {
                GaveUp::BudgetSpent
            } else {
                now += waits[attempt];
                continue;
            };
            end = Some((Some(gave_up), hung));
        }
        let (gave_up, timed_out) = end.unwrap();
        let value = gave_up.is_none();
        let tokens = half_tokens / 2;
        Ended {
            value,
            gave_up,
            last_error: last_error.filter(|_| !value),
            timed_out,
            begun,
            end: now,
            tokens,
        }
    }

    async fn run(script: &[Does], waits: Vec<u64>, max_attempts: usize, limited: bool) -> Ended {
        let start = Instant::now();
        let budget = RetryBudget::new(TOKENS, 0.5).unwrap();
        let backoff = move || waits.clone().into_iter().map(Duration::from_millis);
        let mut retry = Retry::with_backoff(max_attempts as u32, backoff).unwrap().budget(&budget);
        if limited {
            retry =
                retry.into_builder().attempt_timeout(Duration::from_millis(LIMIT)).build().unwrap();
        }
        let begun = RefCell::new(Vec::new());
        let ms = || start.elapsed().as_millis() as u64;
        let result = retry
            .when(|(_, retryable): &(usize, bool)| *retryable)
            .run(|| {
                let attempt = begun.borrow().len();
                begun.borrow_mut().push(ms());
                let does = script[attempt];
                async move {
                    match does {
                        Does::Succeed { after } => {
                            sleep(Duration::from_millis(after)).await;
                            Ok(())
                        }
                        Does::Fail { after, retryable } => {
                            sleep(Duration::from_millis(after)).await;
                            Err((attempt, retryable))
                        }
                        Does::Hang => pending().await,
                    }
                }
            })
            .await;
        let begun = begun.into_inner();
        let (end, tokens) = (ms(), budget.tokens());
        match result {
            Ok(retried) => {
                assert_eq!(retried.attempts as usize, begun.len());
                Ended {
                    value: true,
                    gave_up: None,
                    last_error: None,
                    timed_out: false,
                    begun,
                    end,
                    tokens,
                }
            }
            Err(error) => {
                assert_eq!(error.attempts as usize, begun.len());
                let timed_out = error.timeout.is_some();
                Ended {
                    value: false,
                    gave_up: Some(error.gave_up),
                    last_error: error.last_error.map(|(attempt, _)| attempt),
                    timed_out,
                    begun,
                    end,
                    tokens,
                }
            }
        }
    }

    proptest! {
        #[test]
        fn attempts_begin_and_end_as_the_policy_says(
            script in prop::collection::vec(does(), 12),
            waits in prop::collection::vec(0_u64..50, 0..12),
            max_attempts in 1_usize..12,
            limited in any::<bool>(),
        ) {
            // Without a limit nothing may hang.
            let script: Vec<_> = script
                .into_iter()
                .map(|does| match does {
                    Does::Hang if !limited => Does::Fail { after: 1, retryable: true },
                    // What is done at its limit may go either way.
                    Does::Succeed { after: LIMIT } => Does::Succeed { after: LIMIT - 1 },
                    Does::Fail { after: LIMIT, retryable } => Does::Fail { after: 1, retryable },
                    does => does,
                })
                .collect();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let expected = reference(&script, &waits, max_attempts, limited);
            let ended = runtime.block_on(run(&script, waits, max_attempts, limited));
            prop_assert_eq!(ended, expected);
        }
    }
}
