//! A source that does not wait: so many lines a second, into a queue that drops the oldest of them
//! when the pipeline cannot keep up.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use sluicegate::queue::{Builder, Items, Popped, Pushed, WhenFull};
use sluicegate::{ConfigError, OverflowQueue};
use tokio::runtime::Handle;

use super::event::Change;
use super::source::{Arrived, Line, RawLines, parsed};

/// Lines between the source and the pipeline.
pub type Queue = OverflowQueue<io::Result<Line>>;

/// Places for lines that may be dropped, and as many for those that may not.
pub const PLACES: usize = 10_000;

/// With `places` of each kind; when those for what may be dropped are taken, the oldest 20 % go.
///
/// # Errors
///
/// If `places` is 0.
pub fn queue(places: usize) -> Result<Arc<Queue>, ConfigError> {
    let builder: Builder<io::Result<Line>> = OverflowQueue::builder();
    builder
        .capacity(places)
        .when_full(WhenFull::DropOldestShare { percent: 20 })
        .protected(places)
        .build()
        .map(Arc::new)
}

/// The lines of an input, `rate` of them a second, and no further once `stop` is done. What is in
/// the queue by then still comes.
///
/// # Panics
///
/// Outside of a tokio runtime.
pub fn lines(
    raw: RawLines,
    stop: impl Future<Output = ()> + Send + 'static,
    queue: Arc<Queue>,
    rate: u64,
) -> impl Stream<Item = io::Result<Arrived>> {
    let runtime = Handle::current();
    let source = queue.clone();
    thread::spawn(move || read(raw, &source, rate, &runtime));
    Lines::of(queue, stop)
}

/// The lines of a stream that comes by itself, until `stop` is done. What is in the queue by then still
/// comes.
///
/// # Panics
///
/// Outside of a tokio runtime.
pub fn stream(
    lines: impl Stream<Item = io::Result<Line>> + Send + 'static,
    stop: impl Future<Output = ()> + Send + 'static,
    queue: Arc<Queue>,
) -> impl Stream<Item = io::Result<Arrived>> {
    let source = queue.clone();
    tokio::spawn(async move {
        let mut lines = pin!(lines);
        while let Some(line) = lines.next().await
            && offer(&source, line).await
        {}
        source.close();
    });
    Lines::of(queue, stop)
}

/// Returns whether the queue takes more.
async fn offer(queue: &Queue, line: io::Result<Line>) -> bool {
    let pushed = if must_stay(&line) {
        // This alone makes the source wait.
        queue.push_protected(line).await
    } else {
        queue.try_push(line)
    };
    match pushed {
        Pushed::Rejected(_) => false,
        // Counted by the reader, which is told of the gap.
        Pushed::Displaced(_) | Pushed::DroppedNewest(_) | Pushed::Stored => true,
    }
}

/// Ends after the last line, after an error, or when the queue is closed.
fn read(raw: RawLines, queue: &Queue, rate: u64, runtime: &Handle) {
    let start = Instant::now();
    for (nth, line) in (0..).zip(parsed(raw)) {
        // A simulation of time, not a wait for anything.
        let due = start + Duration::from_secs_f64(nth as f64 / rate as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if !runtime.block_on(offer(queue, line)) {
            return;
        }
    }
    queue.close();
}

/// A delete that is lost leaves a row for good, and an error is the end.
fn must_stay(line: &io::Result<Line>) -> bool {
    match line {
        Ok(Line { event: Ok(Some(event)), .. }) => {
            matches!(event.change, Change::DeletePost(_) | Change::DeleteChild(..))
        }
        Ok(_) => false,
        Err(_) => true,
    }
}

struct Lines {
    items: Items<Arc<Queue>, io::Result<Line>>,
    /// A line whose gap was told first.
    held: Option<io::Result<Line>>,
    ended: bool,
    /// `None` once it is done.
    stop: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Lines {
    fn of(queue: Arc<Queue>, stop: impl Future<Output = ()> + Send + 'static) -> Self {
        let items = queue.items_owned();
        Self { items, held: None, ended: false, stop: Some(Box::pin(stop)) }
    }
}

impl Stream for Lines {
    type Item = io::Result<Arrived>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(stop) = &mut self.stop
            && stop.as_mut().poll(cx).is_ready()
        {
            self.stop = None;
            self.items.queue().close();
        }
        if let Some(line) = self.held.take() {
            return Poll::Ready(Some(line.map(Arrived::Line)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let (line, gap) = match ready!(self.items.poll_next_unpin(cx)) {
            Some(Popped { item, dropped_before, .. }) => (Some(item), dropped_before),
            None => (None, self.items.dropped_at_end().unwrap_or(0)),
        };
        self.ended = line.is_none();
        if gap > 0 {
            let before = line.as_ref().and_then(|line| Some(line.as_ref().ok()?.end.line));
            self.held = line;
            return Poll::Ready(Some(Ok(Arrived::Gap { lines: gap, before })));
        }
        Poll::Ready(line.map(|line| line.map(Arrived::Line)))
    }

    /// At least what is in the queue.
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.items.queue().len(), None)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // Otherwise the thread would wait for room for ever.
        self.items.queue().close();
    }
}
