//! The pipeline: what the four primitives are for, and how they meet.
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
//! - The semaphore bounds how many users are created at once. There is one creation a user however
//!   many of its events come together, since those do not overlap.
//! - The map holds children until their parent comes, and hands back all that it cannot hold. Its
//!   index finds the one that is deleted while it waits, and the one that comes twice; a sweeper
//!   takes out those that have waited for too long.
//! - The batcher turns rows into transactions. Its capacity is what keeps everything in front of it
//!   from running ahead of the disk.

use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use sluicegate::batcher::Closed;
use sluicegate::map::Sweeper;
use sluicegate::{BatchExecutor, Batcher, ConfigError, Retry, Settled, SettledCounts};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::control::Control;
use super::event::{Event, Id};
use super::gate::Gate;
use super::register::{Decision, Freed, Limits, Register, Write};
use super::sink::Sink;
use super::source::{Arrived, Line};
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
}

/// How often the sweepers look for expired children, and how many they remove per step.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const SWEEP_STEP: usize = 1_000;

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
    let events = lines.take_until(control.reading_stopped()).filter_map(|arrived| {
        let event = arrived.map(|arrived| pipeline.admit(arrived.into())).unwrap_or_else(|error| {
            broken = Some(error);
            None
        });
        watch(pipeline.tally.lines_read());
        std::future::ready(event)
    });
    let work = executor.by_key(|event: &Event| event.author.clone()).for_each_stream(
        events,
        |event| pipeline.event(event),
        async |_, outcome| {
            pipeline.leave(outcome);
            control.end();
        },
    );
    let outcomes = work.await;

    let report = pipeline.batcher.shutdown(None).await;
    pipeline.sink.give_up(&report.unsent, &Closed);
    pipeline.sink.give_up(&report.indeterminate, &Closed);
    for sweeper in sweepers {
        sweeper.stop().await;
    }
    pipeline.sweep();
    Ok(Summary::new(&pipeline, outcomes, broken, started.elapsed()))
}

/// What all the events in hand share.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) tally: Arc<Tally>,
    pub(super) gate: Gate,
    pub(super) register: Arc<Mutex<Register>>,
    pub(super) batcher: Batcher<Write>,
    pub(super) sink: Arc<Sink>,
    pub(super) freed: Mutex<SettledCounts>,
    followers: BatchExecutor,
    lookup: Duration,
    control: Arc<Control>,
}

/// Why an event did not take effect.
#[derive(Debug)]
enum Trouble {
    Closed,
    Database(rusqlite::Error),
}

impl Pipeline {
    fn new(config: &Config, writer: Writer, reader: Reader) -> Result<Self, ConfigError> {
        let tally = Arc::new(Tally::default());
        let register = Arc::new(Mutex::new(Register::new(reader, config.limits)?));
        let sink =
            Arc::new(Sink::new(writer, register.clone(), tally.clone(), config.control.clone()));
        let gate = if config.busy_wait { Gate::busy_wait } else { Gate::fair };
        let (handler, dead_letter) = (sink.clone(), sink.clone());
        let batcher =
            Batcher::builder()
                .max_items(config.rows)
                .window(config.window)
                .capacity(4 * config.rows)
                .retry(config.retry.clone())
                .dead_letter(move |writes: Vec<Write>, error| dead_letter.give_up(&writes, &error))
                .build(move |batch| {
                    let sink = handler.clone();
                    async move {
                        spawn_blocking(move || sink.write(batch)).await.expect("writing panicked")
                    }
                })?;
        Ok(Self {
            tally,
            gate: gate(config.permits),
            register,
            batcher,
            sink,
            freed: Mutex::default(),
            followers: BatchExecutor::new(FREED_AT_ONCE)?,
            lookup: config.lookup,
            control: config.control.clone(),
        })
    }

    /// A line comes in; what is no event leaves at once.
    fn admit(&self, arrived: Arrived) -> Option<Event> {
        let Line { number, event } = match arrived {
            Arrived::Line(line) => line,
            Arrived::Gap(lines) => {
                self.tally.dropped(lines);
                return None;
            }
        };
        self.tally.read();
        match event {
            Ok(Some(event)) => {
                self.control.begin();
                return Some(event);
            }
            Ok(None) => self.tally.count(Category::Ignored, 1),
            Err(why) => self.tally.malformed(number, &why),
        }
        None
    }

    /// An event takes effect. Returns how its line left, if it did.
    async fn event(&self, event: Event) -> Result<Option<Category>, Trouble> {
        let Event { author, change } = event;
        if !self.ensure_user(author).await? {
            return Ok(Some(Category::Abandoned));
        }
        let (done, freed) = self.decide(|register, now| register.event(change, now)).await?;
        self.follow(freed).await;
        Ok(done)
    }

    /// Whether the user is there now; not if its look-up was given up.
    async fn ensure_user(&self, did: Id) -> Result<bool, Trouble> {
        if self.register.lock().unwrap().has_user(&did)? {
            return Ok(true);
        }
        // Within the block, so that the time runs from when there is a permit.
        let look_up = self.gate.pass(async { tokio::time::sleep(self.lookup).await });
        tokio::select! {
            biased;
            () = self.control.look_ups_given_up() => return Ok(false),
            () = look_up => {}
        }
        let (_, freed) = self.decide(|register, _| Ok(register.user(did))).await?;
        self.follow(freed).await;
        Ok(true)
    }

    /// Takes a decision and carries it out, in one step: room in the batcher is reserved before, so
    /// that nothing has to wait between the two and the batcher accepts in the order of decisions.
    async fn decide(
        &self,
        decide: impl FnOnce(&mut Register, std::time::Instant) -> rusqlite::Result<Decision>,
    ) -> Result<(Option<Category>, Vec<Freed>), Trouble> {
        let slot = self.batcher.reserve().await?;
        let mut register = self.register.lock().unwrap();
        let now = Instant::now().into_std();
        let Decision { write, freed, left, done } = decide(&mut register, now)?;
        if let Some((category, lines)) = left {
            self.tally.count(category, lines);
        }
        let refused = write.and_then(|write| slot.send(write).err());
        drop(register);
        if let Some(refused) = refused {
            self.sink.give_up(&[refused.into_inner()], &Closed);
        }
        Ok((done, freed))
    }

    /// Sends children that waited for a parent to the batcher, after it.
    async fn follow(&self, freed: Vec<Freed>) {
        if freed.is_empty() {
            return;
        }
        let arrive = |freed| async {
            self.decide(|register, _| Ok(register.arrived(freed))).await.map(|(done, _)| done)
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
            Err(error) => self.tally.failed(1, &error),
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
        register.all_waiting().into_iter().map(sweep).collect()
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
        }
    }
}

impl std::error::Error for Trouble {}
