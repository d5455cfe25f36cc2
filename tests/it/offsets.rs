//! The offset tracker: time, budget, waiters, checkpoints that cannot be right.

use std::future::Future;
use std::task::{Context, Poll, Waker};

use sluicegate::offsets::{Checkpoint, TrackError};
use sluicegate::{Acked, OffsetTracker};

fn tracker(capacity: usize) -> OffsetTracker {
    OffsetTracker::new(capacity).unwrap()
}

fn committed(tracker: &OffsetTracker) -> Option<u64> {
    tracker.committable().map(|committed| committed.position)
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn limits_that_cannot_be_are_refused() {
    assert_eq!(
        OffsetTracker::<()>::new(0).unwrap_err().to_string(),
        "`capacity` is 0, but must be at least 1"
    );
    let narrow = OffsetTracker::<()>::builder().capacity(3).window(2).build();
    assert_eq!(narrow.unwrap_err().to_string(), "`window` is 2, but must be at least `capacity`");
}

#[test]
fn a_stuck_position_stops_the_source_at_the_window() {
    let tracker = OffsetTracker::builder().capacity(2).window(5).build().unwrap();
    let stuck = tracker.try_track(0, ()).unwrap();
    let mut position = 0;
    let full = loop {
        position += 1;
        match tracker.try_track(position, ()) {
            Ok(ack) => ack.complete(),
            Err(error) => break error,
        }
    };
    assert_eq!((position, full), (5, TrackError::Full { capacity: 2 }));
    stuck.complete();
    assert_eq!(committed(&tracker), Some(4));
    assert!(tracker.try_track(5, ()).is_ok());
}

#[test]
fn positions_must_increase_and_an_error_says_how() {
    let tracker = tracker(9);
    tracker.try_track(7, ()).unwrap().complete();
    let error = tracker.try_track(7, ()).unwrap_err();
    assert_eq!(error.to_string(), "position 7 is not above 7, the last one of this epoch");
    assert!(tracker.skip(3, ()) && !tracker.skip(8, ()));
}

#[test]
fn a_served_waiter_that_is_not_polled_holds_up_nobody() {
    let tracker = tracker(2);
    let acks = [1, 2].map(|position| tracker.try_track(position, ()).unwrap());
    let mut kept = tracker.track(3, ());
    let mut next = tracker.track(4, ());
    assert!(poll(&mut kept).is_pending() && poll(&mut next).is_pending());
    acks.into_iter().for_each(|ack| ack.complete());
    let Poll::Ready(Ok(next)) = poll(&mut next) else { panic!("it waits behind one that is kept") };
    next.complete();
    assert_eq!((committed(&tracker), tracker.stats().incomplete), (Some(2), 1));
    drop(kept);
    assert_eq!(committed(&tracker), Some(4), "3 was never handed out");
}

#[test]
fn a_panic_releases_what_it_had_in_hand() {
    let tracker = tracker(1);
    let ack = tracker.try_track(1, ()).unwrap();
    let acked = Acked::new("item", ack).map(str::len);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _acked = acked;
        std::panic::resume_unwind(Box::new("in the handler"))
    }));
    assert!(panicked.is_err());
    let again = tracker.redeliver().unwrap();
    assert_eq!((again.position, again.deliveries), (1, 2));
    again.ack.reject("it panics each time");
    let parked = tracker.take_parked();
    assert_eq!((committed(&tracker), parked[0].reason.as_ref()), (Some(1), "it panics each time"));
}

#[test]
fn splits_of_splits_and_of_nothing() {
    let tracker = tracker(9);
    assert!(tracker.try_track(1, ()).unwrap().split(0).is_empty());
    assert_eq!(committed(&tracker), Some(1));
    let mut parts = tracker.try_track(2, ()).unwrap().split(2);
    let inner = parts.pop().unwrap().split(3);
    inner.into_iter().for_each(|part| part.complete());
    assert_eq!(committed(&tracker), Some(1));
    assert!(!parts[0].is_fenced());
    parts.into_iter().for_each(|part| part.reject("one of them"));
    assert_eq!((committed(&tracker), tracker.stats().parked), (Some(2), 1));
}

#[test]
fn a_checkpoint_that_cannot_be_right_is_an_error() {
    let checkpoint = |ranges: &[(u64, u64)]| {
        Checkpoint::<()>::from_parts(None, ranges.iter().copied()).unwrap_err().to_string()
    };
    assert!(
        checkpoint(&[(5, 4)]).ends_with("is empty: its first position must not exceed its last")
    );
    assert!(checkpoint(&[(5, 9), (9, 12)]).contains("begins at or below 9"));
}

