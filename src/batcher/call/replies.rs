//! Reply slots: where answers are kept until their callers take them. All callers of a batcher share
//! one table of slots, which are reused, and a batch is answered in one critical section per
//! [`WakeList`].
//!
//! ```text
//!   Free ── opened ──► Waiting ── answered ──► Answered ── taken, or caller gone ──► Free
//!                       │   └── not sent ──► Free
//!                       └── caller gone ──► Abandoned ── answered ──► Free
//! ```
//!
//! The right to answer in a slot is its [`ReplySlot`], which the call carries.

use core::mem;
use core::task::{Context, Poll};
use std::sync::{Arc, Weak};
use std::task::Waker;

use super::error::CallError;
use crate::base::panic::drop_each;
use crate::base::sync::Mutex;
use crate::base::wake::{WakeList, WakerId};

pub(super) type Answer<T, R> = Result<R, CallError<T>>;

/// The right to answer in a slot once. There is one per slot, reused with it and never cloned: so a
/// call does not touch the counts of the `Arc`, which ends with the last [`Caller`](super::Caller).
pub(super) struct ReplySlot<T, R> {
    pub(super) index: u32,
    replies: Weak<Replies<T, R>>,
}

/// An answer to be sent, and where it goes.
pub(super) type Reply<T, R> = (ReplySlot<T, R>, Answer<T, R>);

enum SlotState<T, R> {
    Free,
    Waiting(Waker),
    Answered(Answer<T, R>, ReplySlot<T, R>),
    /// The caller is gone, its call is not.
    Abandoned,
}

struct Table<T, R> {
    states: Vec<SlotState<T, R>>,
    free: Vec<ReplySlot<T, R>>,
}

pub(super) struct Replies<T, R> {
    table: Mutex<Table<T, R>>,
}

/// Sends answers: those to callers of one batcher, as they follow each other, together.
pub(super) fn send_all<T, R>(replies: impl IntoIterator<Item = Reply<T, R>>) {
    let mut replies = replies.into_iter().peekable();
    let (mut wakes, mut dropped) = (WakeList::new(), Vec::new());
    while let Some((slot, _)) = replies.peek() {
        let Some(owner) = slot.replies.upgrade() else {
            // No caller is left.
            dropped.extend(replies.next().map(|(_, answer)| answer));
            continue;
        };
        let mut table = owner.table.lock();
        while !wakes.is_full() {
            let of_owner = |(slot, _): &Reply<T, R>| slot.replies.as_ptr() == Arc::as_ptr(&owner);
            let Some((slot, answer)) = replies.next_if(of_owner) else { break };
            table.answer(slot, answer, &mut wakes, &mut dropped);
        }
        drop(table);
        wakes.wake_all();
    }
    drop_each(dropped);
}

impl<T, R> Replies<T, R> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { table: Mutex::new(Table { states: Vec::new(), free: Vec::new() }) })
    }

    /// Takes a slot for a caller, to be woken with this waker.
    #[inline]
    pub(super) fn open(self: &Arc<Self>, waker: Waker) -> ReplySlot<T, R> {
        let mut table = self.table.lock();
        let slot = table.free.pop().unwrap_or_else(|| {
            let index = table.states.len() as u32;
            table.states.push(SlotState::Free);
            ReplySlot { index, replies: Arc::downgrade(self) }
        });
        table.states[slot.index as usize] = SlotState::Waiting(waker);
        slot
    }

    /// The answer, once it is there. Until then `known` is the waker that it will wake.
    #[inline]
    pub(super) fn poll(
        &self,
        slot: u32,
        known: &mut WakerId,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, R>> {
        let mut table = self.table.lock();
        if let Some(answer) = table.take(slot) {
            return Poll::Ready(answer);
        }
        if *known == WakerId::of(cx.waker()) {
            return Poll::Pending;
        }
        drop(table);
        self.poll_moved(slot, known, cx.waker().clone())
    }

    /// Leaves another waker, which is dropped after the lock if the answer is there by now.
    #[cold]
    fn poll_moved(&self, slot: u32, known: &mut WakerId, waker: Waker) -> Poll<Answer<T, R>> {
        let mut table = self.table.lock();
        if let Some(answer) = table.take(slot) {
            drop(table);
            return Poll::Ready(answer);
        }
        *known = WakerId::of(&waker);
        let old = table.replace(slot, SlotState::Waiting(waker));
        drop(table);
        drop(old);
        Poll::Pending
    }

    /// Frees the slot of a call that was not sent.
    pub(super) fn close(&self, slot: ReplySlot<T, R>) {
        let mut table = self.table.lock();
        let waiting = table.replace(slot.index, SlotState::Free);
        table.free.push(slot);
        drop(table);
        drop(waiting);
    }

    /// The caller of this slot is gone.
    pub(super) fn abandon(&self, slot: u32) {
        let mut table = self.table.lock();
        let answer = table.take(slot);
        let waker = answer.is_none().then(|| table.replace(slot, SlotState::Abandoned));
        drop(table);
        drop((answer, waker));
    }
}

impl<T, R> Table<T, R> {
    /// Stores an answer; what is to be woken or dropped is left for when the lock is released.
    #[inline]
    fn answer(
        &mut self,
        slot: ReplySlot<T, R>,
        answer: Answer<T, R>,
        wakes: &mut WakeList,
        dropped: &mut Vec<Answer<T, R>>,
    ) {
        let state = &mut self.states[slot.index as usize];
        if matches!(state, SlotState::Abandoned) {
            *state = SlotState::Free;
            self.free.push(slot);
            dropped.push(answer);
        } else if let SlotState::Waiting(waker) =
            mem::replace(state, SlotState::Answered(answer, slot))
        {
            wakes.push(waker);
        }
    }

    /// Takes the answer, if it is there, and frees the slot.
    #[inline]
    fn take(&mut self, slot: u32) -> Option<Answer<T, R>> {
        let state = &mut self.states[slot as usize];
        let SlotState::Answered(..) = state else { return None };
        let SlotState::Answered(answer, slot) = mem::replace(state, SlotState::Free) else {
            return None;
        };
        self.free.push(slot);
        Some(answer)
    }

    #[inline]
    fn replace(&mut self, slot: u32, state: SlotState<T, R>) -> SlotState<T, R> {
        mem::replace(&mut self.states[slot as usize], state)
    }
}
