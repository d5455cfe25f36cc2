//! The future that sends many items, each under its key.
//!
//! ```text
//!           taken out               room            as many more as there is room for
//!  items ───────────────▶ in hand ────────▶ accepted ──────────────────────────────────▶ accepted
//!    ▲                       │
//!    └───────────────────────┘ dropped, closed
//! ```

use core::future::Future;
use core::hash::{BuildHasher, Hash};
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::collections::VecDeque;

use super::buffers::{Hashed, LaneState};
use super::send::{COMPLETED, KeyedShared, Wait};
use crate::base::coop;
use crate::base::sync::HashBuilder;
use crate::batcher::error::SendManyError;
use crate::batcher::send::RUN;
use crate::batcher::shared::wake;
use crate::batcher::wake::Wakes;

#[must_use = "futures do nothing unless they are awaited"]
pub(crate) struct KeyedSendingMany<'a, K: Hash + Eq, T> {
    shared: &'a KeyedShared<K, T>,
    hasher: &'a HashBuilder,
    items: &'a mut VecDeque<(K, T)>,
    /// The first of the items: in hand until it is accepted, and else put back.
    key: Option<Hashed<K>>,
    item: Option<T>,
    weight: u64,
    /// The weight of the next item, once it was asked for.
    known: Option<u64>,
    wait: Wait,
    /// Keys that are not needed, until the lock is released.
    gone: Vec<Hashed<K>>,
}

impl<'a, K: Hash + Eq, T> KeyedSendingMany<'a, K, T> {
    pub(crate) fn new(
        shared: &'a KeyedShared<K, T>,
        hasher: &'a HashBuilder,
        items: &'a mut VecDeque<(K, T)>,
    ) -> Self {
        let wait = Wait::new(0, false);
        let gone = Vec::new();
        Self { shared, hasher, items, key: None, item: None, weight: 0, known: None, wait, gone }
    }

    /// Takes the next item in hand, if there is one.
    fn take_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, SendManyError>> {
        // What may panic comes first.
        let Some((key, item)) = self.items.front() else { return Poll::Ready(Ok(false)) };
        let weight = *self.known.get_or_insert_with(|| self.shared.weigh(item));
        if weight > self.shared.limits().max_weight {
            ready!(coop::poll_spend(cx));
            return Poll::Ready(Err(SendManyError::TooHeavy));
        }
        let hash = self.hasher.hash_one(key);
        self.known = None;
        self.weight = weight;
        self.wait = Wait::new(self.shared.limits().room_for(weight), false);
        Poll::Ready(Ok(self.take_next(hash)))
    }

    fn take_next(&mut self, hash: u64) -> bool {
        let Some((key, item)) = self.items.pop_front() else { return false };
        self.key = Some(Hashed { hash, key, lane: LaneState::Unknown });
        self.item = Some(item);
        true
    }

    fn put_back(&mut self) {
        if let (Some(key), Some(item)) = (self.key.take(), self.item.take()) {
            self.items.push_front((key.key, item));
        }
    }

    /// Accepts more, as long as there is room, in one critical section. One for which there is none
    /// is then in hand.
    fn run(&mut self) {
        // User code, so before the lock.
        let mut hashes = [0; RUN];
        let next = hashes.iter_mut().zip(self.items.iter());
        let run = next.map(|(hash, (key, _))| *hash = self.hasher.hash_one(key)).count();
        self.gone.reserve(run);
        // Woken after the lock, also if a key's `Eq` panics under it.
        let mut wakes = Wakes::default();
        let mut core = self.shared.lock();
        for hash in &hashes[..run] {
            self.take_next(*hash);
            let Some(key) = &mut self.key else { break };
            if !core.buffers.look_up(key) || core.take_capacity(0).is_err() {
                break;
            }
            if let (Some(key), Some(item)) = (self.key.take(), self.item.take()) {
                let (driver, key) = self.shared.accept_keyed(&mut core, key, || item, 0);
                wakes.driver(driver);
                self.gone.extend(key);
            }
        }
    }
}

// Keys and items are moved out, never pinned.
impl<K: Hash + Eq, T> Unpin for KeyedSendingMany<'_, K, T> {}

impl<K: Hash + Eq + Clone, T> Future for KeyedSendingMany<'_, K, T> {
    type Output = Result<(), SendManyError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.key.is_none() && this.items.is_empty() {
            ready!(coop::poll_spend(cx));
        }
        while this.key.is_some() || ready!(this.take_up(cx))? {
            let Self { shared, key, item, weight, wait, .. } = this;
            let accepted = ready!(wait.poll(shared, key, cx, |core, key| {
                shared.accept_keyed(core, key, || item.take().expect(COMPLETED), *weight)
            }));
            match accepted {
                Ok((driver, _key)) => wake(driver),
                Err(closed) => {
                    this.put_back();
                    return Poll::Ready(Err(closed.into()));
                }
            }
            // Items that are weighed go one by one: weighing is the user's code, and asked once.
            if !shared.is_weighed() {
                this.run();
                this.gone.clear();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<K: Hash + Eq, T> Drop for KeyedSendingMany<'_, K, T> {
    fn drop(&mut self) {
        self.wait.leave(self.shared);
        self.put_back();
    }
}
