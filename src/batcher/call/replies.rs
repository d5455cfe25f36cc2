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

use core::mem;
use core::task::{Context, Poll};
use std::sync::Arc;
use std::task::Waker;

use super::error::CallError;
use crate::map::slab::Slab;
use crate::settled::quietly;
use crate::sync::Mutex;
use crate::wake_list::WakeList;

pub(crate) type Answer<T, R> = Result<R, CallError<T>>;

enum Place<T, R> {
    Waiting(Waker),
    Answered(Answer<T, R>),
    Left,
}

/// All places, behind one lock.
struct Block<T, R> {
    places: Slab<Place<T, R>>,
}

pub(crate) struct Replies<T, R>(Mutex<Block<T, R>>);

/// A caller's end of a place.
pub(crate) struct Reply<'a, T, R> {
    replies: &'a Replies<T, R>,
    slot: u32,
    taken: bool,
}

impl<T, R> Replies<T, R> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Block { places: Slab::new() })))
    }

    /// Takes a place for one who waits; its slot goes with the call.
    pub(crate) fn begin(&self, waker: &Waker) -> (u32, Reply<'_, T, R>) {
        let waiting = Place::Waiting(waker.clone());
        let slot = self.0.lock().places.insert(waiting);
        (slot, Reply { replies: self, slot, taken: false })
    }

    /// Answers many, in as few critical sections as wakers fit into.
    pub(crate) fn answer_all(&self, mut answers: impl Iterator<Item = (u32, Answer<T, R>)>) {
        let mut wakes = WakeList::new();
        let mut unheard = Vec::new();
        let mut more = true;
        while more {
            let mut block = self.0.lock();
            while !wakes.is_full() {
                let Some((slot, answer)) = answers.next() else {
                    more = false;
                    break;
                };
                match block.answer(slot, answer) {
                    Ok(waker) => wakes.push(waker),
                    Err(answer) => unheard.push(answer),
                }
            }
            drop(block);
            wakes.wake_all();
        }
        // What nobody waits for: as if its caller had got it and dropped it.
        for answer in unheard {
            quietly(|| drop(answer));
        }
    }

    pub(crate) fn answer(&self, slot: u32, answer: Answer<T, R>) {
        let waker = self.0.lock().answer(slot, answer);
        match waker {
            Ok(waker) => quietly(|| waker.wake()),
            Err(answer) => quietly(|| drop(answer)),
        }
    }
}

impl<T, R> Block<T, R> {
    /// Whoever is to be woken; or the answer, if nobody waits for it.
    fn answer(&mut self, slot: u32, answer: Answer<T, R>) -> Result<Waker, Answer<T, R>> {
        match mem::replace(&mut self.places[slot], Place::Left) {
            Place::Waiting(waker) => {
                self.places[slot] = Place::Answered(answer);
                Ok(waker)
            }
            Place::Left => {
                self.places.remove(slot);
                Err(answer)
            }
            Place::Answered(_) => unreachable!("a call is answered once"),
        }
    }
}

impl<T, R> Reply<'_, T, R> {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answer<T, R>> {
        let mut fresh: Option<Waker> = None;
        loop {
            let mut block = self.replies.0.lock();
            match &mut block.places[self.slot] {
                Place::Waiting(waker) => {
                    if waker.will_wake(cx.waker()) {
                        return Poll::Pending;
                    }
                    if let Some(fresh) = &mut fresh {
                        mem::swap(waker, fresh);
                        return Poll::Pending;
                    }
                }
                Place::Answered(_) => {
                    self.taken = true;
                    let place = block.places.remove(self.slot);
                    let Place::Answered(answer) = place else { unreachable!("it was answered") };
                    return Poll::Ready(answer);
                }
                Place::Left => unreachable!("the caller is here"),
            }
            drop(block);
            fresh = Some(cx.waker().clone());
        }
    }
}

impl<T, R> Drop for Reply<'_, T, R> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut block = self.replies.0.lock();
        let place = mem::replace(&mut block.places[self.slot], Place::Left);
        if matches!(place, Place::Answered(_)) {
            block.places.remove(self.slot);
        }
        drop(block);
        drop(place);
    }
}
