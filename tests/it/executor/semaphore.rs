//! A semaphore whose limit changes while items wait for it, and weights of nested batches, by example.
#![cfg(feature = "tokio")]

use crate::outcome::Outcome;
use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::future::{join, join_all};
use sluicegate::{
    BatchEnd, BatchExecutor, BatchExecutorBuilder, ItemError, Semaphore, SettledKind, all_fulfilled,
};
use tokio::time::{Instant, sleep, timeout};

const MS: Duration = Duration::from_millis(1);

fn builder(limit: usize) -> BatchExecutorBuilder {
    BatchExecutor::builder().limit(limit)
}

fn on_semaphore(semaphore: &Arc<Semaphore>) -> BatchExecutor {
    BatchExecutor::builder().semaphore(Arc::clone(semaphore)).build().unwrap()
}

/// A wake-up that is lost leaves nothing but this timer: paused time jumps to it.
async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(3600), future).await.expect("asleep, and nobody will wake it")
}

/// Holds its weight, counted, for a millisecond.
struct Load {
    used: AtomicUsize,
    most: AtomicUsize,
}

impl Load {
    fn new() -> Self {
        Self { used: AtomicUsize::new(0), most: AtomicUsize::new(0) }
    }

    async fn carry(&self, weight: usize) {
        let used = self.used.fetch_add(weight, SeqCst) + weight;
        self.most.fetch_max(used, SeqCst);
        sleep(MS).await;
        self.used.fetch_sub(weight, SeqCst);
    }

    fn most(&self) -> usize {
        self.most.load(SeqCst)
    }
}

// The limit shrinks and grows while a heavy item waits.

/// A batch with an item that weighs all 8 permits waits for the last of them when the limit becomes
/// 4. Seen to hang with the weight clamped once, when the item begins to wait.
#[tokio::test(start_paused = true)]
async fn a_shrink_serves_a_heavy_item_that_waits_for_more_than_there_are_now() {
    let semaphore = Arc::new(Semaphore::new(8));
    let executor = on_semaphore(&semaphore).by_weight(|n: &u32| *n);
    let held = semaphore.try_acquire_many(1).unwrap();
    let free = Cell::new(usize::MAX);
    let batch = executor.all_settled([8, 1], async |n| {
        if n == 8 {
            free.set(semaphore.available_permits());
        }
        Ok::<_, ()>(n)
    });
    let unrelated = async {
        sleep(MS).await;
        // Somebody else waits behind the item.
        let one = semaphore.acquire();
        let shrink = async {
            semaphore.set_limit(4);
            sleep(MS).await;
            drop(held);
        };
        let (one, ()) = join(one, shrink).await;
        drop(one.unwrap());
    };
    let (all, ()) = in_time(join(batch, unrelated)).await;
    assert!(all.summary().is_complete());
    // It had all four.
    assert_eq!((free.get(), semaphore.available_permits(), semaphore.limit()), (0, 4, 4));
}

/// Permits that are forgotten make the limit smaller, as a shrink does. Seen to hang as above.
#[tokio::test(start_paused = true)]
async fn permits_that_are_forgotten_are_not_waited_for() {
    let semaphore = Arc::new(Semaphore::new(8));
    let executor = on_semaphore(&semaphore).by_weight(|n: &u32| *n);
    let held = Arc::clone(&semaphore).try_acquire_many_owned(3).unwrap();
    let batch = executor.all_settled([8], async |n| Ok::<_, ()>(n));
    let forget = async {
        sleep(MS).await;
        held.forget();
        assert_eq!(semaphore.limit(), 5);
    };
    let (all, ()) = in_time(join(batch, forget)).await;
    assert!(all.summary().is_complete());
    assert_eq!(semaphore.available_permits(), 5);
}

/// What was clamped to a small limit counts as all the permits of a larger one.
#[tokio::test(start_paused = true)]
async fn a_heavy_item_runs_alone_also_if_the_limit_grows_while_it_waits() {
    let semaphore = Arc::new(Semaphore::new(4));
    let executor = builder(10).semaphore(Arc::clone(&semaphore)).build().unwrap();
    let executor = executor.by_weight(|n: &u32| *n);
    let [held, released] = [1, 1].map(|n| semaphore.try_acquire_many(n).unwrap());
    let load = Load::new();
    let batch = executor.all_settled([8, 1, 1], async |n| {
        load.carry(n as usize).await;
        Ok::<_, ()>(n)
    });
    let grow = async {
        sleep(MS).await;
        drop(released);
        semaphore.set_limit(8);
        sleep(MS).await;
        assert_eq!(load.most(), 0);
        drop(held);
    };
    let (all, ()) = in_time(join(batch, grow)).await;
    assert!(all.summary().is_complete());
    assert_eq!((load.most(), semaphore.available_permits()), (8, 8));
}

