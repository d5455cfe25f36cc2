use core::fmt;
use std::borrow::Cow;
use std::sync::Arc;

use super::core::Verdict;
use super::shared::Shared;
use crate::base::sync::Mutex;

/// The duty to say what became of a position.
///
/// Settled by exactly one of [`complete`](Self::complete), [`reject`](Self::reject),
/// [`release`](Self::release) and [`split`](Self::split). One that is dropped without a word counts as
/// released, never as complete: after a panic or a cancelled task the position is delivered again.
///
/// After a [new epoch](super::OffsetTracker::new_epoch) an acknowledgement from before it is counted and
/// ignored.
#[must_use = "dropping it releases the position, which is then delivered again"]
pub struct Ack<P: Copy> {
    position: u64,
    /// Until it is settled.
    target: Option<Target<P>>,
}

enum Target<P: Copy> {
    Whole { tracker: Arc<Shared<P>>, serial: u64 },
    Part(Arc<Parts<P>>),
}

/// What the parts of a split share. The last of them to go settles the whole.
struct Parts<P: Copy> {
    whole: Mutex<Option<Ack<P>>>,
    worst: Mutex<Verdict>,
}

impl<P: Copy> Ack<P> {
    #[inline]
    pub(super) fn new(tracker: Arc<Shared<P>>, serial: u64, position: u64) -> Self {
        Self { position, target: Some(Target::Whole { tracker, serial }) }
    }

    /// The position.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether a new epoch has begun since: what is said now is ignored.
    pub fn is_fenced(&self) -> bool {
        match &self.target {
            Some(Target::Whole { tracker, serial }) => tracker.read(|core| core.is_fenced(*serial)),
            Some(Target::Part(parts)) => parts.whole.lock().as_ref().is_some_and(Self::is_fenced),
            None => false,
        }
    }

    /// The effect of the position is durable.
    ///
    /// O(1) amortised; wakes those that wait for room or for the committed position to move.
    #[inline]
    pub fn complete(mut self) {
        self.settle(Verdict::Complete);
    }

    /// The position is handled for good, though without success: it is committed as a complete one
    /// is, and listed with its reason for [`take_parked`](super::OffsetTracker::take_parked).
    pub fn reject(mut self, reason: impl Into<Cow<'static, str>>) {
        self.settle(Verdict::Rejected(reason.into()));
    }

    /// The position is to be delivered again, by [`redeliver`](super::OffsetTracker::redeliver). Until
    /// then it counts as incomplete and keeps its room.
    pub fn release(mut self) {
        self.settle(Verdict::Released);
    }

    /// Divides it among `parts`: the position is settled when all of them are, with the worst
    /// verdict: released before rejected before complete. Parts can be split again. With 0 parts
    /// there is nothing to do, and the position is complete.
    ///
    /// One allocation, and that of the vector.
    #[must_use = "dropping a part releases the position"]
    pub fn split(self, parts: usize) -> Vec<Self> {
        let position = self.position;
        let shared =
            Arc::new(Parts { whole: Mutex::new(Some(self)), worst: Mutex::new(Verdict::Complete) });
        (0..parts)
            .map(|_| Self { position, target: Some(Target::Part(Arc::clone(&shared))) })
            .collect()
    }

    #[inline]
    fn settle(&mut self, verdict: Verdict) {
        match self.target.take() {
            Some(Target::Whole { tracker, serial }) => {
                tracker.act(|core| core.settle(serial, verdict));
            }
            Some(Target::Part(parts)) => parts.note(verdict),
            None => {}
        }
    }
}

impl<P: Copy> Parts<P> {
    fn note(&self, verdict: Verdict) {
        let mut worst = self.worst.lock();
        // The first reason stays.
        if core::mem::discriminant(&verdict) != core::mem::discriminant(&worst) && verdict > *worst
        {
            *worst = verdict;
        }
    }
}

impl<P: Copy> Drop for Parts<P> {
    fn drop(&mut self) {
        let whole = self.whole.lock().take();
        let worst = core::mem::replace(&mut *self.worst.lock(), Verdict::Complete);
        if let Some(mut whole) = whole {
            whole.settle(worst);
        }
    }
}

impl<P: Copy> Drop for Ack<P> {
    #[inline]
    fn drop(&mut self) {
        if self.target.is_some() {
            self.settle(Verdict::Released);
        }
    }
}

impl<P: Copy> fmt::Debug for Ack<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ack").field("position", &self.position).finish_non_exhaustive()
    }
}
