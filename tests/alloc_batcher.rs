//! What the batcher allocates in the steady state: a fixed number of times for each batch at the
//! most, and never for an item.

#![cfg(all(feature = "tokio", not(loom)))]

use std::pin::Pin;
use std::task::{Context, Waker};

use allocation_counter::measure;
use sluicegate::batcher::{Batch, Batcher, Driver};

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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
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
