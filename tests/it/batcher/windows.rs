//! When a batch is handed over, and when not.

use super::*;

#[test]
fn a_lone_item_waits_for_its_own_window_and_not_for_that_of_the_batch_before() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(3).window(millis(50)).build(log.handler(0)).unwrap();
        pass(10).await;
        for item in 0..3 {
            batcher.send(item).await.unwrap();
        }
        pass(49).await;
        // A millisecond before the timer of the full batch would have rung.
        batcher.send(3).await.unwrap();
        pass(100).await;
        assert_eq!(log.batches(), [(10, vec![0, 1, 2]), (109, vec![3])]);
        let batches = batcher.stats().batches;
        assert_eq!((batches.count, batches.window, batches.total()), (1, 1, 2));
    });
}

#[test]
fn a_trickle_faster_than_the_window_does_not_extend_it() {
    paused(async {
        let log = Log::new();
        let batcher =
            log.builder().max_items(100).window(millis(50)).build(log.handler(0)).unwrap();
        for item in 0..20 {
            batcher.send(item).await.unwrap();
            pass(10).await;
        }
        let begun: Vec<_> = log.batches().iter().map(|(at, items)| (*at, items.len())).collect();
        assert_eq!(begun, [(50, 5), (100, 5), (150, 5), (200, 5)]);
        assert!(batcher.stats().oldest_handed_over <= millis(51));
    });
}

#[test]
fn a_source_that_is_always_ready_does_not_hold_up_the_deadline() {
    paused(async {
        let log = Log::new();
        let batcher =
            log.builder().max_items(1_000_000).window(millis(5)).build(log.handler(0)).unwrap();
        let source = tokio::spawn({
            let batcher = batcher.clone();
            async move {
                for item in 0.. {
                    batcher.send(item).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        pass(30).await;
        source.abort();
        let begun: Vec<_> = log.batches().iter().map(|(at, _)| *at).collect();
        assert_eq!(begun.first(), Some(&5));
        assert!(begun.windows(2).all(|pair| pair[1] - pair[0] <= 6), "{begun:?}");
        assert!(begun.len() >= 5, "{begun:?}");
    });
}

#[test]
fn a_window_of_zero_is_over_as_soon_as_the_handler_is_free() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(10).window(millis(0)).build(log.handler(20)).unwrap();
        batcher.send(0).await.unwrap();
        pass(1).await;
        for item in 1..4 {
            batcher.send(item).await.unwrap();
        }
        pass(60).await;
        assert_eq!(log.batches(), [(0, vec![0]), (20, vec![1, 2, 3])]);
    });
}

#[tokio::test(start_paused = true)]
async fn a_huge_window_never_ends_and_its_batches_close_by_number() {
    let log = Log::new();
    let ten_years = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    let batcher = log.builder().max_items(2).window(ten_years).build(log.handler(0)).unwrap();
    for item in 0..3 {
        batcher.send(item).await.unwrap();
    }
    pass(1).await;
    tokio::time::advance(Duration::from_secs(3 * 365 * 24 * 60 * 60)).await;
    pass(5).await;
    assert_eq!(log.batches(), [(0, vec![0, 1])]);
    assert_eq!(batcher.stats().pending, 1);
    conserved(&batcher);
}

#[test]
fn with_one_item_a_batch_nothing_waits() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(1).capacity(2).build(log.handler(0)).unwrap();
        for item in 0..5 {
            batcher.send(item).await.unwrap();
        }
        pass(1).await;
        let items: Vec<_> = log.batches().into_iter().collect();
        assert_eq!(items, (0..5).map(|item| (0, vec![item])).collect::<Vec<_>>());
    });
}

#[test]
fn a_batch_that_only_waits_for_the_handler_goes_on_filling() {
    paused(async {
        let log = Log::new();
        let batcher =
            log.builder().max_items(4).window(millis(10)).build(log.handler(100)).unwrap();
        batcher.send(0).await.unwrap();
        pass(11).await;
        for item in 1..4 {
            batcher.send(item).await.unwrap();
            pass(20).await;
        }
        pass(60).await;
        assert_eq!(log.batches(), [(10, vec![0]), (110, vec![1, 2, 3])]);
    });
}

#[test]
fn an_empty_batcher_is_never_woken() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(2).window(millis(50)).build(log.handler(0)).unwrap();
        pass(1).await;
        let at_rest = batcher.stats().wakeups;
        pass(500).await;
        assert_eq!(batcher.stats().wakeups, at_rest, "before the first item");

        batcher.send(0).await.unwrap();
        batcher.send(1).await.unwrap();
        pass(1).await;
        let at_rest = batcher.stats().wakeups;
        assert_eq!(log.batches().len(), 1);
        pass(500).await;
        assert_eq!(batcher.stats().wakeups, at_rest, "the timer of a batch that is gone is off");
    });
}

#[test]
fn the_driver_is_woken_three_times_a_batch_at_the_most() {
    paused(async {
        let log = Log::new();
        let batcher = log.builder().max_items(10).window(millis(50)).build(log.handler(5)).unwrap();
        pass(1).await;
        let before = batcher.stats().wakeups;
        for item in 0..1000 {
            batcher.send(item).await.unwrap();
            if item % 3 == 0 {
                pass(1).await;
            }
        }
        let _ = batcher.flush().await;
        let stats = batcher.stats();
        assert!(stats.wakeups - before <= 3 * stats.batches.total(), "{stats:?}");
    });
}
