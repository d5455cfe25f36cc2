//! The pipeline: what the primitives are for, and how they meet.
//!
//! ```text
//!  lines ──▶ BatchExecutor ──▶ Semaphore ──▶ BoundedArrayMap ──▶ Batcher ──▶ SQLite
//!            by author, in     creating      children whose      500 rows
//!            order             users         parent is missing   or 50 ms
//!                                               │ Sweeper
//!                                               ▼
//!                                            expired
//! ```
//!
//! - With `--live` the source does not wait, and an OverflowQueue stands in front: what it drops is
//!   counted where the gap is.
//! - The executor pulls a line when there is room, runs the events of one author one after the
//!   other and those of different authors side by side, and ends each in one outcome.
//! - The semaphore bounds how many users are created at once, and a SingleFlight in front of it has
//!   each created once, whatever asks for it meanwhile.
//! - The map holds children until their parent comes, and hands back all that it cannot hold. Its
//!   index finds the one that is deleted while it waits, and the one that comes twice; a sweeper
//!   takes out those that have waited for too long.
//! - The batcher turns rows into transactions. Its capacity is what keeps everything in front of it
//!   from running ahead of the disk.
//! - In a resumable run the offset tracker hears of each line as it comes in and as it is done, and its
//!   checkpoint is stored by the transaction that makes lines done: see `ledger`.

use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use sluicegate::batcher::{Closed, SendError, Slot};
use sluicegate::map::Sweeper;
use sluicegate::offsets::Ack;
use sluicegate::single_flight::RunPanicked;
use sluicegate::{
    BatchExecutor, Batcher, ConfigError, Retry, Settled, SettledCounts, SingleFlight,
};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::control::Control;
use super::event::{Event, Id};
use super::gate::Gate;
use super::ledger::{Entry, Ledger, Record};
use super::register::{Decision, Freed, Limits, Register};
use super::sink::Sink;
use super::source::{Arrived, Line, Place};
use super::store::{Reader, Writer};
use super::summary::Summary;
use super::tally::{Category, Tally};

/// How the pipeline is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Users created at once.
    pub permits: usize,
    /// Whether to bound that by polling with a sleep.
    pub busy_wait: bool,
    /// What creating one costs.
    pub lookup: Duration,
    /// What may wait, and for how long.
    pub limits: Limits,
    /// Events in hand at once.
    pub in_hand: usize,
    /// Rows in a transaction, at most.
    pub rows: usize,
    /// How long a row waits for others to share its transaction.
    pub window: Duration,
    /// How often a transaction is tried.
    pub retry: Retry,
    /// Ends parts of the run early.
    pub control: Arc<Control>,
    /// What makes the run resumable, if it is.
    pub ledger: Option<Arc<Ledger>>,
}

impl Config {
    /// The most lines that are read and not done.
    pub fn in_flight(&self) -> usize {
        // One comes in, and a gap counts as two.
        self.in_hand + self.batcher_capacity() + 2
    }

    fn batcher_capacity(&self) -> usize {
        4 * self.rows
    }
}

/// How often the sweepers look for expired children, and how many they remove per step.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(60);
pub(super) const SWEEP_STEP: usize = 1_000;

/// Children of one parent that are on their way to the batcher at once.
const FREED_AT_ONCE: usize = 16;

/// Runs the pipeline until `lines` end and everything is written; `watch` is told how many lines
/// were read.
///
/// # Errors
///
/// If the configuration is not what it may be. What goes wrong later is in the summary.
pub async fn run(
    config: &Config,
    (writer, reader): (Writer, Reader),
    lines: impl Stream<Item = io::Result<impl Into<Arrived>>>,
    watch: impl Fn(u64),
) -> Result<Summary, ConfigError> {
    let started = Instant::now();
    let executor = BatchExecutor::new(config.in_hand)?;
    let pipeline = Pipeline::new(config, writer, reader)?;
    let sweepers = pipeline.sweepers()?;

    let control = &config.control;
    let mut lines = pin!(lines);
    let lines = stream::poll_fn(|cx| {
        let next = lines.as_mut().poll_next(cx);
        control.read_ahead(lines.size_hint().0);
        next
    });
    let mut broken = None;
    let (mut broken_off, admit) = (|error| broken = Some(error), &pipeline);
    let events = lines.take_until(control.reading_stopped()).filter_map(|arrived| {
        let arrived = arrived.map_err(&mut broken_off).ok();
        let watch = &watch;
        async move {
            let event = admit.admit(arrived?.into()).await;
            watch(admit.tally.lines_read());
            event
        }
    });
    let work = executor.by_key(|admitted: &Admitted| admitted.event.author.clone());
    let work = work.for_each_stream(
        events,
        |admitted| pipeline.event(admitted),
        async |_, outcome| {
            pipeline.leave(outcome);
            control.end();
        },
    );
    pipeline.restore().await;
    let outcomes = tokio::select! {
        outcomes = work => outcomes,
        never = pipeline.keep_expiring() => match never {},
    };
    pipeline.expire().await;

    let report = pipeline.batcher.shutdown(None).await;
    pipeline.sink.give_up(&report.unsent, &Closed);
    pipeline.sink.give_up(&report.indeterminate, &Closed);
    for sweeper in sweepers {
        sweeper.stop().await;
    }
    if config.ledger.is_none() {
        pipeline.sweep();
    }
    Ok(Summary::new(&pipeline, outcomes, broken, started.elapsed()))
}

