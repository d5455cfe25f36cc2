//! How an attempt failed: what a policy is asked about.

use crate::Panic;

/// How an attempt failed: see [`RetryWhen::next_wait_after`](crate::RetryWhen::next_wait_after).
#[derive(Debug)]
pub enum Failure<E> {
    /// It returned this error.
    Failed(E),
    /// It panicked, and the panic was caught.
    Panicked(Panic),
    /// It took longer than an attempt may, and was dropped.
    TimedOut,
}