/// Down to nothing pauses, and up again goes on, however heavy the item.
#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_pauses_a_batch() {
    let semaphore = Arc::new(Semaphore::new(2));
    let executor = on_semaphore(&semaphore).by_weight(|n: &u32| *n);
    let done = Cell::new(0);
    let batch = executor.all_settled([2, 2, 2], async |_| {
        sleep(MS).await;
        done.set(done.get() + 1);
        Ok::<_, ()>(())
    });
    let others = async {
        semaphore.set_limit(0);
        sleep(10 * MS).await;
        assert_eq!(done.get(), 1);
        semaphore.set_limit(1);
    };
    let (all, ()) = in_time(join(batch, others)).await;
    assert!(all.summary().is_complete());
    assert_eq!(semaphore.available_permits(), 1);
}

/// Spawned on several workers, each of which waits with an item of its own.
#[tokio::test(start_paused = true)]
async fn spawned_each_worker_is_served_after_a_shrink() {
    for limit in [1, 3, 5] {
        let semaphore = Arc::new(Semaphore::new(8));
        let executor = builder(4).semaphore(Arc::clone(&semaphore)).build().unwrap();
        let held = Arc::clone(&semaphore).try_acquire_many_owned(2).unwrap();
        let executor = executor.by_weight(|n: &u32| *n);
        let load = Arc::new(Load::new());
        let work = Arc::clone(&load);
        let batch = executor.spawn_on(
            4,
            vec![7; 12],
            move |_| {
                let (work, limit) = (Arc::clone(&work), limit);
                async move {
                    work.carry(limit).await;
                    Ok::<_, ()>(())
                }
            },
            |work| drop(tokio::spawn(work)),
        );
        sleep(MS).await;
        semaphore.set_limit(limit);
        drop(held);
        let joined = in_time(batch.join()).await;
        assert!(joined.outcomes.summary().is_complete());
        assert_eq!((load.most(), semaphore.available_permits()), (limit, limit));
    }
}

/// A heavy item of a nested batch waits for permits of its own, beside one that has its parent's.
#[tokio::test(start_paused = true)]
async fn nested_a_shrink_serves_a_heavy_item() {
    let semaphore = Arc::new(Semaphore::new(8));
    let outer =
        builder(2).semaphore(Arc::clone(&semaphore)).build().unwrap().by_weight(|_: &u32| 4);
    let inner =
        builder(2).semaphore(Arc::clone(&semaphore)).build().unwrap().by_weight(|_: &u32| 4);
    let batch = outer.all_settled(0..4, async |_| {
        let all = inner.all_settled(0..4, async |_| {
            sleep(MS).await;
            Ok::<_, ()>(())
        });
        all_fulfilled(all.await).map(drop)
    });
    let shrink = async {
        sleep(MS / 2).await;
        for limit in [2, 6, 1, 3] {
            semaphore.set_limit(limit);
            sleep(2 * MS).await;
        }
    };
    let (all, ()) = in_time(join(batch, shrink)).await;
    assert!(all.summary().is_complete());
    assert_eq!(semaphore.available_permits(), 3);
}

/// A batch whose input is exhausted when the semaphore is closed, with an item that waits for its key.
///
/// Seen to fail (exhausted, though the last item was cancelled).
#[tokio::test(start_paused = true)]
async fn a_closed_semaphore_ends_a_batch_that_has_pulled_all() {
    let semaphore = Arc::new(Semaphore::new(4));
    let executor = on_semaphore(&semaphore).by_key(|_: &u32| ());
    let all = executor.all_settled(0..2, async |_| {
        sleep(MS).await;
        semaphore.close();
        Ok::<_, ()>(())
    });
    let all = in_time(all).await;
    assert!(all[0].is_ok() && all[1].is_cancelled());
    assert!(matches!(all.end(), BatchEnd::SemaphoreClosed), "{:?}", all.end());
}

// Weights of nested batches.

/// Five items of weight 1 hold the whole semaphore, and the items inside of each weigh 5.
///
/// Seen to fail (15 permits' worth at once) when an item runs on its parent's permit whatever it
/// weighs.
#[tokio::test(start_paused = true)]
async fn an_item_heavier_than_the_one_that_it_is_nested_in_is_refused() {
    let semaphore = Arc::new(Semaphore::new(5));
    let (outer, load) = (on_semaphore(&semaphore), Load::new());
    let inner = on_semaphore(&semaphore).by_weight(|_: &u32| 5);
    let all = outer.all_settled(0..5, async |_| {
        let mut inputs = 0..3_u32;
        let nested = inner.all_settled(inputs.by_ref(), async |_| {
            load.carry(5).await;
            Ok::<_, ()>(())
        });
        let nested = nested.await;
        assert_eq!((nested.len(), inputs), (1, 1..3));
        assert_eq!(nested[0].kind(), SettledKind::Cancelled);
        Err::<(), _>(nested.into_parts().1.into_end())
    });
    let all = in_time(all).await;
    assert_eq!(load.most(), 0);
    for outcome in all {
        let Err(ItemError::Rejected(end)) = outcome else { panic!("{outcome:?}") };
        assert!(matches!(end, BatchEnd::NestedTooHeavy { weight: 5, permits: 1, .. }), "{end:?}");
        assert_eq!(
            end.to_string(),
            "an item that takes 5 permits is nested in one that holds 1 of the same semaphore: give \
             the outer item that weight, or the nested batch another semaphore"
        );
    }
    assert_eq!(semaphore.available_permits(), 5);
}

