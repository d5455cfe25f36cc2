//! What is read, as the command line names it.

use std::io;
use std::path::{Path, PathBuf};

use super::generator::Generator;
use super::identity::Identity;
use super::options::Options;
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
}

impl Input {
    /// The one that was chosen.
    pub fn new(options: &Options) -> Self {
        match options.input.as_deref() {
            None => Self::Generated { seed: options.seed, lines: options.events },
            Some(path) if path == Path::new("-") => Self::StandardInput,
            Some(path) => Self::File(path.to_owned()),
        }
    }

    /// Its lines from `start` on.
    ///
    /// # Errors
    ///
    /// If it cannot be opened or read.
    pub fn lines(&self, start: Place) -> io::Result<RawLines> {
        match self {
            Self::File(path) => source::file(path, start).map_err(|error| self.named(&error)),
            Self::StandardInput => Ok(source::standard_input()),
            Self::Generated { seed, lines } => {
                Ok(source::generated(Generator::new(*seed, *lines), start))
            }
        }
    }

    /// What it is known by.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or not a second time.
    pub fn identity(&self) -> io::Result<Identity> {
        match self {
            Self::File(path) => Identity::of_file(path).map_err(|error| self.named(&error)),
            Self::StandardInput => {
                Err(io::Error::other("--resume needs a file: standard input is read only once"))
            }
            Self::Generated { seed, .. } => Ok(Identity::Generated { seed: *seed }),
        }
    }

    /// Refuses it if it is not that input, or less of it is there than was read.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in one line.
    pub fn check(&self, identity: &Identity, was_read: u64) -> io::Result<()> {
        match self {
            Self::File(path) => {
                identity.check_file(path, was_read).map_err(|error| self.named(&error))
            }
            Self::StandardInput => Ok(()),
            Self::Generated { seed, lines } => identity.check_generated(*seed, *lines, was_read),
        }
    }

    fn named(&self, error: &io::Error) -> io::Error {
        match self {
            Self::File(path) => {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            }
            Self::StandardInput | Self::Generated { .. } => io::Error::other(error.to_string()),
        }
    }
}