#[cfg(feature = "serde")]
#[test]
fn a_checkpoint_is_read_back_or_refused() {
    let tracker = OffsetTracker::new(9).unwrap();
    let acks: Vec<_> = (1..=5).map(|at| tracker.try_track(at, at * 80).unwrap()).collect();
    for ack in acks {
        if ![2, 4].contains(&ack.position()) {
            ack.complete();
        }
    }
    let text = serde_json::to_string(&tracker.checkpoint()).unwrap();
    assert_eq!(
        text,
        r#"{"committed":{"position":1,"payload":80},"completed_beyond":[[3,3],[5,5]],"forgotten":0}"#
    );
    let checkpoint: Checkpoint<u64> = serde_json::from_str(&text).unwrap();
    assert_eq!(checkpoint, tracker.checkpoint());
    for wrong in [
        text.replace("[3,3]", "[1,3]"),
        text.replace("[5,5]", "[2,5]"),
        text.replace("\"forgotten\"", "\"forgot\""),
        text.replace("80", "\"eighty\""),
        text[..text.len() - 1].to_owned(),
    ] {
        assert!(serde_json::from_str::<Checkpoint<u64>>(&wrong).is_err(), "{wrong}");
    }
}

#[cfg(feature = "tokio")]
mod on_tokio {
    use std::pin::pin;
    use std::time::Duration;

    use super::*;
    use crate::coop::{assert_yields, spend};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_oldest_has_an_age() {
        let tracker = tracker(99);
        let acks: Vec<_> = (0..40).map(|at| tracker.try_track(at, ()).unwrap()).collect();
        tokio::time::advance(SECOND).await;
        let oldest = tracker.oldest_incomplete().unwrap();
        assert_eq!((oldest.position, oldest.age), (0, SECOND));
        drop(tracker.try_track(40, ()).unwrap());
        acks.into_iter().for_each(|ack| ack.complete());
        tokio::time::advance(SECOND).await;
        // The clock was read by the call above.
        let oldest = tracker.oldest_incomplete().unwrap();
        assert_eq!((oldest.position, oldest.age), (40, SECOND));
        tracker.redeliver().unwrap().ack.complete();

        // One that comes alone after an hour of rest is not an hour old.
        tokio::time::advance(SECOND * 3600).await;
        let _alone = tracker.try_track(41, ()).unwrap();
        assert_eq!(tracker.oldest_incomplete().unwrap().age, Duration::ZERO);
        tokio::time::advance(SECOND).await;
        let _next = tracker.try_track(42, ()).unwrap();
        assert_eq!(tracker.oldest_incomplete().unwrap().age, SECOND);
    }

    #[tokio::test]
    async fn changed_ends_when_nothing_more_can_come() {
        let tracker = tracker(9);
        let watcher = tokio::spawn({
            let tracker = tracker.clone();
            async move {
                let (mut seen, mut moves) = (None, 0);
                while let Some(committed) = tracker.changed(seen).await {
                    seen = Some(committed.position);
                    moves += 1;
                }
                (seen, moves)
            }
        });
        for position in 1..=100 {
            tracker.track(position, ()).await.unwrap().complete();
            tokio::task::yield_now().await;
        }
        tracker.close();
        let (seen, moves) = watcher.await.unwrap();
        assert!(seen == Some(100) && (1..=100).contains(&moves));
        assert!(matches!(tracker.track(101, ()).await, Err(TrackError::Closed)));
    }

    #[test]
    fn each_future_yields_to_other_tasks() {
        let tracker = tracker(9);
        assert_yields({
            let tracker = tracker.clone();
            async move {
                for position in 1.. {
                    tracker.track(position, ()).await.unwrap().complete();
                }
            }
        });
        let tracker = super::tracker(9);
        drop(tracker.try_track(1, ()).unwrap());
        assert_yields({
            let tracker = tracker.clone();
            async move {
                loop {
                    drop(tracker.redelivery().await);
                }
            }
        });
        tracker.redeliver().unwrap().ack.complete();
        assert_yields(async move {
            loop {
                tracker.changed(None).await;
            }
        });
    }

    /// Nothing is taken without budget; a call that has to wait joins the wait list.
    #[tokio::test]
    async fn without_budget_nothing_is_tracked() {
        let tracker = tracker(1);
        spend().await;
        let mut first = pin!(tracker.track(1, ()));
        let pending = std::future::poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx).is_pending()));
        assert!(pending.await);
        assert_eq!(tracker.stats().tracked, 0);
        let ack = first.await.unwrap();
        spend().await;
        let mut second = pin!(tracker.track(2, ()));
        let pending = std::future::poll_fn(|cx| Poll::Ready(second.as_mut().poll(cx).is_pending()));
        assert!(pending.await);
        assert_eq!(tracker.stats().waiting, 1);
        ack.complete();
        assert_eq!(second.await.unwrap().position(), 2);
    }
}

