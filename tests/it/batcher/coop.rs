//! The runtime's cooperative budget: each future, stream and sink yields when it is spent, holds
//! nothing meanwhile, and begins a wait at once where it must wait.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, mpsc};
use std::task::{Context, Poll};
use std::thread;

use futures_util::StreamExt;
use sluicegate::Semaphore;
use sluicegate::batcher::{BatchedExt, Builder, Call, Driver, Keyed, KeyedBatch, KeyedBatcher};
use tokio::task::coop::{has_budget_remaining, poll_proceed};
use tokio::task::{LocalSet, yield_now};

use super::*;

/// Repeats what `make` makes, which is always ready, and aborts it, all on one worker.
fn gives_way<S: AsyncFnMut() + 'static>(make: impl FnOnce() -> S + Send + 'static) {
    let (ended, end) = mpsc::channel();
    let over = Arc::new(AtomicBool::new(false));
    let stop = over.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, async move {
            let task = tokio::task::spawn_local(async move {
                let mut step = make();
                while !stop.load(Ordering::Relaxed) {
                    step().await;
                }
            });
            yield_now().await;
            task.abort();
            let cancelled = task.await.is_err_and(|error| error.is_cancelled());
            ended.send(cancelled).ok();
        });
    });
    let cancelled = end.recv_timeout(Duration::from_secs(5));
    over.store(true, Ordering::Relaxed);
    assert_eq!(cancelled, Ok(true), "it keeps the worker to itself");
}

/// Of nothing, so that there is room for very many.
fn roomy() -> Batcher<()> {
    let builder = Batcher::builder().max_items(Semaphore::MAX_PERMITS);
    let builder = builder.window(Duration::from_secs(3600)).dead_letter(|_: Vec<()>, _| {});
    builder.build(|_: Batch<()>| async { Ok::<(), String>(()) }).unwrap()
}

fn roomy_keyed(
    set: impl FnOnce(Builder<(), Keyed<u8>>) -> Builder<(), Keyed<u8>>,
) -> KeyedBatcher<u8, ()> {
    let builder = Batcher::keyed(1_000).max_items(Semaphore::MAX_PERMITS);
    let builder = builder.window(Duration::from_secs(3600)).dead_letter(|_: &u8, _: Vec<()>, _| {});
    set(builder).build(|_: KeyedBatch<u8, ()>| async { Ok::<(), String>(()) }).unwrap()
}

fn per_key(builder: Builder<(), Keyed<u8>>) -> Builder<(), Keyed<u8>> {
    builder.capacity_per_key(Semaphore::MAX_PERMITS)
}

#[test]
fn sends_give_way() {
    gives_way(|| {
        let batcher = roomy();
        async move || batcher.send(()).await.unwrap()
    });
    gives_way(|| {
        let batcher = roomy();
        async move || batcher.send_many(&mut VecDeque::from([()])).await.unwrap()
    });
    gives_way(|| {
        let batcher = roomy();
        async move || batcher.send_many(&mut VecDeque::new()).await.unwrap()
    });
    gives_way(|| {
        let batcher = roomy();
        async move || drop(batcher.reserve().await.unwrap())
    });
}

#[test]
fn sends_that_are_refused_give_way() {
    let heavy = || {
        let builder = Batcher::builder().max_weight(1, |()| 2).dead_letter(|_: Vec<()>, _| {});
        builder.build(|_: Batch<()>| async { Ok::<(), String>(()) }).unwrap()
    };
    let closed = || {
        let batcher = roomy();
        tokio::spawn({
            let batcher = batcher.clone();
            async move { drop(batcher.shutdown(None).await) }
        });
        batcher
    };
    gives_way(move || {
        let batcher = heavy();
        async move || assert!(batcher.send(()).await.is_err())
    });
    gives_way(move || {
        let batcher = heavy();
        async move || assert!(batcher.send_many(&mut VecDeque::from([()])).await.is_err())
    });
    gives_way(move || {
        let batcher = closed();
        async move || _ = batcher.send(()).await
    });
    gives_way(move || {
        let batcher = closed();
        async move || drop(batcher.reserve().await)
    });
    gives_way(move || {
        let batcher = closed();
        async move || drop(batcher.shutdown(None).await)
    });
}

