//! The program: from arguments to exit status.

use std::ffi::OsString;
use std::io::{self, Write};
use std::time::Duration;

use super::client::Error;
use super::load::{self, Load};
use super::options::Options;
use super::outlet::Framing;
use super::report::Report;
use super::server::{Config, Server};
use crate::program;

/// Runs the program and returns its exit status: 0 if all that was sent arrived in order, 1 if not,
/// 2 if the arguments are no good or the server cannot run, with one line on `err`.
///
/// Ctrl-C, or SIGTERM on Unix, stops the server, which delivers what it has accepted and closes each
/// connection. A second one ends the process with status 130. A load it ends at once.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    program::run(arguments, out, err, |options: Options, out, _| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(start(&options, out))
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
    program::print(out, &format_args!("{report}\n"))?;
    Ok(if report.is_whole() { program::WELL } else { program::AMISS })
}

async fn serve(options: &Options, window: Duration, out: &mut dyn Write) -> Result<u8, Error> {
    let interrupted = program::interrupted()?;
    let listen = options.listen;
    let server = Server::start(listen, Config::new(Framing::Batched(window)))
        .await
        .map_err(|error| format!("{listen}: {error}"))?;
    let address = server.address();
    let greeting = format_args!("open http://{address}/ in a browser; Ctrl-C stops the server\n");
    program::print(out, &greeting)?;
    interrupted.await;
    let figures = server.stop().await;
    let summary = format_args!(
        "{} messages accepted and {} delivered in {} frames: {} frames saved; \
         {} clients were closed as too slow\n",
        figures.accepted,
        figures.messages,
        figures.frames,
        figures.frames_saved(),
        figures.too_slow,
    );
    program::print(out, &summary)?;
    Ok(if figures.lost == 0 { program::WELL } else { program::AMISS })
}

/// [`run`] with the arguments and the streams of this process.
pub fn main() -> std::process::ExitCode {
    run(std::env::args_os(), &mut io::stdout().lock(), &mut io::stderr()).into()
}
