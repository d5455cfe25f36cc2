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
//! The input runs the caller's code, so that it cannot be used under the lock. Who finds it taken
//! away, or has no room, leaves a waker, and is woken when that changes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::executor::observe::{BatchEvent, ItemReport, Observer, tell};
use crate::executor::source::Inputs;
use crate::executor::summary::{BatchEnd, BatchSummary};
use crate::settled::{Settled, caught, quietly};
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Tells a number that is the same for all inputs of a key.
pub(super) type Router<I> = Arc<dyn Fn(&I) -> Option<u64> + Send + Sync>;

pub(super) struct Hall<N: Inputs, T, E> {
    limit: usize,
    workers: usize,
    /// Sends inputs of one key to one worker.
    router: Option<Router<N::Input>>,
    observer: Option<Observer>,
    /// Not zero when outcomes are not to be saved up: they make room, or somebody waits for each.
    prompt: AtomicUsize,
    state: Mutex<State<N, T, E>>,
}

struct State<N: Inputs, T, E> {
    /// Here unless a worker pulls from it, or it panicked.
    inputs: Option<Box<N>>,
    taken_away: bool,
    /// A stream said that it will wake us.
    dormant: bool,
    closed: bool,
    exhausted: bool,
    pulled: usize,
    /// Pulled, and not settled or, with a stream of outcomes, not taken from it.
    in_hand: usize,
    /// By worker: who waits for the input, for room, or for what others put into its inbox.
    wanting: Vec<Option<Waker>>,
    inboxes: Vec<VecDeque<(usize, N::Input)>>,
    outcomes: Outcomes<T, E>,
    /// Inputs of items that were cancelled before they started.
    not_started: Vec<(usize, N::Input)>,
    /// Workers that are not done.
    working: usize,
    summary: BatchSummary,
    reports: Vec<ItemReport>,
    /// Who joins or streams, if it waits.
    consumer: Option<Waker>,
}

/// What becomes of outcomes.
pub(super) enum Outcomes<T, E> {
    /// All are kept, by index.
    All(Vec<Option<Settled<T, E>>>),
    AsCompleted(VecDeque<(usize, Settled<T, E>)>),
    /// Those from `next` on that are there.
    InOrder {
        next: usize,
        waiting: VecDeque<Option<Settled<T, E>>>,
    },
    /// Nobody wants them.
    Dropped,
}

impl<T, E> Outcomes<T, E> {
    /// Gives it back if nobody wants it.
    fn put(&mut self, index: usize, outcome: Settled<T, E>) -> Option<Settled<T, E>> {
        let (list, at) = match self {
            Self::All(all) => {
                if all.len() <= index {
                    all.resize_with(index + 1, || None);
                }
                all[index] = Some(outcome);
                return None;
            }
            Self::AsCompleted(queue) => {
                queue.push_back((index, outcome));
                return None;
            }
            Self::InOrder { next, waiting } => (waiting, index - *next),
            Self::Dropped => return Some(outcome),
        };
        if list.len() <= at {
            list.resize_with(at + 1, || None);
        }
        list[at] = Some(outcome);
        None
    }

    fn take_next(&mut self) -> Option<(usize, Settled<T, E>)> {
        match self {
            Self::AsCompleted(queue) => queue.pop_front(),
            Self::InOrder { next, waiting } => {
                let outcome = waiting.front_mut()?.take()?;
                waiting.pop_front();
                *next += 1;
                Some((*next - 1, outcome))
            }
            Self::All(_) | Self::Dropped => None,
        }
    }

    fn are_streamed(&self) -> bool {
        matches!(self, Self::AsCompleted(_) | Self::InOrder { .. })
    }
}

/// What there is when all workers are done.
pub(super) struct End<N: Inputs, T, E> {
    pub(super) outcomes: Outcomes<T, E>,
    pub(super) inputs: Option<Box<N>>,
    pub(super) not_started: Vec<(usize, N::Input)>,
    pub(super) summary: BatchSummary,
    pub(super) reports: Vec<ItemReport>,
}

