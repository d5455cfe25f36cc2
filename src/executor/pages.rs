//! Input that comes in pages: the next is fetched while this one runs.
//!
//! ```text
//!               room for a page                fetched
//!   no page ───────────────────▶ fetching ───────────────▶ here: some pulled, some settled
//!      ▲                            │                          │
//!      │                            │ last, failed, panicked   │ all settled
//!      │                            ▼                          │
//!      │                          ended                        │
//!      └───────────────────────────────────────────────────────┘
//! ```
//!
//! A page is in memory from when it is asked for until the last of its items has settled, and two
//! may be. The fetch is polled beside the run, not by it: a source is not asked while there is no
//! room, and a fetch must go on then. When the run is to stop, no further fetch begins.

use core::fmt;
use core::future::Future;
use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use super::BatchExecutor;
use super::observe::{BatchEvent, tell};
use super::outcome_sink::{CallerSink, Collected, OutcomeSink};
use super::policies::Policy;
use super::run::{InTask, Run};
use super::source::Source;
use super::summary::BatchSummary;
use crate::base::coop;
use crate::base::panic::{Panic, caught, quietly};
use crate::base::sync::Mutex;
use crate::settled::Settled;

/// Pages that may be in memory at once.
const PAGES: usize = 2;

/// One page, and where the next begins.
#[derive(Debug, Clone)]
pub struct Page<P, C> {
    /// What is on it.
    pub items: P,
    /// What to ask for the next page with; `None` if this is the last.
    pub next: Option<C>,
}

/// What a batch over pages came to, beside its outcomes.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "it holds the error of a fetch that failed"]
pub struct PagesSummary<I, E> {
    /// The counts, and why the batch ended.
    pub batch: BatchSummary,
    /// How many pages were fetched.
    pub pages: usize,
    /// Why there were no more, if a fetch failed: what was fetched before has run nevertheless.
    pub fetch_error: Option<E>,
    /// Items of pages that were fetched, but that the batch did not pull before it was stopped.
    pub not_pulled: Vec<I>,
    /// Items that were pulled and not started when the batch was aborted, each with its index: their
    /// outcome is [`Cancelled`](crate::ItemError::Cancelled).
    pub not_started: Vec<(usize, I)>,
}

impl<I, E> PagesSummary<I, E> {
    /// Whether every page was fetched and every item fulfilled.
    pub fn is_complete(&self) -> bool {
        self.fetch_error.is_none() && self.batch.is_complete()
    }
}

/// The counts, the number of pages and the error, if there is one.
impl<I, E: fmt::Display> fmt::Display for PagesSummary<I, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {} pages", self.batch, self.pages)?;
        match &self.fetch_error {
            Some(error) => write!(f, "; the next could not be fetched: {error}"),
            None => Ok(()),
        }
    }
}

/// All outcomes of a batch over pages.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "outcomes that nobody looks at hide failures"]
pub struct Paged<T, E, I, FE> {
    /// One for each item that was pulled, in order.
    pub outcomes: Vec<Settled<T, E>>,
    /// What there is to say beside them.
    pub summary: PagesSummary<I, FE>,
}

struct PageState<I> {
    /// Of both pages: fetched and not pulled.
    items: VecDeque<I>,
    /// Pulled and cancelled before they started.
    not_started: Vec<(usize, I)>,
    /// Of each page here the index behind its last item, and how many of it have not settled.
    pages: VecDeque<(usize, usize)>,
    fetched: usize,
    pulled: usize,
    /// Nothing more is fetched.
    ended: bool,
    /// Nothing more is pulled.
    closed: bool,
    panic: Option<Panic>,
    waker: Option<Waker>,
}

impl<I> Default for PageState<I> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            not_started: Vec::new(),
            pages: VecDeque::new(),
            fetched: 0,
            pulled: 0,
            ended: false,
            closed: false,
            panic: None,
            waker: None,
        }
    }
}

type SharedPages<I> = Arc<Mutex<PageState<I>>>;

