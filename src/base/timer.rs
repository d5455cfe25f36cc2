//! The one clock and the one timer of the crate: tokio's where the feature is on, none without it,
//! and one that the models move on by hand under `--cfg loom`.

use core::task::{Context, Poll};
use std::time::Instant;

#[cfg(loom)]
use modelled as runtime;
#[cfg(loom)]
pub use modelled::advance;
#[cfg(not(any(feature = "tokio", loom)))]
use none as runtime;
#[cfg(all(feature = "tokio", not(loom)))]
use tokio_time as runtime;

/// The time: tokio's, which tests can pause, or the system's.
#[inline]
pub(crate) fn now() -> Instant {
    runtime::now()
}

/// A timer that exists only once there is something to wait for, and is reset instead of made again.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: runtime::Sleep,
    /// What the sleep is set to; it is off otherwise.
    set: Option<Instant>,
}

impl Timer {
    pub(crate) const fn new() -> Self {
        Self { sleep: runtime::Sleep::OFF, set: None }
    }

    /// Ready when `at` has come, or earlier: the caller looks at the clock again. `None` turns the
    /// timer off, and nothing is woken.
    ///
    /// A timer that is set for an earlier instant is left alone, because one early wake-up costs less
    /// than a reset for each item.
    ///
    /// # Panics
    ///
    /// With an instant to wait for, outside a tokio runtime with timers enabled.
    pub(crate) fn poll(&mut self, at: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let is_early = matches!((self.set, at), (Some(set), Some(at)) if set <= at);
        if at != self.set && !is_early {
            self.sleep.set(at);
            self.set = at;
        }
        if self.set.is_none() || self.sleep.poll(cx).is_pending() {
            return Poll::Pending;
        }
        // To be set anew even for the same instant: tokio cuts very long waits short.
        self.set = None;
        Poll::Ready(())
    }
}

#[cfg(all(feature = "tokio", not(loom)))]
mod tokio_time {
    use core::future::Future;
    use core::pin::Pin;
    use core::task::{Context, Poll};
    use std::time::Instant;

    #[inline]
    pub(super) fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// In a box that is made once and kept while the timer is off.
    #[derive(Debug, Default)]
    pub(super) struct Sleep(Option<Pin<Box<Option<tokio::time::Sleep>>>>);

    impl Sleep {
        pub(super) const OFF: Self = Self(None);

        pub(super) fn set(&mut self, at: Option<Instant>) {
            let Some(at) = at else {
                if let Some(sleep) = &mut self.0 {
                    sleep.set(None);
                }
                return;
            };
            let sleep = self.0.get_or_insert_with(|| Box::pin(None));
            match sleep.as_mut().as_pin_mut() {
                Some(sleep) => sleep.reset(at.into()),
                None => sleep.set(Some(tokio::time::sleep_until(at.into()))),
            }
        }

        pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            match self.0.as_mut().and_then(|sleep| sleep.as_mut().as_pin_mut()) {
                Some(sleep) => sleep.poll(cx),
                None => Poll::Pending,
            }
        }
    }
}

/// Without a runtime no limit in time can be set, so nothing ever waits for one.
#[cfg(not(any(feature = "tokio", loom)))]
mod none {
    use core::task::{Context, Poll};
    use std::time::Instant;

    #[inline]
    pub(super) fn now() -> Instant {
        Instant::now()
    }

    #[derive(Debug, Default)]
    pub(super) struct Sleep;

    impl Sleep {
        pub(super) const OFF: Self = Self;

        pub(super) fn set(&mut self, _: Option<Instant>) {}

        pub(super) fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }
}

#[cfg(loom)]
mod modelled {
    use core::mem;
    use core::task::{Context, Poll, Waker};
    use std::sync::{Arc, Mutex, OnceLock, PoisonError};
    use std::time::{Duration, Instant};

    use super::super::sync::lazy_static;

    lazy_static! {
        /// Begins anew in each run of a model, and stands still unless it is moved on. The mutex is
        /// not loom's: it is never held across a step of the model.
        static ref TIME: Mutex<Time> = Mutex::new(Time::default());
    }

    type Sleeper = (Instant, Arc<()>, Waker);

    #[derive(Default)]
    struct Time {
        passed: Duration,
        sleepers: Vec<Sleeper>,
    }

    fn time<R>(with: impl FnOnce(&mut Time) -> R) -> R {
        with(&mut TIME.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn start() -> Instant {
        static START: OnceLock<Instant> = OnceLock::new();
        *START.get_or_init(Instant::now)
    }

    pub(super) fn now() -> Instant {
        start() + time(|time| time.passed)
    }

    /// Moves the time on, from any thread, and wakes every timer that is due.
    pub fn advance(by: Duration) {
        let due: Vec<Sleeper> = time(|time| {
            time.passed += by;
            let now = start() + time.passed;
            let (due, others) =
                mem::take(&mut time.sleepers).into_iter().partition(|(at, ..)| *at <= now);
            time.sleepers = others;
            due
        });
        due.into_iter().for_each(|(.., waker)| waker.wake());
    }

    #[derive(Debug, Default)]
    pub(super) struct Sleep {
        at: Option<Instant>,
        /// Tells its entry among the sleepers from those of other timers.
        name: Option<Arc<()>>,
    }

    impl Sleep {
        pub(super) const OFF: Self = Self { at: None, name: None };

        pub(super) fn set(&mut self, at: Option<Instant>) {
            self.at = at;
            self.forget();
        }

        pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            let Some(at) = self.at else { return Poll::Pending };
            // Outside the lock: cloning and dropping a waker are steps of the model.
            let waker = cx.waker().clone();
            self.forget();
            let name = self.name.get_or_insert_default();
            let is_due = time(|time| {
                let is_due = at <= start() + time.passed;
                if !is_due {
                    time.sleepers.push((at, Arc::clone(name), waker));
                }
                is_due
            });
            if is_due { Poll::Ready(()) } else { Poll::Pending }
        }

        fn forget(&mut self) {
            let Some(name) = &self.name else { return };
            let mine: Vec<Sleeper> = time(|time| {
                let is_mine = |(_, known, _): &Sleeper| Arc::ptr_eq(known, name);
                let (mine, others) = mem::take(&mut time.sleepers).into_iter().partition(is_mine);
                time.sleepers = others;
                mine
            });
            drop(mine);
        }
    }

    impl Drop for Sleep {
        fn drop(&mut self) {
            self.forget();
        }
    }
}

#[cfg(all(test, feature = "tokio", not(loom)))]
mod tests {
    use core::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rings_when_its_instant_has_come() {
        let (mut timer, start) = (Timer::new(), now());
        poll_fn(|cx| timer.poll(Some(start + Duration::from_secs(3)), cx)).await;
        assert_eq!(now() - start, Duration::from_secs(3));
        poll_fn(|cx| timer.poll(Some(start + Duration::from_secs(5)), cx)).await;
        assert_eq!(now() - start, Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn is_brought_forward_and_not_put_off() {
        let (mut timer, start) = (Timer::new(), now());
        let seconds = |seconds| Some(start + Duration::from_secs(seconds));
        poll_fn(|cx| {
            let rings = [9, 2, 7].map(|at| timer.poll(seconds(at), cx).is_ready());
            if rings.contains(&true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(now() - start, Duration::from_secs(2));
        let polled = poll_fn(|cx| Poll::Ready(timer.poll(None, cx))).await;
        assert!(polled.is_pending(), "a timer that is off never rings");
    }
}