/// An event, and the acknowledgement of its line in a resumable run.
#[derive(Debug)]
struct Admitted {
    event: Event,
    ack: Option<Ack<Place>>,
}

/// What all the events in hand share.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) tally: Arc<Tally>,
    pub(super) gate: Arc<Gate>,
    /// Of users, by name: what asks for one while it is looked up waits for the same look-up.
    look_ups: SingleFlight<Id, ()>,
    pub(super) register: Arc<Mutex<Register>>,
    pub(super) batcher: Batcher<Entry>,
    pub(super) sink: Arc<Sink>,
    pub(super) ledger: Option<Arc<Ledger>>,
    pub(super) freed: Mutex<SettledCounts>,
    followers: BatchExecutor,
    lookup: Duration,
    control: Arc<Control>,
}

/// Why an event did not take effect.
#[derive(Debug)]
pub(super) enum Trouble {
    Closed,
    Database(rusqlite::Error),
    LookUp(RunPanicked),
}

impl Pipeline {
    fn new(config: &Config, writer: Writer, reader: Reader) -> Result<Self, ConfigError> {
        let tally = Arc::new(Tally::default());
        let register = Arc::new(Mutex::new(Register::new(reader, config.limits)?));
        let ledger = config.ledger.clone();
        if let Some(ledger) = &ledger {
            tally.go_on_from(&ledger.counts());
        }
        let control = config.control.clone();
        let sink =
            Sink::new(writer, register.clone(), tally.clone(), control.clone(), ledger.clone());
        let sink = Arc::new(sink);
        let gate = if config.busy_wait { Gate::busy_wait } else { Gate::fair };
        let (handler, dead_letter) = (sink.clone(), sink.clone());
        let batcher =
            Batcher::builder()
                .max_items(config.rows)
                .window(config.window)
                .capacity(config.batcher_capacity())
                .retry(config.retry.clone())
                .dead_letter(move |entries: Vec<Entry>, error| {
                    dead_letter.give_up(&entries, &error)
                })
                .build(move |batch| {
                    let sink = handler.clone();
                    async move {
                        spawn_blocking(move || sink.write(batch)).await.expect("writing panicked")
                    }
                })?;
        Ok(Self {
            tally,
            gate: Arc::new(gate(config.permits)),
            look_ups: SingleFlight::new(config.in_hand)?,
            register,
            batcher,
            sink,
            ledger,
            freed: Mutex::default(),
            followers: BatchExecutor::new(FREED_AT_ONCE)?,
            lookup: config.lookup,
            control,
        })
    }

    /// A line comes in; what is no event leaves at once.
    async fn admit(&self, arrived: Arrived) -> Option<Admitted> {
        let Line { end, event } = match arrived {
            Arrived::Line(line) => line,
            Arrived::Gap { lines, before } => {
                self.gap(lines, before).await;
                return None;
            }
        };
        let ack = match &self.ledger {
            Some(ledger) => Some(ledger.track(end).await),
            None => None,
        };
        self.tally.read(1);
        let category = match event {
            Ok(Some(event)) => {
                self.control.begin();
                return Some(Admitted { event, ack });
            }
            Ok(None) => Category::Ignored,
            Err(why) => {
                self.tally.malformed(end.line, &why);
                Category::Malformed
            }
        };
        self.end_at_once(Vec::from_iter(ack), category, 1).await;
        None
    }

    /// Lines were dropped before they were looked at. Those at the end of a resumable run, whose numbers
    /// are not known, are left to the next.
    async fn gap(&self, lines: u64, before: Option<u64>) {
        let acks = match (&self.ledger, before) {
            (Some(ledger), Some(before)) => ledger.track_gap(before).await,
            (Some(_), None) => return,
            (None, _) => Vec::new(),
        };
        self.tally.read(lines);
        self.end_at_once(acks, Category::Dropped, lines).await;
    }

    /// Lines end without a decision.
    async fn end_at_once(&self, acks: Vec<Ack<Place>>, category: Category, lines: u64) {
        if self.ledger.is_none() {
            return self.tally.count(category, lines);
        }
        let record = Record { acks, done: Some((category, lines)), ..Record::default() };
        match self.batcher.reserve().await {
            Ok(slot) => {
                let entry = Entry { write: None, record: Some(Box::new(record)) };
                self.give_up(Self::send(slot, entry));
            }
            Err(closed) => self.sink.stop(&closed),
        }
    }

    /// An event takes effect. Returns how its line left, if it did.
    async fn event(&self, admitted: Admitted) -> Result<Option<Category>, Trouble> {
        let done = self.try_event(admitted).await;
        // Before the author's next event begins: it must not take effect without this one.
        done.inspect_err(|why| self.stop_if_resumable(why))
    }

