//! Wakers that panic, with what panics again as it is dropped: the process lives on, nobody else goes
//! untold, and nobody loses what was just had.

use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use sluicegate::{OverflowQueue, Semaphore, Throttle};

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a payload that panics");
    }
}

struct Touchy;

impl Wake for Touchy {
    fn wake(self: Arc<Self>) {
        panic::panic_any(Bomb);
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many there are in line, the last two of whom are calm.
const IN_LINE: usize = 6;

/// Polls all of them once, and says who of the calm ones will have been woken.
fn line_up<F: Future>(waiting: &mut [Pin<Box<F>>]) -> Arc<Wakes> {
    let (touchy, wakes) = (Waker::from(Arc::new(Touchy)), Arc::new(Wakes::default()));
    let calm = Waker::from(Arc::clone(&wakes));
    for (place, one) in waiting.iter_mut().enumerate() {
        let waker = if place < IN_LINE - 2 { &touchy } else { &calm };
        assert!(one.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    wakes
}

#[test]
fn a_queue_that_is_closed() {
    let queue = OverflowQueue::<u8>::new(1).unwrap();
    let mut pops: Vec<_> = (0..IN_LINE).map(|_| Box::pin(queue.pop())).collect();
    let wakes = line_up(&mut pops);
    queue.close();
    assert_eq!(wakes.count(), 2);
}

#[test]
fn a_semaphore_that_is_closed() {
    let semaphore = Semaphore::new(0);
    let mut acquires: Vec<_> = (0..IN_LINE).map(|_| Box::pin(semaphore.acquire())).collect();
    let wakes = line_up(&mut acquires);
    let closing = panic::catch_unwind(AssertUnwindSafe(|| semaphore.close()));
    std::mem::forget(closing.expect_err("the first panic goes on"));
    assert_eq!(wakes.count(), 2);
}

#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn a_batch_of_calls_that_is_answered() {
    use sluicegate::batcher::{Batch, Batcher, Call};

    let batcher = Batcher::builder().max_items(IN_LINE);
    let batcher = batcher.build_caller(|mut batch: Batch<Call<u32, u32>>| {
        batch.reply_with(|n| n * n);
        async { Ok::<(), String>(()) }
    });
    let batcher = batcher.unwrap();
    let mut calls: Vec<_> = (0..IN_LINE as u32).map(|n| Box::pin(batcher.call(n))).collect();
    let wakes = line_up(&mut calls);
    let minute = Duration::from_secs(60);
    let flushed = tokio::time::timeout(minute, batcher.flush()).await;
    assert!(flushed.is_ok(), "it hangs");
    assert_eq!(wakes.count(), 2);
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap() as usize, n * n);
    }
}

#[test]
fn a_turn_that_is_had_as_an_older_waker_is_dropped() {
    struct Touchy;
    impl Wake for Touchy {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Touchy {
        fn drop(&mut self) {
            panic::panic_any(Bomb);
        }
    }
    let second = Duration::from_secs(1);
    let throttle = Throttle::new(1, second).unwrap();
    let now = Instant::now();
    throttle.try_acquire_at(1, now).unwrap();
    let mut place = throttle.enqueue(1).unwrap();
    let touchy = Waker::from(Arc::new(Touchy));
    assert!(place.poll_at(now, &mut Context::from_waker(&touchy)).is_err());
    // The place has the last of them.
    drop(touchy);
    let cx = &mut Context::from_waker(Waker::noop());
    assert_eq!(place.poll_at(now + second, cx), Ok(()));
}
