//! The offset tracker against a list of positions that is searched from end to end.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use sluicegate::offsets::{Checkpoint, Redelivery, Track, TrackError};
use sluicegate::{Ack, OffsetTracker};

const CAPACITY: usize = 3;
const WINDOW: usize = 6;
const MAX_RANGES: usize = 2;
const POSITIONS: u64 = 40;
const END: u64 = 400;

#[derive(Debug, Clone, Copy)]
enum Verb {
    Complete,
    Reject,
    Release,
    Drop,
}

#[derive(Debug, Clone)]
enum Step {
    Track { gap: u64 },
    TrackOrWait { gap: u64 },
    PollWaiter { at: usize },
    DropWaiter { at: usize },
    Settle { at: usize, verb: Verb },
    Split { at: usize, verbs: Vec<Verb> },
    Redeliver,
    NewEpoch,
    Restart,
    Skip { ahead: u64 },
    TakeParked,
    Close,
}

fn verb() -> impl Strategy<Value = Verb> {
    prop_oneof![
        4 => Just(Verb::Complete),
        1 => Just(Verb::Reject),
        1 => Just(Verb::Release),
        1 => Just(Verb::Drop),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..8_usize;
    prop_oneof![
        6 => (1..3_u64).prop_map(|gap| Step::Track { gap }),
        4 => (0..3_u64).prop_map(|gap| Step::TrackOrWait { gap }),
        4 => at.clone().prop_map(|at| Step::PollWaiter { at }),
        1 => at.clone().prop_map(|at| Step::DropWaiter { at }),
        10 => (at.clone(), verb()).prop_map(|(at, verb)| Step::Settle { at, verb }),
        2 => (at, prop::collection::vec(verb(), 0..4))
            .prop_map(|(at, verbs)| Step::Split { at, verbs }),
        3 => Just(Step::Redeliver),
        1 => Just(Step::NewEpoch),
        2 => Just(Step::Restart),
        4 => (0..4_u64).prop_map(|ahead| Step::Skip { ahead }),
        1 => Just(Step::TakeParked),
        1 => prop_oneof![9 => Just(Step::TakeParked), 1 => Just(Step::Close)],
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InWork {
        deliveries: u32,
    },
    Released {
        deliveries: u32,
    },
    Done,
    /// Passed over after a restart; in the slot of what was done before it, if there was one.
    Skipped {
        shares: bool,
    },
    /// Its waiter was dropped after it was served: a gap that takes up a slot.
    Withdrawn,
}

impl State {
    fn is_done(self) -> bool {
        matches!(self, Self::Done | Self::Skipped { .. })
    }
}

/// Everything of this epoch, in order, from what was committed as it began.
#[derive(Default)]
struct Model {
    start: Option<u64>,
    epoch: Vec<(u64, State)>,
    resumed: BTreeSet<u64>,
    released: Vec<u64>,
    waiting: Vec<u64>,
    closed: bool,
    tracked: u64,
    completed: u64,
    parked: u64,
    fenced: u64,
    late: u64,
}

impl Model {
    fn committed(&self) -> Option<u64> {
        let passed = |(_, state): &&(u64, State)| state.is_done() || *state == State::Withdrawn;
        let done = self.epoch.iter().take_while(passed).filter(|(_, state)| state.is_done());
        done.last().map(|(position, _)| *position).or(self.start)
    }

    fn last(&self) -> Option<u64> {
        self.epoch.last().map(|(position, _)| *position).or(self.start)
    }

    fn incomplete(&self) -> usize {
        let is_incomplete = |state| matches!(state, State::InWork { .. } | State::Released { .. });
        self.epoch.iter().filter(|(_, state)| is_incomplete(*state)).count()
    }

    fn in_window(&self) -> usize {
        let passed = |(_, state): &&(u64, State)| state.is_done() || *state == State::Withdrawn;
        let beyond = self.epoch.iter().skip_while(passed);
        beyond.filter(|(_, state)| *state != State::Skipped { shares: true }).count()
    }

    fn has_room(&self) -> bool {
        self.incomplete() < CAPACITY && self.in_window() < WINDOW
    }

    fn admit(&mut self, position: u64) -> bool {
        if self.last().is_some_and(|last| position <= last) {
            return false;
        }
        self.epoch.push((position, State::InWork { deliveries: 1 }));
        self.tracked += 1;
        true
    }

    /// Which waiters were served, and whether their positions were tracked.
    fn serve(&mut self) -> Vec<(u64, bool)> {
        let mut served = Vec::new();
        while !self.waiting.is_empty() && (self.closed || self.has_room()) {
            let position = self.waiting.remove(0);
            let tracked = !self.closed && self.admit(position);
            served.push((position, tracked));
        }
        served
    }

    fn is_complete(&self, position: u64) -> bool {
        self.committed().is_some_and(|committed| position <= committed)
            || self.resumed.contains(&position)
            || self.epoch.iter().any(|(known, state)| *known == position && state.is_done())
    }

    /// With what lies between two neighbours that are complete: nothing was delivered there.
    fn complete(&self, filled: bool) -> BTreeSet<u64> {
        let mut complete: BTreeSet<u64> = (0..END).filter(|it| self.is_complete(*it)).collect();
        for pair in
            self.epoch.windows(2).filter(|pair| filled && pair.iter().all(|it| it.1.is_done()))
        {
            complete.extend(pair[0].0..=pair[1].0);
        }
        complete
    }

    fn state(&mut self, position: u64) -> Option<&mut State> {
        self.epoch.iter_mut().find(|(known, _)| *known == position).map(|(_, state)| state)
    }

    fn settle(&mut self, position: u64, verb: Verb) {
        let Some(state) = self.state(position) else { return };
        let State::InWork { deliveries } = *state else { panic!("{position} is {state:?}") };
        match verb {
            Verb::Complete => {
                *state = State::Done;
                self.completed += 1;
            }
            Verb::Reject => {
                *state = State::Done;
                self.parked += 1;
            }
            Verb::Release | Verb::Drop => {
                *state = State::Released { deliveries };
                self.released.push(position);
            }
        }
    }

    fn begin_epoch(&mut self, complete: BTreeSet<u64>) {
        self.start = self.committed();
        self.fenced += self.incomplete() as u64;
        self.epoch.clear();
        self.released.clear();
        self.waiting.clear();
        self.resumed = complete;
    }
}

fn worst(verbs: &[Verb]) -> Verb {
    let rank = |verb: &Verb| match verb {
        Verb::Complete => 0,
        Verb::Reject => 1,
        Verb::Release | Verb::Drop => 2,
    };
    verbs.iter().copied().max_by_key(rank).unwrap_or(Verb::Complete)
}

fn say<P: Copy>(ack: Ack<P>, verb: Verb) {
    match verb {
        Verb::Complete => ack.complete(),
        Verb::Reject => ack.reject("rejected"),
        Verb::Release => ack.release(),
        Verb::Drop => drop(ack),
    }
}

type Waiter<'a> = (u64, Pin<Box<Track<'a, u64>>>);

struct Run<'a> {
    tracker: &'a OffsetTracker<u64>,
    model: Model,
    /// With the epoch that they are of.
    acks: Vec<(u64, Ack<u64>)>,
    waiters: Vec<Waiter<'a>>,
    /// Served and not polled since: whether the position was tracked.
    granted: Vec<(u64, bool)>,
    epoch: u64,
}

