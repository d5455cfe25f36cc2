//! tokio's clock and timer: the only part of the batcher that knows a runtime.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::time::{self, Sleep};

use super::driver::Timer;
use crate::ConfigError;
use crate::base::panic::caught;

/// One timer entry at the most, and none while there is nothing to wait for.
pub(crate) struct TokioTimer {
    sleep: Pin<Box<Option<Sleep>>>,
    at: Option<Instant>,
}

impl Default for TokioTimer {
    fn default() -> Self {
        Self { sleep: Box::pin(None), at: None }
    }
}

impl Timer for TokioTimer {
    fn now() -> Instant {
        time::Instant::now().into_std()
    }

    fn poll_alarm(&mut self, at: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        // One that rings before is left alone: it costs a wake-up now and then, not a new timer for
        // each batch.
        let early = matches!((self.at, at), (Some(set), Some(at)) if set <= at);
        if at != self.at && !early {
            match (at, self.sleep.as_mut().as_pin_mut()) {
                (Some(at), Some(sleep)) => sleep.reset(at.into()),
                (Some(at), None) => self.sleep.set(Some(time::sleep_until(at.into()))),
                (None, _) => self.sleep.set(None),
            }
            self.at = at;
        }
        let Some(sleep) = self.sleep.as_mut().as_pin_mut() else { return Poll::Pending };
        if sleep.poll(cx).is_pending() {
            return Poll::Pending;
        }
        // What has rung must be set anew: tokio cuts very long waits short.
        self.sleep.set(None);
        self.at = None;
        Poll::Ready(())
    }
}

/// The runtime of the caller, if a timer can be had on it.
pub(crate) fn runtime() -> Result<Handle, ConfigError> {
    let expected = "one to spawn on: build within it, or use `build_with_driver`";
    let runtime = Handle::try_current()
        .map_err(|_| ConfigError::new("runtime", format_args!("missing"), expected))?;
    // tokio has no other way to ask: without its time driver, making a timer panics.
    caught(|| drop(time::sleep(core::time::Duration::ZERO))).map_err(|_| {
        let timerless = format_args!("without timers");
        ConfigError::new("runtime", timerless, "one with timers: call `enable_time` on its builder")
    })?;
    Ok(runtime)
}
