//! The block in which answers wait for their callers: one for all callers of a batcher, with places
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
//! A place is vacated by whoever of the two comes last: the caller, or the call that is answered.
//! Who may answer in it has its [`Seat`], of which there is one. The seats of vacant places lie at
//! the desk, which is under the batcher's own lock, where a call gets one as its item is accepted;
//! until somebody takes them there, in the block.

use core::mem;
use core::task::{Context, Poll};
use std::sync::Arc;
use std::task::Waker;

use super::error::CallError;
use super::item::Call;
use crate::settled::quietly;
use crate::sync::Mutex;
use crate::wake_list::WakeList;
use crate::waker_id::WakerId;

pub(crate) type Answer<T, R> = Result<R, CallError<T>>;

/// The right to answer in a place, once, and the way there.
///
/// It is handed on and never copied, so that a call need not count those who know the block.
pub(crate) struct Seat<T, R> {
    place: u32,
    replies: Arc<Replies<T, R>>,
}

/// Seats of vacant places.
pub(crate) type Desk<T, R> = Vec<Seat<T, R>>;

enum Place<T, R> {
    /// With the waker that the call took along, or with a later one. As vacant places are, so that
    /// nothing is to be done here when one is taken.
    Waiting(Option<Waker>),
    Answered(Answer<T, R>, Seat<T, R>),
    Left,
}

/// All places, behind one lock: that of the batcher may be held when it is taken.
struct Block<T, R> {
    places: Vec<Place<T, R>>,
    vacant: Desk<T, R>,
}

pub(crate) struct Replies<T, R>(Mutex<Block<T, R>>);

/// What an answer leaves to be dropped outside the lock: an answer that nobody waits for, a waker
/// that was replaced, a seat that leads nowhere.
type Dropped<T, R> = (Option<Answer<T, R>>, Waker, Option<Seat<T, R>>);

impl<T, R> Replies<T, R> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Block { places: Vec::new(), vacant: Vec::new() })))
    }

    /// Takes a place for one who waits. What is known of it goes with the caller, the seat with the
    /// call.
    #[inline]
    pub(crate) fn begin(self: &Arc<Self>, desk: &mut Desk<T, R>) -> (u32, Seat<T, R>) {
        let seat = desk.pop().unwrap_or_else(|| self.begin_slow(desk));
        (seat.place, seat)
    }

    #[cold]
    fn begin_slow(self: &Arc<Self>, desk: &mut Desk<T, R>) -> Seat<T, R> {
        let mut block = self.0.lock();
        // Not before half of them are there: callers who come back one by one would each have to
        // fetch the place of the one before.
        if block.vacant.len() >= block.places.len() / 2 {
            mem::swap(desk, &mut block.vacant);
        }
        desk.pop().unwrap_or_else(|| {
            let place = block.places.len() as u32;
            block.places.push(Place::Waiting(None));
            Seat { place, replies: Arc::clone(self) }
        })
    }

    /// Sends out the answers that there are in its own places, in as few critical sections as
    /// wakers fit into.
    pub(crate) fn answer_all(self: &Arc<Self>, calls: &mut [Call<T, R>]) {
        let mut calls = calls.iter_mut();
        let mut wakes = WakeList::new();
        let mut dropped = Vec::new();
        let mut more = true;
        while more {
            let mut block = self.0.lock();
            while !wakes.is_full() {
                let Some(call) = calls.next() else {
                    more = false;
                    break;
                };
                if let Some((seat, waker, answer)) = call.take_answer(self) {
                    block.answer(seat, waker, Ok(answer), &mut wakes, &mut dropped);
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
        place: u32,
        known: &mut WakerId,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, R>> {
        let mut block = self.0.lock();
        if let Some(answer) = block.take(place) {
            return Poll::Ready(answer);
        }
        if *known == WakerId::of(cx.waker()) {
            return Poll::Pending;
        }
        drop(block);
        self.poll_moved(place, known, cx)
    }

    #[cold]
    fn poll_moved(
        &self,
        place: u32,
        known: &mut WakerId,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<T, R>> {
        let waker = cx.waker().clone();
        let id = WakerId::of(&waker);
        let waiting = Place::Waiting(Some(waker));
        let mut block = self.0.lock();
        let answer = block.take(place);
        let dropped = match answer {
            Some(_) => waiting,
            None => mem::replace(&mut block.places[place as usize], waiting),
        };
        drop(block);
        *known = id;
        drop(dropped);
        answer.map_or(Poll::Pending, Poll::Ready)
    }

    /// The caller of this place is gone.
    pub(crate) fn leave(&self, place: u32) {
        let mut block = self.0.lock();
        let answer = block.take(place);
        let waiting = match &answer {
            Some(_) => None,
            None => Some(mem::replace(&mut block.places[place as usize], Place::Left)),
        };
        drop(block);
        drop((answer, waiting));
    }

    /// Its batcher is gone, and so are all callers: what is still to be answered leads nowhere, and
    /// nothing may lead back here from within.
    pub(crate) fn close(&self) {
        let mut block = self.0.lock();
        let left = (mem::take(&mut block.places), mem::take(&mut block.vacant));
        drop(block);
        quietly(|| drop(left));
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
        let number = seat.place;
        let Some(place) = self.places.get_mut(number as usize) else {
            return dropped.push((Some(answer), waker, Some(seat)));
        };
        match mem::replace(place, Place::Answered(answer, seat)) {
            Place::Waiting(None) => wakes.push(waker),
            Place::Waiting(Some(later)) => {
                wakes.push(later);
                dropped.push((None, waker, None));
            }
            // As its caller would, who is gone.
            Place::Left => dropped.push((self.take(number), waker, None)),
            Place::Answered(..) => unreachable!("there is one seat to a place"),
        }
    }

    /// Vacates a place that has its answer.
    #[inline]
    fn take(&mut self, place: u32) -> Option<Answer<T, R>> {
        let place = &mut self.places[place as usize];
        if let Place::Answered(..) = place {
            if let Place::Answered(answer, seat) = mem::replace(place, Place::Waiting(None)) {
                self.vacant.push(seat);
                return Some(answer);
            }
        }
        None
    }
}

impl<T, R> Seat<T, R> {
    pub(crate) fn is_of(&self, replies: &Arc<Replies<T, R>>) -> bool {
        Arc::ptr_eq(&self.replies, replies)
    }

    pub(crate) fn replies(&self) -> Arc<Replies<T, R>> {
        Arc::clone(&self.replies)
    }

    /// Gives its place an answer.
    pub(crate) fn answer(self, waker: Waker, answer: Answer<T, R>) {
        let replies = self.replies();
        let (mut wakes, mut dropped) = (WakeList::new(), Vec::new());
        replies.0.lock().answer(self, waker, answer, &mut wakes, &mut dropped);
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
