//! A worker: a run whose source and sink are those of the batch.

use core::future::{Future, poll_fn};
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::sync::Arc;

use super::chunk_size::ChunkSize;
use super::shared::{BatchShared, Request, Response};
use crate::base::sync::{AtomicUsize, Ordering};
use crate::base::timer::now;
use crate::executor::limits::BatchDeadline;
use crate::executor::options::Batch;
use crate::executor::outcome_sink::OutcomeSink;
use crate::executor::policies::Policy;
use crate::executor::run::{Run, Runs};
use crate::executor::source::{Inputs, Source};
use crate::executor::stop::StopToken;
use crate::executor::summary::BatchEnd;
use crate::settled::Settled;

/// Outcomes that are saved up before they are delivered together, at most.
const SAVED: usize = if cfg!(loom) { 2 } else { 64 };

pub(super) fn work<N, F, Fut, T, E, P>(
    shared: &Arc<BatchShared<N, T, E>>,
    worker: usize,
    batch: Batch,
    f: Arc<F>,
    policy: P,
) -> impl Future<Output = ()> + Send + use<N, F, Fut, T, E, P>
where
    N: Inputs + Send + 'static,
    N::Input: Send + 'static,
    F: Fn(N::Input) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
    P: Policy<N::Input, E> + Send + 'static,
    P::Order: Send,
{
    let tally = Arc::new(Tally(AtomicUsize::new(0)));
    let source = SharedSource {
        shared: Arc::clone(shared),
        tally: Arc::clone(&tally),
        worker,
        share: batch.options.limit,
        stops: batch.tokens(),
        deadline: batch.deadline.clone(),
        chunk: VecDeque::new(),
        chunk_size: ChunkSize::new(),
        source_waker: shared.source_waker(),
    };
    let sink = SharedSink { shared: Arc::clone(shared), tally, saved: Vec::new(), counted: 0 };
    let start = move |input| f(input);
    let run = Run::new(batch, source, start, policy, sink);
    let mut worker = Worker { run: Some(run), shared: Arc::clone(shared) };
    async move {
        poll_fn(|cx| match &mut worker.run {
            Some(run) => run.poll_run(cx),
            None => Poll::Ready(()),
        })
        .await;
        drop(worker);
    }
}

/// Accounts for everything, also if its task is dropped before it is done.
struct Worker<N: Inputs, T, E, R: Runs> {
    run: Option<R>,
    shared: Arc<BatchShared<N, T, E>>,
}

impl<N: Inputs, T, E, R: Runs> Drop for Worker<N, T, E, R> {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            self.shared.worker_done(run.end_run());
        }
    }
}

/// How many items were released and not reported yet. Only one worker uses it, which
/// is in two places at once; so its operations need not be atomic together.
#[repr(align(128))]
struct Tally(AtomicUsize);

impl Tally {
    #[inline]
    fn add(&self, count: usize) {
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    fn take(&self) -> usize {
        let count = self.0.load(Ordering::Relaxed);
        self.0.store(0, Ordering::Relaxed);
        count
    }
}

struct SharedSource<N: Inputs, T, E> {
    shared: Arc<BatchShared<N, T, E>>,
    tally: Arc<Tally>,
    worker: usize,
    /// How many it may have in hand.
    share: usize,
    stops: Vec<StopToken>,
    deadline: BatchDeadline,
    /// Pulled, and to be started next.
    chunk: VecDeque<(usize, N::Input)>,
    chunk_size: ChunkSize,
    source_waker: Waker,
}

impl<N, T, E> Source for SharedSource<N, T, E>
where
    N: Inputs + Send + 'static,
    N::Input: Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    type Input = N::Input;

    #[inline]
    fn poll_pull(&mut self, room: usize, cx: &mut Context<'_>) -> Poll<Option<(usize, N::Input)>> {
        if let Some(next) = self.chunk.pop_front() {
            return Poll::Ready(Some(next));
        }
        let most = self.share.div_ceil(2).min(room);
        let request = Request {
            worker: self.worker,
            count: self.chunk_size.next(now()).min(most),
            released: self.tally.take(),
            stops: &self.stops,
            deadline: &self.deadline,
            waker: cx.waker(),
            source_waker: &self.source_waker,
        };
        match self.shared.request(request, &mut self.chunk) {
            Response::Chunk => Poll::Ready(self.chunk.pop_front()),
            Response::One(index, input) => Poll::Ready(Some((index, input))),
            Response::Later => Poll::Pending,
            Response::Nothing => Poll::Ready(None),
        }
    }

    fn close(&mut self) {
        self.shared.close();
    }

    fn note_end(&mut self, end: BatchEnd) {
        self.shared.note_end(end);
    }

    fn is_exhausted(&self) -> bool {
        self.shared.is_exhausted()
    }

    fn detach(&mut self) {
        self.shared.detach(self.worker);
    }

    fn worth_asking(&self) -> usize {
        if self.chunk.is_empty() { self.chunk_size.size().min(self.share.div_ceil(2)) } else { 1 }
    }
}

/// Delivers outcomes to the batch, several at a time unless somebody waits for each.
struct SharedSink<N: Inputs, T, E> {
    shared: Arc<BatchShared<N, T, E>>,
    tally: Arc<Tally>,
    saved: Vec<(usize, Settled<T, E>)>,
    /// So many of those saved are in the tally already.
    counted: usize,
}

impl<N: Inputs, T, E> SharedSink<N, T, E> {
    #[inline(never)]
    fn deliver(&mut self) {
        if !self.saved.is_empty() {
            let counted = core::mem::take(&mut self.counted);
            self.tally.add(self.shared.settle(&mut self.saved, counted));
        }
    }
}

impl<N: Inputs, T, E> OutcomeSink<N::Input, T, E> for SharedSink<N, T, E> {
    #[inline]
    fn settle(&mut self, index: usize, outcome: Settled<T, E>) {
        self.saved.push((index, outcome));
        if self.shared.is_prompt() {
            return self.deliver();
        }
        self.tally.add(1);
        self.counted += 1;
        if self.counted >= SAVED {
            self.deliver();
        }
    }

    fn not_started(&mut self, index: usize, input: N::Input) -> Option<N::Input> {
        self.shared.not_started(index, input)
    }

    fn flush(&mut self) {
        self.deliver();
        let released = self.tally.take();
        if released > 0 {
            self.shared.release(released);
        }
    }
}
