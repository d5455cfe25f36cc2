//! Wakers on their way out of a lock.

use core::task::Waker;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::settled::quietly;

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

/// Calls a waker, or drops it, where a destructor may be running: its panic goes on from here, but
/// not while the thread is unwinding, which would end the process.
#[inline]
pub(crate) fn unless_unwinding(call: impl FnOnce()) {
    if std::thread::panicking() {
        quietly(call);
    } else {
        call();
    }
}

/// Keeps the first panic of several calls into user code, until all of them were made.
///
/// The others end here, also if what they carry panics as it is dropped.
#[derive(Debug, Default)]
pub(crate) struct FirstPanic(Option<Box<dyn core::any::Any + Send>>);

impl FirstPanic {
    pub(crate) fn catch(&mut self, call: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
            match self.0 {
                None => self.0 = Some(payload),
                Some(_) => quietly(|| drop(payload)),
            }
        }
    }

    pub(crate) fn resume(mut self) {
        if std::thread::panicking() {
            return;
        }
        if let Some(payload) = self.0.take() {
            resume_unwind(payload);
        }
    }
}

impl Drop for FirstPanic {
    fn drop(&mut self) {
        if let Some(payload) = self.0.take() {
            quietly(|| drop(payload));
        }
    }
}
