//! Sending, handling batches, and calls.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hint::black_box;
use std::time::Duration;

use sluicegate::batcher::Call;
use sluicegate::{Batch, Batcher, KeyedBatch, KeyedBatcher};

use crate::{RUNTIME, row};

/// Batches are sealed by their number of items.
const WINDOW: Duration = Duration::from_secs(3600);

fn batcher(max_items: usize) -> Batcher<u64> {
    let builder = Batcher::builder().max_items(max_items).window(WINDOW).capacity(1_000);
    let handler = |mut batch: Batch<u64>| {
        black_box(batch.take());
        std::future::ready(Ok::<(), Infallible>(()))
    };
    builder.dead_letter(|_, _| unreachable!("nothing fails")).build(handler).expect("good limits")
}

pub(crate) fn rows() {
    let _runtime = RUNTIME.enter();
    for (name, max_items, operations) in [
        ("batcher: send and handle, batches of 100", 100, 10_000),
        ("batcher: send and handle, batches of 1", 1, 2_000),
    ] {
        let batcher = batcher(max_items);
        row(name, operations, |n| {
            RUNTIME.block_on(async {
                for item in 0..n {
                    assert!(batcher.send(item).await.is_ok());
                }
                assert!(batcher.flush().await.all_delivered());
            });
        });
    }
    let batches = batcher(100);
    row("batcher: try_send and handle, batches of 100", 100, |n| {
        RUNTIME.block_on(async {
            for _ in 0..n {
                for item in 0..100 {
                    assert!(batches.try_send(item).is_ok());
                }
                assert!(batches.flush().await.all_delivered());
            }
        });
    });
    row("batcher: reserve, send and handle, batches of 100", 10_000, |n| {
        RUNTIME.block_on(async {
            for item in 0..n {
                let slot = batches.reserve().await.expect("it is open");
                assert!(slot.send(item).is_ok());
            }
            assert!(batches.flush().await.all_delivered());
        });
    });
    row("batcher: send_many and handle, batches of 100", 10_000, |n| {
        RUNTIME.block_on(async {
            let mut items: VecDeque<u64> = (0..n).collect();
            assert!(batches.send_many(&mut items).await.is_ok());
            assert!(batches.flush().await.all_delivered());
        });
    });
    calls();
    keyed();
}

fn calls() {
    let answer = |mut batch: Batch<Call<u64, u64>>| {
        batch.reply_with(|item| item + 1);
        std::future::ready(Ok::<(), Infallible>(()))
    };
    let builder = Batcher::builder().max_items(64).window(WINDOW).eager_when_idle();
    let caller = builder.build_caller(answer).expect("good limits");
    row("batcher: call, one caller", 2_000, |n| {
        RUNTIME.block_on(async {
            for item in 0..n {
                assert_eq!(caller.call(item).await.ok(), Some(item + 1));
            }
        });
    });
    let full = Batcher::builder().max_items(64).window(WINDOW).build_caller(answer);
    let full = full.expect("good limits");
    row("batcher: 64 callers, one call each in turn", 50, |n| {
        RUNTIME.block_on(async {
            let callers: Vec<_> = (0..64)
                .map(|_| {
                    let caller = full.clone();
                    tokio::spawn(async move {
                        for item in 0..n {
                            assert_eq!(caller.call(item).await.ok(), Some(item + 1));
                        }
                    })
                })
                .collect();
            for caller in callers {
                caller.await.expect("it does not panic");
            }
        });
    });
}

fn keyed() {
    let batcher: KeyedBatcher<u64, u64> = Batcher::keyed(1_000)
        .max_items(10)
        .window(WINDOW)
        .capacity(10_000)
        .dead_letter(|_, _, _| unreachable!("nothing fails"))
        .build(|mut batch: KeyedBatch<u64, u64>| {
            black_box(batch.take());
            std::future::ready(Ok::<(), Infallible>(()))
        })
        .expect("good limits");
    row("keyed batcher: send and handle, 100 keys, batches of 10", 10_000, |n| {
        RUNTIME.block_on(async {
            for item in 0..n {
                assert!(batcher.send(item % 100, item).await.is_ok());
            }
            assert!(batcher.flush().await.all_delivered());
        });
    });
    row("keyed batcher: try_send and handle, 100 keys, batches of 10", 10, |n| {
        RUNTIME.block_on(async {
            for _ in 0..n {
                for item in 0..1_000 {
                    assert!(batcher.try_send(item % 100, item).is_ok());
                }
                assert!(batcher.flush().await.all_delivered());
            }
        });
    });
    row("keyed batcher: reserve, send and handle, 100 keys", 10_000, |n| {
        RUNTIME.block_on(async {
            for item in 0..n {
                let slot = batcher.reserve(item % 100).await.expect("it is open");
                assert!(slot.send(item).is_ok());
            }
            assert!(batcher.flush().await.all_delivered());
        });
    });
}
