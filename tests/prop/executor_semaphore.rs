//! Batches nested in items of batches on one semaphore, with weights at random, while the limit changes
//! and others draw on it: never more than the semaphore, and never a hang.
//!
//! Under paused time. An item uses its weight while it works by itself, and lends it while the
//! batches inside of it run. An item holds at least its weight clamped to the smallest limit there
//! ever was, and all that are held are never more than the largest.
//!
//! Seen to fail when nested items of any weight are let in, when a lease that comes back wakes nobody,
//! when a borrower that leaves does not wake the next, and when a run that is dropped gives back its
//! item's weight instead of what it was granted.
#![cfg(feature = "tokio")]

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use sluicegate::{BatchEnd, BatchExecutor, Semaphore, Settled};
use tokio::time::{sleep, timeout};

/// One batch: its items, and how many may be in hand.
#[derive(Debug, Clone)]
struct Batch {
    items: Vec<Item>,
    limit: usize,
    weighed: bool,
}

#[derive(Debug, Clone)]
struct Item {
    weight: u32,
    /// Milliseconds of work before and after what is nested.
    work: [u64; 2],
    /// These run side by side.
    nested: Vec<Batch>,
    /// The batches inside are dropped after so many milliseconds.
    drops: Option<u64>,
}

#[derive(Debug, Clone)]
struct Plan {
    /// Each is dropped after so many milliseconds, if it is.
    roots: Vec<(Batch, Option<u64>)>,
    /// On so many workers, or in the task.
    workers: Option<usize>,
    semaphore: usize,
    /// What the limit becomes, one after the other, every three milliseconds.
    limits: Vec<usize>,
    /// Somebody else takes so many permits now and then.
    others: u32,
}

impl Plan {
    fn smallest(&self) -> usize {
        self.limits.iter().fold(self.semaphore, |least, limit| least.min(*limit))
    }

    fn largest(&self) -> usize {
        self.limits.iter().fold(self.semaphore, |most, limit| most.max(*limit))
    }

    /// Whether it can be told beforehand what is refused.
    fn is_steady(&self) -> bool {
        self.limits.is_empty()
    }
}

struct World {
    plan: Plan,
    semaphore: Arc<Semaphore>,
    used: Mutex<(usize, Vec<String>)>,
}

impl World {
    fn violated(&self, what: String) {
        self.used.lock().unwrap().1.push(what);
    }
}

/// A share of the semaphore while it is in use.
struct InUse<'a>(&'a World, usize);

impl<'a> InUse<'a> {
    fn new(world: &'a World, weight: usize) -> Self {
        let share = weight.min(world.plan.smallest());
        let used = {
            let mut used = world.used.lock().unwrap();
            used.0 += share;
            used.0
        };
        if used > world.plan.largest() {
            world.violated(format!("{used} in use"));
        }
        Self(world, share)
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.0.used.lock().unwrap().0 -= self.1;
    }
}

fn weight_of(batch: &Batch, item: &Item) -> usize {
    if batch.weighed { item.weight.max(1) as usize } else { 1 }
}

type Work = Pin<Box<dyn Future<Output = Result<(), ()>> + Send>>;

/// What an item does; `permits` is what it holds if the limit never changes.
fn work(world: &Arc<World>, batch: &Batch, item: Item) -> Work {
    let weight = weight_of(batch, &item);
    let world = Arc::clone(world);
    Box::pin(async move {
        for (half, millis) in item.work.into_iter().enumerate() {
            {
                let _in_use = InUse::new(&world, weight);
                sleep(Duration::from_millis(millis)).await;
            }
            if half == 0 {
                let all = item.nested.iter().map(|batch| run(&world, batch, Some(weight)));
                let all = join_all(all);
                match item.drops {
                    Some(after) => drop(timeout(Duration::from_millis(after), all).await),
                    None => drop(all.await),
                }
            }
        }
        Ok(())
    })
}

fn run<'a>(
    world: &'a Arc<World>,
    batch: &'a Batch,
    parent: Option<usize>,
) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    Box::pin(async move {
        let executor = BatchExecutor::builder().limit(batch.limit);
        let executor = executor.semaphore(Arc::clone(&world.semaphore)).build().unwrap();
        let executor = executor.by_weight(|item: &Item| weight_of(batch, item) as u32);
        let f = |item| work(world, batch, item);
        let all = executor.all_settled(batch.items.iter().cloned(), f).await;
        judge(world, batch, parent, all.summary().end(), &all);
    })
}

