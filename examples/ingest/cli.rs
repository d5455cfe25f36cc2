//! The program: from arguments to exit status.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use sluicegate::{ConfigError, Retry};

use super::generator::Generator;
use super::live;
use super::options::Options;
use super::pipeline::{self, Config};
use super::register::Limits;
use super::source::{self, RawLines};
use super::store;
use super::summary::Summary;
use crate::program;

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
    program::run(arguments, out, err, |options: Options, out, err| {
        let summary = ingest(&options)?;
        report(&options, summary, out, err)
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
        None => Ok(if summary.adds_up() { program::WELL } else { program::AMISS }),
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
        let stop = program::interrupted().map_err(|error| format!("the signals: {error}"))?;
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

/// [`run`] with the arguments and the streams of this process.
pub fn main() -> std::process::ExitCode {
    run(std::env::args_os(), &mut io::stdout().lock(), &mut io::stderr()).into()
}
