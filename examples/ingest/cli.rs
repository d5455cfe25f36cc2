//! The program: from arguments to exit status.

use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use indicatif::ProgressBar;
use sluicegate::{ConfigError, Retry};

use super::identity::Identity;
use super::input::{Input, Lines};
use super::jetstream;
use super::journal::{self, Progress, Unreadable};
use super::live;
use super::options::Options;
use super::pipeline::{self, Config};
use super::recent::Seen;
use super::register::Limits;
use super::source::{self, Arrived, Line};
use super::store::{self, Writer};
use super::summary::Summary;
use super::tally::Category;
use crate::program::database::{self, Location};
use crate::program::signals::{self, Interrupt};
use crate::program::{self, Error, progress};

/// Runs the program and returns its exit status, with one line on `err` if something failed.
///
/// A signal ends the input; what has been read is carried through, and the summary comes. A second one
/// ends the run, whatever is still in hand.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    program::run(arguments, out, err, |options: Options, out, err| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let work = async |interrupt| {
            let summary = ingest(&options, interrupt, err).await?;
            report(&options, summary, out, err)
        };
        signals::run(runtime, work)?.unwrap_or(Ok(program::ABANDONED))
    })
}

fn report(
    options: &Options,
    summary: Summary,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Error> {
    for line in &summary.malformed {
        let _ = writeln!(err, "malformed {line}");
    }
    let text = if options.json { summary.to_json().to_string() } else { summary.to_string() };
    program::print(out, &format_args!("{text}\n"))
        .map_err(|error| Error::Failed(format!("the summary: {error}")))?;
    let waiting = summary.of(Category::Waiting);
    let complaint = summary.complaint();
    let note = if options.resume {
        summary.is_incomplete().then(|| "run it again with --resume to go on from here".to_owned())
    } else {
        (options.db.is_some() && waiting > 0).then(|| {
            format!(
                "{waiting} operations wait for a parent and are forgotten now: run the same input \
                 from its beginning, and with what follows it, to store them"
            )
        })
    };
    if let Some(note) = note {
        let _ = writeln!(err, "ingest: note: {note}");
    }
    match complaint {
        Some(complaint) => Err(Error::Failed(complaint)),
        None => Ok(program::DONE),
    }
}

async fn ingest(
    options: &Options,
    interrupt: Interrupt,
    err: &mut dyn Write,
) -> Result<Summary, Error> {
    let input = Input::new(options).map_err(Error::unusable)?;
    // What cannot be used is refused before there is a database.
    let mut lines = input.lines().map_err(Error::unusable)?;
    let identity = options.resume.then(|| input.identity()).transpose();
    let identity = identity.map_err(Error::unusable)?;
    let location = Location::new(options.db.as_deref(), "ingest.db")?;
    let path = location.path().to_owned();
    let opened = database::in_background(move || store::open(&path)).await;
    let (mut writer, reader) = opened.map_err(|error| unusable(&location, error))?;
    let mut config = config(options).map_err(Error::unusable)?;
    if let Some(identity) = identity {
        let (progress, seen) = progress_of(&mut writer, &location, identity)?;
        let rest = input.rest(progress, seen, config.in_flight()).map_err(Error::unusable)?;
        config.ledger = Some(Arc::new(rest.0));
        lines = rest.1;
    }
    let database = (writer, reader);
    let generated = matches!(input, Input::Generated { .. });
    let bar = progress::bar(generated.then_some(options.events), "lines");
    let watch = |read| bar.set_position(read);

    let interrupted = Arc::new(AtomicBool::new(false));
    let (first, flag) = (interrupt.first(), interrupted.clone());
    let stop = async move {
        first.await;
        // Not polled after the last line: then the signal has kept nothing from being read.
        flag.store(true, Ordering::Relaxed);
    };
    let recent = match &lines {
        Lines::Stream(_, _, recent) => Some(recent.clone()),
        Lines::Read(_) => None,
    };
    let queue = options.live.then(|| live::queue(live::PLACES)).transpose();
    let queue = queue.map_err(Error::unusable)?;
    let lines = arrivals(lines, stop, queue.clone(), options.rate);
    let work = pipeline::run(&config, database, lines, watch);
    let grace = Duration::from_secs(options.grace);
    let summary = tokio::select! {
        summary = work => summary,
        never = drain(&interrupt, &config, grace, &bar, err) => match never {},
    };
    bar.finish_and_clear();
    let mut summary = summary.map_err(|error: ConfigError| in_terms_of_options(&error))?;
    // A live stream has no other end.
    summary.interrupted = recent.is_none() && interrupted.load(Ordering::Relaxed);
    summary.queue = queue.map(|queue| queue.stats());
    summary.redelivered = recent.map(|recent| recent.redelivered());
    summary.failure = summary.failure.map(|why| location.named(why));
    Ok(summary)
}

/// The lines as they reach the pipeline, through the queue if they are not to wait.
fn arrivals(
    lines: Lines,
    stop: impl Future<Output = ()> + Send + 'static,
    queue: Option<Arc<live::Queue>>,
    rate: u64,
) -> BoxStream<'static, io::Result<Arrived>> {
    let waiting = |line: io::Result<Line>| line.map(Arrived::Line);
    match (lines, queue) {
        (Lines::Read(raw), None) => source::lines(raw, stop).map(waiting).boxed(),
        (Lines::Read(raw), Some(queue)) => live::lines(raw, stop, queue, rate).boxed(),
        (Lines::Stream(config, start, recent), None) => {
            let lines = jetstream::lines(config, start, recent);
            lines.take_until(stop).map(waiting).boxed()
        }
        (Lines::Stream(config, start, recent), Some(queue)) => {
            live::stream(jetstream::lines(config, start, recent), stop, queue).boxed()
        }
    }
}

