//! What is refused, and who waits.

use super::*;
use sluicegate::batcher::{SendError, TrySendError};
use sluicegate::{ConfigError, Retry};

fn refused(builder: Builder<u32>) -> ConfigError {
    builder.build(Log::new().handler(0)).unwrap_err()
}

#[tokio::test]
async fn bad_limits_are_refused_by_name() {
    let builder = || Batcher::<u32>::builder().dead_letter(|_, _| {});
    let ten_years = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    for (builder, message) in [
        (builder().max_items(0), "`max_items` is 0, but must be at least 1".to_owned()),
        (builder().concurrency(0), "`concurrency` is 0, but must be at least 1".to_owned()),
        (
            builder().max_items(5).capacity(4),
            "`capacity` is 4, but must be at least `max_items`".to_owned(),
        ),
        (
            builder().capacity(usize::MAX),
            format!("`capacity` is {}, but must be at most `Semaphore::MAX_PERMITS`", usize::MAX),
        ),
        (
            builder().max_items(usize::MAX).capacity(usize::MAX),
            format!("`max_items` is {}, but must be at most `Semaphore::MAX_PERMITS`", usize::MAX),
        ),
        (
            builder().window(ten_years + Duration::from_nanos(1)),
            "`window` is 315360000.000000001s, but must be at most ten years".to_owned(),
        ),
        (
            Batcher::builder(),
            "`dead_letter` is not set, but must be a function that takes what fails".to_owned(),
        ),
    ] {
        assert_eq!(refused(builder).to_string(), message);
    }
}

#[test]
fn a_missing_runtime_is_refused() {
    let error = refused(Batcher::builder().dead_letter(|_, _| {}));
    assert_eq!((error.field(), error.value()), ("runtime", "missing"));

    let timerless = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = timerless.enter();
    let error = refused(Batcher::builder().dead_letter(|_, _| {}));
    assert_eq!((error.field(), error.value()), ("runtime", "without timers"));
}

#[test]
fn retries_are_counted_with_the_first_attempt() {
    let ms = |retry: Retry| retry.delays().map(|wait| wait.as_millis()).collect::<Vec<_>>();
    assert_eq!(ms(Retry::none()), []);
    assert_eq!(ms(Retry::constant(1, millis(5)).unwrap()), []);
    assert_eq!(ms(Retry::constant(3, millis(5)).unwrap()), [5, 5]);
    let capped = Retry::exponential(6, millis(100), millis(500)).unwrap();
    assert_eq!(ms(capped.clone()), [100, 200, 400, 500, 500]);
    assert_eq!(ms(capped), [100, 200, 400, 500, 500], "each course begins anew");
    let short = Retry::with_backoff(9, || [millis(1), Duration::MAX].into_iter()).unwrap();
    assert_eq!(ms(short), [1, 10 * 365 * 24 * 60 * 60 * 1000], "an end is an end, a cap a cap");

    for error in [
        Retry::constant(0, millis(1)).unwrap_err(),
        Retry::exponential(0, millis(1), millis(1)).unwrap_err(),
        Retry::with_backoff(0, || [].into_iter()).unwrap_err(),
    ] {
        assert_eq!(error.field(), "max_attempts");
    }
    assert_eq!(Retry::constant(2, Duration::MAX).unwrap_err().field(), "delay");
    assert_eq!(Retry::exponential(2, millis(2), millis(1)).unwrap_err().field(), "cap");
}

#[test]
fn capacity_counts_what_the_handler_holds() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(2)
            .capacity(3)
            .window(millis(0))
            .build(log.handler(10))
            .unwrap();
        for item in 0..3 {
            batcher.try_send(item).unwrap();
        }
        pass(1).await;
        assert_eq!(batcher.try_send(9), Err(TrySendError::Full(9)), "two are in the handler");
        let waiting = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.send(3).await }
        });
        pass(1).await;
        assert_eq!(batcher.stats().waiting_senders, 1);
        conserved(&batcher);
        pass(8).await;
        waiting.await.unwrap().unwrap();
        assert_eq!(log.batches(), [(0, vec![0, 1]), (10, vec![2])]);
        assert_eq!(batcher.stats().peak_pending, 3);
    });
}

#[test]
fn room_is_given_in_line_and_a_slot_is_used_without_waiting() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(1)
            .capacity(1)
            .window(millis(0))
            .build(log.handler(10))
            .unwrap();
        batcher.send(0).await.unwrap();
        let mut line = Vec::new();
        for item in 1..4 {
            let batcher = batcher.clone();
            line.push(tokio::spawn(async move { batcher.send(item).await }));
            tokio::task::yield_now().await;
        }
        // Who gives up leaves the line to the others.
        line.remove(1).abort();
        pass(40).await;
        assert_eq!(log.batches(), [(0, vec![0]), (10, vec![1]), (20, vec![3])]);

        let slot = batcher.reserve().await.unwrap();
        assert_eq!(batcher.try_send(9), Err(TrySendError::Full(9)), "the slot has the room");
        slot.send(4).unwrap();
        pass(20).await;
        drop(batcher.reserve().await.unwrap());
        batcher.try_send(5).expect("a dropped slot gives its room back");
        conserved(&batcher);
    });
}

#[test]
fn whoever_waits_gets_the_item_back_at_shutdown() {
    paused(async {
        let log = Log::new();
        let batcher = log
            .builder()
            .max_items(1)
            .capacity(2)
            .window(millis(0))
            .build(log.handler(10))
            .unwrap();
        let slot = batcher.reserve().await.unwrap();
        batcher.send(0).await.unwrap();
        let waiting = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.send(7).await }
        });
        pass(1).await;
        let ended = batcher.shutdown(None).await;
        assert_eq!(waiting.await.unwrap(), Err(SendError::Closed(7)));
        assert_eq!(slot.send(8), Err(SendError::Closed(8)));
        assert_eq!(batcher.send(9).await, Err(SendError::Closed(9)));
        assert_eq!(batcher.try_send(9), Err(TrySendError::Closed(9)));
        assert!(batcher.reserve().await.is_err());
        assert!(batcher.is_closed());
        assert!(ended.all_delivered());
        assert_eq!(ended.delivered, 1);
    });
}
