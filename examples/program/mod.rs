//! What the programs share: arguments, exit statuses, signals, databases, progress.

pub mod database;
pub mod open_files;
pub mod progress;
pub mod signals;

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::io::{self, Write};
use std::ops::RangeInclusive;

use clap::Parser;

/// Everything was done.
pub const DONE: u8 = 0;
/// Something failed, or the run was interrupted.
pub const FAILED: u8 = 1;
/// The arguments, or what they name, cannot be used.
pub const UNUSABLE: u8 = 2;
/// A second signal ended the run at once: what a shell reports for a program that SIGINT ended.
pub const ABANDONED: u8 = 130;

/// Columns of the help.
const COLUMNS: usize = 80;

const EXIT_STATUS: &str = "Exit status:
  0    everything was done
  1    something failed, or the run was interrupted
  2    the arguments, or what they name, cannot be used
  130  a second signal ended the run at once

Signals:
  SIGINT (Ctrl-C), SIGTERM and SIGHUP end the run in order; a second one ends it
  at once. Signals within 100 ms of each other are one.";

/// Why a program did not do its work.
#[derive(Debug)]
pub enum Error {
    /// The arguments, or what they name, cannot be used: nothing was done.
    Unusable(String),
    /// Something failed in the middle of the work.
    Failed(String),
}

impl Error {
    /// What the arguments name cannot be used.
    pub fn unusable(error: impl Display) -> Self {
        Self::Unusable(error.to_string())
    }

    /// Something failed in the middle of the work.
    pub fn failed(error: impl Display) -> Self {
        Self::Failed(error.to_string())
    }

    fn status(&self) -> u8 {
        match self {
            Self::Unusable(_) => UNUSABLE,
            Self::Failed(_) => FAILED,
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unusable(what) | Self::Failed(what)) = self;
        f.write_str(what)
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::failed(error)
    }
}

/// Reads the arguments, does the work and returns the exit status. An error is one line on `err`.
pub fn run<O: Parser>(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
    work: impl FnOnce(O, &mut dyn Write, &mut dyn Write) -> Result<u8, Error>,
) -> u8 {
    let command = O::command().term_width(COLUMNS).after_help(EXIT_STATUS);
    let name = command.get_name().to_owned();
    let parsed =
        command.try_get_matches_from(arguments).and_then(|found| O::from_arg_matches(&found));
    let status = match parsed {
        Ok(options) => work(options, out, err),
        Err(error) if !error.use_stderr() => print(out, &error).map(|()| DONE).map_err(Error::from),
        Err(error) => Err(Error::Unusable(in_one_line(&error))),
    };
    status.unwrap_or_else(|error| {
        // If this fails there is no place left to report to.
        let _ = writeln!(err, "{name}: {error}");
        error.status()
    })
}

fn in_one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let what = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let line = what.collect::<Vec<_>>().join(" ");
    line.trim_start_matches("error: ").to_owned()
}

/// A whole number within `bounds`, for clap.
pub fn number(bounds: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        let (least, most) = (bounds.start(), bounds.end());
        number.ok_or_else(|| match most {
            &u64::MAX => format!("not a whole number of {least} or more"),
            most => format!("not a whole number from {least} to {most}"),
        })
    }
}

/// Prints something.
///
/// # Errors
///
/// If it cannot be written, unless the reader has closed the pipe: see [`printed`].
pub fn print(out: &mut dyn Write, what: &dyn Display) -> io::Result<()> {
    printed(write!(out, "{what}").and_then(|()| out.flush()))
}

/// The result of printing. A reader that closes the pipe has read enough.
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
