//! Which runs there are, and whose turn it is to poll each.
//!
//! ```text
//!          no place                a place is free
//!  join ──────────────▶ Queued ──────────────────────┐
//!    │                                               ▼      begin
//!    └────────────────────────────────────────────▶ Ready ───────▶ Polling ──▶ Finished ──▶ gone, as
//!                place free                                         │   ▲       the last caller leaves
//!                                                          suspend  ▼   │ resume
//!                                                                 Suspended
//! ```
//!
//! - A run in `Ready`, `Polling` or `Suspended` has a place, and there are at most `max_keys` of them. Its
//!   key is in the table, and so is that of a `Queued` one.
//! - The call that polls a run has its future; any of its calls may be the next to take it. A run that was
//!   woken wakes all its callers, so that one that is kept and not polled stalls no other.
//! - A run without callers is gone.
//!
//! `Eq` of keys is the only user code that runs here.

use core::task::Waker;
use std::sync::Arc;

use super::stats::SingleFlightStats;
use super::{RunFuture, RunPanicked, Running};
use crate::base::list::List;
use crate::base::slab::Slab;
use crate::base::table::SlotTable;
use crate::base::wake::WakeList;

/// What every caller of a run gets.
pub(super) type Outcome<V> = Result<V, RunPanicked>;

/// Names a run. Numbers are never reused, so that an old id finds no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunId {
    pub(super) slot: u32,
    number: u64,
}

/// Names a call, which keeps its run from going away.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallId {
    pub(super) run: RunId,
    caller: u32,
}

enum State<V> {
    /// There are as many runs as may be.
    Queued,
    /// The next of its callers that is polled begins it.
    Ready,
    Polling {
        /// It was woken meanwhile.
        woken: bool,
    },
    Suspended {
        running: Running<V>,
        woken: bool,
    },
    Finished(Arc<Outcome<V>>),
}

struct Run<K, V> {
    number: u64,
    hash: u64,
    /// `None` once it is finished.
    key: Option<K>,
    state: State<V>,
    /// The wakers of its callers; `None` of one that has been woken, or has not waited yet.
    callers: Slab<Option<Waker>>,
}

/// What a caller is to do.
pub(super) enum Turn<V> {
    /// Begin the run with its own function, and this waker if there is one for its slot.
    Begin(Option<Waker>),
    Poll(Running<V>),
    Wait,
    /// It has left the run.
    Done(Arc<Outcome<V>>),
}

/// What leaves the lock, to be dropped after it.
pub(super) struct Left<K, V> {
    pub(super) key: Option<K>,
    pub(super) future: Option<RunFuture<V>>,
    pub(super) outcome: Option<Arc<Outcome<V>>>,
    pub(super) waker: Option<Waker>,
}

impl<K, V> Left<K, V> {
    const NOTHING: Self = Self { key: None, future: None, outcome: None, waker: None };
}

/// Runs whose callers are to be woken after a step.
pub(super) type Due = [Option<RunId>; 2];

pub(super) struct Core<K, V> {
    runs: Slab<Run<K, V>>,
    table: SlotTable,
    /// The runs that wait for a place, in the order in which they were called for.
    queue: List,
    max_keys: usize,
    /// Runs that have a place.
    places_taken: usize,
    last_number: u64,
    stats: SingleFlightStats,
    /// The list of callers of a run that is gone, empty, for the next.
    spare: Slab<Option<Waker>>,
    /// The wakers of runs that are gone, by slot, for the next. One that comes late, from a run that is
    /// gone, has the next in its slot polled once for nothing.
    spare_wakers: Vec<Option<Waker>>,
}

impl<K, V> Core<K, V> {
    pub(super) fn new(max_keys: usize) -> Self {
        Self {
            runs: Slab::new(),
            table: SlotTable::new(),
            queue: List::new(),
            max_keys,
            places_taken: 0,
            last_number: 0,
            stats: SingleFlightStats::default(),
            spare: Slab::new(),
            spare_wakers: Vec::new(),
        }
    }

    pub(super) fn stats(&self) -> SingleFlightStats {
        let queued = self.runs.iter().filter(|(_, run)| matches!(run.state, State::Queued));
        SingleFlightStats {
            running: self.places_taken,
            queued: queued.count(),
            callers: self.runs.iter().map(|(_, run)| run.callers.len()).sum(),
            ..self.stats
        }
    }

