//! The batches that are with the handler, each in a place that is used again.

use super::core::Job;
use crate::timeline::Started;

/// A batch in the handler: its items are in a guard, or were.
pub(crate) struct Flight<T, G = ()> {
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

impl<T, G> Flight<T, G> {
    pub(crate) fn is_over(&self) -> bool {
        self.handled.is_some() && self.back.is_some()
    }
}

pub(crate) struct Flights<T, G = ()> {
    places: Vec<Option<Flight<T, G>>>,
    vacant: Vec<usize>,
    /// Of the attempt begun last.
    serial: usize,
}

impl<T, G> Flights<T, G> {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), vacant: Vec::new(), serial: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    /// The place that it was given.
    pub(crate) fn begin(&mut self, job: Job<T, G>, handed: usize) -> usize {
        let unfinished = handed + job.len();
        let (id, lane, job) = (job.id, job.lane, Some(job));
        self.serial = self.serial.wrapping_add(1);
        let (serial, back, handled) = (self.serial, None, None);
        let flight = Some(Flight { id, lane, serial, job, handed, unfinished, back, handled });
        if let Some(place) = self.vacant.pop() {
            self.places[place] = flight;
            place
        } else {
            self.places.push(flight);
            self.places.len() - 1
        }
    }

    /// The number of the attempt begun last.
    pub(crate) fn serial(&self) -> usize {
        self.serial
    }

    /// Whether the handler is not done with an attempt.
    pub(crate) fn runs(&self, attempt: &Started) -> bool {
        self.places
            .get(attempt.place)
            .and_then(Option::as_ref)
            .is_some_and(|flight| flight.serial == attempt.index && flight.handled.is_none())
    }

    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut Flight<T, G>> {
        self.places.get_mut(place)?.as_mut()
    }

    /// Vacates a place whose job was taken out, and says which batch of which lane had it.
    pub(crate) fn end(&mut self, place: usize) -> Option<(u64, u32)> {
        let flight = self.places.get_mut(place)?.take()?;
        self.vacant.push(place);
        Some((flight.id, flight.lane))
    }

    /// Ends them all.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Flight<T, G>> + use<'_, T, G> {
        self.vacant.clear();
        self.places.drain(..).flatten()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Flight<T, G>> {
        self.places.iter().flatten()
    }
}
