//! What the server counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The figures of a server, as of one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
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
}

impl Figures {
    /// Frames that one frame a message would have taken beyond those that were written.
    pub fn frames_saved(&self) -> u64 {
        self.messages - self.frames
    }

    /// Messages in a frame, on average; 0 without a frame.
    pub fn messages_a_frame(&self) -> f64 {
        if self.frames == 0 { 0.0 } else { self.messages as f64 / self.frames as f64 }
    }
}

/// Where they are counted.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    lost: AtomicU64,
    frames: AtomicU64,
    messages: AtomicU64,
    too_slow: AtomicU64,
}

impl Counters {
    /// A message was read and accepted.
    pub fn accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    /// Messages that were accepted went to nobody.
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

    /// All of them.
    pub fn figures(&self) -> Figures {
        Figures {
            accepted: self.accepted.load(Relaxed),
            lost: self.lost.load(Relaxed),
            // Before the messages, so that these are never fewer.
            frames: self.frames.load(Relaxed),
            messages: self.messages.load(Relaxed),
            too_slow: self.too_slow.load(Relaxed),
        }
    }
}
