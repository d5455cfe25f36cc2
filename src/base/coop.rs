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
        if !SPENT.with(Cell::get) {
            return Poll::Ready(Unit);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(loom)]
pub(crate) use model::poll_proceed;

/// Charges one unit of budget; pending if none is left.
#[inline]
pub(crate) fn poll_spend(cx: &mut Context<'_>) -> Poll<()> {
    poll_proceed(cx).map(|unit| unit.made_progress())
}

/// Leaves a unit charged, as `made_progress` does, in a register.
#[inline]
pub(crate) fn keep(unit: Unit) {
    let _ = core::mem::ManuallyDrop::new(unit);
}

/// Takes back the charge of a unit, out of the way of the fast path.
#[cold]
#[inline(never)]
pub(crate) fn give_back(_unit: Unit) {}

#[cfg(all(test, feature = "tokio", not(loom)))]
mod tests {
    use super::*;
    use std::future::poll_fn;

    /// The units that a task has left after `spend`.
    fn left(mut spend: impl FnMut(&mut Context<'_>)) -> usize {
        let task = poll_fn(|cx| {
            spend(cx);
            Poll::Ready((0..).take_while(|_| poll_spend(cx).is_ready()).count())
        });
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(task)
    }

    fn unit(cx: &mut Context<'_>) -> Unit {
        let Poll::Ready(unit) = poll_proceed(cx) else { panic!("a task begins with a budget") };
        unit
    }

    #[test]
    fn a_unit_is_kept_or_given_back() {
        let all = left(|_| ());
        assert_eq!(left(|cx| keep(unit(cx))), all - 1);
        assert_eq!(left(|cx| give_back(unit(cx))), all);
    }
}
