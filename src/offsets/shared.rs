//! The lock around the core, and the futures' way to it.

use core::task::Waker;
use std::sync::Arc;

use super::core::{Core, Limits};
use crate::base::sync::{Mutex, MutexGuard, lock_briefly};
use crate::base::timer::now;
use crate::base::wake::WakeList;

#[derive(Debug)]
pub(super) struct Shared<P> {
    core: Mutex<Core<P>>,
}

impl<P: Copy> Shared<P> {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { core: Mutex::new(Core::new(limits)) })
    }

    /// Takes a step after which no waiter can be served.
    pub(super) fn read<R>(&self, step: impl FnOnce(&mut Core<P>) -> R) -> R {
        step(&mut lock_briefly(&self.core))
    }

    /// Takes a step and serves the waiters that can go on after it.
    #[inline]
    pub(super) fn act<R>(&self, step: impl FnOnce(&mut Core<P>) -> R) -> R {
        let mut core = lock_briefly(&self.core);
        let result = step(&mut core);
        if core.has_due() {
            self.serve(core, None);
        }
        result
    }

    /// As [`act`](Self::act), for steps that begin an epoch: those that wait to track are refused.
    pub(super) fn begin_epoch<R>(&self, step: impl FnOnce(&mut Core<P>) -> R) -> R {
        let mut core = lock_briefly(&self.core);
        let refused = core.last_tracker();
        let result = step(&mut core);
        self.serve(core, Some(refused));
        result
    }

    #[cold]
    fn serve<'a>(&'a self, mut core: MutexGuard<'a, Core<P>>, refused: Option<u64>) {
        let mut wakes = WakeList::new();
        loop {
            let more = refused.is_some_and(|up_to| core.refuse_trackers(up_to, &mut wakes));
            if !more {
                core.serve(&mut wakes, now);
            }
            let more = more || core.has_due();
            drop(core);
            wakes.wake_all();
            if !more {
                return wakes.finish();
            }
            core = lock_briefly(&self.core);
        }
    }

    /// Leaves a fresh waker in a wait list, unless `look` finds that there is nothing to wait for.
    pub(super) fn look_or_wait<R>(
        &self,
        waker: &Waker,
        look: impl FnOnce(&mut Core<P>, Waker) -> Result<R, Option<Waker>>,
    ) -> Option<R> {
        // User code, which may panic: cloned before the lock is taken, dropped after it.
        let fresh = waker.clone();
        match self.act(|core| look(core, fresh)) {
            Ok(result) => Some(result),
            Err(replaced) => {
                drop(replaced);
                None
            }
        }
    }
}
