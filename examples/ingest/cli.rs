//! The program: from arguments to exit status.

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use futures_util::{Stream, StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use sluicegate::{ConfigError, Retry};
use tokio::sync::oneshot;

use super::generator::Generator;
use super::live;
use super::options::Options;
use super::pipeline::{self, Config};
use super::register::Limits;
use super::source::{self, RawLines};
use super::store;
use super::summary::Summary;

/// Every line ended in exactly one way.
const BALANCED: u8 = 0;
/// What was read and what ended differ.
const UNBALANCED: u8 = 1;
/// Arguments, input or database are no good.
const UNUSABLE: u8 = 2;
/// A second Ctrl-C: what a shell reports for a program that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Runs the program and returns its exit status: 0 if every line that was read ended in exactly one
/// way, 1 if not, 2 if the arguments, the input or the database are no good, with one line on `err`.
///
/// Ctrl-C, or SIGTERM on Unix, ends the input; what has been read is carried through, and the
/// summary comes. A second one ends the process with status 130, whatever is still in hand.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let status = match Options::try_parse_from(arguments) {
        Ok(options) => ingest(&options).and_then(|summary| report(&options, summary, out, err)),
        Err(error) if !error.use_stderr() => {
            match write!(out, "{error}").and_then(|()| out.flush()) {
                // Whoever closes the pipe has read enough of the help.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
                _ => Ok(BALANCED),
            }
        }
        Err(error) => {
            let text = error.to_string();
            let what = text.lines().map(str::trim).take_while(|line| !line.is_empty());
            let line = what.collect::<Vec<_>>().join(" ");
            Err(line.trim_start_matches("error: ").to_owned())
        }
    };
    status.unwrap_or_else(|error| {
        // Nobody is left to tell if this fails.
        let _ = writeln!(err, "ingest: {error}");
        UNUSABLE
    })
}

fn report(
    options: &Options,
    summary: Summary,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, String> {
    for line in &summary.malformed {
        let _ = writeln!(err, "malformed {line}");
    }
    let text = if options.json { summary.to_json().to_string() } else { summary.to_string() };
    let printed = writeln!(out, "{text}").and_then(|()| out.flush());
    printed.map_err(|error| format!("the summary: {error}"))?;
    match summary.broken {
        Some(error) => Err(format!("the input broke off: {error}")),
        None => Ok(if summary.adds_up() { BALANCED } else { UNBALANCED }),
    }
}

fn ingest(options: &Options) -> Result<Summary, String> {
    let raw = input(options)?;
    let (path, _temporary) = match &options.db {
        Some(path) => (path.clone(), None),
        None => {
            let folder = tempfile::tempdir().map_err(|error| format!("a new folder: {error}"))?;
            (folder.path().join("ingest.db"), Some(folder))
        }
    };
    let database = store::open(&path).map_err(|error| match error {
        rusqlite::Error::SqlInputError { msg, .. } => {
            format!("{}: a table has another shape: {msg}", path.display())
        }
        error => format!("{}: {error}", path.display()),
    })?;
    let config = config(options).map_err(|error| error.to_string())?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime: {error}"))?;
    let bar = progress_bar(options);
    let summary = runtime.block_on(async {
        let stop = interrupted().map_err(|error| format!("the signals: {error}"))?;
        let watch = |read| bar.set_position(read);
        let run = if options.live {
            let queue = live::queue(live::PLACES).map_err(|error| error.to_string())?;
            let lines = live::lines(raw, stop, queue.clone(), options.rate);
            let run = pipeline::run(&config, database, lines, watch).await;
            run.map(|summary| Summary { queue: Some(queue.stats()), ..summary })
        } else {
            pipeline::run(&config, database, source::lines(raw, stop), watch).await
        };
        run.map_err(|error| in_terms_of_options(&error))
    });
    bar.finish_and_clear();
    summary
}

/// The same with the names that the caller knows; all other fields have values that are fine.
fn in_terms_of_options(error: &ConfigError) -> String {
    let text = error.to_string();
    text.replace("max_items_per_key", "--pending-items").replace("max_keys", "--pending-keys")
}

fn input(options: &Options) -> Result<RawLines, String> {
    match options.input.as_deref() {
        None => Ok(source::generated(Generator::new(options.seed, options.events))),
        Some(path) if path == Path::new("-") => Ok(source::standard_input()),
        Some(path) => source::file(path).map_err(|error| format!("{}: {error}", path.display())),
    }
}

fn config(options: &Options) -> Result<Config, ConfigError> {
    let limits = Limits {
        posts: options.pending_keys.unwrap_or(10_000),
        users: options.pending_keys.unwrap_or(5_000),
        items: options.pending_items,
        time_to_live: Duration::from_secs(options.ttl),
    };
    Ok(Config {
        permits: options.permits,
        busy_wait: options.busy_wait,
        lookup: Duration::from_millis(options.lookup_ms),
        limits,
        in_hand: 256,
        rows: 500,
        window: Duration::from_millis(50),
        retry: Retry::exponential(4, Duration::from_millis(20), Duration::from_millis(80))?,
    })
}

/// On a terminal only: where standard error goes elsewhere, nothing is drawn.
fn progress_bar(options: &Options) -> ProgressBar {
    let (bar, style) = match options.input {
        None => (ProgressBar::new(options.events), "{wide_bar} {human_pos}/{human_len} {per_sec}"),
        Some(_) => (ProgressBar::new_spinner(), "{spinner} {human_pos} lines {per_sec}"),
    };
    bar.with_style(ProgressStyle::with_template(style).expect("a template that indicatif knows"))
}

/// Done at the first signal; the second one ends the program without a summary. A task of its own
/// listens from now on, because nobody looks at the input while the pipeline is full or drains.
fn interrupted() -> io::Result<impl Future<Output = ()> + Send> {
    let mut signals = signals()?;
    let (first, told) = oneshot::channel();
    tokio::spawn(async move {
        signals.next().await;
        // If the input has ended already, there is nobody to tell.
        let _ = first.send(());
        signals.next().await;
        std::process::exit(INTERRUPTED);
    });
    Ok(async {
        // The task never drops its end without a word.
        let _ = told.await;
    })
}

/// Ctrl-C, and SIGTERM, with which a supervisor asks for the same.
#[cfg(unix)]
fn signals() -> io::Result<impl Stream<Item = ()> + Send + Unpin> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(stream::select(
        stream::poll_fn(move |cx| interrupt.poll_recv(cx)),
        stream::poll_fn(move |cx| terminate.poll_recv(cx)),
    ))
}

/// Ctrl-C.
#[cfg(windows)]
fn signals() -> io::Result<impl Stream<Item = ()> + Send + Unpin> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(stream::poll_fn(move |cx| interrupt.poll_recv(cx)))
}

/// [`run`] with the arguments and the streams of this process.
pub fn main() -> std::process::ExitCode {
    run(std::env::args_os(), &mut io::stdout().lock(), &mut io::stderr()).into()
}