/// As it is read back from where it was stored.
fn restored(checkpoint: &Checkpoint<u64>) -> Checkpoint<u64> {
    #[cfg(feature = "serde")]
    return serde_json::from_str(&serde_json::to_string(checkpoint).unwrap()).unwrap();
    #[cfg(not(feature = "serde"))]
    return checkpoint.clone();
}

fn payload(position: u64) -> u64 {
    position * 100
}

impl<'a> Run<'a> {
    fn serve(&mut self) {
        let served = self.model.serve();
        self.granted.extend(served);
    }

    fn poll(&mut self, mut waiter: Waiter<'a>) {
        let polled = waiter.1.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let position = waiter.0;
        let granted = self.granted.iter().position(|(granted, _)| *granted == position);
        match (polled, granted.map(|at| self.granted.remove(at).1)) {
            (Poll::Pending, None) => self.waiters.push(waiter),
            (Poll::Ready(Ok(ack)), Some(true)) => self.acks.push((self.epoch, ack)),
            (
                Poll::Ready(Err(TrackError::NotIncreasing { .. } | TrackError::Closed)),
                Some(false),
            ) => {}
            (polled, granted) => panic!("{position}: {polled:?}, but granted is {granted:?}"),
        }
    }

    fn start_epoch(&mut self, complete: BTreeSet<u64>) {
        self.model.begin_epoch(complete);
        self.epoch += 1;
        for (position, mut waiter) in self.waiters.drain(..) {
            let polled = waiter.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            match polled {
                Poll::Ready(Err(TrackError::NewEpoch)) => {}
                Poll::Ready(Err(TrackError::NotIncreasing { .. } | TrackError::Closed)) => {
                    assert!(self.granted.contains(&(position, false)));
                }
                // Granted in the epoch before, and fenced.
                Poll::Ready(Ok(ack)) => {
                    assert!(self.granted.contains(&(position, true)));
                    assert!(ack.is_fenced());
                    ack.complete();
                    self.model.late += 1;
                }
                polled => panic!("{position} in a new epoch: {polled:?}"),
            }
        }
        self.granted.clear();
    }

