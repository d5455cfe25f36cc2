//! Stopping a batch from outside, or because too many of its items failed.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use crate::base::sync::{AtomicUsize, Mutex, Ordering};

/// What happens to the items in hand when a batch is stopped. Nothing more is pulled either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stop {
    /// They run to their outcomes.
    Drain,
    /// They are polled once more and, if not ready then, dropped as
    /// [`Cancelled`](crate::ItemError::Cancelled). For their inputs see
    /// [`dead_letter`](super::BatchExecutor::dead_letter).
    Abort,
}

impl Stop {
    fn level(self) -> usize {
        match self {
            Self::Drain => 1,
            Self::Abort => 2,
        }
    }

    fn at(level: usize) -> Option<Self> {
        match level {
            0 => None,
            1 => Some(Self::Drain),
            _ => Some(Self::Abort),
        }
    }
}

/// Stops the runs of executors that were built with it, from anywhere.
///
/// Clones are the same token. It stops for good: a run that begins later pulls nothing.
///
/// To cancel one run that is at hand, drop its future; for a limit in time there is
/// [`timeout`](super::BatchExecutorBuilder).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sluicegate::ConfigError> {
/// use sluicegate::{BatchExecutor, Stop, StopToken};
///
/// let token = StopToken::new();
/// let executor = BatchExecutor::builder().limit(2).stop(token.clone()).build()?;
/// let mut inputs = 0..100;
/// let outcomes = executor
///     .all_settled(inputs.by_ref(), async |n| {
///         if n == 2 {
///             token.stop(Stop::Drain);
///         }
///         Ok::<_, ()>(n)
///     })
///     .await;
/// assert_eq!((outcomes.len(), inputs), (3, 3..100));
/// # Ok(())
/// # }
/// ```
///
/// # How it is built
///
/// A number that a run reads before each pull, and a list of the wakers of those that run.
#[derive(Clone)]
pub struct StopToken {
    shared: Arc<Shared>,
}

struct Shared {
    /// Only grows; changed under the lock.
    level: AtomicUsize,
    listeners: Mutex<Listeners>,
}

#[derive(Default)]
struct Listeners {
    next: u64,
    /// One a run: wakers of ours, which run nobody's code when they are cloned.
    wakers: BTreeMap<u64, Waker>,
}

impl StopToken {
    /// A token that has stopped nothing.
    pub fn new() -> Self {
        let shared =
            Shared { level: AtomicUsize::new(0), listeners: Mutex::new(Listeners::default()) };
        Self { shared: Arc::new(shared) }
    }

    /// Stops every run of this token, now and later. After this has returned nothing is pulled but
    /// what was being pulled at the time; and an item or a retry that was just about to start may
    /// still do so.
    ///
    /// A drain can be followed by an abort, but an abort is not taken back.
    ///
    /// # Complexity
    ///
    /// Linear in the number of runs that it wakes.
    pub fn stop(&self, how: Stop) {
        let wakers: Vec<Waker> = {
            let listeners = self.shared.listeners.lock();
            // Pairs with the load of a run, which then stops pulling.
            if self.shared.level.fetch_max(how.level(), Ordering::AcqRel) >= how.level() {
                return;
            }
            listeners.wakers.values().cloned().collect()
        };
        let mut panic = crate::base::panic::FirstPanic::default();
        for waker in wakers {
            panic.catch(|| waker.wake());
        }
        panic.resume();
    }

    /// Whether, and how, it was stopped.
    pub fn stopped(&self) -> Option<Stop> {
        Stop::at(self.level())
    }

    #[inline]
    fn level(&self) -> usize {
        self.shared.level.load(Ordering::Acquire)
    }
}

impl Default for StopToken {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for StopToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopToken").field("stopped", &self.stopped()).finish_non_exhaustive()
    }
}

/// So many failures stop a batch.
#[derive(Debug, Clone)]
pub(super) struct Failures {
    pub(super) most: usize,
    pub(super) how: Stop,
    /// Of all runs that work on the batch.
    count: Arc<AtomicUsize>,
    token: StopToken,
}

impl Failures {
    /// For a new batch.
    pub(super) fn new(most: usize, how: Stop) -> Self {
        Self { most, how, count: Arc::new(AtomicUsize::new(0)), token: StopToken::new() }
    }

    /// Stops the batch when there are too many of them.
    pub(super) fn token(&self) -> &StopToken {
        &self.token
    }

    fn are_too_many(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= self.most
    }
}

/// All that may stop one run.
pub(super) struct Stops {
    tokens: Vec<(StopToken, Option<u64>)>,
    failures: Option<Failures>,
    /// What the run has been told.
    level: usize,
}

