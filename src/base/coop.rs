//! Tokio's cooperative budget, where the runtime has one.
//!
//! A future looks here before it takes anything: a task whose budget is spent holds nothing while it
//! yields. The unit of budget comes back unless `made_progress` is called, so that a future that has
//! to wait is not charged.

use core::task::{Context, Poll};

#[cfg(all(feature = "tokio", not(loom)))]
pub(crate) use tokio::task::coop::{RestoreOnPending as Unit, poll_proceed};

/// Without tokio's runtime there is no budget to spend.
#[cfg(not(all(feature = "tokio", not(loom))))]
pub(crate) struct Unit;

#[cfg(not(all(feature = "tokio", not(loom))))]
impl Unit {
    #[inline]
    pub(crate) fn made_progress(&self) {}
}

#[cfg(not(any(feature = "tokio", loom)))]
#[inline]
pub(crate) fn poll_proceed(_: &mut Context<'_>) -> Poll<Unit> {
    Poll::Ready(Unit)
}

/// Budget for models: there is some, but [`without_budget`](model::without_budget).
#[cfg(loom)]
pub(crate) mod model {
    use core::cell::Cell;
    use core::task::{Context, Poll};

    use super::Unit;
    use crate::base::sync::thread_local;

    thread_local! {
        static SPENT: Cell<bool> = Cell::new(false);
    }

    /// Polls as in a task whose budget is spent.
    pub fn without_budget<T>(poll: impl FnOnce() -> T) -> T {
        SPENT.with(|spent| spent.set(true));
        let polled = poll();
        SPENT.with(|spent| spent.set(false));
        polled
    }

    pub(crate) fn poll_proceed(cx: &mut Context<'_>) -> Poll<Unit> {
        if SPENT.with(Cell::get) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Unit)
    }
}

#[cfg(loom)]
pub(crate) use model::poll_proceed;

/// Charges one unit of budget; pending if none is left.
#[inline]
pub(crate) fn poll_spend(cx: &mut Context<'_>) -> Poll<()> {
    poll_proceed(cx).map(|unit| unit.made_progress())
}