    fn step(&mut self, step: Step) {
        let next = self.model.last().unwrap_or(0);
        match step {
            Step::Track { gap } => {
                let position = next + gap;
                let tracked = self.tracker.try_track(position, payload(position));
                let free = self.model.has_room() && self.model.waiting.is_empty();
                match tracked {
                    Ok(ack) => {
                        assert!(free && !self.model.closed && self.model.admit(position));
                        self.acks.push((self.epoch, ack));
                    }
                    Err(TrackError::Closed) => assert!(self.model.closed),
                    Err(TrackError::Full { capacity: CAPACITY }) => assert!(!free),
                    Err(error) => panic!("{position}: {error}"),
                }
            }
            Step::TrackOrWait { gap } => {
                let ahead = self.waiters.iter().map(|(position, _)| *position).max();
                let position = ahead.unwrap_or(next).max(next) + gap;
                if self.waiters.iter().any(|(known, _)| *known == position) {
                    return;
                }
                let waiter = (position, Box::pin(self.tracker.track(position, payload(position))));
                self.model.waiting.push(position);
                if self.model.waiting.len() == 1 || self.model.closed {
                    self.serve();
                }
                self.poll(waiter);
            }
            Step::PollWaiter { at } if at < self.waiters.len() => {
                let waiter = self.waiters.remove(at);
                self.poll(waiter);
            }
            Step::DropWaiter { at } if at < self.waiters.len() => {
                let (position, waiter) = self.waiters.remove(at);
                drop(waiter);
                self.model.waiting.retain(|known| *known != position);
                if let Some(at) = self.granted.iter().position(|(known, _)| *known == position) {
                    if self.granted.remove(at).1 {
                        *self.model.state(position).unwrap() = State::Withdrawn;
                        self.model.tracked -= 1;
                        while matches!(self.model.epoch.last(), Some((_, State::Withdrawn))) {
                            self.model.epoch.pop();
                        }
                    }
                }
            }
            Step::Settle { at, verb } if at < self.acks.len() => {
                let (epoch, ack) = self.acks.remove(at);
                self.settle(epoch, ack.position(), verb);
                say(ack, verb);
            }
            Step::Split { at, verbs } if at < self.acks.len() => {
                let (epoch, ack) = self.acks.remove(at);
                self.settle(epoch, ack.position(), worst(&verbs));
                for (part, verb) in ack.split(verbs.len()).into_iter().zip(verbs) {
                    say(part, verb);
                }
            }
            Step::Redeliver => {
                let expected =
                    (!self.model.released.is_empty()).then(|| self.model.released.remove(0));
                let got = self.tracker.redeliver();
                assert_eq!(got.as_ref().map(|got| got.position), expected);
                let Some(Redelivery { position, payload: got, deliveries, ack }) = got else {
                    return;
                };
                assert_eq!(got, payload(position));
                let state = self.model.state(position).unwrap();
                let State::Released { deliveries: before } = *state else { panic!("{state:?}") };
                assert_eq!(deliveries, before + 1);
                *state = State::InWork { deliveries };
                self.acks.push((self.epoch, ack));
            }
            Step::NewEpoch => {
                let (known, filled) = (self.model.complete(false), self.model.complete(true));
                assert_eq!(self.tracker.new_epoch(), self.epoch + 1);
                let complete: BTreeSet<u64> =
                    (0..END).filter(|position| self.tracker.is_complete(*position)).collect();
                assert!(known.is_subset(&complete) && complete.is_subset(&filled));
                self.start_epoch(complete);
            }
            Step::Restart => {
                let checkpoint = restored(&self.tracker.checkpoint());
                let complete: BTreeSet<u64> =
                    (0..END).filter(|position| checkpoint.is_complete(*position)).collect();
                assert!(complete.is_subset(&self.model.complete(true)));
                assert_eq!(self.tracker.resume(&checkpoint), self.epoch + 1);
                self.start_epoch(complete);
            }
            Step::Skip { ahead } => {
                let position = next + ahead;
                let complete = self.model.is_complete(position);
                assert_eq!(self.tracker.skip(position, payload(position)), complete);
                if complete && self.model.last().is_none_or(|last| position > last) {
                    let shares = self.model.epoch.last().is_some_and(|(_, last)| last.is_done());
                    self.model.epoch.push((position, State::Skipped { shares }));
                }
            }
            Step::TakeParked => {
                for parked in self.tracker.take_parked() {
                    assert_eq!(parked.reason, "rejected");
                }
            }
            Step::Close => {
                self.tracker.close();
                self.model.closed = true;
            }
            _ => {}
        }
    }

