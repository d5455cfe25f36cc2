//! Where the workers of a batch meet: the input, which one of them at a time takes away to pull
//! from it, and the outcomes, which somebody joins or streams.
//!
//! ```text
//!               a worker needs more                  it has pulled a few
//!   input here ─────────────────────▶ input with it ────────────────────▶ input here
//!       │                                                                     │
//!       │ stopped, or told that it is exhausted                               │
//!       └──────────────────────────▶ closed ◀─────────────────────────────────┘
//! ```
//!
//! The input runs the caller's code, so that it cannot be used under the lock. The worker that pulls from it
//! leaves some for the others, as far as the limit allows, in a stock that they can take from under
//! the lock. Who finds neither, or has no room, leaves a waker, and is woken when that changes.
//!
//! There are two locks, one for what goes in and one for what comes out; the first may be taken
//! under the second.

mod intake;
mod outcomes;
mod pull;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

pub(super) use intake::{Request, Response};
pub(super) use outcomes::Outcomes;

use intake::Intake;
use outcomes::All;

use crate::base::coop;
use crate::base::panic::{Quiet, drop_each, quietly};
use crate::base::sync::{AtomicUsize, Mutex, Ordering};
use crate::executor::observe::{BatchEvent, Observer, tell};
use crate::executor::run::RunEnd;
use crate::executor::source::Inputs;
use crate::executor::summary::{BatchEnd, BatchSummary};
use crate::settled::Settled;

/// Tells a number that is the same for all inputs of a key.
pub(super) type Router<I> = Arc<dyn Fn(&I) -> Option<u64> + Send + Sync>;

/// Takes an input that nobody claims, with its index. It is the caller's code.
pub(super) type Unclaimed<I> = Box<dyn FnMut(usize, I) + Send>;

pub(super) struct BatchShared<N: Inputs, T, E> {
    limit: usize,
    workers: usize,
    /// Sends inputs of one key to one worker.
    router: Option<Router<N::Input>>,
    observer: Option<Observer>,
    /// Not zero when outcomes are not to be saved up: they make room, or somebody waits for each.
    prompt: AtomicUsize,
    intake: Mutex<Intake<N>>,
    results: Mutex<Results<N, T, E>>,
}

struct Results<N: Inputs, T, E> {
    outcomes: Outcomes<T, E>,
    /// Inputs of items that were cancelled before they started.
    not_started: Vec<(usize, N::Input)>,
    /// What becomes of those if nobody joins.
    unclaimed: Option<Unclaimed<N::Input>>,
    /// Workers that are not done.
    working: usize,
    exhausted: bool,
    /// Something that was pulled has ended because the batch did.
    ended_early: bool,
    summary: BatchSummary,
    /// Who joins or streams, if it waits.
    consumer: Option<Waker>,
}

/// What there is when all workers are done.
pub(super) struct BatchOutput<N: Inputs, T, E> {
    pub(super) outcomes: Outcomes<T, E>,
    pub(super) inputs: Option<Box<N>>,
    pub(super) not_started: Vec<(usize, N::Input)>,
    pub(super) summary: BatchSummary,
}

impl<N: Inputs, T, E> BatchShared<N, T, E> {
    pub(super) fn new(
        limit: usize,
        workers: usize,
        inputs: N,
        router: Option<Router<N::Input>>,
        unclaimed: Option<Unclaimed<N::Input>>,
        observer: Option<Observer>,
    ) -> Arc<Self> {
        let results = Results {
            outcomes: Outcomes::All(All::with_room_for(inputs.at_least())),
            not_started: Vec::new(),
            unclaimed,
            working: workers,
            exhausted: false,
            ended_early: false,
            summary: BatchSummary::default(),
            consumer: None,
        };
        let intake = Intake {
            inputs: Some(Box::new(inputs)),
            taken_away: false,
            dormant: false,
            closed: false,
            pulled: 0,
            in_hand: 0,
            stock: VecDeque::new(),
            wanting: (0..workers).map(|_| None).collect(),
            inboxes: (0..workers).map(|_| VecDeque::new()).collect(),
            gone: vec![false; workers],
        };
        let prompt = AtomicUsize::new(usize::from(router.is_some()));
        let (intake, results) = (Mutex::new(intake), Mutex::new(results));
        Arc::new(Self { limit, workers, router, observer, prompt, intake, results })
    }

