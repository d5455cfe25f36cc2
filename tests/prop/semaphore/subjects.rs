//! Three semaphores behind one face: ours, tokio's, and one that is obviously right.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use sluicegate::{AcquireOwned, OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// What a step shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Nothing,
    /// `None`: still waiting. `Some(true)`: given. `Some(false)`: closed.
    Polled(Option<bool>),
    Tried(Result<(), TryAcquireError>),
    Forgot(usize),
    Split(bool),
    All(Vec<Seen>),
}

pub(crate) trait Subject {
    fn new(permits: usize) -> Self;
    /// Makes a future, which is not polled yet, but joins the wait list if so asked.
    fn acquire(&mut self, id: usize, need: u32, enqueue: bool);
    /// A future that is ready goes; its permits, if any, are held from then on.
    fn poll(&mut self, id: usize, waker: &Waker) -> Option<bool>;
    /// The same in a task that has no budget left.
    fn poll_without_budget(&mut self, id: usize, waker: &Waker) -> Option<bool>;
    fn cancel(&mut self, id: usize);
    fn try_acquire(&mut self, need: u32) -> Result<(), TryAcquireError>;
    /// How many permit values are held.
    fn held(&self) -> usize;
    fn release(&mut self, which: usize);
    fn forget(&mut self, which: usize);
    fn split(&mut self, which: usize, permits: usize) -> bool;
    fn merge(&mut self, which: usize, with: usize);
    fn add(&mut self, permits: usize);
    fn forget_free(&mut self, permits: usize) -> usize;
    fn set_limit(&mut self, limit: usize);
    fn close(&mut self);
}

/// Writes the face of a real semaphore: the two have the same methods, which is the point.
macro_rules! real {
    ($name:ident, $semaphore:ty, $permit:ty, $future:ty, $acquire:expr, $error:expr, $limit:expr) => {
        pub(crate) struct $name {
            pub(crate) semaphore: Arc<$semaphore>,
            waiting: BTreeMap<usize, $future>,
            held: Vec<$permit>,
        }

        impl Subject for $name {
            fn new(permits: usize) -> Self {
                let semaphore = Arc::new(<$semaphore>::new(permits));
                Self { semaphore, waiting: BTreeMap::new(), held: Vec::new() }
            }

            fn acquire(&mut self, id: usize, need: u32, enqueue: bool) {
                self.waiting.insert(id, $acquire(self.semaphore.clone(), need, enqueue));
            }

            fn poll(&mut self, id: usize, waker: &Waker) -> Option<bool> {
                let future = Pin::new(self.waiting.get_mut(&id)?);
                let Poll::Ready(result) = future.poll(&mut Context::from_waker(waker)) else {
                    return None;
                };
                self.waiting.remove(&id);
                let given = result.is_ok();
                self.held.extend(result.ok());
                Some(given)
            }

            #[cfg(feature = "tokio")]
            fn poll_without_budget(&mut self, id: usize, waker: &Waker) -> Option<bool> {
                crate::coop::without_budget(|| self.poll(id, waker))
            }

            #[cfg(not(feature = "tokio"))]
            fn poll_without_budget(&mut self, _: usize, _: &Waker) -> Option<bool> {
                unreachable!("there is no budget to spend")
            }

            fn cancel(&mut self, id: usize) {
                self.waiting.remove(&id);
            }

            fn try_acquire(&mut self, need: u32) -> Result<(), TryAcquireError> {
                let permit = self.semaphore.clone().try_acquire_many_owned(need).map_err($error)?;
                self.held.push(permit);
                Ok(())
            }

            fn held(&self) -> usize {
                self.held.len()
            }

            fn release(&mut self, which: usize) {
                drop(self.held.swap_remove(which));
            }

            fn forget(&mut self, which: usize) {
                self.held.swap_remove(which).forget();
            }

            fn split(&mut self, which: usize, permits: usize) -> bool {
                let split = self.held[which].split(permits);
                let did = split.is_some();
                self.held.extend(split);
                did
            }

            fn merge(&mut self, which: usize, with: usize) {
                let mut merged = self.held.swap_remove(which);
                let with = with.min(self.held.len() - 1);
                merged.merge(self.held.swap_remove(with));
                self.held.push(merged);
            }

            fn add(&mut self, permits: usize) {
                self.semaphore.add_permits(permits);
            }

            fn forget_free(&mut self, permits: usize) -> usize {
                self.semaphore.forget_permits(permits)
            }

            fn set_limit(&mut self, limit: usize) {
                $limit(&*self.semaphore, limit);
            }

            fn close(&mut self) {
                self.semaphore.close();
            }
        }
    };
}