/// Items of a nested batch share the permits of their parent, as many as there are.
#[tokio::test(start_paused = true)]
async fn nested_items_run_side_by_side_on_the_permits_of_their_parent() {
    let semaphore = Arc::new(Semaphore::new(5));
    let outer = on_semaphore(&semaphore).by_weight(|_: &u32| 5);
    let (inner, load) = (on_semaphore(&semaphore).by_weight(|n: &u32| *n), Load::new());
    let all = outer.all_settled(0..3, async |_| {
        let nested = inner.all_settled([1, 2, 2, 5, 3, 3, 0, 1, 9], async |n| {
            load.carry(n.clamp(1, 5) as usize).await;
            Ok::<_, ()>(())
        });
        all_fulfilled(nested.await).map(drop)
    });
    let began = Instant::now();
    assert!(in_time(all).await.summary().is_complete());
    // [1 2 2] [5] [3] [3 0 1] [9], each a millisecond, three times.
    assert_eq!((load.most(), began.elapsed()), (5, 15 * MS));
    assert_eq!(semaphore.available_permits(), 5);
}

/// Two batches in one item: many light items of the one do not keep a heavy item of the other
/// waiting.
#[tokio::test(start_paused = true)]
async fn a_heavy_nested_item_has_its_turn_beside_light_ones() {
    let semaphore = Arc::new(Semaphore::new(3));
    let outer = on_semaphore(&semaphore).by_weight(|_: &u32| 3);
    let (light, heavy) =
        (on_semaphore(&semaphore), on_semaphore(&semaphore).by_weight(|_: &u32| 3));
    let all = outer.all_settled([0], async |_| {
        let at = Cell::new(0);
        let many = light.all_settled(0..100, async |n| {
            // They end one by one, so that there is never a gap by itself.
            sleep(MS * (2 + n % 3)).await;
            at.set(at.get() + 1);
            Ok::<_, ()>(())
        });
        let one = heavy.all_settled([0], async |_| Ok::<_, ()>(at.get()));
        let (many, one) = join(many, one).await;
        assert!(many.summary().is_complete());
        Ok::<_, ()>(one.into_iter().next().unwrap().ok().unwrap())
    });
    let at = in_time(all).await.into_iter().next().unwrap().ok().unwrap();
    assert_eq!(at, 3);
}

/// What one nested item gives back is enough for those of two other batches.
///
/// Seen to take 3 ms when only the first that waits is woken.
#[tokio::test(start_paused = true)]
async fn each_nested_batch_that_can_go_on_is_woken() {
    let semaphore = Arc::new(Semaphore::new(3));
    let outer = on_semaphore(&semaphore).by_weight(|_: &u32| 3);
    let inner = on_semaphore(&semaphore).by_weight(|n: &u32| *n);
    let all = outer.all_settled([0], async |_| {
        let batch = |weight| {
            inner.all_settled([weight], async |_| {
                sleep(MS).await;
                Ok::<_, ()>(())
            })
        };
        let all = join_all([3, 1, 2].map(batch)).await;
        all_fulfilled(all.into_iter().flatten()).map(drop)
    });
    let began = Instant::now();
    assert!(in_time(all).await.summary().is_complete());
    assert_eq!(began.elapsed(), 2 * MS);
}

/// A parent that had all the permits there were still has room for what weighs no more than it,
/// when there are more.
#[tokio::test(start_paused = true)]
async fn growth_does_not_make_a_nested_item_too_heavy_for_a_parent_of_its_weight() {
    let semaphore = Arc::new(Semaphore::new(4));
    let outer = on_semaphore(&semaphore).by_weight(|_: &u32| 8);
    let inner = on_semaphore(&semaphore).by_weight(|_: &u32| 8);
    let all = outer.all_settled([0], async |_| {
        semaphore.set_limit(8);
        // Somebody has the others, so that it is the parent's that the items run on.
        let held = semaphore.try_acquire_many(4).unwrap();
        let nested = inner.all_settled(0..3, async |_| Ok::<_, ()>(())).await;
        drop(held);
        all_fulfilled(nested).map(drop)
    });
    assert!(in_time(all).await.summary().is_complete());
    assert_eq!(semaphore.available_permits(), 8);
}
