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
//! The input runs the caller's code, so that it cannot be used under the lock. Whoever pulls from it
//! leaves some for the others, as far as the limit allows, in a stock that they can take from under
//! the lock. Who finds neither, or has no room, leaves a waker, and is woken when that changes.
//!
//! There are two locks, one for what goes in and one for what comes out; the first may be taken
//! under the second.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::executor::observe::{BatchEvent, ItemReport, Observer, tell};
use crate::executor::source::Inputs;
use crate::executor::stop::StopToken;
use crate::executor::summary::{BatchEnd, BatchSummary};
use crate::settled::{Panic, Settled, caught, drop_each, quietly};
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
    intake: Mutex<Intake<N>>,
    results: Mutex<Results<N, T, E>>,
}

struct Intake<N: Inputs> {
    /// Here unless a worker pulls from it, or it panicked.
    inputs: Option<Box<N>>,
    taken_away: bool,
    /// A stream said that it will wake us.
    dormant: bool,
    closed: bool,
    pulled: usize,
    /// Pulled, and not settled or, with a stream of outcomes, not taken from it.
    in_hand: usize,
    /// Pulled, and for whoever takes them.
    stock: VecDeque<(usize, N::Input)>,
    /// By worker: who waits for the input, for room, or for what others put into its inbox.
    wanting: Vec<Option<Waker>>,
    inboxes: Vec<VecDeque<(usize, N::Input)>>,
    /// By worker: it was dropped and looks into its inbox no more.
    gone: Vec<bool>,
}

struct Results<N: Inputs, T, E> {
    outcomes: Outcomes<T, E>,
    /// Inputs of items that were cancelled before they started.
    not_started: Vec<(usize, N::Input)>,
    /// Workers that are not done.
    working: usize,
    exhausted: bool,
    summary: BatchSummary,
    reports: Vec<ItemReport>,
    /// Who joins or streams, if it waits.
    consumer: Option<Waker>,
}

/// What becomes of outcomes.
pub(super) enum Outcomes<T, E> {
    /// All are kept.
    All(All<T, E>),
    AsCompleted(VecDeque<(usize, Settled<T, E>)>),
    /// Those from `next` on that are there.
    InOrder {
        next: usize,
        waiting: VecDeque<Option<Settled<T, E>>>,
    },
    /// Nobody wants them.
    Dropped,
}

/// Outcomes by index, and which of them are there.
pub(super) struct All<T, E> {
    pub(super) outcomes: Vec<Settled<T, E>>,
    /// A bit for each.
    there: Vec<u64>,
}

impl<T, E> All<T, E> {
    fn with_room_for(inputs: usize) -> Self {
        let mut outcomes = Vec::new();
        // As much as promised, if that is a number to believe.
        let _ = outcomes.try_reserve(inputs);
        Self { outcomes, there: Vec::new() }
    }

    fn put_all(&mut self, settled: impl Iterator<Item = (usize, Settled<T, E>)>, least: usize) {
        if self.outcomes.len() < least {
            self.outcomes.resize_with(least, || Settled::cancelled(false));
            self.there.resize(least.div_ceil(64), 0);
        }
        for (index, outcome) in settled {
            self.there[index / 64] |= 1 << (index % 64);
            // What stood in for it has no destructor.
            core::mem::forget(core::mem::replace(&mut self.outcomes[index], outcome));
        }
    }

    fn into_iter(self) -> impl Iterator<Item = Option<Settled<T, E>>> {
        let Self { outcomes, there } = self;
        let is_there = move |index: usize| there[index / 64] & 1 << (index % 64) != 0;
        let outcomes = outcomes.into_iter().enumerate();
        outcomes.map(move |(index, outcome)| is_there(index).then_some(outcome))
    }
}

