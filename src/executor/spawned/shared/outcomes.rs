//! Outcomes that nobody has taken yet: kept by index, or queued for a stream.

use std::collections::VecDeque;

use crate::base::panic::drop_each;
use crate::settled::{ItemError, Settled};

/// What becomes of outcomes.
pub(in crate::executor::spawned) enum Outcomes<T, E> {
    /// All are kept.
    All(All<T, E>),
    AsCompleted(VecDeque<(usize, Settled<T, E>)>),
    /// Those from `next` on that are there.
    InOrder {
        next: usize,
        waiting: VecDeque<Option<Settled<T, E>>>,
    },
    /// Nobody wants them.
    Dropped,
}

/// Outcomes by index, and which of them are there.
pub(in crate::executor::spawned) struct All<T, E> {
    pub(in crate::executor::spawned) outcomes: Vec<Settled<T, E>>,
    /// A bit for each.
    there: Vec<u64>,
}

impl<T, E> All<T, E> {
    pub(super) fn with_room_for(inputs: usize) -> Self {
        let mut outcomes = Vec::new();
        // As much as promised, if that is a number to believe.
        let _ = outcomes.try_reserve(inputs);
        Self { outcomes, there: Vec::new() }
    }

    pub(super) fn put_all(
        &mut self,
        settled: impl Iterator<Item = (usize, Settled<T, E>)>,
        least: usize,
    ) {
        if self.outcomes.len() < least {
            self.outcomes.resize_with(least, || Err(ItemError::cancelled(false)));
            self.there.resize(least.div_ceil(64), 0);
        }
        for (index, outcome) in settled {
            self.there[index / 64] |= 1 << (index % 64);
            // What stood in for it has no destructor.
            core::mem::forget(core::mem::replace(&mut self.outcomes[index], outcome));
        }
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = Option<Settled<T, E>>> {
        let Self { outcomes, there } = self;
        let is_there = move |index: usize| there[index / 64] & 1 << (index % 64) != 0;
        let outcomes = outcomes.into_iter().enumerate();
        outcomes.map(move |(index, outcome)| is_there(index).then_some(outcome))
    }
}

impl<T, E> Outcomes<T, E> {
    /// Leaves them where they are if nobody wants them.
    pub(super) fn put_all(&mut self, settled: &mut Vec<(usize, Settled<T, E>)>) {
        match self {
            Self::All(all) => {
                let last = settled.iter().map(|(index, _)| *index).max();
                all.put_all(settled.drain(..), last.map_or(0, |last| last + 1));
            }
            Self::AsCompleted(queue) => queue.extend(settled.drain(..)),
            Self::InOrder { next, waiting } => {
                for (index, outcome) in settled.drain(..) {
                    let at = index - *next;
                    if waiting.len() <= at {
                        waiting.resize_with(at + 1, || None);
                    }
                    waiting[at] = Some(outcome);
                }
            }
            Self::Dropped => {}
        }
    }

    pub(super) fn take_next(&mut self) -> Option<(usize, Settled<T, E>)> {
        match self {
            Self::AsCompleted(queue) => queue.pop_front(),
            Self::InOrder { next, waiting } => {
                let outcome = waiting.front_mut()?.take()?;
                waiting.pop_front();
                *next += 1;
                Some((*next - 1, outcome))
            }
            Self::All(_) | Self::Dropped => None,
        }
    }

    pub(super) fn drop_each(self) {
        match self {
            Self::All(all) => drop_each(all.outcomes),
            Self::AsCompleted(queue) => drop_each(queue),
            Self::InOrder { waiting, .. } => drop_each(waiting),
            Self::Dropped => {}
        }
    }

    pub(super) fn are_streamed(&self) -> bool {
        matches!(self, Self::AsCompleted(_) | Self::InOrder { .. })
    }
}
