//! Starts at a rate that is never reached.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate::{KeyedThrottle, Throttle};

use crate::{RUNTIME, in_task, row};

/// As many per second as there can be, and as many at once.
const PLENTY: u32 = 1_000_000_000;
const SECOND: Duration = Duration::from_secs(1);

fn gcra() -> Throttle {
    Throttle::gcra(PLENTY, SECOND, PLENTY).expect("good limits")
}

pub(crate) fn rows() {
    let _runtime = RUNTIME.enter();
    let start = Instant::now();
    for (name, throttle) in [
        ("throttle: GCRA, try_acquire_at", gcra()),
        // So short that a window is over when its starts come round again.
        (
            "throttle: sliding window, try_acquire_at",
            Throttle::new(2_000, Duration::from_nanos(1)).expect("good limits"),
        ),
    ] {
        let mut nanos = 0..;
        row(name, 10_000, |n| {
            for nano in nanos.by_ref().take(n as usize) {
                let now = black_box(start + Duration::from_nanos(nano));
                assert!(black_box(&throttle).try_acquire_at(1, now).is_ok());
            }
        });
    }
    let throttle = gcra();
    row("throttle: GCRA, try_acquire", 10_000, |n| {
        for _ in 0..n {
            assert!(black_box(&throttle).try_acquire().is_ok());
        }
    });
    row("throttle: GCRA, reserve", 10_000, |n| {
        for _ in 0..n {
            assert!(black_box(&throttle).reserve(1, start).is_ok());
        }
    });
    row("throttle: GCRA, acquire, in a task", 10_000, |n| {
        let throttle = Arc::new(gcra());
        in_task(async move {
            for _ in 0..n {
                throttle.acquire().await;
            }
        });
    });
    let rate = gcra().rate();
    let keyed = KeyedThrottle::new(1_000, move |_: &u64| rate).expect("good limits");
    row("keyed throttle: try_acquire_at, 100 keys", 10_000, |n| {
        for key in 0..n {
            assert!(keyed.try_acquire_at(&(key % 100), 1, start).is_ok());
        }
    });
}
