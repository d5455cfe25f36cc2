//! Every future and stream of the executor takes part in tokio's cooperative budget: a task that loops
//! over one that is always ready gives way, and can be aborted. Such a loop is bounded here, so that
//! one that never yields comes to its end instead of hanging.

#![cfg(feature = "tokio")]

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::{FutureExt, StreamExt, stream};
use sluicegate::executor::{BatchHandle, IterInputs, Page};
use sluicegate::{BatchExecutor, Settled};
use tokio::task::yield_now;

const ROUNDS: usize = 10_000;

fn executor() -> BatchExecutor {
    BatchExecutor::new(4).unwrap()
}

async fn work(n: u32) -> Result<u32, Infallible> {
    Ok(n)
}

fn sink(_: usize, _: Settled<u32, Infallible>) -> impl Future<Output = ()> {
    ready(())
}

fn fetch(_: Option<u32>) -> impl Future<Output = Result<Page<[u32; 3], u32>, Infallible>> {
    ready(Ok(Page { items: [0, 1, 2], next: None }))
}

/// Loops on the runtime's one thread, and is aborted.
async fn gives_way<F: Future<Output = ()> + 'static>(
    name: &str,
    mut once: impl FnMut() -> F + 'static,
) {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let looping = tokio::task::spawn_local(async move {
                for _ in 0..ROUNDS {
                    once().await;
                }
            });
            yield_now().await;
            looping.abort();
            let ended = looping.await;
            assert!(ended.is_err_and(|error| error.is_cancelled()), "{name} never yields");
        })
        .await;
}

#[tokio::test]
async fn runs_in_the_task_give_way() {
    gives_way("all_settled", || async { drop(executor().all_settled(0..3, work).await) }).await;
    gives_way("an empty run", || async { drop(executor().all_settled(0..0, work).await) }).await;
    gives_way("settle_into", || async {
        drop(executor().settle_into(&mut Vec::new(), 0..3, work).await);
    })
    .await;
    gives_way("for_each", || async { drop(executor().for_each(0..3, work, sink).await) }).await;
    gives_way("for_each_stream", || async {
        drop(executor().for_each_stream(stream::iter(0..3), work, sink).await);
    })
    .await;
    gives_way("keyed", || async {
        drop(executor().by_key(|n: &u32| *n).all_settled(0..3, work).await);
    })
    .await;
}

#[tokio::test]
async fn pages_and_phases_give_way() {
    gives_way("pages", || async { drop(executor().pages(fetch, work).await) }).await;
    gives_way("pages_for_each", || async {
        drop(executor().pages_for_each(fetch, work, sink).await);
    })
    .await;
    gives_way("phase", || async {
        drop(executor().phases("loop", 0..3).phase("only", work).await);
    })
    .await;
    gives_way("flow", || async {
        drop(executor().phases("loop", 0..3).flow(["only"], |n, _| work(n)).await);
    })
    .await;
}

type Batch = BatchHandle<IterInputs<std::ops::Range<u32>>, u32, Infallible>;

/// A batch that has run to its end elsewhere, on threads that no budget is of.
fn done(inputs: u32) -> Batch {
    executor().spawn_on(2, 0..inputs, work, |work| {
        // The work of one is done before the other begins.
        std::thread::spawn(move || run_to_its_end(work)).join().unwrap();
    })
}

fn run_to_its_end(mut work: Pin<Box<dyn Future<Output = ()> + Send>>) {
    while work.as_mut().now_or_never().is_none() {}
}

#[tokio::test]
async fn joins_give_way() {
    // Threads take their time.
    let mut batches: Vec<Batch> = (0..1_000).map(|_| done(1)).collect();
    let looping = tokio::spawn(async move {
        while let Some(batch) = batches.pop() {
            assert_eq!(batch.join().await.outcomes.len(), 1);
        }
    });
    yield_now().await;
    looping.abort();
    assert!(looping.await.is_err_and(|error| error.is_cancelled()), "join never yields");
}

#[tokio::test]
async fn streams_of_outcomes_give_way() {
    for in_order in [false, true] {
        let batch = done(1_000);
        let mut outcomes = if in_order { batch.into_ordered_stream() } else { batch.into_stream() };
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let looping = tokio::spawn(async move {
            while outcomes.next().await.is_some() {
                count.fetch_add(1, SeqCst);
            }
            // And when it has ended.
            for _ in 0..ROUNDS {
                assert!(outcomes.next().await.is_none());
            }
        });
        yield_now().await;
        let first = taken.load(SeqCst);
        assert!((1..1_000).contains(&first), "{first} taken before it yields");
        while taken.load(SeqCst) < 1_000 {
            yield_now().await;
        }
        looping.abort();
        assert!(looping.await.is_err_and(|error| error.is_cancelled()), "it never yields");
    }
}

