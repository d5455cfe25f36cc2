//! How long to wait: what the caller's iterator says, cut to the cap, then shortened by the jitter.

use core::fmt;
use core::iter::FusedIterator;
use core::time::Duration;
use std::sync::Arc;

use fastrand::Rng;

use crate::base::config::LONGEST_WAIT;
use crate::base::sync::Mutex;

pub(super) type Waits = Box<dyn Iterator<Item = Duration> + Send>;
pub(super) type Backoff = dyn Fn() -> Waits + Send + Sync;

/// How a wait is shortened at random, so that what failed together does not come again together.
///
/// The names are those of Marc Brooker's "Exponential Backoff And Jitter" (AWS Architecture Blog,
/// 2015).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Jitter {
    /// The wait as it is.
    #[default]
    None,
    /// Anything from zero to the wait, each as likely: spreads best.
    Full,
    /// Anything from half the wait to the wait, each as likely: never comes back at once.
    Equal,
}

impl Jitter {
    fn shorten(self, wait: Duration, random: &mut Rng) -> Duration {
        // Ten years are less than 2^59 ns.
        let nanos = wait.as_nanos() as u64;
        match self {
            Self::None => wait,
            Self::Full => Duration::from_nanos(random.u64(0..=nanos)),
            Self::Equal => Duration::from_nanos(random.u64(nanos.div_ceil(2)..=nanos)),
        }
    }
}

/// What is done to a wait, the same for all things that a policy tries.
#[derive(Clone)]
pub(super) struct Shaping {
    pub(super) cap: Duration,
    pub(super) jitter: Jitter,
    seeds: Option<Arc<Mutex<Rng>>>,
}

impl Default for Shaping {
    fn default() -> Self {
        Self { cap: LONGEST_WAIT, jitter: Jitter::None, seeds: None }
    }
}

impl Shaping {
    pub(super) fn seed(&mut self, seed: u64) {
        self.seeds = Some(Arc::new(Mutex::new(Rng::with_seed(seed))));
    }

    /// Things that are tried side by side must not draw alike.
    fn random(&self) -> Option<Rng> {
        match (&self.jitter, &self.seeds) {
            (Jitter::None, _) => None,
            (_, Some(seeds)) => Some(seeds.lock().fork()),
            (_, None) => Some(Rng::new()),
        }
    }
}

/// The waits before each retry of one thing, at most `max_attempts - 1` of them.
///
/// Made by [`Retry::delays`](crate::Retry::delays).
#[must_use = "delays do nothing unless they are iterated"]
pub struct Delays {
    retries: u32,
    waits: Option<Waits>,
    cap: Duration,
    jitter: Jitter,
    random: Option<Rng>,
}

impl Delays {
    pub(super) fn new(retries: u32, waits: Option<Waits>, shaping: &Shaping) -> Self {
        let random = waits.as_ref().and_then(|_| shaping.random());
        Self { retries, waits, cap: shaping.cap, jitter: shaping.jitter, random }
    }

    /// Whether all retries are used up, rather than the waits.
    pub(super) fn is_spent(&self) -> bool {
        self.retries == 0
    }
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.retries == 0 {
            return None;
        }
        let Some(wait) = self.waits.as_mut()?.next() else {
            self.waits = None;
            return None;
        };
        self.retries -= 1;
        let wait = wait.min(self.cap);
        match &mut self.random {
            Some(random) => Some(self.jitter.shorten(wait, random)),
            None => Some(wait),
        }
    }
}

impl FusedIterator for Delays {}

impl fmt::Debug for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delays").field("retries", &self.retries).finish_non_exhaustive()
    }
}
