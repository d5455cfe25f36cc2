//! An item whose sender waits for an answer.

use core::{fmt, mem};
use std::sync::Arc;
use std::task::Waker;

use super::error::{CallError, CountMismatch};
use super::replies::{Answer, Replies, Seat};
use crate::base::panic::{caught, quietly};
use crate::batcher::error::BatchError;

/// An item of a [`Batcher`](super::super::Batcher) whose sender waits for an answer of type `R`.
///
/// Made by `call`, which is how such an item is sent; a handler finds it in its
/// [`Batch`](super::super::Batch) and answers there. One that is dropped without an answer, wherever
/// that is, gives its caller [`CallError::Unanswered`].
#[must_use = "a call that is dropped gives its caller an error"]
pub struct Call<T, R> {
    item: Option<T>,
    answer: Option<Result<R, Arc<CountMismatch>>>,
    /// Its caller's, unless that has left another in its slot.
    waker: Option<Waker>,
    /// Where the answer goes, until its caller has one.
    seat: Option<Seat<T, R>>,
    /// Those that share its answer.
    twins: Option<Box<Twins<T, R>>>,
}

/// A call that has its answer: where that goes, and whom it wakes.
pub(crate) type Ended<T, R> = (Seat<T, R>, Waker, Answer<T, R>);

struct Twins<T, R> {
    calls: Vec<Call<T, R>>,
    clone: fn(&R) -> R,
}

impl<T, R> Call<T, R> {
    /// One that is accepted, and will be answered from this seat.
    #[inline]
    pub(crate) fn new(item: T, waker: Waker, seat: Seat<T, R>) -> Self {
        Self { item: Some(item), answer: None, waker: Some(waker), seat: Some(seat), twins: None }
    }

    /// One that is shown to be weighed, and then taken apart again.
    pub(crate) fn unsent(item: T) -> Self {
        Self { item: Some(item), answer: None, waker: None, seat: None, twins: None }
    }

    /// What the caller handed in.
    ///
    /// # Panics
    ///
    /// Never: the item is taken out only when the call is gone.
    pub fn item(&self) -> &T {
        self.item.as_ref().expect("the item leaves with the call")
    }

    /// Answers the call at once, and returns the item.
    ///
    /// To answer many, [`Batch::reply`](super::super::Batch::reply) and its like cost less.
    ///
    /// # Panics
    ///
    /// Never, as [`item`](Self::item).
    pub fn reply(mut self, answer: R) -> T {
        self.answer = Some(Ok(answer));
        let mut calls = self.take_twins();
        let item = self.item.take().expect("the item leaves with the call");
        calls.push(self);
        answer_all(&mut calls);
        item
    }

    pub(crate) fn set_answer(&mut self, answer: R) -> Option<R> {
        self.answer.replace(Ok(answer))?.ok()
    }

    /// Its answer is an error; any before it is returned.
    pub(super) fn set_mismatch(&mut self, mismatch: &Arc<CountMismatch>) -> Option<R> {
        self.answer.replace(Err(Arc::clone(mismatch)))?.ok()
    }

    pub(crate) fn has_twins(&self) -> bool {
        self.twins.is_some()
    }

    /// Lets another call share the answer of this one.
    pub(crate) fn add_twin(&mut self, mut twin: Self, clone: fn(&R) -> R) {
        let more = twin.twins.take();
        let twins = self.twins.get_or_insert_with(|| Box::new(Twins { calls: Vec::new(), clone }));
        twins.calls.push(twin);
        twins.calls.extend(more.into_iter().flat_map(|more| more.calls));
    }

    /// The calls that share the answer of this one, each with its own now if there is one.
    pub(crate) fn take_twins(&mut self) -> Vec<Self> {
        let Some(twins) = self.twins.take() else { return Vec::new() };
        let Twins { mut calls, clone } = *twins;
        match &self.answer {
            Some(Ok(answer)) => {
                for call in &mut calls {
                    // An answer that cannot be cloned is none, and the call is tried again.
                    match caught(|| clone(answer)) {
                        Ok(answer) => call.answer = Some(Ok(answer)),
                        Err(panic) => quietly(|| drop(panic)),
                    }
                }
            }
            Some(Err(mismatch)) => {
                for call in &mut calls {
                    call.answer = Some(Err(Arc::clone(mismatch)));
                }
            }
            None => {}
        }
        calls
    }

    /// Gives the callers the reason why there is no answer, each with its item.
    pub(crate) fn fail(mut self, error: &Arc<BatchError>) {
        for call in self.take_twins() {
            call.fail(error);
        }
        if let Some(item) = self.item.take() {
            self.end(Err(CallError::Failed { item, error: Arc::clone(error) }));
        }
    }

    /// The item of one that was not sent.
    pub(crate) fn into_unsent(mut self) -> Option<T> {
        self.item.take()
    }

    /// The answer, if there is one and it belongs there, with the right to give it.
    #[inline]
    pub(crate) fn take_answer(&mut self, replies: &Arc<Replies<T, R>>) -> Option<Ended<T, R>> {
        if self.answer.is_none() || !self.seat.as_ref()?.is_of(replies) {
            return None;
        }
        let answer = self.ended()?;
        Some((self.seat.take()?, self.waker.take()?, answer))
    }

    /// What its caller is to have, if it was answered.
    #[inline]
    fn ended(&mut self) -> Option<Answer<T, R>> {
        Some(match self.answer.take()? {
            Ok(answer) => Ok(answer),
            Err(mismatch) => Err(match self.item.take() {
                Some(item) => mismatch.error(item),
                None => CallError::Unanswered(None),
            }),
        })
    }

    fn end(&mut self, answer: Answer<T, R>) {
        if let (Some(seat), Some(waker)) = (self.seat.take(), self.waker.take()) {
            seat.answer(waker, answer);
        }
    }
}

/// Sends out the answers that there are, and leaves the calls that have none.
pub(crate) fn returning<T, R>(calls: &mut Vec<Call<T, R>>) {
    if calls.iter().any(Call::has_twins) {
        let mut all = Vec::with_capacity(calls.len());
        for mut call in calls.drain(..) {
            let twins = call.take_twins();
            all.push(call);
            all.extend(twins);
        }
        *calls = all;
    }
    answer_all(calls);
    calls.retain_mut(|call| {
        let over = call.seat.is_none();
        // One item whose destructor panics must not leave others here that have their answer already.
        if over && mem::needs_drop::<T>() {
            quietly(|| drop(call.item.take()));
        }
        !over
    });
}

fn answer_all<T, R>(calls: &mut [Call<T, R>]) {
    let Some(replies) = calls.iter().find_map(|call| Some(call.seat.as_ref()?.replies())) else {
        return;
    };
    // Those of another batcher's, swapped in by the handler, are answered one by one.
    replies.answer_all(calls);
    for call in calls {
        if let Some(answer) = call.ended() {
            call.end(answer);
        }
    }
}

impl<T, R> Drop for Call<T, R> {
    #[inline]
    fn drop(&mut self) {
        if self.seat.is_none() {
            return;
        }
        // One that was answered but whose batch never came back is answered all the same.
        let mut twins = self.take_twins();
        answer_all(&mut twins);
        let answer = self.ended().unwrap_or_else(|| Err(CallError::Unanswered(self.item.take())));
        self.end(answer);
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
