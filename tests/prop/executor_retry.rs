//! Items that are tried again, in every form the executor has, against an oracle that follows one
//! item at a time: in the task and spawned, by key, by weight, with a semaphore that others draw on, a
//! backlog, a throttle, time limits, stops, dead letters, and workers that are dropped.
//!
//! Under paused time, in whole milliseconds, the world notes when each input was pulled, when each
//! attempt began and ended, and when the last copy of the input was gone. Its bounds are checked at
//! every pull and start, what became of each item at the end.
#![cfg(feature = "tokio")]

use std::collections::BTreeSet;
use std::future::Future;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sluicegate::executor::{DeadLetter, Page, PagesSummary, Policy};
use sluicegate::{
    BatchEnd, BatchExecutor, BatchSummary, ItemError, Retry, Scope, Semaphore, Settled,
    SettledKind, Stop, StopToken, Throttle,
};
use tokio::time::{Instant, sleep, timeout};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What an attempt does, after an even number of milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    Fine,
    Fail,
    /// An error that is not worth another attempt.
    Fatal,
    PanicInClosure,
    PanicInPoll,
    Hang,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    takes: u64,
    ending: Ending,
}

const FINE: Step = Step { takes: 0, ending: Ending::Fine };

#[derive(Debug, Clone)]
struct Item {
    key: usize,
    weight: u32,
    /// Of one attempt after the other; those behind its end are fine.
    script: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Flavour {
    AllSettled,
    SettleInto,
    ForEach,
    Spawned(usize),
    /// With so many items to a page.
    Pages(usize),
    /// The only one of its batch.
    Phase,
}

/// How a run ends before its time.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cut {
    Stop(Stop),
    /// The run's future is dropped or, spawned, one of the workers.
    Dropped(usize),
    /// As `Dropped` but, spawned, the handle instead of a worker.
    Abandoned,
}

#[derive(Debug, Clone)]
struct Plan {
    items: Vec<Item>,
    flavour: Flavour,
    keyed: bool,
    weighed: bool,
    /// So many permits, of which somebody else takes one now and then.
    semaphore: Option<usize>,
    limit: usize,
    backlog: usize,
    most: u32,
    waits: Vec<u64>,
    rate: Option<(u32, u64)>,
    attempt_timeout: Option<u64>,
    item_timeout: Option<u64>,
    deadline: Option<u64>,
    stop_when: Option<(usize, Stop)>,
    cut: Option<(u64, Cut)>,
    buried: bool,
}

impl Plan {
    fn step(&self, index: usize, attempt: usize) -> Step {
        self.items[index].script.get(attempt).copied().unwrap_or(FINE)
    }

    /// How many attempts the policy allows.
    fn most(&self) -> usize {
        (self.most as usize).min(self.waits.len() + 1)
    }

    fn permits(&self) -> Option<usize> {
        self.semaphore.or(self.weighed.then_some(self.limit))
    }

    fn weight(&self, index: usize) -> usize {
        let weight = if self.weighed { self.items[index].weight as usize } else { 1 };
        weight.clamp(1, self.permits().unwrap_or(1))
    }

    fn is_spawned(&self) -> bool {
        matches!(self.flavour, Flavour::Spawned(_))
    }

    /// Whether inputs leave their source before the run pulls them.
    fn is_ahead(&self) -> bool {
        matches!(self.flavour, Flavour::Pages(_) | Flavour::Phase)
    }

    /// Whether one run has it all, so that there is one line.
    fn is_one_run(&self) -> bool {
        self.limit == 1 || !matches!(self.flavour, Flavour::Spawned(2..))
    }

