//! What an item does.

use std::future::poll_fn;
use std::hint::black_box;
use std::sync::LazyLock;
use std::task::Poll;
use std::time::{Duration, Instant};

use sluicegate_benches::Scale;
use tokio::runtime::{Builder, Runtime};

/// The same for everybody.
pub(crate) static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).build().unwrap());

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Nothing.
    Ready,
    /// Gives way once, to be woken by the runtime when that gets round to it.
    Yield,
    /// ReadyQueue itself once, while it is being polled.
    Wake,
    /// Five microseconds of work.
    Cpu,
}

impl Kind {
    pub(crate) fn items(self, scale: Scale) -> u64 {
        match self {
            Self::Cpu => scale.of(20_000),
            _ => scale.of(200_000),
        }
    }
}

/// Never fails, and its outcome tells which it was.
pub(crate) async fn ready(n: u64) -> Result<u64, ()> {
    Ok(black_box(n))
}

pub(crate) async fn gives_way(n: u64) -> Result<u64, ()> {
    tokio::task::yield_now().await;
    Ok(black_box(n))
}

pub(crate) async fn wakes_itself(n: u64) -> Result<u64, ()> {
    let mut given = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    Ok(black_box(n))
}

pub(crate) async fn works(n: u64) -> Result<u64, ()> {
    turn(*TURNS);
    Ok(n)
}

/// How many turns of `work` take five microseconds here: an amount of work, not a time to pass.
pub(crate) static TURNS: LazyLock<u64> = LazyLock::new(|| {
    const MANY: u64 = 100_000;
    let quickest = (0..50).map(|_| {
        let start = Instant::now();
        turn(MANY);
        start.elapsed()
    });
    let quickest = quickest.min().unwrap().max(Duration::from_nanos(1));
    (5_000 * MANY / quickest.as_nanos() as u64).max(1)
});

pub(crate) fn turn(turns: u64) {
    let mut value = black_box(1_u64);
    for _ in 0..turns {
        value = value.rotate_left(5) ^ value.wrapping_mul(6_364_136_223_846_793_005);
    }
    black_box(value);
}

/// Does the same with each kind of item, whose futures are of different types.
macro_rules! with_work {
    ($kind:expr, |$f:ident| $run:expr) => {
        match $kind {
            $crate::work::Kind::Ready => {
                let $f = $crate::work::ready;
                $run
            }
            $crate::work::Kind::Yield => {
                let $f = $crate::work::gives_way;
                $run
            }
            $crate::work::Kind::Wake => {
                let $f = $crate::work::wakes_itself;
                $run
            }
            $crate::work::Kind::Cpu => {
                std::sync::LazyLock::force(&$crate::work::TURNS);
                let $f = $crate::work::works;
                $run
            }
        }
    };
}
pub(crate) use with_work;
