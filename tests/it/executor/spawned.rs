//! The spawned flavour by example, on workers and on one thread: outcomes, streams, stops, keys,
//! what is left of the input, and a scripted batch against a sequential oracle.
#![cfg(feature = "tokio")]

use crate::outcome::{Outcome, text};
use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use proptest::prelude::*;
use sluicegate::{
    BatchEnd, BatchEvent, BatchExecutor, ItemError, Semaphore, Stop, StopToken, all_fulfilled,
};
use tokio::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);

fn executor(limit: usize) -> BatchExecutor {
    BatchExecutor::new(limit).unwrap()
}

/// Fails instead of hanging.
async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(120), future).await.expect("it hangs")
}

/// Counts those that live.
#[derive(Debug)]
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_are_joined_in_input_order() {
    for limit in [1, 2, 3, 64] {
        let batch = executor(limit).spawn(0..5_000_u64, async |n| {
            if n % 3 == 0 {
                tokio::task::yield_now().await;
            }
            if n % 10 == 7 { Err(n) } else { Ok(n) }
        });
        let joined = in_time(batch.join()).await;
        assert_eq!(
            joined.outcomes.summary().to_string(),
            "4500 fulfilled, 500 rejected; exhausted"
        );
        for (index, outcome) in joined.outcomes.into_iter().enumerate() {
            let (Ok(n) | Err(n)) = outcome.map_err(|error| match error {
                sluicegate::ItemError::Rejected(n) => n,
                other => panic!("{other:?}"),
            });
            assert_eq!(n as usize, index);
        }
        assert_eq!((joined.rest, joined.not_started.len()), (Some(5_000..5_000), 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limit_one_is_strictly_in_input_order() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let started = log.clone();
    let batch = executor(1).spawn(0..1_000, move |n| {
        started.lock().unwrap().push(n);
        async {
            tokio::task::yield_now().await;
            Ok::<_, ()>(())
        }
    });
    assert!(in_time(batch.join()).await.outcomes.summary().is_complete());
    assert_eq!(*log.lock().unwrap(), (0..1_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_give_every_outcome_once_in_order_or_as_completed() {
    for in_order in [true, false] {
        let batch = executor(8).spawn(0..2_000_usize, async |n| {
            for _ in 0..n % 5 {
                tokio::task::yield_now().await;
            }
            Ok::<_, ()>(n)
        });
        let mut outcomes = if in_order { batch.into_ordered_stream() } else { batch.into_stream() };
        let mut seen = Vec::new();
        while let Some((index, outcome)) = in_time(outcomes.next()).await {
            assert_eq!(outcome.ok(), Some(index));
            seen.push(index);
        }
        if !in_order {
            seen.sort_unstable();
        }
        assert_eq!(seen, (0..2_000).collect::<Vec<_>>());
        let finished = outcomes.finish().unwrap();
        assert!(finished.summary.is_complete());
        assert_eq!(finished.rest, Some(2_000..2_000));
    }
}

/// Two locks at once would be needed by a stream that is polled where its consumer is.
#[tokio::test(start_paused = true)]
async fn a_slow_consumer_and_a_lock_held_across_an_await_stall_nothing() {
    let lock = Arc::new(tokio::sync::Mutex::new(0));
    let held = lock.clone();
    let batch = executor(4).spawn(0..50, move |_| {
        let lock = held.clone();
        async move {
            let mut count = lock.lock().await;
            sleep(MS).await;
            *count += 1;
            Ok::<_, ()>(())
        }
    });
    let mut outcomes = batch.into_stream();
    let mut seen = 0;
    while outcomes.next().await.is_some() {
        let mut count = in_time(lock.lock()).await;
        sleep(MS * 10).await;
        *count += 1;
        seen += 1;
    }
    assert_eq!((seen, *lock.lock().await), (50, 100));
}

/// Of an endless input, with a consumer that takes a few outcomes and then none for long.
#[tokio::test(start_paused = true)]
async fn what_is_pulled_and_not_taken_from_a_stream_never_exceeds_the_limit() {
    for in_order in [true, false] {
        let pulled = Arc::new(AtomicUsize::new(0));
        let count = pulled.clone();
        let inputs = (0_u64..).inspect(move |_| {
            count.fetch_add(1, SeqCst);
        });
        let batch = executor(6).spawn(inputs, async |n| {
            sleep(MS * (n % 4) as u32).await;
            Ok::<_, ()>(n)
        });
        let mut outcomes = if in_order { batch.into_ordered_stream() } else { batch.into_stream() };
        for taken in 0..40 {
            if taken % 10 == 0 {
                sleep(MS * 1_000).await;
                assert_eq!(pulled.load(SeqCst), taken + 6);
            }
            assert!(in_time(outcomes.next()).await.is_some());
        }
        drop(outcomes);
        sleep(MS).await;
        let at_last = pulled.load(SeqCst);
        sleep(MS * 1_000).await;
        assert_eq!(pulled.load(SeqCst), at_last);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_stop_everything_pulled_has_its_outcome_and_the_rest_is_back_untouched() {
    for how in [Stop::Drain, Stop::Abort] {
        for limit in [1, 5, 64] {
            let alive = Arc::new(AtomicUsize::new(0));
            let (count, seen) = (alive.clone(), Arc::new(AtomicUsize::new(0)));
            let (progress, stop) = (seen.clone(), StopToken::new());
            let executor = BatchExecutor::builder().limit(limit).stop(stop.clone()).build();
            let inputs = (0..1_000_000_usize).map(move |n| (n, Alive::new(&count)));
            let batch = executor.unwrap().spawn(inputs, move |(n, alive)| {
                let (progress, stop) = (progress.clone(), stop.clone());
                async move {
                    tokio::task::yield_now().await;
                    if progress.fetch_add(1, SeqCst) == 3_000 {
                        stop.stop(how);
                    }
                    drop(alive);
                    Ok::<_, ()>(n)
                }
            });
            let joined = in_time(batch.join()).await;
            assert!(matches!(joined.outcomes.end(), BatchEnd::Stopped));
            let (all, not_started) = (joined.outcomes, joined.not_started);
            let mut never = not_started.iter().map(|(index, (n, _))| {
                assert_eq!(index, n);
                *n
            });
            for (index, outcome) in all.iter().enumerate() {
                match outcome {
                    Ok(n) => assert_eq!(*n, index),
                    Err(ItemError::Cancelled { started: false, .. }) => {
                        assert_eq!(never.next(), Some(index));
                    }
                    other => assert!(other.is_cancelled()),
                }
            }
            assert_eq!(never.next(), None);
            let cancelled = all.iter().filter(|outcome| outcome.is_cancelled()).count();
            assert!(cancelled <= if how == Stop::Drain { 0 } else { limit });
            assert_eq!(alive.load(SeqCst), not_started.len());
            let next = joined.rest.unwrap().next().unwrap().0;
            assert_eq!(next, all.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_handle_or_the_stream_stops_and_accounts_for_everything() {
    for streamed in [false, true] {
        let semaphore = Arc::new(Semaphore::new(7));
        let (alive, (told, mut ended)) =
            (Arc::new(AtomicUsize::new(0)), tokio::sync::mpsc::unbounded_channel());
        let observed = Arc::new(AtomicUsize::new(0));
        let (settled, inputs) = (observed.clone(), alive.clone());
        let executor = BatchExecutor::builder()
            .limit(10)
            .semaphore(semaphore.clone())
            .observer(move |event| match event {
                BatchEvent::Settled { .. } => {
                    settled.fetch_add(1, SeqCst);
                }
                BatchEvent::Ended { summary, .. } => told.send(summary.counts()).unwrap(),
                _ => {}
            })
            .build()
            .unwrap();
        let batch = executor.spawn((0..100).map(move |_| Alive::new(&inputs)), async |alive| {
            pending::<()>().await;
            drop(alive);
            Ok::<_, ()>(())
        });
        while semaphore.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        if streamed {
            drop(batch.into_stream())
        } else {
            drop(batch)
        }
        let counts = in_time(ended.recv()).await.unwrap();
        assert_eq!(counts.total(), counts.cancelled);
        assert_eq!((counts.total(), semaphore.available_permits()), (observed.load(SeqCst), 7));
        // What the observer is told comes from the last worker, before it is gone.
        in_time(async {
            while alive.load(SeqCst) > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[test]
fn workers_that_a_runtime_drops_account_for_what_they_had_in_hand() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    let inputs = alive.clone();
    let batch = runtime.block_on(async {
        let inputs = (0..100).map(move |_| Alive::new(&inputs));
        let batch = executor(10).spawn(inputs, async |alive| {
            pending::<()>().await;
            drop(alive);
            Ok::<_, ()>(())
        });
        while alive.load(SeqCst) < 10 {
            tokio::task::yield_now().await;
        }
        batch
    });
    drop(runtime);
    let joined = futures_util::FutureExt::now_or_never(batch.join()).unwrap();
    let outcomes = joined.outcomes;
    assert!(!outcomes.is_empty() && outcomes.iter().all(Outcome::is_cancelled));
    assert_eq!(alive.load(SeqCst), joined.not_started.len());
    assert!(matches!(outcomes.end(), BatchEnd::Stopped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_panics_leaves_what_settled_intact() {
    for limit in [1, 8] {
        let inputs = (0..1_000).inspect(|&n| {
            if n == 700 {
                resume_unwind(Box::new("in the source"));
            }
        });
        let joined = in_time(executor(limit).spawn(inputs, async |n| Ok::<_, ()>(n)).join()).await;
        assert!(joined.rest.is_none());
        let (outcomes, summary) = joined.outcomes.into_parts();
        assert_eq!(all_fulfilled(outcomes).unwrap(), (0..700).collect::<Vec<_>>());
        let BatchEnd::SourcePanicked(panic) = summary.into_end() else { panic!("not told") };
        assert_eq!(panic.message(), Some("in the source"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_of_one_key_never_overlap_and_never_swap() {
    let log = Arc::new(Mutex::new((BTreeMap::new(), BTreeMap::new())));
    let shared = log.clone();
    let keyed = executor(16).by_key(|n: &u32| n * n % 23);
    let batch = keyed.spawn(0..20_000, move |n: u32| {
        let (log, key) = (shared.clone(), n * n % 23);
        {
            let (running, last) = &mut *log.lock().unwrap();
            assert_eq!(running.insert(key, n), None, "two of one key");
            assert!(last.insert(key, n) < Some(n), "out of order");
        }
        async move {
            for _ in 0..n % 3 {
                tokio::task::yield_now().await;
            }
            log.lock().unwrap().0.remove(&key);
            Ok::<_, ()>(())
        }
    });
    let joined = in_time(batch.join()).await;
    assert_eq!(joined.outcomes.summary().to_string(), "20000 fulfilled; exhausted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_and_failures_count_over_all_workers() {
    let (load, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (load.clone(), most.clone());
    let weighed = executor(10).by_weight(|n: &usize| (n % 7) as u32);
    let batch = weighed.spawn(0..3_000_usize, move |n| {
        let (now, peak, weight) = (now.clone(), peak.clone(), (n % 7).max(1));
        async move {
            peak.fetch_max(now.fetch_add(weight, SeqCst) + weight, SeqCst);
            tokio::task::yield_now().await;
            now.fetch_sub(weight, SeqCst);
            Ok::<_, ()>(())
        }
    });
    assert!(in_time(batch.join()).await.outcomes.summary().is_complete());
    assert!(most.load(SeqCst) <= 10, "{most:?}");

    let failing = BatchExecutor::builder().limit(4).stop_when(10, Stop::Drain).build().unwrap();
    let joined = in_time(failing.spawn(0.., async |n: u64| Err::<(), _>(n)).join()).await;
    let count = joined.outcomes.len();
    assert!((10..10 + 4).contains(&count), "{count}");
    assert!(matches!(joined.outcomes.end(), BatchEnd::TooManyFailures));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_inputs_is_polled_when_it_says_so() {
    let inputs = stream::unfold(0_u64, |n| async move {
        if n % 3 == 0 {
            tokio::task::yield_now().await;
        }
        (n < 3_000).then_some((n, n + 1))
    });
    let batch = executor(16).spawn_stream(inputs, async |n| Ok::<_, ()>(n));
    let all = all_fulfilled(in_time(batch.join()).await.outcomes).unwrap();
    assert_eq!(all, (0..3_000).collect::<Vec<_>>());

    let silent = executor(4).spawn_stream(stream::pending::<u8>(), async |n| Ok::<_, ()>(n));
    silent.stop(Stop::Drain);
    assert!(in_time(silent.join()).await.outcomes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn time_limits_are_kept_on_workers() {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let log = reports.clone();
    let executor = BatchExecutor::builder()
        .limit(5)
        .item_timeout(MS * 51)
        .timeout(MS * 121)
        .observer(move |event| {
            if let BatchEvent::Settled { report, .. } = event {
                log.lock().unwrap().push(report);
            }
        })
        .build()
        .unwrap();
    let batch = executor.spawn([20_u32, 500, 40, 30, 10, 500, 500, 500].into_iter(), async |ms| {
        sleep(MS * ms).await;
        Ok::<_, ()>(())
    });
    let all = in_time(batch.join()).await.outcomes;
    assert!(all[1].is_timed_out());
    assert_eq!(all.summary().counts().fulfilled, 4);
    let reports = reports.lock().unwrap();
    assert_eq!(reports.len(), all.len());
    assert!(reports.iter().any(|report| report.index == 2 && report.running == MS * 40));
}

// Scripted, with every option, on one thread under paused time and on workers that are polled by
// hand: what an item's script says is its outcome, whatever the others do.

#[derive(Debug, Clone, Copy)]
enum Script {
    Ready,
    Yields(u8),
    Sleeps(u8),
    Rejects,
    PanicsInClosure,
    PanicsInPoll,
    PanicsInDrop,
    Hangs,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Consumer {
    Join,
    Stream,
    Ordered,
}

#[derive(Debug, Clone)]
struct Case {
    scripts: Vec<Script>,
    limit: usize,
    workers: usize,
    keys: Option<u8>,
    weighed: bool,
    semaphore: Option<usize>,
    consumer: Consumer,
    /// After so many milliseconds.
    stop: Option<(u64, Stop)>,
    abandon: Option<u64>,
    source_panics_at: Option<usize>,
}

/// Outcomes that nobody wants any more, with the handle or a stream of either kind. Two of them,
/// dropped by one list, would end the process.
///
/// Seen to abort when `BatchShared::abandon` drops them as a list does.
#[tokio::test(start_paused = true)]
async fn outcomes_that_panic_when_dropped_end_nothing_but_their_batch() {
    struct Brittle(Arc<AtomicUsize>);
    impl Drop for Brittle {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
            resume_unwind(Box::new("in drop"));
        }
    }
    for (streamed, ordered) in [(false, false), (true, false), (true, true)] {
        let dropped = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&dropped);
        let batch = executor(4).spawn(0..4, move |n| {
            let brittle = Brittle(Arc::clone(&count));
            async move {
                sleep(MS * if n == 3 { 100 } else { 1 }).await;
                Ok::<_, ()>(brittle)
            }
        });
        sleep(MS * 10).await;
        match (streamed, ordered) {
            (false, _) => drop(batch),
            (true, false) => drop(batch.into_stream()),
            (true, true) => drop(batch.into_ordered_stream()),
        }
        sleep(MS * 200).await;
        assert_eq!(dropped.load(SeqCst), 4);
    }
}

/// Panics when it is dropped, if it is told to.
struct Guard(bool, #[allow(dead_code)] Alive);

impl Drop for Guard {
    fn drop(&mut self) {
        if self.0 {
            resume_unwind(Box::new("in drop"));
        }
    }
}

fn oracle(script: Script) -> &'static str {
    match script {
        Script::Rejects => "rejected: no",
        Script::PanicsInClosure => "panicked: in the closure",
        Script::PanicsInPoll => "panicked: in poll",
        // Its guard is dropped in its last poll.
        Script::PanicsInDrop => "panicked: in drop",
        Script::Hangs => "timed out",
        _ => "fulfilled",
    }
}

async fn check(case: Case) {
    let alive = Arc::new(AtomicUsize::new(0));
    let running = Arc::new(Mutex::new((0_usize, 0_usize)));
    let pulled = Arc::new(AtomicUsize::new(0));
    let semaphore = case.semaphore.map(|permits| Arc::new(Semaphore::new(permits)));
    let mut builder =
        BatchExecutor::builder().limit(case.limit).item_timeout(MS * 301).observer(|_| {
            resume_unwind(Box::new("in the observer"));
        });
    if let Some(semaphore) = &semaphore {
        builder = builder.semaphore(semaphore.clone());
    }
    let (scripts, at, count, inputs_alive) =
        (case.scripts.clone(), case.source_panics_at, pulled.clone(), alive.clone());
    let inputs = scripts.into_iter().enumerate().map(move |(index, script)| {
        if at == Some(index) {
            resume_unwind(Box::new("in the source"));
        }
        count.fetch_add(1, SeqCst);
        (index, script, Alive::new(&inputs_alive))
    });
    let most = running.clone();
    let f = move |(index, script, alive): (usize, Script, Alive)| {
        let guard = Guard(matches!(script, Script::PanicsInDrop), alive);
        if let Script::PanicsInClosure = script {
            resume_unwind(Box::new("in the closure"));
        }
        let most = most.clone();
        async move {
            let _guard = guard;
            {
                let mut most = most.lock().unwrap();
                most.0 += 1;
                most.1 = most.1.max(most.0);
            }
            let result = match script {
                Script::Yields(times) => {
                    for _ in 0..times {
                        tokio::task::yield_now().await;
                    }
                    Ok(index)
                }
                Script::Sleeps(ms) => {
                    sleep(MS * u32::from(ms)).await;
                    Ok(index)
                }
                Script::Rejects => Err("no"),
                Script::PanicsInPoll => {
                    most.lock().unwrap().0 -= 1;
                    resume_unwind(Box::new("in poll"))
                }
                Script::Hangs => {
                    // Cut short by its limit, or by a stop.
                    most.lock().unwrap().0 -= 1;
                    pending().await
                }
                _ => Ok(index),
            };
            most.lock().unwrap().0 -= 1;
            result
        }
    };
    let spawn = |work| drop(tokio::spawn(work));
    let executor = builder.build().unwrap();
    let keys = case.keys.unwrap_or(1);
    let batch = match (case.keys.is_some(), case.weighed) {
        (false, false) => executor.spawn_on(case.workers, inputs, f, spawn),
        (true, false) => executor
            .by_key(move |(index, ..): &(usize, Script, Alive)| index % usize::from(keys))
            .spawn_on(case.workers, inputs, f, spawn),
        (false, true) => executor
            .by_weight(|(index, ..): &(usize, Script, Alive)| (index % 4) as u32)
            .spawn_on(case.workers, inputs, f, spawn),
        (true, true) => executor
            .by_key(move |(index, ..): &(usize, Script, Alive)| index % usize::from(keys))
            .by_weight(|(index, ..): &(usize, Script, Alive)| (index % 4) as u32)
            .spawn_on(case.workers, inputs, f, spawn),
    };
    let token = batch.stop_token();
    let stopping = async {
        if let Some((after, how)) = case.stop {
            sleep(MS * after as u32).await;
            token.stop(how);
        }
        pending::<()>().await;
    };
    let consumer = case.consumer;
    let consuming = async {
        let mut outcomes = BTreeMap::new();
        let (summary, rest, not_started) = match consumer {
            Consumer::Join => {
                let joined = batch.join().await;
                let (list, summary) = joined.outcomes.into_parts();
                outcomes.extend(list.into_iter().enumerate());
                (summary, joined.rest, joined.not_started)
            }
            _ => {
                let ordered = consumer == Consumer::Ordered;
                let mut stream =
                    if ordered { batch.into_ordered_stream() } else { batch.into_stream() };
                while let Some((index, outcome)) = stream.next().await {
                    assert!(!ordered || index == outcomes.len(), "out of order");
                    assert!(outcomes.insert(index, outcome).is_none(), "twice");
                    sleep(MS).await;
                }
                let finished = stream.finish().unwrap();
                (finished.summary, finished.rest, finished.not_started)
            }
        };
        (outcomes, summary, rest, not_started)
    };
    let done = async {
        tokio::select! {
            done = consuming => Some(done),
            () = stopping => None,
            () = async {
                match case.abandon {
                    Some(after) => sleep(MS * after as u32).await,
                    None => pending().await,
                }
            } => None,
        }
    };
    let done = in_time(done).await;
    let stopped = done.is_none();
    if let Some((outcomes, summary, rest, not_started)) = done {
        let pulled = pulled.load(SeqCst);
        assert_eq!(outcomes.len(), pulled);
        assert_eq!(summary.pulled(), pulled);
        for (index, outcome) in &outcomes {
            let shown = text(outcome);
            let cut = matches!(case.stop, Some((_, Stop::Abort))) && outcome.is_cancelled();
            assert!(cut || shown == oracle(case.scripts[*index]), "{index}: {shown}");
            if let Ok(value) = outcome {
                assert_eq!(value, index);
            }
        }
        assert!(outcomes.values().filter(|outcome| outcome.is_cancelled()).count() <= case.limit);
        assert_eq!(alive.load(SeqCst), not_started.len());
        let left = rest.map_or(0, |rest| rest.len());
        match summary.end() {
            BatchEnd::Exhausted => assert_eq!(pulled, case.scripts.len()),
            BatchEnd::SourcePanicked(_) => assert_eq!(Some(pulled), case.source_panics_at),
            BatchEnd::Stopped => assert_eq!(pulled + left, case.scripts.len()),
            other => panic!("{other}"),
        }
    }
    // When it was abandoned, its workers have still to notice.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(alive.load(SeqCst), 0, "abandoned: {stopped}");
    if let Some(semaphore) = semaphore {
        assert_eq!(semaphore.available_permits(), case.semaphore.unwrap());
    }
    let most = running.lock().unwrap().1;
    let bound = case.limit.min(case.semaphore.unwrap_or(usize::MAX));
    assert!(most <= bound, "{most} ran");
}

fn cases() -> impl Strategy<Value = Case> {
    let script = prop_oneof![
        3 => Just(Script::Ready),
        3 => (1..4_u8).prop_map(Script::Yields),
        3 => (0..9_u8).prop_map(Script::Sleeps),
        1 => Just(Script::Rejects),
        1 => Just(Script::PanicsInClosure),
        1 => Just(Script::PanicsInPoll),
        1 => Just(Script::PanicsInDrop),
        1 => Just(Script::Hangs),
    ];
    let consumer =
        prop_oneof![Just(Consumer::Join), Just(Consumer::Stream), Just(Consumer::Ordered)];
    let how = prop_oneof![Just(Stop::Drain), Just(Stop::Abort)];
    let shape = (prop::collection::vec(script, 0..60), 1..9_usize, 1..4_usize, consumer);
    let order = (prop::option::of(1..5_u8), any::<bool>(), prop::option::of(1..5_usize));
    let cuts = (
        prop::option::weighted(0.4, (0..20_u64, how)),
        prop::option::weighted(0.2, 0..20_u64),
        prop::option::weighted(0.2, 0..60_usize),
    );
    (shape, order, cuts).prop_map(
        |((scripts, limit, workers, consumer), (keys, weighed, semaphore), cuts)| {
            let (stop, abandon, source_panics_at) = cuts;
            Case {
                scripts,
                limit,
                workers,
                keys,
                weighed,
                semaphore,
                consumer,
                stop,
                abandon,
                source_panics_at,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_input_has_the_outcome_its_script_says(case in cases()) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(check(case));
    }
}

/// Polls a worker or a stream with a waker that does nothing.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// The stream is pending and says at once that it is not, until another task of the thread has had
/// its turn.
#[tokio::test]
async fn a_stream_that_wakes_itself_lets_other_tasks_run() {
    let turns = Arc::new(AtomicUsize::new(0));
    let (polls, taken) = (AtomicUsize::new(0), Arc::clone(&turns));
    let inputs = stream::poll_fn(move |cx| {
        cx.waker().wake_by_ref();
        let too_often = polls.fetch_add(1, SeqCst) > 100_000;
        assert!(!too_often, "the worker keeps the thread for itself");
        if taken.load(SeqCst) > 0 { Poll::Ready(None) } else { Poll::<Option<u32>>::Pending }
    });
    let batch = executor(4).spawn_stream(inputs, async |n| Ok::<_, ()>(n));
    tokio::task::yield_now().await;
    turns.fetch_add(1, SeqCst);
    let joined = in_time(batch.join()).await;
    assert!(joined.outcomes.summary().is_complete(), "{}", joined.outcomes.summary());
}

#[test]
fn an_input_for_a_worker_that_was_dropped_meanwhile_has_its_outcome() {
    type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
    let works: Arc<Mutex<Vec<Option<Work>>>> = Arc::default();
    let second = Arc::clone(&works);
    // The other worker goes while the input is away, and some of what is pulled then is its.
    let inputs = (0..32_u32).inspect(move |&n| {
        if n == 2 {
            let gone = second.lock().unwrap()[1].take();
            drop(gone);
        }
    });
    let batch = executor(64).by_key(|n: &u32| *n).spawn_on(
        2,
        inputs,
        async |n| Ok::<_, ()>(n),
        |work| works.lock().unwrap().push(Some(work)),
    );
    let mut first = works.lock().unwrap()[0].take().unwrap();
    let mut outcomes = batch.into_ordered_stream();
    let mut seen = 0;
    let mut ended = false;
    while !ended {
        ended = poll_once(&mut first).is_some();
        while let Some(Some((index, _))) = poll_once(&mut outcomes.next()) {
            assert_eq!(index, seen);
            seen += 1;
        }
    }
    let finished = outcomes.finish().expect("everything that was pulled was taken");
    assert_eq!(finished.summary.pulled(), seen);
    assert_eq!(finished.rest.unwrap().count() + seen, 32);
}

#[test]
fn nothing_is_pulled_after_a_stop_not_even_to_complete_a_chunk() {
    let (token, late) = (StopToken::new(), Arc::new(AtomicUsize::new(0)));
    let (stop, count) = (token.clone(), Arc::clone(&late));
    let inputs = (0..100_000).inspect(move |&n| {
        count.fetch_add(usize::from(stop.stopped().is_some()), SeqCst);
        if n == 50_000 {
            stop.stop(Stop::Drain);
        }
    });
    let stopped = BatchExecutor::builder().limit(10_000).stop(token).build().unwrap();
    let mut works = Vec::new();
    let batch = stopped.spawn_on(2, inputs, async |n| Ok::<_, ()>(n), |work| works.push(work));
    while !works.is_empty() {
        works.retain_mut(|work| poll_once(work).is_none());
    }
    let joined = poll_once(&mut Box::pin(batch.join())).unwrap();
    assert_eq!((joined.outcomes.len(), late.load(SeqCst)), (50_001, 0));
    assert_eq!(joined.rest.unwrap().count(), 49_999);
}

/// A stream that keeps the waker that it was last polled with, and is never ready.
struct Sleeper(Option<Waker>, #[allow(dead_code)] Alive);

impl stream::Stream for Sleeper {
    type Item = u32;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u32>> {
        self.0 = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[tokio::test]
async fn a_stream_that_keeps_its_waker_goes_with_its_batch() {
    for ended_first in [false, true] {
        let alive = Arc::new(AtomicUsize::new(0));
        let inputs = Sleeper(None, Alive::new(&alive));
        let batch = executor(2).spawn_stream(inputs, async |n| Ok::<_, ()>(n));
        tokio::task::yield_now().await;
        if ended_first {
            let mut outcomes = batch.into_stream();
            outcomes.stop(Stop::Drain);
            assert!(in_time(outcomes.next()).await.is_none());
            drop(outcomes);
        } else {
            drop(batch);
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(alive.load(SeqCst), 0);
    }
}
