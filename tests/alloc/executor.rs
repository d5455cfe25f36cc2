//! What a batch allocates: nothing an item in the task, less than once an item spawned, and for an
//! endless input no more than for a short one.
#![cfg(feature = "tokio")]

use std::future::{Future, ready};
use std::hint::black_box;

use allocation_counter::{AllocationInfo, measure};
use sluicegate::BatchExecutor;

fn finish<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}

/// What so many items cost beyond what is allocated anyway: places, and the list of outcomes.
fn counted(items: u64, run: impl Fn(u64)) -> AllocationInfo {
    run(10);
    measure(|| run(items))
}

async fn gives_way(n: u64) -> Result<u64, ()> {
    tokio::task::yield_now().await;
    Ok(black_box(n))
}

#[test]
fn an_item_allocates_nothing_in_the_task() {
    let executor = BatchExecutor::new(64).unwrap();
    let keyed = executor.clone().by_key(|n: &u64| n % 100);
    let methods: [(&str, &dyn Fn(u64)); 5] = [
        ("ready", &|items| {
            let all = finish(executor.all_settled(0..items, |n| ready(Ok::<_, ()>(n))));
            assert_eq!(all.len() as u64, items);
        }),
        ("yields", &|items| {
            assert_eq!(finish(executor.all_settled(0..items, gives_way)).len() as u64, items);
        }),
        ("slots", &|items| {
            let mut slots = Vec::new();
            let summary = finish(executor.settle_into(&mut slots, 0..items, gives_way));
            assert!(summary.is_complete());
        }),
        ("for_each", &|items| {
            let summary = finish(executor.for_each(0..items, gives_way, |_, _| ready(())));
            assert!(summary.is_complete());
        }),
        ("keyed", &|items| {
            assert_eq!(finish(keyed.all_settled(0..items, gives_way)).len() as u64, items);
        }),
    ];
    for (name, run) in methods {
        let few = counted(10_000, run).count_total;
        let many = counted(20_000, run).count_total;
        assert!(many <= few + 20, "{name}: {few} for 10,000 and {many} for 20,000");
    }
}

#[test]
fn an_item_allocates_at_most_once_spawned() {
    let executor = BatchExecutor::new(64).unwrap();
    let run = |items| {
        let joined = finish(async { executor.spawn(0..items, gives_way).join().await });
        assert!(joined.outcomes.summary().is_complete());
    };
    let (few, many) = (counted(10_000, run).count_total, counted(20_000, run).count_total);
    assert!(many <= few + 10_000, "{few} for 10,000 and {many} for 20,000");
}

/// Ten million inputs take as much memory as ten thousand.
#[test]
fn an_endless_input_takes_no_more_memory_than_a_short_one() {
    let executor = BatchExecutor::new(64).unwrap();
    let peak = |items: u64| {
        counted(items, |items| {
            let summary =
                finish(executor.for_each(0..items, |n| ready(Ok::<_, ()>(n)), |_, _| ready(())));
            assert_eq!(summary.pulled() as u64, items);
        })
        .bytes_max
    };
    let many = if cfg!(debug_assertions) { 1_000_000 } else { 10_000_000 };
    assert_eq!(peak(many), peak(10_000));
}
