//! Reply slots: where answers are kept until their callers take them. All callers of a batcher share
//! one table of slots, which are used again, and a batch is answered in one critical section.
//!
//! ```text
//!            answered              taken, or caller gone
//!   Idle ────────────► Answered ────────────────────────► Idle
//!    │ caller polled      ▲
//!    │ by another task    │ answered
//!    ├──► Moved ──────────┘
//!    │      │ caller gone
//!    ▼      ▼         answered
//!   Abandoned ─────────────────────────────────────────► Idle
//! ```
//!
//! The right to answer in a slot is a [`ReplySlot`], of which each slot has one. The call carries it;
//! that of a free slot is in one of two lists. New calls take from `free`; answered slots go to
//! `freed`, in the table. So starting a call does not contend with answers for the lock of the table.
//! That is also why a free slot and one whose call was just sent are the same state.
//!
//! Lock order: `free`, then `table`.

use core::task::{Context, Poll};
use core::{iter, mem};
use std::sync::Arc;
use std::task::Waker;

use super::error::CallError;
use crate::base::panic::drop_each;
use crate::base::sync::Mutex;
use crate::base::wake::{WakeList, WakerId};

pub(super) type Answer<T, R> = Result<R, CallError<T>>;

/// The right to answer in a slot once, never cloned: so a call does not touch the count of the `Arc`.
pub(super) struct ReplySlot<T, R> {
    index: u32,
    replies: Arc<Replies<T, R>>,
}

/// An answer to be sent, and the waker that its caller called with.
pub(super) struct Reply<T, R> {
    pub(super) slot: ReplySlot<T, R>,
    pub(super) waker: Waker,
    pub(super) answer: Answer<T, R>,
}

enum SlotState<T, R> {
    /// Free, or the caller waits with the waker that its call carries.
    Idle,
    /// The caller waits with this waker instead.
    Moved(Waker),
    /// The answer is here, and the caller may take it.
    Answered(Answer<T, R>, ReplySlot<T, R>),
    /// The caller is gone, its call is not.
    Abandoned,
}

struct Table<T, R> {
    states: Vec<SlotState<T, R>>,
    freed: Vec<ReplySlot<T, R>>,
}

pub(super) struct Replies<T, R> {
    free: Mutex<Vec<ReplySlot<T, R>>>,
    table: Mutex<Table<T, R>>,
}

impl<T, R> ReplySlot<T, R> {
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn replies(&self) -> Arc<Replies<T, R>> {
        Arc::clone(&self.replies)
    }
}

impl<T, R> Reply<T, R> {
    pub(super) fn send(self) {
        self.slot.replies().send_all(iter::once(self));
    }
}

impl<T, R> Replies<T, R> {
    pub(super) fn new() -> Arc<Self> {
        let table = Table { states: Vec::new(), freed: Vec::new() };
        Arc::new(Self { free: Mutex::new(Vec::new()), table: Mutex::new(table) })
    }

    #[inline]
    pub(super) fn take_slot(self: &Arc<Self>) -> ReplySlot<T, R> {
        let mut free = self.free.lock();
        match free.pop() {
            Some(slot) => slot,
            None => self.refill(&mut free),
        }
    }

    #[cold]
    fn refill(self: &Arc<Self>, free: &mut Vec<ReplySlot<T, R>>) -> ReplySlot<T, R> {
        let mut table = self.table.lock();
        // Only when half of them are there: else callers that return one by one would each come here.
        if table.freed.len() >= table.states.len() / 2 {
            mem::swap(free, &mut table.freed);
        }
        free.pop().unwrap_or_else(|| {
            let index = table.states.len() as u32;
            table.states.push(SlotState::Idle);
            ReplySlot { index, replies: Arc::clone(self) }
        })
    }

    /// Sends answers, in as few critical sections as their wakers fit into.
    pub(super) fn send_all(self: &Arc<Self>, mut replies: impl Iterator<Item = Reply<T, R>>) {
        let (mut wakes, mut dropped) = (WakeList::new(), Vec::new());
        let mut of_others = Vec::new();
        loop {
            let mut table = self.table.lock();
            while !wakes.is_full() {
                match replies.next() {
                    Some(reply) if Arc::ptr_eq(&reply.slot.replies, self) => {
                        table.answer(reply, &mut wakes, &mut dropped);
                    }
                    Some(reply) => of_others.push(reply),
                    None => break,
                }
            }
            drop(table);
            let more = wakes.is_full();
            wakes.wake_all();
            if !more {
                break;
            }
        }
        drop_each(dropped);
        // Those to calls of another batcher, put into the batch by its handler.
        of_others.into_iter().for_each(Reply::send);
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
        self.poll_moved(slot, known, cx)
    }

    #[cold]
    fn poll_moved(
        &self,
        slot: u32,
        known: &mut WakerId,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, R>> {
        let waker = cx.waker().clone();
        let mut table = self.table.lock();
        // The waker is declared first, so that it is dropped after the lock.
        if let Some(answer) = table.take(slot) {
            return Poll::Ready(answer);
        }
        *known = WakerId::of(&waker);
        let old = table.replace(slot, SlotState::Moved(waker));
        drop(table);
        drop(old);
        Poll::Pending
    }

    /// The caller of this slot is gone.
    pub(super) fn abandon(&self, slot: u32) {
        let mut table = self.table.lock();
        let answer = table.take(slot);
        let waker = answer.is_none().then(|| table.replace(slot, SlotState::Abandoned));
        drop(table);
        drop((answer, waker));
    }

    /// To be called when no caller is left: free slots lead back here, and would keep it alive.
    /// Answers that are still to come lead nowhere.
    pub(super) fn close(&self) {
        let free = mem::take(&mut *self.free.lock());
        let mut table = self.table.lock();
        let (states, freed) = (mem::take(&mut table.states), mem::take(&mut table.freed));
        drop(table);
        drop_each(states);
        drop((free, freed));
    }
}

impl<T, R> Table<T, R> {
    /// Stores an answer; what is to be woken or dropped is left for when the lock is released.
    #[inline]
    fn answer(
        &mut self,
        reply: Reply<T, R>,
        wakes: &mut WakeList,
        dropped: &mut Vec<(Waker, Option<Answer<T, R>>)>,
    ) {
        let Reply { slot, waker, answer } = reply;
        let Some(state) = self.states.get_mut(slot.index as usize) else {
            return dropped.push((waker, Some(answer)));
        };
        match mem::replace(state, SlotState::Idle) {
            SlotState::Idle => {
                *state = SlotState::Answered(answer, slot);
                wakes.push(waker);
            }
            SlotState::Moved(later) => {
                *state = SlotState::Answered(answer, slot);
                wakes.push(later);
                dropped.push((waker, None));
            }
            SlotState::Abandoned => {
                self.freed.push(slot);
                dropped.push((waker, Some(answer)));
            }
            SlotState::Answered(..) => unreachable!("a slot is answered once"),
        }
    }

    /// Takes the answer, if it is there, and frees the slot.
    #[inline]
    fn take(&mut self, slot: u32) -> Option<Answer<T, R>> {
        let state = &mut self.states[slot as usize];
        let SlotState::Answered(..) = state else { return None };
        let SlotState::Answered(answer, slot) = mem::replace(state, SlotState::Idle) else {
            return None;
        };
        self.freed.push(slot);
        Some(answer)
    }

    fn replace(&mut self, slot: u32, state: SlotState<T, R>) -> SlotState<T, R> {
        mem::replace(&mut self.states[slot as usize], state)
    }
}
