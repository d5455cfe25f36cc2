//! What the server counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The stats of a server, as of one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages that were read from clients and accepted.
    pub accepted: u64,
    /// Messages that were accepted and went to no room. Always 0.
    pub lost: u64,
    /// Frames with messages that were written to clients.
    pub frames: u64,
    /// Messages in those frames.
    pub messages: u64,
    /// Clients that were closed because they read too slowly.
    pub too_slow: u64,
    /// Clients that were closed because they sent what is no message.
    pub malformed: u64,
    /// Requests to join that were refused because all slots were taken.
    pub full: u64,
    /// Requests to join that were refused because of the web page that they came from.
    pub forbidden: u64,
    /// Connections that took too long for a request.
    pub timed_out: u64,
}

impl Stats {
    /// Frames that one frame a message would have taken beyond those that were written.
    pub fn frames_saved(&self) -> u64 {
        self.messages - self.frames
    }

    /// Messages in a frame, on average; 0 without a frame.
    pub fn messages_per_frame(&self) -> f64 {
        if self.frames == 0 { 0.0 } else { self.messages as f64 / self.frames as f64 }
    }
}

/// Where they are counted.
#[derive(Debug, Default)]
pub struct Counts {
    accepted: AtomicU64,
    lost: AtomicU64,
    frames: AtomicU64,
    messages: AtomicU64,
    too_slow: AtomicU64,
    malformed: AtomicU64,
    full: AtomicU64,
    forbidden: AtomicU64,
    timed_out: AtomicU64,
}

impl Counts {
    /// A message was read and accepted.
    pub fn accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    /// Messages that were accepted were lost.
    pub fn lost(&self, messages: usize) {
        self.lost.fetch_add(messages as u64, Relaxed);
    }

    /// A frame with so many messages was written to a client.
    pub fn wrote(&self, messages: usize) {
        self.frames.fetch_add(1, Relaxed);
        self.messages.fetch_add(messages as u64, Relaxed);
    }

    /// A client read too slowly.
    pub fn too_slow(&self) {
        self.too_slow.fetch_add(1, Relaxed);
    }

    /// A client sent what is no message.
    pub fn malformed(&self) {
        self.malformed.fetch_add(1, Relaxed);
    }

    /// All slots were taken.
    pub fn full(&self) {
        self.full.fetch_add(1, Relaxed);
    }

    /// A web page may not join.
    pub fn forbidden(&self) {
        self.forbidden.fetch_add(1, Relaxed);
    }

    /// A connection took too long.
    pub fn timed_out(&self) {
        self.timed_out.fetch_add(1, Relaxed);
    }

    /// All of them.
    pub fn stats(&self) -> Stats {
        Stats {
            accepted: self.accepted.load(Relaxed),
            lost: self.lost.load(Relaxed),
            // Before the messages, so that these are never fewer.
            frames: self.frames.load(Relaxed),
            messages: self.messages.load(Relaxed),
            too_slow: self.too_slow.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            full: self.full.load(Relaxed),
            forbidden: self.forbidden.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
        }
    }
}
