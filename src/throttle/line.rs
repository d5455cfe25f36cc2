//! The wait list of a throttle.
//!
//! ```text
//!            join                 its turn: starts
//!  outside ────────▶ waiting ─────────────────────────▶ outside
//!                     │   ▲                                ▲
//!     overdue, and    ▼   │ looks again                    │
//!   somebody looks  absent ─┘                              │
//!                     └──────────── leaves ────────────────┘
//! ```
//!
//! Nothing is set aside for a waiter: the head of the list starts when it looks and may, so that
//! what is counted is when something did start, not when it might have. A waiter that leaves thereby
//! leaves its turn to the next.
//!
//! # Abandoned waiters
//!
//! Each waiter is told when to look again, and is absent if it has not looked [`NOTICE`] after that
//! (the head: [`PATIENCE`] after its turn). Absent waiters at the head of the list are passed, all of
//! them together, by the next waiter that looks. Those behind the head are told to look [`NOTICE`]
//! before the head would be absent: at that moment the waiters that are alive prove it, so that only
//! abandoned ones are absent when the head is. So however many are abandoned, those behind them
//! lose [`PATIENCE`] once.

use core::task::Waker;
use std::collections::BTreeMap;

use super::meter::Meter;
use crate::base::wake::WakeList;

/// How long a waiter keeps those behind it waiting if it does not look, counted from its turn, or
/// from when it was woken. In ticks.
pub(super) const PATIENCE: u64 = 100_000_000;

/// How long a waiter behind the head has to look after it was told to.
const NOTICE: u64 = PATIENCE / 2;

/// How many waiters look in each `NOTICE` at the most: with more of them, each looks later.
const LOOKS: u64 = 1024;

#[derive(Debug)]
struct Seat {
    need: u32,
    /// The need of all who joined before, modulo 2^64: what lies between two in line is at most the
    /// difference.
    before: u64,
    /// Gone when it has been woken and has not looked since.
    waker: Option<Waker>,
    /// From then on it is absent unless it looks. `UNKNOWN` if no clock was read since it joined.
    absent_from: u64,
}

const UNKNOWN: u64 = u64::MAX;

impl Seat {
    /// Takes the waker, to be woken at `now`.
    fn call(&mut self, now: u64) -> Option<Waker> {
        self.absent_from = self.absent_from.min(now.saturating_add(PATIENCE));
        self.waker.take()
    }
}

/// By number, in the order in which they joined.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: BTreeMap<u64, Seat>,
    /// Those that were passed: in front again as soon as they look.
    absent: BTreeMap<u64, Seat>,
    joined: u64,
    /// All that joined before this number are known to have been there at some instant.
    noted: u64,
    /// The latest instant at which somebody looked.
    latest: u64,
    joined_need: u64,
}

/// What somebody is told who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has started, and is out of the line.
    Started,
    /// It is to look again then, or when it is woken.
    At(u64),
}

/// What came of a look, with the wakers that are to be woken and dropped without the lock.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) turn: Turn,
    pub(super) wake: Option<Waker>,
    pub(super) retired: [Option<Waker>; 2],
}

