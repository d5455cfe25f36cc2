//! A handler that is done at once is given batch after batch without a look at the lock between
//! them: nothing but the time it takes may tell.

use std::sync::mpsc;

use super::*;
use sluicegate::{KeyedBatch, KeyedBatcher, Retry};

/// What the handler does with the batch of item 3, the first time. Any other is delivered at once.
#[derive(Clone, Copy, PartialEq)]
enum Third {
    Fails,
    Panics,
    Takes5Ms,
    NeverEnds,
    KeepsItsGuard,
}

type Kept = Arc<Mutex<Option<Batch<u32>>>>;

fn handler(
    log: &Log,
    third: Third,
    kept: &Kept,
) -> impl Fn(Batch<u32>) -> BoxFuture + Send + Sync + use<> {
    let (log, kept) = (log.clone(), kept.clone());
    move |batch| {
        log.note(&batch);
        let third = (batch.first() == Some(&3) && batch.attempt() == 1).then_some(third);
        if third == Some(Third::KeepsItsGuard) {
            *kept.lock().unwrap() = Some(batch);
            return Box::pin(async { Ok(()) });
        }
        Box::pin(async move {
            match third {
                Some(Third::Fails) => Err("it is the third".to_owned()),
                Some(Third::Panics) => panic!("it is the third"),
                Some(Third::Takes5Ms) => {
                    tokio::time::sleep(millis(5)).await;
                    drop(batch);
                    Ok(())
                }
                Some(Third::NeverEnds) => {
                    std::future::pending::<()>().await;
                    drop(batch);
                    Ok(())
                }
                _ => Ok(()),
            }
        })
    }
}

/// Eight batches of one item are there before the driver looks for the first time.
fn eight(log: &Log, third: Third, kept: &Kept) -> Batcher<u32> {
    let batcher = log
        .builder()
        .max_items(1)
        .capacity(100)
        .retry(Retry::constant(2, millis(10)).unwrap())
        .build(handler(log, third, kept))
        .unwrap();
    for item in 0..8 {
        batcher.try_send(item).unwrap();
    }
    batcher
}

fn one_by_one(at: u64, items: std::ops::Range<u32>) -> Vec<(u64, Vec<u32>)> {
    items.map(|item| (at, vec![item])).collect()
}

#[test]
fn batches_of_a_fast_handler_come_in_order_and_are_all_counted() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(1).capacity(200).build(log.handler(0)).unwrap();
        for item in 0..200 {
            batcher.try_send(item).unwrap();
        }
        assert_eq!(batcher.flush().await.delivered, 200);
        assert_eq!(log.batches(), one_by_one(0, 0..200));
        let stats = batcher.stats();
        assert_eq!((stats.handed_over, stats.batches.count, stats.pending), (200, 200, 0));
        // All of its room is there again.
        for item in 0..200 {
            batcher.try_send(item).unwrap();
        }
        conserved(&batcher);
    });
}

/// Guard: the driver goes on by itself only after a batch that ended well.
#[test]
fn a_batch_that_fails_among_them_is_tried_again_before_the_next() {
    paused(async {
        for third in [Third::Fails, Third::Panics] {
            let log = Log::new();
            let batcher = eight(&log, third, &Kept::default());
            pass(20).await;
            let expected = [one_by_one(0, 0..4), one_by_one(10, 3..8)].concat();
            assert_eq!(log.batches(), expected);
            let stats = batcher.stats();
            assert_eq!((stats.delivered, stats.retries, stats.handed_over), (8, 1, 8));
            conserved(&batcher);
        }
    });
}

#[test]
fn a_batch_that_takes_its_time_among_them_holds_up_those_behind_it() {
    paused(async {
        let log = Log::new();
        let batcher = eight(&log, Third::Takes5Ms, &Kept::default());
        pass(1).await;
        let stats = batcher.stats();
        assert_eq!((stats.delivered, stats.pending, stats.handed_over), (3, 5, 4));
        pass(10).await;
        assert_eq!(log.batches(), [one_by_one(0, 0..4), one_by_one(5, 4..8)].concat());
        assert_eq!(batcher.stats().delivered, 8);
        conserved(&batcher);
    });
}

