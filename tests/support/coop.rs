//! Tokio's cooperative budget: a task that starves its worker, and a poll without budget.

// Each test file uses its part.
#![allow(dead_code)]

use std::future::Future;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use tokio::task::coop::{consume_budget, has_budget_remaining};

/// Far longer than an abort takes, and the limit of a test that would never end.
const LIMIT: Duration = Duration::from_secs(10);

struct SendsOnDrop(Sender<()>);

impl Drop for SendsOnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Spawns a loop over futures that are always ready on the only worker, and aborts it while it
/// runs. Fails if the loop never yields, so that the abort takes no effect.
#[track_caller]
pub(crate) fn assert_yields(endless: impl Future<Output = ()> + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let (begun, has_begun) = channel();
    let (ended, has_ended) = channel();
    let task = runtime.spawn(async move {
        let _ended = SendsOnDrop(ended);
        begun.send(()).unwrap();
        endless.await;
    });
    has_begun.recv_timeout(LIMIT).unwrap();
    task.abort();
    // No timer: the worker that drives it may be starved.
    let ended = has_ended.recv_timeout(LIMIT);
    runtime.shutdown_background();
    assert!(ended.is_ok(), "the loop never yields");
}

/// Spends the budget of this poll of the task.
pub(crate) async fn spend() {
    while has_budget_remaining() {
        consume_budget().await;
    }
}

/// Polls in a task without budget, which is woken for that.
pub(crate) fn without_budget<T>(poll: impl FnOnce() -> T) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().unwrap();
    }
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            spend().await;
            let polled = poll();
            // Who yielded is woken as the runtime looks for something to do.
            tokio::task::yield_now().await;
            polled
        })
    })
}
