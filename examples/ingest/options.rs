//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::program::number;

/// Reads Bluesky Jetstream events into a SQLite database, through bounded primitives from end to
/// end, and accounts for every line.
///
/// After a crash or a signal, run it again from the beginning of the same input into the same --db:
/// what is stored already counts as duplicate, and the tables come out as if nothing had happened.
///
/// Operations that still wait for their parent at the end of a run are held in memory alone: a run
/// that goes on with another part of the input does not know them, and their rows will be missing. The
/// end of the run says how many there are.
///
/// Exit status 1 also means that a line could not be written, that the input broke off, or that all
/// lines were malformed.
#[derive(Debug, Clone, Parser)]
#[command(name = "ingest", version)]
pub struct Options {
    /// JSON lines to read, or `-` for standard input; without it, generated events
    #[arg(long, value_name = "FILE", conflicts_with_all = ["events", "seed"])]
    pub input: Option<PathBuf>,

    /// Database to write or to go on with; without it, a temporary one
    #[arg(long, value_name = "PATH")]
    pub db: Option<PathBuf>,

    /// Go on where the last run with --resume into this --db ended, however it did
    #[arg(long, requires = "db")]
    pub resume: bool,

    /// Events to generate
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    pub events: u64,

    /// What the generated events follow from
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,

    /// Users created at once
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = number(1..=1_000_000))]
    pub permits: u64,

    /// What creating a user costs, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2)]
    pub lookup_ms: u64,

    /// Parents waited for at once [default: 10000 posts and 5000 users]
    #[arg(long, value_name = "N", value_parser = number(1..=u32::MAX.into()))]
    pub pending_keys: Option<u64>,

    /// Operations that wait for one parent
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = number(1..=u32::MAX.into()))]
    pub pending_items: u64,

    /// Seconds after its arrival for which an operation waits for its parent
    #[arg(long, value_name = "SECONDS", default_value_t = 24 * 60 * 60,
          value_parser = number(1..=u64::MAX))]
    pub ttl: u64,

    /// Seconds for which look-ups are waited for after a signal; the lines whose look-up is not done
    /// by then are abandoned
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = number(0..=3_600))]
    pub grace: u64,

    /// Simulate a source that does not wait: when 10000 lines stand in front of the workers, the
    /// oldest 20 % of them are dropped, but for deletes
    #[arg(long)]
    pub live: bool,

    /// Lines a second that come from it
    #[arg(long, value_name = "N", default_value_t = 20_000, requires = "live",
          value_parser = number(1..=1_000_000_000))]
    pub rate: u64,

    /// Print the summary as one flat JSON object
    #[arg(long)]
    pub json: bool,

    /// Gate the creation of users by polling with a sleep instead of the semaphore, to compare
    #[arg(long)]
    pub busy_wait: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        <Options as clap::CommandFactory>::command().debug_assert();
    }
}
