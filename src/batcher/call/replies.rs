//! The block in which answers wait for their callers: one for all callers of a batcher, with slots
//! that are used again. A batch is answered in one critical section.
//!
//! ```text
//!             answered               taken
//!   waiting ───────────► answered ──────────► vacant
//!      │ caller gone        │ caller gone        ▲ ▲
//!      ▼                    └────────────────────┘ │
//!    left ─────────────────────────────────────────┘ answered
//! ```
//!
//! The last of the two vacates a slot: the caller, or the call that is answered.
//! Who may answer in it has its [`Seat`], of which there is one. Seats of vacant slots lie at the
//! free_seats, which is asked by one at a time, under the batcher's own lock; those that were vacated
//! since, in the block. So a call is begun without waiting for those that are answered.
//!
//! Locks are taken in this order: the batcher's, that of the free_seats, that of the block.

use core::mem;
use core::task::{Context, Poll};
use std::sync::Arc;
use std::task::Waker;

use super::error::CallError;
use super::item::Call;
use crate::base::panic::quietly;
use crate::base::sync::Mutex;
use crate::base::wake::WakeList;
use crate::base::wake::WakerId;

pub(crate) type Answer<T, R> = Result<R, CallError<T>>;

/// The right to answer in a slot, once, and the way there.
///
/// It is handed on and never copied, so that a call need not count those who know the block.
pub(crate) struct Seat<T, R> {
    slot: u32,
    replies: Arc<Replies<T, R>>,
}

struct HandlerSlot<T, R> {
    caller: Caller,
    answered: Option<(Answer<T, R>, Seat<T, R>)>,
}

/// Who wants to know. Of vacant slots it says what it will when they are taken.
enum Caller {
    /// To be woken by the waker that the call took along.
    Waits,
    /// By this one, which came later.
    WaitsWith(Waker),
    Left,
}

struct Block<T, R> {
    slots: Vec<HandlerSlot<T, R>>,
    vacant: Vec<Seat<T, R>>,
}

pub(crate) struct Replies<T, R> {
    free_seats: Mutex<Vec<Seat<T, R>>>,
    block: Mutex<Block<T, R>>,
}

/// What an answer leaves to be dropped outside the lock: an answer that nobody waits for, a waker
/// that was replaced, a seat that leads nowhere.
type Dropped<T, R> = (Option<Answer<T, R>>, Waker, Option<Seat<T, R>>);

impl<T, R> Replies<T, R> {
    pub(crate) fn new() -> Arc<Self> {
        let block = Block { slots: Vec::new(), vacant: Vec::new() };
        Arc::new(Self { free_seats: Mutex::new(Vec::new()), block: Mutex::new(block) })
    }

    /// Takes a slot for a caller. What is known of it goes with the caller, the seat with the
    /// call.
    #[inline]
    pub(crate) fn begin(self: &Arc<Self>) -> (u32, Seat<T, R>) {
        let mut free_seats = self.free_seats.lock();
        let seat = match free_seats.pop() {
            Some(seat) => seat,
            None => self.fetch(&mut free_seats),
        };
        (seat.slot, seat)
    }

    #[cold]
    fn fetch(self: &Arc<Self>, free_seats: &mut Vec<Seat<T, R>>) -> Seat<T, R> {
        let mut block = self.block.lock();
        // Not before half of them are there: callers who come back one by one would each have to
        // fetch the slot of the one before.
        if block.vacant.len() >= block.slots.len() / 2 {
            mem::swap(free_seats, &mut block.vacant);
        }
        free_seats.pop().unwrap_or_else(|| {
            let slot = block.slots.len() as u32;
            block.slots.push(HandlerSlot { caller: Caller::Waits, answered: None });
            Seat { slot, replies: Arc::clone(self) }
        })
    }

    /// Sends out the answers that there are in its own slots, in as few critical sections as
    /// wakers fit into.
    pub(crate) fn answer_all(self: &Arc<Self>, calls: &mut [Call<T, R>]) {
        let mut calls = calls.iter_mut();
        let mut wakes = WakeList::new();
        let mut dropped = Vec::new();
        let mut more = true;
        while more {
            let mut block = self.block.lock();
            while !wakes.is_full() {
                let Some(call) = calls.next() else {
                    more = false;
                    break;
                };
                if let Some((seat, waker, answer)) = call.take_answer(self) {
                    block.answer(seat, waker, answer, &mut wakes, &mut dropped);
                }
            }
            drop(block);
            wakes.wake_all();
        }
        drop_quietly(dropped);
    }

