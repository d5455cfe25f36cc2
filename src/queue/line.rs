//! A wait line: a doubly linked list of seats that are used again, so that joining, leaving from
//! anywhere and being called up are O(1).
//!
//! ```text
//!   head                                   tail
//!    │                                      │
//!    ▼                                      ▼
//!  [ called, called, called │ waiting, waiting ]
//!                           ▲
//!                           next
//! ```
//!
//! Those who were called have something kept for them and have been woken; they stay in line until
//! they fetch it or leave. Everybody before `next` was called, nobody after it was.

use core::task::Waker;

/// A place in line. Numbers are never used again, so that an old ticket finds nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    number: u64,
    seat: u32,
}

/// No seat.
const NONE: u32 = u32::MAX;

/// The number in a seat that nobody has: tickets start at one.
const VACANT: u64 = 0;

#[derive(Debug)]
struct Seat {
    number: u64,
    /// Missing from when its owner is woken until that asks again.
    waker: Option<Waker>,
    need: u64,
    called: bool,
    prev: u32,
    /// The next in line; of a vacant seat, the next vacant one.
    next: u32,
}

/// How somebody stands who has a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Waiting,
    Called,
    /// Not in line any more.
    Gone,
}

/// What asking under the lock came to.
pub(super) enum Asked<A> {
    Answered(A),
    /// The waker is in line.
    Waits,
    /// To be asked again with a clone of the waker, which is made without the lock.
    WantsWaker,
}

#[derive(Debug)]
pub(super) struct Line {
    seats: Vec<Seat>,
    tail: u32,
    /// The first who was not called.
    next: u32,
    vacant: u32,
    joined: u64,
    waiting: usize,
    called: usize,
    /// What those who were called need together.
    reserved: u64,
}

impl Line {
    pub(super) const fn new() -> Self {
        Self {
            seats: Vec::new(),
            tail: NONE,
            next: NONE,
            vacant: NONE,
            joined: 0,
            waiting: 0,
            called: 0,
            reserved: 0,
        }
    }

    /// How many were not called yet.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many were called and have not come yet.
    #[inline]
    pub(super) fn called(&self) -> usize {
        self.called
    }

    /// All of them.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.waiting + self.called
    }

    /// What is kept for those who were called.
    #[inline]
    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// How many ever joined.
    pub(super) fn joined(&self) -> u64 {
        self.joined
    }

    /// # Panics
    ///
    /// With `u32::MAX` in line already.
    pub(super) fn join(&mut self, need: u64, waker: Waker) -> Ticket {
        let number = self.joined + 1;
        let (prev, next) = (self.tail, NONE);
        let newcomer = Seat { number, waker: Some(waker), need, called: false, prev, next };
        let mut seat = self.vacant;
        if let Some(vacant) = self.seats.get_mut(seat as usize) {
            self.vacant = vacant.next;
            *vacant = newcomer;
        } else {
            assert!(self.seats.len() < NONE as usize, "more than {NONE} wait at one queue");
            seat = self.seats.len() as u32;
            self.seats.push(newcomer);
        }
        if let Some(tail) = self.seats.get_mut(self.tail as usize) {
            tail.next = seat;
        }
        if self.next == NONE {
            self.next = seat;
        }
        self.tail = seat;
        self.joined = number;
        self.waiting += 1;
        Ticket { number, seat }
    }

    pub(super) fn standing(&self, ticket: Ticket) -> Standing {
        match self.seats.get(ticket.seat as usize) {
            Some(seat) if seat.number != ticket.number => Standing::Gone,
            Some(seat) if seat.called => Standing::Called,
            Some(_) => Standing::Waiting,
            None => Standing::Gone,
        }
    }

    /// What the first needs who was not called yet.
    #[inline]
    pub(super) fn next_need(&self) -> Option<u64> {
        self.seats.get(self.next as usize).map(|seat| seat.need)
    }

    /// Calls the next, and hands out whom to wake: nobody, if that is awake already.
    pub(super) fn call_next(&mut self) -> Option<Waker> {
        let seat = self.seats.get_mut(self.next as usize)?;
        seat.called = true;
        self.next = seat.next;
        self.waiting -= 1;
        self.called += 1;
        self.reserved += seat.need;
        seat.waker.take()
    }

    /// Takes back the last call; whoever it went to is the next again. They were woken, so that
    /// they ask and find out, if they have not gone.
    pub(super) fn call_off(&mut self) {
        let last = match self.seats.get(self.next as usize) {
            Some(next) => next.prev,
            None => self.tail,
        };
        let Some(seat) = self.seats.get_mut(last as usize) else { return };
        seat.called = false;
        self.next = last;
        self.waiting += 1;
        self.called -= 1;
        self.reserved -= seat.need;
    }

    /// Leaves a waker in line, with a new ticket if there is none; it must be a fresh clone of
    /// `waker`, unless that is what was left before.
    pub(super) fn wait<A>(
        &mut self,
        ticket: &mut Option<Ticket>,
        need: u64,
        waker: &Waker,
        fresh: &mut Option<Waker>,
        replaced: &mut Option<Waker>,
    ) -> Asked<A> {
        let seat = ticket.and_then(|ticket| self.seat(ticket));
        if seat.as_ref().and_then(|seat| seat.waker.as_ref()).is_some_and(|w| w.will_wake(waker)) {
            return Asked::Waits;
        }
        let Some(fresh) = fresh.take() else { return Asked::WantsWaker };
        match seat {
            Some(seat) => *replaced = seat.waker.replace(fresh),
            None => *ticket = Some(self.join(need, fresh)),
        }
        Asked::Waits
    }

    fn seat(&mut self, ticket: Ticket) -> Option<&mut Seat> {
        let seat = self.seats.get_mut(ticket.seat as usize);
        seat.filter(|seat| seat.number == ticket.number)
    }

    /// Takes somebody out of the line; `None` if they are gone already.
    pub(super) fn leave(&mut self, ticket: Ticket) -> Option<Option<Waker>> {
        if self.standing(ticket) == Standing::Gone {
            return None;
        }
        Some(self.vacate(ticket.seat))
    }

    /// Sends the first who was not called away.
    pub(super) fn dismiss_next(&mut self) -> Option<Waker> {
        if self.next == NONE { None } else { self.vacate(self.next) }
    }

    fn vacate(&mut self, at: u32) -> Option<Waker> {
        let seat = &mut self.seats[at as usize];
        let (prev, next) = (seat.prev, seat.next);
        if seat.called {
            self.called -= 1;
            self.reserved -= seat.need;
        } else {
            self.waiting -= 1;
        }
        seat.number = VACANT;
        seat.next = self.vacant;
        let waker = seat.waker.take();
        self.vacant = at;
        if self.next == at {
            self.next = next;
        }
        if let Some(prev) = self.seats.get_mut(prev as usize) {
            prev.next = next;
        }
        match self.seats.get_mut(next as usize) {
            Some(next) => next.prev = prev,
            None => self.tail = prev,
        }
        waker
    }
}
