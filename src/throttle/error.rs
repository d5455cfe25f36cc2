//! The errors of a throttle.

use core::fmt;
use core::time::Duration;
use std::error::Error;
use std::time::Instant;

/// More starts were requested together than the rate ever allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TooMany {
    /// The starts requested.
    pub n: u32,
    /// The most that can start together: the [burst](crate::throttle::Rate::burst).
    pub most: u32,
}

/// Why [`Throttle::reserve`](crate::Throttle::reserve) reserved nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReserveError {
    /// More starts were requested together than the rate ever allows.
    TooMany(TooMany),
    /// There are waiters, which start first.
    #[non_exhaustive]
    WaitersAhead {
        /// The number of waiters.
        waiters: usize,
    },
    /// The start would be more than ten years from now.
    TooFar,
}

/// Why [`Throttle::try_acquire`](crate::Throttle::try_acquire) or another form of it started nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryAcquireError {
    /// More starts were requested together than the rate ever allows.
    TooMany(TooMany),
    /// The rate does not allow it yet, or there are waiters.
    #[non_exhaustive]
    NotYet {
        /// The earliest instant at which the rate allows it. With waiters, an estimate of when all of
        /// them have started.
        until: Instant,
    },
}

/// A [`KeyedThrottle`](crate::KeyedThrottle) is full, and none of its keys can be evicted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeysBusy {
    /// The most keys at once.
    pub max_keys: usize,
    /// When to try again: no key expires before, or the starts of the key itself are not known before.
    /// `None` if that depends on the users of the keys.
    ///
    /// It is later than the instant that was given. With tokio's clock, it was in the future when the
    /// key was refused.
    pub until: Option<Instant>,
}

/// Why a [`KeyedThrottle`](crate::KeyedThrottle) started nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyedError<E> {
    /// The throttle is full, and no key can be evicted.
    Busy(KeysBusy),
    /// The key's own throttle refused.
    Refused(E),
}

impl TryAcquireError {
    /// How long to wait from `now` before the next try; `None` if it can never succeed.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        match self {
            Self::TooMany(_) => None,
            Self::NotYet { until } => Some(until.saturating_duration_since(now)),
        }
    }
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot start together: the rate allows at most {}", self.n, self.most)
    }
}

impl fmt::Display for ReserveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(error) => error.fmt(f),
            Self::WaitersAhead { waiters } => {
                write!(
                    f,
                    "{waiters} waiters are ahead: join the wait list with `enqueue` or `acquire`"
                )
            }
            Self::TooFar => f.write_str("the start would be more than ten years from now"),
        }
    }
}

impl fmt::Display for TryAcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(error) => error.fmt(f),
            Self::NotYet { .. } => {
                f.write_str("the rate allows no start yet, or waiters are ahead")
            }
        }
    }
}

impl fmt::Display for KeysBusy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "all {} keys are in use, and none can be evicted now", self.max_keys)
    }
}

impl<E: fmt::Display> fmt::Display for KeyedError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(error) => error.fmt(f),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl Error for TooMany {}
impl Error for ReserveError {}
impl Error for TryAcquireError {}
impl Error for KeysBusy {}

impl<E: Error> Error for KeyedError<E> {
    /// The source of the inner error, whose message is part of this one.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Busy(error) => error.source(),
            Self::Refused(error) => error.source(),
        }
    }
}

impl<E> From<KeysBusy> for KeyedError<E> {
    fn from(error: KeysBusy) -> Self {
        Self::Busy(error)
    }
}

impl From<TooMany> for ReserveError {
    fn from(error: TooMany) -> Self {
        Self::TooMany(error)
    }
}

impl From<TooMany> for TryAcquireError {
    fn from(error: TooMany) -> Self {
        Self::TooMany(error)
    }
}