fn settled<I>(pages_state: &SharedPages<I>, index: usize) {
    let mut pages_state = pages_state.lock();
    if let Some(page) = pages_state.pages.iter_mut().find(|(end, _)| index < *end) {
        page.1 -= 1;
    }
    pages_state.pages.retain(|(_, unsettled)| *unsettled > 0);
}

/// The items, as a source.
struct PageSource<I>(SharedPages<I>);

impl<I> Source for PageSource<I> {
    type Input = I;

    fn poll_pull(&mut self, _: usize, cx: &mut Context<'_>) -> Poll<Option<(usize, I)>> {
        let mut pages_state = self.0.lock();
        if pages_state.closed {
            return Poll::Ready(None);
        }
        if let Some(item) = pages_state.items.pop_front() {
            let index = pages_state.pulled;
            pages_state.pulled = index + 1;
            return Poll::Ready(Some((index, item)));
        }
        if let Some(panic) = pages_state.panic.take() {
            drop(pages_state);
            panic.resume();
        }
        if pages_state.ended {
            return Poll::Ready(None);
        }
        // A waker of ours, which runs nobody's code.
        pages_state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn close(&mut self) {
        let mut pages_state = self.0.lock();
        pages_state.closed = true;
        pages_state.ended = true;
    }

    fn take_unpulled(&mut self) -> Option<(usize, I)> {
        let mut pages_state = self.0.lock();
        pages_state.not_started.pop().or_else(|| {
            let item = pages_state.items.pop_front()?;
            pages_state.pulled += 1;
            Some((pages_state.pulled - 1, item))
        })
    }
}

/// Records what has settled.
struct PageSink<O, I>(O, SharedPages<I>);

impl<I, T, E, O: OutcomeSink<I, T, E>> OutcomeSink<I, T, E> for PageSink<O, I> {
    fn settle(&mut self, index: usize, outcome: Settled<T, E>) {
        self.0.settle(index, outcome);
        settled(&self.1, index);
    }

    fn not_started(&mut self, index: usize, input: I) -> Option<I> {
        self.1.lock().not_started.push((index, input));
        None
    }

    fn waiting(&self) -> usize {
        self.0.waiting()
    }

    fn step(&mut self, cx: &mut Context<'_>) -> bool {
        self.0.step(cx)
    }

    fn woken(&mut self) {
        self.0.woken();
    }

