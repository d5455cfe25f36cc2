//! A push on its way in, shared by the future and the sink.
//!
//! ```text
//!             room, or none and no waiting for it
//!   Outside ───────────────────────────────────────▶ answered
//!      │                                                ▲
//!      └──▶ waiting ───▶ called ────────────────────────┘
//!              └───────────┴──── closed ────────────────┘
//! ```
//!
//! A task whose coop budget is spent is answered nothing. It joins the wait list if it would have to
//! wait anyway, and stays outside if not; once called, it stays called.
//!
//! The item stays here until it is in the queue: a push that gives up waiting has pushed nothing.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use super::OverflowQueue;
use super::core::{Core, LaneName, Offer};
use super::outcome::Pushed;
use super::waiters::Asked;
use crate::base::coop;
use crate::base::panic::quietly;
use crate::base::wait_list::WaiterId;

const COMPLETED: &str = "a push was polled after it had completed";

pub(super) struct PendingPush<T> {
    /// Until it is answered.
    item: Option<T>,
    weight: Option<u64>,
    lane: LaneName,
    id: Option<WaiterId>,
}

impl<T> PendingPush<T> {
    #[inline]
    pub(super) fn new(item: T, lane: LaneName) -> Self {
        Self { item: Some(item), weight: None, lane, id: None }
    }

    #[inline(always)]
    pub(super) fn poll(
        &mut self,
        queue: &OverflowQueue<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Pushed<T>> {
        let Poll::Ready(unit) = coop::poll_proceed(cx) else {
            self.join_if_it_must_wait(queue, cx.waker());
            return Poll::Pending;
        };
        if self.id.is_none() && self.lane == LaneName::Ordinary {
            let item = self.item.take().expect(COMPLETED);
            match queue.push_fast(item) {
                Ok(()) => {
                    unit.made_progress();
                    return Poll::Ready(Pushed::Stored);
                }
                Err(item) => self.item = Some(item),
            }
        }
        // Its destructor, too, is code for the slow path.
        self.poll_slow(queue, cx, unit)
    }

    #[cold]
    fn poll_slow(
        &mut self,
        queue: &OverflowQueue<T>,
        cx: &mut Context<'_>,
        unit: coop::Unit,
    ) -> Poll<Pushed<T>> {
        let polled = self.poll_slow_path(queue, cx);
        if polled.is_ready() {
            unit.made_progress();
        }
        polled
    }

    fn weigh(&mut self, queue: &OverflowQueue<T>) -> u64 {
        let item = self.item.as_ref().expect(COMPLETED);
        *self.weight.get_or_insert_with(|| queue.weigh(item))
    }

    /// For a task without budget, which has been woken to poll again.
    #[cold]
    fn join_if_it_must_wait(&mut self, queue: &OverflowQueue<T>, waker: &Waker) {
        let (lane, weight) = (self.lane, self.weigh(queue));
        if self.id.is_none() {
            self.id = queue.join(waker, weight, |core| core.wait_list_of_push(lane, weight));
        }
    }

    fn poll_slow_path(
        &mut self,
        queue: &OverflowQueue<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Pushed<T>> {
        self.weigh(queue);
        let mut fresh = None;
        loop {
            let mut unused = None;
            let asked = queue.locked(|core| self.ask(core, cx.waker(), &mut fresh, &mut unused));
            match asked {
                Asked::Answered(pushed) => {
                    quietly(|| drop((fresh, unused)));
                    return Poll::Ready(pushed);
                }
                Asked::Waits => {
                    quietly(|| drop((fresh, unused)));
                    return Poll::Pending;
                }
                // User code, which may panic: not under the lock.
                Asked::WantsWaker => fresh = Some(cx.waker().clone()),
            }
        }
    }

    /// Under the lock: is answered, or sees to it that `waker` is in the wait list.
    fn ask(
        &mut self,
        core: &mut Core<T>,
        waker: &Waker,
        fresh: &mut Option<Waker>,
        unused: &mut Option<Waker>,
    ) -> Asked<Pushed<T>> {
        let item = self.item.take().expect(COMPLETED);
        let offer = Offer { item, weight: self.weight.unwrap_or(0), lane: self.lane };
        let answer = match self.id {
            None => core.push(offer),
            Some(id) => core.push_in_turn(id, offer, unused),
        };
        match answer {
            Ok(pushed) => {
                self.id = None;
                Asked::Answered(pushed)
            }
            Err(offer) => {
                self.item = Some(offer.item);
                match core.pushers(self.lane) {
                    Some(waiters) => waiters.wait(&mut self.id, offer.weight, waker, fresh, unused),
                    None => unreachable!("a lane that is not there has no wait list"),
                }
            }
        }
    }

    /// Gives up the place in the wait list, and passes on what was kept for it.
    #[inline]
    pub(super) fn leave(&mut self, queue: &OverflowQueue<T>) {
        if let Some(id) = self.id.take() {
            queue.leave_pushers(self.lane, id);
        }
    }

    pub(super) fn take_item(&mut self) -> Option<T> {
        self.item.take()
    }
}

/// A push that waits if there is no room and that is what the queue does; made by
/// [`OverflowQueue::push`] and [`OverflowQueue::push_protected`].
///
/// It joins the wait list when it is first polled, with one exception: see
/// [fairness](OverflowQueue#fairness).
///
/// # Cancel safety
///
/// Dropping it before it has completed pushes nothing, gives up its place in the wait list, and drops the
/// item; [`into_item`](Self::into_item) gives the item back. A place that was kept for it goes to
/// the next waiter.
#[must_use = "futures do nothing unless polled: `.await` it to push the item"]
pub struct Push<'a, T> {
    queue: &'a OverflowQueue<T>,
    pending: PendingPush<T>,
}

impl<'a, T> Push<'a, T> {
    #[inline]
    pub(super) fn new(queue: &'a OverflowQueue<T>, item: T, lane: LaneName) -> Self {
        Self { queue, pending: PendingPush::new(item, lane) }
    }

    /// Gives up, and hands the item back; `None` if the push has completed.
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
        let this = self.get_mut();
        this.pending.poll(this.queue, cx)
    }
}

impl<T> Drop for Push<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.pending.leave(self.queue);
    }
}

impl<T> fmt::Debug for Push<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push").field("waiting", &self.pending.id.is_some()).finish_non_exhaustive()
    }
}
