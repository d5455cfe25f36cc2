//! A clock for loom, instead of `tokio::time`: what the models run is the
//! [`Clock`](super::clock) that ships.

use core::future::Future;
use core::ops::Add;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::OnceLock;
use std::time::Duration;

use crate::base::sync::{Mutex, lazy_static};

lazy_static! {
    /// Begins anew in each run of a model, and stands still unless it is moved on.
    static ref TIME: Mutex<Time> = Mutex::new(Time { now: Duration::ZERO, sleeper: None });
}

struct Time {
    now: Duration,
    /// There is one run in a model, and one timer in a run.
    sleeper: Option<(Instant, Waker)>,
}

/// Moves the time on, from any thread, and wakes the run if its alarm was set for before.
pub fn advance(by: Duration) {
    let woken = {
        let mut time = TIME.lock();
        time.now += by;
        let now = Instant::start() + time.now;
        time.sleeper.take_if(|(due, _)| *due <= now)
    };
    if let Some((_, waker)) = woken {
        waker.wake();
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instant(std::time::Instant);

impl Instant {
    fn start() -> Self {
        static START: OnceLock<std::time::Instant> = OnceLock::new();
        Self(*START.get_or_init(std::time::Instant::now))
    }

    pub(super) fn now() -> Self {
        Self::start() + TIME.lock().now
    }

    pub(super) fn from_std(instant: std::time::Instant) -> Self {
        Self(instant)
    }

    pub(super) fn into_std(self) -> std::time::Instant {
        self.0
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

pub(super) struct Sleep(Instant);

pub(super) fn sleep_until(deadline: Instant) -> Sleep {
    Sleep(deadline)
}

impl Sleep {
    pub(super) fn timeout(&self) -> Instant {
        self.0
    }

    pub(super) fn is_elapsed(&self) -> bool {
        self.0 <= Instant::now()
    }

    pub(super) fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.0 = deadline;
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut time = TIME.lock();
        if self.0 <= Instant::start() + time.now {
            return Poll::Ready(());
        }
        // The task's waker: none of those that need to be dropped elsewhere.
        time.sleeper = Some((self.0, cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        TIME.lock().sleeper = None;
    }
}