#[test]
fn sends_by_key_give_way() {
    for set in [per_key, |builder| builder] {
        gives_way(move || {
            let batcher = roomy_keyed(set);
            async move || batcher.send(1, ()).await.unwrap()
        });
        gives_way(move || {
            let batcher = roomy_keyed(set);
            async move || drop(batcher.reserve(1).await.unwrap())
        });
        gives_way(move || {
            let batcher = roomy_keyed(set);
            async move || batcher.send_many(&mut VecDeque::from([(1, ())])).await.unwrap()
        });
    }
    gives_way(|| {
        let batcher = roomy_keyed(per_key);
        async move || batcher.send_many(&mut VecDeque::new()).await.unwrap()
    });
    let heavy = || roomy_keyed(|builder| builder.max_weight(1, |()| 2));
    gives_way(move || {
        let batcher = heavy();
        async move || assert!(batcher.send(1, ()).await.is_err())
    });
    gives_way(move || {
        let batcher = heavy();
        async move || assert!(batcher.send_many(&mut VecDeque::from([(1, ())])).await.is_err())
    });
}

#[test]
fn flushes_and_shutdowns_of_an_empty_batcher_give_way() {
    gives_way(|| {
        let batcher = roomy();
        async move || _ = batcher.flush().await
    });
    gives_way(|| {
        let batcher = roomy_keyed(per_key);
        async move || _ = batcher.flush().await
    });
    gives_way(|| {
        let batcher = roomy_keyed(per_key);
        async move || _ = batcher.flush_key(&1).await
    });
    gives_way(|| {
        let batcher = roomy();
        async move || drop(batcher.shutdown(None).await)
    });
    gives_way(|| {
        let batcher = roomy_keyed(per_key);
        async move || drop(batcher.shutdown(None).await)
    });
}

#[test]
fn calls_give_way() {
    // They are answered by a driver that is polled in between, within the same task.
    fn drive(driver: &mut Pin<Box<Driver>>, cx: &mut Context<'_>) {
        assert!(driver.as_mut().poll(cx).is_pending());
    }
    gives_way(|| {
        let handler = |mut batch: Batch<Call<(), ()>>| {
            batch.reply_with(|()| ());
            async { Ok::<(), String>(()) }
        };
        let builder = Batcher::builder().eager_when_idle();
        let (batcher, driver) = builder.build_caller_with_driver(handler).unwrap();
        let mut driver = Box::pin(driver);
        async move || {
            let mut call = pin!(batcher.call(()));
            poll_fn(|cx| match call.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(answer),
                Poll::Pending => {
                    drive(&mut driver, cx);
                    call.as_mut().poll(cx)
                }
            })
            .await
            .unwrap();
        }
    });
    gives_way(|| {
        let handler = |mut batch: KeyedBatch<u8, Call<(), ()>>| {
            batch.reply_with(|()| ());
            async { Ok::<(), String>(()) }
        };
        let builder = Batcher::keyed(1_000).eager_when_idle();
        let (batcher, driver) = builder.build_caller_with_driver(handler).unwrap();
        let mut driver = Box::pin(driver);
        async move || {
            let mut call = pin!(batcher.call(1, ()));
            poll_fn(|cx| match call.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(answer),
                Poll::Pending => {
                    drive(&mut driver, cx);
                    call.as_mut().poll(cx)
                }
            })
            .await
            .unwrap();
        }
    });
}

#[cfg(feature = "sink")]
#[test]
fn sinks_give_way() {
    use futures_util::SinkExt;
    gives_way(|| {
        let mut sink = roomy().sink();
        async move || sink.feed(()).await.unwrap()
    });
    gives_way(|| {
        let mut sink = roomy().sink();
        async move || sink.flush().await.unwrap()
    });
    gives_way(|| {
        let mut sink = roomy().sink();
        async move || sink.close().await.unwrap()
    });
    for set in [per_key, |builder| builder] {
        gives_way(move || {
            let mut sink = roomy_keyed(set).sink();
            async move || sink.feed((1, ())).await.unwrap()
        });
        gives_way(move || {
            let mut sink = roomy_keyed(set).sink();
            async move || SinkExt::<(u8, ())>::flush(&mut sink).await.unwrap()
        });
        gives_way(move || {
            let mut sink = roomy_keyed(set).sink();
            async move || SinkExt::<(u8, ())>::close(&mut sink).await.unwrap()
        });
    }
}

#[test]
fn batches_of_a_stream_give_way() {
    let hour = Duration::from_secs(3600);
    gives_way(move || {
        let mut batches = futures_util::stream::repeat(()).batched(3, hour).unwrap();
        async move || drop(batches.next().await.unwrap())
    });
    gives_way(move || {
        let mut batches = futures_util::stream::repeat(()).batched(usize::MAX, hour).unwrap();
        async move || drop(batches.next().await.unwrap())
    });
    gives_way(move || {
        let mut batches = futures_util::stream::empty::<()>().batched(3, hour).unwrap();
        async move || assert!(batches.next().await.is_none(), "it has ended")
    });
}