    /// Nothing more is to be pulled.
    pub(super) fn close(&self) {
        let wanting = {
            let mut intake = self.intake.lock();
            intake.closed = true;
            intake.take_wanting()
        };
        wake(wanting);
    }

    /// The batch comes to this end, if it has not come to another one before.
    pub(super) fn note_end(&self, mut end: BatchEnd) {
        {
            let mut results = self.results.lock();
            if matches!(results.summary.end, BatchEnd::Exhausted) {
                core::mem::swap(&mut results.summary.end, &mut end);
            }
        }
        quietly(|| drop(end));
    }

    /// Whether everything has been pulled.
    pub(super) fn is_exhausted(&self) -> bool {
        self.results.lock().exhausted
    }

    /// A worker is being dropped: what would go to its inbox from now on goes to the stock.
    pub(super) fn detach(&self, worker: usize) {
        self.intake.lock().gone[worker] = true;
    }

    /// Whether outcomes are wanted one by one.
    #[inline]
    pub(super) fn is_prompt(&self) -> bool {
        self.prompt.load(Ordering::Relaxed) != 0
    }

    /// Takes outcomes in, and leaves `settled` empty; `counted` of them count as having left. How
    /// many others have left now: with a stream, an outcome does so when it is taken from it.
    pub(super) fn settle(
        &self,
        settled: &mut Vec<(usize, Settled<T, E>)>,
        counted: usize,
    ) -> usize {
        let count = settled.len();
        let (streamed, consumer) = {
            let mut results = self.results.lock();
            results.outcomes.put_all(settled);
            if results.outcomes.are_streamed() {
                // Before one of them can be taken from the stream.
                self.intake.lock().in_hand += counted;
                (true, results.consumer.take())
            } else {
                (false, None)
            }
        };
        wake(consumer);
        for (_, outcome) in settled.drain(..) {
            quietly(|| drop(outcome));
        }
        if streamed { 0 } else { count - counted }
    }

    /// So many have left.
    pub(super) fn release(&self, count: usize) {
        let wanting = {
            let mut intake = self.intake.lock();
            intake.in_hand -= count;
            intake.take_wanting()
        };
        wake(wanting);
    }

    /// Keeps the input for `join`, or returns it if the handle is gone.
    pub(super) fn not_started(&self, index: usize, input: N::Input) -> Option<N::Input> {
        let mut results = self.results.lock();
        if matches!(results.outcomes, Outcomes::Dropped) {
            return Some(input);
        }
        results.not_started.push((index, input));
        None
    }

    /// From now on outcomes are taken one by one.
    pub(super) fn stream(&self, in_order: bool) {
        {
            let mut results = self.results.lock();
            let mut there = 0;
            match core::mem::replace(&mut results.outcomes, Outcomes::Dropped) {
                Outcomes::All(all) if in_order => {
                    let waiting: VecDeque<_> = all.into_iter().collect();
                    there = waiting.iter().flatten().count();
                    results.outcomes = Outcomes::InOrder { next: 0, waiting };
                }
                Outcomes::All(all) => {
                    let outcomes = all.into_iter().enumerate();
                    let queue: VecDeque<_> =
                        outcomes.filter_map(|(index, outcome)| Some((index, outcome?))).collect();
                    there = queue.len();
                    results.outcomes = Outcomes::AsCompleted(queue);
                }
                others => results.outcomes = others,
            }
            // They had left, and are back.
            self.intake.lock().in_hand += there;
        }
        self.prompt.swap(1, Ordering::Relaxed);
    }