    async fn try_event(&self, admitted: Admitted) -> Result<Option<Category>, Trouble> {
        let Admitted { event: Event { author, change }, ack } = admitted;
        if !self.ensure_user(author).await? {
            return Ok(Some(Category::Abandoned));
        }
        let (done, freed) = self.decide(ack, |register, now| register.event(change, now)).await?;
        self.follow(freed).await;
        Ok(done)
    }

    /// Whether the user is there now; not if its look-up was given up.
    async fn ensure_user(&self, did: Id) -> Result<bool, Trouble> {
        if self.register.lock().unwrap().has_user(&did)? {
            return Ok(true);
        }
        let look_up = self.look_ups.run(did.clone(), || {
            let (gate, cost) = (Arc::clone(&self.gate), self.lookup);
            // Within the block, so that the time runs from when there is a permit.
            async move { gate.pass(async { tokio::time::sleep(cost).await }).await }
        });
        tokio::select! {
            biased;
            () = self.control.look_ups_given_up() => return Ok(false),
            looked_up = look_up => looked_up.map_err(Trouble::LookUp)?,
        }
        let (_, freed) = self.decide(None, |register, _| Ok(register.user(did))).await?;
        self.follow(freed).await;
        Ok(true)
    }

    /// Takes a decision and carries it out, in one step: room in the batcher is reserved before, so
    /// that nothing has to wait between the two and the batcher accepts in the order of decisions.
    pub(super) async fn decide(
        &self,
        ack: Option<Ack<Place>>,
        decide: impl FnOnce(&mut Register, std::time::Instant) -> rusqlite::Result<Decision>,
    ) -> Result<(Option<Category>, Vec<Freed>), Trouble> {
        let slot = self.batcher.reserve().await?;
        let mut register = self.register.lock().unwrap();
        let now = Instant::now().into_std();
        let Decision { write, waits, freed, left, done } = decide(&mut register, now)?;
        let mut entry = Entry { write, record: None };
        let mut done_now = done;
        if self.ledger.is_some() {
            // It is stored before it is counted.
            let done = done_now.take().map(|category| (category, 1));
            let record = Record { acks: Vec::from_iter(ack), done, waits, left };
            entry.record = (!record.is_empty()).then(|| Box::new(record));
        } else {
            for (category, numbers) in left {
                self.tally.count(category, numbers.len() as u64);
            }
        }
        let refused = Self::send(slot, entry);
        drop(register);
        self.give_up(refused);
        Ok((done_now, freed))
    }

    /// Returns what the batcher refuses.
    fn send(slot: Slot<'_, Entry>, entry: Entry) -> Option<Entry> {
        if entry.write.is_none() && entry.record.is_none() {
            return None;
        }
        slot.send(entry).err().map(SendError::into_inner)
    }

    fn give_up(&self, refused: Option<Entry>) {
        self.sink.give_up(&Vec::from_iter(refused), &Closed);
    }

    /// Sends children that waited for a parent to the batcher, after it.
    pub(super) async fn follow(&self, freed: Vec<Freed>) {
        if freed.is_empty() {
            return;
        }
        let arrive = |freed| async {
            self.decide(None, |register, _| Ok(register.arrived(freed))).await.map(|(done, _)| done)
        };
        for outcome in self.followers.all_settled(freed, arrive).await {
            self.freed.lock().unwrap().record(&outcome);
            self.leave(outcome);
        }
    }

    /// What left at once is counted here; what did not is counted where it leaves.
    fn leave(&self, outcome: Settled<Option<Category>, Trouble>) {
        match outcome {
            Ok(Some(category)) => self.tally.count(category, 1),
            Ok(None) => {}
            Err(error) if self.ledger.is_some() => self.stop_if_resumable(&error),
            Err(error) => {
                self.tally.count(Category::Failed, 1);
                self.tally.failure(&error);
            }
        }
    }

    /// A line that is not done keeps all others from being so, until the next run.
    pub(super) fn stop_if_resumable(&self, why: &impl std::fmt::Display) {
        if self.ledger.is_some() {
            self.sink.stop(why);
        }
    }

    /// Tasks that remove expired children while decisions are taken.
    fn sweepers(&self) -> Result<Vec<Sweeper>, ConfigError> {
        let register = self.register.lock().unwrap();
        let sweep = |waiting| {
            let tally = self.tally.clone();
            Sweeper::spawn(waiting, SWEEP_EVERY, SWEEP_STEP, move |expired| {
                tally.count(Category::Expired, expired.len() as u64);
            })
        };
        let waiting = register.all_waiting().into_iter().filter(|_| self.ledger.is_none());
        waiting.map(sweep).collect()
    }

    /// What has become due since the sweepers last came by.
    fn sweep(&self) {
        let now = Instant::now().into_std();
        for waiting in self.register.lock().unwrap().all_waiting() {
            let expired = waiting.expire(now, usize::MAX);
            self.tally.count(Category::Expired, expired.len() as u64);
        }
    }
}

impl From<Closed> for Trouble {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => Closed.fmt(f),
            Self::Database(error) => write!(f, "the database cannot be read: {error}"),
            Self::LookUp(panicked) => panicked.fmt(f),
        }
    }
}

impl std::error::Error for Trouble {}
