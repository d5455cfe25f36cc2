//! The error that every constructor and builder shares.

use core::fmt;
use core::time::Duration;

/// The longest wait that a policy or a window may ask for: ten years.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A limit that a constructor refused.
///
/// It names the field, the value it was given and what it may be, so that the message alone is
/// enough to put it right.
///
/// ```
/// use sluicegate::BoundedArrayMap;
///
/// let error = BoundedArrayMap::<u64, u64>::new(0, 100).unwrap_err();
/// assert_eq!(error.to_string(), "`max_keys` is 0, but must be at least 1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    field: &'static str,
    value: String,
    expected: &'static str,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, value: impl fmt::Debug, expected: &'static str) -> Self {
        Self { field, value: format!("{value:?}"), expected }
    }

    /// Refuses a zero in a field that needs at least one.
    pub(crate) fn at_least_one(field: &'static str, value: usize) -> Result<(), Self> {
        if value == 0 {
            return Err(Self::new(field, value, "at least 1"));
        }
        Ok(())
    }

    /// Refuses a wait of more than [`LONGEST_WAIT`].
    pub(crate) fn at_most_longest(field: &'static str, wait: Duration) -> Result<(), Self> {
        if wait > LONGEST_WAIT {
            return Err(Self::new(field, wait, "at most ten years"));
        }
        Ok(())
    }

    /// The name of the builder's field or the constructor's argument.
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// The value it was given, as `Debug` writes it.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What the value may be; it completes the sentence "must be …".
    pub fn expected(&self) -> &'static str {
        self.expected
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is {}, but must be {}", self.field, self.value, self.expected)
    }
}

impl std::error::Error for ConfigError {}