/// What a worker is given when it asks for inputs.
pub(super) enum Given<I> {
    /// They are in its chunk.
    Chunk,
    /// Another sent it.
    One(usize, I),
    /// It will be woken.
    Later,
    /// There is nothing more.
    Nothing,
}

impl<N: Inputs, T, E> Hall<N, T, E> {
    pub(super) fn new(
        limit: usize,
        workers: usize,
        inputs: N,
        router: Option<Router<N::Input>>,
        observer: Option<Observer>,
    ) -> Arc<Self> {
        let mut all = Vec::new();
        let _ = all.try_reserve(inputs.at_least());
        let state = State {
            inputs: Some(Box::new(inputs)),
            taken_away: false,
            dormant: false,
            closed: false,
            exhausted: false,
            pulled: 0,
            in_hand: 0,
            wanting: (0..workers).map(|_| None).collect(),
            inboxes: (0..workers).map(|_| VecDeque::new()).collect(),
            outcomes: Outcomes::All(all),
            not_started: Vec::new(),
            working: workers,
            summary: BatchSummary::default(),
            reports: Vec::new(),
            consumer: None,
        };
        let prompt = AtomicUsize::new(usize::from(router.is_some()));
        Arc::new(Self { limit, workers, router, observer, prompt, state: Mutex::new(state) })
    }

    /// Nothing more is to be pulled.
    pub(super) fn close(&self) {
        let wanting = {
            let mut state = self.state.lock();
            state.closed = true;
            state.take_wanting()
        };
        wake(wanting);
    }

    /// Whether outcomes are wanted one by one.
    pub(super) fn is_prompt(&self) -> bool {
        self.prompt.load(Ordering::Relaxed) != 0
    }

    /// Takes outcomes in, and leaves `settled` empty.
    pub(super) fn settle(&self, settled: &mut Vec<(usize, Settled<T, E>)>) {
        let mut unwanted = Vec::new();
        let (wanting, consumer) = {
            let mut state = self.state.lock();
            let state = &mut *state;
            let streamed = state.outcomes.are_streamed();
            if !streamed {
                state.in_hand -= settled.len();
            }
            for (index, outcome) in settled.drain(..) {
                unwanted.extend(state.outcomes.put(index, outcome));
            }
            let wanting = if streamed { Vec::new() } else { state.take_wanting() };
            (wanting, if streamed { state.consumer.take() } else { None })
        };
        wake(wanting.into_iter().chain(consumer));
        for outcome in unwanted {
            quietly(|| drop(outcome));
        }
    }

    pub(super) fn not_started(&self, index: usize, input: N::Input) {
        self.state.lock().not_started.push((index, input));
    }

