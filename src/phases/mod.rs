//! Many items through the same few phases, each phase in parallel, told by its name.

mod events;
mod report;

use core::fmt;
use core::future::Future;
use std::sync::Arc;
use std::time::Instant;

pub use report::{PhaseError, PhaseReport, PhasesReport};

use crate::base::panic::caught;
use crate::base::sync::{AtomicUsize, Ordering};
use crate::base::timer::now;
use crate::executor::{BatchExecutor, Owned, Policy};
use crate::settled::ItemError;

/// Items on their way through phases; made by [`BatchExecutor::phases`].
///
/// | | what runs | the next phase begins |
/// | --- | --- | --- |
/// | [`map`](Self::map) | a plain function, one item after the other | when all are through |
/// | [`phase`](Self::phase) | a future for each item, as many at once as the executor allows | when all have settled: a barrier |
/// | [`flow`](Self::flow) | a future for each item, which passes through several phases | for each item by itself: no barrier |
///
/// An item that fails in a phase does not enter the next. [`report`](Self::report) tells of each
/// item how it ended, and if it failed in which phase, by name; and of each phase how many entered
/// it, how many failed, and how long it took.
///
/// Do not use it for a single phase: that is [`BatchExecutor::all_settled`]. All items that have not
/// failed are in memory between phases; for endless input chain the steps in one closure instead.
///
/// With the feature `tracing` it tells of each phase as it begins and ends: see the
/// [events](#events).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sluicegate::ConfigError> {
/// let executor = sluicegate::BatchExecutor::new(10)?;
/// let report = executor
///     .phases("signups", ["ann@a.org", "bob", "eve@e.org"])
///     .map("split", |mail| mail.split_once('@').ok_or("no @"))
///     .phase("create", async |(name, host)| if host == "a.org" { Ok(name) } else { Err("refused") })
///     .await
///     .phase("enqueue", async |name| Ok(format!("welcome, {name}")))
///     .await
///     .report();
///
/// let told: Vec<_> = report.outcomes.iter().map(|outcome| match outcome {
///     Ok(value) => value.clone(),
///     Err(error) => error.to_string(),
/// }).collect();
/// assert_eq!(told, ["welcome, ann", "split: rejected: no @", "create: rejected: refused"]);
/// # Ok(())
/// # }
/// ```
///
/// # Events
///
/// All at level `INFO`, with the target `sluicegate::phases` and the field `batch`, its name:
/// `start` (`items`), `phase` after each phase (`phase`, its name; `entered`, `succeeded`, `failed`,
/// `elapsed_ms`), and `complete` (`items`, `succeeded`, `failed`, `elapsed_ms`, `per_second`).
///
/// # How it is built
///
/// A list of what has come through so far, by index, and one batch of the executor a phase.
#[must_use = "what came of the items is in the report"]
pub struct Phases<P, V, E> {
    executor: BatchExecutor<P>,
    name: &'static str,
    began: Instant,
    /// By index: on the way, or failed.
    items: Vec<Result<V, PhaseError<E>>>,
    phases: Vec<PhaseReport>,
}

impl<P> BatchExecutor<P> {
    /// Takes `inputs` through phases, which are chained to this. The name of the batch is for traces.
    ///
    /// All of `inputs` are taken at once, which must therefore be finite.
    pub fn phases<I, E>(&self, name: &'static str, inputs: I) -> Phases<P, I::Item, E>
    where
        I: IntoIterator,
        Self: Clone,
    {
        let items: Vec<_> = inputs.into_iter().map(Ok).collect();
        events::start(name, items.len());
        let (executor, phases) = (self.clone(), Vec::new());
        Phases { executor, name, began: now(), items, phases }
    }
}

/// An item in a [flow](Phases::flow), as the executor's keys, weights and dead letters see it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Flowing<V> {
    /// What came out of the phase before.
    pub value: V,
    /// Which phase it is in.
    pub cursor: PhaseCursor,
}

