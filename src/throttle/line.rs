//! The line of those who wait to start.
//!
//! ```text
//!            join                 its turn: starts
//!  outside ────────▶ waiting ─────────────────────────▶ outside
//!                     │   ▲                                ▲
//!   called, did not   ▼   │ looks again                    │
//!   come            absent ─┘                              │
//!                     └──────────── leaves ────────────────┘
//! ```
//!
//! Nothing is set aside for who waits: the head of the line starts when it looks and may, so that
//! what is counted is when something did start, not when it might have. Whoever leaves thereby
//! leaves its turn to the next.

use core::task::Waker;
use std::collections::BTreeMap;

use super::meter::Meter;

/// How long the head of the line may keep the others waiting after it was called, in ticks: it may
/// be a future that nobody polls any more.
pub(super) const PATIENCE: u64 = 100_000_000;

#[derive(Debug)]
struct Seat {
    need: u32,
    /// The need of all who joined before, modulo 2^64: what lies between two in line is at most the
    /// difference.
    before: u64,
    /// Gone when it has been woken and has not looked since.
    waker: Option<Waker>,
    /// Since when it has been known to keep the others waiting.
    called: Option<u64>,
}

/// By number, in the order in which they joined.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: BTreeMap<u64, Seat>,
    /// Who did not come when called: in front again as soon as they do.
    absent: BTreeMap<u64, Seat>,
    joined: u64,
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

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The need of those who wait, or a little more.
    pub(super) fn need(&self) -> u64 {
        self.waiting.values().next().map_or(0, |head| self.joined_need.wrapping_sub(head.before))
    }

    pub(super) fn join(&mut self, need: u32) -> u64 {
        let number = self.joined;
        self.joined += 1;
        let seat = Seat { need, before: self.joined_need, waker: None, called: None };
        self.joined_need = self.joined_need.wrapping_add(need.into());
        self.waiting.insert(number, seat);
        number
    }

    /// Somebody in line looks whether it may start.
    pub(super) fn look(
        &mut self,
        number: u64,
        now: u64,
        waker: Waker,
        meter: &mut dyn Meter,
    ) -> Look {
        if let Some(seat) = self.absent.remove(&number) {
            self.waiting.insert(number, seat);
        }
        let Some(seat) = self.waiting.get_mut(&number) else {
            unreachable!("who is in line waits or is absent")
        };
        seat.called = None;
        let (need, before) = (seat.need, seat.before);

        let mut passed = false;
        let (turn, wake) = loop {
            let Some(mut head) = self.waiting.first_entry() else {
                unreachable!("somebody in line is looking")
            };
            if *head.key() == number {
                let when = meter.earliest(need, now);
                if when > now {
                    break (Turn::At(when), None);
                }
                meter.start(need, now);
                let retired = [Some(waker), head.remove().waker];
                return Look { turn: Turn::Started, wake: self.call_head(), retired };
            }
            let first = head.get_mut();
            if meter.earliest(first.need, now) > now {
                let own = meter.earliest_behind(before.wrapping_sub(first.before), need, now);
                let wake = if passed { first.waker.take() } else { None };
                break (Turn::At(own.saturating_add(PATIENCE)), wake);
            }
            match first.called {
                None => {
                    first.called = Some(now);
                    break (Turn::At(now + PATIENCE), first.waker.take());
                }
                Some(called) if now < called.saturating_add(PATIENCE) => {
                    break (Turn::At(called + PATIENCE), None);
                }
                Some(_) => {
                    let (number, seat) = head.remove_entry();
                    self.absent.insert(number, seat);
                    passed = true;
                }
            }
        };
        let replaced = self.waiting.get_mut(&number).and_then(|seat| seat.waker.replace(waker));
        Look { turn, wake, retired: [replaced, None] }
    }

    /// Somebody leaves the line without having started. Returns its waker, and that of the next, if
    /// it is its turn now.
    pub(super) fn leave(&mut self, number: u64) -> (Option<Waker>, Option<Waker>) {
        if let Some(seat) = self.absent.remove(&number) {
            return (seat.waker, None);
        }
        let first = self.waiting.keys().next() == Some(&number);
        let own = self.waiting.remove(&number).and_then(|seat| seat.waker);
        (own, if first { self.call_head() } else { None })
    }

    /// The waker of who is first now: it has to look when it may start.
    fn call_head(&mut self) -> Option<Waker> {
        self.waiting.values_mut().next().and_then(|head| head.waker.take())
    }
}
