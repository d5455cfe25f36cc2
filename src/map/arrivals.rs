//! The items of a whole map in order of arrival, kept only if they can expire.

use std::time::{Duration, Instant};

use super::slab::NONE;

#[derive(Debug, Clone, Copy)]
struct Link {
    at: Instant,
    older: u32,
    newer: u32,
}

/// A list through the items' slots, oldest arrival first. Without a time to live it stays empty
/// and every call does nothing.
#[derive(Debug)]
pub(super) struct Arrivals {
    time_to_live: Option<Duration>,
    /// By item slot; meaningful for the slots that are in the list.
    links: Vec<Link>,
    oldest: u32,
    newest: u32,
}

impl Arrivals {
    pub(super) fn new(time_to_live: Option<Duration>) -> Self {
        Self { time_to_live, links: Vec::new(), oldest: NONE, newest: NONE }
    }

    pub(super) fn push(&mut self, slot: u32, now: Option<Instant>) {
        let (Some(_), Some(now)) = (self.time_to_live, now) else { return };
        // Never before the newest, so that the list stays sorted whatever the caller's clock does.
        let at = self.links.get(self.newest as usize).map_or(now, |newest| newest.at.max(now));
        let link = Link { at, older: self.newest, newer: NONE };
        match self.links.get_mut(slot as usize) {
            Some(place) => *place = link,
            // Slots are handed out without gaps, so this one is the next.
            None => self.links.push(link),
        }
        match self.newest {
            NONE => self.oldest = slot,
            newest => self.links[newest as usize].newer = slot,
        }
        self.newest = slot;
    }

    pub(super) fn remove(&mut self, slot: u32) {
        if self.time_to_live.is_none() {
            return;
        }
        let Link { older, newer, .. } = self.links[slot as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.links[newer as usize].older = older,
        }
    }

    /// The slot of the oldest item, of which there must be one.
    pub(super) fn oldest(&self) -> u32 {
        self.oldest
    }

    /// When the oldest item is due; `None` also if that lies beyond what an `Instant` can say.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let oldest = self.links.get(self.oldest as usize)?;
        oldest.at.checked_add(self.time_to_live?)
    }

    /// The slots of the items that are due at `now`, oldest arrival first.
    pub(super) fn overdue(&self, now: Instant) -> impl Iterator<Item = u32> + '_ {
        let mut next = self.oldest;
        core::iter::from_fn(move || {
            let time_to_live = self.time_to_live?;
            let slot = next;
            let link = self.links.get(slot as usize)?;
            // Subtracting cannot overflow, adding could.
            if now.saturating_duration_since(link.at) < time_to_live {
                return None;
            }
            next = link.newer;
            Some(slot)
        })
    }
}