impl Stops {
    pub(super) fn new(
        tokens: impl IntoIterator<Item = StopToken>,
        failures: Option<Failures>,
    ) -> Self {
        let counting = failures.as_ref().map(|failures| failures.token().clone());
        let tokens = tokens.into_iter().chain(counting).map(|token| (token, None)).collect();
        Self { tokens, failures, level: 0 }
    }

    /// The run is being polled: from now on it is woken when it is to stop.
    pub(super) fn begin(&mut self, waker: &Waker) {
        for (token, listener) in &mut self.tokens {
            if listener.is_none() {
                let mut listeners = token.shared.listeners.lock();
                let number = listeners.next;
                listeners.next += 1;
                listeners.wakers.insert(number, waker.clone());
                *listener = Some(number);
            }
        }
    }

    /// Whether the run is to stop in a way that it has not been told of.
    #[inline]
    pub(super) fn is_news(&self) -> bool {
        !self.tokens.is_empty() && self.is_news_of_any()
    }

    fn is_news_of_any(&self) -> bool {
        self.tokens.iter().any(|(token, _)| token.level() > self.level)
    }

    /// How the run is to stop, if that is news, and whether it is for its failures.
    pub(super) fn news(&mut self) -> Option<(Stop, bool)> {
        let level = self.tokens.iter().map(|(token, _)| token.level()).max()?;
        if level <= self.level {
            return None;
        }
        self.level = level;
        let failed = self.failures.as_ref().is_some_and(Failures::are_too_many);
        Stop::at(level).map(|how| (how, failed))
    }

    /// An item has failed.
    #[inline]
    pub(super) fn failed(&mut self) {
        if let Some(failures) = &self.failures {
            if failures.count.fetch_add(1, Ordering::Relaxed) + 1 == failures.most {
                failures.token.stop(failures.how);
            }
        }
    }
}

impl Drop for Stops {
    fn drop(&mut self) {
        for (token, listener) in &self.tokens {
            if let Some(number) = listener {
                let waker = token.shared.listeners.lock().wakers.remove(number);
                drop(waker);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::future::{Future, pending, ready};
    use core::pin::Pin;
    use core::task::{Context, Poll};
    use std::task::Wake;

    use super::*;
    use crate::executor::BatchExecutor;

    fn listeners(token: &StopToken) -> usize {
        token.shared.listeners.lock().wakers.len()
    }

    fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
        future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    /// A token of a process outlives its runs, which leave nothing with it: not when they are done, nor
    /// when they are dropped, in the task or as workers.
    ///
    /// Seen to fail (1 listener) when `Stops` is dropped without taking its listeners out, and (2) when
    /// it leaves one in each poll.
    #[test]
    fn runs_leave_no_listener_in_a_token_that_outlives_them() {
        let token = StopToken::new();
        let executor = BatchExecutor::builder().limit(2).stop(token.clone()).build().unwrap();
        for _ in 0..3 {
            let mut run = Box::pin(executor.all_settled(0..3, |n| ready(Ok::<_, ()>(n))));
            assert!(poll(&mut run).is_ready());
            // Also before it is dropped.
            assert_eq!(listeners(&token), 0);

            let hanging = || pending::<Result<(), ()>>();
            let mut run = Box::pin(executor.all_settled(0..3, |_| hanging()));
            for _ in 0..3 {
                assert!(poll(&mut run).is_pending());
                assert_eq!(listeners(&token), 1);
            }
            drop(run);
            assert_eq!(listeners(&token), 0);

            let mut works = Vec::new();
            let batch = executor.spawn_on(2, 0..3, move |_| hanging(), |work| works.push(work));
            works.iter_mut().for_each(|work| assert!(poll(work).is_pending()));
            assert_eq!(listeners(&token), 2);
            drop(batch);
            assert!(poll(&mut works[0]).is_ready());
            assert_eq!(listeners(&token), 1);
            drop(works);
            assert_eq!(listeners(&token), 0);
        }
    }

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// More than any list of a fixed length has room for: each is woken, once.
    ///
    /// Seen to fail when `stop` takes 64 wakers at most.
    #[test]
    fn a_stop_wakes_two_hundred_runs() {
        let token = StopToken::new();
        let executor = BatchExecutor::builder().limit(1).stop(token.clone()).build().unwrap();
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = &mut Context::from_waker(&waker);
        let run = || Box::pin(executor.all_settled([()], |()| pending::<Result<(), ()>>()));
        let mut runs: Vec<_> = (0..200).map(|_| run()).collect();
        assert!(runs.iter_mut().all(|run| run.as_mut().poll(cx).is_pending()));
        token.stop(Stop::Abort);
        assert_eq!(woken.0.load(Ordering::SeqCst), 200);
        assert!(runs.iter_mut().all(|run| run.as_mut().poll(cx).is_ready()));
        assert_eq!(listeners(&token), 0);
    }
}
