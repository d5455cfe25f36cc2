//! The caller's side: an item is sent, and its answer awaited.

use core::future::Future;
use core::hash::Hash;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

use super::error::CallError;
use super::item::Call;
use super::replies::Replies;
use crate::base::coop;
use crate::base::wake::WakerId;
use crate::batcher::error::SendError;
use crate::batcher::keyed::KeyedSending;
use crate::batcher::send::Sending;

/// Sends a call, then waits for its answer. `F` adds the key back to an item, if there is one.
#[must_use = "futures do nothing unless they are awaited"]
pub(super) struct Calling<'a, T, R, S, F> {
    replies: &'a Arc<Replies<T, R>>,
    sending: S,
    restore: Option<F>,
    stage: Stage,
}

enum Stage {
    /// From the first poll on, the slot and the waker that the answer wakes.
    Sending {
        opened: Option<(u32, WakerId)>,
    },
    Waiting {
        slot: u32,
        waker: WakerId,
    },
    Ended,
}

const ENDED: &str = "a call was polled after it had completed";

impl<'a, T, R, S, F> Calling<'a, T, R, S, F> {
    #[inline]
    pub(super) fn new(replies: &'a Arc<Replies<T, R>>, sending: S, restore: F) -> Self {
        let stage = Stage::Sending { opened: None };
        Self { replies, sending, restore: Some(restore), stage }
    }
}

impl<T, R, S, F: FnOnce(T) -> I, I> Calling<'_, T, R, S, F> {
    fn end(&mut self, answer: Result<R, CallError<T>>) -> Poll<Result<R, CallError<I>>> {
        self.stage = Stage::Ended;
        let restore = self.restore.take().expect(ENDED);
        Poll::Ready(answer.map_err(|error| error.map(restore)))
    }
}

// Nothing of it is pinned in place.
impl<T, R, S, F> Unpin for Calling<'_, T, R, S, F> {}

impl<T, R, S, F, I> Future for Calling<'_, T, R, S, F>
where
    S: SendsCall<T, R>,
    F: FnOnce(T) -> I,
{
    type Output = Result<R, CallError<I>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Stage::Sending { opened } = &mut this.stage {
            let (slot, waker) = *opened.get_or_insert_with(|| {
                let waker = cx.waker().clone();
                let id = WakerId::of(&waker);
                (this.sending.call().expect(ENDED).open(this.replies, waker), id)
            });
            match ready!(this.sending.poll_send(cx)) {
                Ok(()) => {
                    this.stage = Stage::Waiting { slot, waker };
                    // The answer wakes the task that polled first, which may be another.
                    if waker == WakerId::of(cx.waker()) {
                        return Poll::Pending;
                    }
                }
                Err(refused) => {
                    this.stage = Stage::Ended;
                    let refused = refused.map(|call| call.into_item(this.replies));
                    return this.end(Err(CallError::Refused(refused)));
                }
            }
        }
        let Stage::Waiting { slot, waker } = &mut this.stage else { panic!("{ENDED}") };
        let unit = ready!(coop::poll_proceed(cx));
        let answer = ready!(this.replies.poll(*slot, waker, cx));
        unit.made_progress();
        this.end(answer)
    }
}

impl<T, R, S, F> Drop for Calling<'_, T, R, S, F> {
    #[inline]
    fn drop(&mut self) {
        if let Stage::Sending { opened: Some((slot, _)) } | Stage::Waiting { slot, .. } = self.stage
        {
            // A call that was not sent is dropped next, which frees the slot.
            self.replies.abandon(slot);
        }
    }
}

/// What sends a call, under a key or not.
pub(super) trait SendsCall<T, R> {
    /// The call, until it is accepted.
    fn call(&mut self) -> Option<&mut Call<T, R>>;

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<Call<T, R>>>>;
}

impl<T, R> SendsCall<T, R> for Sending<'_, Call<T, R>> {
    #[inline]
    fn call(&mut self) -> Option<&mut Call<T, R>> {
        self.item.as_mut()
    }

    #[inline]
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<Call<T, R>>>> {
        Pin::new(self).poll(cx)
    }
}

impl<K: Hash + Eq + Clone, T, R> SendsCall<T, R> for KeyedSending<'_, K, Call<T, R>> {
    #[inline]
    fn call(&mut self) -> Option<&mut Call<T, R>> {
        self.item.as_mut()
    }

    #[inline]
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<Call<T, R>>>> {
        Pin::new(self).poll(cx).map_err(|refused| refused.map(|(_key, call)| call))
    }
}
