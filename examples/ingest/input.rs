//! What is read, as the command line names it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluicegate::retry::Jitter;
use sluicegate::{ConfigError, Retry};

use super::generator::Generator;
use super::identity::Identity;
use super::jetstream;
use super::journal::Progress;
use super::ledger::Ledger;
use super::options::Options;
use super::recent::{Recent, Seen};
use super::source::{self, Place, RawLines};

/// An input.
#[derive(Debug, Clone)]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// Standard input.
    StandardInput,
    /// As many lines as that.
    Generated {
        /// What they follow from.
        seed: u64,
        /// How many.
        lines: u64,
    },
    /// A live stream.
    Stream(jetstream::Config),
}

/// The lines of an input.
pub(super) enum Lines {
    /// They are there to be read.
    Read(RawLines),
    /// They come when they come: the stream, from where on, and what came lately.
    Stream(jetstream::Config, Place, Arc<Recent>),
}

/// Attempts to connect to a server before an event comes: about a minute.
const ATTEMPTS: u32 = 12;

/// How long a server may be silent.
const QUIET: Duration = Duration::from_secs(15);

impl Input {
    /// The one that was chosen.
    ///
    /// # Errors
    ///
    /// Never, as long as the constants of this module are what they may be.
    pub fn new(options: &Options) -> Result<Self, ConfigError> {
        if let Some(url) = &options.url {
            let (first, longest) = (Duration::from_millis(100), Duration::from_secs(10));
            let retry = Retry::exponential(ATTEMPTS, first, longest)?.jitter(Jitter::Equal);
            return Ok(Self::Stream(jetstream::Config {
                url: url.clone(),
                collections: options
                    .collections
                    .iter()
                    .filter(|name| *name != "*")
                    .cloned()
                    .collect(),
                cursor: options.cursor,
                retry,
                quiet: QUIET,
            }));
        }
        Ok(match options.input.as_deref() {
            None => Self::Generated { seed: options.seed, lines: options.events },
            Some(path) if path == Path::new("-") => Self::StandardInput,
            Some(path) => Self::File(path.to_owned()),
        })
    }

    /// All of its lines.
    ///
    /// # Errors
    ///
    /// If it cannot be opened or read.
    pub(super) fn lines(&self) -> io::Result<Lines> {
        let start = Place::default();
        Ok(match self {
            Self::Stream(stream) => Lines::Stream(stream.clone(), start, Arc::default()),
            Self::File(path) => {
                Lines::Read(source::file(path, start).map_err(|error| self.named(&error))?)
            }
            Self::StandardInput => Lines::Read(source::standard_input()),
            Self::Generated { seed, lines } => {
                Lines::Read(source::generated(Generator::new(*seed, *lines), start))
            }
        })
    }

    /// What it is known by.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or not a second time.
    pub fn identity(&self) -> io::Result<Identity> {
        Ok(match self {
            Self::File(path) => Identity::of_file(path).map_err(|error| self.named(&error))?,
            Self::StandardInput => {
                let why = "--resume needs a file: standard input is read only once";
                return Err(io::Error::other(why));
            }
            Self::Generated { seed, .. } => Identity::Generated { seed: *seed },
            Self::Stream(stream) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let now = now.as_micros().try_into().unwrap_or(u64::MAX);
                // Without it, what comes before the first commit would not be known after a crash.
                Identity::Stream { url: stream.url.clone(), since: stream.cursor.unwrap_or(now) }
            }
        })
    }

    /// The lines that are not done: makes the ledger of the run, too. `seen` came lately, if this is a
    /// live stream.
    ///
    /// # Errors
    ///
    /// If the progress is of another input, or less of this is there than was read; or if it cannot be
    /// read.
    pub(super) fn rest(
        &self,
        progress: Progress,
        seen: Vec<Seen>,
        in_flight: usize,
    ) -> io::Result<(Ledger, Lines)> {
        let ledger =
            |progress, recent| Ledger::new(progress, recent, in_flight).map_err(io::Error::other);
        let (input, was_read) = (progress.input.clone(), progress.read_to);
        Ok(match self {
            Self::File(path) => {
                let checked = input.check_file(path, was_read);
                checked.map_err(|error| self.named(&error))?;
                let ledger = ledger(progress, None)?;
                let lines = source::file(path, ledger.start());
                let lines = ledger.not_done(lines.map_err(|error| self.named(&error))?);
                (ledger, Lines::Read(lines))
            }
            Self::Generated { seed, lines } => {
                input.check_generated(*seed, *lines, was_read)?;
                let ledger = ledger(progress, None)?;
                let lines = source::generated(Generator::new(*seed, *lines), ledger.start());
                let lines = ledger.not_done(lines);
                (ledger, Lines::Read(lines))
            }
            Self::Stream(stream) => {
                let cursor = Some(input.check_stream(&stream.url)?);
                let recent = Arc::new(Recent::restored(seen));
                let ledger = ledger(progress, Some(recent.clone()))?;
                let start = Place { line: ledger.last_done(), ..ledger.start() };
                let stream = jetstream::Config { cursor, ..stream.clone() };
                (ledger, Lines::Stream(stream, start, recent))
            }
            Self::StandardInput => {
                return Err(io::Error::other("standard input is read only once"));
            }
        })
    }

    fn named(&self, error: &io::Error) -> io::Error {
        match self {
            Self::File(path) => {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            }
            _ => io::Error::other(error.to_string()),
        }
    }
}