/// Says which of the phases of a [flow](Phases::flow) an item is in.
#[derive(Clone)]
pub struct PhaseCursor {
    names: Arc<[&'static str]>,
    /// As many for each attempt as there are phases.
    at: Arc<AtomicUsize>,
    /// Where this attempt began.
    first: usize,
}

impl PhaseCursor {
    fn new(names: &Arc<[&'static str]>) -> Self {
        Self { names: Arc::clone(names), at: Arc::new(AtomicUsize::new(0)), first: 0 }
    }

    /// The item enters the next phase. Behind the last it stays there, and nothing happens when its
    /// attempt is not the latest one of the item.
    pub fn next(&self) {
        let last = self.first + self.names.len() - 1;
        let mut at = self.at.load(Ordering::Relaxed);
        while (self.first..last).contains(&at) {
            let moved = self.at.compare_exchange(at, at + 1, Ordering::Relaxed, Ordering::Relaxed);
            match moved {
                Ok(_) => return,
                Err(seen) => at = seen,
            }
        }
    }

    /// The name of the phase that the item is in.
    pub fn phase(&self) -> &'static str {
        self.names[self.index()]
    }

    fn index(&self) -> usize {
        self.at.load(Ordering::Relaxed) % self.names.len()
    }

    /// Another attempt of the item begins, with the first phase. Those before it are over.
    fn again(mut self) -> Self {
        let phases = self.names.len();
        self.first = (self.at.load(Ordering::Relaxed) / phases + 1) * phases;
        self.at.swap(self.first, Ordering::Relaxed);
        self
    }
}

impl fmt::Debug for PhaseCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhaseCursor").field("phase", &self.phase()).finish()
    }
}

impl<P, V, E> Phases<P, V, E> {
    /// Takes each item through a plain function, one after the other. A panic is that item's failure,
    /// and no other's.
    pub fn map<U>(
        self,
        name: &'static str,
        mut map: impl FnMut(V) -> Result<U, E>,
    ) -> Phases<P, U, E> {
        let began = now();
        let (mut entered, mut succeeded) = (0, 0);
        let items = self.items.into_iter().map(|item| {
            item.and_then(|value| {
                entered += 1;
                let error = match caught(|| map(value)) {
                    Ok(Ok(mapped)) => {
                        succeeded += 1;
                        return Ok(mapped);
                    }
                    Ok(Err(error)) => ItemError::Rejected(error),
                    Err(panic) => ItemError::Panicked(panic),
                };
                Err(PhaseError { phase: name, error })
            })
        });
        let items = items.collect();
        let report =
            PhaseReport::new(name, entered, succeeded, now().saturating_duration_since(began));
        events::phase(self.name, &report);
        let mut phases = self.phases;
        phases.push(report);
        Phases { executor: self.executor, name: self.name, began: self.began, items, phases }
    }