    /// From now on outcomes are taken one by one.
    pub(super) fn stream(&self, in_order: bool) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Outcomes::All(all) = &mut state.outcomes {
            let all = core::mem::take(all);
            state.in_hand += all.iter().flatten().count();
            state.outcomes = if in_order {
                Outcomes::InOrder { next: 0, waiting: all.into() }
            } else {
                let there = all.into_iter().enumerate();
                Outcomes::AsCompleted(
                    there.filter_map(|(index, outcome)| Some((index, outcome?))).collect(),
                )
            };
        }
        self.prompt.swap(1, Ordering::Relaxed);
    }

    /// The next outcome of a stream; `None` when all workers are done and all outcomes taken.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<(usize, Settled<T, E>)>> {
        let mut waker = None;
        loop {
            let (next, wanting) = {
                let mut state = self.state.lock();
                let next = state.outcomes.take_next();
                if next.is_none() && state.working > 0 {
                    match waker.take() {
                        Some(waker) => {
                            let before = state.consumer.replace(waker);
                            drop(state);
                            drop(before);
                            return Poll::Pending;
                        }
                        None => (None, Vec::new()),
                    }
                } else if next.is_none() {
                    return Poll::Ready(None);
                } else {
                    state.in_hand -= 1;
                    (next, state.take_wanting())
                }
            };
            if next.is_some() {
                wake(wanting);
                return Poll::Ready(next);
            }
            // Cloned without the lock: it is the user's code. Then look again.
            waker = Some(cx.waker().clone());
        }
    }

    /// Waits until all workers are done.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<End<N, T, E>> {
        let waker = cx.waker().clone();
        let before = {
            let mut state = self.state.lock();
            if state.working == 0 {
                return Poll::Ready(state.take_end());
            }
            state.consumer.replace(waker)
        };
        drop(before);
        Poll::Pending
    }

    /// What there is when a stream has ended, if that is now.
    pub(super) fn end_of_stream(&self) -> Option<End<N, T, E>> {
        let mut state = self.state.lock();
        (state.working == 0 && state.in_hand == 0).then(|| state.take_end())
    }

    /// Nobody wants the outcomes any more.
    pub(super) fn abandon(&self) {
        let unwanted = {
            let mut state = self.state.lock();
            // Room for what is in hand is not needed any more; nothing is pulled.
            state.closed = true;
            let outcomes = core::mem::replace(&mut state.outcomes, Outcomes::Dropped);
            (outcomes, state.consumer.take(), core::mem::take(&mut state.not_started))
        };
        quietly(|| drop(unwanted));
    }

    /// A worker is done, with this summary.
    pub(super) fn leave(&self, summary: BatchSummary, mut reports: Vec<ItemReport>) {
        let last = {
            let mut state = self.state.lock();
            state.reports.append(&mut reports);
            state.summary.counts += summary.counts;
            if matches!(state.summary.end, BatchEnd::Exhausted) {
                state.summary.end = summary.end;
            }
            if state.working > 1 {
                state.working -= 1;
                return;
            }
            let in_full = state.exhausted && state.summary.counts.cancelled == 0;
            if in_full && !matches!(state.summary.end, BatchEnd::SourcePanicked(_)) {
                state.summary.end = BatchEnd::Exhausted;
            }
            core::mem::take(&mut state.summary)
        };
        // Before the last one is gone, so that whoever joins knows the observer has been told.
        tell(self.observer.as_ref(), BatchEvent::Ended { summary: &last });
        let consumer = {
            let mut state = self.state.lock();
            state.summary = last;
            state.working = 0;
            state.consumer.take()
        };
        wake(consumer);
    }
}

