//! The futures of the tracker. Each is in its wait list from the first poll that finds nothing until
//! it is served or dropped.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use super::ack::Ack;
use super::checkpoint::Committed;
use super::core::{Core, Delivery};
use super::error::TrackError;
use super::{OffsetTracker, Redelivery};
use crate::base::coop;
use crate::base::panic::unless_unwinding;
use crate::base::timer::now;
use crate::base::wait_list::WaiterId;

const COMPLETED: &str = "a future of an offset tracker was polled after it had completed";

/// Waits until a position can be tracked; made by [`OffsetTracker::track`].
///
/// # Cancel safety
///
/// Dropping it tracks nothing, and gives up its turn.
#[must_use = "futures do nothing unless polled: `.await` it to track the position"]
pub struct Track<'a, P: Copy> {
    tracker: &'a OffsetTracker<P>,
    position: u64,
    payload: P,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Outside,
    Waiting(WaiterId),
    Completed,
}

impl<'a, P: Copy> Track<'a, P> {
    #[inline]
    pub(super) fn new(tracker: &'a OffsetTracker<P>, position: u64, payload: P) -> Self {
        Self { tracker, position, payload, stage: Stage::Outside }
    }

    /// Joins the wait list, or stays in it with a fresh waker, unless `answer` has one.
    fn answer_or_wait<R>(
        &mut self,
        cx: &Context<'_>,
        answer: impl FnOnce(&mut Core<P>, Option<WaiterId>) -> Option<R>,
    ) -> Option<R> {
        let mut id = self.stage.id();
        let data = (self.position, self.payload);
        let answered = self.tracker.shared.look_or_wait(cx.waker(), |core, fresh| {
            answer(core, id).ok_or_else(|| core.wait_to_track(&mut id, data, fresh))
        });
        if answered.is_none() {
            self.stage = id.map_or(Stage::Outside, Stage::Waiting);
        }
        answered
    }

    #[cold]
    fn poll_without_budget(&mut self, cx: &Context<'_>) {
        if matches!(self.stage, Stage::Outside) {
            // Nothing is taken; but a turn is not lost by yielding.
            let must_wait = |core: &mut Core<P>, _| (!core.must_wait()).then_some(());
            self.answer_or_wait(cx, must_wait);
        }
    }

    #[cold]
    fn poll_slow(&mut self, cx: &Context<'_>) -> Option<Result<u64, TrackError>> {
        let (position, payload) = (self.position, self.payload);
        self.answer_or_wait(cx, |core, id| match id {
            Some(id) => core.claim(id),
            None => match core.track(position, payload, now) {
                Err(TrackError::Full { .. }) => None,
                answer => Some(answer),
            },
        })
    }
}

impl<P: Copy> Future for Track<'_, P> {
    type Output = Result<Ack<P>, TrackError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Poll::Ready(unit) = coop::poll_proceed(cx) else {
            this.poll_without_budget(cx);
            return Poll::Pending;
        };
        let shared = &this.tracker.shared;
        let fast = match this.stage {
            Stage::Outside => {
                Some(shared.read(|core| core.track(this.position, this.payload, now)))
            }
            Stage::Waiting(_) => None,
            Stage::Completed => panic!("{COMPLETED}"),
        };
        let answer = match fast {
            None | Some(Err(TrackError::Full { .. })) => this.poll_slow(cx),
            answer => answer,
        };
        let Some(tracked) = answer else { return Poll::Pending };
        this.stage = Stage::Completed;
        unit.made_progress();
        let ack = |serial| Ack::new(Arc::clone(&this.tracker.shared), serial, this.position);
        Poll::Ready(tracked.map(ack))
    }
}

impl<P: Copy> Drop for Track<'_, P> {
    fn drop(&mut self) {
        if let Stage::Waiting(id) = self.stage {
            let waker = self.tracker.shared.act(|core| core.leave_trackers(id));
            unless_unwinding(|| drop(waker));
        }
    }
}

impl Stage {
    fn id(self) -> Option<WaiterId> {
        match self {
            Self::Waiting(id) => Some(id),
            Self::Outside | Self::Completed => None,
        }
    }
}