    /// Adds a caller to the run of its key, or a run for the key, which is taken then.
    pub(super) fn join(&mut self, hash: u64, key: &mut Option<K>) -> Option<CallId>
    where
        K: Eq,
    {
        let wanted = key.as_ref()?;
        let found = self.table.find(hash, |slot| self.runs[slot].key.as_ref() == Some(wanted));
        self.stats.calls += 1;
        let slot = match found {
            Some(slot) => {
                self.stats.shared += 1;
                slot
            }
            None => self.add(hash, key.take()),
        };
        let run = &mut self.runs[slot];
        let caller = run.callers.insert(None);
        Some(CallId { run: RunId { slot, number: run.number }, caller })
    }

    fn add(&mut self, hash: u64, key: Option<K>) -> u32 {
        self.last_number += 1;
        let has_place = self.places_taken < self.max_keys;
        let state = if has_place { State::Ready } else { State::Queued };
        let number = self.last_number;
        let callers = core::mem::replace(&mut self.spare, Slab::new());
        let slot = self.runs.insert(Run { number, hash, key, state, callers });
        self.table.insert(hash, slot, |slot| self.runs[slot].hash);
        if has_place {
            self.places_taken += 1;
        } else {
            self.queue.push_back(slot);
        }
        slot
    }

    /// What a caller is to do now. If that is to wait, its fresh waker is kept, and the one before comes
    /// back in its stead; without a waker, nothing changes then.
    pub(super) fn turn(
        &mut self,
        call: CallId,
        waker: &mut Option<Waker>,
    ) -> (Turn<V>, Left<K, V>) {
        let run = &mut self.runs[call.run.slot];
        let turn = match &mut run.state {
            State::Ready => {
                self.stats.started += 1;
                run.state = State::Polling { woken: false };
                Turn::Begin(
                    self.spare_wakers.get_mut(call.run.slot as usize).and_then(Option::take),
                )
            }
            State::Suspended { woken: true, .. } => {
                match core::mem::replace(&mut run.state, State::Polling { woken: false }) {
                    State::Suspended { running, .. } => Turn::Poll(running),
                    _ => unreachable!("it was suspended"),
                }
            }
            State::Finished(outcome) => {
                let outcome = Arc::clone(outcome);
                let (left, _) = self.leave(call);
                return (Turn::Done(outcome), left);
            }
            State::Queued | State::Polling { .. } | State::Suspended { woken: false, .. } => {
                if waker.is_some() {
                    core::mem::swap(&mut run.callers[call.caller], waker);
                }
                Turn::Wait
            }
        };
        (turn, Left::NOTHING)
    }

    /// The caller that polls a run gives its future back, to wait for it to be woken.
    pub(super) fn suspend(
        &mut self,
        call: CallId,
        running: Running<V>,
        waker: &mut Option<Waker>,
    ) -> Due {
        let run = &mut self.runs[call.run.slot];
        let woken = matches!(run.state, State::Polling { woken: true });
        run.state = State::Suspended { running, woken };
        core::mem::swap(&mut run.callers[call.caller], waker);
        [woken.then_some(call.run), None]
    }

    /// The future of the run in this slot has asked to be polled.
    pub(super) fn wake(&mut self, slot: u32) -> Due {
        let Some(run) = self.runs.get_mut(slot) else { return [None, None] };
        let id = RunId { slot, number: run.number };
        match &mut run.state {
            State::Polling { woken } => {
                *woken = true;
                [None, None]
            }
            State::Suspended { woken, .. } => {
                [(!core::mem::replace(woken, true)).then_some(id), None]
            }
            State::Queued | State::Ready | State::Finished(_) => [None, None],
        }
    }

    /// The caller that polls a run has its outcome, which comes back if there are no other callers.
    pub(super) fn finish(
        &mut self,
        call: CallId,
        outcome: Outcome<V>,
        run_waker: Option<Waker>,
    ) -> (Option<Outcome<V>>, Left<K, V>, Due) {
        let CallId { run: id, caller } = call;
        self.spare_waker(id.slot, run_waker);
        match &outcome {
            Ok(_) => self.stats.completed += 1,
            Err(_) => self.stats.panicked += 1,
        }
        let next = self.free_place();
        let run = &mut self.runs[id.slot];
        let (key, hash) = (run.key.take(), run.hash);
        let waker = run.callers.remove(caller);
        self.table.remove(hash, id.slot);
        let left = Left { key, waker, ..Left::NOTHING };
        if run.callers.len() == 0 {
            self.spare = self.runs.remove(id.slot).callers;
            return (Some(outcome), left, [next, None]);
        }
        let outcome = Arc::new(outcome);
        run.state = State::Finished(Arc::clone(&outcome));
        // The caller that has polled it takes its share as the others do.
        let left = Left { outcome: Some(outcome), ..left };
        (None, left, [Some(id), next])
    }

