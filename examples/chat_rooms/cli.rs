//! The program: from arguments to exit status.

use std::ffi::OsString;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;
use tokio::net::lookup_host;
use tokio::time::{MissedTickBehavior, interval_at};

use super::load::{self, Load};
use super::options::Options;
use super::outbox::Bounds;
use super::publisher::Framing;
use super::report::Report;
use super::server::{Config, SPARE_CONNECTIONS, Server};
use super::stats::Stats;
use crate::program::signals::{self, Interrupt};
use crate::program::{self, Error, open_files};

/// The most clients if it is not said how many.
const CLIENTS: u64 = 10_000;

/// Files that the program has open beside its connections.
const OTHER_FILES: u64 = 32;

/// How often the server logs what has changed.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Runs the program and returns its exit status, with one line on `err` if something failed.
///
/// A signal stops the server, which delivers what it has accepted and closes each connection; a load
/// it breaks off. A second one ends either at once.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    program::run(arguments, out, err, |options: Options, out, _| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let work = async |interrupt: Interrupt| match options.clients {
            None => serve(&options, interrupt, out).await,
            Some(clients) => put_under_load(&options, clients, interrupt, out).await,
        };
        signals::run(runtime, work)?.unwrap_or(Ok(program::ABANDONED))
    })
}

async fn put_under_load(
    options: &Options,
    clients: u64,
    interrupt: Interrupt,
    out: &mut dyn Write,
) -> Result<u8, Error> {
    let window = Duration::from_millis(options.window_ms);
    let load = Load {
        clients: clients as usize,
        rooms: options.rooms as usize,
        rate: options.rate as u32,
        seconds: options.seconds as u32,
    };
    // Both ends of each connection.
    let needed = 2 * clients + u64::from(SPARE_CONNECTIONS) + OTHER_FILES;
    let allowed = open_files::raise_limit(needed);
    if allowed < needed {
        return Err(too_few_files(clients, needed, allowed));
    }
    let loads = async {
        let per_window = load::run(&load, config(options, clients, Framing::Batched(window)));
        let batched = per_window.await.map_err(Error::failed)?;
        let per_message = load::run(&load, config(options, clients, Framing::PerMessage));
        let one_by_one = per_message.await.map_err(Error::failed)?;
        Ok::<_, Error>(Report { load, window, batched, one_by_one })
    };
    let report = tokio::select! {
        biased;
        () = interrupt.first() => return Err(Error::failed("interrupted: the load was broken off")),
        report = loads => report?,
    };
    let text = if options.json { report.to_json().to_string() } else { report.to_string() };
    program::print(out, &format_args!("{text}\n"))?;
    if report.is_whole() {
        Ok(program::DONE)
    } else {
        Err(Error::failed("not every message arrived, in order, at every client"))
    }
}

fn config(options: &Options, clients: u64, framing: Framing) -> Config {
    Config {
        clients: clients as u32,
        outbox: Bounds {
            frames: options.outbox_frames as usize,
            bytes: options.outbox_kib as usize * 1_024,
        },
        outboxes_bytes: options.outboxes_mib as usize * 1_024 * 1_024,
        origins: options.origin.clone(),
        ..Config::new(framing)
    }
}

fn too_few_files(clients: u64, needed: u64, allowed: u64) -> Error {
    Error::Unusable(format!(
        "{clients} clients take {needed} open files, and {allowed} are allowed: see `ulimit -n`"
    ))
}

async fn serve(options: &Options, interrupt: Interrupt, out: &mut dyn Write) -> Result<u8, Error> {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(options.log)
        .with_target(false)
        .with_ansi(false)
        .with_writer(io::stderr)
        .finish();
    // Within a test it may be set already.
    let _ = tracing::subscriber::set_global_default(subscriber);
    let clients = max_clients(options)?;
    let server = start(options, clients).await?;
    let address = server.address();
    tracing::info!("serving at {address}, for {clients} clients at most");
    if !options.json {
        let text = format_args!("open http://{address}/ in a browser; Ctrl-C stops the server\n");
        program::print(out, &text)?;
    }
    tokio::select! {
        () = interrupt.first() => {}
        never = log_changes(&server) => match never {},
    }
    tracing::info!(clients = server.clients(), "stopping; a second signal ends it at once");
    let stats = server.stop().await;
    program::print(out, &format_args!("{}\n", closing_line(&stats, options.json)))?;
    match stats.lost {
        0 => Ok(program::DONE),
        lost => Err(Error::Failed(format!("{lost} messages that were accepted were lost"))),
    }
}

/// As many as were asked for, or as open files allow.
fn max_clients(options: &Options) -> Result<u64, Error> {
    let others = u64::from(SPARE_CONNECTIONS) + OTHER_FILES;
    let wanted = options.max_clients.unwrap_or(CLIENTS);
    let allowed = open_files::raise_limit(wanted + others);
    if allowed >= wanted + others {
        return Ok(wanted);
    }
    match (options.max_clients, allowed.saturating_sub(others)) {
        (Some(_), _) | (None, 0) => Err(too_few_files(wanted, wanted + others, allowed)),
        (None, clients) => {
            tracing::warn!("{allowed} open files are allowed: no more than {clients} clients");
            Ok(clients)
        }
    }
}

/// At the first address of the name that it can listen at.
async fn start(options: &Options, clients: u64) -> Result<Server, Error> {
    let listen = &options.listen;
    let window = Duration::from_millis(options.window_ms);
    let unusable = |error: io::Error| Error::Unusable(format!("{listen}: {error}"));
    let mut why = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in lookup_host(listen).await.map_err(unusable)? {
        match Server::start(address, config(options, clients, Framing::Batched(window))).await {
            Ok(server) => return Ok(server),
            Err(error) => why = error,
        }
    }
    Err(unusable(why))
}

async fn log_changes(server: &Server) -> std::convert::Infallible {
    let mut last = (server.clients(), server.stats());
    let mut ticks = interval_at(tokio::time::Instant::now() + REPORT_EVERY, REPORT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = (server.clients(), server.stats());
        if now != last {
            let (clients, stats) = &now;
            let Stats { accepted, messages, frames, too_slow, .. } = stats;
            let Stats { full, forbidden, timed_out, malformed, .. } = stats;
            tracing::info!(
                clients, accepted, messages, frames, too_slow, full, forbidden, timed_out,
                malformed
            );
            last = now;
        }
    }
}

fn closing_line(stats: &Stats, json: bool) -> String {
    let Stats { accepted, messages, frames, too_slow, lost, .. } = stats;
    let saved = stats.frames_saved();
    if json {
        let Stats { full, forbidden, timed_out, malformed, .. } = stats;
        return json!({
            "accepted": accepted,
            "delivered": messages,
            "lost": lost,
            "frames": frames,
            "frames_saved": saved,
            "too_slow": too_slow,
            "full": full,
            "forbidden": forbidden,
            "timed_out": timed_out,
            "malformed": malformed,
        })
        .to_string();
    }
    format!(
        "{accepted} messages accepted and {messages} delivered in {frames} frames: \
         {saved} frames saved; {too_slow} clients were closed as too slow"
    )
}

/// [`run`] with the arguments and the streams of this process.
pub fn main() -> std::process::ExitCode {
    run(std::env::args_os(), &mut io::stdout().lock(), &mut io::stderr()).into()
}