    /// The answer, once it is there. Until then `known` is the waker that will be woken.
    #[inline]
    pub(crate) fn poll(
        &self,
        slot: u32,
        known: &mut WakerId,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, R>> {
        let mut block = self.block.lock();
        if let Some(answer) = block.take(slot) {
            return Poll::Ready(answer);
        }
        if *known == WakerId::of(cx.waker()) {
            return Poll::Pending;
        }
        drop(block);
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
        let id = WakerId::of(&waker);
        let mut block = self.block.lock();
        let answer = block.take(slot);
        let caller = &mut block.slots[slot as usize].caller;
        let dropped = match answer {
            Some(_) => Caller::WaitsWith(waker),
            None => mem::replace(caller, Caller::WaitsWith(waker)),
        };
        drop(block);
        *known = id;
        drop(dropped);
        answer.map_or(Poll::Pending, Poll::Ready)
    }

    /// The caller of this slot is gone.
    pub(crate) fn leave(&self, slot: u32) {
        let mut block = self.block.lock();
        let answer = block.take(slot);
        let caller = &mut block.slots[slot as usize].caller;
        let waker = match answer {
            Some(_) => Caller::Waits,
            None => mem::replace(caller, Caller::Left),
        };
        drop(block);
        drop((answer, waker));
    }

    /// Its batcher is gone, and so are all callers: what is still to be answered leads nowhere, and
    /// nothing may lead back here from within.
    pub(crate) fn close(&self) {
        let free_seats = mem::take(&mut *self.free_seats.lock());
        let mut block = self.block.lock();
        let left = (mem::take(&mut block.slots), mem::take(&mut block.vacant));
        drop(block);
        quietly(|| drop(left));
        drop(free_seats);
    }
}

impl<T, R> Block<T, R> {
    /// Who is to be woken, and what is to be dropped, is left for when the lock is released.
    #[inline]
    fn answer(
        &mut self,
        seat: Seat<T, R>,
        waker: Waker,
        answer: Answer<T, R>,
        wakes: &mut WakeList,
        dropped: &mut Vec<Dropped<T, R>>,
    ) {
        let Some(slot) = self.slots.get_mut(seat.slot as usize) else {
            return dropped.push((Some(answer), waker, Some(seat)));
        };
        match mem::replace(&mut slot.caller, Caller::Waits) {
            Caller::Waits => {
                slot.answered = Some((answer, seat));
                wakes.push(waker);
            }
            Caller::WaitsWith(later) => {
                slot.answered = Some((answer, seat));
                wakes.push(later);
                dropped.push((None, waker, None));
            }
            Caller::Left => {
                self.vacant.push(seat);
                dropped.push((Some(answer), waker, None));
            }
        }
    }

    /// Vacates a slot that has its answer.
    #[inline]
    fn take(&mut self, slot: u32) -> Option<Answer<T, R>> {
        let (answer, seat) = self.slots[slot as usize].answered.take()?;
        self.vacant.push(seat);
        Some(answer)
    }
}

impl<T, R> Seat<T, R> {
    pub(crate) fn is_of(&self, replies: &Arc<Replies<T, R>>) -> bool {
        Arc::ptr_eq(&self.replies, replies)
    }

    pub(crate) fn replies(&self) -> Arc<Replies<T, R>> {
        Arc::clone(&self.replies)
    }

    /// Gives its slot an answer.
    pub(crate) fn answer(self, waker: Waker, answer: Answer<T, R>) {
        let replies = self.replies();
        let (mut wakes, mut dropped) = (WakeList::new(), Vec::new());
        replies.block.lock().answer(self, waker, answer, &mut wakes, &mut dropped);
        wakes.wake_all();
        drop_quietly(dropped);
    }
}

/// What nobody waits for: as if its caller had got it and dropped it.
fn drop_quietly<T, R>(dropped: Vec<Dropped<T, R>>) {
    for one in dropped {
        quietly(|| drop(one));
    }
}
