//! The program: from arguments to exit status.

use std::ffi::OsString;
use std::io::{self, Write};
use std::time::Duration;

use clap::Parser;

use super::client::Error;
use super::load::{self, Load};
use super::options::Options;
use super::outlet::Framing;
use super::report::Report;
use super::server::{Config, Server};

/// Everything that was sent arrived.
const WHOLE: u8 = 0;
/// Something did not.
const BROKEN: u8 = 1;
/// The arguments are no good, or the server cannot run.
const UNUSABLE: u8 = 2;
/// A second Ctrl-C: what a shell reports for a program that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Runs the program and returns its exit status: 0 if all that was sent arrived in order, 1 if not,
/// 2 if the arguments are no good or the server cannot run, with one line on `err`.
///
/// Ctrl-C, or SIGTERM on Unix, stops the server, which delivers what it has accepted and closes each
/// connection. A second one ends the process with status 130.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let status = match Options::try_parse_from(arguments) {
        Ok(options) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(Error::from)
            .and_then(|runtime| runtime.block_on(start(&options, out))),
        Err(error) if !error.use_stderr() => {
            match write!(out, "{error}").and_then(|()| out.flush()) {
                // Whoever closes the pipe has read enough of the help.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
                _ => Ok(WHOLE),
            }
        }
        Err(error) => {
            let text = error.to_string();
            let what = text.lines().map(str::trim).take_while(|line| !line.is_empty());
            let line = what.collect::<Vec<_>>().join(" ");
            Err(line.trim_start_matches("error: ").into())
        }
    };
    status.unwrap_or_else(|error| {
        // Nobody is left to tell if this fails.
        let _ = writeln!(err, "chat_rooms: {error}");
        UNUSABLE
    })
}

async fn start(options: &Options, out: &mut dyn Write) -> Result<u8, Error> {
    let window = Duration::from_millis(options.window_ms);
    let Some(clients) = options.clients else {
        return serve(options, window, out).await;
    };
    let load = Load {
        clients: clients as usize,
        rooms: options.rooms as usize,
        rate: options.rate as u32,
        seconds: options.seconds as u32,
    };
    let batched = load::run(&load, Framing::Batched(window)).await?;
    let one_by_one = load::run(&load, Framing::OneFrameAMessage).await?;
    let report = Report { load, window, batched, one_by_one };
    writeln!(out, "{report}")?;
    out.flush()?;
    Ok(if report.is_whole() { WHOLE } else { BROKEN })
}

async fn serve(options: &Options, window: Duration, out: &mut dyn Write) -> Result<u8, Error> {
    let mut signals = Signals::new()?;
    let listen = options.listen;
    let server = Server::start(listen, Config::new(Framing::Batched(window)))
        .await
        .map_err(|error| format!("{listen}: {error}"))?;
    writeln!(out, "open http://{}/ in a browser; Ctrl-C stops the server", server.address())?;
    out.flush()?;
    signals.next().await;
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(INTERRUPTED);
    });
    let figures = server.stop().await;
    writeln!(
        out,
        "{} messages accepted and {} delivered in {} frames: {} frames saved; \
         {} clients were closed as too slow",
        figures.accepted,
        figures.messages,
        figures.frames,
        figures.frames_saved(),
        figures.too_slow,
    )?;
    out.flush()?;
    Ok(if figures.lost == 0 { WHOLE } else { BROKEN })
}

/// Ctrl-C, and SIGTERM, with which a supervisor asks for the same.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Self { interrupt: signal(interrupt)?, terminate: signal(terminate)? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Ctrl-C.
#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn new() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// [`run`] with the arguments and the streams of this process.
pub fn main() -> std::process::ExitCode {
    run(std::env::args_os(), &mut io::stdout().lock(), &mut io::stderr()).into()
}
