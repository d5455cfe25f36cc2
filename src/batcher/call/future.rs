//! The caller's side: an item is sent, and its answer awaited.

use core::future::Future;
use core::hash::Hash;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;
use std::task::Waker;

use super::error::CallError;
use super::item::{Call, returning};
use super::replies::Replies;
use crate::base::coop;
use crate::base::wake::WakerId;
use crate::batcher::buffers::Buffers;
use crate::batcher::builder::Builder;
use crate::batcher::error::{BatchError, SendError};
use crate::batcher::handle::Batcher;
use crate::batcher::keyed::{KeyedBatcher, KeyedBuilder, KeyedSending};
use crate::batcher::send::{Outgoing, Sending};
use crate::batcher::shared::{Attached, Shared};

/// Sends a call, then waits for its answer.
#[must_use = "futures do nothing unless they are awaited"]
struct Calling<'a, S: SendsCall<'a>> {
    replies: &'a Replies<S::Item, S::Answer>,
    sending: S,
    stage: Stage,
}

enum Stage {
    Sending,
    /// The waker is the one that the call took along, or another that was left in the slot since.
    Waiting {
        slot: u32,
        waker: WakerId,
    },
    Over,
}

impl<'a, S: SendsCall<'a>> Calling<'a, S> {
    #[inline]
    fn new(mut sending: S) -> Self {
        Self { replies: sending.asking().replies, sending, stage: Stage::Sending }
    }
}

// Nothing of it is pinned in place.
impl<'a, S: SendsCall<'a>> Unpin for Calling<'a, S> {}

impl<'a, S: SendsCall<'a>> Future for Calling<'a, S> {
    type Output = Result<S::Answer, CallError<S::Item>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match &mut this.stage {
            Stage::Sending => {
                let waker = this.sending.asking().wake_with(cx.waker());
                if let Err(refused) = ready!(this.sending.poll_send(cx)) {
                    this.stage = Stage::Over;
                    return Poll::Ready(Err(CallError::Refused(refused)));
                }
                this.stage = Stage::Waiting { slot: this.sending.asking().slot, waker };
                Poll::Pending
            }
            Stage::Waiting { slot, waker } => {
                let unit = ready!(coop::poll_proceed(cx));
                let answer = ready!(this.replies.poll(*slot, waker, cx));
                unit.made_progress();
                this.stage = Stage::Over;
                Poll::Ready(answer)
            }
            Stage::Over => panic!("a call was polled after it had completed"),
        }
    }
}

impl<'a, S: SendsCall<'a>> Drop for Calling<'a, S> {
    #[inline]
    fn drop(&mut self) {
        if let Stage::Waiting { slot, .. } = self.stage {
            self.replies.leave(slot);
        }
    }
}

/// The same by key, which comes back with the error.
#[must_use = "futures do nothing unless they are awaited"]
struct CallingByKey<K, C> {
    key: Option<K>,
    calling: C,
}

// The key is moved out, never pinned.
impl<K, C: Unpin> Unpin for CallingByKey<K, C> {}

impl<K, T, R, C> Future for CallingByKey<K, C>
where
    C: Future<Output = Result<R, CallError<T>>> + Unpin,
{
    type Output = Result<R, CallError<(K, T)>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { key, calling } = self.get_mut();
        let answer = ready!(Pin::new(calling).poll(cx));
        let mut key = || key.take().expect("it is polled until it is ready");
        Poll::Ready(answer.map_err(|error| error.with_key(key())))
    }
}

/// What becomes a call in the step that accepts it: until then there is nothing to be answered.
struct Asking<'a, T, R> {
    item: Option<T>,
    waker: Option<Waker>,
    replies: &'a Arc<Replies<T, R>>,
    /// Where its answer will be, once it is accepted.
    slot: u32,
}

impl<T, R> Asking<'_, T, R> {
    /// Sees to it that this waker goes with the call.
    #[inline]
    fn wake_with(&mut self, waker: &Waker) -> WakerId {
        match &self.waker {
            Some(known) if known.will_wake(waker) => WakerId::of(known),
            _ => WakerId::of(self.waker.insert(waker.clone())),
        }
    }
}

const SENT: &str = "a call is sent once, with the waker of who waits for it";

impl<T: Send + 'static, R: Send + 'static> Outgoing<Call<T, R>> for Asking<'_, T, R> {
    type Content = T;

    #[inline]
    fn weigh<L: Buffers<Call<T, R>>>(&mut self, shared: &Shared<Call<T, R>, L>) -> u64 {
        if !shared.is_weighed() {
            return 0;
        }
        let call = Call::unsent(self.hand_back());
        let weight = shared.weigh(&call);
        self.item = call.into_unsent();
        weight
    }

    #[inline]
    fn accepted(&mut self) -> Call<T, R> {
        let (slot, seat) = self.replies.begin();
        self.slot = slot;
        Call::new(self.hand_back(), self.waker.take().expect(SENT), seat)
    }

    #[inline]
    fn hand_back(&mut self) -> T {
        self.item.take().expect(SENT)
    }
}

/// What sends a call, with a key or without.
trait SendsCall<'a> {
    type Item;
    type Answer;

    fn asking(&mut self) -> &mut Asking<'a, Self::Item, Self::Answer>;

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<Self::Item>>>;
}

impl<'a, T, R> SendsCall<'a> for Sending<'a, Call<T, R>, Asking<'a, T, R>>
where
    T: Send + 'static,
    R: Send + 'static,
{
    type Item = T;
    type Answer = R;

    #[inline]
    fn asking(&mut self) -> &mut Asking<'a, T, R> {
        &mut self.outgoing
    }

    #[inline]
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T>>> {
        Pin::new(self).poll(cx)
    }
}

