//! `SingleFlight` against a list of runs that is searched from end to end.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use proptest::prelude::*;
use sluicegate::SingleFlight;
use sluicegate::single_flight::RunPanicked;

const MAX_KEYS: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    Call {
        key: u8,
    },
    Poll {
        at: usize,
    },
    Leave {
        at: usize,
    },
    /// The run is woken, for nothing or because it can end; from now on it may wake itself in each poll.
    Wake {
        run: usize,
        end: Option<End>,
        restless: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Value,
    Panic,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8).prop_map(|key| Step::Call { key }),
        10 => (0..10_usize).prop_map(|at| Step::Poll { at }),
        2 => (0..10_usize).prop_map(|at| Step::Leave { at }),
        3 => (0..4_usize, any::<bool>())
            .prop_map(|(run, restless)| Step::Wake { run, end: None, restless }),
        4 => (0..4_usize, prop_oneof![4 => Just(End::Value), 1 => Just(End::Panic)])
            .prop_map(|(run, end)| Step::Wake { run, end: Some(end), restless: false }),
    ]
}

/// What steers a run that was begun.
#[derive(Default)]
struct Door {
    end: Option<End>,
    restless: bool,
    waker: Option<Waker>,
    dropped: bool,
}

type Doors = Arc<Mutex<Vec<Door>>>;

