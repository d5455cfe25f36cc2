//! What the programs have in common: arguments, exit statuses, Ctrl-C.

use std::ffi::OsString;
use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write};

use clap::Parser;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::oneshot;

/// All is as it should be.
pub const WELL: u8 = 0;
/// The program did its work, and what came of it is not all that should have.
pub const AMISS: u8 = 1;
/// The arguments are no good, or what they name.
pub const UNUSABLE: u8 = 2;
/// A second Ctrl-C: what a shell reports for a program that SIGINT ended.
pub const INTERRUPTED: u8 = 130;

/// Reads the arguments and does the work, and returns the exit status. What goes wrong is one line on
/// `err`, and status 2.
pub fn run<O: Parser, E: Display>(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
    work: impl FnOnce(O, &mut dyn Write, &mut dyn Write) -> Result<u8, E>,
) -> u8 {
    let status = match O::try_parse_from(arguments) {
        Ok(options) => work(options, out, err).map_err(|error| error.to_string()),
        Err(error) if !error.use_stderr() => {
            print(out, &error).map(|()| WELL).map_err(|error| error.to_string())
        }
        Err(error) => Err(in_one_line(&error)),
    };
    status.unwrap_or_else(|error| {
        // Nobody is left to tell if this fails.
        let _ = writeln!(err, "{}: {error}", O::command().get_name());
        UNUSABLE
    })
}

fn in_one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let what = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let line = what.collect::<Vec<_>>().join(" ");
    line.trim_start_matches("error: ").to_owned()
}

/// Prints something.
///
/// # Errors
///
/// If it cannot be written, unless it is because nobody reads on: see [`printed`].
pub fn print(out: &mut dyn Write, what: &dyn Display) -> io::Result<()> {
    printed(write!(out, "{what}").and_then(|()| out.flush()))
}

/// What became of printing something. Whoever closes the pipe has read enough.
///
/// # Errors
///
/// If it could not be written for another reason.
pub fn printed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Done at the first Ctrl-C, or SIGTERM on Unix; the second one ends the program with status 130. A
/// task of its own listens from now on, so that the second is heard whatever the program is at.
///
/// # Errors
///
/// If the system does not tell of signals.
pub fn interrupted() -> io::Result<impl Future<Output = ()> + Send> {
    let mut signals = signals()?;
    let (first, told) = oneshot::channel();
    tokio::spawn(async move {
        signals.next().await;
        // If the work is done already, there is nobody to tell.
        let _ = first.send(());
        signals.next().await;
        std::process::exit(INTERRUPTED.into());
    });
    Ok(async {
        // The task never drops its end without a word.
        let _ = told.await;
    })
}

/// Ctrl-C, and SIGTERM, with which a supervisor asks for the same, as often as they come.
///
/// # Errors
///
/// If the system does not tell of signals.
#[cfg(unix)]
pub fn signals() -> io::Result<impl Stream<Item = ()> + Send + Unpin> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(stream::select(
        stream::poll_fn(move |cx| interrupt.poll_recv(cx)),
        stream::poll_fn(move |cx| terminate.poll_recv(cx)),
    ))
}

/// Ctrl-C, as often as it comes.
///
/// # Errors
///
/// If the system does not tell of signals.
#[cfg(windows)]
pub fn signals() -> io::Result<impl Stream<Item = ()> + Send + Unpin> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(stream::poll_fn(move |cx| interrupt.poll_recv(cx)))
}
