//! Cooperative scheduling, where the runtime has it.

use core::task::Context;

/// Whether the task has had its turn; if so, it will be woken for the next one.
#[cfg(all(feature = "tokio", not(loom)))]
#[inline]
pub(crate) fn is_spent(cx: &mut Context<'_>) -> bool {
    match tokio::task::coop::poll_proceed(cx) {
        core::task::Poll::Ready(turn) => {
            turn.made_progress();
            false
        }
        core::task::Poll::Pending => true,
    }
}

#[cfg(not(all(feature = "tokio", not(loom))))]
#[inline]
pub(crate) fn is_spent(_: &mut Context<'_>) -> bool {
    false
}