impl<N, T, E> Hall<N, T, E>
where
    N: Inputs + Send + 'static,
    N::Input: Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    /// What a stream of inputs is polled with.
    pub(super) fn source_waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::new(SourceWaker(Arc::clone(self))))
    }

    /// Gives a worker inputs: as many as it wants into its chunk, if there is room and the input
    /// is here.
    pub(super) fn give(
        &self,
        worker: usize,
        wants: usize,
        chunk: &mut VecDeque<(usize, N::Input)>,
        waker: &Waker,
        source_waker: &Waker,
    ) -> Given<N::Input> {
        loop {
            let (mut inputs, from, most) = {
                let mut state = self.state.lock();
                if let Some((index, input)) = state.inboxes[worker].pop_front() {
                    return Given::One(index, input);
                }
                let prompt = self.router.is_some() || state.outcomes.are_streamed();
                let room = if prompt { self.limit.saturating_sub(state.in_hand) } else { wants };
                let most = wants.min(room);
                if state.closed && !state.taken_away {
                    return Given::Nothing;
                }
                let inputs = match most {
                    0 => None,
                    _ if state.dormant || state.closed => None,
                    _ => state.inputs.take(),
                };
                let Some(inputs) = inputs else {
                    // One of ours, which runs nobody's code when it is cloned or dropped.
                    state.wanting[worker] = Some(waker.clone());
                    return Given::Later;
                };
                state.taken_away = true;
                // Until it turns out otherwise: what wakes us meanwhile says so first.
                state.dormant = true;
                (inputs, state.pulled, most)
            };

            let before = chunk.len();
            let mut pulled = Poll::Ready(Ok(true));
            {
                let cx = &mut Context::from_waker(source_waker);
                while chunk.len() - before < most {
                    match caught(|| inputs.poll_input(cx)) {
                        Ok(Poll::Ready(Some(input))) => {
                            let index = from + chunk.len() - before;
                            chunk.push_back((index, input));
                        }
                        Ok(Poll::Ready(None)) => {
                            pulled = Poll::Ready(Ok(false));
                            break;
                        }
                        Ok(Poll::Pending) => {
                            pulled = Poll::Pending;
                            break;
                        }
                        Err(panic) => {
                            pulled = Poll::Ready(Err(panic));
                            break;
                        }
                    }
                }
            }
            let count = chunk.len() - before;
            let others = self.sort_out(worker, chunk);
            let broken = matches!(pulled, Poll::Ready(Err(_)));
            let mut inputs = Some(inputs);
            if broken {
                let inputs = inputs.take();
                quietly(|| drop(inputs));
            }

            let wanting = {
                let mut state = self.state.lock();
                state.inputs = inputs;
                state.taken_away = false;
                state.pulled += count;
                state.in_hand += count;
                match pulled {
                    Poll::Ready(Ok(true)) => state.dormant = false,
                    Poll::Ready(Ok(false)) => {
                        state.closed = true;
                        state.exhausted = true;
                    }
                    Poll::Ready(Err(panic)) => {
                        state.closed = true;
                        state.summary.end = BatchEnd::SourcePanicked(panic);
                    }
                    Poll::Pending => {}
                }
                for (worker, pulled) in others {
                    state.inboxes[worker].push_back(pulled);
                }
                state.take_wanting()
            };
            wake(wanting);
            if !chunk.is_empty() {
                return Given::Chunk;
            }
        }
    }

    /// Takes out of a chunk what belongs to other workers, each with whose it is.
    fn sort_out(
        &self,
        worker: usize,
        chunk: &mut VecDeque<(usize, N::Input)>,
    ) -> Vec<(usize, (usize, N::Input))> {
        let mut others = Vec::new();
        let Some(router) = &self.router else { return others };
        let workers = self.workers as u64;
        for _ in 0..chunk.len() {
            let Some((index, input)) = chunk.pop_front() else { break };
            // If it panics here it does so again where that becomes the item's outcome.
            let route = caught(|| router(&input)).map_err(|panic| quietly(|| drop(panic)));
            match route {
                Ok(Some(hash)) if (hash % workers) as usize != worker => {
                    others.push(((hash % workers) as usize, (index, input)));
                }
                _ => chunk.push_back((index, input)),
            }
        }
        others
    }
}

impl<N: Inputs, T, E> State<N, T, E> {
    fn take_wanting(&mut self) -> Vec<Waker> {
        // Mostly there is none, and then nothing is allocated.
        self.wanting.iter_mut().filter_map(Option::take).collect()
    }

    fn take_end(&mut self) -> End<N, T, E> {
        let mut reports = core::mem::take(&mut self.reports);
        reports.sort_unstable_by_key(|report| report.index);
        self.not_started.sort_unstable_by_key(|(index, _)| *index);
        End {
            outcomes: core::mem::replace(&mut self.outcomes, Outcomes::Dropped),
            inputs: self.inputs.take(),
            not_started: core::mem::take(&mut self.not_started),
            summary: core::mem::take(&mut self.summary),
            reports,
        }
    }
}

fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        quietly(|| waker.wake());
    }
}

/// What a stream of inputs wakes: whoever wants some.
struct SourceWaker<N: Inputs, T, E>(Arc<Hall<N, T, E>>);

impl<N, T, E> Wake for SourceWaker<N, T, E>
where
    N: Inputs + Send + 'static,
    N::Input: Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let wanting = {
            let mut state = self.0.state.lock();
            state.dormant = false;
            state.take_wanting()
        };
        wake(wanting);
    }
}
