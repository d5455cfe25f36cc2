//! The options of an executor by example: stops, semaphores and nesting, weights, observers, reports,
//! slots that survive a dropped run.
#![cfg(feature = "tokio")]

use crate::outcome::Outcome;
use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, future::join, stream};
use sluicegate::{
    BatchEnd, BatchEvent, BatchExecutor, BatchExecutorBuilder, ItemError, Semaphore, Settled,
    SettledKind, Stop, StopToken, all_fulfilled,
};
use tokio::time::{Instant, sleep, timeout};

const MS: Duration = Duration::from_millis(1);

fn builder(limit: usize) -> BatchExecutorBuilder {
    BatchExecutor::builder().limit(limit)
}

fn on_semaphore(semaphore: &Arc<Semaphore>) -> BatchExecutor {
    BatchExecutor::builder().semaphore(Arc::clone(semaphore)).build().unwrap()
}

fn kinds<'a, T: 'a, E: 'a>(outcomes: impl IntoIterator<Item = &'a Settled<T, E>>) -> String {
    let kind = |outcome: &Settled<T, E>| match outcome {
        Ok(_) => 'f',
        Err(ItemError::Rejected(_)) => 'r',
        Err(ItemError::Panicked(_)) => 'p',
        Err(ItemError::Cancelled { started: true, .. }) => 'c',
        Err(ItemError::Cancelled { started: false, .. }) => 'n',
        _ => '?',
    };
    outcomes.into_iter().map(kind).collect()
}

/// Fails instead of hanging.
async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(3600), future).await.expect("it hangs")
}

// Stops.

