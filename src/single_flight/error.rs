//! What a call may get instead of a value.

use core::fmt;
use std::error::Error;
use std::sync::Arc;

use crate::Panic;

/// The run of a key panicked: all its callers get the same panic.
#[derive(Debug, Clone)]
pub struct RunPanicked(Arc<Panic>);

impl RunPanicked {
    pub(super) fn new(panic: Panic) -> Self {
        Self(Arc::new(panic))
    }

    /// What the run panicked with.
    pub fn panic(&self) -> &Panic {
        &self.0
    }

    /// The panic itself, to [resume](Panic::resume) it, say; `None` while another caller has it too.
    pub fn into_panic(self) -> Option<Panic> {
        Arc::into_inner(self.0)
    }
}

/// `the shared run panicked: …`
impl fmt::Display for RunPanicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the shared run {}", self.0)
    }
}

impl Error for RunPanicked {}