fn judge(
    world: &World,
    batch: &Batch,
    parent: Option<usize>,
    end: &BatchEnd,
    all: &[Settled<(), ()>],
) {
    let limit = world.plan.semaphore;
    // A parent's own parents were no lighter, or it had been refused.
    let held = parent.map_or(usize::MAX, |weight| weight.min(limit));
    let refused = batch.items.iter().position(|item| weight_of(batch, item).min(limit) > held);
    let was_refused = matches!(end, BatchEnd::NestedTooHeavy { .. });
    let expected = !world.plan.is_steady() || was_refused == refused.is_some();
    let may_be = was_refused && parent.is_some() || matches!(end, BatchEnd::Exhausted);
    if !expected || !may_be {
        world.violated(format!("{end:?} of {batch:?} in {parent:?}"));
    }
    let done = if was_refused { all.len() - 1 } else { batch.items.len() };
    if let (true, Some(refused)) = (world.plan.is_steady(), refused) {
        if done != refused {
            world.violated(format!("{done} of {batch:?} in {parent:?}"));
        }
    }
    if all.iter().filter(|outcome| outcome.is_ok()).count() != done {
        world.violated(format!("{all:?}"));
    }
}

async fn root(world: &Arc<World>, batch: &Batch, drops: Option<u64>) {
    let dropped = async {
        match drops {
            Some(after) => sleep(Duration::from_millis(after)).await,
            None => std::future::pending().await,
        }
    };
    // The drop goes first, so that permits that were granted in the same instant are not fetched.
    tokio::select! {
        biased;
        () = dropped => {}
        () = run_root(world, batch) => {}
    }
}

async fn run_root(world: &Arc<World>, batch: &Batch) {
    let Some(workers) = world.plan.workers else { return run(world, batch, None).await };
    let executor = BatchExecutor::builder().limit(batch.limit);
    let executor = executor.semaphore(Arc::clone(&world.semaphore)).build().unwrap();
    let shape = Batch { items: Vec::new(), ..batch.clone() };
    let weighed = shape.clone();
    let executor = executor.by_weight(move |item: &Item| weight_of(&weighed, item) as u32);
    let items = batch.items.clone();
    let shared = Arc::clone(world);
    let f = move |item| work(&shared, &shape, item);
    let joined = executor.spawn_on(workers, items, f, |work| drop(tokio::spawn(work))).join();
    let outcomes = joined.await.outcomes;
    judge(world, batch, None, outcomes.end(), &outcomes);
}

async fn check(plan: Plan) {
    let semaphore = Arc::new(Semaphore::new(plan.semaphore));
    let used = Mutex::new((0, Vec::new()));
    let world = Arc::new(World { plan: plan.clone(), semaphore: Arc::clone(&semaphore), used });
    let others = async {
        let mut limits = plan.limits.iter();
        loop {
            let held = match plan.others {
                // It waits for no more than there can be.
                0 => None,
                most => semaphore.try_acquire_many(most).ok(),
            };
            sleep(Duration::from_millis(3)).await;
            drop(held);
            if let Some(limit) = limits.next() {
                semaphore.set_limit(*limit);
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    let roots = join_all(plan.roots.iter().map(|(batch, drops)| root(&world, batch, *drops)));
    // A wake-up that is lost leaves nothing but this timer: time jumps to it.
    let ended = timeout(Duration::from_secs(600), async {
        tokio::select! {
            biased;
            _ = roots => {}
            () = others => {}
        }
    });
    ended.await.expect("asleep, and nobody will wake it");
    // Spawned workers that were aborted may still be on their way out.
    sleep(Duration::from_millis(1)).await;
    let (in_use, violations) = std::mem::take(&mut *world.used.lock().unwrap());
    assert_eq!((in_use, violations), (0, Vec::new()));
    assert_eq!(semaphore.available_permits(), semaphore.limit());
    assert_eq!(semaphore.waiters(), 0);
}

fn batch(items: BoxedStrategy<Vec<Item>>) -> impl Strategy<Value = Batch> {
    (items, 1..6_usize, prop::bool::weighted(0.7)).prop_map(|(items, limit, weighed)| Batch {
        items,
        limit,
        weighed,
    })
}

fn batches() -> impl Strategy<Value = Batch> {
    let work = || [0..4_u64, 0..2_u64];
    let leaf = (0..10_u32, work()).prop_map(|(weight, work)| Item {
        weight,
        work,
        nested: Vec::new(),
        drops: None,
    });
    batch(vec(leaf, 1..6).boxed()).prop_recursive(3, 40, 5, move |inner| {
        let nested = vec(inner, 0..3);
        let drops = prop::option::weighted(0.2, 0..5_u64);
        let item = (0..10_u32, work(), nested, drops)
            .prop_map(|(weight, work, nested, drops)| Item { weight, work, nested, drops });
        batch(vec(item, 1..5).boxed())
    })
}

fn plans() -> impl Strategy<Value = Plan> {
    let limits = prop_oneof![Just(Vec::new()), vec(1..9_usize, 1..6)];
    let workers = prop::option::weighted(0.4, 1..4_usize);
    let drops = prop::option::weighted(0.3, 0..12_u64);
    (vec((batches(), drops), 1..4), workers, 1..8_usize, limits, 0..4_u32).prop_map(
        |(roots, workers, semaphore, limits, others)| Plan {
            roots,
            workers,
            semaphore,
            limits,
            others,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn never_more_than_the_semaphore_and_never_a_hang(plan in plans()) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(check(plan));
    }
}
