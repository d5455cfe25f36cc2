//! The caller's side: an item is sent, and its answer awaited.

use core::any::Any;
use core::future::Future;
use core::hash::Hash;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

use super::error::CallError;
use super::item::{Call, returning};
use super::replies::{Replies, Reply};
use crate::batcher::builder::Builder;
use crate::batcher::error::{BatchError, SendError};
use crate::batcher::handle::Batcher;
use crate::batcher::keyed::{KeyedBatcher, KeyedBuilder};
use crate::batcher::lanes::Lanes;
use crate::batcher::shared::{Attached, Shared};

/// Sends with `make`, then waits for the answer.
#[must_use = "futures do nothing unless they are awaited"]
struct Calling<'a, M, S, T, R> {
    replies: &'a Arc<Replies<T, R>>,
    start: Option<(M, T)>,
    sending: Option<S>,
    reply: Option<Reply<'a, T, R>>,
}

impl<'a, M, S, T, R> Calling<'a, M, S, T, R> {
    fn new(replies: &'a Arc<Replies<T, R>>, item: T, make: M) -> Self {
        Self { replies, start: Some((make, item)), sending: None, reply: None }
    }
}

// Nothing of it is pinned in place.
impl<M, S, T, R> Unpin for Calling<'_, M, S, T, R> {}

impl<M, S, T, R, I> Future for Calling<'_, M, S, T, R>
where
    M: FnOnce(Call<T, R>) -> S,
    S: Future<Output = Result<(), SendError<I>>> + Unpin,
    I: HasCall<T, R>,
{
    type Output = Result<R, CallError<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut registered = false;
        if let Some((make, item)) = this.start.take() {
            let (slot, reply) = this.replies.begin(cx.waker());
            this.reply = Some(reply);
            this.sending = Some(make(Call::new(item, slot, Arc::clone(this.replies))));
            registered = true;
        }
        if let Some(sending) = &mut this.sending {
            match Pin::new(sending).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(sent) => {
                    this.sending = {
                        if let Err(error) = sent {
                            this.sending = None;
                            return Poll::Ready(Err(refused(error)));
                        }
                        None
                    }
                }
            }
            // The place has this task's waker already, which an answer that came meanwhile woke.
            if registered {
                return Poll::Pending;
            }
        }
        this.reply.as_mut().expect("it is polled until it is ready").poll(cx)
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

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { key, calling } = self.get_mut();
        let answer = ready!(Pin::new(calling).poll(cx));
        let mut key = || key.take().expect("it is polled until it is ready");
        Poll::Ready(answer.map_err(|error| error.with_key(key())))
    }
}

/// What was to be sent with a call in it.
trait HasCall<T, R> {
    fn into_call(self) -> Call<T, R>;
}

impl<T, R> HasCall<T, R> for Call<T, R> {
    fn into_call(self) -> Self {
        self
    }
}

impl<K, T, R> HasCall<T, R> for (K, Call<T, R>) {
    fn into_call(self) -> Call<T, R> {
        self.1
    }
}

fn refused<T, R>(error: SendError<impl HasCall<T, R>>) -> CallError<T> {
    let too_heavy = matches!(error, SendError::TooHeavy(_));
    match error.into_inner().into_call().withdraw() {
        Some(item) if too_heavy => CallError::Refused(SendError::TooHeavy(item)),
        Some(item) => CallError::Refused(SendError::Closed(item)),
        None => CallError::Unanswered(None),
    }
}

impl<T, R, L> Shared<Call<T, R>, L>
where
    T: Send + 'static,
    R: Send + 'static,
    L: Lanes<Call<T, R>>,
{
    /// The block of replies, made when the first call comes.
    fn replies(&self) -> &Arc<Replies<T, R>> {
        let attached = self.attached().get_or_init(|| Attached {
            replies: Box::new(Replies::<T, R>::new()) as Box<dyn Any + Send + Sync>,
            returning: returning::<T, R>,
        });
        attached.replies.downcast_ref().expect("one type of call has one type of replies")
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
    /// Returns what the handler answered, with [`Batch::reply`](super::super::Batch::reply) and its
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
    /// O(1). Nothing is allocated for a call in the steady state: answers wait in a block of places
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
    pub fn call(&self, item: T) -> impl Future<Output = Result<R, CallError<T>>> + use<'_, T, R> {
        Calling::new(self.shared().replies(), item, |call| self.sending(call))
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
    pub fn call(
        &self,
        key: K,
        item: T,
    ) -> impl Future<Output = Result<R, CallError<(K, T)>>> + use<'_, K, T, R> {
        let kept = key.clone();
        let calling = Calling::new(self.shared().replies(), item, |call| self.sending(key, call));
        CallingByKey { key: Some(kept), calling }
    }
}