real!(
    Ours,
    Semaphore,
    OwnedSemaphorePermit,
    AcquireOwned,
    |semaphore: Arc<Semaphore>, need, enqueue: bool| match enqueue {
        true => semaphore.enqueue_owned(need),
        false => semaphore.acquire_many_owned(need),
    },
    |error| error,
    Semaphore::set_limit
);

impl Ours {
    pub(crate) fn timed(permits: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::with_wait_times(permits)), ..Self::new(0) }
    }
}

type TokioPermit = tokio::sync::OwnedSemaphorePermit;
type TokioFuture = Pin<Box<dyn Future<Output = Result<TokioPermit, tokio::sync::AcquireError>>>>;

real!(
    Tokio,
    tokio::sync::Semaphore,
    TokioPermit,
    TokioFuture,
    |semaphore: Arc<tokio::sync::Semaphore>, need, _| Box::pin(semaphore.acquire_many_owned(need)),
    |error| match error {
        tokio::sync::TryAcquireError::Closed => TryAcquireError::Closed,
        tokio::sync::TryAcquireError::NoPermits => TryAcquireError::NoPermits,
    },
    |_, _| unreachable!("tokio's semaphore has no limit to set")
);

/// An integer and a queue.
#[derive(Default)]
pub(crate) struct Reference {
    free: usize,
    debt: usize,
    pub(crate) closed: bool,
    /// Futures that were made and not polled yet.
    fresh: BTreeMap<usize, u32>,
    /// Futures that were given their permits as they were made.
    holding: BTreeMap<usize, u32>,
    pub(crate) queue: VecDeque<(usize, u32, Waker)>,
    pub(crate) granted: BTreeMap<usize, u32>,
    /// The waiters at the time of the close.
    dismissed: Vec<usize>,
    held: Vec<u32>,
    /// Waits, cancellations, and the most that waited at once.
    pub(crate) counted: (u64, u64, usize),
    /// How many waiters were served.
    pub(crate) served: u32,
}

impl Reference {
    pub(crate) fn available(&self) -> usize {
        if self.queue.is_empty() { self.free } else { 0 }
    }

    pub(crate) fn limit(&self) -> usize {
        self.free + self.out() - self.debt
    }

    fn out(&self) -> usize {
        let out = self.held.iter().chain(self.granted.values()).chain(self.holding.values());
        out.sum::<u32>() as usize
    }

    fn join(&mut self, id: usize, need: u32, waker: Waker) {
        self.queue.push_back((id, need, waker));
        self.counted.0 += 1;
        self.counted.2 = self.counted.2.max(self.queue.len());
    }

    fn serve(&mut self) {
        let paid = self.free.min(self.debt);
        self.free -= paid;
        self.debt -= paid;
        while let Some((id, need, waker)) = self.queue.pop_front() {
            if need as usize > self.free {
                self.queue.push_front((id, need, waker));
                return;
            }
            self.free -= need as usize;
            self.granted.insert(id, need);
            self.served += 1;
            waker.wake();
        }
    }

    fn take(&mut self, need: u32) -> Result<u32, TryAcquireError> {
        if self.closed {
            return Err(TryAcquireError::Closed);
        }
        if need > 0 && (!self.queue.is_empty() || self.free < need as usize) {
            return Err(TryAcquireError::NoPermits);
        }
        self.free -= need as usize;
        Ok(need)
    }
}

impl Subject for Reference {
    fn new(permits: usize) -> Self {
        Self { free: permits, ..Self::default() }
    }

