//! The limit of a semaphore shrinks while a run waits for it with a weight that the limit clamps.

use crate::run;

use std::sync::Arc;

use loom::thread;
use run::Run;
use sluicegate::{BatchExecutor, Semaphore, all_fulfilled};

/// An item waits for both of two permits, one of which is held. It comes back on one thread, and the
/// limit becomes 1 on another.
///
/// Seen to fail (asleep) when the weight is clamped as the item joins the wait list.
#[test]
fn a_shrink_strands_no_heavy_item() {
    loom::model(|| {
        let semaphore = Arc::new(Semaphore::new(2));
        let held = Arc::clone(&semaphore).try_acquire_owned().unwrap();
        let executor = BatchExecutor::builder().semaphore(Arc::clone(&semaphore)).build().unwrap();
        let executor = executor.by_weight(|weight: &u32| *weight);
        let run = Run::start(executor.all_settled([2], async |_| Ok::<_, String>(())));
        let released = thread::spawn(move || drop(held));
        let shrunk = Arc::clone(&semaphore);
        let shrunk = thread::spawn(move || shrunk.set_limit(1));
        let all = run.finish([released, shrunk]);
        assert_eq!(all_fulfilled(all).unwrap().len(), 1);
        assert_eq!(
            (semaphore.available_permits(), semaphore.limit(), semaphore.waiters()),
            (1, 1, 0)
        );
    });
}

/// The run is dropped while its item is granted fewer permits than it weighs: it gives back those
/// that it was granted.
///
/// Seen to fail (2 permits) when `Core::claim` gives back the weight.
#[test]
fn a_run_that_leaves_gives_back_what_it_was_granted() {
    loom::model(|| {
        let semaphore = Arc::new(Semaphore::new(2));
        let held = Arc::clone(&semaphore).try_acquire_owned().unwrap();
        let executor = BatchExecutor::builder().semaphore(Arc::clone(&semaphore)).build().unwrap();
        let executor = executor.by_weight(|weight: &u32| *weight);
        let run = Run::start(executor.all_settled([2], async |_| Ok::<_, String>(())));
        semaphore.set_limit(1);
        let released = thread::spawn(move || drop(held));
        drop(run);
        released.join().unwrap();
        assert_eq!(
            (semaphore.available_permits(), semaphore.limit(), semaphore.waiters()),
            (1, 1, 0)
        );
    });
}