/// Guard: and whose guard is back.
#[test]
fn a_guard_that_is_kept_among_them_holds_up_those_behind_it() {
    paused(async {
        let (log, kept) = (Log::new(), Kept::default());
        let batcher = eight(&log, Third::KeepsItsGuard, &kept);
        pass(5).await;
        assert_eq!(log.batches(), one_by_one(0, 0..4));
        assert_eq!(batcher.stats().delivered, 3);
        drop(kept.lock().unwrap().take());
        pass(1).await;
        assert_eq!(log.batches()[4..], one_by_one(5, 4..8));
        assert_eq!(batcher.stats().delivered, 8);
        conserved(&batcher);
    });
}

/// Guard: what was ahead and never begun is unsent, and in order.
#[test]
fn those_behind_one_that_never_ends_are_unsent_when_all_is_given_up() {
    paused(async {
        let log = Log::new();
        let batcher = eight(&log, Third::NeverEnds, &Kept::default());
        pass(1).await;
        batcher.try_send(8).unwrap();
        let ended = batcher.shutdown(Some(millis(5))).await;
        assert_eq!((ended.delivered, &ended.indeterminate[..]), (3, &[3][..]));
        assert_eq!(ended.unsent, [4, 5, 6, 7, 8]);
        conserved(&batcher);
    });
}

#[test]
fn a_driver_dropped_among_them_gives_each_to_the_dead_letter() {
    paused(async {
        let log = Log::new();
        let handler = handler(&log, Third::NeverEnds, &Kept::default());
        let (batcher, mut driver) =
            log.builder().max_items(1).capacity(100).build_with_driver(handler).unwrap();
        for item in 0..8 {
            batcher.try_send(item).unwrap();
        }
        assert!(futures_util::poll!(&mut driver).is_pending());
        drop(driver);
        let buried: Vec<_> = log.buried().into_iter().map(|(items, _)| items).collect();
        assert_eq!(buried, [vec![3], vec![4, 5, 6, 7]]);
        let stats = batcher.stats();
        assert_eq!((stats.delivered, stats.indeterminate, stats.unsent), (3, 1, 4));
        conserved(&batcher);
    });
}

/// A key or an item that asks the batcher for something when it is dropped: under a lock, it would
/// wait for ever.
#[derive(Clone)]
struct Asks(u32, Arc<Mutex<Option<KeyedBatcher<Asks, Asks>>>>, Arc<Mutex<u32>>);

impl Drop for Asks {
    fn drop(&mut self) {
        let batcher = self.1.lock().unwrap().clone();
        if let Some(batcher) = batcher {
            let _stats = batcher.stats();
            *self.2.lock().unwrap() += 1;
        }
    }
}

impl PartialEq for Asks {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Asks {}

impl std::hash::Hash for Asks {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// Guard: neither items nor keys are dropped under the lock.
#[test]
fn keys_and_items_are_dropped_outside_the_lock() {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        paused(async {
            let (slot, dropped) = (Arc::default(), Arc::default());
            let asks = |number| Asks(number, Arc::clone(&slot), Arc::clone(&dropped));
            let batcher = Batcher::keyed(100)
                .max_items(1)
                .dead_letter(|_: &Asks, _: Vec<Asks>, _| unreachable!("nothing fails here"))
                .build(|_: KeyedBatch<Asks, Asks>| async { Ok::<(), String>(()) })
                .unwrap();
            *slot.lock().unwrap() = Some(batcher.clone());
            for number in 0..50 {
                batcher.try_send(asks(number), asks(number)).unwrap();
            }
            assert_eq!(batcher.flush().await.delivered, 50);
            assert_eq!(*dropped.lock().unwrap(), 100, "a key and an item of each");
            *slot.lock().unwrap() = None;
        });
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).expect("it waits for itself, or has failed");
}