/// `Acked` in a batcher: whatever becomes of a batch, each position is settled in the end.
#[cfg(feature = "tokio")]
mod acked {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use sluicegate::batcher::{Batch, Batcher};
    use sluicegate::{Acked, OffsetTracker, Retry};

    const MS: Duration = Duration::from_millis(1);

    fn committed(tracker: &OffsetTracker) -> Option<u64> {
        tracker.committable().map(|committed| committed.position)
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_completes_what_is_left_in_it_and_rejects_what_fails_for_good() {
        let tracker = OffsetTracker::new(100).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let rows = Batcher::builder()
            .max_items(10)
            .retry(Retry::constant(2, MS).unwrap())
            .isolate_poison(100)
            .delivered(Acked::complete)
            .dead_letter(Acked::dead_letter)
            .build({
                let calls = Arc::clone(&calls);
                move |mut rows: Batch<Acked<u64>>| {
                    let calls = Arc::clone(&calls);
                    async move {
                        match calls.fetch_add(1, SeqCst) {
                            0 => panic!("the first attempt"),
                            // One is taken out, and settled by the handler: it is not done.
                            1 => drop(rows.drain(9..)),
                            _ => {}
                        }
                        match rows.iter().any(|row| row.item == 13) {
                            true => Err("row 13"),
                            false => Ok(()),
                        }
                    }
                }
            })
            .unwrap();
        for line in 1..=30 {
            rows.send(Acked::new(line, tracker.track(line, ()).await.unwrap())).await.unwrap();
        }
        let report = rows.flush().await;
        assert_eq!((report.delivered, report.failed), (29, 1));
        let stats = tracker.stats();
        assert_eq!((stats.completed, stats.parked, stats.awaiting_redelivery), (28, 1, 1));
        let again = tracker.redeliver().unwrap();
        assert_eq!((again.position, committed(&tracker)), (10, Some(9)));
        rows.send(Acked::new(10, again.ack)).await.unwrap();
        assert!(rows.flush().await.all_delivered());
        assert_eq!(committed(&tracker), Some(30));
        let parked = tracker.take_parked();
        assert_eq!(parked.len(), 1);
        assert!(parked[0].position == 13 && parked[0].reason.contains("row 13"), "{parked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_shutdown_gives_up_is_delivered_again() {
        let tracker = OffsetTracker::new(100).unwrap();
        let build = |hangs: bool| {
            Batcher::keyed(4)
                .max_items(4)
                .delivered(Acked::complete)
                .dead_letter(|_: &u64, rows, why| Acked::dead_letter(rows, why))
                .build(move |_rows: sluicegate::KeyedBatch<u64, Acked<u64>>| async move {
                    if hangs {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, std::io::Error>(())
                })
                .unwrap()
        };
        let hung = build(true);
        for line in 1..=8 {
            let acked = Acked::new(line, tracker.track(line, ()).await.unwrap());
            hung.send(line % 3, acked).await.unwrap();
        }
        // Its report hands the items back, and is not looked at.
        drop(hung.shutdown(Some(MS * 100)).await);
        assert_eq!(tracker.stats().awaiting_redelivery, 8);
        let rows = build(false);
        while let Some(again) = tracker.redeliver() {
            rows.send(again.position % 3, Acked::new(again.position, again.ack)).await.unwrap();
        }
        assert_eq!(rows.shutdown(None).await.delivered, 8);
        assert_eq!((committed(&tracker), tracker.stats().completed), (Some(8), 8));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_in_what_takes_delivered_items_costs_that_item_alone() {
        let tracker = OffsetTracker::new(100).unwrap();
        let rows = Batcher::builder()
            .delivered(|row: Acked<u64>| {
                assert_ne!(row.item, 2, "two");
                row.complete();
            })
            .dead_letter(Acked::dead_letter)
            .build(|_rows: Batch<Acked<u64>>| async { Ok::<_, std::io::Error>(()) })
            .unwrap();
        for line in 1..=3 {
            rows.send(Acked::new(line, tracker.track(line, ()).await.unwrap())).await.unwrap();
        }
        let report = rows.flush().await;
        assert_eq!((report.delivered, tracker.stats().completed), (3, 2));
        assert_eq!(tracker.redeliver().map(|again| again.position), Some(2));
    }
}
