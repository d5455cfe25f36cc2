//! What the batchers allocate in the steady state: a fixed number of times for each batch at the
//! most, never for an item or its answer, and for a key that comes anew no more than its node.

#![cfg(feature = "tokio")]

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use sluicegate::batcher::{
    Batch, Batcher, Call, CallError, Caller, Driver, KeyedBatch, KeyedBatcher,
};

const MAX_ITEMS: usize = 500;

fn batcher() -> (Batcher<u64>, Driver) {
    Batcher::builder()
        .max_items(MAX_ITEMS)
        .capacity(2 * MAX_ITEMS)
        .dead_letter(|_: Vec<u64>, _| {})
        .build_with_driver(|batch: Batch<u64>| async move {
            drop(batch);
            Ok::<(), std::convert::Infallible>(())
        })
        .unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn run(driver: &mut Driver) {
    let polled = Pin::new(driver).poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
}

/// Fills the batcher, has some wait in line, and runs it until those are let in.
fn rush(batcher: &Batcher<u64>, driver: &mut Driver) {
    while batcher.try_send(0).is_ok() {}
    let mut cx = Context::from_waker(Waker::noop());
    let mut line = [(); 16].map(|()| batcher.send(1));
    for sending in &mut line {
        assert!(Pin::new(sending).poll(&mut cx).is_pending());
    }
    run(driver);
    for sending in &mut line {
        assert!(Pin::new(sending).poll(&mut cx).is_ready());
    }
}

#[test]
fn nothing_is_allocated_for_an_item_and_next_to_nothing_for_a_batch() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (batcher, mut driver) = batcher();
    run(&mut driver);
    let first = measure(|| rush(&batcher, &mut driver));
    assert!(first.count_total > 0, "the first makes the vectors, or nothing is counted");
    for _ in 0..3 {
        rush(&batcher, &mut driver);
    }
    let before = batcher.stats();
    let steady = measure(|| (0..10).for_each(|_| rush(&batcher, &mut driver)));
    let after = batcher.stats();
    let batches = after.batches.total() - before.batches.total();
    assert!(after.accepted - before.accepted >= batches * MAX_ITEMS as u64);
    // A list of the wakers of those in line who are woken together.
    assert!(steady.count_total <= batches, "{steady:?} for {batches} batches");
}

const KEYS: u64 = 32;
const PER_KEY: usize = 8;

fn keyed(max_keys: usize) -> (KeyedBatcher<u64, u64>, Driver) {
    Batcher::keyed(max_keys)
        .max_items(PER_KEY)
        .capacity(4 * KEYS as usize * PER_KEY)
        .window(std::time::Duration::from_secs(3600))
        .dead_letter(|_: &u64, _: Vec<u64>, _| {})
        .build_with_driver(|batch: KeyedBatch<u64, u64>| async move {
            drop(batch);
            Ok::<(), std::convert::Infallible>(())
        })
        .unwrap()
}

/// So many items under each key, a batch or part of one, and handled as far as they are batches.
fn round(batcher: &KeyedBatcher<u64, u64>, driver: &mut Driver, items: usize) {
    for item in 0..items as u64 {
        for key in 0..KEYS {
            batcher.try_send(key, item).unwrap();
        }
    }
    // It lets others run after so many batches.
    run(driver);
    run(driver);
}

#[test]
fn nothing_is_allocated_for_an_item_under_a_key_that_stays() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (batcher, mut driver) = keyed(KEYS as usize);
    run(&mut driver);
    // Something of each key is pending all the time.
    let first = measure(|| round(&batcher, &mut driver, PER_KEY / 2));
    assert!(first.count_total > 0, "the first makes the lanes, or nothing is counted");
    for _ in 0..3 {
        round(&batcher, &mut driver, PER_KEY);
    }
    let before = batcher.stats();
    let steady = measure(|| (0..10).for_each(|_| round(&batcher, &mut driver, PER_KEY)));
    assert_eq!(batcher.stats().delivered - before.delivered, 10 * KEYS * PER_KEY as u64);
    assert_eq!(batcher.stats().pending, KEYS * PER_KEY as u64 / 2);
    assert_eq!(steady.count_total, 0, "{steady:?}");
}

