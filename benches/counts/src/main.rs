//! The hot paths of sluicegate, one row each, to be run under callgrind by `count.sh`.
//!
//! All rows run on one thread, with tokio's clock standing still, so that two runs count the same.
//! A row is known by its name: keep it when the API under it is renamed, or the comparison with
//! an older revision loses it.

mod batcher;
mod executor;
mod map;
mod queue;
mod semaphore;
mod throttle;

use std::future::Future;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Builder, Runtime};

static MARKS: AtomicU64 = AtomicU64::new(0);

/// Where callgrind writes down what it has counted since it was last here.
#[inline(never)]
fn counts_mark() {
    black_box(MARKS.fetch_add(1, Ordering::Relaxed));
}

/// Runs `operations` operations and then double as many, between marks. What a row keeps between
/// runs has grown to its usual size by then.
fn row(name: &str, operations: u64, mut run: impl FnMut(u64)) {
    run(2 * operations);
    counts_mark();
    run(operations);
    counts_mark();
    run(2 * operations);
    counts_mark();
    println!("{name}\t{operations}");
}

/// The worker of all rows that need a runtime.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
});

/// Runs a future in a task, where tokio's cooperative budget is limited.
fn in_task(future: impl Future<Output = ()> + Send + 'static) {
    RUNTIME.block_on(async { tokio::spawn(future).await.expect("it does not panic") });
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// The output of a future that does not wait.
fn ready<F: Future>(future: F) -> F::Output {
    match poll(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it should have been ready"),
    }
}

fn main() {
    semaphore::rows();
    queue::rows();
    map::rows();
    batcher::rows();
    executor::rows();
    throttle::rows();
}
