//! A task that sweeps a shared map. The only part of the map that knows a runtime.

use core::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::outcome::Expired;
use super::sharded::ShardedBoundedArrayMap;
use super::shared::SharedBoundedArrayMap;
use crate::ConfigError;
use crate::base::panic::{caught, drop_quietly, quietly};

/// Something shared out of which a [`Sweeper`] can take what is overdue.
///
/// Implemented by the shared maps; implement it for a type with a `BoundedArrayMap` behind a lock
/// of its own.
///
/// ```
/// use std::sync::Mutex;
/// use std::time::Instant;
/// use sluicegate::BoundedArrayMap;
/// use sluicegate::map::{Expire, Expired};
///
/// struct Waiting(Mutex<BoundedArrayMap<u64, String>>);
///
/// impl Expire for Waiting {
///     type Overdue = Expired<u64, String>;
///
///     fn expire(&self, now: Instant, limit: usize) -> Vec<Self::Overdue> {
///         self.0.lock().unwrap().expire(now, limit)
///     }
/// }
/// ```
pub trait Expire {
    /// What has been taken out, one by one.
    type Overdue;

    /// Takes out what is overdue at `now`, but no more than `limit` of it. If fewer come back, the
    /// sweeper takes that for all there was and waits for its next round.
    #[must_use = "these have been taken out and are lost if this is dropped"]
    fn expire(&self, now: std::time::Instant, limit: usize) -> Vec<Self::Overdue>;
}

impl<K: Clone, V, Id> Expire for SharedBoundedArrayMap<K, V, Id> {
    type Overdue = Expired<K, V, Id>;

    fn expire(&self, now: std::time::Instant, limit: usize) -> Vec<Self::Overdue> {
        Self::expire(self, now, limit)
    }
}

impl<K: Clone, V> Expire for ShardedBoundedArrayMap<K, V> {
    type Overdue = Expired<K, V>;

    fn expire(&self, now: std::time::Instant, limit: usize) -> Vec<Self::Overdue> {
        Self::expire(self, now, limit)
    }
}

/// A task that takes overdue items out of a [`SharedBoundedArrayMap`], a
/// [`ShardedBoundedArrayMap`] or whatever else can [expire](Expire), on a period.
///
/// Each round goes on, in steps of at most `limit` items, until nothing is due; between two steps
/// it lets other tasks run, and within none it waits. All that it takes out goes to `report`, step
/// by step.
///
/// It ends when it is [told to](Self::stop), when this is dropped, and at the latest one period
/// after the map has been dropped, which it does not keep alive but for the length of a step: stop
/// it before you take the map out of its `Arc`. No item that it has taken out is lost by that.
///
/// When not to use it: if you have a loop of your own that comes by often enough, call
/// [`expire`](Expire::expire) there.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use sluicegate::BoundedArrayMap;
/// use sluicegate::map::Sweeper;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), sluicegate::ConfigError> {
/// let day = Duration::from_secs(24 * 60 * 60);
/// let map = BoundedArrayMap::builder().max_keys(100).max_items_per_key(100).time_to_live(day);
/// let map = Arc::new(map.build_shared()?);
/// assert!(map.push("post", "like").is_stored());
///
/// let minute = Duration::from_secs(60);
/// let sweeper = Sweeper::spawn(&map, minute, 1_000, |expired| {
///     println!("{} items were never claimed", expired.len());
/// })?;
/// sweeper.stop().await;
/// # Ok(())
/// # }
/// ```
///
/// # How it is built
///
/// Of one task with one timer. It stops between steps only, so that what a step has taken out is
/// always reported.
#[must_use = "it stops when it is dropped; `detach` lets it go on for as long as the map"]
pub struct Sweeper {
    task: Option<JoinHandle<()>>,
}

impl Sweeper {
    /// Starts the task. The first round is one `period` from now. The clock is tokio's.
    ///
    /// A panic in `report` costs it what it was handed, and nothing else: sweeping goes on. One in
    /// `Clone` of a key costs nothing: what is due stays in the map, and the next round comes to it
    /// again. Of either, only the panic hook tells.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] unless `period` is longer than zero and `limit` at least 1.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, or in one whose time is not enabled.
    pub fn spawn<M>(
        map: &Arc<M>,
        period: Duration,
        limit: usize,
        report: impl FnMut(Vec<M::Overdue>) + Send + 'static,
    ) -> Result<Self, ConfigError>
    where
        M: Expire<Overdue: Send> + Send + Sync + 'static,
    {
        if period.is_zero() {
            return Err(ConfigError::new("period", period, "longer than zero"));
        }
        ConfigError::at_least_one("limit", limit)?;
        let task = tokio::spawn(sweep(Arc::downgrade(map), period, limit, report));
        Ok(Self { task: Some(task) })
    }

    /// Ends the task, and returns when it has ended.
    ///
    /// # Cancel safety
    ///
    /// The task is told to end by the call's first poll; dropping the future then only stops
    /// waiting for it.
    pub async fn stop(mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // An error says that it was aborted, which it was.
            let _ = task.await;
        }
    }

    /// Lets the task go on for as long as the map lives.
    pub fn detach(mut self) {
        self.task = None;
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl fmt::Debug for Sweeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.task.as_ref().is_some_and(|task| !task.is_finished());
        f.debug_struct("Sweeper").field("running", &running).finish()
    }
}

async fn sweep<M: Expire>(
    map: Weak<M>,
    period: Duration,
    limit: usize,
    mut report: impl FnMut(Vec<M::Overdue>),
) {
    let mut rounds = interval(period);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once.
    rounds.tick().await;
    loop {
        rounds.tick().await;
        loop {
            let Some(map) = map.upgrade() else { return };
            let expired = caught(|| map.expire(Instant::now().into_std(), limit));
            // Before the report: that may be slow, and must not be what drops the map.
            quietly(|| drop(map));
            let expired = match expired {
                Ok(expired) => expired,
                Err(panic) => {
                    drop_quietly(panic);
                    break;
                }
            };
            let all = expired.len() < limit;
            if !expired.is_empty() {
                quietly(|| report(expired));
            }
            if all {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}
