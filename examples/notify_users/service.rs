//! The service that sends notifications, as a simulation.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// The only error that a later attempt may not meet again.
pub const BUSY: &str = "busy";

/// What a call of the service costs.
const CALL: Duration = Duration::from_millis(1);

/// Sends notifications; may keep a log of them.
#[derive(Debug, Default)]
pub struct Service {
    log: Option<File>,
}

impl Service {
    /// A service that appends the idempotency key of each notification it sends to a file, a line each.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    pub fn with_log(path: &Path) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { log: Some(log) })
    }

    /// Sends a notification: of 1,000 users one is gone, and one in ten attempts fails in passing.
    ///
    /// # Errors
    ///
    /// [`BUSY`], or a reason that does not change.
    pub async fn send(&self, key: &str, user: i64, attempt: u32) -> Result<(), &'static str> {
        tokio::time::sleep(CALL).await;
        if user % 1000 == 999 {
            return Err("no such address");
        }
        if (user + i64::from(attempt)) % 10 == 0 {
            return Err(BUSY);
        }
        if let Some(mut log) = self.log.as_ref() {
            // In one call, so that lines of several processes do not mix.
            let line = format!("{key}\n");
            log.write_all(line.as_bytes())
                .map_err(|_| "the log of the service cannot be written")?;
        }
        Ok(())
    }
}

/// The same for each attempt for a user, in any run: a service that knows it drops the second of two.
pub fn idempotency_key(user: i64) -> String {
    format!("welcome/{user}")
}