impl<'a, K, T, R> SendsCall<'a> for KeyedSending<'a, K, Call<T, R>, Asking<'a, T, R>>
where
    K: Hash + Eq + Clone,
    T: Send + 'static,
    R: Send + 'static,
{
    type Item = T;
    type Answer = R;

    #[inline]
    fn asking(&mut self) -> &mut Asking<'a, T, R> {
        &mut self.outgoing
    }

    #[inline]
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T>>> {
        Pin::new(self).poll(cx).map_err(|refused| match refused {
            SendError::TooHeavy((_, item)) => SendError::TooHeavy(item),
            SendError::Closed((_, item)) => SendError::Closed(item),
        })
    }
}

/// The batcher's hold on its replies: the block goes when the batcher does.
struct Office<T, R>(Arc<Replies<T, R>>);

impl<T, R> Drop for Office<T, R> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<T, R, L> Shared<Call<T, R>, L>
where
    T: Send + 'static,
    R: Send + 'static,
    L: Buffers<Call<T, R>>,
{
    /// A call to be sent. The block of replies is made when the first comes.
    #[inline]
    fn asking(&self, item: T) -> Asking<'_, T, R> {
        let attached = self.attached().get_or_init(|| Attached {
            replies: Box::new(Office(Replies::<T, R>::new())),
            returning: returning::<T, R>,
        });
        let office = attached.replies.downcast_ref::<Office<T, R>>();
        let Office(replies) = office.expect("one type of call has one type of replies");
        Asking { item: Some(item), waker: None, replies, slot: 0 }
    }
}

/// Tells the callers why there is no answer.
fn fail_callers<T, R>(calls: Vec<Call<T, R>>, error: BatchError) {
    let error = Arc::new(error);
    for call in calls {
        call.fail(&error);
    }
}

impl<T: 'static, R: 'static> Batcher<Call<T, R>> {
    /// A builder for a batcher whose items are answered. What fails for good comes back to its
    /// callers with the reason, unless another [`dead_letter`](Builder::dead_letter) is set.
    pub fn for_calls() -> Builder<Call<T, R>> {
        Builder::new().dead_letter(fail_callers)
    }
}

impl<T: Send + 'static, R: Send + 'static> Batcher<Call<T, R>> {
    /// Sends `item`, waiting in line while the batcher is full, and waits for its own answer.
    ///
    /// ReturnBox what the handler answered, with [`Batch::reply`](super::super::Batch::reply) and its
    /// like. If its batch is tried again, it waits on.
    ///
    /// # Errors
    ///
    /// [`CallError`], with the item if it is still there.
    ///
    /// # Panics
    ///
    /// As [`send`](Batcher::send).
    ///
    /// # Cancel safety
    ///
    /// A dropped future that has not sent its item has sent nothing. One that has leaves its item to
    /// be handled; the answer is dropped.
    ///
    /// # Complexity
    ///
    /// O(1). Nothing is allocated for a call in the steady state: answers wait in a block of slots
    /// that all callers share.
    ///
    /// ```
    /// use sluicegate::batcher::{Batch, Batcher, Call};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let squares = Batcher::for_calls()
    ///     .max_items(100)
    ///     .eager_when_idle()
    ///     .build(|mut batch: Batch<Call<u32, u32>>| async move {
    ///         batch.reply_with(|n| n * n);
    ///         Ok::<(), std::io::Error>(())
    ///     })?;
    ///
    /// assert_eq!(squares.call(12).await?, 144);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn call(&self, item: T) -> impl Future<Output = Result<R, CallError<T>>> + use<'_, T, R> {
        let asking = self.shared().asking(item);
        Calling::new(Sending::new(self.shared(), asking))
    }
}

impl<K: Hash + Eq + 'static, T: 'static, R: 'static> KeyedBatcher<K, Call<T, R>> {
    /// A builder for a batcher whose items are answered. What fails for good comes back to its
    /// callers with the reason, unless another [`dead_letter`](KeyedBuilder::dead_letter) is set.
    pub fn for_calls() -> KeyedBuilder<K, Call<T, R>> {
        KeyedBuilder::new().dead_letter(|_: &K, calls, error| fail_callers(calls, error))
    }
}

impl<K, T, R> KeyedBatcher<K, Call<T, R>>
where
    K: Hash + Eq + Clone,
    T: Send + 'static,
    R: Send + 'static,
{
    /// Sends `item` under `key`, waiting in line while the key or the batcher is full, and waits for
    /// its own answer.
    ///
    /// As [`Batcher::call`](super::super::Batcher::call).
    ///
    /// # Errors
    ///
    /// [`CallError`], with key and item if the item is still there.
    ///
    /// # Panics
    ///
    /// As [`send`](KeyedBatcher::send).
    ///
    /// # Cancel safety
    ///
    /// A dropped future that has not sent its item has sent nothing. One that has leaves its item to
    /// be handled; the answer is dropped.
    ///
    /// # Complexity
    ///
    /// O(1), and one clone of the key, for the error to give it back: where keys are large, let them
    /// be shared ([`Arc`]).
    #[inline]
    pub fn call(
        &self,
        key: K,
        item: T,
    ) -> impl Future<Output = Result<R, CallError<(K, T)>>> + use<'_, K, T, R> {
        let kept = key.clone();
        let asking = self.shared().asking(item);
        let calling = Calling::new(KeyedSending::new(self.shared(), self.hashed(key), asking));
        CallingByKey { key: Some(kept), calling }
    }
}