// Nothing in it is pinned.
impl<P: Copy> Unpin for Track<'_, P> {}

impl<P: Copy> fmt::Debug for Track<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, stage, .. } = self;
        f.debug_struct("Track").field("position", position).field("stage", stage).finish()
    }
}

/// Waits for a position that was released; made by [`OffsetTracker::redelivery`].
///
/// # Cancel safety
///
/// Dropping it leaves the position to the next call.
#[must_use = "futures do nothing unless polled: `.await` it to get the position"]
pub struct NextRedelivery<'a, P: Copy> {
    tracker: &'a OffsetTracker<P>,
    id: Option<WaiterId>,
}

impl<'a, P: Copy> NextRedelivery<'a, P> {
    pub(super) fn new(tracker: &'a OffsetTracker<P>) -> Self {
        Self { tracker, id: None }
    }
}

impl<P: Copy> Future for NextRedelivery<'_, P> {
    type Output = Option<Redelivery<P>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let budget = coop::poll_proceed(cx);
        let (shared, mut id) = (&this.tracker.shared, this.id);
        let look = |core: &mut Core<P>, id: &mut Option<WaiterId>| -> Option<Option<Delivery<P>>> {
            let found = match id {
                Some(_) => core.claim_redelivery(id),
                None => core.redeliver(),
            };
            found.map(Some).or(core.is_finished().then_some(None))
        };
        let found = shared.look_or_wait(cx.waker(), |core, fresh| match &budget {
            Poll::Ready(_) => {
                look(core, &mut id).ok_or_else(|| core.wait_to_redeliver(&mut id, fresh))
            }
            // Nothing is taken, and the task is woken. It joins the wait list if it must wait.
            Poll::Pending if id.is_some() || !core.must_wait_for_redelivery() => Err(None),
            Poll::Pending => Err(core.wait_to_redeliver(&mut id, fresh)),
        });
        this.id = id;
        let (Some(found), Poll::Ready(unit)) = (found, budget) else { return Poll::Pending };
        unit.made_progress();
        Poll::Ready(found.map(|delivery| this.tracker.redelivery_of(delivery)))
    }
}

impl<P: Copy> Drop for NextRedelivery<'_, P> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = self.tracker.shared.act(|core| core.leave_redeliverers(id));
            unless_unwinding(|| drop(waker));
        }
    }
}

impl<P: Copy> fmt::Debug for NextRedelivery<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextRedelivery").field("waiting", &self.id.is_some()).finish()
    }
}

/// Waits until more is committed; made by [`OffsetTracker::changed`].
///
/// # Cancel safety
///
/// Dropping it loses nothing: the next call compares with the same position.
#[must_use = "futures do nothing unless polled: `.await` it to see the move"]
pub struct Changed<'a, P: Copy> {
    tracker: &'a OffsetTracker<P>,
    seen: Option<u64>,
    id: Option<WaiterId>,
}

impl<'a, P: Copy> Changed<'a, P> {
    pub(super) fn new(tracker: &'a OffsetTracker<P>, seen: Option<u64>) -> Self {
        Self { tracker, seen, id: None }
    }
}

impl<P: Copy> Future for Changed<'_, P> {
    type Output = Option<Committed<P>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Poll::Ready(unit) = coop::poll_proceed(cx) else { return Poll::Pending };
        let (mut id, seen) = (this.id, this.seen);
        let found = this.tracker.shared.look_or_wait(cx.waker(), |core, fresh| {
            let committed = core.committed();
            if committed.map(|committed| committed.position) != seen {
                Ok(committed)
            } else if core.is_finished() {
                Ok(None)
            } else {
                Err(core.wait_for_change(&mut id, fresh))
            }
        });
        this.id = id;
        let Some(found) = found else { return Poll::Pending };
        unit.made_progress();
        Poll::Ready(found)
    }
}

impl<P: Copy> Drop for Changed<'_, P> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = self.tracker.shared.act(|core| core.leave_watchers(id));
            unless_unwinding(|| drop(waker));
        }
    }
}

impl<P: Copy> fmt::Debug for Changed<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changed").field("seen", &self.seen).finish_non_exhaustive()
    }
}
