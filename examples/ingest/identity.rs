//! Which input a checkpoint is of, so that a run does not go on in the middle of another one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// How much of a file is compared, at most.
const HEAD: u64 = 64 * 1024;

/// What an input is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Identity {
    /// A file, by the beginning of what it holds: it may grow, and be renamed.
    File {
        /// What it was called, for messages.
        name: String,
        /// How many bytes of it are compared.
        head_bytes: u64,
        /// Their hash.
        head_hash: u64,
    },
    /// Generated lines, of which there may be more.
    Generated {
        /// What they follow from.
        seed: u64,
    },
    /// A live stream.
    Stream {
        /// Where it comes from.
        url: String,
        /// The cursor with which the first run began.
        since: u64,
    },
}

impl Identity {
    /// That of a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is none that can be read again.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let size = size(path)?;
        Self::of_head(path, size.min(HEAD))
    }

    fn of_head(path: &Path, head_bytes: u64) -> io::Result<Self> {
        let mut head = Vec::new();
        File::open(path)?.take(head_bytes).read_to_end(&mut head)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self::File { name, head_bytes, head_hash: fnv1a(&head) })
    }

    /// Refuses a file that does not begin as this one did, or of which less is there than was read.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in one line.
    pub fn check_file(&self, path: &Path, was_read: u64) -> io::Result<()> {
        let Self::File { head_bytes, head_hash, .. } = self else {
            return Err(self.is_another());
        };
        let (size, was_read) = (size(path)?, was_read.max(*head_bytes));
        if size < was_read {
            return Err(shrank(size, was_read, "bytes"));
        }
        match Self::of_head(path, *head_bytes)? {
            Self::File { head_hash: found, .. } if found == *head_hash => Ok(()),
            _ => Err(self.is_another()),
        }
    }

    /// Refuses generated lines that are others, or fewer than were read.
    ///
    /// # Errors
    ///
    /// What is wrong with them, in one line.
    pub fn check_generated(&self, seed: u64, lines: u64, were_read: u64) -> io::Result<()> {
        if *self != (Self::Generated { seed }) {
            return Err(self.is_another());
        }
        if lines < were_read { Err(shrank(lines, were_read, "lines")) } else { Ok(()) }
    }

    /// Refuses a stream that comes from elsewhere. Returns the cursor with which the first run began.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in one line.
    pub fn check_stream(&self, url: &str) -> io::Result<u64> {
        match self {
            Self::Stream { url: before, since } if before == url => Ok(*since),
            _ => Err(self.is_another()),
        }
    }

    fn is_another(&self) -> io::Error {
        let what = match self {
            Self::File { name, .. } => format!("a file called {name}, which began otherwise"),
            Self::Generated { seed } => format!("generated lines of seed {seed}"),
            Self::Stream { url, .. } => format!("the stream of {url}"),
        };
        io::Error::other(format!(
            "the checkpoint in the database is of another input, {what}: go on with that, or choose \
             another --db"
        ))
    }
}

fn shrank(size: u64, was_read: u64, unit: &str) -> io::Error {
    io::Error::other(format!("the input shrank: it has {size} {unit}, and {was_read} were read"))
}

fn size(path: &Path) -> io::Result<u64> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    Err(io::Error::other("--resume needs a file, which can be read again from where a run ended"))
}

/// A hash that is the same in every version of the program.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