#[test]
fn a_driver_that_always_has_a_batch_gives_way() {
    for eager in [false, true] {
        gives_way(move || {
            // Each batch that is handled makes another.
            let handle: Arc<OnceLock<Batcher<()>>> = Arc::default();
            let again = handle.clone();
            let mut builder = Batcher::builder().max_items(1).dead_letter(|_: Vec<()>, _| {});
            if eager {
                builder = builder.eager_when_idle();
            }
            let handler = move |_: Batch<()>| {
                let sent = again.get().unwrap().try_send(());
                async move { sent.map_err(|error| error.to_string()) }
            };
            let (batcher, driver) = builder.build_with_driver(handler).unwrap();
            batcher.try_send(()).unwrap();
            handle.set(batcher).unwrap();
            let mut driver = Box::pin(driver);
            async move || driver.as_mut().await
        });
    }
}

/// Spends what is left of the task's budget.
fn spend(cx: &mut Context<'_>) {
    while let Poll::Ready(unit) = poll_proceed(cx) {
        unit.made_progress();
    }
    assert!(!has_budget_remaining());
}

/// Polls once without a budget.
async fn poll_spent<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    let polled = poll_fn(|cx| {
        spend(cx);
        Poll::Ready(future.as_mut().poll(cx))
    });
    let polled = polled.await;
    yield_now().await;
    polled
}

#[test]
fn without_a_budget_a_send_takes_nothing_but_waits_at_once_where_it_must() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(1).capacity(1).build(log.handler(10)).unwrap();
        let mut first = pin!(batcher.send(1));
        assert!(poll_spent(first.as_mut()).await.is_pending());
        assert_eq!((batcher.stats().accepted, batcher.stats().waiting_senders), (0, 0));
        let mut reserved = pin!(batcher.reserve());
        assert!(poll_spent(reserved.as_mut()).await.is_pending());
        batcher.try_send(0).expect("the room is nobody's");
        assert!(poll_spent(first.as_mut()).await.is_pending());
        assert_eq!(batcher.stats().waiting_senders, 1);
        assert!(poll_spent(reserved.as_mut()).await.is_pending());
        assert_eq!(batcher.stats().waiting_senders, 2);
        tokio::time::sleep(millis(15)).await;
        assert!(batcher.try_send(3).is_err(), "the room is granted to the first");
        assert!(poll_spent(first.as_mut()).await.is_ready(), "what was granted is used");
        tokio::time::sleep(millis(15)).await;
        drop(reserved.await.unwrap());
        assert_eq!(log.batches(), [(0, vec![0]), (15, vec![1])]);
    });
}

#[test]
fn without_a_budget_an_answer_waits() {
    paused(async {
        let batcher = Batcher::builder()
            .eager_when_idle()
            .build_caller(|mut batch: Batch<Call<u32, u32>>| async move {
                batch.reply_with(|n| n * n);
                Ok::<(), String>(())
            })
            .unwrap();
        let mut call = pin!(batcher.call(3));
        assert!(futures_util::poll!(call.as_mut()).is_pending());
        pass(1).await;
        assert!(poll_spent(call.as_mut()).await.is_pending());
        assert_eq!(call.await.unwrap(), 9);
    });
}

#[test]
fn without_a_budget_a_send_by_key_takes_nothing_but_waits_at_once_where_it_must() {
    paused(async {
        // Full by key, and then in all.
        for (capacity, other) in [(2, 1), (1, 2)] {
            let batcher = Batcher::keyed(1_000)
                .max_items(1)
                .capacity(capacity)
                .capacity_per_key(1)
                .dead_letter(|_: &u8, _: Vec<u32>, _| {})
                .build(|_: KeyedBatch<u8, u32>| async {
                    tokio::time::sleep(millis(10)).await;
                    Ok::<(), String>(())
                })
                .unwrap();
            let mut sending = pin!(batcher.send(1, 1));
            let mut reserving = pin!(batcher.reserve(1));
            assert!(poll_spent(sending.as_mut()).await.is_pending());
            assert!(poll_spent(reserving.as_mut()).await.is_pending());
            assert_eq!((batcher.stats().accepted, batcher.stats().waiting_senders), (0, 0));
            batcher.try_send(other, 0).expect("the room is nobody's");
            assert!(poll_spent(sending.as_mut()).await.is_pending());
            assert!(poll_spent(reserving.as_mut()).await.is_pending());
            assert_eq!(batcher.stats().waiting_senders, 2);
            tokio::time::sleep(millis(15)).await;
            assert!(poll_spent(sending.as_mut()).await.is_ready(), "what was granted is used");
            assert!(reserving.await.is_ok());
        }
    });
}
