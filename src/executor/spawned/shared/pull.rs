//! How a worker gets inputs: from its inbox, from the stock, or by pulling some itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::intake::{Request, Response, Step};
use super::{BatchShared, wake};
use crate::base::panic::{Panic, caught, quietly};
use crate::base::table::part_of;
use crate::executor::source::Inputs;
use crate::executor::summary::BatchEnd;

impl<N, T, E> BatchShared<N, T, E>
where
    N: Inputs + Send + 'static,
    N::Input: Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    pub(in crate::executor::spawned) fn source_waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::new(SourceWaker(Arc::clone(self))))
    }

    /// Gives a worker inputs: as many as it wants into its chunk, which is empty, if there is room
    /// and the input is here.
    pub(in crate::executor::spawned) fn request(
        &self,
        mut request: Request<'_>,
        chunk: &mut VecDeque<(usize, N::Input)>,
    ) -> Response<N::Input> {
        loop {
            let (step, wanting) = {
                let mut intake = self.intake.lock();
                let intake = &mut *intake;
                intake.in_hand -= request.released;
                // Those who wait for room may have some now.
                let released = core::mem::take(&mut request.released) > 0;
                let wanting = if released { intake.take_wanting() } else { Vec::new() };
                // With keys, what is pulled belongs to certain workers.
                let stocks = self.workers > 1 && self.router.is_none();
                (intake.step(self.limit, stocks, &request, chunk), wanting)
            };
            wake(wanting);
            let (inputs, from, most) = match step {
                Step::Pull { inputs, from, most } => (inputs, from, most),
                Step::Give(given) => return given,
            };
            let (inputs, fresh, how) = pull(inputs, from, most, &request);
            let count = fresh.len();
            let (own, others) = self.sort_out(request.worker, fresh);
            // It goes first: of the stock it has taken all that there was.
            let mut own = own.into_iter();
            let missing = request.count.saturating_sub(chunk.len());
            chunk.extend(own.by_ref().take(missing));
            let (ended, pending) = (how.is_the_end(), matches!(how, Pulled::Pending));
            let later = count == 0 && chunk.is_empty() && !ended;
            // Before it can be seen that the input has come to its end.
            match how {
                Pulled::All => self.results.lock().exhausted = true,
                Pulled::Panicked(panic) => self.note_end(BatchEnd::SourcePanicked(panic)),
                Pulled::Some | Pulled::Pending => {}
            }
            let how = How { count, ended, pending, later };
            let wanting = self.put_back(inputs, own, others, how, &request);
            wake(wanting);
            if later {
                return Response::Later;
            }
            if !chunk.is_empty() {
                return Response::Chunk;
            }
        }
    }

    /// The input comes back, and what was pulled from it goes to others; wakers of those that
    /// want some.
    fn put_back(
        &self,
        inputs: Option<Box<N>>,
        own: impl Iterator<Item = (usize, N::Input)>,
        others: Sent<N::Input>,
        how: How,
        request: &Request<'_>,
    ) -> Vec<Waker> {
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
        intake.pulled += how.count;
        intake.in_hand += how.count;
        intake.closed |= how.ended;
        intake.dormant &= how.pending;
        let mut wanting = intake.take_wanting();
        if how.later {
            // Not again in this poll: a stream may wake us each time that it is pending.
            match intake.dormant && !intake.closed {
                true => intake.wanting[request.worker] = Some(request.waker.clone()),
                false => wanting.push(request.waker.clone()),
            }
        }
        wanting
    }

    /// Parts what was pulled into what is this worker's, or anybody's, and what belongs to others.
    fn sort_out(&self, worker: usize, fresh: Fresh<N::Input>) -> (Fresh<N::Input>, Sent<N::Input>) {
        let Some(router) = &self.router else { return (fresh, Vec::new()) };
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for (index, input) in fresh {
            // If it panics here it does so again where that becomes the item's outcome.
            let route = caught(|| router(&input)).map_err(|panic| quietly(|| drop(panic)));
            match route {
                Ok(Some(hash)) if part_of(hash, self.workers) != worker => {
                    others.push((part_of(hash, self.workers), (index, input)));
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

/// What a worker that has pulled comes back with.
struct How {
    /// So many inputs.
    count: usize,
    /// There is nothing more.
    ended: bool,
    /// A stream will say when there is more.
    pending: bool,
    /// The worker has nothing to do until it is woken.
    later: bool,
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

/// Pulls so many inputs, or as many as there are until a stop or the deadline. An input that panics does not come
/// back.
fn pull<N: Inputs>(
    mut inputs: Box<N>,
    from: usize,
    most: usize,
    request: &Request<'_>,
) -> (Option<Box<N>>, Fresh<N::Input>, Pulled) {
    let mut fresh = Vec::with_capacity(most.min(256));
    let ended = caught(|| {
        let cx = &mut Context::from_waker(request.source_waker);
        let stopped = || request.stops.iter().any(|stop| stop.stopped().is_some());
        while fresh.len() < most && !stopped() && !request.deadline.has_passed() {
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

/// What a stream of inputs wakes: every worker that wants inputs.
struct SourceWaker<N: Inputs, T, E>(Arc<BatchShared<N, T, E>>);

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
