//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::program::number;

/// Reads Bluesky Jetstream events into a SQLite database, through bounded primitives from end to
/// end, and accounts for every line.
///
/// After a crash or a signal, run it again with --resume into the same --db: it goes on where it was. The
/// transaction that writes rows also stores which lines are done with it, how they ended and which
/// operations wait for their parent; the summary counts all runs together. What fails stops such a run,
/// and is done by the next one.
///
/// Without --resume, run it again from the beginning of the same input: what is stored already counts as
/// duplicate, and the tables come out as if nothing had happened. Operations that still wait for their
/// parent at the end of a run are held in memory alone: a run that goes on with another part of the input
/// does not know them, and their rows will be missing. The end of the run says how many there are.
///
/// Exit status 1 also means that a line could not be written, that the input broke off, or that all
/// lines were malformed. A live stream has no end: a signal ends it with status 0.
#[derive(Debug, Clone, Parser)]
#[command(name = "ingest", version)]
pub struct Options {
    /// JSON lines to read, or `-` for standard input; without it, generated events
    #[arg(long, value_name = "FILE", conflicts_with_all = ["events", "seed"])]
    pub input: Option<PathBuf>,

    /// Jetstream server to read the live stream of, until a signal: ws://HOST[:PORT]/subscribe
    #[arg(long, value_name = "URL", conflicts_with_all = ["input", "events", "seed", "rate"],
          value_parser = web_socket)]
    pub url: Option<String>,

    /// Collections that are wanted of it, separated by commas, or `*` for all
    #[arg(long, value_name = "NAMES", requires = "url", value_delimiter = ',',
          value_parser = collection, default_values_t = STORED.map(str::to_owned))]
    pub collections: Vec<String>,

    /// Where to begin in it, in microseconds since 1970; without it, with what comes next
    #[arg(long, value_name = "US", requires = "url")]
    pub cursor: Option<u64>,

    /// Database to write or to go on with; without it, a temporary one
    #[arg(long, value_name = "PATH")]
    pub db: Option<PathBuf>,

    /// Go on where the last run with --resume into this --db ended, however it did. The input must be the
    /// same: a file that begins as it did, generated events of the same --seed, or the same --url
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

    /// Do not let the source wait: when 10000 lines stand in front of the workers, the oldest 20 % of
    /// them are dropped, but for deletes. Without --url, such a source is simulated
    #[arg(long)]
    pub live: bool,

    /// Lines a second that come from the simulated one
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

/// The collections that have a table.
const STORED: [&str; 5] = [
    "app.bsky.feed.post",
    "app.bsky.feed.like",
    "app.bsky.feed.repost",
    "app.bsky.graph.follow",
    "app.bsky.graph.block",
];

fn web_socket(url: &str) -> Result<String, &'static str> {
    match url.split_once("://") {
        Some(("ws", rest)) if !rest.is_empty() => Ok(url.to_owned()),
        Some(("wss", _)) => Err("this program has no TLS: put a proxy in front that has"),
        _ => Err("not an address as ws://HOST[:PORT]/subscribe"),
    }
}

fn collection(name: &str) -> Result<String, &'static str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-*".contains(&byte);
    if !name.is_empty() && name.bytes().all(fits) {
        return Ok(name.to_owned());
    }
    Err("not the name of a collection")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        <Options as clap::CommandFactory>::command().debug_assert();
    }
}
