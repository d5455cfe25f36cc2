//! A push that may wait, shared by the future and the sink.
//!
//! ```text
//!             room, or a full queue that does not wait
//!   outside ───────────────────────────────────────────▶ done
//!      │                                                  ▲
//!      ├──▶ waiting ───▶ granted ─────────────────────────┤
//!      └───────┴───────────┴──── closed ──────────────────┘
//! ```
//!
//! A poll without coop budget pushes nothing. It joins the wait list if it has to wait anyway, and
//! stays outside if not; a granted push keeps its grant.
//!
//! The item stays here until it is in the queue: a cancelled push has pushed nothing.

use core::fmt;
use core::future::Future;
use core::ops::Deref;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use super::OverflowQueue;
use super::core::{LaneName, Offer, WaitersOf};
use super::outcome::Pushed;
use super::waiters::Attempt;
use crate::base::coop;
use crate::base::wait_list::WaiterId;

const COMPLETED: &str = "a push was polled after it had completed";

/// A push; leaves the wait list when it is dropped.
pub(super) struct PendingPush<Q: Deref<Target = OverflowQueue<T>>, T> {
    queue: Q,
    /// `None` once the push has completed.
    item: Option<T>,
    /// `None` until the item is weighed.
    weight: Option<u64>,
    lane: LaneName,
    id: Option<WaiterId>,
}

impl<Q: Deref<Target = OverflowQueue<T>>, T> PendingPush<Q, T> {
    #[inline]
    pub(super) fn new(queue: Q, item: Option<T>, lane: LaneName) -> Self {
        Self { queue, item, weight: None, lane, id: None }
    }

    #[cfg(feature = "sink")]
    pub(super) fn has_item(&self) -> bool {
        self.item.is_some()
    }

    /// Starts the next push, when the last one has completed.
    #[cfg(feature = "sink")]
    pub(super) fn start(&mut self, item: T) {
        (self.item, self.weight) = (Some(item), None);
    }

    pub(super) fn take_item(&mut self) -> Option<T> {
        self.item.take()
    }

    #[inline(always)]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pushed<T>> {
        let Poll::Ready(unit) = coop::poll_proceed(cx) else {
            self.join_without_budget(cx.waker());
            return Poll::Pending;
        };
        if self.id.is_none() && self.lane == LaneName::Ordinary {
            let item = self.item.take().expect(COMPLETED);
            match self.queue.lock().push_fast(item) {
                Ok(()) => {
                    unit.made_progress();
                    return Poll::Ready(Pushed::Stored);
                }
                Err(item) => self.item = Some(item),
            }
        }
        // It drops the unit, too: that is code for the slow path.
        self.poll_slow_path(cx.waker(), unit)
    }

    #[cold]
    fn poll_slow_path(&mut self, waker: &Waker, unit: coop::Unit) -> Poll<Pushed<T>> {
        let weight = self.weigh();
        let polled = self.queue.poll_slow_path(waker, |core, wakers| {
            let item = self.item.take().expect(COMPLETED);
            let offer = Offer { item, weight, lane: self.lane };
            let pushed = match self.id {
                None => core.push(offer),
                Some(id) => core.push_granted(id, offer, &mut wakers.unused),
            };
            match pushed {
                Ok(pushed) => {
                    self.id = None;
                    Attempt::Done(pushed)
                }
                Err(offer) => {
                    self.item = Some(offer.item);
                    core.waiters(WaitersOf::Pushers(self.lane)).wait(&mut self.id, weight, wakers)
                }
            }
        });
        if polled.is_ready() {
            unit.made_progress();
        }
        polled
    }

    fn weigh(&mut self) -> u64 {
        let item = self.item.as_ref().expect(COMPLETED);
        *self.weight.get_or_insert_with(|| self.queue.weigh(item))
    }

    /// The task has been woken to poll again.
    #[cold]
    fn join_without_budget(&mut self, waker: &Waker) {
        let (lane, weight) = (self.lane, self.weigh());
        if self.id.is_none() {
            let _: Poll<()> = self.queue.poll_slow_path(waker, |core, wakers| {
                if !core.must_push_wait(lane, weight) {
                    return Attempt::Waiting;
                }
                core.waiters(WaitersOf::Pushers(lane)).wait(&mut self.id, weight, wakers)
            });
        }
    }
}

impl<Q: Deref<Target = OverflowQueue<T>>, T> Drop for PendingPush<Q, T> {
    /// Its grant goes to the next waiter.
    #[inline]
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.queue.cancel(WaitersOf::Pushers(self.lane), id);
        }
    }
}

/// A push that waits if the queue is full and its pushers wait; made by [`OverflowQueue::push`] and
/// [`OverflowQueue::push_protected`].
///
/// It joins the wait list when it is first polled, with one exception: see
/// [fairness](OverflowQueue#fairness).
///
/// # Cancel safety
///
/// Dropping it before it has completed pushes nothing, leaves the wait list, and drops the item;
/// [`into_item`](Self::into_item) hands the item back. Room that was reserved for it goes to the next
/// waiter.
#[must_use = "futures do nothing unless polled: `.await` it to push the item"]
pub struct Push<'a, T> {
    pub(super) pending: PendingPush<&'a OverflowQueue<T>, T>,
}

impl<T> Push<'_, T> {
    /// Cancels the push, and hands the item back; `None` if the push has completed.
    ///
    /// ```
    /// use std::future::Future;
    /// use std::pin::pin;
    /// use std::task::{Context, Waker};
    ///
    /// let queue = sluicegate::OverflowQueue::new(1)?;
    /// assert!(queue.try_push("first").is_stored());
    ///
    /// let mut push = queue.push("second");
    /// let cx = &mut Context::from_waker(Waker::noop());
    /// assert!(pin!(&mut push).poll(cx).is_pending());
    /// assert_eq!(push.into_item(), Some("second"));
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// ```
    #[must_use = "it is the item, which is lost if it is dropped"]
    pub fn into_item(mut self) -> Option<T> {
        self.pending.take_item()
    }
}

// Nothing in it is pinned.
impl<T> Unpin for Push<'_, T> {}

impl<T> Future for Push<'_, T> {
    type Output = Pushed<T>;

    // The fast path is slower as a call.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Pushed<T>> {
        self.get_mut().pending.poll(cx)
    }
}

impl<T> fmt::Debug for Push<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push").field("waiting", &self.pending.id.is_some()).finish_non_exhaustive()
    }
}