/// The future of the run that is begun next.
fn begin(doors: &Doors) -> impl Future<Output = usize> + Send + use<> {
    struct Drops(Doors, usize);
    impl Drop for Drops {
        fn drop(&mut self) {
            self.0.lock().unwrap()[self.1].dropped = true;
        }
    }
    let number = {
        let mut doors = doors.lock().unwrap();
        doors.push(Door::default());
        doors.len() - 1
    };
    let drops = Drops(Arc::clone(doors), number);
    poll_fn(move |cx| {
        let Drops(doors, number) = &drops;
        let (end, restless) = {
            let door = &mut doors.lock().unwrap()[*number];
            door.waker = Some(cx.waker().clone());
            (door.end, door.restless)
        };
        if restless {
            cx.waker().wake_by_ref();
        }
        match end {
            None => Poll::Pending,
            Some(End::Value) => Poll::Ready(*number),
            Some(End::Panic) => std::panic::resume_unwind(Box::new("out of paper")),
        }
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Queued,
    Ready,
    Begun { number: usize, woken: bool },
    Ended { number: usize, end: End },
}

#[derive(Debug)]
struct Run {
    key: u8,
    state: State,
    callers: Vec<usize>,
}

/// The runs in the order in which they were called for.
#[derive(Debug, Default)]
struct Model {
    runs: Vec<Run>,
    ends: Vec<Option<End>>,
    restless: Vec<bool>,
    cancelled: Vec<usize>,
}

impl Model {
    fn of(&mut self, call: usize) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.callers.contains(&call))
    }

    fn fill_places(&mut self) {
        let taken = |run: &Run| matches!(run.state, State::Ready | State::Begun { .. });
        let free = MAX_KEYS - self.runs.iter().filter(|run| taken(run)).count();
        let queued = self.runs.iter_mut().filter(|run| run.state == State::Queued);
        queued.take(free).for_each(|run| run.state = State::Ready);
    }

    /// Whether a poll of this call, which has joined, has something to do.
    fn can_go_on(&mut self, call: usize) -> bool {
        self.of(call).is_some_and(|run| match run.state {
            State::Queued => false,
            State::Ready | State::Ended { .. } => true,
            State::Begun { woken, .. } => woken,
        })
    }

    fn poll(&mut self, call: usize, key: u8) -> Poll<(usize, End)> {
        if self.of(call).is_none() {
            let shared =
                |run: &&mut Run| run.key == key && !matches!(run.state, State::Ended { .. });
            match self.runs.iter_mut().find(shared) {
                Some(run) => run.callers.push(call),
                None => self.runs.push(Run { key, state: State::Queued, callers: vec![call] }),
            }
            self.fill_places();
        }
        let begun = self.ends.len();
        let Some(run) = self.of(call) else { unreachable!() };
        match run.state {
            State::Ready => {
                run.state = State::Begun { number: begun, woken: false };
                self.ends.push(None);
                self.restless.push(false);
            }
            State::Begun { number, woken: true } => {
                let woken = self.restless[number];
                let end = self.ends[number];
                let Some(run) = self.of(call) else { unreachable!() };
                run.state = State::Begun { number, woken };
                if let Some(end) = end {
                    run.state = State::Ended { number, end };
                    self.fill_places();
                    return self.fetch(call, number, end);
                }
            }
            State::Ended { number, end } => return self.fetch(call, number, end),
            State::Queued | State::Begun { .. } => {}
        }
        Poll::Pending
    }

    fn fetch(&mut self, call: usize, number: usize, end: End) -> Poll<(usize, End)> {
        self.leave(call);
        Poll::Ready((number, end))
    }

    fn leave(&mut self, call: usize) {
        let Some(at) = self.runs.iter().position(|run| run.callers.contains(&call)) else { return };
        self.runs[at].callers.retain(|caller| *caller != call);
        if self.runs[at].callers.is_empty() {
            if let State::Begun { number, .. } = self.runs.remove(at).state {
                self.cancelled.push(number);
            }
            self.fill_places();
        }
    }

    fn wake(&mut self, at: usize, end: Option<End>, restless: bool) -> Option<usize> {
        let mut begun = self.runs.iter_mut().filter_map(|run| match &mut run.state {
            State::Begun { number, woken } => Some((number, woken)),
            _ => None,
        });
        let (number, woken) = begun.nth(at)?;
        *woken = true;
        let number = *number;
        self.ends[number] = self.ends[number].or(end);
        self.restless[number] |= restless;
        Some(number)
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

type Outcome = Result<usize, RunPanicked>;

struct Caller<'a> {
    number: usize,
    key: u8,
    call: Pin<Box<dyn Future<Output = Outcome> + 'a>>,
    /// Since it was polled last; as good as woken if it was not polled yet.
    woken: Arc<Woken>,
}

fn check(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let flights = SingleFlight::<u8, usize>::new(MAX_KEYS).unwrap();
    let (doors, mut model) = (Doors::default(), Model::default());
    let (mut callers, mut calls) = (Vec::<Caller<'_>>::new(), 0);
    for step in steps {
        match step {
            Step::Call { key } => {
                let begins = Arc::clone(&doors);
                callers.push(Caller {
                    number: calls,
                    key,
                    call: Box::pin(flights.run(key, move || begin(&begins))),
                    woken: Arc::new(Woken(AtomicBool::new(true))),
                });
                calls += 1;
            }
            Step::Poll { at } if !callers.is_empty() => {
                let at = at % callers.len();
                let Caller { number, key, call, woken } = &mut callers[at];
                woken.0.store(false, SeqCst);
                let waker = Waker::from(Arc::clone(woken));
                let polled = call.as_mut().poll(&mut Context::from_waker(&waker));
                match (polled, model.poll(*number, *key)) {
                    (Poll::Pending, Poll::Pending) => {}
                    (Poll::Ready(outcome), Poll::Ready((run, end))) => {
                        let expected = (end == End::Value).then_some(run);
                        prop_assert_eq!(outcome.ok(), expected);
                        drop(callers.remove(at));
                    }
                    (polled, expected) => {
                        prop_assert!(false, "{polled:?} instead of {expected:?}");
                    }
                }
            }
            Step::Leave { at } if !callers.is_empty() => {
                let caller = callers.remove(at % callers.len());
                model.leave(caller.number);
                drop(caller);
            }
            Step::Poll { .. } | Step::Leave { .. } => {}
            Step::Wake { run, end, restless } => {
                if let Some(number) = model.wake(run, end, restless) {
                    let waker = {
                        let door = &mut doors.lock().unwrap()[number];
                        door.end = door.end.or(end);
                        door.restless |= restless;
                        door.waker.clone()
                    };
                    waker.expect("it was polled").wake();
                }
            }
        }
        flights.validate();
        for caller in &callers {
            let waits_in_vain = model.can_go_on(caller.number) && !caller.woken.0.load(SeqCst);
            prop_assert!(!waits_in_vain, "call {} is not woken: {model:?}", caller.number);
        }
        let stats = flights.stats();
        let count = |is: fn(&State) -> bool| model.runs.iter().filter(|run| is(&run.state)).count();
        prop_assert_eq!(stats.queued, count(|state| *state == State::Queued));
        prop_assert_eq!(
            stats.running,
            count(|state| matches!(state, State::Ready | State::Begun { .. }))
        );
        prop_assert_eq!(
            stats.callers,
            model.runs.iter().map(|run| run.callers.len()).sum::<usize>()
        );
        prop_assert_eq!(stats.started as usize, model.ends.len());
        prop_assert_eq!(stats.cancelled as usize, model.cancelled.len());
        let doors = doors.lock().unwrap();
        for (number, door) in doors.iter().enumerate() {
            let in_work = model.runs.iter().any(
                |run| matches!(run.state, State::Begun { number: known, .. } if known == number),
            );
            prop_assert_eq!(door.dropped, !in_work, "the future of run {}", number);
        }
    }
    drop(callers);
    flights.validate();
    let stats = flights.stats();
    prop_assert_eq!((stats.running, stats.queued, stats.callers), (0, 0, 0));
    prop_assert_eq!(stats.started, stats.completed + stats.panicked + stats.cancelled);
    Ok(())
}

proptest! {
    #[test]
    fn runs_are_shared_and_served_as_in_a_list(steps in prop::collection::vec(step(), 0..80)) {
        check(steps)?;
    }
}
