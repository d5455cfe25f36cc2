//! Two loads side by side.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

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
        self.batched.stats.frames as f64 / (self.one_by_one.stats.frames as f64).max(1.0)
    }
}

impl Report {
    /// All of it as one JSON object.
    pub fn to_json(&self) -> Value {
        let Load { clients, rooms, rate, seconds } = self.load;
        let outcome = |o: &Outcome| {
            let ms = |quantile| o.latency(quantile).as_secs_f64() * 1e3;
            json!({
                "sent": o.sent,
                "expected": o.expected,
                "delivered": o.arrived,
                "out_of_order": o.out_of_order,
                "frames": o.stats.frames,
                "frames_saved": o.stats.frames_saved(),
                "messages_per_frame": o.stats.messages_per_frame(),
                "latency_p50_ms": ms(0.5),
                "latency_p99_ms": ms(0.99),
                "latency_max_ms": ms(1.0),
                "processor_seconds": o.cpu.map(|time| time.as_secs_f64()),
                "too_slow": o.stats.too_slow,
                "closed_cleanly": o.closed_cleanly,
            })
        };
        json!({
            "clients": clients,
            "rooms": rooms,
            "rate": rate,
            "seconds": seconds,
            "window_ms": self.window.as_secs_f64() * 1e3,
            "frame_per_window": outcome(&self.batched),
            "frame_per_message": outcome(&self.one_by_one),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load, window, batched, one_by_one } = self;
        let Load { clients, rooms, rate, seconds } = load;
        writeln!(
            f,
            "{clients} clients in {rooms} rooms, {rate} messages per second from each, {seconds} s\n"
        )?;
        writeln!(
            f,
            "{:<20} {:>20} {:>20}",
            "",
            format!("a frame per {window:?}"),
            "a frame per message"
        )?;
        let mut row = |name: &str, of: &dyn Fn(&Outcome) -> String| {
            writeln!(f, "{name:<20} {:>20} {:>20}", of(batched), of(one_by_one))
        };
        row("messages sent", &|o| o.sent.to_string())?;
        row("messages delivered", &|o| o.arrived.to_string())?;
        row("frames sent", &|o| o.stats.frames.to_string())?;
        row("frames saved", &|o| o.stats.frames_saved().to_string())?;
        row("messages per frame", &|o| format!("{:.1}", o.stats.messages_per_frame()))?;
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
        row("closed as too slow", &|o| o.stats.too_slow.to_string())?;
        row("closed cleanly", &|o| o.closed_cleanly.to_string())?;
        write!(f, "\nframes: {:.3} x one per message", self.frames_ratio())
    }
}