#[test]
fn for_a_key_that_comes_anew_its_node_is_allocated_and_nothing_else() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (batcher, mut driver) = keyed(KEYS as usize);
    run(&mut driver);
    for _ in 0..4 {
        round(&batcher, &mut driver, PER_KEY);
    }
    assert_eq!((batcher.keys(), batcher.stats().pending), (0, 0), "all keys are gone");
    let steady = measure(|| (0..10).for_each(|_| round(&batcher, &mut driver, PER_KEY)));
    assert!(steady.count_total <= 10 * KEYS, "{steady:?}");
    assert_eq!((steady.count_current, steady.bytes_current), (0, 0), "{steady:?}");
}

#[test]
fn for_a_key_that_is_evicted_its_node_is_allocated_and_nothing_else() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (batcher, mut driver) = keyed(KEYS as usize / 2);
    run(&mut driver);
    for _ in 0..8 {
        round(&batcher, &mut driver, 1);
    }
    let before = batcher.stats().batches.evicted;
    let steady = measure(|| (0..10).for_each(|_| round(&batcher, &mut driver, 1)));
    assert_eq!(batcher.stats().batches.evicted - before, 10 * KEYS);
    assert!(steady.count_total <= 10 * KEYS, "{steady:?}");
    assert_eq!((steady.count_current, steady.bytes_current), (0, 0), "{steady:?}");
}

const CALLERS: usize = 64;

/// As many callers as make a batch, of whom some leave before it is answered.
fn calls<F, I>(call: impl Fn(u64) -> F, driver: &mut Driver, leaving: usize)
where
    F: Future<Output = Result<u64, CallError<I>>> + Unpin,
{
    let mut cx = Context::from_waker(Waker::noop());
    let mut callers: [Option<F>; CALLERS] = std::array::from_fn(|n| Some(call(n as u64)));
    for caller in callers.iter_mut().flatten() {
        assert!(Pin::new(caller).poll(&mut cx).is_pending());
    }
    callers[..leaving].fill_with(|| None);
    run(driver);
    for (n, caller) in (0..).zip(&mut callers) {
        let Some(caller) = caller else { continue };
        match Pin::new(caller).poll(&mut cx) {
            Poll::Ready(Ok(answer)) => assert_eq!(answer, n * n),
            other => panic!("{other:?}"),
        }
    }
}

/// What so many batches of calls allocate in the steady state.
fn of_calls<F, I>(
    call: impl Fn(u64) -> F,
    driver: &mut Driver,
    leaving: usize,
    batches: usize,
) -> u64
where
    F: Future<Output = Result<u64, CallError<I>>> + Unpin,
{
    run(driver);
    let first = measure(|| calls(&call, driver, leaving));
    assert!(first.count_total > 0, "the first makes the reply slots, or nothing is counted");
    for _ in 0..3 {
        calls(&call, driver, leaving);
    }
    let steady = measure(|| (0..batches).for_each(|_| calls(&call, driver, leaving)));
    assert_eq!((steady.count_current, steady.bytes_current), (0, 0), "{steady:?}");
    steady.count_total
}

fn squares() -> (Caller<u64, u64>, Driver) {
    Batcher::builder()
        .max_items(CALLERS)
        .build_caller_with_driver(|mut batch: Batch<Call<u64, u64>>| async move {
            batch.reply_with(|n| n * n);
            Ok::<(), std::convert::Infallible>(())
        })
        .unwrap()
}

#[test]
fn nothing_is_allocated_for_a_call_or_its_answer() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (batcher, mut driver) = squares();
    assert_eq!(of_calls(|n| batcher.call(n), &mut driver, 0, 10), 0);
}

#[test]
fn callers_that_leave_leave_nothing_behind() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (batcher, mut driver) = squares();
    // A list of the answers that nobody waits for, which grows by doubling.
    let leaving = CALLERS / 2;
    let growth = u64::from(leaving.ilog2());
    assert!(of_calls(|n| batcher.call(n), &mut driver, leaving, 10) <= 10 * growth);
}

/// Seen to fail with refused calls that keep their reply slot, and with calls given up in line that
/// keep theirs.
#[test]
fn calls_that_are_not_sent_leave_nothing_behind() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (caller, _driver) = Batcher::builder()
        .max_items(1)
        .capacity(1)
        .max_weight(5, |call: &Call<u64, u64>| *call.item())
        .build_caller_with_driver(|_: Batch<Call<u64, u64>>| async {
            Ok::<(), std::convert::Infallible>(())
        })
        .unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let mut sent = pin!(caller.call(1));
    assert!(sent.as_mut().poll(&mut cx).is_pending());
    let mut round = || {
        assert!(pin!(caller.call(1)).poll(&mut cx).is_pending());
        assert!(pin!(caller.call(6)).poll(&mut cx).is_ready());
    };
    round();
    let steady = measure(|| (0..1_000).for_each(|_| round()));
    assert_eq!((steady.count_current, steady.bytes_current), (0, 0), "{steady:?}");
}

