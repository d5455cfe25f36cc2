//! Which waker it is, for whoever has left a clone of it elsewhere.

use core::task::Waker;

/// Tells whether a task's waker is the one whose clone was left somewhere, without going there.
///
/// It is that of the clone, which must live as long as it can be compared with: a waker that is
/// gone may have left its address to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WakerId(usize, usize);

impl WakerId {
    #[inline]
    pub(crate) fn of(waker: &Waker) -> Self {
        Self(waker.data().addr(), core::ptr::from_ref(waker.vtable()).addr())
    }
}
