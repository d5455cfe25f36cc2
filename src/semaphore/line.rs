//! The wait line: a doubly linked list of seats that are used again, so that joining, leaving from
//! anywhere and being served are O(1).

use core::task::Waker;
use std::collections::VecDeque;
use std::time::Instant;

use super::stats::{SemaphoreStats, WaitTimes};

/// A place in line: tickets are numbered in the order of joining, and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(super) number: u64,
    seat: u32,
}

/// No seat.
const NONE: u32 = u32::MAX;

/// The number in a seat that nobody waits in: tickets start at one.
const VACANT: u64 = 0;

#[derive(Debug)]
struct Seat {
    number: u64,
    /// Present exactly while somebody waits here.
    waker: Option<Waker>,
    need: u32,
    /// It needs no more than there are.
    clamped: bool,
}

/// The neighbours of a seat, apart from it: leaving from the middle touches those of three seats,
/// and this way they are close together.
#[derive(Debug, Clone, Copy)]
struct Links {
    prev: u32,
    /// The next in line; of a vacant seat, the next vacant one.
    next: u32,
}

#[derive(Debug)]
pub(crate) struct Line {
    seats: Vec<Seat>,
    links: Vec<Links>,
    head: u32,
    tail: u32,
    vacant: u32,
    /// The number of the last ticket, and so of all who ever joined: each of them waits, or is
    /// counted in one of the next three.
    joined: u64,
    granted: u64,
    cancelled: u64,
    dismissed: u64,
    peak: u64,
    /// Permits that a smaller limit still has to take out of circulation.
    pub(super) debt: usize,
    /// What clamped needs are clamped to.
    pub(super) clamp: usize,
    /// What clamped waiters were granted and have not claimed, by ticket: at most one entry each.
    clamped_grants: VecDeque<(u64, u32)>,
    times: Option<Box<Times>>,
}

#[derive(Debug, Default)]
struct Times {
    /// When each place was taken, by seat.
    since: Vec<Instant>,
    waited: WaitTimes,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            seats: Vec::new(),
            links: Vec::new(),
            head: NONE,
            tail: NONE,
            vacant: NONE,
            joined: 0,
            granted: 0,
            cancelled: 0,
            dismissed: 0,
            peak: 0,
            debt: 0,
            clamp: usize::MAX,
            clamped_grants: VecDeque::new(),
            times: None,
        }
    }
}

impl Line {
    pub(crate) fn with_wait_times() -> Self {
        Self { times: Some(Box::default()), ..Self::default() }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.joined - self.granted - self.cancelled - self.dismissed
    }

    /// How many were ever granted their permits.
    pub(crate) fn granted(&self) -> u64 {
        self.granted
    }

    /// Nobody waits and nothing is owed.
    pub(crate) fn is_idle(&self) -> bool {
        self.head == NONE && self.debt == 0
    }

    fn is_waiting(&self, ticket: Ticket) -> bool {
        self.seats[ticket.seat as usize].number == ticket.number
    }

    pub(crate) fn stats(&self, cancelled_later: u64) -> SemaphoreStats {
        SemaphoreStats {
            waits: self.joined,
            cancellations: self.cancelled + cancelled_later,
            peak_waiters: usize::try_from(self.peak).unwrap_or(usize::MAX),
            wait_times: self.times.as_ref().map(|times| times.waited),
        }
    }

    /// # Panics
    ///
    /// With `u32::MAX` in line already.
    pub(crate) fn join(&mut self, need: u32, waker: Waker) -> Ticket {
        self.join_as(need, false, waker)
    }

    /// With a need that is clamped when it is served.
    pub(super) fn join_clamped(&mut self, need: u32, waker: Waker) -> Ticket {
        self.join_as(need, true, waker)
    }

