//! What a run is told from outside while it goes on, and what it tells.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::watch;

/// Ends parts of a run early; tells how much it has before it.
#[derive(Debug, Default)]
pub struct Control {
    look_ups_given_up: watch::Sender<bool>,
    reading_stopped: watch::Sender<bool>,
    read_ahead: AtomicUsize,
    in_hand: AtomicUsize,
}

impl Control {
    /// Look-ups that are not done are no longer waited for: their lines are abandoned.
    pub fn give_up_look_ups(&self) {
        self.look_ups_given_up.send_replace(true);
    }

    /// No further line is read, since it could not be written.
    pub fn stop_reading(&self) {
        self.reading_stopped.send_replace(true);
    }

    /// Resolves once look-ups are given up.
    pub async fn look_ups_given_up(&self) {
        resolved(&self.look_ups_given_up).await;
    }

    /// Resolves once reading was stopped.
    pub async fn reading_stopped(&self) {
        resolved(&self.reading_stopped).await;
    }

    /// Lines that were read and have not ended, but for what waits for a parent.
    pub fn left(&self) -> usize {
        self.read_ahead.load(Relaxed) + self.in_hand.load(Relaxed)
    }

    pub(super) fn read_ahead(&self, lines: usize) {
        self.read_ahead.store(lines, Relaxed);
    }

    pub(super) fn begin(&self) {
        self.in_hand.fetch_add(1, Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_hand.fetch_sub(1, Relaxed);
    }
}

async fn resolved(flag: &watch::Sender<bool>) {
    // The sender is borrowed, so that it is there.
    let _ = flag.subscribe().wait_for(|set| *set).await;
}
