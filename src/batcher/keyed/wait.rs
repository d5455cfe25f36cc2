//! Flushes of one key.

use core::borrow::Borrow;
use core::future::Future;
use core::hash::Hash;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

use super::send::{KeyedCore, KeyedShared};
use crate::base::coop;
use crate::batcher::flush;
use crate::batcher::report::FlushReport;
use crate::batcher::wake::Wakes;

impl<K: Hash + Eq, T> KeyedCore<K, T> {
    /// Closes the open batch of a key and raises a barrier over all that is pending under it; there
    /// is none over nothing.
    fn flush_key<Q>(&mut self, key: (u64, &Q), wakes: &mut Wakes) -> Option<(u32, flush::FlushId)>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let (lanes, mut sealer) = self.sealing();
        let lane = lanes.seal_key(key, &mut sealer)?;
        let ticket = lanes.begin_flush(lane, *sealer.next_id);
        self.wake_for_work(wakes);
        Some((lane, ticket))
    }

    /// Gives room under a key back that was not used. What is to be dropped after the lock.
    pub(crate) fn return_key_capacity(
        &mut self,
        lane: Option<u32>,
        wakes: &mut Wakes,
    ) -> Option<Arc<K>> {
        // Once closed, it is of no use to anybody.
        let lane = lane.filter(|_| self.is_accepting())?;
        self.buffers.unreserve(lane, wakes)
    }
}

#[must_use = "futures do nothing unless they are awaited"]
pub(crate) struct KeyFlushWait<'a, K: Hash + Eq, T> {
    shared: &'a KeyedShared<K, T>,
    place: Option<(u32, flush::FlushId)>,
}

impl<'a, K: Hash + Eq, T> KeyFlushWait<'a, K, T> {
    pub(crate) fn new<Q>(shared: &'a KeyedShared<K, T>, key: (u64, &Q)) -> Self
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        Self { shared, place: shared.locked(|core, wakes| core.flush_key(key, wakes)) }
    }
}

impl<K: Hash + Eq, T> Future for KeyFlushWait<'_, K, T> {
    type Output = FlushReport;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FlushReport> {
        let unit = ready!(coop::poll_proceed(cx));
        let report = match self.place {
            None => Some(FlushReport::default()),
            Some((lane, ticket)) => {
                let mut waker = Some(cx.waker().clone());
                self.shared.lock().buffers.poll_flush(lane, ticket, &mut waker)
            }
        };
        if report.is_some() {
            unit.made_progress();
        }
        report.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<K: Hash + Eq, T> Drop for KeyFlushWait<'_, K, T> {
    fn drop(&mut self) {
        if let Some((lane, ticket)) = self.place {
            let _old = self.shared.lock().buffers.forget_flush(lane, ticket);
        }
    }
}