    fn settle(&mut self, epoch: u64, position: u64, verb: Verb) {
        if epoch == self.epoch {
            self.model.settle(position, verb);
        } else {
            self.model.late += 1;
        }
    }

    fn check(&self) {
        let (tracker, model) = (self.tracker, &self.model);
        tracker.validate();
        let committed = tracker.committable();
        assert_eq!(committed.map(|committed| committed.position), model.committed());
        assert!(committed.is_none_or(|it| it.payload == payload(it.position)));
        let stats = tracker.stats();
        let incomplete = model.incomplete();
        assert_eq!(
            (stats.tracked, stats.completed, stats.parked, stats.fenced, stats.incomplete),
            (model.tracked, model.completed, model.parked, model.fenced, incomplete)
        );
        assert_eq!(
            model.tracked,
            model.completed + model.parked + model.fenced + incomplete as u64
        );
        assert_eq!(stats.late_acks, model.late);
        assert_eq!((stats.waiting, stats.window_used), (model.waiting.len(), model.in_window()));
        assert_eq!(stats.awaiting_redelivery, model.released.len());
        let oldest =
            model.epoch.iter().find(|(_, state)| !state.is_done() && *state != State::Withdrawn);
        assert_eq!(
            tracker.oldest_incomplete().map(|oldest| oldest.position),
            oldest.map(|(position, _)| *position)
        );
        let (checkpoint, filled) = (tracker.checkpoint(), model.complete(true));
        assert!(checkpoint.completed_beyond().len() <= MAX_RANGES);
        for position in 0..POSITIONS {
            let known = model.is_complete(position);
            let told = tracker.is_complete(position);
            assert!(told == known || told && filled.contains(&position), "{position} is {told}");
            if known && !checkpoint.is_complete(position) {
                assert!(checkpoint.forgotten() > 0, "{position} is missing");
            }
        }
    }
}

proptest! {
    #[test]
    fn behaves_as_a_sorted_list(steps in prop::collection::vec(step(), 1..120)) {
        let tracker = OffsetTracker::builder()
            .capacity(CAPACITY)
            .window(WINDOW)
            .max_ranges(MAX_RANGES)
            .build()
            .unwrap();
        let mut run = Run {
            tracker: &tracker,
            model: Model::default(),
            acks: Vec::new(),
            waiters: Vec::new(),
            granted: Vec::new(),
            epoch: 0,
        };
        for step in steps {
            run.step(step);
            run.serve();
            run.check();
        }
    }
}