    /// Runs a future for each item that has not failed, with the executor's limit and all its other
    /// options, and waits until all have settled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels what runs, and everything before is lost with it, but what goes to
    /// the [dead letters](BatchExecutor::dead_letter): the value of each item that entered the phase
    /// and did not come through.
    pub async fn phase<F, Fut, U>(self, name: &'static str, f: F) -> Phases<P, U, E>
    where
        F: FnMut(V) -> Fut,
        Fut: Future<Output = Result<U, E>>,
        P: Policy<V, E>,
    {
        let began = now();
        let Self { executor, name: batch, began: batch_began, items, mut phases } = self;
        let (waiting, mut rest) = part(items);
        let entered = waiting.len();
        let inputs = Owned::new(waiting.into_iter(), executor.policy());
        let outcomes = executor.all_settled(inputs, f).await;
        let mut outcomes = outcomes.into_iter();
        let mut succeeded = 0;
        let items = rest.iter_mut().map(|slot| match slot.take() {
            Some(error) => Err(error),
            // What was not pulled, because the batch was stopped, has no outcome.
            None => match outcomes.next().unwrap_or(Err(ItemError::cancelled(false))) {
                Ok(value) => {
                    succeeded += 1;
                    Ok(value)
                }
                Err(error) => Err(PhaseError { phase: name, error }),
            },
        });
        let items = items.collect();
        let report =
            PhaseReport::new(name, entered, succeeded, now().saturating_duration_since(began));
        events::phase(batch, &report);
        phases.push(report);
        Phases { executor, name: batch, began: batch_began, items, phases }
    }

    /// Runs a future for each item that has not failed, which takes it through the phases `names`
    /// without waiting for other items in between. It says by [`PhaseCursor::next`] that it enters the
    /// next; a failure is told by the name of the phase it happens in. An attempt after one that
    /// failed goes through all phases again, and the last attempt's phase is told.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// let report = sluicegate::BatchExecutor::new(2)?
    ///     .phases("numbers", 0..3)
    ///     .flow(["halve", "double"], async |n: u32, cursor| {
    ///         let half = if n % 2 == 0 { n / 2 } else { return Err("odd") };
    ///         cursor.next();
    ///         if half == 0 { Err("nothing") } else { Ok(half * 2) }
    ///     })
    ///     .await
    ///     .report();
    /// let phases: Vec<_> = report.failed().map(|(index, error)| (index, error.phase)).collect();
    /// assert_eq!(phases, [(0, "double"), (1, "halve")]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// There must be a name: none does not compile.
    ///
    /// # Cancel safety
    ///
    /// As [`phase`](Self::phase).
    pub async fn flow<F, Fut, U, const N: usize>(
        self,
        names: [&'static str; N],
        mut f: F,
    ) -> Phases<P, U, E>
    where
        F: FnMut(V, PhaseCursor) -> Fut,
        Fut: Future<Output = Result<U, E>>,
        P: Policy<Flowing<V>, E>,
    {
        const { assert!(N > 0, "a flow has at least one phase") };
        let began = now();
        let Self { executor, name: batch, began: batch_began, items, mut phases } = self;
        let (waiting, mut rest) = part(items);
        let names: Arc<[&'static str]> = names.into();
        let cursors: Vec<_> = waiting.iter().map(|_| PhaseCursor::new(&names)).collect();
        let inputs = waiting.into_iter().zip(&cursors);
        let inputs = inputs.map(|(value, cursor)| Flowing { value, cursor: cursor.clone() });
        let inputs = Owned::new(inputs, executor.policy());
        let outcomes = executor
            .all_settled(inputs, |Flowing { value, cursor }| f(value, cursor.again()))
            .await;
        let mut outcomes = outcomes.into_iter().zip(&cursors);
        let mut reached = vec![0; N];
        let mut failed = vec![0; N];
        let items = rest.iter_mut().map(|slot| match slot.take() {
            Some(error) => Err(error),
            None => {
                let (outcome, at) = match outcomes.next() {
                    Some((outcome, cursor)) => (outcome, cursor.index()),
                    None => (Err(ItemError::cancelled(false)), 0),
                };
                match outcome {
                    Ok(value) => {
                        reached[N - 1] += 1;
                        Ok(value)
                    }
                    Err(error) => {
                        reached[at] += 1;
                        failed[at] += 1;
                        Err(PhaseError { phase: names[at], error })
                    }
                }
            }
        });
        let items = items.collect();
        let elapsed = now().saturating_duration_since(began);
        for phase in 0..N {
            let entered = reached[phase..].iter().sum();
            let report = PhaseReport::new(names[phase], entered, entered - failed[phase], elapsed);
            events::phase(batch, &report);
            phases.push(report);
        }
        Phases { executor, name: batch, began: batch_began, items, phases }
    }

    /// What came of the items, and of each phase.
    pub fn report(self) -> PhasesReport<V, E> {
        let report = PhasesReport {
            outcomes: self.items,
            phases: self.phases,
            elapsed: now().saturating_duration_since(self.began),
        };
        events::complete(self.name, &report);
        report
    }
}

type Parted<V, E> = (Vec<V>, Vec<Option<PhaseError<E>>>);

/// What goes on, and by index what has failed.
fn part<V, E>(items: Vec<Result<V, PhaseError<E>>>) -> Parted<V, E> {
    let mut waiting = Vec::with_capacity(items.len());
    let rest = items.into_iter().map(|item| match item {
        Ok(value) => {
            waiting.push(value);
            None
        }
        Err(error) => Some(error),
    });
    let rest = rest.collect();
    (waiting, rest)
}

impl<P, V, E> fmt::Debug for Phases<P, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phases")
            .field("name", &self.name)
            .field("phases", &self.phases)
            .finish_non_exhaustive()
    }
}