    fn acquire(&mut self, id: usize, need: u32, enqueue: bool) {
        match self.take(need) {
            Ok(need) if enqueue => {
                self.holding.insert(id, need);
            }
            Err(TryAcquireError::NoPermits) if enqueue => {
                self.join(id, need, Waker::noop().clone());
            }
            // Nothing was taken: it is looked at again when it is polled.
            Ok(need) => {
                self.free += need as usize;
                self.fresh.insert(id, need);
            }
            Err(_) => {
                self.fresh.insert(id, need);
            }
        }
    }

    fn poll(&mut self, id: usize, waker: &Waker) -> Option<bool> {
        if let Some(need) = self.fresh.remove(&id) {
            match self.take(need) {
                Ok(need) => {
                    self.held.push(need);
                    return Some(true);
                }
                Err(TryAcquireError::Closed) => return Some(false),
                Err(TryAcquireError::NoPermits) => {
                    self.join(id, need, waker.clone());
                    return None;
                }
            }
        }
        if let Some(need) = self.holding.remove(&id) {
            if self.closed {
                self.free += need as usize;
                self.serve();
                return Some(false);
            }
            self.held.push(need);
            return Some(true);
        }
        if let Some(need) = self.granted.remove(&id) {
            if self.closed {
                self.free += need as usize;
                self.serve();
                return Some(false);
            }
            self.held.push(need);
            return Some(true);
        }
        if self.dismissed.contains(&id) {
            return Some(false);
        }
        let waiter = self.queue.iter_mut().find(|waiter| waiter.0 == id);
        waiter.expect("it waits").2 = waker.clone();
        None
    }

    fn poll_without_budget(&mut self, id: usize, waker: &Waker) -> Option<bool> {
        if let Some(need) = self.fresh.get(&id).copied() {
            let short = !self.queue.is_empty() || self.free < need as usize || self.debt > 0;
            if !self.closed && need > 0 && short {
                self.fresh.remove(&id);
                self.join(id, need, waker.clone());
            }
        }
        // It yields.
        waker.wake_by_ref();
        None
    }

    fn cancel(&mut self, id: usize) {
        self.fresh.remove(&id);
        let waited =
            self.queue.iter().any(|waiter| waiter.0 == id) || self.granted.contains_key(&id);
        self.counted.1 += u64::from(waited && !self.closed);
        self.queue.retain(|waiter| waiter.0 != id);
        let granted = self.granted.remove(&id).or_else(|| self.holding.remove(&id));
        self.free += granted.unwrap_or(0) as usize;
        self.serve();
    }

    fn try_acquire(&mut self, need: u32) -> Result<(), TryAcquireError> {
        let need = self.take(need)?;
        self.held.push(need);
        Ok(())
    }

    fn held(&self) -> usize {
        self.held.len()
    }

    fn release(&mut self, which: usize) {
        self.free += self.held.swap_remove(which) as usize;
        self.serve();
    }

    fn forget(&mut self, which: usize) {
        self.held.swap_remove(which);
        // Nothing can be owed beyond what is there.
        self.debt = self.debt.min(self.free + self.out());
    }

    fn split(&mut self, which: usize, permits: usize) -> bool {
        let Some(rest) = (self.held[which] as usize).checked_sub(permits) else { return false };
        self.held[which] = rest as u32;
        self.held.push(permits as u32);
        true
    }

    fn merge(&mut self, which: usize, with: usize) {
        let merged = self.held.swap_remove(which);
        let with = with.min(self.held.len() - 1);
        let other = self.held.swap_remove(with);
        self.held.push(merged + other);
    }

    fn add(&mut self, permits: usize) {
        self.free += permits;
        self.serve();
    }

    fn forget_free(&mut self, permits: usize) -> usize {
        let forgotten = self.available().min(permits);
        self.free -= forgotten;
        forgotten
    }

    fn set_limit(&mut self, limit: usize) {
        let now = self.limit();
        if limit >= now {
            self.free += limit - now;
        } else {
            self.debt += now - limit;
        }
        self.serve();
    }

    fn close(&mut self) {
        self.closed = true;
        for (id, _, waker) in self.queue.drain(..) {
            self.dismissed.push(id);
            waker.wake();
        }
    }
}
