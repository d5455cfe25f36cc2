//! Emptied vectors, kept for batches to come.

/// They have room for `most` items together, and not more.
pub(crate) struct Spares<T> {
    vectors: Vec<Vec<T>>,
    items: usize,
    most: usize,
}

impl<T> Spares<T> {
    pub(crate) fn new(most: usize) -> Self {
        Self { vectors: Vec::new(), items: 0, most }
    }

    #[inline]
    pub(crate) fn take(&mut self) -> Option<Vec<T>> {
        let vector = self.vectors.pop()?;
        self.items -= vector.capacity();
        Some(vector)
    }

    /// Keeps an empty vector, if it is worth keeping and not one too many.
    pub(crate) fn keep(&mut self, vector: Vec<T>) {
        debug_assert!(vector.is_empty(), "what is in it would be lost");
        let room = vector.capacity();
        if room > 0 && room <= self.most - self.items {
            self.items += room;
            self.vectors.push(vector);
        }
    }
}
