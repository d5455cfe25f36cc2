//! A handle as a sink.

use super::*;
use futures_util::{SinkExt, StreamExt, stream};
use sluicegate::batcher::{SinkError, TrySendError};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn a_stream_is_forwarded_with_backpressure_and_a_flush_is_a_barrier() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(3).capacity(4).build(log.handler(10)).unwrap();
        let mut sink = batcher.sink();
        let mut source = stream::iter(0..10).map(Ok);
        sink.send_all(&mut source).await.unwrap();
        assert_eq!(batcher.stats().delivered, 10, "it flushes at its end");
        let delivered: Vec<_> = log.batches().into_iter().flat_map(|(_, items)| items).collect();
        assert_eq!(delivered, (0..10).collect::<Vec<_>>());
        assert!(batcher.stats().peak_pending <= 4);
        sink.close().await.unwrap();
        assert!(!batcher.is_closed(), "other handles go on");
    });
}

#[test]
fn what_a_sink_reserved_goes_back_when_it_is_dropped() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(1).capacity(1).build(log.handler(10)).unwrap();
        let mut sink = batcher.sink();
        let waker = std::task::Waker::noop();
        assert!(sink.poll_ready_unpin(&mut std::task::Context::from_waker(waker)).is_ready());
        assert_eq!(batcher.try_send(1), Err(TrySendError::Full(1)));
        let mut other = batcher.sink();
        assert!(other.poll_ready_unpin(&mut std::task::Context::from_waker(waker)).is_pending());
        drop(other);
        assert_eq!(batcher.stats().waiting_senders, 0);
        drop(sink);
        batcher.try_send(1).unwrap();
    });
}

#[test]
fn a_sink_hands_back_what_it_cannot_send_and_tells_what_failed() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(2)
            .build(|batch: Batch<u32>| async move {
                if batch.as_slice() == [1] { Err("no") } else { Ok(()) }
            })
            .unwrap();
        let mut sink = batcher.sink();
        let error = sink.send(1).await.unwrap_err();
        assert!(matches!(error, SinkError::Undelivered(report) if report.failed == 1), "{error}");
        sink.feed(2).await.unwrap();
        sink.flush().await.unwrap();

        let waker = std::task::Waker::noop();
        assert!(sink.poll_ready_unpin(&mut std::task::Context::from_waker(waker)).is_ready());
        assert!(batcher.shutdown(None).await.delivered == 1);
        let error = sink.start_send_unpin(3).unwrap_err();
        assert!(matches!(error, SinkError::Send(TrySendError::Closed(3))), "{error}");
        assert!(matches!(sink.feed(4).await, Err(SinkError::Closed)));
    });
}

#[test]
fn a_stream_that_pauses_is_forwarded_to_its_last_item() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(10).concurrency(2).build(log.handler(100)).unwrap();
        let source = stream::iter([(0, 1), (10, 2)]).then(|(wait, item)| async move {
            pass(wait).await;
            Ok(item)
        });
        source.forward(batcher.sink()).await.unwrap();
        assert_eq!(batcher.stats().delivered, 2, "not only what the first flush covered");
    });
}

#[test]
fn a_flush_that_was_left_alone_is_not_taken_for_that_of_later_items() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .build(|batch: Batch<u32>| async move {
                pass(100).await;
                if batch.as_slice() == [1] { Err("no") } else { Ok(()) }
            })
            .unwrap();
        let mut sink = batcher.sink();
        sink.feed(1).await.unwrap();
        assert!(tokio::time::timeout(millis(10), sink.flush()).await.is_err());
        sink.feed(2).await.unwrap();
        let error = sink.flush().await.unwrap_err();
        assert!(matches!(error, SinkError::Undelivered(report) if report.failed == 1), "{error}");
        assert_eq!(batcher.stats().delivered, 1);
        sink.flush().await.unwrap();
    });
}

#[test]
fn a_closed_sink_stands_in_no_line() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(1).capacity(1).build(log.handler(10)).unwrap();
        batcher.send(1).await.unwrap();
        let mut sink = batcher.sink();
        let waker = std::task::Waker::noop();
        assert!(sink.poll_ready_unpin(&mut std::task::Context::from_waker(waker)).is_pending());
        sink.close().await.unwrap();
        batcher.try_send(2).unwrap();
    });
}

#[test]
fn a_sink_keeps_its_room_when_weighing_panics() {
    paused(async {
        let log = Log::new();
        let weigh = |item: &u32| if *item == 7 { panic!("no weight") } else { 1 };
        let builder = log.builder().max_items(1).capacity(1).max_weight(10, weigh);
        let batcher = builder.build(log.handler(0)).unwrap();
        let mut sink = batcher.sink();
        let waker = std::task::Waker::noop();
        assert!(sink.poll_ready_unpin(&mut std::task::Context::from_waker(waker)).is_ready());
        let sent = AssertUnwindSafe(|| sink.start_send_unpin(7));
        assert!(catch_unwind(sent).is_err());
        sink.start_send_unpin(1).unwrap();
        sink.close().await.unwrap();
        batcher.try_send(2).unwrap();
    });
}