    /// Whether only the limit and the backlog keep an item from running.
    fn is_plain(&self) -> bool {
        self.permits().is_none()
            && self.rate.is_none()
            && !self.keyed
            && !self.is_spawned()
            && !self.is_ahead()
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Failure {
    index: usize,
    attempt: usize,
    fatal: bool,
}

#[derive(Debug, Clone, Default)]
struct Life {
    pulled: u64,
    /// When each attempt began and ended.
    attempts: Vec<(u64, Option<u64>)>,
    copies: usize,
    gone: Option<u64>,
    /// How many new inputs have begun since its retry was due.
    passed: usize,
    outcome: Option<Outcome>,
    letter: Option<(SettledKind, u32, Option<Failure>)>,
    /// An attempt succeeded, which is the end of the input.
    consumed: bool,
    /// How often the input came back without a letter.
    returned: usize,
}

impl Life {
    fn runs(&self) -> bool {
        matches!(self.attempts.last(), Some((_, None)))
    }

    fn waits(&self) -> bool {
        self.gone.is_none() && matches!(self.attempts.last(), Some((_, Some(_))))
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Fulfilled,
    Rejected(Failure),
    Panicked,
    TimedOut(Scope, Option<Failure>),
    Cancelled { started: bool, last: Option<Failure> },
}

impl From<Settled<usize, Failure>> for Outcome {
    fn from(settled: Settled<usize, Failure>) -> Self {
        match settled {
            Ok(_) => Self::Fulfilled,
            Err(ItemError::Rejected(failure)) => Self::Rejected(failure),
            Err(ItemError::Panicked(_)) => Self::Panicked,
            Err(ItemError::TimedOut { scope, last_error, .. }) => Self::TimedOut(scope, last_error),
            Err(ItemError::Cancelled { started, last_error, .. }) => {
                Self::Cancelled { started, last: last_error }
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Outcome {
    fn kind(self) -> SettledKind {
        match self {
            Self::Fulfilled => SettledKind::Fulfilled,
            Self::Rejected(_) => SettledKind::Rejected,
            Self::Panicked => SettledKind::Panicked,
            Self::TimedOut(..) => SettledKind::TimedOut,
            Self::Cancelled { .. } => SettledKind::Cancelled,
        }
    }
}

struct World {
    plan: Plan,
    began: Instant,
    lives: Vec<Life>,
    /// A violation is noted, not panicked with: the executor would take that for an item's panic.
    violations: Vec<String>,
}

type Shared = Arc<Mutex<World>>;

fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap()
}

impl World {
    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn check(&mut self, holds: bool, what: impl Fn() -> String) {
        if !holds {
            let violation = format!("at {} ms: {}", self.now(), what());
            self.violations.push(violation);
        }
    }

    fn alive(&self) -> usize {
        self.lives.iter().filter(|life| life.gone.is_none()).count()
    }

    fn pull(&mut self) {
        let pulled = self.now();
        self.lives.push(Life { pulled, copies: 1, ..Life::default() });
        if self.plan.is_ahead() {
            return;
        }
        let Plan { limit, backlog, .. } = self.plan;
        let alive = self.alive();
        self.check(alive <= limit + backlog, || format!("{alive} in hand"));
        if !self.plan.is_spawned() {
            let waiting = self.lives.iter().filter(|life| life.waits()).count();
            self.check(alive - waiting <= limit, || format!("{alive} in hand, {waiting} wait"));
        }
    }

    fn begin(&mut self, index: usize) -> Step {
        let now = self.now();
        self.lives[index].attempts.push((now, None));
        self.lives[index].passed = 0;
        self.check_line(index, now);
        let running = self.lives.iter().filter(|life| life.runs()).count();
        let waiting = self.lives.iter().filter(|life| life.waits()).count();
        let Plan { limit, backlog, .. } = self.plan;
        self.check(running <= limit, || format!("{running} run"));
        self.check(running + waiting <= limit + backlog, || format!("{running} + {waiting}"));
        if let Some(permits) = self.plan.permits() {
            let lives = self.lives.iter().enumerate().filter(|(_, life)| life.runs());
            let weight: usize = lives.map(|(index, _)| self.plan.weight(index)).sum();
            self.check(weight <= permits, || format!("{weight} permits in use"));
        }
        self.plan.step(index, self.lives[index].attempts.len() - 1)
    }

    /// Who may begin now, as far as the others are concerned.
    fn check_line(&mut self, index: usize, now: u64) {
        let life = &self.lives[index];
        let fresh = life.attempts.len() == 1;
        let (alive, twice) = (life.gone.is_none(), life.attempts.iter().rev().skip(1));
        let overlaps = twice.clone().any(|(_, end)| end.is_none());
        self.check(alive && !overlaps, || format!("item {index} is gone, or runs"));
        let Plan { limit, backlog, keyed, .. } = self.plan;
        let before = &self.lives[..index];
        if limit + backlog == 1 {
            let in_order = before.iter().all(|life| life.gone.is_some());
            self.check(in_order, || format!("item {index} before the ones before it"));
        } else if keyed {
            let items = &self.plan.items;
            let mut same =
                before.iter().zip(items).filter(|(_, item)| item.key == items[index].key);
            let in_order = same.all(|(life, _)| life.gone.is_some());
            self.check(in_order, || format!("item {index} before others of its key"));
        } else if fresh && self.plan.is_one_run() {
            let in_order = before.iter().all(|life| !life.attempts.is_empty());
            self.check(in_order, || format!("item {index} starts out of order"));
        }
        if fresh && self.plan.is_one_run() {
            // One may have its permit already, and wait for the throttle.
            let may_pass = usize::from(self.plan.permits().is_some() || self.plan.rate.is_some());
            for other in 0..self.lives.len() {
                if !self.lives[other].waits() {
                    continue;
                }
                let due = self.due(other);
                if due < now || due == now && self.wait_after(other) == Some(0) {
                    self.lives[other].passed += 1;
                    let passed = self.lives[other].passed <= may_pass;
                    self.check(passed, || format!("item {index} before the retry of {other}"));
                }
            }
        }
    }

    fn wait_after(&self, index: usize) -> Option<u64> {
        self.plan.waits.get(self.lives[index].attempts.len() - 1).copied()
    }

    /// When the wait is over that follows the latest attempt, which has ended.
    fn due(&self, index: usize) -> u64 {
        let (_, end) = self.lives[index].attempts[self.lives[index].attempts.len() - 1];
        match (end, self.wait_after(index)) {
            (Some(end), Some(wait)) => end + wait,
            _ => u64::MAX,
        }
    }
}

/// An input. Copies of it are counted, and say when the last of them is gone.
struct Input {
    index: usize,
    name: String,
    world: Shared,
}

impl Clone for Input {
    fn clone(&self) -> Self {
        lock(&self.world).lives[self.index].copies += 1;
        Self { index: self.index, name: self.name.clone(), world: Arc::clone(&self.world) }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        let mut world = lock(&self.world);
        let now = world.now();
        let life = &mut world.lives[self.index];
        life.copies -= 1;
        if life.copies == 0 {
            let before = life.gone.replace(now);
            world.check(before.is_none(), || format!("item {} is gone twice", self.index));
        }
    }
}

/// An attempt, for as long as its future lives.
struct Running(Shared, usize);

impl Drop for Running {
    fn drop(&mut self) {
        let mut world = lock(&self.0);
        let now = world.now();
        if let Some((_, end)) = world.lives[self.1].attempts.last_mut() {
            *end = Some(now);
        }
    }
}

fn attempt(input: Input) -> impl Future<Output = Result<usize, Failure>> + Send {
    let index = input.index;
    let running = Running(Arc::clone(&input.world), index);
    let (step, attempt) = {
        let mut world = lock(&input.world);
        let intact = input.name == format!("input {index}");
        world.check(intact, || format!("item {index} is not intact"));
        (world.begin(index), world.lives[index].attempts.len() - 1)
    };
    if step.ending == Ending::PanicInClosure {
        resume_unwind(Box::new("in the closure"));
    }
    async move {
        let _running = running;
        let input = input;
        if step.takes > 0 {
            sleep(ms(step.takes)).await;
        }
        let failure = Failure { index, attempt, fatal: step.ending == Ending::Fatal };
        match step.ending {
            Ending::Fine => {
                lock(&input.world).lives[index].consumed = true;
                Ok(index)
            }
            Ending::Fail | Ending::Fatal => Err(failure),
            Ending::Hang => std::future::pending().await,
            _ => resume_unwind(Box::new("in poll")),
        }
    }
}

fn inputs(world: &Shared) -> impl Iterator<Item = Input> + Send + 'static {
    let items = lock(world).plan.items.len();
    let world = Arc::clone(world);
    (0..items).map(move |index| {
        lock(&world).pull();
        Input { index, name: format!("input {index}"), world: Arc::clone(&world) }
    })
}

fn settle(world: &Shared, index: usize, settled: Settled<usize, Failure>) {
    let outcome = Outcome::from(settled);
    let before = lock(world).lives[index].outcome.replace(outcome);
    lock(world).check(before.is_none(), || format!("item {index} settled twice"));
}

/// Runs the plan to its end, however it comes; `None` if the run was dropped.
async fn run<P>(world: &Shared, executor: BatchExecutor<P>) -> Option<BatchSummary>
where
    P: Policy<Input, Failure> + Send + 'static,
    P::Keys: Send + Sync + 'static,
    P::Order: Send,
{
    let Plan { flavour, cut, .. } = lock(world).plan.clone();
    let dropped_at = match cut {
        Some((at, Cut::Dropped(worker))) => Some((ms(at), Some(worker))),
        Some((at, Cut::Abandoned)) => Some((ms(at), None)),
        _ => None,
    };
    let for_now = dropped_at.map_or(Duration::from_secs(3600), |(at, _)| at);
    let give_back = |input: Input| lock(world).lives[input.index].returned += 1;
    match flavour {
        Flavour::AllSettled => {
            let run = executor.all_settled(inputs(world), attempt);
            let (outcomes, summary) = timeout(for_now, run).await.ok()?.into_parts();
            for (index, outcome) in outcomes.into_iter().enumerate() {
                settle(world, index, outcome);
            }
            Some(summary)
        }
        Flavour::SettleInto => {
            let mut slots = Vec::new();
            let run = executor.settle_into(&mut slots, inputs(world), attempt);
            let summary = timeout(for_now, run).await.ok();
            for (index, outcome) in slots.into_iter().enumerate() {
                outcome.map_or_else(|| {}, |outcome| settle(world, index, outcome));
            }
            summary
        }
        Flavour::Pages(size) => {
            let all = Arc::new(Mutex::new(inputs(world)));
            let fetch = |_: Option<()>| {
                let all = Arc::clone(&all);
                async move {
                    sleep(ms(1)).await;
                    let items: Vec<_> = all.lock().unwrap().by_ref().take(size).collect();
                    let next = (items.len() == size).then_some(());
                    Ok::<_, ()>(Page { items, next })
                }
            };
            let run = executor.pages(fetch, attempt);
            let paged = timeout(for_now, run).await.ok()?;
            for (index, outcome) in paged.outcomes.into_iter().enumerate() {
                settle(world, index, outcome);
            }
            let PagesSummary { batch, not_pulled, not_started, .. } = paged.summary;
            not_pulled.into_iter().for_each(give_back);
            not_started.into_iter().for_each(|(_, input)| give_back(input));
            Some(batch)
        }
        Flavour::Phase => {
            let phases = executor.phases::<_, Failure>("one", inputs(world));
            let _ = timeout(for_now, phases.phase("first", attempt)).await.ok()?.report();
            None
        }
        Flavour::ForEach => {
            let run = executor.for_each(inputs(world), attempt, |index, outcome| {
                settle(world, index, outcome);
                std::future::ready(())
            });
            timeout(for_now, run).await.ok()
        }
        Flavour::Spawned(workers) => {
            let mut tasks = Vec::new();
            let batch = executor.spawn_on(workers, inputs(world), attempt, |work| {
                tasks.push(tokio::spawn(work));
            });
            if let Some((at, worker)) = dropped_at {
                sleep(at).await;
                let Some(worker) = worker else {
                    drop(batch);
                    for task in tasks {
                        task.await.unwrap();
                    }
                    return None;
                };
                tasks[worker % tasks.len()].abort();
            }
            let joined = batch.join().await;
            joined.not_started.into_iter().for_each(|(_, input)| give_back(input));
            let (outcomes, summary) = joined.outcomes.into_parts();
            for (index, outcome) in outcomes.into_iter().enumerate() {
                settle(world, index, outcome);
            }
            Some(summary)
        }
    }
}

/// With the policies of the plan, in one order or the other.
async fn with_policies(world: &Shared, executor: BatchExecutor) -> Option<BatchSummary> {
    let Plan { most, waits, attempt_timeout, buried, keyed, weighed, .. } =
        lock(world).plan.clone();
    let waits: Vec<_> = waits.into_iter().map(ms).collect();
    let mut retry = Retry::with_backoff(most, move || waits.clone().into_iter()).unwrap();
    if let Some(limit) = attempt_timeout {
        retry = retry.into_builder().attempt_timeout(ms(limit)).build().unwrap();
    }
    let retry = retry.when(|failure: &Failure| !failure.fatal);
    let cemetery = Arc::clone(world);
    let bury = move |letter: DeadLetter<'_, Input, Failure>| {
        let DeadLetter { index, kind, attempts, error, ref input, .. } = letter;
        let mut world = lock(&cemetery);
        let intact = input.index == index && input.name == format!("input {index}");
        world.check(intact, || format!("the letter of {index} is not intact"));
        let before = world.lives[index].letter.replace((kind, attempts, error.copied()));
        world.check(before.is_none(), || format!("item {index} is buried twice"));
    };
    let key = |input: &Input| lock(&input.world).plan.items[input.index].key;
    let weight = |input: &Input| lock(&input.world).plan.items[input.index].weight;
    match (keyed, weighed, buried) {
        (false, false, false) => run(world, executor.retry(retry)).await,
        (false, false, true) => run(world, executor.retry(retry).dead_letter(bury)).await,
        (false, true, false) => run(world, executor.retry(retry).by_weight(weight)).await,
        (false, true, true) => {
            run(world, executor.retry(retry).dead_letter(bury).by_weight(weight)).await
        }
        (true, false, false) => run(world, executor.by_key(key).retry(retry)).await,
        (true, false, true) => {
            run(world, executor.retry(retry).by_key(key).dead_letter(bury)).await
        }
        (true, true, false) => {
            run(world, executor.by_weight(weight).retry(retry).by_key(key)).await
        }
        (true, true, true) => {
            run(world, executor.by_key(key).by_weight(weight).retry(retry).dead_letter(bury)).await
        }
    }
}

async fn check(plan: Plan) {
    let world = Arc::new(Mutex::new(World {
        plan: plan.clone(),
        began: Instant::now(),
        lives: Vec::new(),
        violations: Vec::new(),
    }));
    let token = StopToken::new();
    let mut builder = BatchExecutor::builder();
    builder = builder.limit(plan.limit).backlog(plan.backlog).stop(token.clone());
    if let Some((n, window)) = plan.rate {
        builder = builder.throttle(Arc::new(Throttle::new(n, ms(window)).unwrap()));
    }
    if let Some(limit) = plan.item_timeout {
        builder = builder.item_timeout(ms(limit));
    }
    if let Some(limit) = plan.deadline {
        builder = builder.timeout(ms(limit));
    }
    if let Some((failures, how)) = plan.stop_when {
        builder = builder.stop_when(failures, how);
    }
    let semaphore = plan.semaphore.map(|permits| Arc::new(Semaphore::new(permits)));
    if let Some(semaphore) = &semaphore {
        builder = builder.semaphore(Arc::clone(semaphore));
    }
    let executor = builder.build().unwrap();
    let others = async {
        if let Some((at, Cut::Stop(how))) = plan.cut {
            sleep(ms(at)).await;
            token.stop(how);
        }
        while let Some(semaphore) = &semaphore {
            let held = semaphore.acquire().await.unwrap();
            sleep(ms(3)).await;
            drop(held);
            sleep(ms(5)).await;
        }
        std::future::pending().await
    };
    // A wake-up that is lost leaves nothing but this timer: time jumps to it.
    let summary = timeout(Duration::from_secs(7200), async {
        tokio::select! {
            biased;
            summary = with_policies(&world, executor) => summary,
            never = others => never,
        }
    });
    let summary = summary.await.expect("asleep, and nobody will wake it");

    let mut world = lock(&world);
    assert_eq!(std::mem::take(&mut world.violations), [""; 0]);
    assert!(world.lives.iter().all(|life| life.gone.is_some()), "an input is not gone");
    if let Some(semaphore) = &semaphore {
        assert_eq!(semaphore.available_permits(), plan.semaphore.unwrap());
    }
    let verdict = Verdict { world: &world, plan: &plan };
    verdict.conserved();
    verdict.judge(summary);
}

/// What the notes of a run that is over say.
struct Verdict<'a> {
    world: &'a World,
    plan: &'a Plan,
}

/// An outcome, and when the item was gone.
type Expected = (Outcome, Option<u64>);

impl Verdict<'_> {
    /// Every input that was pulled was consumed, or came back once.
    ///
    /// Seen to fail when cancelled items get no letter, started or not, when a run in the task that is
    /// dropped returns nothing, and when inputs that nobody will join for are set aside.
    fn conserved(&self) {
        let plan = self.plan;
        for (index, life) in self.world.lives.iter().enumerate() {
            let back = life.returned + usize::from(life.letter.is_some());
            if plan.buried || life.returned > 0 || life.consumed {
                let once = back == usize::from(!life.consumed);
                assert!(once, "item {index} came back {back} times: {life:?}");
            }
            let never_started = life.attempts.is_empty() && life.outcome.is_some();
            if never_started && plan.is_spawned() {
                assert_eq!(life.returned, 1, "item {index}: {life:?}");
            }
        }
    }

    fn judge(&self, summary: Option<BatchSummary>) {
        let Self { world, plan } = self;
        self.throttled();
        if plan.is_plain() {
            self.nobody_waits_for_nothing();
        }
        let Some(summary) = summary.filter(|_| !plan.is_ahead()) else { return };
        for (index, life) in world.lives.iter().enumerate() {
            let expected = self.expected(index);
            let outcome = life.outcome.expect("each input that was pulled has an outcome");
            let fits = expected.iter().any(|(expected, at)| {
                *expected == outcome && at.is_none_or(|at| life.gone == Some(at))
            });
            assert!(fits, "item {index}: {life:?}, expected {expected:?}");
            let failed = outcome != Outcome::Fulfilled && life.returned == 0;
            let letter = (failed && plan.buried).then(|| {
                let error = match outcome {
                    Outcome::Rejected(failure) => Some(failure),
                    Outcome::TimedOut(_, last) | Outcome::Cancelled { last, .. } => last,
                    _ => self.last_failure(index, life.attempts.len() - 1),
                };
                (outcome.kind(), life.attempts.len() as u32, error)
            });
            assert_eq!(life.letter, letter, "the letter of item {index}: {life:?}");
            let stopped = self.stopped_pulling().is_none_or(|stopped| life.pulled <= stopped);
            assert!(stopped, "item {index} was pulled after the end");
        }
        assert_eq!(summary.pulled(), world.lives.len());
        if world.lives.len() < plan.items.len() {
            assert!(!matches!(summary.end(), BatchEnd::Exhausted));
            assert!(self.stopped_pulling().is_some(), "not all was pulled");
        }
    }

    /// The error of the last attempt, of those before this one, that returned any.
    fn last_failure(&self, index: usize, before: usize) -> Option<Failure> {
        let failed = |attempt: &usize| {
            let step = self.plan.step(index, *attempt);
            let in_time = self.plan.attempt_timeout.is_none_or(|limit| step.takes < limit);
            step.ending == Ending::Fail && in_time
        };
        let attempt = (0..before).rev().find(failed)?;
        Some(Failure { index, attempt, fatal: false })
    }

    /// When so many items had failed that it ends the batch.
    fn failed_too_often(&self) -> Option<(u64, Stop)> {
        let (most, how) = self.plan.stop_when?;
        let lives = self.world.lives.iter();
        let failed = lives.filter(|life| life.outcome != Some(Outcome::Fulfilled));
        let mut failed: Vec<_> = failed.filter_map(|life| life.gone).collect();
        failed.sort_unstable();
        Some((*failed.get(most - 1)?, how))
    }

    /// When everything in hand is cut short, at the first of the reasons.
    fn aborted(&self) -> Option<u64> {
        let stopped = match self.plan.cut {
            Some((at, Cut::Stop(Stop::Abort))) => Some(at),
            _ => None,
        };
        let failed = match self.failed_too_often() {
            Some((at, Stop::Abort)) => Some(at),
            _ => None,
        };
        [self.plan.deadline, stopped, failed].into_iter().flatten().min()
    }

    /// When a worker is dropped with what it has in hand.
    fn dropped(&self) -> Option<u64> {
        match self.plan.cut {
            Some((at, Cut::Dropped(_) | Cut::Abandoned)) => Some(at),
            _ => None,
        }
    }

    /// After which nothing is pulled.
    fn stopped_pulling(&self) -> Option<u64> {
        let stopped = self.plan.cut.map(|(at, _)| at);
        let failed = self.failed_too_often().map(|(at, _)| at);
        [self.plan.deadline, stopped, failed].into_iter().flatten().min()
    }

    /// What an item may have come to, with the attempts that it had.
    fn expected(&self, index: usize) -> Vec<Expected> {
        let Self { world, plan } = self;
        let attempts = &world.lives[index].attempts;
        let mut expected = Vec::new();
        let Some((first, _)) = attempts.first() else {
            let never = Outcome::Cancelled { started: false, last: None };
            let may_be = self.aborted().is_some() || self.dropped().is_some();
            // Its input goes back to who joins.
            return if may_be { vec![(never, None)] } else { expected };
        };
        let item_ends = plan.item_timeout.map(|limit| first + limit);
        // What it is if it is cut short, with this last error, while it waits or runs up to `until`.
        let cut_short = |last, since: u64, until: Option<u64>, expected: &mut Vec<Expected>| {
            let ends = [item_ends, self.aborted()].into_iter().flatten().min();
            let here = |at: u64| since <= at && until.is_none_or(|until| at <= until);
            let cancelled = Outcome::Cancelled { started: true, last };
            if let Some(ends) = ends.filter(|ends| here(*ends)) {
                if item_ends == Some(ends) {
                    expected.push((Outcome::TimedOut(Scope::Item, last), Some(ends)));
                }
                if self.aborted() == Some(ends) {
                    expected.push((cancelled, Some(ends)));
                }
                if plan.deadline == Some(ends) {
                    expected.push((Outcome::TimedOut(Scope::Batch, last), Some(ends)));
                }
            }
            if let Some(dropped) = self.dropped().filter(|at| here(*at)) {
                if ends.is_none_or(|ends| dropped <= ends) {
                    expected.push((cancelled, Some(dropped)));
                }
            }
            ends
        };
        let mut last = None;
        for (number, (start, end)) in attempts.iter().enumerate() {
            let is_last = number + 1 == attempts.len();
            let step = plan.step(index, number);
            let takes = if step.ending == Ending::PanicInClosure { 0 } else { step.takes };
            let hangs = step.ending == Ending::Hang;
            let in_time = plan.attempt_timeout.is_none_or(|limit| takes < limit);
            let natural = (!hangs).then_some(start + takes).filter(|_| in_time);
            let over = natural.or(plan.attempt_timeout.map(|limit| start + limit));
            let ends = if is_last {
                cut_short(last, *start, over, &mut expected)
            } else {
                [item_ends, self.aborted()].into_iter().flatten().min()
            };
            let cut_before = ends.is_some_and(|ends| over.is_none_or(|over| ends < over));
            let Some(over) = over.filter(|_| !cut_before) else {
                assert!(is_last, "item {index} went on after its end: {attempts:?}");
                return expected;
            };
            let ended = *end == Some(over) || is_last;
            assert!(ended, "attempt {number} of item {index} should end at {over}: {attempts:?}");
            let failure = Failure { index, attempt: number, fatal: step.ending == Ending::Fatal };
            let this = match step.ending {
                _ if natural.is_none() => Outcome::TimedOut(Scope::Attempt, last),
                Ending::Fine => Outcome::Fulfilled,
                Ending::Fail | Ending::Fatal => Outcome::Rejected(failure),
                _ => Outcome::Panicked,
            };
            let error = match this {
                Outcome::Rejected(failure) => Some(failure),
                _ => last,
            };
            let worth_it = natural.is_none() || step.ending == Ending::Fail;
            let wait = plan.waits.get(number).copied().unwrap_or(0);
            let in_vain = wait > 0 && plan.deadline.is_some_and(|end| over + wait >= end);
            let again = worth_it && number + 1 < plan.most() && !in_vain;
            if let Some((next, _)) = attempts.get(number + 1) {
                assert!(again, "item {index} is tried once more: {attempts:?}");
                let due = over + wait;
                assert!(*next >= due, "attempt {number} + 1 of item {index}: {attempts:?}");
                let unbounded = plan.is_plain() && plan.limit >= plan.items.len();
                assert!(!unbounded || *next == due, "it waits longer than it must: {attempts:?}");
                last = error;
                continue;
            }
            if again {
                cut_short(error, over, None, &mut expected);
            }
            // What is ready as it is cut short counts, and is not tried again.
            if !again || ends == Some(over) {
                expected.push((this, Some(over)));
            }
        }
        expected
    }

    /// In no window are there more starts than the throttle allows.
    fn throttled(&self) {
        let Some((most, window)) = self.plan.rate else { return };
        let attempts = self.world.lives.iter().flat_map(|life| &life.attempts);
        let mut starts: Vec<_> = attempts.map(|(start, _)| *start).collect();
        starts.sort_unstable();
        // The windows that begin with a start are the fullest.
        for (first, begin) in starts.iter().enumerate() {
            let within = starts[first..].iter().take_while(|at| **at < begin + window).count();
            assert!(within <= most as usize, "{within} starts from {begin} on: {starts:?}");
        }
    }

    /// If neither keys nor permits nor a throttle hold anything up: while an item is due, or inputs
    /// are left, the limit is used up, or for inputs the backlog.
    fn nobody_waits_for_nothing(&self) {
        let Self { world, plan } = self;
        let end = world.lives.iter().filter_map(|life| life.gone).max().unwrap_or(0);
        let stopped = self.stopped_pulling().or(self.dropped()).unwrap_or(u64::MAX);
        let mut instants = BTreeSet::from([0]);
        for life in &world.lives {
            instants.extend(life.gone);
            let ends = life.attempts.iter().filter_map(|(_, end)| *end);
            let dues = ends.zip(&plan.waits).map(|(end, wait)| end + wait);
            instants.extend(dues);
        }
        for at in instants.into_iter().filter(|at| *at < stopped && *at < end) {
            let lives = &world.lives;
            let runs = |life: &&Life| {
                life.attempts
                    .iter()
                    .any(|(start, end)| *start <= at && end.is_none_or(|end| at < end))
            };
            let running = lives.iter().filter(runs).count();
            let pulled = lives.iter().filter(|life| life.pulled <= at).count();
            let gone = lives.iter().filter(|life| life.gone.is_some_and(|gone| gone <= at)).count();
            let late = lives.iter().any(|life| {
                let pairs = life.attempts.windows(2).zip(&plan.waits);
                pairs.into_iter().any(|(pair, wait)| {
                    pair[0].1.is_some_and(|end| end + wait <= at && at < pair[1].0)
                })
            });
            let is_full = running == plan.limit;
            assert!(!late || is_full, "a retry waits at {at} ms beside {running}: {lives:?}");
            let is_all = pulled == plan.items.len() || pulled - gone == plan.limit + plan.backlog;
            assert!(is_full || is_all, "at {at} ms {running} run, {pulled} - {gone}: {lives:?}");
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ending = prop_oneof![
        3 => Just(Ending::Fine),
        8 => Just(Ending::Fail),
        1 => Just(Ending::Fatal),
        1 => Just(Ending::PanicInClosure),
        1 => Just(Ending::PanicInPoll),
        1 => Just(Ending::Hang),
    ];
    let step = (0..15_u64, ending).prop_map(|(half, ending)| Step { takes: 2 * half, ending });
    vec(step, 0..5)
}

fn plans() -> impl Strategy<Value = Plan> {
    let item = (0..3_usize, 0..4_u32, steps()).prop_map(|(key, weight, script)| Item {
        key,
        weight,
        script,
    });
    let flavour = prop_oneof![
        2 => Just(Flavour::AllSettled),
        1 => Just(Flavour::SettleInto),
        2 => Just(Flavour::ForEach),
        2 => (1..5_usize).prop_map(Flavour::Pages),
        1 => Just(Flavour::Phase),
        3 => (1..4_usize).prop_map(Flavour::Spawned),
    ];
    let odd = |most: u64| (0..most).prop_map(|half| 2 * half + 1);
    let how = || prop_oneof![Just(Stop::Drain), Just(Stop::Abort)];
    let cut = prop_oneof![
        2 => how().prop_map(Cut::Stop),
        1 => (0..3_usize).prop_map(Cut::Dropped),
        1 => Just(Cut::Abandoned),
    ];
    let weighted = |chance| move || prop::bool::weighted(chance);
    let (third, half) = (weighted(0.3), weighted(0.5));
    (
        (vec(item, 0..16), flavour, half(), third(), prop::option::weighted(0.3, 1..4_usize)),
        (1..5_usize, 0..6_usize, 1..5_u32, vec(0..30_u64, 0..5)),
        prop::option::weighted(0.3, (1..5_u32, 1..40_u64)),
        (prop::option::weighted(0.5, odd(15)), prop::option::weighted(0.3, odd(40))),
        (prop::option::weighted(0.3, odd(60)), prop::option::weighted(0.3, (1..6_usize, how()))),
        (prop::option::weighted(0.4, (0..80_u64, cut)), half()),
    )
        .prop_map(|(shape, policy, rate, limits, ends, (cut, buried))| {
            let (mut items, flavour, keyed, weighed, semaphore) = shape;
            let (limit, backlog, most, waits) = policy;
            let (attempt_timeout, item_timeout) = limits;
            let (deadline, stop_when) = ends;
            if attempt_timeout.or(item_timeout).or(deadline).is_none() {
                let steps = items.iter_mut().flat_map(|item| &mut item.script);
                for step in steps.filter(|step| step.ending == Ending::Hang) {
                    step.ending = Ending::Fail;
                }
            }
            Plan {
                items,
                flavour,
                keyed,
                weighed,
                semaphore,
                limit,
                backlog,
                most,
                waits,
                rate,
                attempt_timeout,
                item_timeout,
                deadline,
                stop_when,
                cut,
                buried,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn each_item_comes_to_what_its_script_and_the_policy_say(plan in plans()) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(check(plan));
    }
}