    /// The next outcome of a stream; `None` when all workers are done and all outcomes taken.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<(usize, Settled<T, E>)>> {
        let unit = ready!(coop::poll_proceed(cx));
        let mut waker = None;
        loop {
            {
                let mut results = self.results.lock();
                if let Some(next) = results.outcomes.take_next() {
                    drop(results);
                    unit.made_progress();
                    self.release(1);
                    return Poll::Ready(Some(next));
                }
                if results.working == 0 {
                    unit.made_progress();
                    return Poll::Ready(None);
                }
                if let Some(waker) = waker.take() {
                    let before = results.consumer.replace(waker);
                    drop(results);
                    drop(before);
                    return Poll::Pending;
                }
            }
            // Cloned without the lock: it is the user's code. Then look again.
            waker = Some(cx.waker().clone());
        }
    }

    /// Waits until all workers are done.
    pub(super) fn poll_output(&self, cx: &mut Context<'_>) -> Poll<BatchOutput<N, T, E>> {
        let unit = ready!(coop::poll_proceed(cx));
        let waker = cx.waker().clone();
        let before = {
            let mut results = self.results.lock();
            if results.working > 0 { Ok(results.consumer.replace(waker)) } else { Err(waker) }
        };
        match before {
            Ok(before) => {
                drop(before);
                Poll::Pending
            }
            Err(_) => {
                unit.made_progress();
                Poll::Ready(self.take_output())
            }
        }
    }

    /// What there is when a stream has ended, if that is now.
    pub(super) fn stream_output(&self) -> Option<BatchOutput<N, T, E>> {
        let ended = self.results.lock().working == 0 && self.intake.lock().in_hand == 0;
        ended.then(|| self.take_output())
    }

    /// All workers are done, so that nobody else is here.
    fn take_output(&self) -> BatchOutput<N, T, E> {
        let inputs = self.intake.lock().inputs.take();
        // Dropped after the lock.
        let _unclaimed;
        let mut results = self.results.lock();
        _unclaimed = results.unclaimed.take().map(Quiet::new);
        let mut not_started = core::mem::take(&mut results.not_started);
        not_started.sort_unstable_by_key(|(index, _)| *index);
        BatchOutput {
            outcomes: core::mem::replace(&mut results.outcomes, Outcomes::Dropped),
            inputs,
            not_started,
            summary: core::mem::take(&mut results.summary),
        }
    }

    /// Nobody wants the outcomes any more.
    pub(super) fn discard(&self) {
        self.close();
        let (outcomes, not_started, unclaimed, others) = {
            let mut results = self.results.lock();
            let outcomes = core::mem::replace(&mut results.outcomes, Outcomes::Dropped);
            let inputs = results.unwanted_inputs(&self.intake);
            let not_started = core::mem::take(&mut results.not_started);
            let unclaimed = results.unclaimed.take();
            (outcomes, not_started, unclaimed, (results.consumer.take(), inputs))
        };
        outcomes.drop_each();
        match unclaimed {
            Some(mut unclaimed) => {
                for (index, input) in not_started {
                    quietly(|| unclaimed(index, input));
                }
                quietly(|| drop(unclaimed));
            }
            None => drop_each(not_started),
        }
        quietly(|| drop(others));
    }

    /// A worker is done, and comes to this. How the batch ends was [noted](Self::note_end) before.
    pub(super) fn worker_done(&self, end: RunEnd) {
        let RunEnd { summary, ended_early } = end;
        let last = {
            let mut results = self.results.lock();
            results.summary.counts += summary.counts;
            results.ended_early |= ended_early;
            if results.working > 1 {
                results.working -= 1;
                return;
            }
            // A worker that was told to stop did not know yet that there was nothing more.
            let in_full = results.exhausted && !results.ended_early;
            if in_full && !matches!(results.summary.end, BatchEnd::SourcePanicked(_)) {
                results.summary.end = BatchEnd::Exhausted;
            }
            core::mem::take(&mut results.summary)
        };
        // Before the last one is gone, so that `join` returns after the observer was told.
        tell(self.observer.as_ref(), BatchEvent::Ended { summary: &last });
        let (consumer, unwanted) = {
            let mut results = self.results.lock();
            results.summary = last;
            results.working = 0;
            // With nothing to claim it is not kept: it may be what a receiver waits for.
            let nothing = results.not_started.is_empty();
            let unclaimed = if nothing { results.unclaimed.take() } else { None };
            let unwanted = (results.unwanted_inputs(&self.intake), unclaimed.map(Quiet::new));
            (results.consumer.take(), unwanted)
        };
        wake(consumer);
        quietly(|| drop(unwanted));
    }
}

impl<N: Inputs, T, E> Results<N, T, E> {
    /// The input, when all workers are done and nobody wants what is left of it. A stream may hold
    /// a waker of ours, and so us: it is not to wait here until we are dropped.
    fn unwanted_inputs(&self, intake: &Mutex<Intake<N>>) -> Option<Box<N>> {
        let unwanted = self.working == 0 && matches!(self.outcomes, Outcomes::Dropped);
        if unwanted { intake.lock().inputs.take() } else { None }
    }
}

fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        quietly(|| waker.wake());
    }
}
