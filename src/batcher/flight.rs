//! The batches that are with the handler, each in a place that is used again.

use super::core::Job;

/// A batch in the handler: its items are in a guard, or were.
pub(crate) struct Flight<T> {
    pub(crate) id: u64,
    /// With the driver from when the guard is back until the batch is settled or goes on.
    pub(crate) job: Option<Job<T>>,
    /// How many items the guard was given.
    pub(crate) handed: usize,
    /// Those, and the parts of the batch that were not.
    pub(crate) unfinished: usize,
    /// What the guard held when it was dropped.
    pub(crate) back: Option<Vec<T>>,
    /// Whether the handler is done, and well; its guard may still be about.
    pub(crate) handled: Option<bool>,
}

impl<T> Flight<T> {
    pub(crate) fn is_over(&self) -> bool {
        self.handled.is_some() && self.back.is_some()
    }
}

pub(crate) struct Flights<T> {
    places: Vec<Option<Flight<T>>>,
    vacant: Vec<usize>,
}

impl<T> Flights<T> {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), vacant: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    /// The place that it was given.
    pub(crate) fn begin(&mut self, job: Job<T>, handed: usize) -> usize {
        let unfinished = handed + job.len();
        let (id, job) = (job.id, Some(job));
        let flight = Some(Flight { id, job, handed, unfinished, back: None, handled: None });
        if let Some(place) = self.vacant.pop() {
            self.places[place] = flight;
            place
        } else {
            self.places.push(flight);
            self.places.len() - 1
        }
    }

    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut Flight<T>> {
        self.places.get_mut(place)?.as_mut()
    }

    /// Vacates a place whose job was taken out, and says which batch had it.
    pub(crate) fn end(&mut self, place: usize) -> Option<u64> {
        let flight = self.places.get_mut(place)?.take()?;
        self.vacant.push(place);
        Some(flight.id)
    }

    /// Ends them all.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Flight<T>> + use<'_, T> {
        self.vacant.clear();
        self.places.drain(..).flatten()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Flight<T>> {
        self.places.iter().flatten()
    }
}