#[tokio::test(start_paused = true)]
async fn nothing_is_pulled_after_a_stop_and_the_rest_is_untouched() {
    for (how, expected, elapsed) in [(Stop::Drain, "fff", 50), (Stop::Abort, "fcc", 15)] {
        let token = StopToken::new();
        let executor = builder(3).stop(token.clone()).build().unwrap();
        let (mut inputs, start) = (0..100, Instant::now());
        let run = executor.all_settled(inputs.by_ref(), async |n| {
            sleep(MS * [10, 50, 50][n]).await;
            if n == 0 {
                // It leaves a place, which is not to be filled again.
                token.stop(how);
            }
            Ok::<_, ()>(n)
        });
        let later = async {
            sleep(MS * 15).await;
            token.stop(how);
        };
        let (all, ()) = in_time(join(run, later)).await;
        let elapsed = if how == Stop::Abort { 10 } else { elapsed };
        assert_eq!(kinds(&all), expected, "{how:?}");
        assert!(matches!(all.end(), BatchEnd::Stopped));
        assert!(start.elapsed() >= MS * elapsed);
        assert_eq!(inputs, 3..100);
        assert_eq!(token.stopped(), Some(how));
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_begins_after_the_stop_pulls_nothing_and_an_abort_can_follow_a_drain() {
    let token = StopToken::new();
    let executor = builder(2).stop(token.clone()).build().unwrap();
    let run = executor.all_settled(0..9, async |_| {
        pending::<()>().await;
        Ok::<_, ()>(())
    });
    let stops = async {
        sleep(MS).await;
        token.stop(Stop::Drain);
        sleep(MS).await;
        token.stop(Stop::Abort);
        token.stop(Stop::Drain);
    };
    let (all, ()) = in_time(join(run, stops)).await;
    assert_eq!(kinds(&all), "cc");

    let mut inputs = 0..9;
    let late = in_time(executor.all_settled(inputs.by_ref(), async |n| Ok::<_, ()>(n))).await;
    assert!(late.is_empty() && matches!(late.end(), BatchEnd::Stopped));
    assert_eq!(inputs, 0..9);
}

#[tokio::test(start_paused = true)]
async fn a_stop_wakes_a_run_whose_source_is_silent() {
    let token = StopToken::new();
    let executor = builder(2).stop(token.clone()).build().unwrap();
    let silent = stream::pending::<u8>();
    let run = executor.for_each_stream(silent, async |_| Ok::<(), ()>(()), async |_, _| {});
    let (summary, ()) = in_time(join(run, async { token.stop(Stop::Drain) })).await;
    assert_eq!(summary.to_string(), "0 fulfilled; stopped");
}

#[tokio::test(start_paused = true)]
async fn items_of_one_key_that_wait_are_run_in_a_drain_and_not_in_an_abort() {
    for (how, expected) in [(Stop::Drain, "ffff"), (Stop::Abort, "fnnn")] {
        let token = StopToken::new();
        let executor = builder(4).stop(token.clone()).build().unwrap().by_key(|_: &u32| ());
        let run = executor.all_settled(0..9, async |n| {
            sleep(MS * 2).await;
            if n == 0 {
                token.stop(how);
            }
            Ok::<_, ()>(())
        });
        assert_eq!(kinds(&in_time(run).await), expected, "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_failures_stop_a_batch() {
    for (how, expected) in [(Stop::Drain, "frfrff"), (Stop::Abort, "frfrcc")] {
        let executor = builder(3).stop_when(2, how).build().unwrap();
        let mut inputs = 0..100;
        for again in 0..2 {
            // Each batch counts for itself.
            inputs = 0..100;
            let all = executor.all_settled(inputs.by_ref(), async |n| {
                sleep(MS * (1 + n)).await;
                if n % 2 == 0 { Ok(n) } else { Err(n) }
            });
            let all = in_time(all).await;
            assert!(kinds(&all).starts_with("frfr"), "{again} {}", kinds(&all));
            assert!(matches!(all.end(), BatchEnd::TooManyFailures));
            assert_eq!(all.len(), expected.len());
            let cut = all.iter().filter(|outcome| outcome.is_cancelled()).count();
            assert_eq!(cut, if how == Stop::Abort { 2 } else { 0 });
        }
        assert_eq!(inputs, 6..100);
    }
    assert_eq!(builder(1).stop_when(0, Stop::Drain).build().unwrap_err().field(), "stop_when");
}

// Budgets.

#[tokio::test(start_paused = true)]
async fn what_runs_never_exceeds_the_semaphore_over_all_executors() {
    let semaphore = Arc::new(Semaphore::new(3));
    let (running, most) = (Cell::new(0), Cell::new(0));
    let work = async |_| {
        running.set(running.get() + 1);
        most.set(most.get().max(running.get()));
        sleep(MS).await;
        running.set(running.get() - 1);
        Ok::<_, ()>(())
    };
    let one = builder(10).semaphore(Arc::clone(&semaphore)).build().unwrap();
    let other = on_semaphore(&semaphore);
    let (one, other) =
        in_time(join(one.all_settled(0..20, work), other.all_settled(0..20, work))).await;
    assert!(one.summary().is_complete() && other.summary().is_complete());
    assert_eq!((most.get(), semaphore.available_permits()), (3, 3));
}

/// With the whole semaphore held by parents, each nested batch runs on its parent's permit; and so do
/// batches nested in those.
#[tokio::test(start_paused = true)]
async fn a_batch_nested_on_one_semaphore_finishes() {
    for permits in [1, 2, 3] {
        let semaphore = Arc::new(Semaphore::new(permits));
        let executor = on_semaphore(&semaphore);
        let (leaves, most) = (Cell::new(0), Cell::new(0));
        let leaf = async |_| {
            leaves.set(leaves.get() + 1);
            most.set(most.get().max(leaves.get()));
            sleep(MS).await;
            leaves.set(leaves.get() - 1);
            Ok::<_, ()>(())
        };
        let all = executor.all_settled(0..5, async |_| {
            let inner = executor.all_settled(0..3, async |_| {
                all_fulfilled(executor.all_settled(0..4, leaf).await).map(drop)
            });
            all_fulfilled(inner.await).map(drop)
        });
        assert!(in_time(all).await.summary().is_complete());
        assert!(most.get() <= permits, "{} leaves on {permits} permits", most.get());
        assert_eq!(semaphore.available_permits(), permits);
    }
}

/// Two batches in one item take turns on its permit.
#[tokio::test(start_paused = true)]
async fn two_batches_nested_in_one_item_take_turns_on_its_permit() {
    let semaphore = Arc::new(Semaphore::new(1));
    let executor = on_semaphore(&semaphore);
    let busy = Cell::new(false);
    let work = async |_| {
        assert!(!busy.replace(true));
        sleep(MS).await;
        busy.set(false);
        Ok::<_, ()>(())
    };
    let all = executor.all_settled(0..2, async |_| {
        let both = join(executor.all_settled(0..5, work), executor.all_settled(0..5, work));
        let (one, other) = both.await;
        all_fulfilled(one.into_iter().chain(other)).map(drop)
    });
    assert!(in_time(all).await.summary().is_complete());
}

/// While one nested run has the item's permit, the item makes and drops others that ask for it.
///
/// Seen to fail when `Permits` does not leave its lender as it is dropped.
#[tokio::test(start_paused = true)]
async fn nested_runs_that_are_dropped_while_they_wait_leave_nothing_with_their_parent() {
    let semaphore = Arc::new(Semaphore::new(1));
    let executor = on_semaphore(&semaphore);
    let outer = executor.all_settled([()], async |()| {
        let nested =
            || Box::pin(executor.all_settled([()], async |()| pending::<Result<(), ()>>().await));
        let mut borrower = nested();
        poll_fn(|cx| {
            assert!(borrower.as_mut().poll(cx).is_pending());
            let mut ask = |times| {
                for _ in 0..times {
                    assert!(nested().as_mut().poll(cx).is_pending());
                }
            };
            ask(1);
            assert_eq!(allocation_counter::measure(|| ask(1_000)).bytes_current, 0);
            Poll::Ready(Ok::<_, ()>(()))
        })
        .await
    });
    assert!(in_time(outer).await.summary().is_complete());
    assert_eq!(semaphore.available_permits(), 1);
}

/// A nested run that is carried out of its parent keeps what it has borrowed counted.
#[tokio::test(start_paused = true)]
async fn a_nested_run_that_outlives_its_parent_is_counted() {
    let semaphore = Arc::new(Semaphore::new(1));
    let executor = on_semaphore(&semaphore);
    let carried = RefCell::new(None);
    let outer = executor.all_settled([()], |()| {
        let mut run = Some(Box::pin(executor.all_settled([()], async |()| {
            sleep(MS).await;
            Ok::<_, ()>(())
        })));
        let carried = &carried;
        poll_fn(move |cx| {
            assert!(run.as_mut().unwrap().as_mut().poll(cx).is_pending());
            *carried.borrow_mut() = run.take();
            Poll::Ready(Ok::<_, ()>(()))
        })
    });
    let _ = in_time(outer).await;
    assert_eq!(semaphore.available_permits(), 0);
    let run = carried.take();
    drop(run);
    assert_eq!(semaphore.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_closed_semaphore_ends_a_batch() {
    let semaphore = Arc::new(Semaphore::new(2));
    let executor = builder(4).semaphore(Arc::clone(&semaphore)).build().unwrap();
    let mut inputs = 0..100;
    let all = executor.all_settled(inputs.by_ref(), async |n| {
        sleep(MS).await;
        if n == 1 {
            semaphore.close();
        }
        Ok::<_, ()>(())
    });
    let all = in_time(all).await;
    assert!(matches!(all.end(), BatchEnd::SemaphoreClosed));
    let kinds = kinds(&all);
    assert!(kinds.starts_with("ff") && kinds.ends_with('n'), "{kinds}");
    assert_eq!(inputs.start, all.len());
}

#[tokio::test(start_paused = true)]
async fn dropping_after_any_poll_returns_all_permits_and_drops_every_future_once() {
    for polls in 0..40 {
        let semaphore = Arc::new(Semaphore::new(2));
        let executor = on_semaphore(&semaphore).by_weight(|n: &u32| n % 3);
        let alive = Rc::new(());
        let mut run = Box::pin(executor.all_settled(0..12, async |n| {
            let alive = Rc::clone(&alive);
            for _ in 0..n % 4 {
                tokio::task::yield_now().await;
            }
            drop(alive);
            Ok::<_, ()>(())
        }));
        for _ in 0..polls {
            if run.as_mut().now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(run);
        assert_eq!((Rc::strong_count(&alive), semaphore.available_permits()), (1, 2), "{polls}");
    }
}

// Weights.

#[tokio::test(start_paused = true)]
async fn weights_add_up_to_the_limit_and_a_light_item_does_not_pass_a_heavy_one() {
    let (load, most, order) = (Cell::new(0), Cell::new(0), RefCell::new(Vec::new()));
    // The last ones weigh more than everything, and nothing.
    let weights = [3_u32, 3, 6, 1, 10, 99, 0, 0];
    let executor =
        builder(10).build().unwrap().by_weight(|n: &usize| [3, 3, 6, 1, 10, 99, 0, 0][*n]);
    let all = executor.all_settled(0..weights.len(), async |n| {
        let weight = weights[n].clamp(1, 10);
        order.borrow_mut().push(n);
        load.set(load.get() + weight);
        most.set(most.get().max(load.get()));
        sleep(MS).await;
        load.set(load.get() - weight);
        Ok::<_, ()>(())
    });
    assert!(in_time(all).await.summary().is_complete());
    assert_eq!(most.get(), 10);
    assert_eq!(order.take(), (0..8).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_weigher_that_panics_settles_its_item_only() {
    let executor = builder(2).build().unwrap().by_weight(|n: &u32| {
        if *n == 1 {
            resume_unwind(Box::new("too heavy"));
        }
        1
    });
    let keyed = executor.clone().by_key(|_: &u32| ());
    let work = async |n| Ok::<_, ()>(n);
    assert_eq!(kinds(&in_time(executor.all_settled(0..4, work)).await), "fpff");
    assert_eq!(kinds(&in_time(keyed.all_settled(0..4, work)).await), "fpff");
}

// Observers.

#[tokio::test(start_paused = true)]
async fn an_observers_panic_costs_nothing() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let executor = builder(2).observer(move |_| {
        count.fetch_add(1, SeqCst);
        resume_unwind(Box::new("in the observer"));
    });
    let executor = executor.build().unwrap();
    let all = executor.all_settled(0..5, async |n| if n == 2 { Err(n) } else { Ok(n) });
    assert_eq!(kinds(&in_time(all).await), "ffrff");
    assert_eq!(told.load(SeqCst), 5 * 3 + 1);
}

#[tokio::test(start_paused = true)]
async fn an_observer_is_told_of_everything_in_order() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = events.clone();
    let executor = builder(2).observer(move |event| {
        log.lock().unwrap().push(match event {
            BatchEvent::Pulled { index, .. } => format!("pulled {index}"),
            BatchEvent::Started { index, .. } => format!("started {index}"),
            BatchEvent::Settled { report, .. } => report.to_string(),
            BatchEvent::Ended { summary, .. } => summary.to_string(),
            other => format!("{other:?}"),
        });
    });
    let executor = executor.build().unwrap().by_key(|_: &u64| ());
    let _ = in_time(executor.all_settled([3, 4], async |ms| {
        sleep(MS * ms as u32).await;
        Err::<(), _>(())
    }))
    .await;
    let expected = [
        "pulled 0",
        "started 0",
        "pulled 1",
        "item 0 rejected, 0ns queued, 3ms running",
        "started 1",
        "item 1 rejected, 3ms queued, 4ms running",
        "0 fulfilled, 2 rejected; exhausted",
    ];
    assert_eq!(*events.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn reports_tell_how_long_each_item_waited_and_ran() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let reports = log.clone();
    let executor = builder(2).observer(move |event| {
        if let BatchEvent::Settled { report, .. } = event {
            log.lock().unwrap().push((report.index, report.kind, report.queued, report.running));
        }
    });
    let executor = executor.build().unwrap().by_weight(|_: &u32| 2);
    let all = executor.all_settled([5, 7], async |ms| {
        sleep(MS * ms).await;
        Ok::<_, ()>(())
    });
    assert_eq!(in_time(all).await.to_string(), "2 fulfilled");
    let fulfilled = SettledKind::Fulfilled;
    let expected = [(0, fulfilled, Duration::ZERO, MS * 5), (1, fulfilled, MS * 5, MS * 7)];
    assert_eq!(*reports.lock().unwrap(), expected);
}

// Slots.

#[tokio::test(start_paused = true)]
async fn what_settled_before_the_run_was_dropped_survives_in_the_slots() {
    let mut slots = vec![Some(Err(ItemError::Rejected("of another batch")))];
    let executor = builder(2).build().unwrap();
    let run = executor.settle_into(&mut slots, [5, 500, 6, 500], async |ms| {
        sleep(MS * ms).await;
        Ok(ms)
    });
    assert!(timeout(MS * 100, run).await.is_err());
    let there: Vec<_> = slots.iter().map(Option::is_some).collect();
    assert_eq!(there, [true, true, false, true]);

    let summary = in_time(executor.settle_into(&mut slots, [1, 2], async |n| Ok(n))).await;
    assert!(summary.is_complete());
    assert_eq!(slots.len(), 6);
}

/// Promised: `pulled − settled ≤ limit`.
#[tokio::test(start_paused = true)]
async fn what_is_pulled_and_not_settled_never_exceeds_the_limit() {
    let semaphore = Arc::new(Semaphore::new(4));
    for limit in [1, 3, 7] {
        let executor = builder(limit).semaphore(Arc::clone(&semaphore)).build().unwrap();
        let (pulled, settled, most) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let inputs = (0..50).inspect(|_| {
            pulled.set(pulled.get() + 1);
            most.set(most.get().max(pulled.get() - settled.get()));
        });
        let run = executor.by_key(|n: &u32| n % 5).all_settled(inputs, async |n| {
            sleep(MS * (n % 7)).await;
            settled.set(settled.get() + 1);
            Ok::<_, ()>(())
        });
        assert!(in_time(run).await.summary().is_complete());
        assert_eq!(most.get(), limit);
    }
}

/// What is ready by the time of an abort counts, also if it comes from a nested run.
#[tokio::test]
async fn an_aborted_item_gets_on_with_its_permit_for_the_last_time() {
    let (token, semaphore) = (StopToken::new(), Arc::new(Semaphore::new(1)));
    let outer = BatchExecutor::builder().semaphore(Arc::clone(&semaphore)).stop(token.clone());
    let (outer, inner) = (outer.build().unwrap(), on_semaphore(&semaphore));
    let open = Cell::new(false);
    let mut run = Box::pin(outer.all_settled([()], async |()| {
        poll_fn(|_| if open.get() { Poll::Ready(()) } else { Poll::Pending }).await;
        Ok::<_, ()>(inner.all_settled(0..3, async |n| Ok::<_, ()>(n)).await.len())
    }));
    assert!(run.as_mut().now_or_never().is_none());
    open.set(true);
    token.stop(Stop::Abort);
    let outcomes = run.await;
    assert!(matches!(outcomes[0], Ok(3)), "{:?}", outcomes[0]);
    assert_eq!(semaphore.available_permits(), 1);
}
