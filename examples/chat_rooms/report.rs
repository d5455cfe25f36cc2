//! Two loads side by side.

use std::fmt;
use std::time::Duration;

use super::load::{Load, Outcome};

/// The same load, framed by the window and framed by the message.
#[derive(Debug)]
pub struct Report {
    /// What the clients did.
    pub load: Load,
    /// What batched them.
    pub window: Duration,
    /// With a frame a window.
    pub batched: Outcome,
    /// With a frame a message.
    pub one_by_one: Outcome,
}

impl Report {
    /// Whether either load was carried without a loss.
    pub fn is_whole(&self) -> bool {
        self.batched.is_whole(&self.load) && self.one_by_one.is_whole(&self.load)
    }

    /// Frames written with batches for each that was written without.
    pub fn frames_ratio(&self) -> f64 {
        self.batched.figures.frames as f64 / (self.one_by_one.figures.frames as f64).max(1.0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load, window, batched, one_by_one } = self;
        let Load { clients, rooms, rate, seconds } = load;
        writeln!(
            f,
            "{clients} clients in {rooms} rooms, {rate} messages a second from each, {seconds} s\n"
        )?;
        writeln!(
            f,
            "{:<20} {:>20} {:>20}",
            "",
            format!("a frame in {window:?}"),
            "a frame a message"
        )?;
        let mut row = |name: &str, of: &dyn Fn(&Outcome) -> String| {
            writeln!(f, "{name:<20} {:>20} {:>20}", of(batched), of(one_by_one))
        };
        row("messages sent", &|o| o.sent.to_string())?;
        row("messages delivered", &|o| o.arrived.to_string())?;
        row("frames sent", &|o| o.figures.frames.to_string())?;
        row("frames saved", &|o| o.figures.frames_saved().to_string())?;
        row("messages a frame", &|o| format!("{:.1}", o.figures.messages_a_frame()))?;
        for (name, quantile) in [("latency p50", 0.5), ("latency p99", 0.99), ("latency max", 1.0)]
        {
            row(name, &|o| format!("{:.1} ms", o.latency(quantile).as_secs_f64() * 1e3))?;
        }
        row("processor time", &|o| match o.cpu {
            Some(time) => format!("{:.2} s", time.as_secs_f64()),
            None => "unknown".to_owned(),
        })?;
        row("missing", &|o| o.expected.abs_diff(o.arrived).to_string())?;
        row("out of order", &|o| o.out_of_order.to_string())?;
        row("closed as too slow", &|o| o.figures.too_slow.to_string())?;
        row("told goodbye", &|o| o.closed_cleanly.to_string())?;
        write!(f, "\nframes: {:.3} x one a message", self.frames_ratio())
    }
}
