//! The runtime that a batcher is spawned on.

use tokio::runtime::Handle;
use tokio::time;

use crate::ConfigError;
use crate::base::panic::caught;

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
