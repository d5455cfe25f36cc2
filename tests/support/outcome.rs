//! Short questions about an outcome, and its text.

// Each test file uses its part.
#![allow(dead_code)]

use std::fmt::Display;

use sluicegate::{Settled, SettledKind};

pub(crate) trait Outcome {
    fn kind(&self) -> SettledKind;

    fn is_rejected(&self) -> bool {
        self.kind() == SettledKind::Rejected
    }

    fn is_timed_out(&self) -> bool {
        self.kind() == SettledKind::TimedOut
    }

    fn is_cancelled(&self) -> bool {
        self.kind() == SettledKind::Cancelled
    }
}

impl<T, E> Outcome for Settled<T, E> {
    fn kind(&self) -> SettledKind {
        SettledKind::of(self)
    }
}

/// `fulfilled`, or what the error says.
pub(crate) fn text<T, E: Display>(outcome: &Settled<T, E>) -> String {
    outcome.as_ref().map_or_else(|error| error.to_string(), |_| "fulfilled".to_owned())
}
