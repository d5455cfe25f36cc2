//! Wakers: on their way out of a lock, and told apart.

use core::task::Waker;

use super::panic::FirstPanic;

/// Collects wakers under a lock, in order, and wakes them after it.
///
/// A waker that panics does not keep the others from being woken: the first panic goes on when
/// all are done, unless the thread is unwinding already.
#[derive(Debug)]
pub(crate) struct WakeList {
    wakers: [Option<Waker>; Self::CAPACITY],
    len: usize,
    panic: FirstPanic,
}

impl WakeList {
    /// How many wakers leave the lock at a time. Two under loom, so that the models see the seam.
    pub(crate) const CAPACITY: usize = if cfg!(loom) { 2 } else { 32 };

    pub(crate) fn new() -> Self {
        Self { wakers: [const { None }; Self::CAPACITY], len: 0, panic: FirstPanic::default() }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len == Self::CAPACITY
    }

    /// # Panics
    ///
    /// When the list is full.
    pub(crate) fn push(&mut self, waker: Waker) {
        self.wakers[self.len] = Some(waker);
        self.len += 1;
    }

    /// Wakes what was collected and leaves the list empty. To be called without the lock.
    pub(crate) fn wake_all(&mut self) {
        let len = core::mem::take(&mut self.len);
        for waker in &mut self.wakers[..len] {
            if let Some(waker) = waker.take() {
                self.panic.catch(|| waker.wake());
            }
        }
    }

    /// Goes on with the first panic of a waker, if there was one.
    pub(crate) fn finish(self) {
        self.panic.resume();
    }
}

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