impl Line {
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.absent.len()
    }

    /// Whether nobody is there who would have to be passed.
    pub(super) fn is_clear(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The need of those who wait, or a little more.
    pub(super) fn need(&self) -> u64 {
        self.waiting.values().next().map_or(0, |head| self.joined_need.wrapping_sub(head.before))
    }

    pub(super) fn join(&mut self, need: u32) -> u64 {
        let number = self.joined;
        self.joined += 1;
        let seat = Seat { need, before: self.joined_need, waker: None, absent_from: UNKNOWN };
        self.joined_need = self.joined_need.wrapping_add(need.into());
        self.waiting.insert(number, seat);
        number
    }

    /// A waiter looks whether it may start.
    pub(super) fn look(
        &mut self,
        number: u64,
        now: u64,
        waker: Waker,
        meter: &mut dyn Meter,
    ) -> Look {
        self.note(now);
        if let Some(seat) = self.absent.remove(&number) {
            self.waiting.insert(number, seat);
        }
        let Some(seat) = self.waiting.get_mut(&number) else {
            unreachable!("who is in line waits or is absent")
        };
        seat.absent_from = UNKNOWN;
        let need = seat.need;
        let passed = self.pass_absent(now);
        let spread = self.waiting.len() as u64 / LOOKS * NOTICE;
        let Some(mut head) = self.waiting.first_entry() else {
            unreachable!("a waiter is looking")
        };
        if *head.key() == number {
            let when = meter.earliest(need, now);
            if when <= now {
                meter.start(need, now);
                let retired = [Some(waker), head.remove().waker];
                self.pass_absent(now);
                return Look { turn: Turn::Started, wake: self.call_head(now), retired };
            }
            let head = head.get_mut();
            head.absent_from = when.saturating_add(PATIENCE);
            let replaced = head.waker.replace(waker);
            return Look { turn: Turn::At(when), wake: None, retired: [replaced, None] };
        }
        let head = head.get_mut();
        // Woken and still to look, new as the head, or due.
        let due = head.absent_from <= now.saturating_add(PATIENCE);
        let wake = if passed || due || head.waker.is_none() { head.call(now) } else { None };
        let passes = head.absent_from;
        // Twice: to show that it is there, and to pass.
        let first = passes.saturating_sub(NOTICE).saturating_add(spread);
        let told = if passes - now > NOTICE { first } else { passes };
        let absent_from = told.saturating_add(NOTICE).max(now.saturating_add(PATIENCE));
        let replaced = self.waiting.get_mut(&number).and_then(|seat| {
            seat.absent_from = absent_from;
            seat.waker.replace(waker)
        });
        Look { turn: Turn::At(told), wake, retired: [replaced, None] }
    }

    /// A newcomer that would not wait looks whether it may pass. The waker is for the caller to
    /// wake.
    pub(super) fn make_way(&mut self, now: u64) -> Option<Waker> {
        self.note(now);
        if self.pass_absent(now) { self.call_head(now) } else { None }
    }

    /// Passes the waiters at the head that are absent. Each has looked or joined since it was passed
    /// last: so this is O(log waiters) for each of those.
    fn pass_absent(&mut self, now: u64) -> bool {
        let mut passed = false;
        while let Some(head) = self.waiting.first_entry() {
            if head.get().absent_from > now {
                break;
            }
            let (number, seat) = head.remove_entry();
            self.absent.insert(number, seat);
            passed = true;
        }
        passed
    }

    /// Somebody looks: waiters that have not done so since they joined are expected to from now on.
    fn note(&mut self, now: u64) {
        self.latest = self.latest.max(now);
        if self.noted < self.joined {
            for (_, seat) in self.waiting.range_mut(self.noted..) {
                seat.absent_from = now.saturating_add(PATIENCE);
            }
            self.noted = self.joined;
        }
    }

    /// A waiter leaves the list without having started. Returns its waker, and collects those of
    /// the waiters that have to look.
    pub(super) fn leave(&mut self, number: u64, wakers: &mut WakeList) -> Option<Waker> {
        if let Some(seat) = self.absent.remove(&number) {
            return seat.waker;
        }
        let first = self.waiting.keys().next() == Some(&number);
        let own = self.waiting.remove(&number)?;
        if first {
            // There is no clock here: what the next has still to look is noted by the next look.
            self.pass_absent(self.latest);
            // Behind a smaller head the turn of all may come sooner than they were told. If that head
            // is abandoned, others must know; not all, lest each of many that leave wakes them all.
            let sooner = self.waiting.values().next().is_some_and(|head| head.need < own.need);
            let count = if sooner { WakeList::CAPACITY } else { 1 };
            let next = self.waiting.values_mut().take(count);
            next.filter_map(|seat| seat.waker.take()).for_each(|waker| wakers.push(waker));
        }
        own.waker
    }

    /// The waker of the waiter that is the head now.
    fn call_head(&mut self, now: u64) -> Option<Waker> {
        self.waiting.values_mut().next().and_then(|head| head.call(now))
    }
}
