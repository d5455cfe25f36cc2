use core::fmt;
use core::time::Duration;
use std::error::Error;
use std::time::Instant;

/// More were to start together than ever may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TooMany {
    /// How many were to start.
    pub n: u32,
    /// How many may.
    pub most: u32,
}

/// Why [`Throttle::reserve`](crate::Throttle::reserve) reserved nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReserveError {
    /// More were to start together than ever may.
    TooMany(TooMany),
    /// There are waiters, to whom the next starts belong.
    #[non_exhaustive]
    WaitersAhead {
        /// How many there are.
        waiters: usize,
    },
    /// So much is reserved already that it would be more than ten years from now.
    TooFar,
}

/// Why [`Throttle::try_acquire`](crate::Throttle::try_acquire) and its kin started nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryAcquireError {
    /// More were to start together than ever may.
    TooMany(TooMany),
    /// It may not start yet.
    #[non_exhaustive]
    NotYet {
        /// The earliest instant at which it may. If there are waiters, an estimate of when all of
        /// them will have started.
        until: Instant,
    },
}

/// No key of a [`KeyedThrottle`](crate::KeyedThrottle) can be evicted now, so that there is no room for
/// another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeysBusy {
    /// How many keys there may be.
    pub max_keys: usize,
    /// No key expires before, or what the key itself has started is not known before: it is worth
    /// another try then. `None` if it depends on the users of the keys.
    ///
    /// It is later than the instant that was given. Where tokio's clock is read, it had not come when
    /// the key was refused.
    pub until: Option<Instant>,
}

/// What a [`KeyedThrottle`](crate::KeyedThrottle) returns where it can fail in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyedError<E> {
    /// There is no room for another key.
    Busy(KeysBusy),
    /// The key's own throttle refused.
    Refused(E),
}

impl TryAcquireError {
    /// How long to wait from `now` until it may start; `None` if it never may.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        match self {
            Self::TooMany(_) => None,
            Self::NotYet { until } => Some(until.saturating_duration_since(now)),
        }
    }
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot start together: at most {} may", self.n, self.most)
    }
}

impl fmt::Display for ReserveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(error) => error.fmt(f),
            Self::WaitersAhead { waiters } => {
                write!(f, "waiters are ahead: {waiters}; wait behind them")
            }
            Self::TooFar => f.write_str("reserved for more than ten years already"),
        }
    }
}

impl fmt::Display for TryAcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(error) => error.fmt(f),
            Self::NotYet { .. } => f.write_str("too soon to start"),
        }
    }
}

impl fmt::Display for KeysBusy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "all {} keys are in use: no room for another", self.max_keys)
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
    /// What lies behind the error, whose message is already part of this one's.
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