    /// A caller leaves its run, which goes away with the last of them.
    pub(super) fn leave(&mut self, call: CallId) -> (Left<K, V>, Due) {
        let CallId { run: RunId { slot, .. }, caller } = call;
        let run = &mut self.runs[slot];
        let mut left = Left { waker: run.callers.remove(caller), ..Left::NOTHING };
        if run.callers.len() > 0 {
            return (left, [None, None]);
        }
        let Run { key, hash, state, callers, .. } = self.runs.remove(slot);
        self.spare = callers;
        if key.is_some() {
            self.table.remove(hash, slot);
        }
        left.key = key;
        let mut next = None;
        match state {
            State::Queued => self.queue.remove(slot),
            State::Ready => next = self.free_place(),
            State::Suspended { running, .. } => {
                self.stats.cancelled += 1;
                let Running { future, waker } = running;
                self.spare_waker(slot, Some(waker));
                left.future = Some(future);
                next = self.free_place();
            }
            State::Finished(outcome) => left.outcome = Some(outcome),
            State::Polling { .. } => unreachable!("the caller that polls it is there"),
        }
        (left, [next, None])
    }

    fn spare_waker(&mut self, slot: u32, waker: Option<Waker>) {
        let slot = slot as usize;
        if self.spare_wakers.len() <= slot {
            self.spare_wakers.resize_with(slot + 1, || None);
        }
        self.spare_wakers[slot] = waker;
    }

    /// A run has ended: the first that waits for a place gets it.
    fn free_place(&mut self) -> Option<RunId> {
        let Some(slot) = self.queue.pop_front() else {
            self.places_taken -= 1;
            return None;
        };
        let run = &mut self.runs[slot];
        run.state = State::Ready;
        Some(RunId { slot, number: run.number })
    }

    /// Takes out wakers of a run's callers, from this one on, and returns where to go on if there may be
    /// more.
    pub(super) fn take_wakers(
        &mut self,
        id: RunId,
        from: u32,
        wakes: &mut WakeList,
    ) -> Option<u32> {
        let run = self.runs.get_mut(id.slot).filter(|run| run.number == id.number)?;
        let waiting = run.callers.iter_from(from).filter(|(_, waker)| waker.is_some());
        let mut callers = [0; WakeList::CAPACITY];
        let mut count = 0;
        for (place, (caller, _)) in callers.iter_mut().zip(waiting) {
            *place = caller;
            count += 1;
        }
        for caller in &callers[..count] {
            if let Some(waker) = run.callers[*caller].take() {
                wakes.push(waker);
            }
        }
        (count == WakeList::CAPACITY).then(|| callers[count - 1] + 1)
    }

    /// Panics unless runs, table and queue agree.
    #[cfg(debug_assertions)]
    pub(super) fn validate(&self) {
        self.runs.validate();
        self.queue.validate();
        let keyed = self.runs.iter().filter(|(_, run)| run.key.is_some());
        self.table.validate(keyed.map(|(slot, run)| (slot, run.hash)));
        let (mut places, mut queued) = (0, 0);
        for (slot, run) in self.runs.iter() {
            run.callers.validate();
            assert!(run.callers.len() > 0, "run {slot} has no callers");
            let finished = matches!(run.state, State::Finished(_));
            let waits = matches!(run.state, State::Queued);
            assert_eq!(run.key.is_none(), finished, "the key of run {slot}");
            assert_eq!(self.queue.contains(slot), waits, "run {slot} in the queue");
            places += usize::from(!finished && !waits);
            queued += usize::from(waits);
        }
        assert_eq!(places, self.places_taken, "places taken");
        assert!(places <= self.max_keys, "{places} runs of {}", self.max_keys);
        assert!(queued == 0 || places == self.max_keys, "{queued} runs wait for a free place");
        let SingleFlightStats { started, completed, panicked, cancelled, .. } = self.stats;
        let in_work = self.runs.iter().filter(|(_, run)| {
            matches!(run.state, State::Polling { .. } | State::Suspended { .. })
        });
        assert_eq!(started, completed + panicked + cancelled + in_work.count() as u64, "runs");
    }
}
