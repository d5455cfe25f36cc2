//! The command line.

use clap::Parser;
use tracing::level_filters::LevelFilter;

use crate::program::number;

/// A WebSocket chat server that sends each room one frame per window. With --clients it puts itself
/// under load, beside the same load with one frame per message, and exits; without, it serves until a
/// signal, delivers what it has accepted, closes each connection, and exits with status 0.
///
/// Messages are held in memory alone: a crash loses those that were accepted and not yet delivered, at
/// most what one window and the outboxes hold.
#[derive(Debug, Clone, Parser)]
#[command(name = "chat_rooms", version)]
pub struct Options {
    /// Where to serve
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    #[arg(conflicts_with = "clients", value_parser = host_and_port)]
    pub listen: String,

    /// Milliseconds for which a message waits for others to share its frame, from 1 to 60000
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = number(1..=60_000))]
    pub window_ms: u64,

    /// The most clients at once [default: 10000, or what open files allow]
    #[arg(long, value_name = "N", conflicts_with = "clients", value_parser = number(1..=1_000_000))]
    pub max_clients: Option<u64>,

    /// The most frames that may wait for one client, before it is closed as too slow
    #[arg(long, value_name = "N", default_value_t = 1_024, value_parser = number(1..=1_000_000))]
    pub outbox_frames: u64,

    /// The most KiB that may wait for one client, before it is closed as too slow
    #[arg(long, value_name = "KIB", default_value_t = 1_024, value_parser = number(1..=1_048_576))]
    pub outbox_kib: u64,

    /// The most MiB that may wait for all clients together: half of it in equal shares, so that a
    /// client that keeps up has its own, the rest for those that need more
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = number(1..=65_536))]
    pub outboxes_mib: u64,

    /// A web page elsewhere that may join, such as https://chat.example; may be repeated
    #[arg(long, value_name = "ORIGIN", conflicts_with = "clients")]
    pub origin: Vec<String>,

    /// What to log on standard error: off, error, warn, info or debug
    #[arg(long, value_name = "LEVEL", default_value = "info", conflicts_with = "clients")]
    pub log: LevelFilter,

    /// Clients of the load
    #[arg(long, value_name = "N", value_parser = number(1..=10_000))]
    pub clients: Option<u64>,

    /// Rooms they are in
    #[arg(long, value_name = "N", default_value_t = 10, requires = "clients",
          value_parser = number(1..=10_000))]
    pub rooms: u64,

    /// For how long they talk
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "clients",
          value_parser = number(1..=3_600))]
    pub seconds: u64,

    /// Messages that each sends in a second
    #[arg(long, value_name = "N", default_value_t = 10, requires = "clients",
          value_parser = number(1..=1_000))]
    pub rate: u64,

    /// Print the closing figures as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Names are looked up later.
fn host_and_port(text: &str) -> Result<String, &'static str> {
    let parts = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match parts.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err("not a host and a port, such as localhost:8080 or [::1]:8080"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        <Options as clap::CommandFactory>::command().debug_assert();
    }
}
