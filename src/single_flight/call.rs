//! One call: it joins the run of its key, and polls it when that is its turn.

use core::fmt;
use core::future::Future;
use core::hash::Hash;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::Arc;

use super::core::{CallId, Left, Outcome, Turn};
use super::{RunPanicked, Running, Shared, SingleFlight};
use crate::base::coop;
use crate::base::panic::{FirstPanic, caught, quietly};

const COMPLETED: &str = "a single-flight call was polled after it had completed";

/// Waits for the outcome of a key's run, and has a part in polling it; made by [`SingleFlight::run`].
///
/// # Cancel safety
///
/// Dropping it leaves the run to its other callers. If there are none, the run is dropped too, or, if
/// it has not begun, leaves the queue.
#[must_use = "futures do nothing unless polled: `.await` it to get the outcome"]
pub struct Call<'a, K, V, F> {
    flights: &'a SingleFlight<K, V>,
    stage: Stage<K>,
    /// Until it begins the run with it.
    function: Option<F>,
}

enum Stage<K> {
    New { key: Option<K> },
    Joined(CallId),
    Completed,
}

impl<'a, K, V, F> Call<'a, K, V, F> {
    pub(super) fn new(flights: &'a SingleFlight<K, V>, key: K, function: F) -> Self {
        Self { flights, stage: Stage::New { key: Some(key) }, function: Some(function) }
    }
}

impl<K, V, F, R> Call<'_, K, V, F>
where
    K: Hash + Eq + Send + 'static,
    V: Send + Sync + 'static,
    F: FnOnce() -> R,
    R: Future<Output = V> + Send + 'static,
{
    /// Joins the run of its key, unless it has joined it, and says what is to be done.
    fn turn(&mut self, waker: &mut Option<Waker>) -> (CallId, Turn<V>, Left<K, V>) {
        let shared = &self.flights.shared;
        let call = match &mut self.stage {
            Stage::New { key } => {
                let hash = shared.hash(key);
                // The key outlives the lock, if it is not needed or its `Eq` panics.
                shared.read(|core| core.join(hash, key).map(|call| (call, core.turn(call, waker))))
            }
            Stage::Joined(call) => Some((*call, shared.read(|core| core.turn(*call, waker)))),
            Stage::Completed => None,
        };
        let Some((call, (turn, left))) = call else { panic!("{COMPLETED}") };
        // A key that the run has no use for is dropped here: user code, which may panic.
        let unused = core::mem::replace(&mut self.stage, Stage::Joined(call));
        quietly(|| drop(unused));
        (call, turn, left)
    }

    /// The future of the run, which this call begins.
    fn begin(&mut self, call: CallId, spare: Option<Waker>) -> Result<Running<V>, RunPanicked> {
        let Some(function) = self.function.take() else { unreachable!("a call begins one run") };
        let future = caught(|| Box::pin(function())).map_err(RunPanicked::new)?;
        let waker = spare.unwrap_or_else(|| Shared::waker_of(&self.flights.shared, call.run.slot));
        Ok(Running { future, waker })
    }

    /// The outcome of the run goes to all its callers.
    fn finish(
        &mut self,
        call: CallId,
        outcome: Outcome<V>,
        waker: Option<Waker>,
    ) -> Poll<Outcome<V>>
    where
        V: Clone,
    {
        self.stage = Stage::Completed;
        let shared = &self.flights.shared;
        let mut panic = FirstPanic::default();
        let (own, left, due) = shared.read(|core| core.finish(call, outcome, waker));
        panic.catch(|| shared.wake(due));
        let outcome = own.or_else(|| left.outcome.map(take));
        panic.catch(|| drop(left.waker));
        quietly(|| drop(left.key));
        panic.resume();
        outcome.map_or(Poll::Pending, Poll::Ready)
    }
}

/// The value for one of the callers: that of the last is not cloned.
fn take<V: Clone>(outcome: Arc<Outcome<V>>) -> Outcome<V> {
    Arc::try_unwrap(outcome).unwrap_or_else(|shared| (*shared).clone())
}

impl<K, V, F, R> Future for Call<'_, K, V, F>
where
    K: Hash + Eq + Send + 'static,
    V: Clone + Send + Sync + 'static,
    F: FnOnce() -> R,
    R: Future<Output = V> + Send + 'static,
{
    type Output = Outcome<V>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Poll::Ready(unit) = coop::poll_proceed(cx) else { return Poll::Pending };
        // Most calls that find a turn need no waker. It is user code, which may panic: cloned before a wait
        // and after a poll, when the run is about to be back.
        let (call, mut turn, mut left) = this.turn(&mut None);
        if matches!(turn, Turn::Wait) {
            (_, turn, left) = this.turn(&mut Some(cx.waker().clone()));
        }
        let running = match turn {
            Turn::Wait => return Poll::Pending,
            Turn::Done(outcome) => {
                this.stage = Stage::Completed;
                unit.made_progress();
                drop(left.outcome);
                quietly(|| drop(left.waker));
                return Poll::Ready(take(outcome));
            }
            Turn::Begin(spare) => this.begin(call, spare),
            Turn::Poll(running) => Ok(running),
        };
        // Before the run, which charges what it does: a unit given back after it would undo that.
        unit.made_progress();
        let mut running = match running {
            Ok(running) => running,
            Err(panicked) => return this.finish(call, Err(panicked), None),
        };
        let outcome = match caught(|| running.poll()) {
            Ok(Poll::Pending) => {
                let shared = &this.flights.shared;
                let mut panic = FirstPanic::default();
                let mut waker = None;
                panic.catch(|| waker = Some(cx.waker().clone()));
                let due = shared.read(|core| core.suspend(call, running, &mut waker));
                panic.catch(|| shared.wake(due));
                panic.catch(|| drop(waker));
                panic.resume();
                return Poll::Pending;
            }
            Ok(Poll::Ready(value)) => Ok(value),
            Err(panic) => Err(RunPanicked::new(panic)),
        };
        // What the run holds is back before its callers hear of it.
        let Running { future, waker } = running;
        quietly(|| drop(future));
        this.finish(call, outcome, Some(waker))
    }
}

impl<K, V, F> Drop for Call<'_, K, V, F> {
    fn drop(&mut self) {
        let Stage::Joined(call) = self.stage else { return };
        let shared = &self.flights.shared;
        let (left, due) = shared.read(|core| core.leave(call));
        let mut panic = FirstPanic::default();
        panic.catch(|| shared.wake(due));
        panic.catch(|| drop(left.future));
        panic.catch(|| drop(left.outcome));
        panic.catch(|| drop(left.key));
        panic.catch(|| drop(left.waker));
        panic.resume();
    }
}

// Nothing in it is pinned: the run is in a box.
impl<K, V, F> Unpin for Call<'_, K, V, F> {}

impl<K, V, F> fmt::Debug for Call<'_, K, V, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.stage {
            Stage::New { .. } => "Call(new)",
            Stage::Joined(_) => "Call(joined)",
            Stage::Completed => "Call(completed)",
        })
    }
}
