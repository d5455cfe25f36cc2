//! The command line.

use std::net::SocketAddr;

use clap::Parser;
use clap::builder::RangedU64ValueParser;

/// A WebSocket chat server that sends each room one frame a window. With --clients it puts itself
/// under load, beside the same load with one frame a message, and exits; without, it serves until
/// Ctrl-C.
#[derive(Debug, Clone, Parser)]
#[command(name = "chat_rooms")]
pub struct Options {
    /// Where to serve
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080",
        conflicts_with = "clients"
    )]
    pub listen: SocketAddr,

    /// How long a message waits for others to share its frame, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = at_most(60_000))]
    pub window_ms: u64,

    /// Clients of the load
    #[arg(long, value_name = "N", value_parser = at_most(10_000))]
    pub clients: Option<u64>,

    /// Rooms they are in
    #[arg(long, value_name = "N", default_value_t = 10, requires = "clients",
          value_parser = at_most(10_000))]
    pub rooms: u64,

    /// For how long they talk
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "clients",
          value_parser = at_most(3_600))]
    pub seconds: u64,

    /// Messages that each sends in a second
    #[arg(long, value_name = "N", default_value_t = 10, requires = "clients",
          value_parser = at_most(1_000))]
    pub rate: u64,
}

fn at_most(most: u64) -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(1..=most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        <Options as clap::CommandFactory>::command().debug_assert();
    }
}
