//! The command line.

use std::path::PathBuf;

use clap::Parser;
use clap::builder::RangedU64ValueParser;

/// Reads Bluesky Jetstream events into a SQLite database, through bounded primitives from end to
/// end, and accounts for every line.
#[derive(Debug, Clone, Parser)]
#[command(name = "ingest")]
pub struct Options {
    /// JSON lines to read, or `-` for standard input; without it, generated events
    #[arg(long, value_name = "FILE", conflicts_with_all = ["events", "seed"])]
    pub input: Option<PathBuf>,

    /// Database to write or to go on with; without it, a temporary one
    #[arg(long, value_name = "PATH")]
    pub db: Option<PathBuf>,

    /// Events to generate
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    pub events: u64,

    /// What the generated events follow from
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,

    /// Users created at once
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one())]
    pub permits: usize,

    /// What creating a user costs, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2)]
    pub lookup_ms: u64,

    /// Parents waited for at once [default: 10000 posts and 5000 users]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub pending_keys: Option<usize>,

    /// Operations that wait for one parent
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one())]
    pub pending_items: usize,

    /// Seconds after its arrival for which an operation waits for its parent
    #[arg(long, value_name = "SECONDS", default_value_t = 24 * 60 * 60,
          value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    pub ttl: u64,

    /// Simulate a source that does not wait: when 10000 lines stand in front of the workers, the
    /// oldest 20 % of them are dropped, but for deletes
    #[arg(long)]
    pub live: bool,

    /// Lines a second that come from it
    #[arg(long, value_name = "N", default_value_t = 20_000, requires = "live",
          value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    pub rate: u64,

    /// Print the summary as one flat JSON object
    #[arg(long)]
    pub json: bool,

    /// Gate the creation of users by polling with a sleep instead of the semaphore, to compare
    #[arg(long)]
    pub busy_wait: bool,
}

fn at_least_one() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser;
    RangedU64ValueParser::<u32>::new().range(1..).map(|value| value as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        <Options as clap::CommandFactory>::command().debug_assert();
    }
}
