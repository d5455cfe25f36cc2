//! An item whose sender waits for an answer.

use core::{fmt, iter, mem};
use std::sync::Arc;
use std::task::Waker;

use super::error::{CallError, CountMismatch};
use super::replies::{Replies, Reply, ReplySlot, send_all};
use crate::base::panic::{caught, drop_each, quietly};
use crate::batcher::error::BatchError;

/// An item of a batcher whose sender waits for an answer of type `R`.
///
/// Made by [`Caller::call`](super::Caller::call). A handler finds it in its
/// [`Batch`](crate::batcher::Batch) and answers there. One that is dropped without an answer gives its
/// caller [`CallError::Unanswered`].
#[must_use = "a call that is dropped gives its caller an error"]
pub struct Call<T, R> {
    /// Present until the call ends.
    item: Option<T>,
    answer: Option<Result<R, CountMismatch>>,
    /// Where the answer goes. `None` before the caller waits, and after it was answered.
    reply_to: Option<ReplySlot<T, R>>,
    duplicates: Option<Box<Duplicates<T, R>>>,
}

/// Calls that get clones of another call's answer.
struct Duplicates<T, R> {
    calls: Vec<Call<T, R>>,
    clone: fn(&R) -> R,
}

const ITEM: &str = "the item leaves with the call";

impl<T, R> Call<T, R> {
    #[inline]
    pub(super) fn new(item: T) -> Self {
        Self { item: Some(item), answer: None, reply_to: None, duplicates: None }
    }

    /// The item.
    ///
    /// # Panics
    ///
    /// Never: the item is taken out only when the call ends.
    pub fn item(&self) -> &T {
        self.item.as_ref().expect(ITEM)
    }

    /// Answers the call at once, and returns the item.
    ///
    /// To answer many, [`Batch::reply`](crate::batcher::Batch::reply) and its like cost less.
    ///
    /// # Panics
    ///
    /// Never, as [`item`](Self::item).
    pub fn reply(mut self, answer: R) -> T {
        self.answer = Some(Ok(answer));
        // The answer is sent as the call is dropped.
        self.item.take().expect(ITEM)
    }

    /// Opens the slot in which the caller waits with this waker.
    #[inline]
    pub(super) fn open(&mut self, replies: &Arc<Replies<T, R>>, waker: Waker) -> u32 {
        self.reply_to.insert(replies.open(waker)).index
    }

    /// The item of a call that was not sent.
    pub(super) fn into_item(mut self, replies: &Replies<T, R>) -> T {
        if let Some(slot) = self.reply_to.take() {
            replies.close(slot);
        }
        self.item.take().expect(ITEM)
    }

    /// Sets the answer, and returns the one before it.
    pub(super) fn set_answer(&mut self, answer: R) -> Option<R> {
        self.answer.replace(Ok(answer))?.ok()
    }

    pub(super) fn set_mismatch(&mut self, mismatch: CountMismatch) {
        self.answer = Some(Err(mismatch));
    }

    /// Lets another call share the answer of this one.
    pub(super) fn add_duplicate(&mut self, mut call: Self, clone: fn(&R) -> R) {
        let more = call.duplicates.take();
        let none = || Box::new(Duplicates { calls: Vec::new(), clone });
        let duplicates = &mut self.duplicates.get_or_insert_with(none).calls;
        duplicates.push(call);
        duplicates.extend(more.into_iter().flat_map(|more| more.calls));
    }

    /// The calls that share the answer of this one, each with an answer if this one has it.
    fn take_duplicates(&mut self) -> Vec<Self> {
        let Some(duplicates) = self.duplicates.take() else { return Vec::new() };
        let Duplicates { mut calls, clone } = *duplicates;
        for call in &mut calls {
            call.answer = match &self.answer {
                // If the answer cannot be cloned, the call has none and is retried.
                Some(Ok(answer)) => match caught(|| clone(answer)) {
                    Ok(answer) => Some(Ok(answer)),
                    Err(panic) => {
                        quietly(|| drop(panic));
                        continue;
                    }
                },
                Some(Err(mismatch)) => Some(Err(*mismatch)),
                None => break,
            };
        }
        calls
    }

    /// Sends the reason of a failure to the caller, and to those that share its answer.
    pub(super) fn fail(mut self, error: &Arc<BatchError>) {
        for call in self.take_duplicates() {
            call.fail(error);
        }
        self.end_with(|item| CallError::Failed { item, error: Arc::clone(error) });
    }

    fn end_with(&mut self, error: impl FnOnce(T) -> CallError<T>) {
        if let (Some(slot), Some(item)) = (self.reply_to.take(), self.item.take()) {
            send_all([(slot, Err(error(item)))]);
        }
    }

    /// The answer, ready to be sent, if there is one.
    #[inline]
    fn take_reply(&mut self) -> Option<Reply<T, R>> {
        self.answer.as_ref()?;
        let slot = self.reply_to.take()?;
        let answer = match self.answer.take()? {
            Ok(answer) => Ok(answer),
            Err(CountMismatch { answers, calls }) => {
                Err(CallError::CountMismatch { item: self.item.take()?, answers, calls })
            }
        };
        Some((slot, answer))
    }
}

/// Sends the answers of a batch, which had `handed` calls, and keeps the calls without one.
pub(super) fn send_answers<T, R>(calls: &mut Vec<Call<T, R>>, handed: usize) {
    if calls.iter().any(|call| call.duplicates.is_some()) {
        let with_duplicates = |mut call: Call<T, R>| {
            let duplicates = call.take_duplicates();
            iter::once(call).chain(duplicates)
        };
        *calls = mem::take(calls).into_iter().flat_map(with_duplicates).collect();
    }
    send_all(calls.iter_mut().filter_map(Call::take_reply));
    calls.retain_mut(|call| {
        let ended = call.reply_to.is_none();
        // A destructor that panics must not keep answered calls in the batch.
        if ended && mem::needs_drop::<T>() {
            quietly(|| drop(call.item.take()));
        }
        !ended
    });
    // A handler may move a call here from another batch, which has counted that call's duplicates.
    if calls.len() > handed {
        drop_each(calls.drain(handed..));
    }
}

impl<T, R> Drop for Call<T, R> {
    #[inline]
    fn drop(&mut self) {
        if self.reply_to.is_none() {
            return;
        }
        // Dropped, and thereby answered, after this call is.
        let _duplicates = self.take_duplicates();
        match self.take_reply() {
            Some(reply) => send_all([reply]),
            None => self.end_with(CallError::Unanswered),
        }
    }
}

impl<T: fmt::Debug, R> fmt::Debug for Call<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("item", &self.item)
            .field("answered", &self.answer.is_some())
            .finish_non_exhaustive()
    }
}