impl<T, E> Outcomes<T, E> {
    /// Leaves them where they are if nobody wants them.
    fn put_all(&mut self, settled: &mut Vec<(usize, Settled<T, E>)>) {
        match self {
            Self::All(all) => {
                let last = settled.iter().map(|(index, _)| *index).max();
                all.put_all(settled.drain(..), last.map_or(0, |last| last + 1));
            }
            Self::AsCompleted(queue) => queue.extend(settled.drain(..)),
            Self::InOrder { next, waiting } => {
                for (index, outcome) in settled.drain(..) {
                    let at = index - *next;
                    if waiting.len() <= at {
                        waiting.resize_with(at + 1, || None);
                    }
                    waiting[at] = Some(outcome);
                }
            }
            Self::Dropped => {}
        }
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

    fn drop_each(self) {
        match self {
            Self::All(all) => drop_each(all.outcomes),
            Self::AsCompleted(queue) => drop_each(queue),
            Self::InOrder { waiting, .. } => drop_each(waiting),
            Self::Dropped => {}
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
        let results = Results {
            outcomes: Outcomes::All(All::with_room_for(inputs.at_least())),
            not_started: Vec::new(),
            working: workers,
            exhausted: false,
            summary: BatchSummary::default(),
            reports: Vec::new(),
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

    /// A worker is being dropped: what comes for it from now on is for whoever pulls it.
    pub(super) fn send_no_more_to(&self, worker: usize) {
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

    pub(super) fn not_started(&self, index: usize, input: N::Input) {
        self.results.lock().not_started.push((index, input));
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
        let mut waker = None;
        loop {
            {
                let mut results = self.results.lock();
                if let Some(next) = results.outcomes.take_next() {
                    drop(results);
                    self.release(1);
                    return Poll::Ready(Some(next));
                }
                if results.working == 0 {
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
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<End<N, T, E>> {
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
            Err(_) => Poll::Ready(self.take_end()),
        }
    }

    /// What there is when a stream has ended, if that is now.
    pub(super) fn end_of_stream(&self) -> Option<End<N, T, E>> {
        let ended = self.results.lock().working == 0 && self.intake.lock().in_hand == 0;
        ended.then(|| self.take_end())
    }

    /// All workers are done, so that nobody else is here.
    fn take_end(&self) -> End<N, T, E> {
        let inputs = self.intake.lock().inputs.take();
        let mut results = self.results.lock();
        let mut reports = core::mem::take(&mut results.reports);
        reports.sort_unstable_by_key(|report| report.index);
        let mut not_started = core::mem::take(&mut results.not_started);
        not_started.sort_unstable_by_key(|(index, _)| *index);
        End {
            outcomes: core::mem::replace(&mut results.outcomes, Outcomes::Dropped),
            inputs,
            not_started,
            summary: core::mem::take(&mut results.summary),
            reports,
        }
    }

    /// Nobody wants the outcomes any more.
    pub(super) fn abandon(&self) {
        self.close();
        let (outcomes, not_started, others) = {
            let mut results = self.results.lock();
            let outcomes = core::mem::replace(&mut results.outcomes, Outcomes::Dropped);
            let inputs = results.unwanted_inputs(&self.intake);
            let not_started = core::mem::take(&mut results.not_started);
            (outcomes, not_started, (results.consumer.take(), inputs))
        };
        outcomes.drop_each();
        drop_each(not_started);
        quietly(|| drop(others));
    }

    /// A worker is done, with this summary.
    pub(super) fn leave(&self, summary: BatchSummary, mut reports: Vec<ItemReport>) {
        let last = {
            let mut results = self.results.lock();
            results.reports.append(&mut reports);
            results.summary.counts += summary.counts;
            if matches!(results.summary.end, BatchEnd::Exhausted) {
                results.summary.end = summary.end;
            }
            if results.working > 1 {
                results.working -= 1;
                return;
            }
            let in_full = results.exhausted && results.summary.counts.cancelled == 0;
            if in_full && !matches!(results.summary.end, BatchEnd::SourcePanicked(_)) {
                results.summary.end = BatchEnd::Exhausted;
            }
            core::mem::take(&mut results.summary)
        };
        // Before the last one is gone, so that whoever joins knows the observer has been told.
        tell(self.observer.as_ref(), BatchEvent::Ended { summary: &last });
        let (consumer, unwanted) = {
            let mut results = self.results.lock();
            results.summary = last;
            results.working = 0;
            (results.consumer.take(), results.unwanted_inputs(&self.intake))
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

/// What a worker asks for.
pub(super) struct Wants<'a> {
    pub(super) worker: usize,
    /// So many inputs, at least one.
    pub(super) count: usize,
    /// So many of those it had have left.
    pub(super) released: usize,
    /// Nothing is pulled after one of them has stopped the batch.
    pub(super) stops: &'a [StopToken],
    pub(super) waker: &'a Waker,
    /// What a stream of inputs is polled with.
    pub(super) source_waker: &'a Waker,
}

impl<N, T, E> Hall<N, T, E>
where
    N: Inputs + Send + 'static,
    N::Input: Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    pub(super) fn source_waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::new(SourceWaker(Arc::clone(self))))
    }

    /// Gives a worker inputs: as many as it wants into its chunk, which is empty, if there is room
    /// and the input is here.
    pub(super) fn give(
        &self,
        mut wants: Wants<'_>,
        chunk: &mut VecDeque<(usize, N::Input)>,
    ) -> Given<N::Input> {
        loop {
            let (step, wanting) = {
                let mut intake = self.intake.lock();
                let intake = &mut *intake;
                intake.in_hand -= wants.released;
                // Those who wait for room may have some now.
                let released = core::mem::take(&mut wants.released) > 0;
                let wanting = if released { intake.take_wanting() } else { Vec::new() };
                // With keys, what is pulled belongs to certain workers.
                let stocks = self.workers > 1 && self.router.is_none();
                (intake.step(self.limit, stocks, &wants, chunk), wanting)
            };
            wake(wanting);
            let (inputs, from, most) = match step {
                Step::Pull { inputs, from, most } => (inputs, from, most),
                Step::Give(given) => return given,
            };
            let (inputs, fresh, how) = pull(inputs, from, most, &wants);
            let count = fresh.len();
            let (own, others) = self.sort_out(wants.worker, fresh);
            // It goes first: of the stock it has taken all that there was.
            let mut own = own.into_iter();
            let missing = wants.count.saturating_sub(chunk.len());
            chunk.extend(own.by_ref().take(missing));
            let (ended, pending) = (how.is_the_end(), matches!(how, Pulled::Pending));
            let later = count == 0 && chunk.is_empty() && !ended;
            // Before it can be seen that the input has come to its end.
            match how {
                Pulled::All => self.results.lock().exhausted = true,
                Pulled::Panicked(panic) => {
                    self.results.lock().summary.end = BatchEnd::SourcePanicked(panic);
                }
                Pulled::Some | Pulled::Pending => {}
            }
            let wanting = {
                let mut intake = self.intake.lock();
                let intake = &mut *intake;
                intake.stock.extend(own);
                for (worker, pulled) in others {
                    if intake.gone[worker] {
                        intake.stock.push_back(pulled);
                    } else {
                        intake.inboxes[worker].push_back(pulled);
                    }
                }
                intake.inputs = inputs;
                intake.taken_away = false;
                intake.pulled += count;
                intake.in_hand += count;
                intake.closed |= ended;
                intake.dormant &= pending;
                let mut wanting = intake.take_wanting();
                if later {
                    // Not again in this poll: a stream may wake us each time that it is pending.
                    match intake.dormant && !intake.closed {
                        true => intake.wanting[wants.worker] = Some(wants.waker.clone()),
                        false => wanting.push(wants.waker.clone()),
                    }
                }
                wanting
            };
            wake(wanting);
            if later {
                return Given::Later;
            }
            if !chunk.is_empty() {
                return Given::Chunk;
            }
        }
    }

    /// Parts what was pulled into what is this worker's, or anybody's, and what belongs to others.
    fn sort_out(&self, worker: usize, fresh: Fresh<N::Input>) -> (Fresh<N::Input>, Sent<N::Input>) {
        let Some(router) = &self.router else { return (fresh, Vec::new()) };
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for (index, input) in fresh {
            // If it panics here it does so again where that becomes the item's outcome.
            let route = caught(|| router(&input)).map_err(|panic| quietly(|| drop(panic)));
            match route {
                Ok(Some(hash)) if hash % self.workers as u64 != worker as u64 => {
                    others.push(((hash % self.workers as u64) as usize, (index, input)));
                }
                _ => own.push((index, input)),
            }
        }
        (own, others)
    }
}

/// Inputs with their positions.
type Fresh<I> = Vec<(usize, I)>;

/// Inputs with whose they are.
type Sent<I> = Vec<(usize, (usize, I))>;

/// What a worker that asks for inputs is to do.
enum Step<N: Inputs> {
    Pull { inputs: Box<N>, from: usize, most: usize },
    Give(Given<N::Input>),
}

impl<N: Inputs> Intake<N> {
    fn step(
        &mut self,
        limit: usize,
        stocks: bool,
        wants: &Wants<'_>,
        chunk: &mut VecDeque<(usize, N::Input)>,
    ) -> Step<N> {
        if let Some((index, input)) = self.inboxes[wants.worker].pop_front() {
            return Step::Give(Given::One(index, input));
        }
        let taken = wants.count.min(self.stock.len());
        chunk.extend(self.stock.drain(..taken));
        // In time, so that others find some in stock while the input is away.
        let stock = if stocks { 2 * wants.count } else { 0 };
        let missing = (wants.count - taken) + stock.saturating_sub(self.stock.len());
        let most = missing.min(limit.saturating_sub(self.in_hand));
        let is_worth_it = chunk.is_empty() || most >= wants.count;
        if most > 0 && is_worth_it && !self.dormant && !self.closed {
            if let Some(inputs) = self.inputs.take() {
                self.taken_away = true;
                // Until it turns out otherwise: what wakes us meanwhile says so first.
                self.dormant = true;
                return Step::Pull { inputs, from: self.pulled, most };
            }
        }
        if !chunk.is_empty() {
            return Step::Give(Given::Chunk);
        }
        if self.closed && !self.taken_away {
            return Step::Give(Given::Nothing);
        }
        // One of ours, which runs nobody's code when it is cloned or dropped.
        self.wanting[wants.worker] = Some(wants.waker.clone());
        Step::Give(Given::Later)
    }

    fn take_wanting(&mut self) -> Vec<Waker> {
        // Mostly there is none, and then nothing is allocated.
        self.wanting.iter_mut().filter_map(Option::take).collect()
    }
}

/// How pulling ended.
enum Pulled {
    /// There may be more.
    Some,
    /// A stream will say when there is more.
    Pending,
    /// There is no more.
    All,
    Panicked(Panic),
}

impl Pulled {
    fn is_the_end(&self) -> bool {
        matches!(self, Self::All | Self::Panicked(_))
    }
}

/// Pulls so many inputs, or as many as there are until a stop. An input that panics does not come
/// back.
fn pull<N: Inputs>(
    mut inputs: Box<N>,
    from: usize,
    most: usize,
    wants: &Wants<'_>,
) -> (Option<Box<N>>, Fresh<N::Input>, Pulled) {
    let mut fresh = Vec::with_capacity(most.min(256));
    let ended = caught(|| {
        let cx = &mut Context::from_waker(wants.source_waker);
        let stopped = || wants.stops.iter().any(|stop| stop.stopped().is_some());
        while fresh.len() < most && !stopped() {
            match inputs.poll_input(cx) {
                Poll::Ready(Some(input)) => fresh.push((from + fresh.len(), input)),
                Poll::Ready(None) => return Pulled::All,
                Poll::Pending => return Pulled::Pending,
            }
        }
        Pulled::Some
    });
    match ended {
        Ok(how) => (Some(inputs), fresh, how),
        Err(panic) => {
            quietly(|| drop(inputs));
            (None, fresh, Pulled::Panicked(panic))
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
            let mut intake = self.0.intake.lock();
            intake.dormant = false;
            intake.take_wanting()
        };
        wake(wanting);
    }
}
