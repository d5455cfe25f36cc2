//! A handle as a sink of items with their keys.

use super::*;
use futures_util::{SinkExt, StreamExt, stream};
use sluicegate::batcher::{KeyedBatcherSink, SinkError};
use std::task::{Context, Poll, Waker};

fn poll_ready(sink: &mut KeyedBatcherSink<Key, u32>) -> Poll<Result<(), SinkError<(Key, u32)>>> {
    sink.poll_ready_unpin(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_stream_is_forwarded_with_backpressure_and_a_flush_is_a_barrier() {
    for per_key in [3, 9] {
        paused(async move {
            let log = Log::new();
            let batcher = log
                .builder()
                .max_items(3)
                .capacity(9)
                .capacity_per_key(per_key)
                .build(log.handler(10))
                .unwrap();
            let mut sink = batcher.sink();
            let source =
                stream::iter(0..40).map(|item| Ok((["a", "b", "b"][item % 3], item as u32)));
            sink.send_all(&mut { source }).await.unwrap();
            assert_eq!(batcher.stats().delivered, 40, "it flushes at its end");
            for key in ["a", "b"] {
                let batches = log.batches();
                let got: Vec<_> =
                    batches.iter().filter(|(_, of, _)| *of == key).flat_map(|b| &b.2).collect();
                assert!(got.is_sorted(), "{got:?}");
            }
            assert!(batcher.stats().peak_pending <= 9);
            sink.close().await.unwrap();
            assert!(!batcher.is_closed(), "other handles go on");
        });
    }
}

#[test]
fn what_a_sink_reserved_goes_back_when_it_is_dropped_or_closed() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(1).capacity(1).build(log.handler(10)).unwrap();
        let mut sink = batcher.sink();
        assert!(poll_ready(&mut sink).is_ready());
        assert_eq!(batcher.try_send("a", 1), Err(TrySendError::Full(("a", 1))));
        let mut other = batcher.sink();
        assert!(poll_ready(&mut other).is_pending());
        assert_eq!(batcher.stats().waiting_senders, 1);
        drop(other);
        assert_eq!(batcher.stats().waiting_senders, 0);
        drop(sink);
        batcher.try_send("a", 1).unwrap();
        let mut sink = batcher.sink();
        assert!(poll_ready(&mut sink).is_pending());
        sink.close().await.unwrap();
        batcher.try_send("a", 2).unwrap();
    });
}

/// A sink that holds an item whose key is full.
async fn holding(log: &Log) -> (KeyedBatcher<Key, u32>, KeyedBatcherSink<Key, u32>) {
    let builder = log.builder().max_items(1).capacity(4).capacity_per_key(1);
    let batcher = builder.build(log.handler(10)).unwrap();
    batcher.try_send("a", 1).unwrap();
    let mut sink = batcher.sink();
    sink.feed(("a", 2)).await.unwrap();
    assert_eq!(batcher.stats().accepted, 1, "it is held, not accepted");
    (batcher, sink)
}

#[test]
fn an_item_whose_key_is_full_is_held_and_holds_up_no_other_key() {
    paused(async {
        let log = Log::new();
        let (batcher, mut sink) = holding(&log).await;
        assert!(poll_ready(&mut sink).is_pending(), "one at the most");
        assert_eq!(batcher.stats().waiting_senders, 1);
        let full = sink.start_send_unpin(("b", 3)).unwrap_err();
        assert!(matches!(full, SinkError::Send(TrySendError::Full(("b", 3)))), "{full}");
        for item in 4..7 {
            batcher.try_send(["b", "c", "d"][item as usize - 4], item).unwrap();
        }
        sink.send(("e", 7)).await.unwrap();
        let stats = batcher.stats();
        assert_eq!((stats.delivered, stats.pending, stats.waiting_senders), (6, 0, 0));
    });
}

#[test]
fn a_flush_covers_what_is_held() {
    paused(async {
        let log = Log::new();
        let (batcher, mut sink) = holding(&log).await;
        sink.flush().await.unwrap();
        assert_eq!(batcher.stats().delivered, 2);
        let (batcher, mut sink) = holding(&log).await;
        sink.close().await.unwrap();
        assert_eq!(batcher.stats().delivered, 2);
    });
}

#[test]
fn what_is_held_is_never_lost() {
    paused(async {
        let log = Log::new();
        let (batcher, mut sink) = holding(&log).await;
        assert!(poll_ready(&mut sink).is_pending());
        assert_eq!(sink.take_held(), Some(("a", 2)));
        assert_eq!((sink.take_held(), batcher.stats().waiting_senders), (None, 0));
        assert!(poll_ready(&mut sink).is_ready());

        let (batcher, mut sink) = holding(&log).await;
        assert!(poll_ready(&mut sink).is_pending());
        drop(sink);
        assert_eq!(*log.buried.lock().unwrap(), [("a", vec![2])]);
        assert_eq!((batcher.stats().waiting_senders, batcher.stats().accepted), (0, 1));

        let (batcher, mut sink) = holding(&log).await;
        assert!(batcher.shutdown(None).await.all_delivered());
        let closed = sink.flush().await.unwrap_err();
        assert!(matches!(closed, SinkError::Send(TrySendError::Closed(("a", 2)))), "{closed}");
        assert_eq!(sink.take_held(), None);
        assert!(matches!(sink.feed(("a", 3)).await, Err(SinkError::Closed)));
        assert_eq!(log.buried.lock().unwrap().len(), 1);
    });
}

#[test]
fn a_sink_hands_back_what_it_cannot_send_and_tells_what_failed() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(10)
            .max_weight(5, |item: &u32| u64::from(*item))
            .capacity_weight(5)
            .build(log.handler(0))
            .unwrap();
        let mut sink = batcher.sink();
        let error = sink.send(("bad", 1)).await.unwrap_err();
        assert!(matches!(error, SinkError::Undelivered(report) if report.failed == 1), "{error}");
        let error = sink.feed(("a", 6)).await.unwrap_err();
        assert!(matches!(error, SinkError::Send(TrySendError::TooHeavy(("a", 6)))), "{error}");
        // What the heaviest would have taken up goes back.
        sink.feed(("a", 2)).await.unwrap();
        batcher.try_send("b", 3).unwrap();
        assert!(poll_ready(&mut sink).is_pending());
        sink.flush().await.unwrap();
        assert!(poll_ready(&mut sink).is_ready());
        assert_eq!(batcher.shutdown(None).await.delivered, 2);
        let error = sink.start_send_unpin(("a", 3)).unwrap_err();
        assert!(matches!(error, SinkError::Send(TrySendError::Closed(("a", 3)))), "{error}");
    });
}
