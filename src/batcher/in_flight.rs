//! The batches that are with the handler, each in a slot that is used again.

use super::job::Job;
use crate::base::deadlines::Deadline;
use crate::base::slab::Slab;

/// A batch in the handler: its items are in a guard, or were.
pub(crate) struct InFlight<T, G = ()> {
    pub(crate) id: u64,
    pub(crate) lane: u32,
    /// Different from that of every other attempt.
    serial: usize,
    /// With the driver from when the guard is back until the batch is settled or goes on.
    pub(crate) job: Option<Job<T, G>>,
    /// How many items the guard was given.
    pub(crate) handed: usize,
    /// Those, and the parts of the batch that were not.
    pub(crate) unfinished: usize,
    /// What the guard held when it was dropped.
    pub(crate) back: Option<Vec<T>>,
    /// Whether the handler is done, and well; its guard may still be about.
    pub(crate) handled: Option<bool>,
}

impl<T, G> InFlight<T, G> {
    pub(crate) fn is_over(&self) -> bool {
        self.handled.is_some() && self.back.is_some()
    }
}

/// All of them; the driver names each by its slot.
pub(crate) struct InFlightBatches<T, G = ()> {
    batches: Slab<InFlight<T, G>>,
    /// Of the attempt begun last.
    serial: usize,
}

impl<T, G> InFlightBatches<T, G> {
    pub(crate) fn new() -> Self {
        Self { batches: Slab::new(), serial: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Begins an attempt, and returns its slot.
    pub(crate) fn begin(&mut self, job: Job<T, G>, handed: usize) -> usize {
        let unfinished = handed + job.len();
        let (id, lane, job) = (job.id, job.lane, Some(job));
        self.serial = self.serial.wrapping_add(1);
        let (serial, back, handled) = (self.serial, None, None);
        let batch = InFlight { id, lane, serial, job, handed, unfinished, back, handled };
        self.batches.insert(batch) as usize
    }

    /// The number of the attempt begun last.
    pub(crate) fn serial(&self) -> usize {
        self.serial
    }

    /// Whether the handler still runs the attempt that a deadline was noted for.
    pub(crate) fn runs(&self, attempt: &Deadline) -> bool {
        let batch = self.batches.get(attempt.slot as u32);
        batch.is_some_and(|batch| batch.serial == attempt.stamp && batch.handled.is_none())
    }

    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut InFlight<T, G>> {
        self.batches.get_mut(slot as u32)
    }

    /// Frees the slot of a batch whose job was taken out. Returns the batch's id and its lane.
    pub(crate) fn end(&mut self, slot: usize) -> Option<(u64, u32)> {
        let batch = self.batches.try_remove(slot as u32)?;
        Some((batch.id, batch.lane))
    }

    /// Ends them all.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = InFlight<T, G>> + use<'_, T, G> {
        self.batches.drain()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &InFlight<T, G>> {
        self.batches.iter().map(|(_, batch)| batch)
    }

    #[cfg(debug_assertions)]
    pub(crate) fn validate(&self) {
        self.batches.validate();
    }
}