/// What has to wait is not charged, and keeps nothing back.
#[tokio::test]
async fn what_waits_is_not_charged() {
    let mut run = pin!(executor().all_settled(0..3, |_| std::future::pending::<Result<(), ()>>()));
    let mut joined = pin!({
        let mut works = Vec::new();
        let batch = executor().spawn_on(1, 0..3, work, |work| works.push(work));
        async move {
            let _works = works;
            batch.join().await
        }
    });
    let cx = &mut Context::from_waker(Waker::noop());
    for _ in 0..1_000 {
        assert!(run.as_mut().poll(cx).is_pending());
        assert!(joined.as_mut().poll(cx).is_pending());
    }
    assert!(tokio::task::coop::has_budget_remaining());
}

/// Without budget nothing is pulled, fetched or taken.
#[tokio::test]
async fn a_task_without_budget_takes_nothing() {
    let pulled = AtomicUsize::new(0);
    let inputs = (0..3).inspect(|_| {
        pulled.fetch_add(1, SeqCst);
    });
    let count = |page| {
        pulled.fetch_add(1, SeqCst);
        fetch(page)
    };
    let mut run = pin!(executor().all_settled(inputs, work));
    let mut pages = pin!(executor().pages(count, work));
    let mut outcomes = done(3).into_stream();
    let mut joined = pin!(done(3).join());
    while tokio::task::coop::has_budget_remaining() {
        tokio::task::consume_budget().now_or_never();
    }
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(run.as_mut().poll(cx).is_pending());
    assert!(pages.as_mut().poll(cx).is_pending());
    assert!(outcomes.next().poll_unpin(cx).is_pending());
    assert!(joined.as_mut().poll(cx).is_pending());
    assert_eq!(pulled.load(SeqCst), 0);
    yield_now().await;
    assert_eq!(run.await.len() + pages.await.outcomes.len() + joined.await.outcomes.len(), 9);
    assert_eq!(outcomes.count().await, 3);
}

// Two wakers for one future: polled in one task, awaited in another while it completes.

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Polls with a first waker, and then with a second; what happens then must wake the second.
fn wakes_the_second<F: Future>(name: &str, future: F, happens: impl FnOnce()) -> F::Output {
    let mut future = pin!(future);
    let [first, second] = [(); 2].map(|()| Arc::new(Woken::default()));
    for woken in [&first, &second] {
        let waker = Waker::from(Arc::clone(woken));
        while future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            if woken.0.swap(0, SeqCst) == 0 {
                break;
            }
        }
    }
    assert_eq!(Arc::strong_count(&first), 1, "{name} keeps the first waker");
    happens();
    assert!(second.0.load(SeqCst) > 0, "{name} does not wake the second task");
    let waker = Waker::from(second);
    let mut polls = (0..9).map(|_| future.as_mut().poll(&mut Context::from_waker(&waker)));
    match polls.find(Poll::is_ready) {
        Some(Poll::Ready(output)) => output,
        _ => panic!("{name} is not done"),
    }
}

/// Seen to fail when `take_or_sleep`, `poll_end` or `poll_next` keeps a waker that it has already.
#[test]
fn what_is_polled_in_one_task_and_awaited_in_another_wakes_that() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let receiver = receiver.shared();
    let run = executor().all_settled([receiver], |receiver| receiver);
    let all = wakes_the_second("a run", run, || sender.send(7).unwrap());
    assert!(all.summary().is_complete());

    let mut works = Vec::new();
    let batch = executor().spawn_on(2, 0..3, work, |work| works.push(work));
    let finish = || works.into_iter().for_each(run_to_its_end);
    let joined = wakes_the_second("join", batch.join(), finish);
    assert_eq!(joined.outcomes.len(), 3);

    for in_order in [false, true] {
        let mut works = Vec::new();
        let batch = executor().spawn_on(1, 0..3, work, |work| works.push(work));
        let mut outcomes = if in_order { batch.into_ordered_stream() } else { batch.into_stream() };
        let begin = || {
            let _ = works[0].as_mut().now_or_never();
        };
        let first = wakes_the_second("a stream", outcomes.next(), begin);
        assert_eq!(first.unwrap().0, 0);
    }

    let (sender, receiver) = tokio::sync::oneshot::channel();
    let receiver = receiver.shared();
    let pages = executor().pages(
        |_: Option<()>| {
            let receiver = receiver.clone();
            async move { receiver.await.map(|n| Page { items: [n], next: None }) }
        },
        work,
    );
    let paged = wakes_the_second("a fetch", pages, || sender.send(7).unwrap());
    assert_eq!(paged.outcomes.len(), 1);
}