/// At the first signal, says what is left; after the grace, gives up what is still looked up.
async fn drain(
    interrupt: &Interrupt,
    config: &Config,
    grace: Duration,
    bar: &ProgressBar,
    err: &mut dyn Write,
) -> std::convert::Infallible {
    let control = &config.control;
    interrupt.first().await;
    // If this fails there is no place left to report to.
    let mut say = |text: std::fmt::Arguments<'_>| {
        let _ = bar.suspend(|| writeln!(err, "ingest: {text}"));
    };
    let left = control.left();
    say(format_args!(
        "interrupted: finishing the {left} lines that were read, for {grace:?} as far as they look \
         up their authors; a second signal ends it at once"
    ));
    tokio::time::sleep(grace).await;
    let left = control.left();
    say(format_args!("gives up look-ups, with {left} lines left"));
    if config.ledger.is_some() {
        // What is abandoned takes up room until the next run, which does better with the rest, too.
        control.stop_reading();
    }
    control.give_up_look_ups();
    std::future::pending().await
}

/// The same with the names that the caller knows; all other fields have values that are fine.
fn in_terms_of_options(error: &ConfigError) -> Error {
    let text = error.to_string();
    Error::Unusable(
        text.replace("max_items_per_key", "--pending-items").replace("max_keys", "--pending-keys"),
    )
}

fn unusable(location: &Location, error: rusqlite::Error) -> Error {
    Error::Unusable(match error {
        rusqlite::Error::SqlInputError { msg, .. } => {
            location.named(format_args!("a table has another shape: {msg}"))
        }
        error => location.named(error),
    })
}

/// How far the runs before this one have come, and which events of a live stream came lately.
fn progress_of(
    writer: &mut Writer,
    location: &Location,
    input: Identity,
) -> Result<(Progress, Vec<Seen>), Error> {
    let load = || {
        let transaction = writer.begin()?;
        let progress = Progress::begin(&transaction, input)?;
        let seen = journal::done_recently(&transaction, &progress.checkpoint)?;
        transaction.commit()?;
        Ok((progress, seen))
    };
    load().map_err(|error| match error {
        Unreadable::Database(error) => unusable(location, error),
        damaged @ Unreadable::Damaged(_) => Error::Unusable(location.named(damaged)),
    })
}

fn config(options: &Options) -> Result<Config, ConfigError> {
    let limits = Limits {
        posts: options.pending_keys.unwrap_or(10_000) as usize,
        users: options.pending_keys.unwrap_or(5_000) as usize,
        items: options.pending_items as usize,
        time_to_live: Duration::from_secs(options.ttl),
    };
    Ok(Config {
        permits: options.permits as usize,
        busy_wait: options.busy_wait,
        lookup: Duration::from_millis(options.lookup_ms),
        limits,
        in_hand: 256,
        rows: 500,
        window: Duration::from_millis(50),
        retry: Retry::exponential(4, Duration::from_millis(20), Duration::from_millis(80))?,
        control: Arc::default(),
        ledger: None,
    })
}

/// [`run`] with the arguments and the streams of this process.
pub fn main() -> std::process::ExitCode {
    run(std::env::args_os(), &mut io::stdout().lock(), &mut io::stderr()).into()
}