/// Seen to fail with slots that count as owners of the replies that they lead to.
#[test]
fn a_batcher_of_calls_that_is_gone_leaves_nothing_behind() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let life = || {
        let (batcher, mut driver) = squares();
        run(&mut driver);
        for leaving in [0, CALLERS / 2] {
            calls(|n| batcher.call(n), &mut driver, leaving);
        }
        let kept = Arc::new(Mutex::new(None));
        let keeps = kept.clone();
        let (keeper, mut runs) = Batcher::builder()
            .max_items(1)
            .build_caller_with_driver(move |mut batch: Batch<Call<u64, u64>>| {
                *keeps.lock().unwrap() = batch.take().pop();
                async { Ok::<(), std::convert::Infallible>(()) }
            })
            .unwrap();
        {
            let mut call = std::pin::pin!(keeper.call(1));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(call.as_mut().poll(&mut cx).is_pending());
            run(&mut runs);
        }
        // Answered when there is no batcher any more.
        drop((keeper, runs));
        let call: Option<Call<u64, u64>> = kept.lock().unwrap().take();
        assert_eq!(call.map(|call| call.reply(1)), Some(1));
    };
    life();
    let second = measure(life);
    assert!(second.count_total > 0, "nothing is counted");
    assert_eq!((second.count_current, second.bytes_current), (0, 0), "{second:?}");
}

#[test]
fn for_calls_under_a_key_its_node_is_allocated_and_nothing_else() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (batcher, mut driver) = Batcher::keyed(1_000)
        .max_items(CALLERS)
        .build_caller_with_driver(|mut batch: KeyedBatch<u64, Call<u64, u64>>| async move {
            batch.reply_with(|n| n * n);
            Ok::<(), std::convert::Infallible>(())
        })
        .unwrap();
    assert!(of_calls(|n| batcher.call(7, n), &mut driver, 0, 10) <= 10);
}

/// Flushes and shutdowns that are dropped as they wait, and flushes of keys, leave nothing behind.
///
/// Seen to fail with a flush, and with a shutdown, that is dropped and stays in its list.
#[test]
fn flushes_and_shutdowns_that_leave_leave_nothing_behind() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let poll = |future: Pin<&mut dyn Future<Output = ()>>| {
        assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
    };
    let (batcher, _driver) = batcher();
    let (by_key, _keyed_driver) = keyed(10);
    batcher.try_send(1).unwrap();
    by_key.try_send(1, 1).unwrap();
    let round = |closes: bool| {
        for _ in 0..1_000 {
            poll(pin!(async { _ = batcher.flush().await }));
            poll(pin!(async { _ = by_key.flush().await }));
            poll(pin!(async { _ = by_key.flush_key(&1).await }));
            if closes {
                poll(pin!(async { drop(batcher.shutdown(None).await) }));
                poll(pin!(async { drop(by_key.shutdown(None).await) }));
            }
        }
    };
    for closes in [false, true] {
        round(closes);
        let left = measure(|| round(closes));
        assert_eq!((left.count_current, left.bytes_current), (0, 0), "closes: {closes}");
    }
}

/// Seen to fail with the notes of attempts that have ended kept while an older one goes on.
#[test]
fn attempts_that_end_beside_a_long_one_leave_nothing_behind() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let hour = std::time::Duration::from_secs(3_600);
    let (batcher, mut driver) = Batcher::builder()
        .max_items(1)
        .concurrency(2)
        .retry(sluicegate::Retry::none().into_builder().attempt_timeout(hour).build().unwrap())
        .dead_letter(|_: Vec<u64>, _| {})
        .build_with_driver(|batch: Batch<u64>| async move {
            if batch.first() == Some(&0) {
                std::future::pending::<()>().await;
            }
            drop(batch);
            Ok::<(), std::convert::Infallible>(())
        })
        .unwrap();
    batcher.try_send(0).unwrap();
    let mut round = || {
        for item in 1..1_000 {
            batcher.try_send(item).unwrap();
            run(&mut driver);
        }
    };
    round();
    let left = measure(round);
    assert_eq!(left.bytes_current, 0);
}
