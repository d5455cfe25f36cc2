//! How one item of a batch ended, and what a batch of such endings says.

mod collect;
mod error;
mod kind;
mod scope;

pub use collect::{NotAllFulfilled, Partition, SettledCounts, all_fulfilled, partition};
pub use error::ItemError;
pub use kind::SettledKind;
pub use scope::Scope;

/// How one item of a batch ended: `Promise.allSettled`'s outcome as a `Result`, with the endings that
/// Rust and a bounded, timed batch add to it.
///
/// Each input that a [`BatchExecutor`](crate::BatchExecutor) pulls ends in exactly one of these. `?`,
/// `ok()` and `collect` do what they do for any result; [`partition`], [`all_fulfilled`] and
/// [`SettledCounts`] look at many outcomes together.
///
/// ```
/// use sluicegate::{ItemError, Settled};
///
/// fn total(outcomes: Vec<Settled<u32, std::fmt::Error>>) -> Result<u32, Box<dyn std::error::Error>> {
///     let values: Vec<u32> = outcomes.into_iter().collect::<Result<_, _>>()?;
///     Ok(values.into_iter().sum())
/// }
///
/// assert_eq!(total(vec![Ok(1), Ok(2)]).unwrap(), 3);
/// let error = total(vec![Ok(1), Err(ItemError::timed_out())]).unwrap_err();
/// assert_eq!(error.to_string(), "timed out");
/// ```
pub type Settled<T, E> = Result<T, ItemError<E>>;
