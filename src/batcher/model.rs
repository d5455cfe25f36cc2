//! The batcher with a clock for loom: what the models run is the driver that ships.

use core::future::Future;
use core::hash::Hash;
use core::task::{Context, Poll};
use std::error::Error;
use std::sync::OnceLock;
use std::time::Instant;

use super::driver::{Driver, Timer};
use super::{Batch, Batcher, Builder, KeyedBatch, KeyedBatcher, KeyedBuilder};
use crate::ConfigError;

/// Time stands still, as a model must run the same way twice: a window of zero is over at once, any
/// other never.
struct Still;

impl Timer for Still {
    fn now() -> Instant {
        static NOW: OnceLock<Instant> = OnceLock::new();
        *NOW.get_or_init(Instant::now)
    }

    fn poll_alarm(&mut self, _: Option<Instant>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// As `build_with_driver`, without tokio.
pub fn build<T, H, F, E>(
    builder: Builder<T>,
    handler: H,
) -> Result<(Batcher<T>, Driver), ConfigError>
where
    T: Send + 'static,
    H: Fn(Batch<T>) -> F + Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
{
    builder.build_with_timer(handler, Still)
}

/// The same for a keyed one.
pub fn build_keyed<K, T, H, F, E>(
    builder: KeyedBuilder<K, T>,
    handler: H,
) -> Result<(KeyedBatcher<K, T>, Driver), ConfigError>
where
    K: Hash + Eq + Send + Sync + 'static,
    T: Send + 'static,
    H: Fn(KeyedBatch<K, T>) -> F + Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
{
    builder.build_with_timer(handler, Still)
}