    fn flush(&mut self) {
        self.0.flush();
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Fetches one page after the other, as far ahead as may be.
struct Fetcher<I, C, E, G, GFut> {
    fetch: G,
    fetching: Pin<Box<Option<GFut>>>,
    /// What to ask for next with: `None` for the first page.
    cursor: Option<C>,
    pages: usize,
    error: Option<E>,
    pages_state: SharedPages<I>,
}

impl<I, C, E, G, GFut> Fetcher<I, C, E, G, GFut> {
    fn new(fetch: G, pages_state: SharedPages<I>) -> Self {
        Self { fetch, fetching: Box::pin(None), cursor: None, pages: 0, error: None, pages_state }
    }
}

impl<I, C, E, G, GFut, P> Fetcher<I, C, E, G, GFut>
where
    G: FnMut(Option<C>) -> GFut,
    GFut: Future<Output = Result<Page<P, C>, E>>,
    P: IntoIterator<Item = I>,
{
    /// Whether a fetch is to begin, though none is polled.
    fn is_idle(&self) -> bool {
        let pages_state = self.pages_state.lock();
        self.fetching.is_none() && !pages_state.ended && pages_state.pages.len() < PAGES
    }

    /// At most one page in a poll, as pages may come without end and with nothing on them.
    fn poll(&mut self, cx: &mut Context<'_>, should_stop: impl FnOnce() -> bool) {
        if self.is_idle() && !should_stop() {
            let (cursor, fetch) = (self.cursor.take(), &mut self.fetch);
            match caught(|| fetch(cursor)) {
                Ok(fetching) => self.fetching.set(Some(fetching)),
                Err(panic) => return self.end(Some(panic)),
            }
        }
        let Some(fetching) = self.fetching.as_mut().as_pin_mut() else { return };
        let fetched = match caught(|| fetching.poll(cx)) {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(fetched)) => Ok(fetched),
            Err(panic) => Err(panic),
        };
        quietly(|| self.fetching.set(None));
        match fetched {
            Ok(Ok(Page { items, next })) => {
                // One by one, so that those before a panic of the caller's iterator are kept.
                let mut here = VecDeque::new();
                let taken = caught(|| items.into_iter().for_each(|item| here.push_back(item)));
                match taken {
                    Ok(()) => self.arrived(here, next),
                    Err(panic) => {
                        quietly(|| drop(next));
                        self.arrived(here, None);
                        self.end(Some(panic));
                    }
                }
            }
            Ok(Err(error)) => {
                self.error = Some(error);
                self.end(None);
            }
            Err(panic) => self.end(Some(panic)),
        }
    }

    fn arrived(&mut self, mut items: VecDeque<I>, next: Option<C>) {
        self.pages += 1;
        let waker = {
            let mut pages_state = self.pages_state.lock();
            pages_state.ended |= next.is_none();
            if !items.is_empty() {
                pages_state.fetched += items.len();
                let page = (pages_state.fetched, items.len());
                pages_state.pages.push_back(page);
                pages_state.items.append(&mut items);
            }
            pages_state.waker.take()
        };
        self.cursor = next;
        waker.into_iter().for_each(Waker::wake);
    }

    fn end(&mut self, panic: Option<Panic>) {
        let waker = {
            let mut pages_state = self.pages_state.lock();
            pages_state.ended = true;
            pages_state.panic = panic;
            pages_state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<P> BatchExecutor<P> {
    /// Runs `f` on every item of pages that `fetch` gets one after the other, and gives all outcomes
    /// in order.
    ///
    /// `fetch` is called with `None` first, then with the [`next`](Page::next) of the page before;
    /// a page without one is the last. The next page is fetched while this one runs, and its items
    /// start as soon as there is room: there is no barrier between pages. At most two pages are in
    /// memory, from when a page is asked for until the last of its items has settled, beside the
    /// outcomes. A page is taken whole, and so must end.
    ///
    /// A fetch that fails ends the input, and its error is reported beside what settled; a fetch
    /// that may pass the next time retries itself, by [`Retry::run`](crate::Retry). A fetch that
    /// panics, or the items of a page, are a source that panics, after what came before:
    /// [`BatchEnd::SourcePanicked`](super::BatchEnd). When the batch is stopped no further fetch
    /// begins, and one that is under way goes on as long as items do, and is dropped then.
    ///
    /// # Returns
    ///
    /// One outcome for each item that was pulled, and what there is to
    /// say of the pages.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the fetch and every item that runs, once each, and loses the
    /// outcomes so far. What was fetched and is not done goes to the
    /// [dead letters](Self::dead_letter).
    ///
    /// # Complexity
    ///
    /// O(1) an item.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), sluicegate::ConfigError> {
    /// use sluicegate::{BatchExecutor, executor::Page};
    ///
    /// // 250 users, 100 to a page.
    /// let fetch = |after: Option<u32>| async move {
    ///     let items: Vec<u32> = (after.unwrap_or(0)..250).take(100).collect();
    ///     let next = items.last().filter(|_| items.len() == 100).map(|last| last + 1);
    ///     Ok::<_, std::io::Error>(Page { items, next })
    /// };
    /// let executor = BatchExecutor::new(10)?;
    /// let all = executor.pages(fetch, async |user| Ok::<_, ()>(user)).await;
    /// assert_eq!((all.outcomes.len(), all.summary.pages), (250, 3));
    /// assert!(all.summary.fetch_error.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn pages<C, B, FE, G, GFut, F, Fut, T, E>(
        &self,
        fetch: G,
        f: F,
    ) -> impl Future<Output = Paged<T, E, B::Item, FE>> + use<C, B, FE, G, GFut, F, Fut, T, E, P>
    where
        B: IntoIterator,
        G: FnMut(Option<C>) -> GFut,
        GFut: Future<Output = Result<Page<B, C>, FE>>,
        F: FnMut(B::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        P: Policy<B::Item, E>,
    {
        let executor = self.clone();
        async move {
            let sink = Collected::with_room_for(0);
            let (sink, summary) = executor.run_pages(fetch, f, sink).await;
            Paged { outcomes: sink.into_outcomes(), summary }
        }
    }

    /// As [`pages`](Self::pages), with each outcome handed to `sink` as it settles, so that nothing
    /// but the pages is kept.
    ///
    /// # Panics
    ///
    /// If the sink or its future panics.
    ///
    /// # Cancel safety
    ///
    /// As [`for_each`](Self::for_each), and the fetch is dropped.
    pub fn pages_for_each<C, B, FE, G, GFut, F, Fut, T, E, S, SFut>(
        &self,
        fetch: G,
        f: F,
        sink: S,
    ) -> impl Future<Output = PagesSummary<B::Item, FE>> + use<C, B, FE, G, GFut, F, Fut, T, E, S, SFut, P>
    where
        B: IntoIterator,
        G: FnMut(Option<C>) -> GFut,
        GFut: Future<Output = Result<Page<B, C>, FE>>,
        F: FnMut(B::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        S: FnMut(usize, Settled<T, E>) -> SFut,
        SFut: Future<Output = ()>,
        P: Policy<B::Item, E>,
    {
        let executor = self.clone();
        async move { executor.run_pages(fetch, f, CallerSink::new(sink)).await.1 }
    }

    async fn run_pages<C, B, FE, G, GFut, F, Fut, T, E, O>(
        self,
        fetch: G,
        f: F,
        sink: O,
    ) -> (O, PagesSummary<B::Item, FE>)
    where
        B: IntoIterator,
        G: FnMut(Option<C>) -> GFut,
        GFut: Future<Output = Result<Page<B, C>, FE>>,
        F: FnMut(B::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        P: Policy<B::Item, E>,
        O: OutcomeSink<B::Item, T, E>,
    {
        let Self { options, policy } = self;
        let batch = options.batch(P::WEIGHS);
        let pages_state = Arc::new(Mutex::new(PageState::default()));
        let mut fetcher = Fetcher::new(fetch, Arc::clone(&pages_state));
        let source = PageSource(Arc::clone(&pages_state));
        let sink = PageSink(sink, Arc::clone(&pages_state));
        let run = Run::new(batch, source, f, policy, sink);
        let mut run = InTask::new(run);
        poll_fn(|cx| {
            run.begin();
            // Before a fetch begins; what a poll of the run costs is charged there.
            let _ = ready!(coop::poll_proceed(cx));
            fetcher.poll(cx, || run.should_stop());
            if run.poll(cx).is_ready() {
                return Poll::Ready(());
            }
            // A page has come, or what settled has made room for one.
            if fetcher.is_idle() {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
        let (PageSink(sink, _), batch) = run.into_done().into_parts();
        tell(options.observer.as_ref(), BatchEvent::Ended { summary: &batch });
        let (items, mut not_started, panic) = {
            let mut pages_state = pages_state.lock();
            let items = core::mem::take(&mut pages_state.items);
            (items, core::mem::take(&mut pages_state.not_started), pages_state.panic.take())
        };
        let not_pulled = items.into();
        not_started.sort_unstable_by_key(|(index, _)| *index);
        let Fetcher { fetch, mut fetching, cursor, pages, error: fetch_error, .. } = fetcher;
        // The caller's: what panics as it is dropped costs no outcome.
        quietly(|| fetching.set(None));
        quietly(|| drop(fetch));
        quietly(|| drop(cursor));
        quietly(|| drop(panic));
        (sink, PagesSummary { batch, pages, fetch_error, not_pulled, not_started })
    }
}