    fn join_as(&mut self, need: u32, clamped: bool, waker: Waker) -> Ticket {
        let number = self.joined + 1;
        let newcomer = Seat { number, waker: Some(waker), need, clamped };
        let links = Links { prev: self.tail, next: NONE };
        let mut seat = self.vacant;
        if let Some(vacant) = self.links.get_mut(seat as usize) {
            self.vacant = vacant.next;
            *vacant = links;
            self.seats[seat as usize] = newcomer;
        } else {
            assert!(self.seats.len() < NONE as usize, "more than {NONE} waiters on one semaphore");
            seat = self.seats.len() as u32;
            self.links.push(links);
            self.seats.push(newcomer);
        }
        match self.links.get_mut(self.tail as usize) {
            Some(tail) => tail.next = seat,
            None => self.head = seat,
        }
        self.tail = seat;
        self.joined = number;
        self.peak = self.peak.max(self.waiting());
        if let Some(times) = &mut self.times {
            times.joined(seat);
        }
        Ticket { number, seat }
    }

    /// Whether there are permits enough for the head of the line.
    #[inline]
    pub(crate) fn can_serve(&self, free: usize) -> bool {
        self.seats
            .get(self.head as usize)
            .is_some_and(|seat| seat.need(self.clamp) as usize <= free)
    }

    /// Serves the head out of `free`, if that is enough, and says which number that was.
    #[inline]
    pub(crate) fn serve_head(&mut self, free: &mut usize) -> Option<(u64, Waker)> {
        let head = self.head;
        let seat = self.seats.get(head as usize)?;
        let number = seat.number;
        let need = seat.need(self.clamp);
        *free = free.checked_sub(need as usize)?;
        if seat.clamped {
            self.clamped_grants.push_back((number, need));
        }
        if let Some(times) = &mut self.times {
            times.granted(head);
        }
        self.granted += 1;
        Some((number, self.pop_head()?))
    }

    /// What a clamped waiter was granted, once.
    pub(super) fn take_clamped_grant(&mut self, ticket: Ticket) -> Option<u32> {
        let at = self.clamped_grants.binary_search_by_key(&ticket.number, |(number, _)| *number);
        self.clamped_grants.remove(at.ok()?).map(|(_, granted)| granted)
    }

    /// Sends the head away without permits.
    pub(crate) fn dismiss_head(&mut self) -> Option<Waker> {
        let waker = self.pop_head()?;
        self.dismissed += 1;
        Some(waker)
    }

    /// The waker of somebody who waits; `None` if nobody with this ticket does.
    pub(crate) fn waker(&mut self, ticket: Ticket) -> Option<&mut Waker> {
        let seat = self.seats.get_mut(ticket.seat as usize)?;
        if seat.number == ticket.number { seat.waker.as_mut() } else { None }
    }

    /// Takes somebody who waits out of the line, and says whether that was the head; `None` if
    /// nobody with this ticket waits.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<(bool, Waker)> {
        if !self.is_waiting(ticket) {
            return None;
        }
        self.cancelled += 1;
        let Links { prev, next } = self.links[ticket.seat as usize];
        match self.links.get_mut(prev as usize) {
            Some(prev) => prev.next = next,
            None => self.head = next,
        }
        match self.links.get_mut(next as usize) {
            Some(next) => next.prev = prev,
            None => self.tail = prev,
        }
        Some((prev == NONE, self.vacate(ticket.seat)?))
    }

    fn pop_head(&mut self) -> Option<Waker> {
        let head = self.head;
        let next = self.links.get(head as usize)?.next;
        self.head = next;
        match self.links.get_mut(next as usize) {
            Some(next) => next.prev = NONE,
            None => self.tail = NONE,
        }
        self.vacate(head)
    }

    fn vacate(&mut self, seat: u32) -> Option<Waker> {
        self.links[seat as usize].next = self.vacant;
        self.vacant = seat;
        let seat = &mut self.seats[seat as usize];
        seat.number = VACANT;
        seat.waker.take()
    }
}

impl Seat {
    #[inline]
    fn need(&self, clamp: usize) -> u32 {
        match u32::try_from(clamp) {
            Ok(clamp) if self.clamped => self.need.min(clamp),
            _ => self.need,
        }
    }
}

impl Times {
    #[cold]
    fn joined(&mut self, seat: u32) {
        let now = Instant::now();
        // Seats are handed out without gaps, so that a new one is the next.
        match self.since.get_mut(seat as usize) {
            Some(since) => *since = now,
            None => self.since.push(now),
        }
    }

    #[cold]
    fn granted(&mut self, seat: u32) {
        self.waited.add(self.since[seat as usize].elapsed());
    }
}
